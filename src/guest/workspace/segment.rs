//! Segments of records, in and out.

use std::io::{self, BufRead, BufReader, Read, Write};

use crate::git::MAX_PATH;
use crate::guest::files::stream::{Incoming, Outgoing};
use crate::guest::wire::Wire;
use crate::proto::frame::Kind;
use crate::proto::workspace::MAX_PATHS;

/// The longest record: a path, and words before it.
const MAX_RECORD: u64 = MAX_PATH as u64 + 256;

/// Reads a segment of records, each with a NUL after it, to its Eof.
///
/// # Errors
/// `UnexpectedEof` if the host hangs up before; `InvalidData` if there are too many, or one is too long.
pub fn records(wire: &mut Wire, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut from = BufReader::with_capacity(64 << 10, Incoming::new(wire));
    let mut record = vec![];
    for _ in 0..=MAX_PATHS {
        record.clear();
        (&mut from).take(MAX_RECORD).read_until(0, &mut record)?;
        match record.pop() {
            None => return Ok(()),
            Some(0) => each(&record)?,
            Some(_) => return Err(bad("a record is too long, or cut off")),
        }
    }
    Err(bad("there are too many paths"))
}

/// Reads a segment whole, of at most `most` bytes.
pub fn whole(wire: &mut Wire, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    let mut from = Incoming::new(wire);
    (&mut from).take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most { Err(bad("it is too long")) } else { Ok(bytes) }
}

/// Sends a segment that `write` writes.
pub fn send(wire: &mut Wire, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = Outgoing::new(wire);
    write(&mut out)?;
    out.flush()?;
    wire.send(Kind::Eof, &[])
}

pub fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
