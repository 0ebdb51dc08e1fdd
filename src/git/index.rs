//! git's index: read as `git ls-files -s -z` prints it, with a word for its flags, written as gitformat-index has it (version 2, or 3 where it has to
//! be); and a digest of what one says, to know whether two say the same.

use std::fmt;
use std::io::{self, Write};

use super::{BadPath, Format, Hasher, Id, Mode, parse_path};

/// A line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub mode: Mode,
    pub id: Id,
    /// 0, or of a conflict 1 to 3.
    pub stage: u8,
    pub flags: Flags,
    pub path: Vec<u8>,
}

/// What git has been told of a path, beside what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// Its file is not looked at (`git update-index --assume-unchanged`).
    pub assumed: bool,
    /// Its file is not to be there, or not looked at (skip-worktree: a sparse checkout's).
    pub skipped: bool,
    /// It is to be added, and nothing of it is here yet (`git add -N`).
    pub announced: bool,
}

/// Why a line is no entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadEntry {
    Line(Vec<u8>),
    /// It may not be checked out.
    Path(BadPath),
}

/// What git compares to know a file unchanged without reading it. All zero: it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stat {
    pub ctime: (i64, u32),
    pub mtime: (i64, u32),
    pub device: u64,
    pub inode: u64,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
}

impl Entry {
    /// Parses `mode id stage TAB path`, or `mode id stage flags TAB path`, without the NUL after it.
    pub fn parse(line: &[u8], format: Format) -> Result<Self, BadEntry> {
        let bad = || BadEntry::Line(line.to_vec());
        let tab = line.iter().position(|b| *b == b'\t').ok_or_else(bad)?;
        let (mode, id, stage, flags) = words(&line[..tab], format).ok_or_else(bad)?;
        let path = parse_path(&line[tab + 1..]).map_err(BadEntry::Path)?.to_vec();
        Ok(Self { mode, id, stage, flags, path })
    }

    /// As it is parsed, and a NUL.
    pub fn write_line(&self, to: &mut Vec<u8>) {
        to.extend(format!("{} {} {}", self.mode.word(), self.id, self.stage).into_bytes());
        if self.flags != Flags::default() {
            to.push(b' ');
            to.extend(self.flags.letters());
        }
        to.push(b'\t');
        to.extend(&self.path);
        to.push(0);
    }
}

fn words(text: &[u8], format: Format) -> Option<(Mode, Id, u8, Flags)> {
    let mut words = text.split(|b| *b == b' ');
    let mode = Mode::listed(words.next()?).filter(|mode| *mode != Mode::Directory)?;
    let id = Id::parse(words.next()?).filter(|id| id.bytes().len() == format.id_bytes())?;
    let stage = match words.next()? {
        [digit @ b'0'..=b'3'] => digit - b'0',
        _ => return None,
    };
    let flags = words.next().map_or(Some(Flags::default()), Flags::parse)?;
    words.next().is_none().then_some((mode, id, stage, flags))
}

impl Flags {
    fn parse(letters: &[u8]) -> Option<Self> {
        let has = |letter| letters.contains(&letter);
        let flags = Self { assumed: has(b'a'), skipped: has(b's'), announced: has(b'n') };
        (!letters.is_empty() && flags.letters().eq(letters.iter().copied())).then_some(flags)
    }

    fn letters(self) -> impl Iterator<Item = u8> {
        let all = [(self.assumed, b'a'), (self.skipped, b's'), (self.announced, b'n')];
        all.into_iter().filter_map(|(is, letter)| is.then_some(letter))
    }

    /// Those of every entry (gitformat-index), and those that there are from version 3 on.
    fn bits(self) -> (u16, u16) {
        let bit = |is: bool, bit: u16| if is { bit } else { 0 };
        let more = bit(self.skipped, SKIPPED) | bit(self.announced, ANNOUNCED);
        (bit(self.assumed, ASSUMED_VALID), more)
    }
}

impl fmt::Display for BadEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => {
                write!(f, "\"{}\" is no entry of an index", line[..line.len().min(200)].escape_ascii())
            }
            Self::Path(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for BadEntry {}

/// Writes an index of `entries`, which are sorted by path, then stage, and what `stat` says of each.
pub fn write(
    to: &mut impl Write,
    format: Format,
    entries: &[Entry],
    mut stat: impl FnMut(&Entry) -> Stat,
) -> io::Result<()> {
    let mut hasher = Hasher::new(format);
    let mut put = |bytes: &[u8]| {
        hasher.update(bytes);
        to.write_all(bytes)
    };
    let extended = entries.iter().any(|entry| entry.flags.bits().1 != 0);
    put(if extended { b"DIRC\0\0\0\x03" } else { b"DIRC\0\0\0\x02" })?;
    put(&(entries.len() as u32).to_be_bytes())?;
    let mut bytes = vec![];
    for entry in entries {
        let stat = stat(entry);
        bytes.clear();
        // git keeps of each number what fits, and compares so.
        let seconds = |seconds: i64| seconds as u32;
        for number in [
            seconds(stat.ctime.0),
            stat.ctime.1,
            seconds(stat.mtime.0),
            stat.mtime.1,
            stat.device as u32,
            stat.inode as u32,
            bits(entry.mode),
            stat.uid,
            stat.gid,
            stat.size as u32,
        ] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(entry.id.bytes());
        let length = entry.path.len().min(0xfff) as u16;
        let (flags, more) = entry.flags.bits();
        let flags = flags | if more == 0 { 0 } else { EXTENDED };
        bytes.extend((flags | u16::from(entry.stage) << 12 | length).to_be_bytes());
        if more != 0 {
            bytes.extend(more.to_be_bytes());
        }
        bytes.extend(&entry.path);
        // One to eight NULs, so that its length is a multiple of eight.
        bytes.resize((bytes.len() + 8) & !7, 0);
        put(&bytes)?;
    }
    to.write_all(hasher.finish().bytes())
}

/// The digest of an index of these entries, sorted as they are for [`write`].
pub fn digest(format: Format, entries: &[Entry]) -> Id {
    let mut hasher = Hasher::new(format);
    for entry in entries {
        let (flags, more) = entry.flags.bits();
        let flags = flags | u16::from(entry.stage) << 12;
        add(&mut hasher, bits(entry.mode), entry.id.bytes(), flags, more, &entry.path);
    }
    hasher.finish()
}

/// The digest of an index file of version 2, 3 or 4: of modes, ids, stages, flags and paths, not of what git knows of files, which it looks up anew whenever
/// it likes. None: it is damaged, or is not whole without another file, or git has put something into it that has to be understood.
pub fn digest_of_file(format: Format, file: &[u8]) -> Option<Id> {
    let (content, _checksum) = file.split_at_checked(file.len().checked_sub(format.id_bytes())?)?;
    let mut rest = content.strip_prefix(b"DIRC")?;
    let version = u32::from_be_bytes(rest.split_off(..4)?.try_into().ok()?);
    let mut count = u32::from_be_bytes(rest.split_off(..4)?.try_into().ok()?);
    if !(2..=4).contains(&version) {
        return None;
    }
    let mut hasher = Hasher::new(format);
    let mut path = vec![];
    while count > 0 {
        count -= 1;
        let before = rest.len();
        // Times, device and inode, then the mode, then owner and size.
        rest.split_off(..24)?;
        let mode = u32::from_be_bytes(rest.split_off(..4)?.try_into().ok()?);
        rest.split_off(..12)?;
        let id = rest.split_off(..format.id_bytes())?;
        let flags = u16::from_be_bytes(rest.split_off(..2)?.try_into().ok()?);
        let more = match flags & EXTENDED {
            0 => 0,
            _ => u16::from_be_bytes(rest.split_off(..2)?.try_into().ok()?),
        };
        match version {
            4 => path.truncate(path.len().checked_sub(offset(&mut rest)?)?),
            _ => path.clear(),
        }
        let end = rest.iter().position(|b| *b == 0)?;
        path.extend_from_slice(rest.split_off(..end)?);
        match version {
            4 => rest.split_off(..1)?,
            _ => rest.split_off(..((before - rest.len() + 8) & !7).checked_sub(before - rest.len())?)?,
        };
        add(&mut hasher, mode, id, flags & (ASSUMED_VALID | STAGE), more, &path);
    }
    while !rest.is_empty() {
        // Only an extension whose name begins so may be passed over.
        let name = rest.split_off(..4)?;
        let size = u32::from_be_bytes(rest.split_off(..4)?.try_into().ok()?);
        rest.split_off(..size as usize)?;
        if !name[0].is_ascii_uppercase() {
            return None;
        }
    }
    Some(hasher.finish())
}

/// Of an entry's flags: `git update-index --assume-unchanged`, there are more of them, the stage.
const ASSUMED_VALID: u16 = 0x8000;
const EXTENDED: u16 = 0x4000;
const STAGE: u16 = 0x3000;
/// Of those that there are more.
const SKIPPED: u16 = 0x4000;
const ANNOUNCED: u16 = 0x2000;

fn add(hasher: &mut Hasher, mode: u32, id: &[u8], flags: u16, more: u16, path: &[u8]) {
    hasher.update(&mode.to_be_bytes());
    hasher.update(id);
    hasher.update(&flags.to_be_bytes());
    hasher.update(&more.to_be_bytes());
    hasher.update(path);
    hasher.update(&[0]);
}

/// As git's offset deltas have it (gitformat-pack): how much of the path before is not in this one.
fn offset(rest: &mut &[u8]) -> Option<usize> {
    let mut byte = *rest.split_off_first()?;
    let mut value = usize::from(byte & 127);
    while byte & 128 != 0 {
        byte = *rest.split_off_first()?;
        value = value.checked_add(1)?.checked_mul(128)? | usize::from(byte & 127);
    }
    Some(value)
}

fn bits(mode: Mode) -> u32 {
    match mode {
        Mode::File => 0o100_644,
        Mode::Executable => 0o100_755,
        Mode::Symlink => 0o120_000,
        Mode::Gitlink | Mode::Directory => 0o160_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_is_cut_off_or_needs_another_file_is_not_read() {
        let id = Id::parse(b"0123456789abcdef0123456789abcdef01234567").expect("an id");
        let entry = |(path, announced): (&str, bool)| {
            let flags = Flags { announced, ..Flags::default() };
            Entry { mode: Mode::File, id, stage: 0, flags, path: path.into() }
        };
        let entries = [("a", false), ("bcdefgh", true), (&*"long".repeat(1100), false)].map(entry);
        let mut file = vec![];
        write(&mut file, Format::Sha1, &entries, |_| Stat::default()).expect("writes");
        assert_eq!(digest_of_file(Format::Sha1, &file), Some(digest(Format::Sha1, &entries)));
        for length in 0..file.len() {
            assert_eq!(digest_of_file(Format::Sha1, &file[..length]), None, "{length}");
        }
        let with = |name: &[u8]| {
            let checksum = file.len() - 20;
            let extension = [name, b"\0\0\0\x02xx"].concat();
            digest_of_file(Format::Sha1, &[&file[..checksum], &extension, &file[checksum..]].concat())
        };
        assert_eq!(with(b"TREE"), Some(digest(Format::Sha1, &entries)));
        assert_eq!(with(b"link"), None);
    }

    #[test]
    fn only_lines_that_may_be_checked_out_are_taken() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let parse = |line: &str| Entry::parse(line.as_bytes(), Format::Sha1);
        for line in
            [format!("100644 {id} 0\ta\tb"), format!("160000 {id} 3\ts"), format!("100664 {id} 0\told")]
        {
            let entry = parse(&line).expect(&line);
            let mut written = vec![];
            entry.write_line(&mut written);
            assert_eq!(Entry::parse(&written[..written.len() - 1], Format::Sha1), Ok(entry));
        }
        for (word, assumed, skipped, announced) in
            [("a", true, false, false), ("sn", false, true, true), ("asn", true, true, true)]
        {
            let entry = parse(&format!("100644 {id} 0 {word}\ta")).expect(word);
            assert_eq!(entry.flags, Flags { assumed, skipped, announced });
            let mut written = vec![];
            entry.write_line(&mut written);
            assert_eq!(written, format!("100644 {id} 0 {word}\ta\0").into_bytes());
        }
        for line in [
            String::new(),
            format!("100644 {id} 4\ta"),
            format!("100644 {id} 0 x\ta"),
            format!("100644 {id} 0 \ta"),
            format!("100644 {id} 0 sa\ta"),
            format!("100644 {id} 0 a s\ta"),
            format!("040000 {id} 0\ta"),
            format!("100644 {id}00 0\ta"),
            format!("100644 {id} 0\t.git/config"),
            format!("100644 {id} 0 a"),
            format!("100644 {id}{} 0\ta", "0".repeat(24)),
        ] {
            assert!(parse(&line).is_err(), "{line:?}");
        }
    }
}
