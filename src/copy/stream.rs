//! Data frames as bytes. The guest's connection is used with MSG_DONTWAIT and poll(2), whatever mode it was left in.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::CopyError;
use crate::proto::frame::{BadFrame, Frame, Kind, MAX_PAYLOAD};

/// Reads and writes that wait.
struct Guest(OwnedFd);

impl Guest {
    fn wait(&self, flags: PollFlags) -> io::Result<PollFlags> {
        loop {
            let mut fds = [PollFd::new(&self.0, flags)];
            match poll(&mut fds, None) {
                Ok(_) => return Ok(fds[0].revents()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl io::Read for Guest {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::net::recv(&self.0, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((n, _)) => return Ok(n),
                Err(Errno::AGAIN) => drop(self.wait(PollFlags::IN)?),
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(0),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// The next frame of a guest that has something to say.
fn next_frame(guest: &mut Guest) -> Result<Frame, CopyError> {
    match Frame::read(guest) {
        Ok(Some(frame)) => Ok(frame),
        Ok(None) => Err(CopyError::Lost),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(CopyError::Lost),
        Err(e) => match e.get_ref().and_then(|inner| inner.downcast_ref::<BadFrame>()) {
            Some(bad) => Err(CopyError::Protocol(bad.clone())),
            None => Err(CopyError::Connection(e)),
        },
    }
}

fn said(frame: &Frame) -> CopyError {
    CopyError::Guest { message: String::from_utf8_lossy(&frame.payload).into_owned() }
}

/// A tar stream from the guest.
pub struct Incoming<F> {
    guest: Guest,
    piece: Vec<u8>,
    /// How much of `piece` has been read.
    taken: usize,
    done: bool,
    total: u64,
    tell: F,
    /// Why it broke off; an io::Error cannot carry it through the tar reader and back.
    failed: Option<CopyError>,
}

impl<F: FnMut(u64)> Incoming<F> {
    /// `tell` is told now and then how many bytes have come.
    pub fn new(guest: OwnedFd, tell: F) -> Self {
        Self { guest: Guest(guest), piece: vec![], taken: 0, done: false, total: 0, tell, failed: None }
    }

    /// The next piece; None when the guest has said that this was all.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, CopyError> {
        if self.done {
            return Ok(None);
        }
        let frame = next_frame(&mut self.guest)?;
        match frame.kind {
            Kind::Data => {
                self.total += frame.payload.len() as u64;
                (self.tell)(self.total);
                Ok(Some(frame.payload))
            }
            Kind::Eof => {
                self.done = true;
                Ok(None)
            }
            Kind::Failed => Err(said(&frame)),
            kind => Err(BadFrame::Unexpected(kind).into()),
        }
    }

    /// Why a read failed, if it was not the tar reader that did not like what it read.
    pub fn take_failure(&mut self) -> Option<CopyError> {
        self.failed.take()
    }
}

impl<F: FnMut(u64)> io::Read for Incoming<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece.len() {
            match self.piece() {
                Ok(Some(piece)) => {
                    self.piece = piece;
                    self.taken = 0;
                }
                Ok(None) => return Ok(0),
                Err(e) => {
                    self.failed = Some(e);
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
        }
        let n = buffer.len().min(self.piece.len() - self.taken);
        buffer[..n].copy_from_slice(&self.piece[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

/// A tar stream to the guest.
pub struct Outgoing<F> {
    guest: Guest,
    pending: Vec<u8>,
    total: u64,
    tell: F,
    failed: Option<CopyError>,
}

impl<F: FnMut(u64)> Outgoing<F> {
    /// `tell` is told now and then how many bytes have gone.
    pub fn new(guest: OwnedFd, tell: F) -> Self {
        Self { guest: Guest(guest), pending: Vec::with_capacity(MAX_PAYLOAD), total: 0, tell, failed: None }
    }

    /// Sends `bytes`, in pieces as large as they may be.
    pub fn send(&mut self, mut bytes: &[u8]) -> Result<(), CopyError> {
        while !bytes.is_empty() {
            let n = bytes.len().min(MAX_PAYLOAD - self.pending.len());
            self.pending.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.pending.len() == MAX_PAYLOAD {
                self.flush_pending()?;
            }
        }
        Ok(())
    }

    /// Says that this was all, and waits until the guest has it on its disk.
    pub fn finish(mut self) -> Result<(), CopyError> {
        self.flush_pending()?;
        self.push(&Frame::new(Kind::Eof, []))?;
        let frame = next_frame(&mut self.guest)?;
        match frame.kind {
            Kind::Eof => Ok(()),
            Kind::Failed => Err(said(&frame)),
            kind => Err(BadFrame::Unexpected(kind).into()),
        }
    }

    /// Why a write failed, if it was not the tar writer that failed.
    pub fn take_failure(&mut self) -> Option<CopyError> {
        self.failed.take()
    }

    fn flush_pending(&mut self) -> Result<(), CopyError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.total += self.pending.len() as u64;
        let frame = Frame::new(Kind::Data, std::mem::take(&mut self.pending));
        self.push(&frame)?;
        self.pending = frame.payload;
        self.pending.clear();
        (self.tell)(self.total);
        Ok(())
    }

    fn push(&mut self, frame: &Frame) -> Result<(), CopyError> {
        let bytes = frame.bytes();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let ready = self.guest.wait(PollFlags::IN | PollFlags::OUT).map_err(CopyError::Connection)?;
            if ready.contains(PollFlags::IN) {
                // While we are sending there is one thing that it can say: that it does not go on.
                let frame = next_frame(&mut self.guest)?;
                return Err(match frame.kind {
                    Kind::Failed => said(&frame),
                    kind => BadFrame::Unexpected(kind).into(),
                });
            }
            match rustix::net::send(&self.guest.0, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(n) => rest = &rest[n..],
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(CopyError::Lost),
                Err(e) => return Err(CopyError::Connection(e.into())),
            }
        }
        Ok(())
    }
}

impl<F: FnMut(u64)> io::Write for Outgoing<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.send(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(e) => {
                self.failed = Some(e);
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn data_arrives_whole_and_ends_with_the_guests_word() {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        for frame in
            [Frame::new(Kind::Data, *b"ab"), Frame::new(Kind::Data, []), Frame::new(Kind::Data, *b"c")]
        {
            frame.write(&mut far).expect("writes");
        }
        Frame::new(Kind::Eof, []).write(&mut far).expect("writes");
        let mut text = String::new();
        Incoming::new(near.into(), |_| {}).read_to_string(&mut text).expect("reads");
        assert_eq!(text, "abc");
    }

    #[test]
    fn an_end_without_the_guests_word_is_an_error() {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        Frame::new(Kind::Data, *b"ab").write(&mut far).expect("writes");
        drop(far);
        let mut incoming = Incoming::new(near.into(), |_| {});
        incoming.read_to_end(&mut vec![]).expect_err("lost");
        assert!(matches!(incoming.take_failure(), Some(CopyError::Lost)));
    }

    #[test]
    fn a_refusal_is_heard_though_nobody_reads_what_we_send() {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        let sender = std::thread::spawn(move || {
            let mut outgoing = Outgoing::new(near.into(), |_| {});
            loop {
                if outgoing.write_all(&[0; 8192]).is_err() {
                    return outgoing.take_failure();
                }
            }
        });
        Frame::new(Kind::Failed, *b"no space left").write(&mut far).expect("writes");
        let failure = sender.join().expect("no panic");
        assert!(matches!(failure, Some(CopyError::Guest { message }) if message == "no space left"));
    }
}
