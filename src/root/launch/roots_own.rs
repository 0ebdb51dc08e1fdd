//! Paths on which nobody but root can change anything: what root runs, and where root builds, must not be swapped under its feet.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, mkdirat, open, openat};
use rustix::io::Errno;

/// Why a path is not root's own.
#[derive(Debug)]
pub enum NotRoots {
    Open(PathBuf, io::Error),
    /// A symlink, or no directory where one must be.
    NoDirectory(PathBuf),
    /// It belongs to somebody else.
    Owner(PathBuf, u32),
    /// Others than its owner may write it.
    Writable(PathBuf),
}

/// Opens the directory `path` (O_PATH), which is absolute and without symlinks. Every component is root's own and writable by nobody
/// else, or is sticky, so that others cannot rename or remove what is root's in it. Made with `mode` where it is missing at the end.
pub fn directory(path: &Path, missing: Option<Mode>) -> Result<OwnedFd, NotRoots> {
    let failed = |at: &Path| {
        let at = at.to_owned();
        move |e: Errno| NotRoots::Open(at, e.into())
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut walked = PathBuf::from("/");
    let mut at = open(&walked, flags, Mode::empty()).map_err(failed(&walked))?;
    check(&walked, &fstat(&at).map_err(failed(&walked))?)?;
    for component in path.components() {
        let name = match component {
            Component::RootDir => continue,
            Component::Normal(name) => name,
            _ => return Err(NotRoots::NoDirectory(path.to_owned())),
        };
        walked.push(name);
        at = match (openat(&at, name, flags, Mode::empty()), missing) {
            (Ok(fd), _) => fd,
            (Err(Errno::NOENT), Some(mode)) if walked == path => {
                match mkdirat(&at, name, mode) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(failed(&walked)(e)),
                }
                openat(&at, name, flags, Mode::empty()).map_err(failed(&walked))?
            }
            // What O_DIRECTORY and O_NOFOLLOW together say of a symlink (open(2)).
            (Err(Errno::NOTDIR | Errno::LOOP), _) => return Err(NotRoots::NoDirectory(walked)),
            (Err(e), _) => return Err(failed(&walked)(e)),
        };
        check(&walked, &fstat(&at).map_err(failed(&walked))?)?;
    }
    Ok(at)
}

/// Whether `stat`, which is of `path`, is root's alone.
pub fn check(path: &Path, stat: &Stat) -> Result<(), NotRoots> {
    let mode = Mode::from_raw_mode(stat.st_mode);
    let sticky = FileType::from_raw_mode(stat.st_mode) == FileType::Directory && mode.contains(Mode::SVTX);
    if stat.st_uid != 0 {
        return Err(NotRoots::Owner(path.to_owned(), stat.st_uid));
    }
    if mode.intersects(Mode::WGRP | Mode::WOTH) && !sticky {
        return Err(NotRoots::Writable(path.to_owned()));
    }
    Ok(())
}

impl fmt::Display for NotRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path, _) => write!(f, "cannot open {}", path.display()),
            Self::NoDirectory(path) => write!(f, "{} is no directory", path.display()),
            Self::Owner(path, uid) => {
                write!(f, "{} belongs to user {uid}; `chown root` makes it root's own", path.display())
            }
            Self::Writable(path) => {
                write!(f, "others than root may write {}; `chmod go-w` makes it root's own", path.display())
            }
        }
    }
}

impl std::error::Error for NotRoots {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(_, e) => Some(e),
            Self::NoDirectory(_) | Self::Owner(..) | Self::Writable(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(uid: u32, mode: u32) -> Stat {
        // There is no other way to make one.
        let mut stat = rustix::fs::stat("/").expect("stats");
        stat.st_uid = uid;
        stat.st_mode = mode;
        stat
    }

    #[test]
    fn what_others_can_change_is_not_roots() {
        let judged = |uid, mode| match check(Path::new("/x"), &stat(uid, mode)) {
            Ok(()) => "fine".to_owned(),
            Err(e) => e.to_string(),
        };
        let (owner, writable) =
            ("/x belongs to user 7; `chown root`", "others than root may write /x; `chmod go-w`");
        for (uid, mode, want) in [
            (0, 0o040755, "fine"),
            (0, 0o040700, "fine"),
            (0, 0o041777, "fine"),
            (0, 0o100755, "fine"),
            (0, 0o104755, "fine"),
            (7, 0o040755, owner),
            (7, 0o041777, owner),
            (0, 0o040775, writable),
            (0, 0o040757, writable),
            // Sticky means nothing on a file.
            (0, 0o101777, writable),
            (0, 0o100775, writable),
        ] {
            let judged = judged(uid, mode);
            assert!(judged.starts_with(want), "{uid} {mode:o}: {judged}");
        }
    }

    #[test]
    fn the_walk_ends_at_the_first_component_that_is_not_roots() {
        assert!(directory(Path::new("/proc/self"), None).is_err(), "a symlink");
        let error = directory(Path::new("/etc/passwd"), None).expect_err("a file").to_string();
        assert_eq!(error, "/etc/passwd is no directory");
        let error = directory(Path::new("/usr/../etc"), None).expect_err("dots").to_string();
        assert_eq!(error, "/usr/../etc is no directory");
        directory(Path::new("/usr"), None).expect("root's own");
        let error = directory(Path::new("/usr/no-such"), None).expect_err("missing").to_string();
        assert_eq!(error, "cannot open /usr/no-such");
    }
}
