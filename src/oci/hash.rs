//! Hashing what passes by.

use std::io::{self, BufRead, Read};

use crate::image::digest::{Algorithm, Digest};

/// A hash in the making.
pub struct Hasher {
    algorithm: Algorithm,
    context: ring::digest::Context,
}

impl Hasher {
    pub fn new(algorithm: Algorithm) -> Self {
        let context = ring::digest::Context::new(match algorithm {
            Algorithm::Sha256 => &ring::digest::SHA256,
            Algorithm::Sha512 => &ring::digest::SHA512,
        });
        Self { algorithm, context }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of what was hashed.
    pub fn finish(self) -> Digest {
        Digest::of_hash(self.algorithm, self.context.finish().as_ref())
    }

    /// Whether what was hashed is `digest`; else what it is.
    pub fn check(self, digest: &Digest) -> Result<(), String> {
        let found = self.finish();
        if found == *digest { Ok(()) } else { Err(found.to_string()) }
    }
}

/// The sha256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Option<Digest> {
    Digest::new(Algorithm::Sha256, ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// Whether `bytes` have this digest; else which they have.
pub fn check(bytes: &[u8], digest: &Digest) -> Result<(), String> {
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(bytes);
    hasher.check(digest)
}

/// A reader that hashes and counts what is read through it.
pub struct Hashed<R> {
    reader: R,
    hasher: Option<Hasher>,
    bytes: u64,
    limit: u64,
}

impl<R: Read> Hashed<R> {
    /// Reads at most `limit` bytes; there being more is an error. Without an algorithm they are only counted.
    pub fn new(reader: R, algorithm: Option<Algorithm>, limit: u64) -> Self {
        Self { reader, hasher: algorithm.map(Hasher::new), bytes: 0, limit }
    }

    pub fn into_hasher(self) -> Option<Hasher> {
        self.hasher
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..n]);
        }
        self.bytes += n as u64;
        if self.bytes > self.limit {
            return Err(io::Error::other(format!("it is larger than {} bytes", self.limit)));
        }
        Ok(n)
    }
}

/// A buffered reader that hashes what is taken from it.
pub struct Hashing<R> {
    reader: R,
    hasher: Hasher,
}

impl<R: BufRead> Hashing<R> {
    pub fn new(reader: R, algorithm: Algorithm) -> Self {
        Self { reader, hasher: Hasher::new(algorithm) }
    }

    pub fn into_parts(self) -> (R, Hasher) {
        (self.reader, self.hasher)
    }
}

impl<R: BufRead> BufRead for Hashing<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        // What is consumed was seen, so it is there.
        if let Ok(seen) = self.reader.fill_buf() {
            self.hasher.update(&seen[..bytes]);
        }
        self.reader.consume(bytes);
    }
}

impl<R: BufRead> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_checked_in_both_algorithms() {
        // printf abc | sha256sum; printf abc | sha512sum
        let abc = [
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ];
        for text in abc {
            let digest = text.parse().expect("a digest");
            assert_eq!(check(b"abc", &digest), Ok(()));
            assert!(check(b"abd", &digest).is_err());
        }
        assert_eq!(sha256(b"abc").map(|d| d.to_string()).as_deref(), Some(abc[0]));
    }

    #[test]
    fn a_reader_stops_at_its_limit() {
        let mut reader = Hashed::new([0_u8; 100].as_slice(), None, 99);
        io::copy(&mut reader, &mut io::sink()).expect_err("too long");
    }
}
