//! One connection: a request line, an answer, and what follows from it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};

use super::wire::Wire;
use super::{clock, exec, files, forward, identity, ports, session, stats, workspace};
use crate::build;
use crate::proto::agent::{Answer, Code, Hello, Request};
use crate::vm::lifetime::Activity;

/// How long the host may take to say what it wants.
const REQUEST: Duration = Duration::from_secs(10);

/// What all connections share.
pub struct Guest {
    own_init: Option<String>,
    /// Nothing is ever written: the read end hangs up for every session at once when the guest closes.
    closing: OwnedFd,
    open: Mutex<Option<OwnedFd>>,
    /// How many commands run.
    sessions: Mutex<usize>,
    fewer: Condvar,
    used: Mutex<Used>,
}

/// Who uses the guest.
struct Used {
    /// Operations that are more than a question.
    open: u32,
    /// When the last one ended, or the guest came up.
    last: Instant,
}

/// An operation that goes on.
struct InUse<'a>(&'a Guest);

/// A command that runs, as far as the guest's closing is concerned.
pub struct Counted<'a>(&'a Guest);

/// What is to be done when a connection has been served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    Nothing,
    /// The host wants the machine to end.
    PowerOff,
}

impl Guest {
    pub fn new(own_init: Option<String>) -> io::Result<Self> {
        let (closing, open) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self {
            own_init,
            closing,
            open: Mutex::new(Some(open)),
            sessions: Mutex::new(0),
            fewer: Condvar::new(),
            used: Mutex::new(Used { open: 0, last: Instant::now() }),
        })
    }

    pub fn hello(&self) -> Hello {
        Hello {
            version: build::VERSION.to_owned(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            init: self.own_init.clone(),
        }
    }

    pub fn own_init(&self) -> Option<&str> {
        self.own_init.as_deref()
    }

    /// Ends every command as if its host had hung up, and waits for them, but no longer than `patience`.
    pub fn close(&self, patience: Duration) {
        drop(lock(&self.open).take());
        let running = lock(&self.sessions);
        // Whether they are all gone or not: the machine is turned off now.
        drop(self.fewer.wait_timeout_while(running, patience, |running| *running > 0));
    }

    pub fn count(&self) -> Counted<'_> {
        *lock(&self.sessions) += 1;
        Counted(self)
    }

    fn begin_use(&self) -> InUse<'_> {
        lock(&self.used).open += 1;
        InUse(self)
    }

    pub fn activity(&self) -> Activity {
        let used = lock(&self.used);
        let quiet = u64::try_from(used.last.elapsed().as_millis()).unwrap_or(u64::MAX);
        Activity { open: used.open.saturating_add(ports::connections()), quiet_ms: quiet }
    }

    /// Hangs up when the guest closes.
    pub fn closing(&self) -> BorrowedFd<'_> {
        self.closing.as_fd()
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        *lock(&self.0.sessions) -= 1;
        self.0.fewer.notify_all();
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        let mut used = lock(&self.0.used);
        used.open -= 1;
        used.last = Instant::now();
    }
}

/// What is behind the locks here is whole at any time, so a thread that panicked takes nobody with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one connection to its end. A host that does not keep to the protocol, or hangs up, ends it early; it is the only
/// one that could be told.
pub fn serve(socket: OwnedFd, guest: &Guest) -> After {
    match converse(socket, guest) {
        Ok(after) => after,
        Err(e) => {
            log::debug!("a connection ended early: {e}");
            After::Nothing
        }
    }
}

fn converse(socket: OwnedFd, guest: &Guest) -> io::Result<After> {
    let mut wire = Wire::new(socket)?;
    let line = match wire.request(REQUEST) {
        Ok(line) => line,
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::TimedOut) => {
            wire.refuse(Code::BadRequest, format!("this is no request: {e}"))?;
            return wire.finish().map(|()| After::Nothing);
        }
        Err(e) => return Err(e),
    };
    let mut after = After::Nothing;
    let request = serde_json::from_slice(&line);
    // Until this connection has been served.
    let _in_use = matches!(&request, Ok(request) if is_use(request)).then(|| guest.begin_use());
    match request {
        Err(e) => wire.refuse(Code::BadRequest, format!("this is no request: {e}"))?,
        Ok(Request::Hello) => wire.answer(&Answer::Hello(guest.hello()))?,
        Ok(Request::Configure(wanted)) => match clock::follow(wanted.clock_ns) {
            Ok(()) => wire.answer(&Answer::Done)?,
            Err(e) => wire.refuse(Code::Failed, format!("cannot set the clock: {e}"))?,
        },
        Ok(Request::Hostname(wanted)) => match identity::rename(wanted.name.as_str()) {
            Ok(()) => wire.answer(&Answer::Done)?,
            Err(e) => wire.refuse(Code::Failed, e.sentence())?,
        },
        Ok(Request::Activity) => wire.answer(&Answer::Activity(guest.activity()))?,
        Ok(Request::Exec(wanted)) => {
            drop(line);
            match exec::start(wanted) {
                Ok(command) => return session::run(wire, command, guest).map(|()| After::Nothing),
                Err(refused) => wire.answer(&Answer::Refused(refused))?,
            }
        }
        Ok(Request::Read(wanted)) => files::send::run(&mut wire, &wanted)?,
        Ok(Request::Write(wanted)) => files::receive::run(&mut wire, &wanted)?,
        Ok(Request::Prepare(wanted)) => {
            workspace::prepare(&mut wire, &wanted, Path::new(workspace::LEDGERS))?
        }
        Ok(Request::Changes(wanted)) => {
            workspace::changes(&mut wire, &wanted, Path::new(workspace::LEDGERS))?
        }
        Ok(Request::Connect(wanted)) => return forward::run(wire, &wanted).map(|()| After::Nothing),
        Ok(Request::Ports) => wire.answer(&Answer::Ports { ports: ports::ports() })?,
        Ok(Request::Stats) => wire.answer(&Answer::Stats(Box::new(stats::read())))?,
        Ok(Request::PowerOff) => {
            wire.answer(&Answer::Done)?;
            after = After::PowerOff;
        }
    }
    match (wire.finish(), after) {
        // It said what it wants, whether or not it stays to hear the answer.
        (_, After::PowerOff) => Ok(after),
        (finished, After::Nothing) => finished.map(|()| after),
    }
}

/// Whether it is somebody's work; else it is a question, or housekeeping.
fn is_use(request: &Request) -> bool {
    match request {
        Request::Exec(_)
        | Request::Read(_)
        | Request::Write(_)
        | Request::Connect(_)
        | Request::Prepare(_)
        | Request::Changes(_) => true,
        Request::Hello
        | Request::Configure(_)
        | Request::Hostname(_)
        | Request::Activity
        | Request::Stats
        | Request::Ports
        | Request::PowerOff => false,
    }
}

#[cfg(test)]
mod tests;
