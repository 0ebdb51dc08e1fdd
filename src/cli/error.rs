//! Why a command was not done, and the exit status that says so.

use std::fmt;
use std::io;

use crate::cli::client::ClientError;
use crate::cli::session::SessionError;
use crate::cli::words::Usage;
use crate::cli::workspace::WorkspaceError;
use crate::config::ConfigError;
use crate::copy::CopyError;
use crate::host::trusted::Untrusted;
use crate::proto::api::{Code, Failure};
use crate::publish::PublishError;
use crate::publish::release::ReleaseError;
use crate::system::error::SystemError;
use crate::updater::error::UpdateError;

#[derive(Debug)]
pub enum Error {
    /// The words make no command.
    Usage(Usage),
    /// The words make a command that cannot be meant; a sentence.
    Refused(String),
    Client(ClientError),
    Session(SessionError),
    Copy(CopyError),
    Workspace(WorkspaceError),
    Publish(PublishError),
    Release(Box<ReleaseError>),
    Config(ConfigError),
    System(SystemError),
    Update(UpdateError),
    /// install.toml cannot be believed.
    Install(Untrusted),
    /// stdout does not take it.
    Stdout(io::Error),
    /// Something of this host; a phrase such as `read the log`.
    Host {
        what: String,
        source: io::Error,
    },
    /// A command could not be started in the guest: 126 or 127, as a shell says it.
    NotStarted {
        status: u8,
        failure: Failure,
    },
    /// All has been said; only the status is left.
    Said(u8),
}

/// What a shell shows for a process that a signal ended.
pub const fn status_of_signal(signal: i32) -> u8 {
    128 + (signal & 0x7f) as u8
}

/// The status of a process whose reader went away (SIGPIPE).
pub const BROKEN_PIPE: u8 = status_of_signal(13);

impl Error {
    /// The exit status: 1, except where a command's own status or a signal is what people expect.
    pub fn status(&self) -> u8 {
        match self {
            Self::Said(status) | Self::NotStarted { status, .. } => *status,
            Self::Stdout(e) if e.kind() == io::ErrorKind::BrokenPipe => BROKEN_PIPE,
            Self::Client(ClientError::Interrupted(signal)) => status_of_signal(*signal),
            Self::Usage(_)
            | Self::Refused(_)
            | Self::Client(_)
            | Self::Session(_)
            | Self::Copy(_)
            | Self::Workspace(_)
            | Self::Publish(_)
            | Self::Release(_)
            | Self::Config(_)
            | Self::System(_)
            | Self::Update(_)
            | Self::Install(_)
            | Self::Stdout(_)
            | Self::Host { .. } => 1,
        }
    }

    /// Whether there is nothing to say about it any more.
    pub fn is_said(&self) -> bool {
        match self {
            Self::Said(_) => true,
            Self::Stdout(e) => e.kind() == io::ErrorKind::BrokenPipe,
            _ => false,
        }
    }

    /// What the daemon said, where it was the daemon that failed.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Client(ClientError::Failed(failure)) | Self::NotStarted { failure, .. } => Some(failure),
            _ => None,
        }
    }

    /// An exec that failed because there is no such program has the status that a shell gives it.
    pub fn of_exec(error: ClientError) -> Self {
        match error {
            ClientError::Failed(failure) => match failure.code {
                Code::NoProgram => Self::NotStarted { status: 127, failure },
                Code::NotExecutable => Self::NotStarted { status: 126, failure },
                _ => Self::Client(ClientError::Failed(failure)),
            },
            other => Self::Client(other),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Transparent: the inner error is the sentence, and its source is ours.
            Self::Usage(e) => e.fmt(f),
            Self::Client(e) => e.fmt(f),
            Self::Session(e) => e.fmt(f),
            Self::Copy(e) => e.fmt(f),
            Self::Workspace(e) => e.fmt(f),
            Self::Publish(e) => e.fmt(f),
            Self::Release(e) => e.fmt(f),
            Self::Config(e) => e.fmt(f),
            Self::System(e) => e.fmt(f),
            Self::Update(e) => e.fmt(f),
            Self::Install(e) => e.fmt(f),
            Self::Refused(text) => f.write_str(text),
            Self::Stdout(_) => f.write_str("cannot write to stdout"),
            Self::Host { what, .. } => write!(f, "cannot {what}"),
            Self::NotStarted { failure, .. } => f.write_str(&failure.message),
            Self::Said(status) => write!(f, "exit status {status}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Usage(e) => e.source(),
            Self::Client(e) => e.source(),
            Self::Session(e) => e.source(),
            Self::Copy(e) => e.source(),
            Self::Workspace(e) => e.source(),
            Self::Publish(e) => e.source(),
            Self::Release(e) => e.source(),
            Self::Config(e) => e.source(),
            Self::System(e) => e.source(),
            Self::Update(e) => e.source(),
            Self::Install(e) => e.source(),
            Self::Stdout(source) | Self::Host { source, .. } => Some(source),
            Self::Refused(_) | Self::NotStarted { .. } | Self::Said(_) => None,
        }
    }
}

impl From<Usage> for Error {
    fn from(e: Usage) -> Self {
        Self::Usage(e)
    }
}

impl From<ClientError> for Error {
    fn from(e: ClientError) -> Self {
        Self::Client(e)
    }
}

impl From<SessionError> for Error {
    fn from(e: SessionError) -> Self {
        Self::Session(e)
    }
}

impl From<CopyError> for Error {
    fn from(e: CopyError) -> Self {
        Self::Copy(e)
    }
}

impl From<WorkspaceError> for Error {
    fn from(e: WorkspaceError) -> Self {
        match e {
            WorkspaceError::Interrupted(signal) => Self::Client(ClientError::Interrupted(signal)),
            e => Self::Workspace(e),
        }
    }
}

impl From<SystemError> for Error {
    fn from(e: SystemError) -> Self {
        Self::System(e)
    }
}
