//! The conversation with the guest's agent, in segments. The connection is used with MSG_DONTWAIT and poll(2), whatever mode it is in.
//!
//! What is sent is framed where it is read to, and leaves in large pieces: for many small files the frames cost no copy and no call of
//! their own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::error::WorkspaceError;
use crate::cli::client::Attention;
use crate::copy::CopyError;
use crate::proto::api::{Event, Unit};
use crate::proto::frame::{BadFrame, HEADER, Header, Kind, MAX_PAYLOAD};

/// How much leaves at once, in frames.
const FRAMES: usize = 16;
const FRAME: usize = HEADER + MAX_PAYLOAD;
/// The largest segment of the guest's that is kept, in bytes.
const MAX_SEGMENT: usize = 256 << 20;

pub struct Peer<'a, 'b> {
    guest: OwnedFd,
    attention: &'a mut Attention<'b>,
    out: Vec<u8>,
    /// How much of `out` is whole frames.
    framed: usize,
    /// How much of the frame behind them is filled, without its header.
    filled: usize,
    input: Vec<u8>,
    taken: usize,
    /// How much has been sent, and of how much, in bytes.
    sent: u64,
    total: u64,
}

impl<'a, 'b> Peer<'a, 'b> {
    pub fn new(guest: OwnedFd, attention: &'a mut Attention<'b>) -> Self {
        let out = vec![0; FRAMES * FRAME];
        Self { guest, attention, out, framed: 0, filled: 0, input: vec![], taken: 0, sent: 0, total: 0 }
    }

    /// Begins a stage of which `total` bytes are to be sent.
    pub fn stage(&mut self, text: String, total: u64) {
        self.attention.progress.event(&Event::Stage { text });
        (self.sent, self.total) = (0, total);
    }

    /// Adds to the segment that is being sent.
    pub fn put(&mut self, mut bytes: &[u8]) -> Result<(), WorkspaceError> {
        while !bytes.is_empty() {
            let n = bytes.len().min(MAX_PAYLOAD - self.filled);
            self.room(n).copy_from_slice(&bytes[..n]);
            self.filled += n;
            bytes = &bytes[n..];
            self.close_if_full()?;
        }
        Ok(())
    }

    /// Adds what `read` puts into what it is given, up to `most` bytes; returns how much that was.
    pub fn fill(
        &mut self,
        most: u64,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Result<usize, WorkspaceError>> {
        let room = MAX_PAYLOAD - self.filled;
        let n = usize::try_from(most).map_or(room, |most| most.min(room));
        let n = read(self.room(n))?;
        self.filled += n;
        Ok(self.close_if_full().map(|()| n))
    }

    /// Ends the segment, and sends all of it.
    pub fn end(&mut self) -> Result<(), WorkspaceError> {
        self.close()?;
        if self.framed + HEADER > self.out.len() {
            self.flush()?;
        }
        self.out[self.framed..self.framed + HEADER]
            .copy_from_slice(&Header { kind: Kind::Eof, length: 0 }.bytes());
        self.framed += HEADER;
        self.flush()
    }

    fn room(&mut self, n: usize) -> &mut [u8] {
        let at = self.framed + HEADER + self.filled;
        &mut self.out[at..at + n]
    }

    fn close_if_full(&mut self) -> Result<(), WorkspaceError> {
        if self.filled == MAX_PAYLOAD { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), WorkspaceError> {
        if self.filled > 0 {
            let header = Header { kind: Kind::Data, length: self.filled }.bytes();
            self.out[self.framed..self.framed + HEADER].copy_from_slice(&header);
            self.framed += HEADER + self.filled;
            self.filled = 0;
        }
        // Room for a whole frame is left after every one.
        if self.framed + FRAME > self.out.len() { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), WorkspaceError> {
        let mut at = 0;
        while at < self.framed {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.guest, &self.out[at..self.framed], flags) {
                Ok(n) => at += n,
                Err(Errno::AGAIN) => {
                    if self.wait(PollFlags::IN | PollFlags::OUT)?.contains(PollFlags::IN) {
                        return Err(self.objection());
                    }
                }
                Err(Errno::INTR) => {}
                // It may have said why.
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(self.objection()),
                Err(e) => return Err(CopyError::Connection(e.into()).into()),
            }
        }
        if self.total > 0 {
            self.sent += self.framed as u64;
            let done = self.sent.min(self.total);
            self.attention.progress.event(&Event::Progress { done, total: self.total, unit: Unit::Bytes });
        }
        self.framed = 0;
        Ok(())
    }

    /// While we are sending there is one thing that the guest can say: that it does not go on.
    fn objection(&mut self) -> WorkspaceError {
        match self.frame() {
            Ok((kind, _)) => CopyError::from(BadFrame::Unexpected(kind)).into(),
            Err(e) => e,
        }
    }

    /// The guest's next segment, whole.
    pub fn segment(&mut self) -> Result<Vec<u8>, WorkspaceError> {
        let mut whole = vec![];
        while let (Kind::Data, payload) = self.frame()? {
            if whole.len() + payload.len() > MAX_SEGMENT {
                return WorkspaceError::refused("the guest says more than a work tree can give cause to");
            }
            whole.extend_from_slice(&payload);
        }
        Ok(whole)
    }

    /// The next piece of the guest's segment; None: it has ended.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, WorkspaceError> {
        match self.frame()? {
            (Kind::Data, payload) => Ok(Some(payload)),
            _ => Ok(None),
        }
    }

    /// Whether the person has asked to end.
    fn heard(&mut self) -> Result<(), WorkspaceError> {
        match self.attention.signals.as_mut().and_then(|signals| signals.asked_to_end()) {
            Some(signal) => Err(WorkspaceError::Interrupted(signal)),
            None => Ok(()),
        }
    }

    /// The next Data or Eof.
    fn frame(&mut self) -> Result<(Kind, Vec<u8>), WorkspaceError> {
        match self.any()? {
            (kind @ (Kind::Data | Kind::Eof), payload) => Ok((kind, payload)),
            (Kind::Failed, payload) => {
                let message = String::from_utf8_lossy(&payload).into_owned();
                Err(CopyError::Guest { message }.into())
            }
            (kind, _) => Err(CopyError::from(BadFrame::Unexpected(kind)).into()),
        }
    }

    /// The next frame, whatever it is.
    pub fn any(&mut self) -> Result<(Kind, Vec<u8>), WorkspaceError> {
        // A guest that never stops talking is not waited for.
        self.heard()?;
        let header: [u8; HEADER] = self.take(HEADER)?.try_into().unwrap_or_default();
        let header = Header::parse(header).map_err(CopyError::from)?;
        Ok((header.kind, self.take(header.length)?))
    }

    /// Sends one frame of at most [`MAX_PAYLOAD`] bytes, outside of any segment.
    pub fn say(&mut self, kind: Kind, payload: &[u8]) -> Result<(), WorkspaceError> {
        let header = Header { kind, length: payload.len() }.bytes();
        self.framed = header.len() + payload.len();
        self.out[..HEADER].copy_from_slice(&header);
        self.out[HEADER..self.framed].copy_from_slice(payload);
        self.flush()
    }

    fn take(&mut self, n: usize) -> Result<Vec<u8>, WorkspaceError> {
        while self.input.len() - self.taken < n {
            self.input.drain(..self.taken);
            self.taken = 0;
            let had = self.input.len();
            self.input.resize(had + FRAME, 0);
            let read = rustix::net::recv(&self.guest, &mut self.input[had..], RecvFlags::DONTWAIT);
            self.input.truncate(had + read.as_ref().map_or(0, |(n, _)| *n));
            match read {
                Ok((0, _)) | Err(Errno::CONNRESET) => return Err(CopyError::Lost.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => drop(self.wait(PollFlags::IN)?),
                Err(e) => return Err(CopyError::Connection(e.into()).into()),
            }
        }
        self.taken += n;
        Ok(self.input[self.taken - n..self.taken].to_vec())
    }

    /// Waits for the guest; a signal that asks to end is heard meanwhile.
    fn wait(&mut self, flags: PollFlags) -> Result<PollFlags, WorkspaceError> {
        loop {
            let mut fds = vec![PollFd::new(&self.guest, flags)];
            let signals = self.attention.signals.as_ref().map(|signals| signals.as_fd());
            fds.extend(signals.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(CopyError::Connection(e.into()).into()),
            }
            let ready = fds[0].revents();
            drop(fds);
            if let Some(signal) = self.attention.signals.as_mut().and_then(|s| s.asked_to_end()) {
                return Err(WorkspaceError::Interrupted(signal));
            }
            if !ready.is_empty() {
                return Ok(ready);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::cli::render::Progress;
    use crate::proto::frame::Frame;

    fn sent(act: impl FnOnce(&mut Peer<'_, '_>) + Send) -> Vec<Frame> {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut progress = Progress::silent();
                act(&mut Peer::new(near.into(), &mut Attention::to(&mut progress)));
            });
            std::iter::from_fn(|| Frame::read(&mut far).expect("reads")).collect()
        })
    }

    #[test]
    fn a_segment_is_full_frames_and_an_end() {
        let long: Vec<u8> = (0..40 * MAX_PAYLOAD + 7).map(|n| n as u8).collect();
        let frames = sent(|peer| {
            peer.put(&long[..5]).expect("puts");
            let mut at = 5;
            while at < long.len() {
                let rest = &long[at..];
                let n = peer.fill(rest.len() as u64, |room| {
                    let n = room.len().min(1000);
                    room[..n].copy_from_slice(&rest[..n]);
                    Ok(n)
                });
                at += n.expect("reads").expect("sends");
            }
            peer.end().expect("ends");
            peer.end().expect("ends");
        });
        let kinds: Vec<(Kind, usize)> = frames.iter().map(|f| (f.kind, f.payload.len())).collect();
        let full = vec![(Kind::Data, MAX_PAYLOAD); 40];
        assert_eq!(kinds, [full, vec![(Kind::Data, 7), (Kind::Eof, 0), (Kind::Eof, 0)]].concat());
        let all: Vec<u8> = frames.into_iter().flat_map(|f| f.payload).collect();
        assert!(all == long);
    }

    #[test]
    fn a_refusal_is_heard_though_nobody_reads_what_we_send() {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        Frame::new(Kind::Failed, *b"no space left").write(&mut far).expect("writes");
        let mut progress = Progress::silent();
        let mut attention = Attention::to(&mut progress);
        let mut peer = Peer::new(near.into(), &mut attention);
        let error = loop {
            if let Err(e) = peer.put(&[0; 8192]) {
                break e;
            }
        };
        assert_eq!(error.to_string(), "the guest says: no space left");
    }

    #[test]
    fn a_segment_of_the_guests_ends_with_its_word() {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        let mut progress = Progress::silent();
        let mut attention = Attention::to(&mut progress);
        let mut peer = Peer::new(near.into(), &mut attention);
        for frame in
            [Frame::new(Kind::Data, *b"ab"), Frame::new(Kind::Data, *b"c"), Frame::new(Kind::Eof, [])]
        {
            frame.write(&mut far).expect("writes");
        }
        assert_eq!(peer.segment().expect("reads"), b"abc");
        drop(far);
        assert_eq!(peer.segment().expect_err("lost").to_string(), CopyError::Lost.to_string());
    }
}
