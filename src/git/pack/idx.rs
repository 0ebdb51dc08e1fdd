//! A pack's index, version 2.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use super::{Entry, bad};
use crate::git::{Format, Hasher, Id};

const MAGIC: &[u8; 8] = b"\xfftOc\0\0\0\x02";
const FANOUT: u64 = 8;
const NAMES: u64 = FANOUT + 256 * 4;
/// Offsets from here on have a table of their own.
const LARGE: u64 = 1 << 31;

/// Writes the index of a pack with this checksum.
pub fn write(to: &mut dyn Write, format: Format, mut entries: Vec<Entry>, pack: Id) -> io::Result<()> {
    entries.sort_unstable_by_key(|entry| (entry.id, entry.offset));
    let mut hasher = Hasher::new(format);
    let mut put = |bytes: &[u8]| {
        hasher.update(bytes);
        to.write_all(bytes)
    };
    put(MAGIC)?;
    for first in 0..=255u8 {
        let up_to = entries.partition_point(|entry| entry.id.bytes()[0] <= first);
        put(&(up_to as u32).to_be_bytes())?;
    }
    for entry in &entries {
        put(entry.id.bytes())?;
    }
    for entry in &entries {
        put(&entry.crc.to_be_bytes())?;
    }
    let mut large = vec![];
    for entry in &entries {
        let offset = if entry.offset < LARGE {
            entry.offset as u32
        } else {
            large.extend(entry.offset.to_be_bytes());
            LARGE as u32 | (large.len() / 8 - 1) as u32
        };
        put(&offset.to_be_bytes())?;
    }
    put(&large)?;
    put(pack.bytes())?;
    to.write_all(hasher.finish().bytes())
}

/// An index on the disk.
pub struct Index {
    file: File,
    format: Format,
    fanout: Vec<u8>,
}

impl Index {
    /// # Errors
    /// `InvalidData` if it is none of version 2.
    pub fn open(file: File, format: Format) -> io::Result<Self> {
        let mut start = vec![0; NAMES as usize];
        file.read_exact_at(&mut start, 0)?;
        match start.strip_prefix(MAGIC) {
            Some(fanout) => Ok(Self { fanout: fanout.to_vec(), file, format }),
            None => Err(bad("it is no index of a pack")),
        }
    }

    /// Where in the pack the object is.
    pub fn offset(&self, id: &Id) -> io::Result<Option<u64>> {
        let length = self.format.id_bytes();
        if id.bytes().len() != length {
            return Ok(None);
        }
        let first = usize::from(id.bytes()[0]);
        let mut low = if first == 0 { 0 } else { self.up_to(first - 1) };
        let mut high = self.up_to(first);
        let mut name = [0; 32];
        while low < high {
            let middle = low + (high - low) / 2;
            self.file.read_exact_at(&mut name[..length], NAMES + middle * length as u64)?;
            match name[..length].cmp(id.bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return self.nth_offset(middle).map(Some),
            }
        }
        Ok(None)
    }

    /// All objects, by name.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let length = self.format.id_bytes() as u64;
        let count = self.up_to(255);
        if NAMES + count * (length + 8) > self.file.metadata()?.len() {
            return Err(bad("an index of a pack is cut off"));
        }
        let table = |at: u64, width: u64| {
            let mut bytes = vec![0; (count * width) as usize];
            self.file.read_exact_at(&mut bytes, at).map(|()| bytes)
        };
        let names = table(NAMES, length)?;
        let crcs = table(NAMES + count * length, 4)?;
        (0..count)
            .zip(names.chunks_exact(length as usize).zip(crcs.chunks_exact(4)))
            .map(|(n, (name, crc))| {
                let id = Id::from_bytes(name).ok_or_else(|| bad("an index has no names"))?;
                let crc = crc.iter().fold(0, |crc, byte| crc << 8 | u32::from(*byte));
                Ok(Entry { offset: self.nth_offset(n)?, crc, id })
            })
            .collect()
    }

    fn up_to(&self, first: usize) -> u64 {
        let at = 4 * first;
        u64::from(u32::from_be_bytes([
            self.fanout[at],
            self.fanout[at + 1],
            self.fanout[at + 2],
            self.fanout[at + 3],
        ]))
    }

    fn nth_offset(&self, n: u64) -> io::Result<u64> {
        let count = self.up_to(255);
        let offsets = NAMES + count * (self.format.id_bytes() as u64 + 4);
        let mut small = [0; 4];
        self.file.read_exact_at(&mut small, offsets + 4 * n)?;
        let small = u64::from(u32::from_be_bytes(small));
        if small < LARGE {
            return Ok(small);
        }
        let mut large = [0; 8];
        self.file.read_exact_at(&mut large, offsets + 4 * count + 8 * (small - LARGE))?;
        Ok(u64::from_be_bytes(large))
    }
}
