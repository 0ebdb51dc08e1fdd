//! One request from a socket: a line of at most 64 KiB within five seconds, and the descriptors that come with its first byte.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg};

use crate::proto::root::{MAX_DESCRIPTORS, MAX_REQUEST};

/// How long the whole line may take.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// How long a client that was refused may go on talking.
const LINGER: Duration = Duration::from_secs(1);

/// What a client asked. Its descriptors are closed with it.
#[derive(Debug)]
pub struct Asked {
    pub line: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

/// Why there is no request to act upon.
#[derive(Debug)]
pub enum NoRequest {
    /// Nothing more can be said to this client.
    Gone,
    /// A sentence for it.
    Refused(String),
}

/// Reads the line, and takes the descriptors.
pub fn receive(stream: &UnixStream) -> Result<Asked, NoRequest> {
    let until = Instant::now() + DEADLINE;
    let mut asked = Asked { line: vec![], descriptors: vec![] };
    let refused = |why: String| Err(NoRequest::Refused(why));
    loop {
        if !ready(stream.as_fd(), PollFlags::IN, until) {
            return refused(format!("no whole request came within {} seconds", DEADLINE.as_secs()));
        }
        let Some(piece) = piece(stream.as_fd()).map_err(|_| NoRequest::Gone)? else { continue };
        if piece.bytes.is_empty() {
            // It may still listen.
            return refused("the request ended before its line did".to_owned());
        }
        if piece.too_many {
            return refused(format!("more than {MAX_DESCRIPTORS} descriptors came"));
        }
        if !piece.descriptors.is_empty() && !asked.line.is_empty() {
            return refused("descriptors come with the first byte of a request".to_owned());
        }
        asked.descriptors.extend(piece.descriptors);
        let newline = piece.bytes.iter().position(|b| *b == b'\n');
        asked.line.extend_from_slice(&piece.bytes[..newline.unwrap_or(piece.bytes.len())]);
        match newline {
            // The newline counts.
            _ if asked.line.len() >= MAX_REQUEST => {
                return refused(format!("the request is too long; {MAX_REQUEST} bytes are allowed"));
            }
            Some(end) if end + 1 != piece.bytes.len() => {
                return refused("more than one line came; a connection carries one request".to_owned());
            }
            Some(_) => return Ok(asked),
            None => {}
        }
    }
}

/// Writes a line, to a client that reads it in time, and takes what the client still sends, for a while: a socket that is closed
/// with something unread in it is reset, and a client that is still writing would miss the answer.
pub fn answer(stream: &UnixStream, line: &[u8]) -> io::Result<()> {
    let until = Instant::now() + DEADLINE;
    let mut rest = line;
    while !rest.is_empty() {
        if !ready(stream.as_fd(), PollFlags::OUT, until) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match rustix::net::send(stream, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) => rest = &rest[sent..],
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    stream.shutdown(Shutdown::Write)?;
    let until = Instant::now() + LINGER;
    while ready(stream.as_fd(), PollFlags::IN, until) {
        match piece(stream.as_fd()) {
            Ok(Some(piece)) if piece.bytes.is_empty() => break,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    Ok(())
}

/// What one recvmsg(2) gave.
struct Piece {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// The kernel has closed those for which there was no room (unix(7), MSG_CTRUNC).
    too_many: bool,
}

/// None: there was nothing after all.
fn piece(socket: BorrowedFd<'_>) -> io::Result<Option<Piece>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; 16 << 10];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
        Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
        other => other?,
    };
    bytes.truncate(received.bytes);
    let mut descriptors = vec![];
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    // The room is rounded up, so that one more may have found some.
    let too_many = received.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > MAX_DESCRIPTORS;
    Ok(Some(Piece { bytes, descriptors, too_many }))
}

/// Waits until the socket is ready for `what`; false: not in time.
fn ready(socket: BorrowedFd<'_>, what: PollFlags, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&socket, what)], Some(&timeout)) {
            Ok(0) if left.is_zero() => return false,
            Ok(0) | Err(Errno::INTR) => {}
            // An error is something that the next read or write tells.
            Ok(_) | Err(_) => return true,
        }
    }
}
