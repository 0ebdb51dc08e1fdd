//! A byte stream in Data frames, for those who read and write one.

use std::io::{self, Read, Write};

use crate::guest::wire::Wire;
use crate::proto::frame::{BadFrame, Kind, MAX_PAYLOAD};

/// Reads what the host sends until its Eof; a host that hangs up before is an error.
pub struct Incoming<'a> {
    wire: &'a mut Wire,
    payload: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl<'a> Incoming<'a> {
    pub fn new(wire: &'a mut Wire) -> Self {
        Self { wire, payload: vec![], taken: 0, ended: false }
    }

    /// Reads and forgets all up to the Eof.
    pub fn exhaust(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(drop)
    }
}

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.payload.len() && !self.ended {
            let frame = self.wire.next()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            match frame.kind {
                Kind::Data => (self.payload, self.taken) = (frame.payload, 0),
                Kind::Eof => self.ended = true,
                kind => return Err(BadFrame::Unexpected(kind).into()),
            }
        }
        let n = buffer.len().min(self.payload.len() - self.taken);
        buffer[..n].copy_from_slice(&self.payload[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

/// Sends what is written in frames that are as long as may be; [`Outgoing::flush`] sends the last one.
pub struct Outgoing<'a> {
    wire: &'a mut Wire,
    payload: Vec<u8>,
}

impl<'a> Outgoing<'a> {
    pub fn new(wire: &'a mut Wire) -> Self {
        Self { wire, payload: Vec::with_capacity(MAX_PAYLOAD) }
    }
}

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(MAX_PAYLOAD - self.payload.len());
        self.payload.extend_from_slice(&bytes[..n]);
        if self.payload.len() == MAX_PAYLOAD {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.payload.is_empty() {
            self.wire.send(Kind::Data, &self.payload)?;
            self.payload.clear();
        }
        Ok(())
    }
}
