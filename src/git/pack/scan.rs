//! A pack as it comes: written to a file, checked against its checksum, and its objects found and, but for deltas, named.

use std::io::{self, Read, Write};

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::entry::{Form, Head, Kind, MAX_HEAD};
use super::{HEADER, MAX_DELTIFIED, bad};
use crate::git::{Format, Hasher, Id};

/// What was found, by rising offset.
#[derive(Debug)]
pub struct Scanned {
    pub(super) objects: Vec<Object>,
    pub(super) format: Format,
    /// Where the objects end, and the checksum begins.
    pub(super) end: u64,
    pub(super) checksum: Id,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Object {
    pub offset: u64,
    pub crc: u32,
    pub state: State,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum State {
    Named(Id),
    /// A delta to the object with this number.
    Delta(u32),
    Reference(Id),
}

impl Scanned {
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

/// Copies a pack from `from` to `to`, to its end. None: there was nothing at all.
///
/// # Errors
/// `InvalidData` if it is no pack, or a damaged one.
pub fn scan(from: &mut dyn Read, to: &mut dyn Write, format: Format) -> io::Result<Option<Scanned>> {
    let mut stream = Stream {
        from,
        to,
        buffer: vec![0; 64 << 10],
        taken: 0,
        filled: 0,
        offset: 0,
        hasher: Hasher::new(format),
        crc: Crc::new(),
    };
    let count = match stream.peek(HEADER as usize)? {
        [] => return Ok(None),
        [b'P', b'A', b'C', b'K', 0, 0, 0, 2 | 3, count @ ..] if count.len() >= 4 => {
            u32::from_be_bytes([count[0], count[1], count[2], count[3]])
        }
        _ => return Err(bad("it is no pack")),
    };
    stream.consume(HEADER as usize)?;
    let mut objects: Vec<Object> = vec![];
    let mut inflater = Decompress::new(true);
    let mut out = vec![0; 64 << 10];
    for _ in 0..count {
        let offset = stream.offset;
        stream.crc.reset();
        let head = Head::parse(stream.peek(MAX_HEAD)?, format)?;
        stream.consume(head.length)?;
        let state = match head.form {
            Form::Whole(kind) => {
                State::Named(stream.named(kind, head.size, format, &mut inflater, &mut out)?)
            }
            _ if head.size > MAX_DELTIFIED => return Err(bad("a delta is too long")),
            Form::Offset(distance) => {
                let base = offset.checked_sub(distance).filter(|_| distance > 0);
                let base =
                    base.and_then(|base| objects.binary_search_by_key(&base, |object| object.offset).ok());
                stream.inflate(head.size, &mut inflater, &mut out, |_| {})?;
                State::Delta(base.ok_or_else(|| bad("a delta's base is no object"))? as u32)
            }
            Form::Reference(id) => {
                stream.inflate(head.size, &mut inflater, &mut out, |_| {})?;
                State::Reference(id)
            }
        };
        objects.push(Object { offset, crc: stream.crc.sum(), state });
    }
    let end = stream.offset;
    let checksum = stream.hasher.clone().finish();
    let length = format.id_bytes();
    if stream.peek(length)?.get(..length) != Some(checksum.bytes()) {
        return Err(bad("its checksum is wrong"));
    }
    stream.consume(length)?;
    if !stream.peek(1)?.is_empty() {
        return Err(bad("something comes after its end"));
    }
    Ok(Some(Scanned { objects, format, end, checksum }))
}

struct Stream<'a> {
    from: &'a mut dyn Read,
    to: &'a mut dyn Write,
    buffer: Vec<u8>,
    taken: usize,
    filled: usize,
    offset: u64,
    hasher: Hasher,
    crc: Crc,
}

impl Stream<'_> {
    /// What comes next: at least `least` bytes, unless it ends before.
    fn peek(&mut self, least: usize) -> io::Result<&[u8]> {
        if self.filled - self.taken < least {
            self.buffer.copy_within(self.taken..self.filled, 0);
            self.filled -= self.taken;
            self.taken = 0;
        }
        while self.filled < least + self.taken {
            match self.from.read(&mut self.buffer[self.filled..]) {
                Ok(0) => break,
                Ok(n) => self.filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(&self.buffer[self.taken..self.filled])
    }

    fn consume(&mut self, n: usize) -> io::Result<()> {
        let bytes = &self.buffer[self.taken..self.taken + n];
        self.hasher.update(bytes);
        self.crc.update(bytes);
        self.to.write_all(bytes)?;
        self.taken += n;
        self.offset += n as u64;
        Ok(())
    }

    fn named(
        &mut self,
        kind: Kind,
        size: u64,
        format: Format,
        inflater: &mut Decompress,
        out: &mut [u8],
    ) -> io::Result<Id> {
        let mut hasher = Hasher::object(format, kind.name(), size);
        self.inflate(size, inflater, out, |bytes| hasher.update(bytes))?;
        Ok(hasher.finish())
    }

    /// Inflates what comes next to exactly `size` bytes.
    fn inflate(
        &mut self,
        size: u64,
        inflater: &mut Decompress,
        out: &mut [u8],
        mut sink: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        inflater.reset(true);
        loop {
            let (had, made) = (inflater.total_in(), inflater.total_out());
            let input = self.peek(1)?;
            let ended = input.is_empty();
            let status = inflater
                .decompress(input, out, FlushDecompress::None)
                .map_err(|_| bad("an object is not deflated as it should be"))?;
            let (used, made) = ((inflater.total_in() - had) as usize, (inflater.total_out() - made) as usize);
            self.consume(used)?;
            sink(&out[..made]);
            if inflater.total_out() > size {
                return Err(bad("an object is longer than it says"));
            }
            match status {
                Status::StreamEnd if inflater.total_out() == size => return Ok(()),
                Status::StreamEnd => return Err(bad("an object is shorter than it says")),
                _ if ended && made == 0 => return Err(bad("it ends within an object")),
                _ if used == 0 && made == 0 => return Err(bad("an object is not deflated as it should be")),
                _ => {}
            }
        }
    }
}
