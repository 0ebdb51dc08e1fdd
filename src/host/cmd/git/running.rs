//! A git that runs, its pipes, and its end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use rustix::event::PollFlags;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::patience::{GivenUp, Patience, Pipe, Watch};
use crate::host::cmd::CmdError;

/// How much of what git says on stderr is looked at, in bytes.
const MAX_STDERR: u64 = 64 * 1024;

pub type Stdin = Pipe<ChildStdin>;
pub type Stdout = Pipe<ChildStdout>;

/// A git that runs. Dropped before [`Running::finish`], it is killed.
#[derive(Debug)]
pub struct Running {
    doing: Doing,
    pub(super) child: Child,
    pub stdin: Option<Stdin>,
    pub stdout: Option<Stdout>,
    stderr: File,
    watch: Watch,
    ended: bool,
}

/// What a git does, and where: for its errors.
#[derive(Debug, Clone)]
pub struct Doing {
    pub program: String,
    pub at: PathBuf,
}

impl Doing {
    /// The error that something of its pipes or its end was.
    pub fn failed(&self, source: io::Error) -> CmdError {
        let Self { program, at } = self.clone();
        match source.downcast::<GivenUp>() {
            Ok(GivenUp::Signal(signal)) => CmdError::Interrupted(signal),
            Ok(GivenUp::Idle(limit)) => CmdError::Idle { program, at, limit },
            Err(source) => CmdError::Spawn { program, source },
        }
    }
}

impl Running {
    /// Starts what `prepare` prepares.
    pub(super) fn start(
        doing: Doing,
        patience: &Patience,
        prepare: impl FnOnce(Stdio) -> io::Result<Child>,
    ) -> io::Result<Self> {
        // A file rather than a pipe: nobody has to read it for git to go on.
        let said = memfd_create("git", MemfdFlags::CLOEXEC)?;
        let child = prepare(Stdio::from(said.try_clone()?))?;
        let watch = Watch::new(child.id(), patience);
        let mut running =
            Self { doing, child, stdin: None, stdout: None, stderr: said.into(), watch, ended: false };
        let (stdin, stdout) = (running.child.stdin.take(), running.child.stdout.take());
        running.stdin = stdin.map(|end| Pipe::new(end, running.watch.clone())).transpose()?;
        running.stdout = stdout.map(|end| Pipe::new(end, running.watch.clone())).transpose()?;
        Ok(running)
    }

    pub fn doing(&self) -> &Doing {
        &self.doing
    }

    /// Waits for its end, after its stdout has been read.
    ///
    /// # Errors
    /// [`CmdError::Failed`] with what it said.
    pub fn finish(self) -> Result<(), CmdError> {
        self.finish_after(Ok(()))
    }

    /// As [`Running::finish`]; `moved` is how it went with its pipes, of which it knows more if it failed itself.
    pub fn finish_after(mut self, moved: io::Result<()>) -> Result<(), CmdError> {
        (self.stdin, self.stdout) = (None, None);
        let given_up = |e: &io::Error| e.get_ref().is_some_and(|inner| inner.is::<GivenUp>());
        // It is killed where it is dropped.
        let moved = match moved {
            Err(e) if given_up(&e) => return Err(self.doing.failed(e)),
            moved => moved,
        };
        let ended = self.wait().map_err(|e| self.doing.failed(e))?;
        if !ended.success() {
            // Ctrl-C ends git too, whose failure is not what happened.
            return Err(match self.watch.patience.asked_to_end() {
                Some(signal) => CmdError::Interrupted(signal),
                None => {
                    let stderr = reason(&self.said());
                    CmdError::Failed { program: self.doing.program.clone(), status: ended, stderr }
                }
            });
        }
        moved.map_err(|e| self.doing.failed(e))
    }

    fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        self.watch.wait(process.as_fd(), PollFlags::IN)?;
        let status = self.child.wait()?;
        self.ended = true;
        Ok(status)
    }

    fn said(&mut self) -> String {
        let mut said = vec![];
        // What cannot be read is as if it had said nothing.
        let read = self.stderr.seek(SeekFrom::Start(0));
        read.and_then(|_| (&mut self.stderr).take(MAX_STDERR).read_to_end(&mut said)).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            // It may have ended by itself; there is nobody to tell anything else.
            self.child.kill().unwrap_or_default();
            self.child.wait().map(drop).unwrap_or_default();
        }
    }
}

/// The line that says why: what git calls fatal is followed by advice.
fn reason(said: &str) -> String {
    let fatal = said.lines().find_map(|line| line.strip_prefix("fatal: "));
    fatal.or_else(|| said.trim().lines().last()).unwrap_or_default().to_owned()
}
