//! What was placed, remembered on the guest's disk: a line of JSON, then each path with what its file looked like then, so that a file
//! that was not touched need not be read to know it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::tree::{Found, Tree};
use crate::git::index::Stat;
use crate::git::pack::hash_blob;
use crate::git::{Format, Hasher, Id, MAX_PATH, Mode};
use crate::proto::workspace::{Fate, MAX_PATHS, Placed, Present, Record, Stamp};

#[derive(Debug, Default)]
pub struct Ledger {
    pub header: Header,
    pub records: BTreeMap<Vec<u8>, Known>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Header {
    pub placed: Option<Placed>,
    /// The work tree's `.git` is ours.
    pub repository: bool,
    pub format: Format,
    /// What the host's index said that was placed last ([`crate::git::index::digest`]), by where the repository is in the work tree.
    #[serde(default)]
    pub indices: BTreeMap<String, String>,
    /// The guest's clock when it was written: what was touched then or later may have been so unseen.
    written: (i64, u32),
}

/// A path that was placed.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    pub mode: Mode,
    /// None: a directory.
    pub id: Option<Id>,
    pub stamp: Stamp,
    /// What the file looked like when it was what was placed.
    pub stat: Option<Stat>,
}

/// What has become of a path that was placed.
#[derive(Debug, Clone, Copy)]
pub struct Became {
    pub fate: Fate,
    /// What is there now.
    pub found: Option<Found>,
    /// The blob that it is, if it was changed, and is one.
    pub id: Option<Id>,
}

/// The ledger of one path, kept from others while this lives.
pub struct Place {
    file: PathBuf,
    _lock: File,
}

/// Where the ledger of a path is.
pub fn file(directory: &Path, path: &str) -> PathBuf {
    let mut hasher = Hasher::new(Format::Sha256);
    hasher.update(path.as_bytes());
    directory.join(hasher.finish().to_string())
}

impl Place {
    /// None: somebody else has it.
    pub fn lock(directory: &Path, path: &str) -> io::Result<Option<Self>> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let file = file(directory, path);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(file.with_extension("lock"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file, _lock: lock })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    pub fn read(&self) -> io::Result<Option<Ledger>> {
        Ledger::read(&self.file)
    }

    /// Replaces the ledger, or leaves it as it is.
    pub fn write(&self, ledger: &mut Ledger) -> io::Result<()> {
        let new = self.file.with_extension("new");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        // What the kernel gives files that are touched now (current_time, fs/inode.c), or earlier.
        let now = clock_gettime(ClockId::RealtimeCoarse);
        ledger.header.written = (now.tv_sec, now.tv_nsec as u32);
        let mut out = BufWriter::new(file);
        serde_json::to_writer(&mut out, &ledger.header)?;
        out.write_all(b"\n")?;
        let mut bytes = vec![];
        for (path, known) in &ledger.records {
            bytes.clear();
            known.record(path, Fate::Unchanged, None).write(&mut bytes);
            if let Some(stat) = known.stat {
                let Stat { ctime, mtime, device, inode, uid, gid, size } = stat;
                let numbers = format!("{} {} {} {}", ctime.0, ctime.1, mtime.0, mtime.1);
                bytes.extend(format!("{numbers} {device} {inode} {uid} {gid} {size}").into_bytes());
            }
            bytes.push(0);
            out.write_all(&bytes)?;
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&new, &self.file)
    }
}

impl Ledger {
    /// None: there is none.
    ///
    /// # Errors
    /// `InvalidData` if it is not what we write.
    pub fn read(file: &Path) -> io::Result<Option<Self>> {
        let mut from = match File::open(file) {
            Ok(file) => BufReader::new(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
        let mut line = vec![];
        from.read_until(b'\n', &mut line)?;
        let mut ledger =
            Self { header: serde_json::from_slice(&line).map_err(|_| bad())?, records: BTreeMap::new() };
        while part(&mut from, &mut line)? {
            let record = Record::parse(&line).map_err(|_| bad())?;
            if !part(&mut from, &mut line)? || ledger.records.len() >= MAX_PATHS {
                return Err(bad());
            }
            let known = Known {
                mode: record.mode,
                id: Id::parse(record.id.as_bytes()),
                stamp: record.stamp,
                stat: parse_stat(&line),
            };
            ledger.records.insert(record.path, known);
        }
        Ok(Some(ledger))
    }

    /// What has become of a path that is in the ledger.
    pub fn fate(&self, tree: &mut Tree, path: &[u8], known: &Known) -> io::Result<Became> {
        let Some(found) = tree.find(path)? else {
            return Ok(Became { fate: Fate::Deleted, found: None, id: None });
        };
        let unchanged = Became { fate: Fate::Unchanged, found: Some(found), id: None };
        let of_its_kind = found.mode == Some(known.mode);
        let touched = known.stat != Some(found.stat) || found.stat.ctime >= self.header.written;
        match known.mode {
            Mode::Directory | Mode::Gitlink if found.mode == Some(Mode::Directory) => return Ok(unchanged),
            _ if of_its_kind && !touched => return Ok(unchanged),
            _ => {}
        }
        match id(self.header.format, tree, path, &found)? {
            Some(id) if of_its_kind && Some(id) == known.id => Ok(unchanged),
            id => Ok(Became { fate: Fate::Changed, found: Some(found), id }),
        }
    }
}

impl Became {
    /// What is to be told of it.
    pub fn now(&self) -> Option<Present> {
        match (self.fate, self.found?.mode?, self.id) {
            (Fate::Changed, mode, Some(id)) => Some(Present { mode, id: id.to_string() }),
            (Fate::Changed, mode @ Mode::Directory, None) => Some(Present { mode, id: String::new() }),
            _ => None,
        }
    }
}

impl Known {
    pub fn record(&self, path: &[u8], fate: Fate, now: Option<Present>) -> Record {
        let id = self.id.map(|id| id.to_string()).unwrap_or_default();
        Record { mode: self.mode, id, stamp: self.stamp, fate, now, path: path.to_vec() }
    }
}

/// The blob that a file or symlink would be; None: it has changed while it was read, or is neither.
pub fn id(format: Format, tree: &mut Tree, path: &[u8], found: &Found) -> io::Result<Option<Id>> {
    let named = match found.mode {
        Some(Mode::Symlink) => {
            let target = tree.link(path)?;
            hash_blob(format, target.len() as u64, &mut &target[..], |_| Ok(()))
        }
        Some(Mode::File | Mode::Executable) => {
            hash_blob(format, found.stat.size, &mut tree.file(path)?, |_| Ok(()))
        }
        _ => return Ok(None),
    };
    match named {
        Ok(id) => Ok(Some(id)),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads up to the next NUL; false at the end.
fn part(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let most = MAX_PATH as u64 + 1024;
    io::Read::take(&mut *from, most).read_until(0, line)?;
    match line.pop() {
        None => Ok(false),
        Some(0) => Ok(true),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it is damaged")),
    }
}

fn parse_stat(text: &[u8]) -> Option<Stat> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let stat = Stat {
        ctime: (words.next()?.parse().ok()?, words.next()?.parse().ok()?),
        mtime: (words.next()?.parse().ok()?, words.next()?.parse().ok()?),
        device: words.next()?.parse().ok()?,
        inode: words.next()?.parse().ok()?,
        uid: words.next()?.parse().ok()?,
        gid: words.next()?.parse().ok()?,
        size: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(stat)
}
