//! The way to a guest's vsock ports, and from the guest to ours, whichever of the two kinds of [`Channel`] it is.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use vsock::{VMADDR_CID_ANY, VsockListener};

use crate::host::files::remove_if_present;
use crate::vmm::Channel;
use crate::vmm::deadline::{DeadlineStream, Itself};
use crate::vmm::unanswered::{self, Unanswered};
use crate::vmm::vsock_address::VsockAddress;

/// `OK `, a port of ten digits, and the newline.
pub const LONGEST_ANSWER: usize = 14;
/// The kernel picks a port that is free (linux/vm_sockets.h; the vsock crate has no name for it).
const VMADDR_PORT_ANY: u32 = u32::MAX;

impl Channel {
    /// Opens a stream to the guest's `port`. It blocks and has no timeout of its own; reads and writes are all that it
    /// is good for, whatever its family: `File::from(fd)` or `UnixStream::from(fd)` do them.
    ///
    /// # Errors
    /// `ConnectionRefused` if nobody in the guest listens there (yet), `TimedOut`, `InvalidData` for an answer that is
    /// none, and the kernel's.
    pub fn connect(&self, port: u32, timeout: Duration) -> io::Result<OwnedFd> {
        match self {
            Self::Hybrid { socket } => connect_hybrid(socket, port, timeout),
            Self::Vhost { cid } => connect_vhost(*cid, port, timeout),
        }
    }

    /// Begins what [`Channel::connect`] does, for async code: the socket does not block. It is connected once it is writable and
    /// [`connected`] agrees; then the [`Channel::greeting`], if there is one, is sent in one write, and answered by a line that
    /// [`welcomes`] understands.
    ///
    /// # Errors
    /// `WouldBlock` if too many wait there already: again, a little later. The kernel's.
    pub fn begin(&self, port: u32) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let begun = |socket: OwnedFd, outcome| match outcome {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(e) => Err(refused(e)),
        };
        match self {
            Self::Hybrid { socket: path } => {
                unanswered::admit(path)?;
                let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                let itself = Itself::at(path)?;
                let outcome = connect(&socket, &itself.address()?);
                begun(socket, outcome)
            }
            Self::Vhost { cid } => {
                let socket = socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
                let outcome = connect(&socket, &VsockAddress::new(*cid, port));
                begun(socket, outcome)
            }
        }
    }

    /// What keeps `connection` open if it is given up after the greeting and before its answer; None where there is no greeting.
    pub fn unanswered<'a>(&'a self, connection: BorrowedFd<'a>) -> Option<Unanswered<'a>> {
        match self {
            Self::Hybrid { socket } => Some(Unanswered::new(socket, connection)),
            Self::Vhost { .. } => None,
        }
    }

    /// What is said first on a connection that was begun.
    pub fn greeting(&self, port: u32) -> Option<String> {
        match self {
            Self::Hybrid { .. } => Some(format!("CONNECT {port}\n")),
            Self::Vhost { .. } => None,
        }
    }

    /// Listens for the guest's connections to `port` of the host; made before the guest boots, else they are refused.
    ///
    /// All guests share the ports of the kernel's vsock, so there `port` is a wish and another is taken:
    /// [`Listener::port`] is the one to tell the guest.
    pub fn listen(&self, port: u32) -> io::Result<Listener> {
        match self {
            Self::Hybrid { socket } => {
                let path = beside(socket, port);
                remove_if_present(&path)?;
                let listener = UnixListener::bind(&path)?;
                // The directory says who gets here: this user, and a VMM that runs as another one in a jail.
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
                listener.set_nonblocking(true)?;
                Ok(Listener { port, source: Source::Hybrid(listener, path) })
            }
            Self::Vhost { cid } => {
                let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, VMADDR_PORT_ANY)?;
                listener.set_nonblocking(true)?;
                let port = listener.local_addr()?.port();
                Ok(Listener { port, source: Source::Vhost(listener, *cid) })
            }
        }
    }
}

/// Whether a connection that was begun, and is writable, was made.
pub fn connected(socket: BorrowedFd<'_>) -> io::Result<()> {
    sockopt::socket_error(socket)?.map_err(refused)
}

/// Whether `answer`, a line of at most [`LONGEST_ANSWER`] bytes with its newline, is how a greeting is answered.
///
/// # Errors
/// `InvalidData` for what is no answer.
pub fn welcomes(answer: &[u8]) -> io::Result<()> {
    match answer.strip_suffix(b"\n") {
        Some(line) if is_ok(line) => Ok(()),
        _ => Err(no_answer(answer)),
    }
}

/// Where the guest's connections to one port of the host arrive. Dropping it removes its socket.
#[derive(Debug)]
#[must_use = "dropping it stops listening"]
pub struct Listener {
    port: u32,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Hybrid(UnixListener, PathBuf),
    Vhost(VsockListener, u32),
}

impl Listener {
    /// The port that the guest must connect to, on CID 2.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Takes a connection if one waits; never blocks. For async code: `Async::new(listener)?.read_with(Listener::try_accept)`.
    ///
    /// # Errors
    /// `WouldBlock` if none waits.
    pub fn try_accept(&self) -> io::Result<OwnedFd> {
        match &self.source {
            Source::Hybrid(listener, _) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Ok(stream.into())
            }
            Source::Vhost(listener, cid) => loop {
                let (stream, peer) = listener.accept()?;
                // Every guest can reach every port of the kernel's vsock; only this one's connections are wanted.
                if peer.cid() == *cid {
                    stream.set_nonblocking(false)?;
                    return stream.as_fd().try_clone_to_owned();
                }
                log::warn!(
                    "dropped a vsock connection from CID {} to port {} of CID {cid}",
                    peer.cid(),
                    self.port
                );
            },
        }
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// `TimedOut`, and the kernel's.
    pub fn accept(&self, timeout: Duration) -> io::Result<OwnedFd> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.try_accept() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    wait(self.as_fd(), PollFlags::IN, deadline)?
                }
                other => return other,
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::Hybrid(listener, _) => listener.as_fd(),
            Source::Vhost(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Source::Hybrid(_, path) = &self.source
            && let Err(e) = remove_if_present(path)
        {
            log::error!("cannot remove {}: {e}", path.display());
        }
    }
}

/// Where the guest's connections to `port` arrive (Firecracker: docs/vsock.md).
fn beside(socket: &Path, port: u32) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(format!("_{port}"));
    path.into()
}

fn connect_hybrid(socket: &Path, port: u32, timeout: Duration) -> io::Result<OwnedFd> {
    unanswered::admit(socket)?;
    let mut stream = DeadlineStream::connect(socket, timeout)?;
    // In one write: vhost-device-vsock reads the command with a single read.
    let asked = stream.write_all(format!("CONNECT {port}\n").as_bytes());
    let answered = asked.and_then(|()| read_answer(&mut stream));
    if matches!(&answered, Err(e) if e.kind() == io::ErrorKind::TimedOut) {
        drop(Unanswered::new(socket, stream.as_fd()));
    }
    answered.map_err(|e| match e.kind() {
        // What a refusal looks like when the device hangs up on the unread command.
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => io::ErrorKind::ConnectionRefused.into(),
        _ => e,
    })?;
    Ok(stream.into_stream()?.into())
}

/// Reads `OK <port>\n` and not a byte more: what follows is the guest's.
fn read_answer(stream: &mut DeadlineStream) -> io::Result<()> {
    use std::io::Read;
    let mut answer = [0; LONGEST_ANSWER];
    let mut length = 0;
    while length < LONGEST_ANSWER {
        let waiting = stream.peek(&mut answer[length..])?;
        if waiting == 0 {
            // What both do when the guest refuses, be it that nobody listens or that it has not booted.
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let fresh = &answer[length..length + waiting];
        let taken = fresh.iter().position(|b| *b == b'\n').map_or(waiting, |newline| newline + 1);
        stream.read_exact(&mut answer[length..length + taken])?;
        length += taken;
        if answer[length - 1] == b'\n' {
            return if is_ok(&answer[..length - 1]) { Ok(()) } else { Err(no_answer(&answer[..length])) };
        }
    }
    Err(no_answer(&answer))
}

fn is_ok(line: &[u8]) -> bool {
    line.strip_prefix(b"OK ").is_some_and(|port| !port.is_empty() && port.iter().all(u8::is_ascii_digit))
}

fn no_answer(bytes: &[u8]) -> io::Error {
    let said = format!("the vsock device answered \"{}\" instead of OK", bytes.escape_ascii());
    io::Error::new(io::ErrorKind::InvalidData, said)
}

fn connect_vhost(cid: u32, port: u32, timeout: Duration) -> io::Result<OwnedFd> {
    let deadline = Instant::now() + timeout;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
    match connect(&socket, &VsockAddress::new(cid, port)) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            wait(socket.as_fd(), PollFlags::OUT, deadline)?;
            sockopt::socket_error(&socket)?.map_err(refused)?;
        }
        Err(e) => return Err(refused(e)),
    }
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(socket)
}

/// A guest that resets a connection has nobody on that port (kernel: virtio_transport_recv_connecting).
fn refused(e: Errno) -> io::Error {
    if e == Errno::CONNRESET { io::ErrorKind::ConnectionRefused.into() } else { e.into() }
}

/// Waits until `fd` is ready for `what`.
fn wait(fd: BorrowedFd<'_>, what: PollFlags, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.checked_duration_since(Instant::now()).ok_or(io::ErrorKind::TimedOut)?;
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::from_borrowed_fd(fd, what)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests;
