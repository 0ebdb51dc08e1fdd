//! Several packs become one, their objects copied as they are, deflated.
//!
//! A delta refers to its base by name then, as that may come to be anywhere. What any of the packs has whole is taken so: else chains of
//! deltas would grow from merge to merge, and of two objects each could be the other's base.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use flate2::Crc;

use super::entry::{Form, Head, MAX_HEAD, reference};
use super::idx::Index;
use super::{Entry, bad, header};
use crate::git::{Format, Hasher, Id};

const BUFFER: usize = 128 << 10;

/// A pack that needs no other.
pub struct Source {
    file: File,
    format: Format,
    /// By rising offset.
    entries: Vec<Entry>,
    /// Where the last one ends.
    end: u64,
}

/// Where an object is taken from: a source's number, and its entry's.
struct Taken {
    source: usize,
    entry: usize,
    whole: bool,
}

impl Source {
    pub fn new(file: File, index: &Index, format: Format) -> io::Result<Self> {
        let mut entries = index.entries()?;
        entries.sort_unstable_by_key(|entry| entry.offset);
        let end = file.metadata()?.len().checked_sub(format.id_bytes() as u64);
        Ok(Self { file, format, entries, end: end.ok_or_else(|| bad("it is no pack"))? })
    }

    fn end_of(&self, entry: usize) -> u64 {
        self.entries.get(entry + 1).map_or(self.end, |next| next.offset)
    }

    /// What is before an entry's deflated bytes.
    fn head(&self, entry: usize, bytes: &mut [u8; MAX_HEAD]) -> io::Result<Head> {
        let offset = self.entries[entry].offset;
        let length = self.end_of(entry).saturating_sub(offset).min(MAX_HEAD as u64) as usize;
        self.file.read_exact_at(&mut bytes[..length], offset)?;
        Head::parse(&bytes[..length], self.format)
    }

    fn id_at(&self, offset: u64) -> Option<Id> {
        let at = self.entries.binary_search_by_key(&offset, |entry| entry.offset).ok()?;
        Some(self.entries[at].id)
    }
}

/// Writes all objects of `sources` to an empty file, each once. Returns them with the pack's checksum.
///
/// # Errors
/// `InvalidData` if a pack is damaged, or needs another.
pub fn merge(sources: &[Source], to: &File, format: Format) -> io::Result<(Vec<Entry>, Id)> {
    let taken = take(sources)?;
    let count = u32::try_from(taken.len()).map_err(|_| bad("too many objects for a pack"))?;
    let mut out =
        Out { to: BufWriter::with_capacity(BUFFER, to), at: 0, hasher: Hasher::new(format), crc: Crc::new() };
    out.put(&header(count))?;
    let mut entries = Vec::with_capacity(taken.len());
    let mut buffer = vec![0; BUFFER];
    for (number, source) in sources.iter().enumerate() {
        for (at, entry) in source.entries.iter().enumerate() {
            let from = taken.get(&entry.id);
            if from.is_some_and(|taken| (taken.source, taken.entry) == (number, at)) {
                let offset = out.at;
                let crc = out.copy(source, at, &taken, &mut buffer)?;
                entries.push(Entry { offset, crc, id: entry.id });
            }
        }
    }
    let Out { mut to, hasher, .. } = out;
    let checksum = hasher.finish();
    to.write_all(checksum.bytes())?;
    to.flush()?;
    Ok((entries, checksum))
}

/// From where each object is taken: where it is whole, else from the first that has it.
fn take(sources: &[Source]) -> io::Result<HashMap<Id, Taken>> {
    let mut all: HashMap<Id, Taken> = HashMap::new();
    let mut bytes = [0; MAX_HEAD];
    for (source, pack) in sources.iter().enumerate() {
        for (entry, Entry { id, .. }) in pack.entries.iter().enumerate() {
            if all.get(id).is_some_and(|taken| taken.whole) {
                continue;
            }
            let whole = matches!(pack.head(entry, &mut bytes)?.form, Form::Whole(_));
            if whole || !all.contains_key(id) {
                all.insert(*id, Taken { source, entry, whole });
            }
        }
    }
    Ok(all)
}

struct Out<'a> {
    to: BufWriter<&'a File>,
    at: u64,
    hasher: Hasher,
    crc: Crc,
}

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.crc.update(bytes);
        self.at += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    /// Copies an entry, and returns the CRC-32 of what it has become.
    fn copy(
        &mut self,
        source: &Source,
        entry: usize,
        all: &HashMap<Id, Taken>,
        buffer: &mut [u8],
    ) -> io::Result<u32> {
        let Entry { offset, crc, id } = source.entries[entry];
        let mut bytes = [0; MAX_HEAD];
        let head = source.head(entry, &mut bytes)?;
        let mut found = Crc::new();
        found.update(&bytes[..head.length]);
        self.crc.reset();
        let base = match head.form {
            Form::Whole(_) => None,
            Form::Reference(base) => Some(base),
            Form::Offset(distance) => {
                let base = offset.checked_sub(distance).and_then(|at| source.id_at(at));
                Some(base.ok_or_else(|| bad(format!("the base of the delta {id} is missing")))?)
            }
        };
        match base {
            None => self.put(&bytes[..head.length])?,
            Some(base) if all.contains_key(&base) => self.put(&reference(&base, head.size))?,
            Some(base) => return Err(bad(format!("the base {base} of a delta is missing"))),
        }
        let (mut at, end) = (offset + head.length as u64, source.end_of(entry));
        while at < end {
            let most = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            source.file.read_exact_at(&mut buffer[..most], at)?;
            found.update(&buffer[..most]);
            self.put(&buffer[..most])?;
            at += most as u64;
        }
        if found.sum() == crc { Ok(self.crc.sum()) } else { Err(bad(format!("{id} is damaged"))) }
    }
}
