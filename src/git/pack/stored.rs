//! A zlib stream (RFC 1950) that compresses nothing: stored blocks (RFC 1951, 3.2.4) and a checksum. A compressor would do that too, but
//! clears a quarter of a megabyte of tables for each stream; most files are a hundred times shorter.

use std::io::{self, Write};

use zlib_rs::adler32::adler32;

/// What a block holds at most.
const BLOCK: usize = 0xffff;
/// Deflate with a window of 32 KiB; no dictionary, least effort.
const HEADER: [u8; 2] = [0x78, 0x01];

/// Writes exactly `left` more bytes.
pub struct Stored<W> {
    out: W,
    left: u64,
    /// Adler-32 (RFC 1950, section 9) of what has been added.
    sum: u32,
}

impl<W: Write> Stored<W> {
    /// Begins a stream of `size` bytes.
    pub fn new(mut out: W, size: u64) -> io::Result<Self> {
        out.write_all(&HEADER)?;
        if size == 0 {
            out.write_all(&block(0, true))?;
        }
        Ok(Self { out, left: size, sum: 1 })
    }

    /// Adds bytes, of which there are no more than are left.
    pub fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(BLOCK) {
            let left = self.left.checked_sub(piece.len() as u64);
            self.left = left.ok_or_else(|| io::Error::other("more comes than was announced"))?;
            self.out.write_all(&block(piece.len(), self.left == 0))?;
            self.out.write_all(piece)?;
            self.sum = adler32(self.sum, piece);
        }
        Ok(())
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// `UnexpectedEof` if bytes are left.
    pub fn finish(mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.out.write_all(&self.sum.to_be_bytes())
    }
}

/// A stored block's head: whether it is the last one, its length, and the length's complement.
fn block(length: usize, last: bool) -> [u8; 5] {
    let [low, high] = (length as u16).to_le_bytes();
    [u8::from(last), low, high, !low, !high]
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_stored_is_what_zlib_reads() {
        for size in [0, 1, 5551, 5553, BLOCK, BLOCK + 1, 3 * BLOCK + 7] {
            let bytes: Vec<u8> = (0..size).map(|n| 255 - (n % 251) as u8).collect();
            let mut out = vec![];
            let mut stored = Stored::new(&mut out, size as u64).expect("begins");
            for piece in bytes.chunks(100_000) {
                stored.add(piece).expect("adds");
            }
            stored.finish().expect("ends");
            let mut read = vec![];
            flate2::read::ZlibDecoder::new(&out[..])
                .read_to_end(&mut read)
                .expect("is a stream, with its checksum");
            assert_eq!(read, bytes, "{size}");
        }
    }

    #[test]
    fn a_stream_of_another_length_than_was_announced_is_refused() {
        let mut stored = Stored::new(io::sink(), 2).expect("begins");
        stored.add(b"a").expect("adds");
        assert!(stored.add(b"bc").is_err());
        let mut stored = Stored::new(io::sink(), 2).expect("begins");
        stored.add(b"a").expect("adds");
        assert!(stored.finish().is_err());
    }
}
