//! The seam to what only root may do: by the helper's socket, or, where this daemon is root itself, in its own process.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::process::{getegid, geteuid};
use rustix::thread::{CapabilitySet, capabilities};

use crate::config::NetworkKind;
use crate::daemon::fault::{Fault, chain};
use crate::host::descriptors;
use crate::host::dirs::Dirs;
use crate::host::endpoint::SocketError;
use crate::proto::api::Code;
use crate::proto::root::{Answer, Code as RootCode, MAX_ANSWER, Request, Status};
use crate::root::{self, Ground, Root, Settings};

/// How long the helper may take: a jail is made and a VMM started in it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who does what only root may do.
pub enum RootClient {
    /// This process, which is root's, and nothing is installed.
    Here(Arc<Root>),
    /// bangerd-root, if it listens there.
    Helper(PathBuf),
    /// Nobody is to be asked: the configuration wants no bridge.
    Nobody,
    /// This process is root's, but has been denied what root may do, as in most containers.
    Powerless,
}

/// Why root did not do it.
#[derive(Debug)]
pub enum RootError {
    /// The helper cannot be reached, or broke off.
    Helper {
        socket: PathBuf,
        source: io::Error,
    },
    Refused {
        code: RootCode,
        message: String,
    },
    Nobody,
    /// It answered with something else than what was asked for.
    Nonsense(&'static str),
}

impl RootClient {
    /// Who does it for a daemon with these directories, as this process's user.
    pub fn find(dirs: &Dirs, kind: NetworkKind) -> Result<Self, Fault> {
        let helper = || Self::Helper(dirs.root_socket());
        match kind {
            NetworkKind::User => Ok(Self::Nobody),
            NetworkKind::Auto if !geteuid().is_root() => Ok(helper()),
            NetworkKind::Auto if !has_power() => Ok(Self::Powerless),
            NetworkKind::Auto => {
                let ground = Ground { owner: geteuid(), group: getegid(), dirs: dirs.clone() };
                let settings = Settings::read(&dirs.config_file())
                    .map_err(|e| Fault::failed("cannot work as root", &e))?;
                match Root::new(ground, settings) {
                    Ok(root) => Ok(Self::Here(at_work(root)?)),
                    // Installed for another owner; it serves root as well.
                    Err(root::RootError::Place(SocketError::Running { .. })) => Ok(helper()),
                    Err(e) => Err(Fault::failed("cannot work as root", &e)),
                }
            }
        }
    }

    /// Whether there is anybody to ask. A plain user's machine without an installation has nobody, and another's helper is nobody
    /// to ask either: its socket cannot be written to.
    pub fn is_there(&self) -> bool {
        match self {
            Self::Here(_) => true,
            Self::Helper(socket) => access(socket, Access::WRITE_OK).is_ok(),
            Self::Nobody | Self::Powerless => false,
        }
    }

    /// Has `request` done, with the descriptors that belong to it. Blocks.
    ///
    /// # Errors
    /// Nothing is left of what was begun.
    pub fn ask(&self, request: &Request, descriptors: Vec<OwnedFd>) -> Result<Answer, RootError> {
        let answer = match self {
            Self::Here(root) => root.perform(request, descriptors).unwrap_or_else(|e| e.answer()),
            Self::Nobody | Self::Powerless => return Err(RootError::Nobody),
            Self::Helper(socket) => converse(socket, request, &descriptors)
                .map_err(|source| RootError::Helper { socket: socket.clone(), source })?,
        };
        match answer {
            Answer::Refused { code, message } => Err(RootError::Refused { code, message }),
            answer => Ok(answer),
        }
    }

    /// As [`RootClient::ask`], for what has no answer but that it is done.
    pub fn order(&self, request: &Request) -> Result<(), RootError> {
        match self.ask(request, vec![])? {
            Answer::Done => Ok(()),
            _ => Err(RootError::Nonsense("an order")),
        }
    }

    pub fn status(&self) -> Result<Status, RootError> {
        match self.ask(&Request::Status, vec![])? {
            Answer::Status(status) => Ok(status),
            _ => Err(RootError::Nonsense("status")),
        }
    }
}

/// Whether this process may do what the bridge and jails take (capabilities(7)).
fn has_power() -> bool {
    let needed = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
    capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Brings what root had made in order, and keeps the firewall there from now on, as the helper does at its start.
fn at_work(root: Root) -> Result<Arc<Root>, Fault> {
    let root = Arc::new(root);
    if let Err(e) = root.reconcile() {
        log::error!("not everything could be reconciled: {}", chain(&e));
    }
    root::keep_firewall(&root).map_err(|e| Fault::failed("cannot watch the firewall", &e))?;
    Ok(root)
}

fn converse(socket: &PathBuf, request: &Request, files: &[OwnedFd]) -> io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let fds: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
    descriptors::send(&stream, &line, &fds)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_ANSWER as u64)).read_line(&mut answer)?;
    match answer.ends_with('\n') {
        true => Ok(serde_json::from_str(&answer)?),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl From<RootError> for Fault {
    fn from(e: RootError) -> Self {
        let code = match &e {
            RootError::Refused { code: RootCode::Foreign | RootCode::Conflict, .. } => Code::Conflict,
            RootError::Refused { code: RootCode::NotFound, .. } => Code::NotFound,
            RootError::Refused { .. }
            | RootError::Helper { .. }
            | RootError::Nobody
            | RootError::Nonsense(_) => Code::Failed,
        };
        Fault::new(code, chain(&e))
    }
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Helper { socket, .. } => write!(f, "cannot speak to bangerd-root at {}", socket.display()),
            Self::Refused { message, .. } => f.write_str(message),
            Self::Nobody => f.write_str("nobody here may make a bridge"),
            Self::Nonsense(asked) => write!(f, "bangerd-root answered something else than {asked}"),
        }
    }
}

impl std::error::Error for RootError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Helper { source, .. } => Some(source),
            Self::Refused { .. } | Self::Nobody | Self::Nonsense(_) => None,
        }
    }
}
