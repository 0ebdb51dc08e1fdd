//! A pack of blobs, made while their files are written.
//!
//! They are stored, not compressed: the files beside them are not either, and a guest that compressed would make its host wait.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use flate2::Crc;

use super::entry::{Kind, head};
use super::stored::Stored;
use super::{Entry, HEADER, header, seal};
use crate::git::{Format, Hasher, Id};

const BUFFER: usize = 128 << 10;

pub struct Builder {
    out: Out,
    format: Format,
    entries: Vec<Entry>,
    known: HashSet<Id>,
    /// Where the last whole entry ends.
    end: u64,
}

struct Out {
    file: BufWriter<File>,
    written: u64,
    crc: Crc,
}

impl Builder {
    /// Begins a pack in an empty file.
    pub fn new(file: File, format: Format) -> io::Result<Self> {
        let mut out = Out { file: BufWriter::with_capacity(BUFFER, file), written: 0, crc: Crc::new() };
        out.write_all(&header(0))?;
        Ok(Self { out, format, entries: vec![], known: HashSet::new(), end: HEADER })
    }

    /// Adds a blob of exactly `size` bytes, which are handed to `also` as well.
    ///
    /// # Errors
    /// `UnexpectedEof` if there are fewer; the pack is as it was before.
    pub fn blob(&mut self, size: u64, from: &mut dyn Read, also: &mut dyn Write) -> io::Result<Id> {
        if self.out.written != self.end {
            self.rewind()?;
        }
        self.out.crc.reset();
        self.out.write_all(&head(Kind::Blob, size))?;
        let mut stored = Stored::new(&mut self.out, size)?;
        let id = hash_blob(self.format, size, from, |bytes| {
            also.write_all(bytes)?;
            stored.add(bytes)
        })?;
        stored.finish()?;
        // What there is already is written over by the next one.
        if self.known.insert(id) {
            self.entries.push(Entry { offset: self.end, crc: self.out.crc.sum(), id });
            self.end = self.out.written;
        }
        Ok(id)
    }

    fn rewind(&mut self) -> io::Result<()> {
        self.out.file.seek(SeekFrom::Start(self.end))?;
        self.out.written = self.end;
        Ok(())
    }

    /// Ends the pack after its last whole blob. Returns its file, its objects and its checksum.
    pub fn finish(mut self) -> io::Result<(File, Vec<Entry>, Id)> {
        self.rewind()?;
        let file = self.out.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let checksum = seal(&file, self.format, self.entries.len(), self.end)?;
        Ok((file, self.entries, checksum))
    }
}

/// Names a blob of exactly `size` bytes, and hands them on.
pub fn hash_blob(
    format: Format,
    size: u64,
    from: &mut dyn Read,
    mut to: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Id> {
    let mut hasher = Hasher::object(format, Kind::Blob.name(), size);
    let mut buffer = vec![0; BUFFER.min(usize::try_from(size).unwrap_or(BUFFER))];
    let mut left = size;
    while left > 0 {
        let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match from.read(&mut buffer[..room]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                to(&buffer[..n])?;
                left -= n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(hasher.finish())
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.crc.update(bytes);
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // The file is flushed when it ends.
        Ok(())
    }
}
