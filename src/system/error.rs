//! Why an installation could not be made, changed or removed.

use std::fmt;
use std::io;

use crate::host::cmd::CmdError;
use crate::host::trusted::Untrusted;
use crate::system::apply::ApplyError;

#[derive(Debug)]
pub enum SystemError {
    /// What is there could not be looked at.
    Look(io::Error),
    Install(Untrusted),
    Apply(ApplyError),
    /// systemd did not do it.
    Services(CmdError),
    /// A sentence.
    Refused(String),
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Look(_) => f.write_str("cannot look at the files of the installation"),
            // Transparent: the inner error is the sentence.
            Self::Install(e) => e.fmt(f),
            Self::Apply(e) => e.fmt(f),
            Self::Services(e) => e.fmt(f),
            Self::Refused(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for SystemError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Look(e) => Some(e),
            Self::Install(e) => e.source(),
            Self::Apply(e) => e.source(),
            Self::Services(e) => e.source(),
            Self::Refused(_) => None,
        }
    }
}

impl From<ApplyError> for SystemError {
    fn from(e: ApplyError) -> Self {
        Self::Apply(e)
    }
}

impl From<CmdError> for SystemError {
    fn from(e: CmdError) -> Self {
        Self::Services(e)
    }
}

impl From<Untrusted> for SystemError {
    fn from(e: Untrusted) -> Self {
        Self::Install(e)
    }
}
