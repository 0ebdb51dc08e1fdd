//! A stream from a guest becomes files below one directory, and nowhere else (A25).
//!
//! Every path is opened from the base's descriptor with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS (openat2(2)), so that no
//! name and no symlink, whether it came with the stream or was there before, leads out. Names are made with O_EXCL, or renamed to; what
//! was in the way goes, and is never written through. A guest's word is not enough for a setuid bit or a device here.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, chmodat, chownat, fchmod, fchown,
    fstat, futimens, linkat, mkdirat, mknodat, openat, openat2, renameat, statat, symlinkat, unlinkat,
    utimensat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::entries::{Broken, Entry, Kind, each};
use super::place::{Destination, Top};
use super::stream::Incoming;
use super::{CopyError, Skipped};

/// Unpacks all that comes.
pub fn unpack<F: FnMut(u64)>(from: &mut Incoming<F>, to: &Destination) -> Result<Skipped, CopyError> {
    let mut unpacker = Unpacker::open(to)?;
    let result = each(&mut *from, |entry, content| unpacker.entry(entry, content));
    match result {
        Ok(()) => {}
        Err(Broken::Stream(why)) => return Err(from.take_failure().unwrap_or(CopyError::Stream { why })),
        Err(Broken::Read(e)) => return Err(from.take_failure().unwrap_or(CopyError::Connection(e))),
        Err(Broken::Taker(e)) => return Err(from.take_failure().unwrap_or(e)),
    }
    // Behind the end of the archive only padding may come, and the guest's word that this was all.
    let mut padding = 0;
    while let Some(piece) = from.piece()? {
        padding += piece.len();
        if padding > MAX_PADDING {
            return Err(CopyError::Stream { why: "it goes on behind its end".to_owned() });
        }
    }
    unpacker.finish()
}

/// GNU tar pads to records of 10 KiB; a frame may hold more.
const MAX_PADDING: usize = 1 << 20;

struct Unpacker<'a> {
    base: OwnedFd,
    to: &'a Destination,
    /// The first entry's name, under which all others are; None before it has come.
    top: Option<Option<OsString>>,
    /// Device and inode of what this stream has made: the only things that it may link to, and may not make twice.
    made: HashSet<(u64, u64)>,
    /// Directories made, whose mode and times are set when nothing more is put into them.
    directories: Vec<(PathBuf, Entry)>,
    skipped: Skipped,
    /// Only root can give files away.
    owners: bool,
}

impl<'a> Unpacker<'a> {
    fn open(to: &'a Destination) -> Result<Self, CopyError> {
        // The base is the person's own word: symlinks in it are followed.
        let base =
            rustix::fs::open(&to.base, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| CopyError::here("open", &to.base)(e.into()))?;
        Ok(Self {
            base,
            to,
            top: None,
            made: HashSet::new(),
            directories: vec![],
            skipped: Skipped::default(),
            owners: geteuid().is_root(),
        })
    }

    /// Where below the base an entry of the stream belongs; empty: the base itself.
    fn place(&self, name: &[OsString]) -> Result<PathBuf, CopyError> {
        let rest = match (&self.top, name) {
            (Some(Some(top)), [first, rest @ ..]) if first == top => rest,
            (Some(None), rest) => rest,
            _ => return Err(stream("its entries are not all below its first one")),
        };
        let mut path = match (&self.to.top, &self.top) {
            (Top::Keep, Some(Some(top))) => PathBuf::from(top),
            (Top::Rename(name), _) => PathBuf::from(name),
            (Top::Contents | Top::Keep, _) => PathBuf::new(),
        };
        path.extend(rest);
        Ok(path)
    }

    fn entry(&mut self, entry: Entry, content: &mut dyn Read) -> Result<(), CopyError> {
        if self.top.is_none() {
            match &entry.name[..] {
                [] => self.top = Some(None),
                [top] => self.top = Some(Some(top.clone())),
                _ => return Err(stream("its first entry is not its top")),
            }
        }
        let path = self.place(&entry.name)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return match entry.kind {
                Kind::Directory => Ok(()),
                _ => Err(CopyError::Refused(format!(
                    "it is no directory, and {} is one",
                    self.to.base.display()
                ))),
            };
        };
        let at = Spot { parent: self.parent(&path)?, name, shown: self.to.base.join(&path) };
        match &entry.kind {
            Kind::Directory => self.directory(&at, path, entry),
            Kind::File => self.file(&at, &entry, content),
            Kind::Symlink(target) => {
                self.fresh(&at, || symlinkat(target, &at.parent, &at.name))?;
                self.metadata(&at, &entry, false)
            }
            Kind::HardLink(target) => self.hard_link(&at, target),
            Kind::Fifo => {
                self.fresh(&at, || {
                    mknodat(&at.parent, &at.name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                })?;
                self.metadata(&at, &entry, true)
            }
            Kind::Device => {
                self.skipped.devices += 1;
                Ok(())
            }
        }
    }

    /// Opens the directory that holds `path`.
    fn parent(&self, path: &Path) -> Result<OwnedFd, CopyError> {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.beneath(parent, OFlags::PATH | OFlags::DIRECTORY).map_err(|e| match e {
            Errno::LOOP => CopyError::Refused(format!(
                "{} is a symlink or below one, and is not written through; copy to another place, or remove it",
                self.to.base.join(parent).display()
            )),
            Errno::NOENT => stream("an entry comes before its directory"),
            e => CopyError::here("open", &self.to.base.join(parent))(e.into()),
        })
    }

    fn beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.base, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// Makes something that is not there; what this stream has not made itself gives way.
    fn fresh<T>(&mut self, at: &Spot, make: impl Fn() -> Result<T, Errno>) -> Result<T, CopyError> {
        let made = match make() {
            Err(Errno::EXIST) => {
                self.may_go(at)?;
                unlinkat(&at.parent, &at.name, AtFlags::empty()).map_err(at.error("replace"))?;
                make()
            }
            other => other,
        };
        let made = made.map_err(at.error("create"))?;
        let now = at.stat().map_err(at.error("look at"))?;
        self.made.insert((now.st_dev, now.st_ino));
        Ok(made)
    }

    /// Whether something else than a directory may take the place of what is there.
    fn may_go(&self, at: &Spot) -> Result<(), CopyError> {
        let there = match at.stat() {
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(at.error("look at"))?,
        };
        if self.made.contains(&(there.st_dev, there.st_ino)) {
            return Err(stream(&format!(
                "it has {:?} twice, or this file system does not tell upper from lower case",
                at.name
            )));
        }
        match FileType::from_raw_mode(there.st_mode).is_dir() {
            true => Err(CopyError::Refused(format!(
                "{} is a directory, and what is copied is none",
                at.shown.display()
            ))),
            false => Ok(()),
        }
    }

    fn directory(&mut self, at: &Spot, path: PathBuf, entry: Entry) -> Result<(), CopyError> {
        // Ours alone until it is filled, then as the stream says.
        match mkdirat(&at.parent, &at.name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {
                let now = at.stat().map_err(at.error("look at"))?;
                self.made.insert((now.st_dev, now.st_ino));
                self.directories.push((path, entry));
                Ok(())
            }
            Err(Errno::EXIST) => {
                let there = at.stat().map_err(at.error("look at"))?;
                if FileType::from_raw_mode(there.st_mode).is_dir() {
                    // The person's directory keeps its mode.
                    return Ok(());
                }
                Err(CopyError::Refused(format!(
                    "{} is no directory, and what is copied is one; remove it first",
                    at.shown.display()
                )))
            }
            Err(e) => Err(at.error("create")(e)),
        }
    }

    /// What was there stays until the new file is whole.
    fn file(&mut self, at: &Spot, entry: &Entry, content: &mut dyn Read) -> Result<(), CopyError> {
        self.may_go(at)?;
        let (mut file, beside) = self.beside(at)?;
        let mut fill = || {
            let copied = io::copy(content, &mut file).map_err(|e| CopyError::here("write", &at.shown)(e))?;
            if copied != entry.size {
                return Err(stream(&format!("it ends in the middle of {:?}", at.name)));
            }
            if self.owners {
                fchown(&file, Some(uid(entry)), Some(gid(entry))).map_err(at.error("set the owner of"))?;
            }
            fchmod(&file, self.permissions(entry)).map_err(at.error("set the mode of"))?;
            futimens(&file, &times(entry)).map_err(at.error("set the time of"))?;
            let made = fstat(&file).map_err(at.error("look at"))?;
            renameat(&at.parent, &beside, &at.parent, &at.name).map_err(at.error("replace"))?;
            self.made.insert((made.st_dev, made.st_ino));
            Ok(())
        };
        let filled = fill();
        if filled.is_err() {
            unlinkat(&at.parent, &beside, AtFlags::empty()).map_err(at.error("remove"))?;
        }
        filled
    }

    /// An empty file in the same directory, and its name.
    fn beside(&self, at: &Spot) -> Result<(File, String), CopyError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut number = 0;
        loop {
            let name = format!(".banger-{}-{number}", std::process::id());
            match openat(&at.parent, &*name, flags, Mode::from_raw_mode(0o600)) {
                Ok(fd) => return Ok((File::from(fd), name)),
                Err(Errno::EXIST) => number += 1,
                Err(e) => return Err(at.error("create")(e)),
            }
        }
    }

    fn hard_link(&mut self, at: &Spot, target: &[OsString]) -> Result<(), CopyError> {
        let path = self.place(target)?;
        let Some(name) = path.file_name() else { return Err(stream("it links to its own top")) };
        let there =
            Spot { parent: self.parent(&path)?, name: name.to_owned(), shown: self.to.base.join(&path) };
        let stat = there.stat().map_err(there.error("look at"))?;
        let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
        if !is_file || !self.made.contains(&(stat.st_dev, stat.st_ino)) {
            return Err(stream("it links to what did not come with it"));
        }
        self.fresh(at, || linkat(&there.parent, &there.name, &at.parent, &at.name, AtFlags::empty()))
    }

    /// Owner, mode and times of something that is not held open.
    fn metadata(&self, at: &Spot, entry: &Entry, has_mode: bool) -> Result<(), CopyError> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        if self.owners {
            chownat(&at.parent, &at.name, Some(uid(entry)), Some(gid(entry)), nofollow)
                .map_err(at.error("set the owner of"))?;
        }
        if has_mode {
            let mode = Mode::from_raw_mode(entry.mode & 0o777);
            chmodat(&at.parent, &at.name, mode, AtFlags::empty()).map_err(at.error("set the mode of"))?;
        }
        utimensat(&at.parent, &at.name, &times(entry), nofollow).map_err(at.error("set the time of"))
    }

    /// A file's or directory's mode without setuid and setgid: with them, what a guest wrote would run here as somebody else, and what is
    /// put into a directory would belong to another group.
    fn permissions(&mut self, entry: &Entry) -> Mode {
        if entry.mode & 0o6000 != 0 {
            self.skipped.setuid += 1;
        }
        Mode::from_raw_mode(entry.mode & 0o1777)
    }

    /// Gives the directories their owners, modes and times, the deepest first.
    fn finish(mut self) -> Result<Skipped, CopyError> {
        for (path, entry) in std::mem::take(&mut self.directories).into_iter().rev() {
            let shown = self.to.base.join(&path);
            let mode = self.permissions(&entry);
            let set = || -> Result<(), Errno> {
                let directory = self.beneath(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
                if self.owners {
                    fchown(&directory, Some(uid(&entry)), Some(gid(&entry)))?;
                }
                fchmod(directory.as_fd(), mode)?;
                futimens(&directory, &times(&entry))
            };
            set().map_err(|e| CopyError::here("set the owner, mode or time of", &shown)(e.into()))?;
        }
        Ok(self.skipped)
    }
}

/// A name in an open directory.
struct Spot {
    parent: OwnedFd,
    name: OsString,
    /// For people.
    shown: PathBuf,
}

impl Spot {
    fn stat(&self) -> Result<rustix::fs::Stat, Errno> {
        statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn error(&self, what: &'static str) -> impl FnOnce(Errno) -> CopyError {
        let here = CopyError::here(what, &self.shown);
        move |e| here(e.into())
    }
}

fn stream(why: &str) -> CopyError {
    CopyError::Stream { why: why.to_owned() }
}

fn uid(entry: &Entry) -> rustix::fs::Uid {
    rustix::fs::Uid::from_raw(entry.uid)
}

fn gid(entry: &Entry) -> rustix::fs::Gid {
    rustix::fs::Gid::from_raw(entry.gid)
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests;
