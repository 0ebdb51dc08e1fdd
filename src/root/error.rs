//! Why the helper did not do it, as it tells the caller.

use std::error::Error;
use std::fmt;

pub use crate::host::causes::chain;
use crate::host::endpoint::SocketError;
use crate::proto::root::{Answer, Code};
use crate::root::policy::Denied;

#[derive(Debug)]
pub enum RootError {
    Denied(Denied),
    /// Another helper is at work here, or its place is somebody else's.
    Place(SocketError),
    /// The kernel or a program refused `what`, a phrase such as `create the tap of VM x`.
    Effect {
        what: String,
        code: Code,
        source: Box<dyn Error + Send + Sync>,
    },
}

impl RootError {
    /// For `map_err`: the phrase, and whatever went wrong.
    pub fn effect<E: Into<Box<dyn Error + Send + Sync>>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::Effect { what: what.into(), code: Code::Failed, source: source.into() }
    }

    pub fn code(&self) -> Code {
        match self {
            Self::Denied(denied) => denied.code(),
            Self::Place(SocketError::Running { .. }) => Code::Conflict,
            Self::Place(_) => Code::Failed,
            Self::Effect { code, .. } => *code,
        }
    }

    /// What goes over the socket.
    pub fn answer(&self) -> Answer {
        Answer::Refused { code: self.code(), message: chain(self) }
    }
}

impl From<Denied> for RootError {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denied) => denied.fmt(f),
            Self::Place(e) => e.fmt(f),
            Self::Effect { what, .. } => write!(f, "cannot {what}"),
        }
    }
}

impl Error for RootError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Denied(denied) => denied.source(),
            Self::Place(e) => e.source(),
            Self::Effect { source, .. } => Some(&**source),
        }
    }
}
