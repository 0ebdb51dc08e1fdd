//! Waiting for a process to end, by its descriptor: a child of ours, one that an earlier daemon started, or a client.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use smol::{Async, Timer, future};

use crate::host::process;
use crate::vm::state::Process;

/// One process, whose end can be awaited.
#[derive(Debug)]
pub struct Exit {
    process: Process,
    fd: Async<OwnedFd>,
}

impl Exit {
    /// None: it has ended, and was reaped.
    pub fn of(process: Process) -> io::Result<Option<Self>> {
        let Some(fd) = process::open(process)? else { return Ok(None) };
        Ok(Some(Self { process, fd: Async::new_nonblocking(fd)? }))
    }

    /// Returns when the process has ended; a child of ours is reaped.
    pub async fn ended(&self) {
        if let Err(e) = self.fd.readable().await {
            log::error!("cannot wait for process {}: {e}", self.process.pid);
        }
        self.reap();
    }

    /// Returns whether it ended in time.
    pub async fn ended_within(&self, time: Duration) -> bool {
        let ended = async {
            self.ended().await;
            true
        };
        let late = async {
            Timer::after(time).await;
            false
        };
        future::or(ended, late).await
    }

    /// Kills it and waits for its end, which comes as soon as the kernel lets go of it.
    pub async fn kill(&self) {
        match pidfd_send_signal(self.fd.get_ref(), Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(e) => log::error!("cannot kill process {}: {e}", self.process.pid),
        }
        // A process stuck in the kernel (a dead network disk) does not end; the VM must not be stuck with it.
        if !self.ended_within(KILL_GRACE).await {
            log::error!("process {} was killed and has not ended; the kernel holds it", self.process.pid);
        }
    }

    fn reap(&self) {
        use std::os::fd::AsFd;
        match waitid(WaitId::PidFd(self.fd.get_ref().as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
        {
            // ECHILD: not our child; whoever started it has died, and init reaps it.
            Ok(_) | Err(Errno::CHILD) => {}
            Err(e) => log::warn!("cannot reap process {}: {e}", self.process.pid),
        }
    }
}

const KILL_GRACE: Duration = Duration::from_secs(10);

/// Kills `process`, if it is still there, and waits for its end.
pub async fn end(process: Process) {
    match Exit::of(process) {
        Ok(Some(exit)) => exit.kill().await,
        Ok(None) => {}
        Err(e) => log::error!("cannot open process {}: {e}", process.pid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    // That it is reaped by another way is what is tested.
    #[allow(clippy::zombie_processes)]
    fn a_child_is_killed_awaited_and_reaped() {
        let child = std::process::Command::new("sleep").arg("1000").spawn().expect("spawns");
        let process = process::observe(child.id()).expect("reads /proc").expect("lives");
        let exit = Exit::of(process).expect("opens").expect("lives");
        smol::block_on(async {
            assert!(!exit.ended_within(Duration::from_millis(1)).await);
            exit.kill().await;
        });
        assert!(!std::path::Path::new(&format!("/proc/{}", child.id())).exists(), "it was reaped");
        assert!(Exit::of(process).expect("opens").is_none());
    }

    #[test]
    // That it is reaped by another way is what is tested.
    #[allow(clippy::zombie_processes)]
    fn a_child_that_ended_while_nobody_watched_is_reaped_all_the_same() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().expect("spawns");
        let process = process::observe(child.id()).expect("reads /proc").expect("lives");
        let watch = process::open(process).expect("opens").expect("lives");
        drop(child.stdin.take());
        let mut ended = [rustix::event::PollFd::new(&watch, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut ended, None).expect("polls");
        smol::block_on(end(process));
        assert!(!std::path::Path::new(&format!("/proc/{}", child.id())).exists(), "it was reaped");
    }
}
