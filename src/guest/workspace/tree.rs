//! A work tree on the disk. Every path is resolved below it, and no symlink in it is followed (openat2(2)), whatever the guest does meanwhile.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode as Bits, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps,
    UTIME_OMIT, chmodat, fchmod, fstat, futimens, mkdirat, open, openat, openat2, readlinkat, renameat,
    renameat_with, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::seen::{Seen, changed};
use crate::git::Mode;
use crate::git::index::Stat;

pub struct Tree {
    root: OwnedFd,
    device: u64,
    /// The directory that was used last, for the next one is most often the same.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// The name of files that are not whole yet.
    incoming: String,
    /// What may be replaced or removed.
    pub seen: Seen,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// None: nothing that a work tree has (a socket, a fifo, a device).
    pub mode: Option<Mode>,
    pub stat: Stat,
}

impl Tree {
    pub fn open(path: &Path) -> io::Result<Self> {
        let root =
            open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Bits::empty())?;
        let device = fstat(&root)?.st_dev;
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self {
            root,
            device,
            last: None,
            incoming: format!(".banger-{:016x}", u64::from_ne_bytes(random)),
            seen: Seen::default(),
        })
    }

    /// What is at a path; None: nothing, or something above it is no directory.
    pub fn find(&mut self, path: &[u8]) -> io::Result<Option<Found>> {
        let found = self.at(path, |above, name| Ok(statat(above, name, AtFlags::SYMLINK_NOFOLLOW)?));
        absent(found.map(|stat| found_of(&stat)))
    }

    /// Opens a regular file for reading. What has become of it since it was looked at does not lead elsewhere, or block.
    pub fn file(&mut self, path: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        self.at(path, |above, name| Ok(File::from(openat(above, name, flags, Bits::empty())?)))
    }

    pub fn link(&mut self, path: &[u8]) -> io::Result<Vec<u8>> {
        self.at(path, |above, name| Ok(readlinkat(above, name, vec![])?.into_bytes()))
    }

    /// Names in a directory, and what is there, sorted; empty for one on another file system, or that has gone.
    pub fn list(&mut self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, Found)>> {
        self.last = None;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = if path.is_empty() { b"." } else { path };
        let Some(directory) =
            absent(openat2(&self.root, path, flags, Bits::empty(), beneath()).map_err(Into::into))?
        else {
            return Ok(vec![]);
        };
        if fstat(&directory)?.st_dev != self.device {
            return Ok(vec![]);
        }
        let mut found = vec![];
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let stat = statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).map_err(Into::into);
            if let Some(stat) = absent(stat)? {
                found.push((name.to_vec(), found_of(&stat)));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// Whether there is anything at `.git` of a directory.
    pub fn is_repository(&mut self, path: &[u8]) -> io::Result<bool> {
        Ok(self.find(&[path, b"/.git"].concat())?.is_some())
    }

    /// Puts a regular file at a path, in the place of what was seen there: `fill` writes it, and it is not there before it is whole. Returns what
    /// is there then.
    ///
    /// A work tree has many thousands of them, and each call costs an emulated guest a tenth of a millisecond or more: those that a new file
    /// does not need are left out.
    pub fn put_file<T>(
        &mut self,
        path: &[u8],
        executable: bool,
        mtime: i64,
        fill: impl FnOnce(&mut File) -> io::Result<T>,
    ) -> io::Result<(T, Stat)> {
        let there = self.make_way(path)?;
        let incoming = self.incoming.clone();
        let seen = std::mem::take(&mut self.seen);
        let bits = Bits::from_raw_mode(if executable { 0o755 } else { 0o644 });
        let placed = self.at(path, |above, name| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut file = File::from(openat(above, &incoming, flags, bits)?);
            let placed = fill(&mut file).and_then(|value| {
                // The agent's umask may have taken some.
                if Bits::from_raw_mode(fstat(&file)?.st_mode) != bits {
                    fchmod(&file, bits)?;
                }
                futimens(&file, &times(mtime))?;
                if !there && !seen.found.contains_key(path) {
                    match renameat_with(above, &incoming, above, name, RenameFlags::NOREPLACE) {
                        Err(Errno::EXIST) => return Err(changed(path)),
                        // Not every file system knows that flag.
                        Err(Errno::INVAL) => renameat(above, &incoming, above, name)?,
                        other => other?,
                    }
                } else {
                    // Not before it has come: that may have taken its time.
                    let now = statat(above, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Into::into);
                    seen.check(path, absent(now)?.map(|stat| found_of(&stat)))?;
                    renameat(above, &incoming, above, name)?;
                }
                Ok((value, found_of(&fstat(&file)?).stat))
            });
            if placed.is_err() {
                unlinkat(above, &incoming, AtFlags::empty())?;
            }
            placed
        });
        self.seen = seen;
        placed
    }

    /// That it is still what was seen, just before it goes.
    fn check(&mut self, path: &[u8]) -> io::Result<()> {
        let now = self.find(path)?;
        self.seen.check(path, now)
    }

    /// Puts a symlink at a path, in the place of what was seen there. Returns what is there then.
    pub fn put_link(&mut self, path: &[u8], target: &[u8], mtime: i64) -> io::Result<Stat> {
        self.make_way(path)?;
        self.check(path)?;
        self.at(path, |above, name| {
            absent(unlinkat(above, name, AtFlags::empty()).map_err(Into::into))?;
            symlinkat(target, above, name)?;
            utimensat(above, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(found_of(&statat(above, name, AtFlags::SYMLINK_NOFOLLOW)?).stat)
        })
    }

    pub fn put_directory(&mut self, path: &[u8]) -> io::Result<()> {
        self.make_directories(path)
    }

    /// Removes a file or symlink, and the directories above it that become empty.
    pub fn remove(&mut self, path: &[u8]) -> io::Result<()> {
        if self.find(path)?.is_none() {
            return Ok(());
        }
        self.check(path)?;
        absent(self.at(path, |above, name| Ok(unlinkat(above, name, AtFlags::empty())?)))?;
        self.remove_empty_above(path)
    }

    /// Removes a directory if nothing is in it, and those above it.
    pub fn remove_directory(&mut self, path: &[u8]) -> io::Result<()> {
        let removed = self.at(path, |above, name| Ok(unlinkat(above, name, AtFlags::REMOVEDIR)?));
        self.last = None;
        match absent(removed) {
            Err(e) if is(&e, Errno::NOTEMPTY) || is(&e, Errno::BUSY) => Ok(()),
            Err(e) => Err(e),
            Ok(_) => self.remove_empty_above(path),
        }
    }

    fn remove_empty_above(&mut self, mut path: &[u8]) -> io::Result<()> {
        self.last = None;
        while let Some(slash) = path.iter().rposition(|b| *b == b'/') {
            path = &path[..slash];
            match self.at(path, |above, name| Ok(unlinkat(above, name, AtFlags::REMOVEDIR)?)) {
                Ok(()) => {}
                Err(e) if is(&e, Errno::NOTEMPTY) || is(&e, Errno::BUSY) => return Ok(()),
                Err(e) => return absent(Err(e)).map(|_: Option<()>| ()),
            }
            self.last = None;
        }
        Ok(())
    }

    /// Makes the directories above a path, and takes a directory away that is where a file goes. Returns whether something else is there.
    fn make_way(&mut self, path: &[u8]) -> io::Result<bool> {
        if let Some(slash) = path.iter().rposition(|b| *b == b'/') {
            self.make_directories(&path[..slash])?;
        }
        let found = self.find(path)?;
        if found.is_some_and(|found| found.mode == Some(Mode::Directory)) {
            if !self.seen.whole.contains(path) && !self.holds_only(path, &BTreeSet::new())? {
                return Err(changed(path));
            }
            self.last = None;
            self.at(path, |above, name| {
                // The standard library's follows no symlink below what it is given.
                let above = format!("/proc/self/fd/{}", above.as_raw_fd());
                std::fs::remove_dir_all(Path::new(&above).join(as_path(name)))
            })?;
            self.last = None;
            return Ok(false);
        }
        Ok(found.is_some())
    }

    /// Makes a directory and those above it; what is no directory there goes.
    fn make_directories(&mut self, path: &[u8]) -> io::Result<()> {
        if self.last.as_ref().is_some_and(|(last, _)| last == path) {
            return Ok(());
        }
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            let above = &path[..end];
            match self.find(above)? {
                Some(found) if found.mode == Some(Mode::Directory) => continue,
                found @ Some(_) => {
                    self.seen.check(above, found)?;
                    self.at(above, |directory, name| Ok(unlinkat(directory, name, AtFlags::empty())?))?
                }
                None => {}
            }
            self.at(above, |directory, name| {
                mkdirat(directory, name, Bits::from_raw_mode(0o755))?;
                Ok(chmodat(directory, name, Bits::from_raw_mode(0o755), AtFlags::empty())?)
            })?;
        }
        Ok(())
    }

    /// Whether nothing is in a directory but `these`, and directories of which that is true.
    pub fn holds_only(&mut self, path: &[u8], these: &BTreeSet<Vec<u8>>) -> io::Result<bool> {
        let mut waiting = vec![path.to_vec()];
        while let Some(directory) = waiting.pop() {
            for (name, found) in self.list(&directory)? {
                let path = [&directory[..], b"/", &name].concat();
                match found.mode {
                    Some(Mode::Directory) if name != b".git" => waiting.push(path),
                    _ if these.contains(&path) => {}
                    _ => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    /// Acts in the directory above a path, on its last component.
    fn at<T>(
        &mut self,
        path: &[u8],
        act: impl FnOnce(BorrowedFd<'_>, &[u8]) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(slash) = path.iter().rposition(|b| *b == b'/') else {
            return act(self.root.as_fd(), path);
        };
        let (above, name) = (&path[..slash], &path[slash + 1..]);
        if self.last.as_ref().is_none_or(|(last, _)| last != above) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.last = Some((above.to_vec(), openat2(&self.root, above, flags, Bits::empty(), beneath())?));
        }
        match &self.last {
            Some((_, directory)) => act(directory.as_fd(), name),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS
}

fn times(mtime: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime, tv_nsec: 0 },
    }
}

fn as_path(name: &[u8]) -> &Path {
    Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name))
}

fn found_of(stat: &rustix::fs::Stat) -> Found {
    let mode = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_mode & 0o100 != 0 => Some(Mode::Executable),
        FileType::RegularFile => Some(Mode::File),
        FileType::Symlink => Some(Mode::Symlink),
        FileType::Directory => Some(Mode::Directory),
        _ => None,
    };
    let stat = Stat {
        ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
        device: stat.st_dev,
        inode: stat.st_ino,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: stat.st_size.unsigned_abs(),
    };
    Found { mode, stat }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// None for what is not there, or cannot be, since something above it is no directory.
fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].iter().any(|errno| is(&e, *errno)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The lowest thing above a path that is no directory.
pub fn obstacle(tree: &mut Tree, path: &[u8]) -> io::Result<Option<Vec<u8>>> {
    for (slash, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
        match tree.find(&path[..slash])? {
            None => return Ok(None),
            Some(found) if found.mode == Some(Mode::Directory) => {}
            Some(_) => return Ok(Some(path[..slash].to_vec())),
        }
    }
    Ok(None)
}

/// Brings what was written to the file system of `path` to its disk.
pub fn sync(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Bits::empty())?)?)
}
