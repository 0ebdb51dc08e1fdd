//! Frames: what crosses a vsock connection once the request line has been sent, in both directions.
//!
//! `kind: u8, length: u32 little-endian, payload`. A length above [`MAX_PAYLOAD`] ends the connection: the peer is
//! broken or hostile, and nothing that it says afterwards can be trusted to begin where a frame begins.

use std::fmt;
use std::io::{self, Read, Write};

/// The longest payload, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// Length of kind and length.
pub const HEADER: usize = 5;
/// How much stdin the host may send before the guest has said, by [`Kind::Window`], that it wants more. Without this, a
/// signal would queue behind input that the command does not read.
pub const STDIN_WINDOW: usize = 256 * 1024;

/// What a frame carries. The host sends Stdin, Eof, Resize, Signal and Data; the guest sends the rest, and Data and Eof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Guest, first of all: the answer to the request, JSON of [`crate::proto::agent::Answer`].
    Answer = 0,
    Stdin = 1,
    Stdout = 2,
    Stderr = 3,
    /// The terminal's new size: rows, columns, each u16 little-endian.
    Resize = 4,
    /// A signal's number for the command's process group, one byte.
    Signal = 5,
    /// Guest, last of all: how the command ended, u8: its exit status, or 128 plus the signal's number.
    Exit = 6,
    /// A piece of a tar stream.
    Data = 7,
    /// No more Stdin or Data will come. Empty.
    Eof = 8,
    /// Guest: the operation failed in the middle; a sentence in UTF-8. Last of all.
    Failed = 9,
    /// Guest: it has consumed this many more bytes of stdin, u32 little-endian.
    Window = 10,
}

/// A frame, borrowed or owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub payload: Vec<u8>,
}

/// What comes next on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    /// At most [`MAX_PAYLOAD`].
    pub length: usize,
}

/// The peer does not speak this protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadFrame {
    Kind(u8),
    TooLong {
        kind: Kind,
        length: u32,
    },
    /// The payload does not have the shape of its kind.
    Payload(Kind),
    /// This kind may not come here.
    Unexpected(Kind),
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        const ALL: [Kind; 11] = [
            Kind::Answer,
            Kind::Stdin,
            Kind::Stdout,
            Kind::Stderr,
            Kind::Resize,
            Kind::Signal,
            Kind::Exit,
            Kind::Data,
            Kind::Eof,
            Kind::Failed,
            Kind::Window,
        ];
        ALL.get(usize::from(byte)).copied()
    }
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// [`BadFrame::Kind`] and [`BadFrame::TooLong`].
    pub fn parse(bytes: [u8; HEADER]) -> Result<Self, BadFrame> {
        let kind = Kind::from_byte(bytes[0]).ok_or(BadFrame::Kind(bytes[0]))?;
        let length = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        match usize::try_from(length) {
            Ok(n) if n <= MAX_PAYLOAD => Ok(Self { kind, length: n }),
            _ => Err(BadFrame::TooLong { kind, length }),
        }
    }

    pub fn bytes(self) -> [u8; HEADER] {
        let [a, b, c, d] = (self.length as u32).to_le_bytes();
        [self.kind as u8, a, b, c, d]
    }
}

impl Frame {
    pub fn new(kind: Kind, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, payload: payload.into() }
    }

    pub fn resize(rows: u16, columns: u16) -> Self {
        Self::new(Kind::Resize, [rows.to_le_bytes(), columns.to_le_bytes()].concat())
    }

    pub fn window(bytes: u32) -> Self {
        Self::new(Kind::Window, bytes.to_le_bytes())
    }

    /// Rows and columns of a Resize frame.
    pub fn as_resize(&self) -> Result<(u16, u16), BadFrame> {
        match self.payload[..] {
            [a, b, c, d] => Ok((u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))),
            _ => Err(BadFrame::Payload(self.kind)),
        }
    }

    /// The single byte of a Signal or Exit frame.
    pub fn as_byte(&self) -> Result<u8, BadFrame> {
        match self.payload[..] {
            [byte] => Ok(byte),
            _ => Err(BadFrame::Payload(self.kind)),
        }
    }

    /// The number of a Window frame.
    pub fn as_window(&self) -> Result<u32, BadFrame> {
        self.payload[..].try_into().map(u32::from_le_bytes).map_err(|_| BadFrame::Payload(self.kind))
    }

    /// Header and payload in one piece, ready to be written.
    ///
    /// # Panics
    /// On a payload above [`MAX_PAYLOAD`]: whoever makes frames cuts streams into pieces.
    pub fn bytes(&self) -> Vec<u8> {
        assert!(self.payload.len() <= MAX_PAYLOAD, "a frame of {} bytes", self.payload.len());
        let header = Header { kind: self.kind, length: self.payload.len() }.bytes();
        [&header[..], &self.payload].concat()
    }

    /// Reads one frame; None at an end between frames.
    ///
    /// # Errors
    /// The stream's own; `UnexpectedEof` in the middle of a frame; `InvalidData` wrapping a [`BadFrame`].
    pub fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER];
        let mut filled = 0;
        while filled < HEADER {
            match stream.read(&mut header[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let header = Header::parse(header)?;
        let mut payload = vec![0; header.length];
        stream.read_exact(&mut payload)?;
        Ok(Some(Self { kind: header.kind, payload }))
    }

    /// Writes the frame in one piece.
    pub fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        stream.write_all(&self.bytes())
    }
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(byte) => write!(f, "a frame of the unknown kind {byte}"),
            Self::TooLong { kind, length } => {
                write!(f, "a frame {kind:?} of {length} bytes; {MAX_PAYLOAD} are allowed")
            }
            Self::Payload(kind) => write!(f, "a frame {kind:?} with a payload of the wrong shape"),
            Self::Unexpected(kind) => write!(f, "a frame {kind:?} where none may come"),
        }
    }
}

impl std::error::Error for BadFrame {}

impl From<BadFrame> for io::Error {
    fn from(bad: BadFrame) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, bad)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_reads_back(kind in 0u8..=10, payload in prop::collection::vec(any::<u8>(), 0..2000)) {
            let frame = Frame::new(Kind::from_byte(kind).expect("a kind"), payload);
            let bytes = frame.bytes();
            let mut stream = &bytes[..];
            prop_assert_eq!(Frame::read(&mut stream).expect("reads"), Some(frame));
            prop_assert_eq!(Frame::read(&mut stream).expect("ends"), None);
        }

        #[test]
        fn garbage_is_refused_or_read_but_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut stream = &bytes[..];
            while let Ok(Some(_)) = Frame::read(&mut stream) {}
        }
    }

    #[test]
    fn a_length_above_the_cap_is_refused_before_anything_is_read() {
        let mut stream = &[2, 1, 0, 1, 0][..];
        let error = Frame::read(&mut stream).expect_err("refused").to_string();
        assert_eq!(error, "a frame Stdout of 65537 bytes; 65536 are allowed");
        assert!(Header::parse([11, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn an_end_inside_a_frame_is_an_error() {
        for bytes in [&[2, 3, 0][..], &[2, 3, 0, 0, 0, 1, 2]] {
            let error = Frame::read(&mut &bytes[..]).expect_err("cut short");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn numbers_survive_their_frames() {
        assert_eq!(Frame::resize(40, 120).as_resize(), Ok((40, 120)));
        assert_eq!(Frame::window(70_000).as_window(), Ok(70_000));
        assert_eq!(Frame::new(Kind::Exit, [130]).as_byte(), Ok(130));
        assert_eq!(Frame::new(Kind::Exit, []).as_byte(), Err(BadFrame::Payload(Kind::Exit)));
    }
}
