//! git's index: read as `git ls-files -s -z` prints it, written as gitformat-index has it (version 2).

use std::io::{self, Write};

use super::{Format, Hasher, Id, Mode, parse_path};

/// A line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub mode: Mode,
    pub id: Id,
    /// 0, or of a conflict 1 to 3.
    pub stage: u8,
    pub path: Vec<u8>,
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
    /// Parses `mode id stage TAB path`, without the NUL after it. None: it is no such line, or not one that may be checked out.
    pub fn parse(line: &[u8], format: Format) -> Option<Self> {
        let tab = line.iter().position(|b| *b == b'\t')?;
        let mut words = line[..tab].split(|b| *b == b' ');
        let mode = match words.next()? {
            // Gits of old times stored group-writable files so.
            b"100664" => Mode::File,
            word => Mode::parse(word).filter(|mode| *mode != Mode::Directory)?,
        };
        let id = Id::parse(words.next()?).filter(|id| id.bytes().len() == format.id_bytes())?;
        let stage = match words.next()? {
            [digit @ b'0'..=b'3'] => digit - b'0',
            _ => return None,
        };
        let path = parse_path(&line[tab + 1..]).ok()?.to_vec();
        words.next().is_none().then_some(Self { mode, id, stage, path })
    }
}

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
    put(b"DIRC\0\0\0\x02")?;
    put(&(entries.len() as u32).to_be_bytes())?;
    let mut bytes = vec![];
    for entry in entries {
        let mode = match entry.mode {
            Mode::File => 0o100_644,
            Mode::Executable => 0o100_755,
            Mode::Symlink => 0o120_000,
            Mode::Gitlink | Mode::Directory => 0o160_000,
        };
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
            mode,
            stat.uid,
            stat.gid,
            stat.size as u32,
        ] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(entry.id.bytes());
        let length = entry.path.len().min(0xfff) as u16;
        bytes.extend((u16::from(entry.stage) << 12 | length).to_be_bytes());
        bytes.extend(&entry.path);
        // One to eight NULs, so that its length is a multiple of eight.
        bytes.resize((bytes.len() + 8) & !7, 0);
        put(&bytes)?;
    }
    to.write_all(hasher.finish().bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_may_be_checked_out_are_taken() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let parse = |line: &str| Entry::parse(line.as_bytes(), Format::Sha1);
        for line in
            [format!("100644 {id} 0\ta\tb"), format!("160000 {id} 3\ts"), format!("100664 {id} 0\told")]
        {
            assert!(parse(&line).is_some(), "{line:?}");
        }
        for line in [
            String::new(),
            format!("100644 {id} 4\ta"),
            format!("100644 {id} 0 x\ta"),
            format!("040000 {id} 0\ta"),
            format!("100644 {id}00 0\ta"),
            format!("100644 {id} 0\t.git/config"),
            format!("100644 {id} 0 a"),
            format!("100644 {id}{} 0\ta", "0".repeat(24)),
        ] {
            assert!(parse(&line).is_none(), "{line:?}");
        }
    }
}
