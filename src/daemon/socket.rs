//! The daemon's socket: who may connect, and one request per connection.
//!
//! The socket is in a directory of mode 0700 and has mode 0600; the peer's uid is checked all the same, since a descriptor can
//! be passed on. The lock file beside it, not the socket, says whether a daemon runs: whoever holds it may replace the socket.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use smol::{Async, Timer, future};

use crate::host::dirs::Dirs;
use crate::host::endpoint::{self, SocketError};
use crate::proto::api::{MAX_REQUEST, Reply};

/// How long a client may take to say what it wants.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// How long a client may take to read one line.
const REPLY_DEADLINE: Duration = Duration::from_secs(20);

/// How long a client that was refused may go on talking.
const LINGER: Duration = Duration::from_secs(1);

/// The listening socket, and the lock that makes it ours.
#[derive(Debug)]
pub struct Endpoint {
    pub listener: Async<UnixListener>,
    _lock: File,
}

/// Opens the daemon's socket.
pub fn listen(dirs: &Dirs) -> Result<Endpoint, SocketError> {
    let socket = dirs.socket();
    let lock = lock(dirs)?;
    let listener = Async::new(endpoint::bind(&socket, None)?).map_err(|source| SocketError::Io {
        what: "listen on",
        path: socket,
        source,
    })?;
    Ok(Endpoint { listener, _lock: lock })
}

/// The lock that makes the socket and the database ours.
pub fn lock(dirs: &Dirs) -> Result<File, SocketError> {
    let socket = dirs.socket();
    endpoint::own_directory(&dirs.runtime, 0o700)?;
    endpoint::lock(&dirs.runtime.join("bangerd.lock"), "bangerd", &socket, || !answers(&socket))
}

/// Whether somebody takes connections there. One that was killed lets go of its socket a moment before its lock; one that was told
/// to stop removes it first.
fn answers(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// The process at the other end, as the kernel knew it when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub pid: u32,
    pub uid: u32,
}

/// One client.
pub struct Client {
    stream: Async<UnixStream>,
}

/// Why there is no request to act upon.
#[derive(Debug)]
pub enum NoRequest {
    /// Nothing more can be said to this client.
    Gone,
    /// A sentence for it.
    Refused(String),
}

/// What a client asked, and the descriptor that came with it.
pub struct Asked {
    pub line: Vec<u8>,
    pub fd: Option<OwnedFd>,
}

impl Client {
    pub fn new(stream: Async<UnixStream>) -> Self {
        Self { stream }
    }

    pub fn peer(&self) -> io::Result<Peer> {
        let cred = rustix::net::sockopt::socket_peercred(&self.stream)?;
        Ok(Peer { pid: cred.pid.as_raw_nonzero().get() as u32, uid: cred.uid.as_raw() })
    }

    /// Reads the request line, within [`REQUEST_DEADLINE`].
    pub async fn request(&self) -> Result<Asked, NoRequest> {
        let deadline = async {
            Timer::after(REQUEST_DEADLINE).await;
            Err(NoRequest::Refused(format!(
                "no whole request came within {} seconds",
                REQUEST_DEADLINE.as_secs()
            )))
        };
        future::or(self.read_line(), deadline).await
    }

    async fn read_line(&self) -> Result<Asked, NoRequest> {
        let mut asked = Asked { line: Vec::new(), fd: None };
        loop {
            let piece = self.stream.read_with(|s| receive(s.as_fd())).await.map_err(|_| NoRequest::Gone)?;
            let (bytes, fd) = piece;
            asked.fd = asked.fd.or(fd);
            if bytes.is_empty() {
                return Err(NoRequest::Gone);
            }
            let newline = bytes.iter().position(|b| *b == b'\n');
            asked.line.extend_from_slice(&bytes[..newline.unwrap_or(bytes.len())]);
            match newline {
                _ if asked.line.len() >= MAX_REQUEST => {
                    return Err(NoRequest::Refused(format!(
                        "the request is too long; {MAX_REQUEST} bytes are allowed"
                    )));
                }
                Some(end) if end + 1 != bytes.len() => {
                    return Err(NoRequest::Refused(
                        "more than one line came; a connection carries one request".to_owned(),
                    ));
                }
                Some(_) => return Ok(asked),
                None => {}
            }
        }
    }

    /// Writes one reply line, `fd` with its first bytes.
    ///
    /// # Errors
    /// The socket's; `TimedOut` for a client that does not read.
    pub async fn reply(&self, reply: &Reply, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        let write = async {
            let mut fd = fd;
            let mut rest = &line[..];
            while !rest.is_empty() {
                let sent = self.stream.write_with(|s| send(s.as_fd(), rest, fd)).await?;
                fd = None;
                rest = &rest[sent..];
            }
            Ok(())
        };
        let deadline = async {
            Timer::after(REPLY_DEADLINE).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        future::or(write, deadline).await
    }

    /// Takes what the client still sends, for a while: a socket that is closed with something unread in it is reset, and the
    /// client would lose the refusal that waits for it (linux: net/unix/af_unix.c, unix_release_sock).
    pub async fn drain(&self) {
        let drained = async {
            loop {
                match self.stream.read_with(|s| receive(s.as_fd())).await {
                    Ok((bytes, _)) if !bytes.is_empty() => {}
                    Ok(_) | Err(_) => return,
                }
            }
        };
        let enough = async {
            Timer::after(LINGER).await;
        };
        future::or(drained, enough).await;
    }

    /// Returns when the client has closed its end.
    pub async fn hung_up(&self) {
        loop {
            if self.stream.readable().await.is_err() {
                return;
            }
            let mut byte = [0];
            match rustix::net::recv(&self.stream, &mut byte, RecvFlags::DONTWAIT) {
                Ok((0, _)) if closed(self.stream.as_fd()) => return,
                // It has only shut down its writing half, and still listens. There is nothing more to notice
                // without asking again and again; writing to it will tell.
                Ok((0, _)) => return future::pending().await,
                Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// Whether both directions are shut (poll(2), POLLHUP).
fn closed(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::empty())];
    match poll(&mut fds, Some(&Timespec::default())) {
        Ok(_) => fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR),
        Err(_) => true,
    }
}

/// Reads what is there, and at most one descriptor; any more of them are closed.
fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; 16 << 10];
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    bytes.truncate(received.bytes);
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fd = fds.into_iter().next().or(fd);
        }
    }
    Ok((bytes, fd))
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}
