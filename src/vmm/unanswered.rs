//! Connections to a hybrid vsock device that were given up before it answered.
//!
//! They are not closed until it has: vhost-device-vsock 0.3 writes `OK` when the guest takes the connection, however late that is,
//! and panics if it cannot (its vsock_conn.rs, VSOCK_OP_RESPONSE), after which nothing reaches that guest any more. A guest is late
//! when its VMM is stopped or the host is busy, and whoever asked has a deadline.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{io, mem};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How many may wait for one device; there are no more connections to it until it answers or ends.
const MOST: usize = 32;

static KEPT: Mutex<Vec<(PathBuf, OwnedFd)>> = Mutex::new(vec![]);

/// A connection over which `CONNECT` was said. Dropping this says that it is given up, and keeps it open as long as need be.
pub struct Unanswered<'a> {
    device: &'a Path,
    connection: BorrowedFd<'a>,
}

impl<'a> Unanswered<'a> {
    pub fn new(device: &'a Path, connection: BorrowedFd<'a>) -> Self {
        Self { device, connection }
    }

    /// The device has answered, or hung up.
    pub fn answered(self) {
        mem::forget(self);
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        match self.connection.try_clone_to_owned() {
            Ok(fd) => kept().push((self.device.to_owned(), fd)),
            Err(e) => log::error!("{}: a connection is closed too early: {e}", self.device.display()),
        }
    }
}

/// Whether there may be another connection to the device. Closes those that it has answered meanwhile.
///
/// # Errors
/// `TimedOut`: too many wait for it already.
pub fn admit(device: &Path) -> io::Result<()> {
    let mut kept = kept();
    kept.retain(|(_, fd)| !is_answered(fd));
    if kept.iter().filter(|(path, _)| path == device).count() < MOST {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("the guest has not taken {MOST} earlier connections"),
    ))
}

fn kept() -> MutexGuard<'static, Vec<(PathBuf, OwnedFd)>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_answered(fd: &OwnedFd) -> bool {
    const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    poll(&mut fds, Some(&NOW)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Duration;

    use super::*;
    use crate::vmm::Channel;

    /// A device that takes connections and says nothing, and a way to it.
    fn silent() -> (tempfile::TempDir, UnixListener, Channel) {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("v");
        let listener = UnixListener::bind(&socket).expect("binds");
        (dir, listener, Channel::Hybrid { socket })
    }

    fn give_up(channel: &Channel) -> io::ErrorKind {
        channel.connect(1000, Duration::from_millis(20)).expect_err("nobody answers").kind()
    }

    #[test]
    fn a_device_that_answers_late_finds_somebody_there() {
        let (_dir, listener, channel) = silent();
        assert_eq!(give_up(&channel), io::ErrorKind::TimedOut);
        let (mut peer, _) = listener.accept().expect("accepts");
        peer.read_exact(&mut [0; 13]).expect("reads");
        peer.write_all(b"OK 1\n").expect("is not hung up on");
        // And it is closed once that is known.
        assert_eq!(give_up(&channel), io::ErrorKind::TimedOut);
        assert!(ended(&mut peer), "it is not kept for ever");
    }

    /// Whether the other end has gone; one with something unread resets the connection (unix(7)).
    fn ended(peer: &mut UnixStream) -> bool {
        peer.set_read_timeout(Some(Duration::from_secs(10))).expect("sets a timeout");
        match peer.read(&mut [0]) {
            Ok(n) => n == 0,
            Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    #[test]
    fn a_device_that_never_answers_gets_only_so_many() {
        let (_dir, listener, channel) = silent();
        let mut peers = vec![];
        for _ in 0..MOST {
            assert_eq!(give_up(&channel), io::ErrorKind::TimedOut);
            peers.push(listener.accept().expect("accepts"));
        }
        let said = channel.connect(1000, Duration::from_secs(20)).expect_err("too many wait").to_string();
        assert_eq!(said, "the guest has not taken 32 earlier connections");
        let begun = channel.begin(1000).expect_err("too many wait");
        assert_eq!(begun.kind(), io::ErrorKind::TimedOut);
        let (_other_dir, _other, elsewhere) = silent();
        elsewhere.begin(1000).expect("another device is another matter");
        // It ends, as with its VM.
        peers.clear();
        channel.begin(1000).expect("there is room again");
    }
}
