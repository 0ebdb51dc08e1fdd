//! One connection's bytes: a request line, then frames both ways, over a socket that never blocks by itself.
//!
//! Nothing is buffered without bound: input holds at most a request line, then a frame and one read; output holds what the
//! caller queues, who looks at [`Wire::queued`] first.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::syscalls;
use crate::proto::agent::{Answer, Code, MAX_REQUEST, Refusal};
use crate::proto::frame::{BadFrame, Frame, HEADER, Header, Kind, MAX_PAYLOAD};

const READ: usize = 16 * 1024;
/// How long a host may take to read what was said last, or to hang up after it.
const FAREWELL: Duration = Duration::from_secs(10);

/// How long the host may be silent before it is looked after.
pub const BEAT: Duration = Duration::from_secs(5);
/// The kernel's default for what a vsock buffers.
const BUFFER: u64 = 256 * 1024;

pub struct Wire {
    socket: OwnedFd,
    /// How often the host has been looked after.
    beats: u64,
    input: Vec<u8>,
    /// How much of `input` has been taken already.
    taken: usize,
    output: Vec<u8>,
    /// How much of `output` has been written already.
    written: usize,
}

/// What reading once came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    Some,
    /// There is nothing yet.
    Nothing,
    /// The host has hung up.
    End,
}

impl Wire {
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&socket)?;
        Ok(Self { socket, beats: 0, input: vec![], taken: 0, output: vec![], written: 0 })
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads the request line, without its newline.
    ///
    /// # Errors
    /// `TimedOut` after `patience`, `InvalidData` above [`MAX_REQUEST`], `UnexpectedEof` if the host hangs up before the newline.
    pub fn request(&mut self, patience: Duration) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + patience;
        let mut searched = 0;
        loop {
            if let Some(at) = self.input[searched..].iter().position(|b| *b == b'\n') {
                let rest = self.input.split_off(searched + at + 1);
                let mut line = std::mem::replace(&mut self.input, rest);
                line.pop();
                return Ok(line);
            }
            searched = self.input.len();
            if searched >= MAX_REQUEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the request is too long"));
            }
            match self.fill()? {
                Filled::Some => {}
                Filled::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                Filled::Nothing => self.wait(PollFlags::IN, Some(deadline))?,
            }
        }
    }

    /// Reads what is there, once.
    pub fn fill(&mut self) -> io::Result<Filled> {
        self.input.drain(..self.taken);
        self.taken = 0;
        let length = self.input.len();
        self.input.resize(length + READ, 0);
        let read = loop {
            match rustix::io::read(&self.socket, &mut self.input[length..]) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        self.input.truncate(length + read.unwrap_or(0));
        match read {
            Ok(0) => Ok(Filled::End),
            Ok(_) => Ok(Filled::Some),
            Err(Errno::WOULDBLOCK) => Ok(Filled::Nothing),
            // A host that is gone has hung up, however its socket puts it.
            Err(Errno::CONNRESET | Errno::NOTCONN | Errno::PIPE) => Ok(Filled::End),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes the next frame out of what has been read; None if it is not all there.
    pub fn take(&mut self) -> Result<Option<Frame>, BadFrame> {
        let rest = &self.input[self.taken..];
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
        let header = Header::parse(*header)?;
        let Some(payload) = rest.get(..header.length) else { return Ok(None) };
        let frame = Frame::new(header.kind, payload);
        self.taken += HEADER + header.length;
        Ok(Some(frame))
    }

    /// Waits for the next frame; None if the host hangs up between two.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            match self.fill()? {
                Filled::Some => {}
                Filled::End if self.input.is_empty() => return Ok(None),
                Filled::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                Filled::Nothing => self.wait(PollFlags::IN, None)?,
            }
        }
    }

    /// Bytes that have been queued and not yet written.
    pub fn queued(&self) -> usize {
        self.output.len() - self.written
    }

    /// Queues a frame; a payload above [`MAX_PAYLOAD`] is cut into several.
    pub fn queue(&mut self, kind: Kind, payload: &[u8]) {
        let mut pieces = payload.chunks(MAX_PAYLOAD);
        let mut piece = pieces.next().unwrap_or_default();
        loop {
            self.output.extend(Header { kind, length: piece.len() }.bytes());
            self.output.extend_from_slice(piece);
            let Some(next) = pieces.next() else { return };
            piece = next;
        }
    }

    /// Writes of what is queued as much as the socket takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.queued() > 0 {
            match rustix::io::write(&self.socket, &self.output[self.written..]) {
                Ok(n) => self.written += n,
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => {
                    // A host that never takes all of it would see it grow for ever otherwise.
                    self.output.drain(..self.written);
                    self.written = 0;
                    return Ok(());
                }
                Err(e) => return Err(e.into()),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Queues a frame and waits until it has all been written.
    pub fn send(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        self.queue(kind, payload);
        self.drain(None)
    }

    pub fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        let json = serde_json::to_vec(answer)?;
        self.send(Kind::Answer, &json)
    }

    pub fn refuse(&mut self, code: Code, message: impl Into<String>) -> io::Result<()> {
        self.answer(&Answer::Refused(refusal(code, message)))
    }

    /// Says goodbye: writes what is left, and waits for the host to hang up, for whoever closes with something unread
    /// resets the connection, and may take away what the other side has not read yet.
    pub fn finish(mut self) -> io::Result<()> {
        let deadline = Instant::now() + FAREWELL;
        self.drain(Some(deadline))?;
        loop {
            self.taken = self.input.len();
            match self.fill()? {
                Filled::Some => {}
                Filled::End => return Ok(()),
                Filled::Nothing => match self.wait(PollFlags::IN, Some(deadline)) {
                    Err(e) if e.kind() == io::ErrorKind::TimedOut => return Ok(()),
                    other => other?,
                },
            }
        }
    }

    fn drain(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        loop {
            self.flush()?;
            if self.queued() == 0 {
                return Ok(());
            }
            self.wait(PollFlags::OUT, deadline)?;
        }
    }

    fn wait(&mut self, events: PollFlags, deadline: Option<Instant>) -> io::Result<()> {
        loop {
            let left = deadline.map_or(BEAT, |at| at.saturating_duration_since(Instant::now()));
            match poll(&mut [PollFd::new(&self.socket, events)], Some(&timespec(left.min(BEAT)))) {
                Ok(0) if left <= BEAT && deadline.is_some() => return Err(io::ErrorKind::TimedOut.into()),
                Ok(0) => self.look_after_host(),
                Ok(_) | Err(Errno::INTR) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Makes a host that died notice it; to be called when nothing has moved for [`BEAT`].
    ///
    /// vhost-device-vsock 0.3 loses sight of a host program that was killed with something unread: its read fails, not ends
    /// (src/vsock_conn.rs, `recv_pkt`), and it does not look again until the guest announces buffer space. So it is announced,
    /// one byte more each time: less could be less than what is on its way.
    pub fn look_after_host(&mut self) {
        self.beats += 1;
        if let Err(e) = syscalls::set_vsock_buffer(self.socket.as_fd(), BUFFER + self.beats) {
            log::debug!("cannot announce buffer space: {e}");
        }
    }
}

/// A refusal whose message is short enough for a frame.
pub fn refusal(code: Code, message: impl Into<String>) -> Refusal {
    let mut message = message.into();
    // Escaped in JSON, a byte takes up to six.
    let mut end = message.len().min(8 * 1024);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    Refusal { code, message }
}

pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd();
    Ok(fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?)
}

pub fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn wire() -> (UnixStream, Wire) {
        let (host, guest) = UnixStream::pair().expect("a pair");
        (host, Wire::new(guest.into()).expect("a wire"))
    }

    #[test]
    fn frames_right_behind_the_request_are_not_lost() {
        let (mut host, mut wire) = wire();
        host.write_all(b"{}\n").expect("writes");
        Frame::new(Kind::Stdin, "abc").write(&mut host).expect("writes");
        host.write_all(&[1, 9]).expect("writes a part of a frame");
        assert_eq!(wire.request(Duration::from_secs(5)).expect("reads"), b"{}");
        assert_eq!(wire.next().expect("reads"), Some(Frame::new(Kind::Stdin, "abc")));
        drop(host);
        assert_eq!(wire.next().expect_err("cut short").kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_request_that_does_not_end_is_given_up() {
        let (mut host, mut wire) = wire();
        host.write_all(b"{").expect("writes");
        let error = wire.request(Duration::from_millis(10)).expect_err("no newline");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let flood = std::thread::spawn(move || host.write_all(&vec![b'x'; MAX_REQUEST + 1]));
        let error = wire.request(Duration::from_secs(60)).expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(wire);
        flood.join().expect("joins").ok();
    }

    #[test]
    fn a_long_payload_is_cut_and_an_empty_one_is_a_frame() {
        let (mut host, mut wire) = wire();
        let reader = std::thread::spawn(move || {
            let mut frames = vec![];
            while let Some(frame) = Frame::read(&mut host).expect("reads") {
                frames.push(frame.payload.len());
            }
            frames
        });
        wire.send(Kind::Data, &vec![7; MAX_PAYLOAD + 1]).expect("sends");
        wire.send(Kind::Eof, &[]).expect("sends");
        drop(wire);
        assert_eq!(reader.join().expect("joins"), [MAX_PAYLOAD, 1, 0]);
    }

    #[test]
    fn what_has_been_written_is_not_kept_while_more_is_queued() {
        let (mut host, mut wire) = wire();
        host.set_nonblocking(true).expect("is set");
        let mut bytes = vec![0; MAX_PAYLOAD];
        for _ in 0..500 {
            // The host is always behind, and always reads on.
            while wire.queued() < 2 * MAX_PAYLOAD {
                wire.queue(Kind::Data, &bytes);
                wire.flush().expect("writes");
            }
            assert_ne!(host.read(&mut bytes).expect("there is something"), 0);
            wire.flush().expect("writes");
        }
        assert!(wire.output.len() <= 4 * MAX_PAYLOAD, "{}", wire.output.len());
    }

    #[test]
    fn a_refusal_fits_a_frame_whatever_it_quotes() {
        let refusal = refusal(Code::Failed, "\u{1}\u{fffd}".repeat(100_000));
        let json = serde_json::to_vec(&Answer::Refused(refusal)).expect("serializes");
        assert!(json.len() <= MAX_PAYLOAD, "{}", json.len());
    }
}
