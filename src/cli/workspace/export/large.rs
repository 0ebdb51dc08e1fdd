//! Patches of files that git makes none of, as it counts their bytes in an int (builtin/../diff.c, deflate_it), but takes: the difference of two
//! contents as a delta (gitformat-pack), deflated, in base 85, as `git diff --binary` writes it.
//!
//! Both contents pass by once, side by side. What was changed in its place, or put at the end, is found; what was put in the middle of a file moves
//! the rest of it, and all of that counts as changed.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::git::Mode;

/// From this size on, in bytes, files are compared here. git takes such for binary itself (core.bigFileThreshold). For tests a megabyte is large.
pub const LARGE: u64 = if cfg!(test) { 1 << 20 } else { 512 << 20 };
/// The longest difference, in bytes: it is kept in memory, and `git apply` takes a patch of 1 GiB (apply.c, MAX_APPLY_SIZE).
pub const MAX_DELTA: usize = 512 << 20;
/// The longest new file: `git apply` counts its bytes in an int.
pub const MAX_NEW: u64 = i32::MAX as u64;
/// A delta's offsets have four bytes.
const MAX_OLD: u64 = u32::MAX as u64;

const BLOCK: usize = 64 << 10;
/// How finely contents are compared, in bytes: an instruction to copy has up to eight.
const GRAIN: usize = 64;
const MAX_COPY: u64 = 0xff_ffff;
const MAX_INSERT: usize = 0x7f;

/// One side of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    pub mode: Mode,
    pub id: String,
    pub size: u64,
}

/// A file that is not left to git.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Large {
    pub path: Vec<u8>,
    pub old: Option<Side>,
    pub new: Option<Side>,
}

impl Large {
    /// Whether a file is one: large, and of another content.
    pub fn is_one(old: Option<&Side>, new: Option<&Side>) -> bool {
        let size = |side: Option<&Side>| side.map_or(0, |side| side.size);
        size(old).max(size(new)) > LARGE && old.map(|old| &old.id) != new.map(|new| &new.id)
    }

    /// Why there can be no patch of it; a sentence's end.
    pub fn refused(&self) -> Option<&'static str> {
        let is_link = |side: &Option<Side>| side.as_ref().is_some_and(|side| side.mode == Mode::Symlink);
        match (&self.old, &self.new) {
            (None, Some(new)) if new.size > MAX_NEW => {
                Some("is new and has 2 GiB or more, which `git apply` does not take")
            }
            (Some(old), Some(_)) if old.size > MAX_OLD => {
                Some("had 4 GiB or more, which a patch cannot refer to")
            }
            _ if is_link(&self.old) || is_link(&self.new) => {
                Some("was a large file or is one, and a symlink on the other side")
            }
            _ => None,
        }
    }

    /// What is before the difference (git-diff(1), generating patch text with -p).
    fn head(&self) -> Vec<u8> {
        let none = |side: &Side| "0".repeat(side.id.len());
        let mut head =
            [&b"diff --git "[..], &quoted(b"a/", &self.path), b" ", &quoted(b"b/", &self.path), b"\n"]
                .concat();
        let lines = match (&self.old, &self.new) {
            (Some(old), Some(new)) if old.mode == new.mode => {
                format!("index {}..{} {}\n", old.id, new.id, new.mode.word())
            }
            (Some(old), Some(new)) => format!(
                "old mode {}\nnew mode {}\nindex {}..{}\n",
                old.mode.word(),
                new.mode.word(),
                old.id,
                new.id
            ),
            (Some(old), None) => {
                format!("deleted file mode {}\nindex {}..{}\n", old.mode.word(), old.id, none(old))
            }
            (None, Some(new)) => {
                format!("new file mode {}\nindex {}..{}\n", new.mode.word(), none(new), new.id)
            }
            (None, None) => String::new(),
        };
        head.extend(lines.into_bytes());
        head.extend(b"GIT binary patch\n");
        head
    }

    /// Writes its patch, without the way back. `old` and `new` are its contents.
    ///
    /// # Errors
    /// Those of `old` and `new`, and `FileTooLarge` where they differ too much: [`Failed::From`]. Those of `to`: [`Failed::To`].
    pub fn write(&self, old: &mut dyn Read, new: &mut dyn Read, to: &mut dyn Write) -> Result<(), Failed> {
        to.write_all(&self.head()).map_err(Failed::To)?;
        let size = |side: &Option<Side>| side.as_ref().map_or(0, |side| side.size);
        // What has become short is written as it is; git takes no delta of less than four bytes.
        if self.old.is_some() && size(&self.new) > BLOCK as u64 {
            let delta = delta(old, size(&self.old), new, size(&self.new)).map_err(Failed::From)?;
            writeln!(to, "delta {}", delta.len()).map_err(Failed::To)?;
            encode(&mut &delta[..], to)?;
        } else {
            writeln!(to, "literal {}", size(&self.new)).map_err(Failed::To)?;
            encode(&mut new.take(size(&self.new)), to)?;
        }
        to.write_all(b"\n").map_err(Failed::To)
    }
}

/// Whose fault it is.
#[derive(Debug)]
pub enum Failed {
    From(io::Error),
    To(io::Error),
}

/// A name in a patch; one with bytes that are not plain is quoted as C has it (git's quote.c).
fn quoted(side: &[u8], path: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if path.iter().all(plain) {
        return [side, path].concat();
    }
    let mut name = [b"\"", side].concat();
    for byte in path {
        match byte {
            byte if plain(byte) => name.push(*byte),
            byte => name.extend(format!("\\{byte:03o}").into_bytes()),
        }
    }
    name.push(b'"');
    name
}

/// What makes `new` of `old`.
fn delta(old: &mut dyn Read, old_size: u64, new: &mut dyn Read, new_size: u64) -> io::Result<Vec<u8>> {
    let mut made = Delta { out: vec![], copied: (0, 0), inserted: vec![] };
    made.size(old_size);
    made.size(new_size);
    let (mut before, mut now) = (vec![], vec![]);
    let mut at = 0;
    loop {
        next(old, &mut before)?;
        next(new, &mut now)?;
        if now.is_empty() {
            break;
        }
        for (number, piece) in now.chunks(GRAIN).enumerate() {
            let from = number * GRAIN;
            match before.get(from..from + piece.len()) == Some(piece) {
                true => made.copy(at + from as u64, piece.len() as u64),
                false => made.insert(piece),
            }
        }
        at += now.len() as u64;
        if made.out.len() > MAX_DELTA {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
    if at != new_size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    made.end_copy();
    made.end_insert();
    Ok(made.out)
}

/// Puts the next block in the place of the one before; a shorter one is the last.
fn next(from: &mut dyn Read, block: &mut Vec<u8>) -> io::Result<()> {
    block.clear();
    from.take(BLOCK as u64).read_to_end(block).map(drop)
}

struct Delta {
    out: Vec<u8>,
    /// Where in the old content, and how much of it.
    copied: (u64, u64),
    inserted: Vec<u8>,
}

impl Delta {
    fn size(&mut self, mut size: u64) {
        while size > 0x7f {
            self.out.push(size as u8 | 0x80);
            size >>= 7;
        }
        self.out.push(size as u8);
    }

    fn copy(&mut self, from: u64, length: u64) {
        self.end_insert();
        match self.copied {
            (start, before) if start + before == from && before > 0 => self.copied.1 += length,
            _ => {
                self.end_copy();
                self.copied = (from, length);
            }
        }
    }

    fn insert(&mut self, bytes: &[u8]) {
        self.end_copy();
        self.inserted.extend(bytes);
        if self.inserted.len() >= BLOCK {
            self.end_insert();
        }
    }

    fn end_copy(&mut self) {
        let (mut from, mut left) = std::mem::take(&mut self.copied);
        while left > 0 {
            let length = left.min(MAX_COPY);
            let number = from.to_le_bytes();
            let count = length.to_le_bytes();
            // A bit for each byte that is there; the others are 0.
            let bytes: Vec<u8> = [&number[..4], &count[..3]].concat();
            let mut op = 0x80;
            let head = self.out.len();
            self.out.push(0);
            for (bit, byte) in bytes.iter().enumerate().filter(|(_, byte)| **byte != 0) {
                op |= 1 << bit;
                self.out.push(*byte);
            }
            self.out[head] = op;
            (from, left) = (from + length, left - length);
        }
    }

    fn end_insert(&mut self) {
        for piece in self.inserted.chunks(MAX_INSERT) {
            self.out.push(piece.len() as u8);
            self.out.extend(piece);
        }
        self.inserted.clear();
    }
}

/// Writes what `from` holds, deflated, in lines of base 85.
fn encode(from: &mut dyn Read, to: &mut dyn Write) -> Result<(), Failed> {
    let mut encoder = ZlibEncoder::new(Lines { to, held: vec![] }, Compression::fast());
    let mut block = vec![];
    loop {
        next(from, &mut block).map_err(Failed::From)?;
        if block.is_empty() {
            break;
        }
        encoder.write_all(&block).map_err(Failed::To)?;
    }
    let mut lines = encoder.finish().map_err(Failed::To)?;
    lines.end().map_err(Failed::To)
}

/// Each line says by a letter how many bytes it holds (git's diff.c, emit_binary_diff_body).
struct Lines<'a> {
    to: &'a mut dyn Write,
    held: Vec<u8>,
}

const LINE: usize = 52;
const DIGITS: &[u8; 85] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";

impl Lines<'_> {
    fn end(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.held);
        if rest.is_empty() { Ok(()) } else { self.line(&rest) }
    }

    fn line(&mut self, bytes: &[u8]) -> io::Result<()> {
        let letter = match bytes.len() as u8 {
            short @ 1..=26 => b'A' + short - 1,
            long => b'a' + long - 27,
        };
        let mut line = vec![letter];
        for four in bytes.chunks(4) {
            let mut word = [0; 4];
            word[..four.len()].copy_from_slice(four);
            let mut number = u32::from_be_bytes(word) as usize;
            let mut digits = [0; 5];
            for digit in digits.iter_mut().rev() {
                *digit = DIGITS[number % 85];
                number /= 85;
            }
            line.extend(digits);
        }
        line.push(b'\n');
        self.to.write_all(&line)
    }
}

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend(bytes);
        let whole = self.held.len() / LINE * LINE;
        let rest = self.held.split_off(whole);
        let lines = std::mem::replace(&mut self.held, rest);
        lines.chunks(LINE).try_for_each(|line| self.line(line))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::git::{Format, Hasher};
    use crate::host::cmd::git::Git;

    fn side(mode: Mode, content: &[u8]) -> Side {
        let mut hasher = Hasher::object(Format::Sha1, "blob", content.len() as u64);
        hasher.update(content);
        Side { mode, id: hasher.finish().to_string(), size: content.len() as u64 }
    }

    fn patch(path: &[u8], old: Option<(Mode, &[u8])>, new: Option<(Mode, &[u8])>) -> Vec<u8> {
        let made = |side_of: Option<(Mode, &[u8])>| side_of.map(|(mode, content)| side(mode, content));
        let large = Large { path: path.to_vec(), old: made(old), new: made(new) };
        let content = |side: Option<(Mode, &[u8])>| side.map_or(vec![], |(_, content)| content.to_vec());
        let mut out = vec![];
        large.write(&mut &content(old)[..], &mut &content(new)[..], &mut out).expect("writes");
        out
    }

    fn apply(top: &Path, patch: &[u8]) {
        fs::write(top.join("patch"), patch).expect("writes");
        Git::from(top).read(&["apply", "patch"]).expect("applies");
        fs::remove_file(top.join("patch")).expect("removes");
    }

    #[test]
    fn git_applies_what_is_written() {
        let long: Vec<u8> = (0..40_000_000u32).map(|n| (n >> 12) as u8).collect();
        let changed = |at: usize, with: &[u8]| {
            let mut content = long.clone();
            content[at..at + with.len()].copy_from_slice(with);
            content
        };
        let other: Vec<u8> =
            (0..300_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let contents: [(&[u8], &[u8]); 9] = [
            (b"small\n", b"other\n"),
            (b"", &other),
            (b"to nothing", b""),
            (&long, &changed(17_000_001, b"in the middle")),
            (&long, &changed(0, b"first")),
            (&long, &[&long[..], b"longer"].concat()),
            (&long, &long[..16_777_216 + 65_536]),
            (&long[..70_000], &other),
            (&other, &long[..70_000]),
        ];
        let dir = tempfile::tempdir().expect("a directory");
        let names: [&[u8]; 3] = [b"plain name", b"new\nline\t\"quoted\" \\ \xff", b"a b/c"];
        let modes = [Mode::File, Mode::Executable];
        fs::create_dir(dir.path().join("a b")).expect("makes");
        for (number, (old, new)) in contents.into_iter().enumerate() {
            let name = names[number % names.len()];
            let path = dir.path().join(OsStr::from_bytes(name));
            let (was, is) = (modes[number % 2], modes[number / 2 % 2]);
            let run = if was == Mode::Executable { 0o755 } else { 0o644 };
            apply(dir.path(), &patch(name, None, Some((was, old))));
            assert_eq!(path.metadata().expect("stats").permissions().mode() & 0o777, run);
            assert!(fs::read(&path).expect("reads") == old, "{number}");
            apply(dir.path(), &patch(name, Some((was, old)), Some((is, new))));
            assert!(fs::read(&path).expect("reads") == new, "{number}");
            let run = if is == Mode::Executable { 0o755 } else { 0o644 };
            assert_eq!(path.metadata().expect("stats").permissions().mode() & 0o777, run);
            apply(dir.path(), &patch(name, Some((is, new)), None));
            assert!(!path.exists(), "{number}");
        }
    }

    #[test]
    fn a_small_change_of_a_long_file_is_a_short_patch() {
        let old = vec![0; 40_000_000];
        let mut new = old.clone();
        new[12_345_678] = 1;
        let patch = patch(b"f", Some((Mode::File, &old)), Some((Mode::File, &new)));
        assert!(patch.len() < 400, "{}", String::from_utf8_lossy(&patch));
    }

    #[test]
    fn what_git_does_not_take_is_not_tried() {
        let of = |mode, size: u64| Some(Side { mode, id: size.to_string(), size });
        let large = |old, new| Large { path: b"f".to_vec(), old, new };
        let gib = 1 << 30;
        for (old, new, refused) in [
            (None, of(Mode::File, 2 * gib - 1), false),
            (None, of(Mode::File, 2 * gib), true),
            (of(Mode::File, 3 * gib), of(Mode::File, 3 * gib + 1), false),
            (of(Mode::File, 4 * gib), of(Mode::File, 1), true),
            (of(Mode::File, 3 * gib), of(Mode::Symlink, 1), true),
            (of(Mode::File, 5 * gib), None, false),
        ] {
            let large = large(old, new);
            assert_eq!(large.refused().is_some(), refused, "{large:?}");
            assert!(Large::is_one(large.old.as_ref(), large.new.as_ref()));
        }
        let (a, b) = (of(Mode::File, 3 * gib), of(Mode::Executable, 3 * gib));
        assert!(!Large::is_one(a.as_ref(), b.as_ref()), "only its mode");
        assert!(!Large::is_one(of(Mode::File, 1).as_ref(), of(Mode::File, LARGE).as_ref()));
    }
}
