//! Why a work tree was not brought.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::copy::CopyError;
use crate::host::cmd::CmdError;

#[derive(Debug)]
pub enum WorkspaceError {
    /// What is there, or in the guest, does not go with what is asked for; a sentence.
    Refused(String),
    /// git is not to be had.
    NoGit,
    Git(CmdError),
    /// A path of this host; `what` is a phrase such as `read`.
    Here {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The conversation with the guest.
    Guest(CopyError),
    /// A signal asked to end in the middle.
    Interrupted(i32),
}

impl WorkspaceError {
    pub fn here(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Here { what, path, source }
    }

    pub fn refused<T>(text: impl Into<String>) -> Result<T, Self> {
        Err(Self::Refused(text.into()))
    }
}

impl From<CmdError> for WorkspaceError {
    fn from(e: CmdError) -> Self {
        match e {
            CmdError::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound => Self::NoGit,
            CmdError::Interrupted(signal) => Self::Interrupted(signal),
            e => Self::Git(e),
        }
    }
}

impl From<CopyError> for WorkspaceError {
    fn from(e: CopyError) -> Self {
        Self::Guest(e)
    }
}

impl fmt::Display for WorkspaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) => f.write_str(text),
            Self::NoGit => f.write_str(
                "git is not installed here, and reads the repository; install it, or bring the files alone with --copy",
            ),
            Self::Git(e) => e.fmt(f),
            Self::Here { what, path, .. } => write!(f, "cannot {what} {}", path.display()),
            Self::Guest(e) => e.fmt(f),
            Self::Interrupted(_) => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for WorkspaceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Git(e) => e.source(),
            Self::Here { source, .. } => Some(source),
            Self::Guest(e) => e.source(),
            Self::Refused(_) | Self::NoGit | Self::Interrupted(_) => None,
        }
    }
}
