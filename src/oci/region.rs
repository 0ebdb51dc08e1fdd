//! A part of a file, such as a blob in an archive; read without a shared position, so that several may be read at once.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::oci::tar::Source;

#[derive(Debug, Clone)]
pub struct Region {
    file: Arc<File>,
    offset: u64,
    len: u64,
}

impl Region {
    pub fn whole(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), offset: 0, len })
    }

    /// A part of it; None if it does not reach so far.
    pub fn part(&self, offset: u64, len: u64) -> Option<Self> {
        let end = offset.checked_add(len)?;
        (end <= self.len).then(|| Self { file: Arc::clone(&self.file), offset: self.offset + offset, len })
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn reader(&self) -> RegionReader {
        RegionReader { region: self.clone(), at: 0 }
    }

    /// All of it, if it is no longer than `limit`.
    pub fn read_all(&self, limit: u64) -> io::Result<Option<Vec<u8>>> {
        if self.len > limit {
            return Ok(None);
        }
        let mut bytes = vec![];
        self.reader().read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

pub struct RegionReader {
    region: Region,
    at: u64,
}

impl Read for RegionReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.region.len.saturating_sub(self.at);
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = self.region.file.read_at(&mut buffer[..wanted], self.region.offset + self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Source for RegionReader {
    fn skip(&mut self, bytes: u64) -> io::Result<bool> {
        self.at = self.at.saturating_add(bytes);
        Ok(self.at <= self.region.len)
    }

    fn position(&self) -> u64 {
        self.at
    }
}
