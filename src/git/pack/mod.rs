//! Packs (gitformat-pack): received and indexed, written, and read again. Nothing here holds a pack, or an object that is no delta's base, in memory.
//!
//! ```text
//! a stream from the host -> scan.rs: to a file, each object found and named that is no delta
//!                        -> resolve.rs: the deltas, and bases that are elsewhere appended    -> idx.rs: its index
//! files                  -> build.rs: blobs to a file                                        -> idx.rs
//! packs                  -> merge.rs: their objects to a file                                -> idx.rs
//! ```

mod build;
mod delta;
mod entry;
mod idx;
mod merge;
mod read;
mod resolve;
mod scan;
mod stored;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub use self::build::{Builder, hash_blob};
pub use self::entry::Kind;
pub use self::idx::{Index, write as write_index};
pub use self::merge::{Source, merge};
pub use self::read::{Cache, Inflate, Pack, inflate_whole};
pub use self::resolve::{Elsewhere, resolve};
pub use self::scan::{Scanned, scan};
use super::{Format, Hasher, Id};

/// The largest object that may be a delta or its base, in bytes: git makes none of larger ones (core.bigFileThreshold), and they are in memory.
pub const MAX_DELTIFIED: u64 = 512 << 20;
/// The longest chain of deltas (git: pack.depth is at most 4095).
const MAX_CHAIN: usize = 4096;
/// `PACK`, version, count.
const HEADER: u64 = 12;

/// An object of a pack.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub offset: u64,
    /// CRC-32 of its bytes in the pack.
    pub crc: u32,
    pub id: Id,
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn header(count: u32) -> [u8; HEADER as usize] {
    let mut header = *b"PACK\0\0\0\x02\0\0\0\0";
    header[8..].copy_from_slice(&count.to_be_bytes());
    header
}

/// Gives a pack whose entries end at `end` its count and its checksum, which is returned. The count comes before everything, so all is read again.
fn seal(file: &File, format: Format, count: usize, end: u64) -> io::Result<Id> {
    let count = u32::try_from(count).map_err(|_| bad("too many objects for a pack"))?;
    file.write_all_at(&header(count), 0)?;
    let mut hasher = Hasher::new(format);
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while at < end {
        let room = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        match file.read_at(&mut buffer[..room], at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                hasher.update(&buffer[..n]);
                at += n as u64;
            }
        }
    }
    let checksum = hasher.finish();
    file.write_all_at(checksum.bytes(), end)?;
    file.set_len(end + checksum.bytes().len() as u64)?;
    Ok(checksum)
}

#[cfg(test)]
mod tests;
