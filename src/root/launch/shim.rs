//! The helper's side of a process that becomes a VMM: started, known by pid and start time, and only then told what to become.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::host::{descriptors, process};
use crate::root::launch::order::Order;
use crate::root::launch::stage::FIRST;
use crate::vm::state::Process;

/// Longer than the stages ever take, and shorter than callers wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process that exists and waits to become a program. Dropping it ends it.
#[derive(Debug)]
#[must_use]
pub struct Shim {
    /// Where its end of the socket is read and written; closing it ends one that has not been told.
    socket: BufReader<UnixStream>,
    process: Process,
}

impl Shim {
    /// Starts one, from `executable`, which is this one.
    pub fn spawn(executable: &Path) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(PATIENCE))?;
        let mut first = Command::new(executable)
            .arg0("bangerd-root")
            .arg(FIRST)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        let mut socket = BufReader::new(ours);
        let mut line = String::new();
        let read = socket.by_ref().take(16).read_line(&mut line);
        // It ends once it has told.
        let status = first.wait()?;
        read?;
        let pid = line.trim_end().parse();
        let pid: u32 = pid.map_err(|_| io::Error::other(format!("the first stage failed, {status}")))?;
        match process::observe(pid)? {
            Some(process) => Ok(Self { socket, process }),
            None => Err(io::Error::other("the second stage ended at once")),
        }
    }

    pub fn process(&self) -> Process {
        self.process
    }

    /// Lets it become what `order` says, with `files`; returns once it has. It is no longer this value's to end.
    ///
    /// # Errors
    /// What kept it from becoming the program; it has ended then.
    pub fn release(self, order: &Order, files: &[OwnedFd]) -> io::Result<()> {
        let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let mut socket = self.socket.into_inner();
        descriptors::send(&socket, b"o", &fds)?;
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        socket.write_all(&line)?;
        let mut said = String::new();
        socket.take(4096).read_to_string(&mut said)?;
        if said.is_empty() { Ok(()) } else { Err(io::Error::other(said)) }
    }
}
