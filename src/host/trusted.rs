//! Files that root may believe: root's own, and writable by nobody else.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

/// Longer than any configuration.
const MAX_BYTES: u64 = 1 << 20;

/// Why a file's content does not count.
#[derive(Debug)]
pub enum Untrusted {
    Read(PathBuf, io::Error),
    /// It is no regular file, or a very long one.
    NoFile(PathBuf),
    /// Somebody else than root may have written it.
    Writable(PathBuf),
    /// The sentence says what is wrong with it.
    Invalid(PathBuf, String),
}

/// Reads a text that only root can have written; None where there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, Untrusted> {
    let failed = |e: io::Error| Untrusted::Read(path.to_owned(), e);
    // O_NONBLOCK: a FIFO in its place must not hold us.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(e) => return Err(failed(e.into())),
    };
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() || meta.len() > MAX_BYTES {
        return Err(Untrusted::NoFile(path.to_owned()));
    }
    if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
        return Err(Untrusted::Writable(path.to_owned()));
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, _) => write!(f, "cannot read {}", path.display()),
            Self::NoFile(path) => write!(f, "{} is no configuration file", path.display()),
            Self::Writable(path) => write!(
                f,
                "{} may have been written by somebody else than root; make it root's own (chown root, chmod 644)",
                path.display()
            ),
            Self::Invalid(path, why) => write!(f, "{}: {}", path.display(), why.trim_end()),
        }
    }
}

impl std::error::Error for Untrusted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_, e) => Some(e),
            Self::NoFile(_) | Self::Writable(_) | Self::Invalid(..) => None,
        }
    }
}
