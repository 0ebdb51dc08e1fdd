//! A directory of this host, path by path, without ever following a symlink: a tracked path behind one is not there, as git has it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode as Perm, OFlags, ResolveFlags, Stat, openat2, readlinkat, statat};
use rustix::io::Errno;

use super::error::WorkspaceError;
use super::stamp;
use crate::git::Mode;
use crate::host::cmd::git::Patience;
use crate::proto::workspace::Stamp;

/// A directory that is read.
pub struct Tree {
    pub path: PathBuf,
    root: OwnedFd,
    /// The directory that was looked into last: what comes in order comes from the same one.
    last: Option<(Vec<u8>, Option<OwnedFd>)>,
    now_ns: i128,
    patience: Patience,
}

/// A path to bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub path: Vec<u8>,
    pub mode: Mode,
    pub stamp: Stamp,
    /// In bytes; 0 for all but files.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// The blob that it is, where it comes out of a repository rather than a directory.
    pub blob: Option<String>,
}

/// What is at a path.
pub enum There {
    Item(Item),
    Directory,
    Nothing,
    /// A socket, a device, a pipe.
    Special,
}

impl Tree {
    /// Opens it; with what it is read, the signal of `patience` is looked for.
    pub fn open(path: &Path, patience: &Patience) -> Result<Self, WorkspaceError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Perm::empty());
        let root = root.map_err(|e| WorkspaceError::here("open", path)(e.into()))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
        let now_ns = i128::try_from(now).unwrap_or(0);
        Ok(Self { path: path.to_owned(), root, last: None, now_ns, patience: patience.clone() })
    }

    /// # Errors
    /// [`WorkspaceError::Interrupted`] if this process was asked to end.
    pub fn go_on(&self) -> Result<(), WorkspaceError> {
        self.patience.asked_to_end().map_or(Ok(()), |signal| Err(WorkspaceError::Interrupted(signal)))
    }

    /// What is at `path`, below the directory.
    pub fn look(&mut self, path: &[u8]) -> Result<There, WorkspaceError> {
        self.go_on()?;
        let (dir, name) = split(path);
        let here = self.shown(path);
        let failed = |e: Errno| WorkspaceError::here("read", &here)(e.into());
        let Some(dir) = self.directory(dir).map_err(failed)? else { return Ok(There::Nothing) };
        let stat = match statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(There::Nothing),
            Err(e) => return Err(failed(e)),
        };
        let mode = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_mode & 0o100 != 0 => Mode::Executable,
            FileType::RegularFile => Mode::File,
            FileType::Symlink => Mode::Symlink,
            FileType::Directory => return Ok(There::Directory),
            _ => return Ok(There::Special),
        };
        let size = if mode == Mode::Symlink { 0 } else { stat.st_size.unsigned_abs() };
        let stamp = stamp::of(&stat, self.now_ns);
        let mtime = u64::try_from(stat.st_mtime).unwrap_or(0);
        Ok(There::Item(Item { path: path.to_vec(), mode, stamp, size, mtime, blob: None }))
    }

    /// Opens a regular file.
    pub fn file(&mut self, path: &[u8]) -> Result<(OwnedFd, Stat), WorkspaceError> {
        self.go_on()?;
        let (dir, name) = split(path);
        let here = self.shown(path);
        let failed = |e: Errno| WorkspaceError::here("read", &here)(e.into());
        let dir = self.directory(dir).map_err(failed)?.ok_or(Errno::NOENT).map_err(failed)?;
        // A FIFO that has taken the file's place would keep us waiting.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, OsStr::from_bytes(name), flags, Perm::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((file, stat)),
            _ => WorkspaceError::refused(format!("{} changed while it was read; try again", here.display())),
        }
    }

    /// Reads a regular file whose size that is, looking for the signal all along.
    pub fn content(&mut self, path: &[u8]) -> Result<(u64, impl Read), WorkspaceError> {
        let (file, stat) = self.file(path)?;
        let reading = Reading { file: file.into(), patience: self.patience.clone() };
        Ok((stat.st_size.unsigned_abs(), reading))
    }

    /// Where a symlink points.
    pub fn link(&mut self, path: &[u8]) -> Result<Vec<u8>, WorkspaceError> {
        let (dir, name) = split(path);
        let here = self.shown(path);
        let failed = |e: Errno| WorkspaceError::here("read", &here)(e.into());
        let dir = self.directory(dir).map_err(failed)?.ok_or(Errno::NOENT).map_err(failed)?;
        Ok(readlinkat(dir, OsStr::from_bytes(name), vec![]).map_err(failed)?.into_bytes())
    }

    /// What is in a directory, sorted; no `.` and `..`.
    pub fn names(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, WorkspaceError> {
        self.go_on()?;
        let here = self.shown(path);
        let failed = |e: Errno| WorkspaceError::here("read", &here)(e.into());
        let dir = self.directory(path).map_err(failed)?.ok_or(Errno::NOENT).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let list = rustix::fs::openat(dir, ".", flags, Perm::empty()).and_then(rustix::fs::Dir::new);
        let mut names = vec![];
        for entry in list.map_err(failed)? {
            let entry = entry.map_err(failed)?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => names.push(name.to_vec()),
            }
        }
        names.sort();
        Ok(names)
    }

    pub fn shown(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    /// The directory at `path`; None: there is none, or it is behind a symlink or a file.
    fn directory(&mut self, path: &[u8]) -> Result<Option<&OwnedFd>, Errno> {
        if path.is_empty() {
            return Ok(Some(&self.root));
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let opened = match openat2(&self.root, OsStr::from_bytes(path), flags, Perm::empty(), resolve) {
                Ok(dir) => Some(dir),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
                Err(e) => return Err(e),
            };
            self.last = Some((path.to_vec(), opened));
        }
        Ok(self.last.as_ref().and_then(|(_, dir)| dir.as_ref()))
    }
}

struct Reading {
    file: File,
    patience: Patience,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.patience.asked_to_end() {
            Some(_) => Err(io::Error::other("cancelled")),
            None => self.file.read(buffer),
        }
    }
}

/// A path's directory, empty for the top one, and its name there.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_behind_a_symlink_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let outside = tempfile::tempdir().expect("another");
        fs::write(outside.path().join("secret"), "x").expect("writes");
        symlink(outside.path(), dir.path().join("d")).expect("links");
        symlink(outside.path().join("secret"), dir.path().join("l")).expect("links");
        fs::create_dir(dir.path().join("a")).expect("makes");
        fs::write(dir.path().join("a/f"), "abc").expect("writes");
        let mut tree = Tree::open(dir.path(), &Patience::default()).expect("opens");
        assert!(matches!(tree.look(b"d/secret").expect("looks"), There::Nothing));
        assert!(matches!(tree.look(b"none/f").expect("looks"), There::Nothing));
        assert!(matches!(tree.look(b"a/f/x").expect("looks"), There::Nothing));
        let There::Item(file) = tree.look(b"a/f").expect("looks") else { panic!("a file") };
        assert_eq!((file.mode, file.size), (Mode::File, 3));
        let There::Item(link) = tree.look(b"l").expect("looks") else { panic!("a link") };
        assert_eq!((link.mode, link.size), (Mode::Symlink, 0));
        tree.file(b"l").expect_err("not followed");
        tree.file(b"d/secret").expect_err("not followed");
        assert_eq!(tree.link(b"l").expect("reads"), outside.path().join("secret").as_os_str().as_bytes());
        assert_eq!(tree.names(b"").expect("lists"), [b"a", b"d", b"l"]);
    }
}
