//! The daemon as seen from the command line: one request per connection, events while it lasts, one answer.

pub mod helper;
mod listen;
mod place;
mod reach;
mod wire;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Uid;

use self::place::{Log, Place};
use self::reach::Reached;
use self::wire::{Lines, send_line};
use crate::cli::render::Progress;
use crate::cli::signals::Signals;
use crate::config::Places;
use crate::host::cmd::git::Patience;
use crate::host::dirs::{Dirs, NoHome};
use crate::host::process;
use crate::host::trusted::Untrusted;
use crate::proto::api::{Call, DaemonStatus, DaemonStop, Failure, Reply, Request, UNKNOWN_REQUEST};

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    NoHome(NoHome),
    /// Somebody else could answer there.
    Foreign {
        path: PathBuf,
        uid: u32,
    },
    /// The daemon does not run, and was not to be started.
    NotRunning,
    /// The installation's daemon does not run.
    Down,
    /// It does not start, since its configuration is wrong; a sentence.
    Misconfigured(String),
    /// install.toml cannot be believed.
    Install(Untrusted),
    Start {
        what: String,
        source: io::Error,
    },
    /// The daemon ended at once; `last` is the last line of its log.
    Ended {
        log: Log,
        last: String,
    },
    Silent {
        log: Log,
    },
    Connection {
        what: &'static str,
        source: io::Error,
    },
    /// The daemon hung up without an answer.
    HungUp {
        log: Log,
    },
    /// The daemon ended before it had read the request.
    Unread,
    /// The daemon was told to stop, and does not end.
    Lingers {
        pid: u32,
    },
    /// It does not speak our protocol: another version of banger, most probably.
    BadReply {
        why: String,
    },
    /// It has never heard of such a request.
    OldDaemon,
    /// The daemon answered that it cannot.
    Failed(Failure),
    /// A signal arrived before the answer.
    Interrupted(i32),
}

/// What attends to a call while it lasts.
pub struct Attention<'a> {
    pub progress: &'a mut Progress,
    /// When given, a signal that asks to end interrupts the call; the daemon sees that nobody waits any more.
    pub signals: Option<&'a mut Signals>,
}

impl<'a> Attention<'a> {
    /// Shows progress; signals have their usual effect.
    pub fn to(progress: &'a mut Progress) -> Self {
        Self { progress, signals: None }
    }

    /// For waiting for git.
    pub fn patience(&self) -> Patience {
        self.signals.as_ref().map(|signals| signals.patience()).unwrap_or_default()
    }
}

/// Where the daemon is.
pub struct Client {
    place: Place,
}

impl Client {
    /// The daemon of this process's user, or of the installation that is theirs.
    ///
    /// # Errors
    /// [`ClientError::NoHome`], [`ClientError::Install`].
    pub fn from_env() -> Result<Self, ClientError> {
        Place::from_env().map(|place| Self { place })
    }

    /// The daemon of the installation with these directories.
    pub fn of_installation(dirs: Dirs, owner: Uid) -> Self {
        Self { place: Place::of_installation(dirs, owner) }
    }

    /// Whether it is an installation's, which systemd starts and stops.
    pub fn is_of_installation(&self) -> bool {
        self.place.installed
    }

    /// The files that it is configured by.
    pub fn config(&self) -> &Places {
        &self.place.config
    }

    pub fn state_dir(&self) -> &Path {
        &self.place.dirs.state
    }

    /// Asks and waits for the answer, without showing progress. Starts the daemon if nothing listens.
    pub fn ask<C: Call>(&self, request: C) -> Result<C::Answer, ClientError> {
        self.call(request, &mut Attention::to(&mut Progress::silent()))
    }

    /// Asks and waits for the answer. Starts the daemon if nothing listens.
    pub fn call<C: Call>(&self, request: C, attention: &mut Attention<'_>) -> Result<C::Answer, ClientError> {
        self.converse::<C>(request, None, attention).map(|(a, _)| a)
    }

    /// Like [`Client::call`], and lends the daemon a descriptor.
    pub fn call_with<C: Call>(
        &self,
        request: C,
        lent: BorrowedFd<'_>,
        attention: &mut Attention<'_>,
    ) -> Result<C::Answer, ClientError> {
        self.converse::<C>(request, Some(lent), attention).map(|(a, _)| a)
    }

    /// Asks for a byte stream: returns the answer's descriptor.
    pub fn open<C: Call>(&self, request: C, attention: &mut Attention<'_>) -> Result<OwnedFd, ClientError> {
        self.open_with(request, attention).map(|(_, fd)| fd)
    }

    /// As [`Client::open`], with what the answer says.
    pub fn open_with<C: Call>(
        &self,
        request: C,
        attention: &mut Attention<'_>,
    ) -> Result<(C::Answer, OwnedFd), ClientError> {
        match self.converse::<C>(request, None, attention)? {
            (answer, Some(fd)) => Ok((answer, fd)),
            (_, None) => {
                Err(ClientError::BadReply { why: "the answer came without its descriptor".to_owned() })
            }
        }
    }

    /// Asks a daemon that already runs.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`], and those of [`Client::call`].
    pub fn ask_running<C: Call>(&self, request: C) -> Result<C::Answer, ClientError> {
        let absent = || if self.place.installed { reach::down(&self.place) } else { ClientError::NotRunning };
        let connection = reach::reach(&self.place)?.ok_or_else(absent)?;
        let mut progress = Progress::silent();
        let line = line_of::<C>(request)?;
        self.exchange::<C>(connection, &line, None, &mut Attention::to(&mut progress)).map(|(a, _)| a)
    }

    /// Tells a daemon that runs to stop, and waits until its process has gone.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`], [`ClientError::Lingers`], and those of [`Client::call`].
    pub fn stop_running(&self) -> Result<(), ClientError> {
        const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
        let pid = self.ask_running(DaemonStatus {})?.pid;
        let waiting = |source| ClientError::Connection { what: "wait for bangerd to end", source };
        let process =
            process::observe(pid).and_then(|seen| seen.map_or(Ok(None), process::open)).map_err(waiting)?;
        self.ask_running(DaemonStop {})?;
        let Some(process) = process else { return Ok(()) };
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&PATIENCE)) {
            Ok(0) => Err(ClientError::Lingers { pid }),
            Ok(_) => Ok(()),
            Err(e) => Err(waiting(e.into())),
        }
    }

    /// Asks the daemon, once more where one ended with the request unread: a daemon that has just been killed still
    /// accepts connections for a moment.
    fn converse<C: Call>(
        &self,
        request: C,
        lent: Option<BorrowedFd<'_>>,
        attention: &mut Attention<'_>,
    ) -> Result<(C::Answer, Option<OwnedFd>), ClientError> {
        let line = line_of::<C>(request)?;
        match self.exchange::<C>(reach::reach_or_start(&self.place)?, &line, lent, attention) {
            Err(ClientError::Unread) => {
                self.exchange::<C>(reach::reach_or_start(&self.place)?, &line, lent, attention)
            }
            answered => answered,
        }
    }

    fn exchange<C: Call>(
        &self,
        reached: Reached,
        line: &[u8],
        lent: Option<BorrowedFd<'_>>,
        attention: &mut Attention<'_>,
    ) -> Result<(C::Answer, Option<OwnedFd>), ClientError> {
        let connection = &reached.stream;
        match send_line(connection, line, lent) {
            // The daemon may refuse before it has read all; then its answer says why.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(e) => return Err(ClientError::Connection { what: "send the request", source: e.into() }),
        }
        let mut lines = Lines::default();
        loop {
            let Some(line) = lines.take()? else {
                attend(connection, attention)?;
                match lines.fill(connection) {
                    Ok(true) => continue,
                    Ok(false) => return Err(reached.why_hung_up(&self.place)),
                    // One that was started just now says in its log why it ended, and another would end as well.
                    Err(ClientError::Unread) if reached.is_new() => {
                        return Err(reached.why_hung_up(&self.place));
                    }
                    Err(e) => return Err(e),
                }
            };
            match serde_json::from_slice::<Reply>(&line).map_err(bad_reply)? {
                Reply::Event(event) => attention.progress.event(&event),
                Reply::Done(value) => {
                    return Ok((serde_json::from_value(value).map_err(bad_reply)?, lines.into_fd()));
                }
                Reply::Error(failure) if failure.message.starts_with(UNKNOWN_REQUEST) => {
                    return Err(ClientError::OldDaemon);
                }
                Reply::Error(failure) => return Err(ClientError::Failed(failure)),
            }
        }
    }
}

fn line_of<C: Call>(request: C) -> Result<Vec<u8>, ClientError> {
    let request: Request = request.into();
    let line = request.to_json().map_err(bad_reply)?;
    Ok((line + "\n").into_bytes())
}

fn bad_reply(e: serde_json::Error) -> ClientError {
    ClientError::BadReply { why: e.to_string() }
}

/// Waits until the connection has something to read, moving the bar meanwhile.
fn attend(connection: &UnixStream, attention: &mut Attention<'_>) -> Result<(), ClientError> {
    const FRAME: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    loop {
        let signals = attention.signals.as_ref().map(|s| s.as_fd());
        let mut fds = vec![PollFd::new(connection, PollFlags::IN)];
        fds.extend(signals.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let timeout = attention.progress.moves().then_some(&FRAME);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(ClientError::Connection { what: "wait for the daemon", source: e.into() }),
        }
        let readable = !fds[0].revents().is_empty();
        drop(fds);
        if let Some(signal) = attention.signals.as_mut().and_then(|s| s.asked_to_end()) {
            return Err(ClientError::Interrupted(signal));
        }
        if readable {
            return Ok(());
        }
        attention.progress.tick();
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHome(e) => e.fmt(f),
            Self::Foreign { path, uid } => write!(
                f,
                "{} belongs to uid {uid}, not to you; remove it, or set BANGER_ROOT to a directory of your own",
                path.display()
            ),
            Self::NotRunning => f.write_str("bangerd is not running; any command that needs it starts it"),
            Self::Down => f.write_str("bangerd is not running; `sudo banger system restart` starts it"),
            Self::Misconfigured(why) => write!(f, "bangerd does not start: {why}"),
            Self::Install(e) => e.fmt(f),
            Self::Start { what, .. } => write!(f, "cannot start bangerd: cannot {what}"),
            Self::Ended { log, last } if last.is_empty() => {
                write!(f, "bangerd ended as soon as it was started; {} may say why", log)
            }
            Self::Ended { last, log } => {
                write!(f, "bangerd ended as soon as it was started: {last} (more in {})", log)
            }
            Self::Silent { log } => {
                write!(f, "bangerd was started and does not answer; {} may say why", log)
            }
            Self::Connection { what, .. } => write!(f, "cannot {what}"),
            Self::HungUp { log } => {
                write!(f, "bangerd hung up without an answer; {} may say why", log)
            }
            Self::Unread => f.write_str("bangerd ended before it had read the request; try again"),
            Self::Lingers { pid } => {
                write!(f, "bangerd (pid {pid}) was told to stop and still runs; VMs run on if you kill it")
            }
            Self::BadReply { why } => write!(
                f,
                "bangerd gave an answer that this banger does not understand; `banger daemon stop` makes room for a new one: {why}"
            ),
            Self::OldDaemon => f.write_str(
                "the bangerd that runs is of another version of banger and does not know this request; `banger daemon stop`, or \
                 `sudo banger system restart` where it is installed, makes room for one that does; VMs run on",
            ),
            Self::Failed(failure) => f.write_str(&failure.message),
            Self::Interrupted(_) => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start { source, .. } | Self::Connection { source, .. } => Some(source),
            Self::Install(e) => e.source(),
            Self::NoHome(_)
            | Self::Down
            | Self::Misconfigured(_)
            | Self::Foreign { .. }
            | Self::NotRunning
            | Self::Ended { .. }
            | Self::Silent { .. }
            | Self::HungUp { .. }
            | Self::Unread
            | Self::Lingers { .. }
            | Self::BadReply { .. }
            | Self::OldDaemon
            | Self::Failed(_)
            | Self::Interrupted(_) => None,
        }
    }
}
