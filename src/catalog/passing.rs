//! What is seen of the bytes that go into a bundle or a medium while it is made.

use std::io::{self, Write};

use ring::digest::Context;

use crate::host::progress::{Progress, Unit};

/// Says how much has been read.
pub struct Told<'a> {
    pub done: u64,
    pub total: u64,
    pub progress: &'a dyn Progress,
}

impl Told<'_> {
    pub fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        self.progress.advance(self.done, self.total, Unit::Bytes);
    }
}

/// Hashes and counts what passes by.
pub struct Hashed<W> {
    pub out: W,
    pub hash: Context,
    pub size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
