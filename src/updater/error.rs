//! Why there was no update.

use std::error::Error;
use std::fmt;
use std::io;

use ureq::http::StatusCode;

use crate::host::causes::chain;
use crate::host::cmd::CmdError;
use crate::host::fetch::FetchError;

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Discover,
    Prepare,
    Download,
    Verify,
    Unpack,
    Check,
    Swap,
    Restart,
    Doctor,
    Finish,
    RollBack,
}

#[derive(Debug)]
pub struct UpdateError {
    pub at: At,
    pub why: Why,
    /// What became of the installation: ` (rolled back to previous install)`, or nothing.
    pub then: String,
}

#[derive(Debug)]
pub enum Why {
    /// `what` could not be had.
    Fetch {
        what: &'static str,
        source: FetchError,
    },
    /// `what` could not be done to a file.
    Io {
        what: String,
        source: io::Error,
    },
    Program(CmdError),
    /// A sentence.
    Said(String),
}

impl At {
    pub fn fetch(self, what: &'static str) -> impl FnOnce(FetchError) -> UpdateError {
        move |source| self.because(Why::Fetch { what, source })
    }

    /// `what`: a phrase such as `read /x`.
    pub fn io(self, what: impl Into<String>) -> impl FnOnce(io::Error) -> UpdateError {
        let what = what.into();
        move |source| self.because(Why::Io { what, source })
    }

    pub fn program(self) -> impl FnOnce(CmdError) -> UpdateError {
        move |source| self.because(Why::Program(source))
    }

    pub fn said(self, sentence: impl Into<String>) -> UpdateError {
        self.because(Why::Said(sentence.into()))
    }

    fn because(self, why: Why) -> UpdateError {
        UpdateError { at: self, why, then: String::new() }
    }
}

impl UpdateError {
    /// The same, with what became of it.
    #[must_use]
    pub fn then(self, then: impl Into<String>) -> Self {
        Self { then: then.into(), ..self }
    }
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at)?;
        match &self.why {
            Why::Fetch { what, source: FetchError::Status { status, .. } } => {
                let reason = StatusCode::from_u16(*status).ok().and_then(|s| s.canonical_reason());
                write!(f, "fetch {what}: HTTP {status} {}", reason.unwrap_or("without a name"))?;
            }
            // What became of it comes last, so the causes are said here.
            Why::Fetch { what, source } => write!(f, "fetch {what}: {}", chain(source))?,
            Why::Io { what, source } => write!(f, "cannot {what}: {source}")?,
            Why::Program(source) => f.write_str(&chain(source))?,
            Why::Said(sentence) => f.write_str(sentence)?,
        }
        f.write_str(&self.then)
    }
}

impl Error for UpdateError {}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discover => "discover",
            Self::Prepare => "prepare",
            Self::Download => "download",
            Self::Verify => "verify",
            Self::Unpack => "unpack",
            Self::Check => "check",
            Self::Swap => "swap",
            Self::Restart => "restart",
            Self::Doctor => "doctor",
            Self::Finish => "finish",
            Self::RollBack => "roll back",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_said_as_http_says_it() {
        let error =
            |status| At::Discover.fetch("manifest")(FetchError::Status { at: "x".to_owned(), status });
        assert_eq!(error(404).to_string(), "discover: fetch manifest: HTTP 404 Not Found");
        assert_eq!(error(503).to_string(), "discover: fetch manifest: HTTP 503 Service Unavailable");
        assert_eq!(error(799).to_string(), "discover: fetch manifest: HTTP 799 without a name");
    }

    #[test]
    fn what_became_of_it_comes_last() {
        let error = At::Doctor.said("bridge fails").then(" (rolled back to previous install)");
        assert_eq!(error.to_string(), "doctor: bridge fails (rolled back to previous install)");
    }
}
