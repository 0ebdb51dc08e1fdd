//! A unix stream with a deadline for all that happens on it, so that a peer which answers slowly, byte by byte, cannot
//! hold anybody up.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// A socket that is where it seems to be. What a VMM in its jail may have put in its place, it may not have us follow: a link to another
/// VM's socket, or to the owner's own.
#[derive(Debug)]
pub struct Itself(OwnedFd);

impl Itself {
    /// What is at `path`, even if it is a link.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Where it is connected to, as long as this lives; a link refuses every connection.
    pub fn address(&self) -> io::Result<SocketAddrUnix> {
        Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}", self.0.as_raw_fd()))?)
    }
}

#[derive(Debug)]
pub struct DeadlineStream {
    stream: UnixStream,
    deadline: Instant,
}

impl DeadlineStream {
    /// Connects to the socket at `path`; connecting counts towards `timeout`.
    ///
    /// # Errors
    /// The kernel's, `ConnectionRefused` for a symlink too; `TimedOut` if the listener's queue stays full.
    pub fn connect(path: &Path, timeout: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + timeout;
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        let itself = Itself::at(path)?;
        let address = itself.address()?;
        loop {
            match connect(&socket, &address) {
                Ok(()) => break,
                // A full queue; poll(2) does not tell when it has room again (unix(7)).
                Err(Errno::AGAIN) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2))
                }
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(e) => return Err(e.into()),
            }
        }
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        Ok(Self { stream, deadline })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Gives what follows its own time.
    pub fn restart(&mut self, timeout: Duration) {
        self.deadline = Instant::now() + timeout;
    }

    /// The stream, without a deadline.
    pub fn into_stream(self) -> io::Result<UnixStream> {
        self.stream.set_read_timeout(None)?;
        self.stream.set_write_timeout(None)?;
        Ok(self.stream)
    }

    /// Fills `buffer` as far as there are bytes, without taking them from the stream.
    pub fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        let (_, received) =
            rustix::net::recv(&self.stream, buffer, rustix::net::RecvFlags::PEEK).map_err(timed_out)?;
        Ok(received)
    }

    fn left(&self) -> io::Result<Duration> {
        match self.deadline.checked_duration_since(Instant::now()) {
            // Zero would mean no timeout at all (std::os::unix::net::UnixStream::set_read_timeout).
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// A timeout of a socket shows as EAGAIN (socket(7), SO_RCVTIMEO).
fn timed_out(e: impl Into<io::Error>) -> io::Error {
    match e.into() {
        e if e.kind() == io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        e => e,
    }
}

impl Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer).map_err(timed_out)
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_peer_that_dribbles_bytes_does_not_outlast_the_deadline() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).expect("binds");
        let dribble = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("accepts");
            while peer.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let mut stream = DeadlineStream::connect(&path, Duration::from_millis(50)).expect("connects");
        let error = io::copy(&mut stream, &mut io::sink()).expect_err("never ends by itself");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(stream);
        dribble.join().expect("ends once we have gone");
    }

    #[test]
    fn a_symlink_to_a_socket_is_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let _listener = UnixListener::bind(dir.path().join("s")).expect("binds");
        std::os::unix::fs::symlink("s", dir.path().join("link")).expect("links");
        DeadlineStream::connect(&dir.path().join("s"), Duration::from_secs(60)).expect("connects");
        let error = DeadlineStream::connect(&dir.path().join("link"), Duration::from_secs(60));
        assert_eq!(error.expect_err("a link").kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_full_queue_is_a_timeout_and_no_socket_is_an_error_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let error = DeadlineStream::connect(&path, Duration::from_secs(60)).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).expect("short")).expect("binds");
        rustix::net::listen(&socket, 0).expect("listens");
        let _waiting = DeadlineStream::connect(&path, Duration::from_millis(50)).expect("fills the queue");
        let error = DeadlineStream::connect(&path, Duration::from_millis(50)).expect_err("the queue is full");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
