//! How long a git is waited for. It may take whatever time it needs, but one that waits itself, for a named pipe that has taken the place of
//! a file or a disk that does not answer, would do so for ever.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::host::ending::Ending;
use crate::host::process::{self, Used};
use crate::vm::state::Process;

/// Who may end the waiting.
#[derive(Debug, Clone)]
pub struct Patience {
    /// How long it may neither say anything nor compute. Waiting for a slow disk to write gigabytes is neither.
    pub idle: Duration,
    /// None: signals have their usual effect.
    pub ending: Option<Ending>,
}

/// Why a git is not waited for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    Signal(i32),
    Idle(Duration),
}

/// A git that is waited for.
#[derive(Debug, Clone)]
pub struct Watch {
    pub patience: Patience,
    /// None: it cannot be looked at.
    process: Option<Process>,
}

/// A pipe to it or from it.
#[derive(Debug)]
pub struct Pipe<F> {
    end: F,
    watch: Watch,
}

impl Default for Patience {
    fn default() -> Self {
        Self { idle: Duration::from_secs(600), ending: None }
    }
}

impl Patience {
    /// As this one, but no longer than `idle`.
    pub fn at_most(&self, idle: Duration) -> Self {
        Self { idle: self.idle.min(idle), ending: self.ending.clone() }
    }

    /// The signal that has asked to end.
    pub fn asked_to_end(&self) -> Option<i32> {
        self.ending.as_ref().and_then(Ending::asked)
    }
}

impl Watch {
    pub fn new(pid: u32, patience: &Patience) -> Self {
        Self { patience: patience.clone(), process: process::observe(pid).ok().flatten() }
    }

    /// Waits until `fd` is ready.
    ///
    /// # Errors
    /// [`GivenUp`], within an error of no particular kind.
    pub fn wait(&self, fd: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
        // Its time is counted in pieces, and the clock not asked: while we are stopped, it is too.
        let piece = (self.patience.idle / 4).clamp(Duration::from_millis(1), Duration::from_secs(1));
        let timeout = Timespec::try_from(piece).map_err(io::Error::other)?;
        let mut idle = Duration::ZERO;
        let mut before = self.used();
        loop {
            if let Some(signal) = self.patience.asked_to_end() {
                return Err(io::Error::other(GivenUp::Signal(signal)));
            }
            let mut fds = vec![PollFd::from_borrowed_fd(fd, flags)];
            fds.extend(self.patience.ending.as_ref().map(|ending| PollFd::new(ending, PollFlags::IN)));
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => {
                    let now = self.used();
                    idle = if is_idle(before, now) { idle + piece } else { Duration::ZERO };
                    before = now;
                }
                Ok(_) if fds[0].revents().is_empty() => {}
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            if idle >= self.patience.idle {
                return Err(io::Error::other(GivenUp::Idle(self.patience.idle)));
            }
        }
    }

    fn used(&self) -> Option<Used> {
        process::used(self.process?).ok().flatten()
    }
}

/// Whether a process has done nothing between two looks at it. Of one that was stopped nothing is expected.
fn is_idle(before: Option<Used>, now: Option<Used>) -> bool {
    now.is_none_or(|now| !now.stopped && before.is_none_or(|before| before.cpu == now.cpu))
}

impl<F: AsFd> Pipe<F> {
    pub fn new(end: F, watch: Watch) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&end, true)?;
        Ok(Self { end, watch })
    }
}

impl<F: AsFd + Read> Read for Pipe<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.watch.wait(self.end.as_fd(), PollFlags::IN)?;
            match self.end.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

impl<F: AsFd + Write> Write for Pipe<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.watch.wait(self.end.as_fd(), PollFlags::OUT)?;
            match self.end.write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.end.flush()
    }
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(_) => f.write_str("cancelled"),
            Self::Idle(limit) => write!(f, "it did nothing for {limit:?}"),
        }
    }
}

impl std::error::Error for GivenUp {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_computes_or_is_stopped_is_not_idle() {
        let used = |ms, stopped| Some(Used { cpu: Duration::from_millis(ms), stopped });
        for (before, now, idle) in [
            (used(10, false), used(10, false), true),
            (used(10, false), used(20, false), false),
            (used(10, false), used(10, true), false),
            (None, used(10, false), true),
            (used(10, false), None, true),
        ] {
            assert_eq!(is_idle(before, now), idle, "{before:?} {now:?}");
        }
    }
}
