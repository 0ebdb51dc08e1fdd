//! The tarball of a release: gzip around a tar of exactly one regular file, `banger`. Whatever else is in it, the release is refused.

use std::fmt;
use std::io::{self, BufRead, Read, Write};

use flate2::bufread::GzDecoder;
use tar::{EntryType, Header};

const BLOCK: usize = 512;
const NAME: &[u8] = b"banger";
/// The largest executable, in bytes.
pub const MAX_EXECUTABLE: u64 = 512 << 20;
/// Zeros behind the last member: tar(1) fills up to a record, which may be chosen larger.
const MAX_ZEROS: u64 = 1 << 20;

/// Why it is no release's tarball.
#[derive(Debug)]
pub enum BadTarball {
    /// It cannot be read or inflated.
    Read(io::Error),
    /// The executable cannot be written.
    Write(io::Error),
    /// A sentence about it.
    Not(&'static str),
    /// There is a member beside `banger`, or in its place.
    Extra(String),
}

/// Writes the one file in `gz` to `out`, and returns its length, which is at most `limit`.
pub fn unpack(gz: impl BufRead, out: &mut impl Write, limit: u64) -> Result<u64, BadTarball> {
    let mut tar = GzDecoder::new(gz);
    let mut header = Header::new_old();
    fill(&mut tar, header.as_mut_bytes())?;
    let size = member(&header)?;
    if size == 0 || size > limit {
        return Err(BadTarball::Not("its banger is empty, or too large to be one"));
    }
    let written = io::copy(&mut tar.by_ref().take(size), &mut Out(out)).map_err(told_apart)?;
    if written != size {
        return Err(BadTarball::Not("it ends in the middle of banger"));
    }
    let mut padding = [0; BLOCK];
    let past = (size % BLOCK as u64) as usize;
    if past > 0 {
        fill(&mut tar, &mut padding[past..])?;
    }
    if padding.iter().any(|b| *b != 0) {
        return Err(BadTarball::Not("there is something between banger and the end of its block"));
    }
    only_zeros(&mut tar)?;
    let mut rest = tar.into_inner();
    match rest.fill_buf().map_err(BadTarball::Read)?.is_empty() {
        true => Ok(written),
        false => Err(BadTarball::Not("there is something behind its gzip stream")),
    }
}

/// The size of the member that `header` describes, which must be the file.
fn member(header: &Header) -> Result<u64, BadTarball> {
    if header.as_bytes().iter().all(|b| *b == 0) {
        return Err(BadTarball::Not("it is empty"));
    }
    let sum: u32 = header
        .as_bytes()
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
        .sum();
    if header.cksum().ok() != Some(sum) {
        return Err(BadTarball::Not("it is no tar archive"));
    }
    let name = header.path_bytes();
    if *name != *NAME || header.entry_type() != EntryType::Regular {
        let shown: String =
            String::from_utf8_lossy(&name).chars().take(100).flat_map(char::escape_debug).collect();
        return Err(BadTarball::Extra(shown));
    }
    header.entry_size().map_err(|_| BadTarball::Not("the size of its banger cannot be read"))
}

/// Everything up to the end of the stream must be the zeros that end a tar archive: two blocks at least.
fn only_zeros(tar: &mut impl Read) -> Result<(), BadTarball> {
    let mut block = [0; BLOCK];
    let mut zeros = 0;
    loop {
        match read_some(tar, &mut block)? {
            0 if zeros < 2 * BLOCK as u64 => return Err(BadTarball::Not("it ends too early")),
            0 => return Ok(()),
            n if block[..n].iter().all(|b| *b == 0) => zeros += n as u64,
            n => {
                // If it looks like a member, its name is worth more than that it is one.
                let mut header = Header::new_old();
                header.as_mut_bytes()[..n].copy_from_slice(&block[..n]);
                return Err(match member(&header) {
                    Err(extra @ BadTarball::Extra(_)) => extra,
                    Ok(_) => BadTarball::Extra("banger, again".to_owned()),
                    Err(_) => BadTarball::Not("there is something behind banger"),
                });
            }
        }
        if zeros > MAX_ZEROS {
            return Err(BadTarball::Not("it goes on behind its end"));
        }
    }
}

fn fill(tar: &mut impl Read, buffer: &mut [u8]) -> Result<(), BadTarball> {
    match read_some(tar, buffer)? == buffer.len() {
        true => Ok(()),
        false => Err(BadTarball::Not("it ends too early")),
    }
}

/// Reads until `buffer` is full or the stream ends.
fn read_some(tar: &mut impl Read, buffer: &mut [u8]) -> Result<usize, BadTarball> {
    let mut filled = 0;
    while filled < buffer.len() {
        match tar.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(BadTarball::Read(e)),
        }
    }
    Ok(filled)
}

/// The end of a copy whose errors can be told from the other one's.
struct Out<'a, W>(&'a mut W);

/// Marks an error as the writer's.
#[derive(Debug)]
struct Writing(io::Error);

impl<W: Write> Write for Out<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Ok(0) if !bytes.is_empty() => Err(io::Error::other(Writing(io::ErrorKind::WriteZero.into()))),
            Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(io::Error::other(Writing(e))),
            other => other,
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn told_apart(e: io::Error) -> BadTarball {
    match e.downcast::<Writing>() {
        Ok(Writing(e)) => BadTarball::Write(e),
        Err(e) => BadTarball::Read(e),
    }
}

impl fmt::Display for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Writing {}

impl fmt::Display for BadTarball {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(e) => write!(f, "the tarball cannot be read: {e}"),
            Self::Write(e) => write!(f, "the executable cannot be written: {e}"),
            Self::Not(why) => write!(f, "the tarball is no release: {why}"),
            Self::Extra(name) => write!(
                f,
                "the tarball is no release: it may hold one regular file, banger, and holds '{name}'"
            ),
        }
    }
}

impl std::error::Error for BadTarball {}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use tar::Builder;

    use super::*;

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(vec![], Compression::fast());
        encoder.write_all(bytes).expect("compresses");
        encoder.finish().expect("ends")
    }

    fn header(name: &str, kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(size);
        header.set_cksum();
        header
    }

    fn archive(members: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(vec![]);
        for (name, kind, data) in members {
            builder.append(&header(name, *kind, data.len() as u64), *data).expect("appends");
        }
        builder.into_inner().expect("ends")
    }

    fn said(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = vec![];
        unpack(bytes, &mut out, 2000).map(|n| assert_eq!(n, out.len() as u64)).map_err(|e| e.to_string())?;
        Ok(out)
    }

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn one_file_comes_out() {
        for size in [1, 511, 512, 513, 2000] {
            let data = vec![7; size];
            assert_eq!(said(&gz(&archive(&[("banger", FILE, &data)]))), Ok(data));
        }
    }

    #[test]
    fn whatever_else_is_in_it_makes_it_no_release() {
        let good = archive(&[("banger", FILE, b"x")]);
        let mut no_end = good.clone();
        no_end.truncate(1024);
        let mut half = good.clone();
        half.truncate(512);
        let mut dirty = good.clone();
        dirty[600] = 1;
        let mut behind = good.clone();
        behind.extend([1; 512]);
        let mut broken = good.clone();
        broken[0] = b'c';
        let mut endless = good.clone();
        endless.extend(vec![0; 2 << 20]);
        for (tar, why) in [
            (archive(&[("banger", FILE, b"x"), ("bangerd", FILE, b"x")]), "holds 'bangerd'"),
            (archive(&[("banger", FILE, b"x"), ("banger", FILE, b"y")]), "holds 'banger, again'"),
            (archive(&[("README", FILE, b"x"), ("banger", FILE, b"x")]), "holds 'README'"),
            (archive(&[("./banger", FILE, b"x")]), "holds './banger'"),
            (archive(&[("/banger", FILE, b"x")]), "holds '/banger'"),
            (archive(&[("../banger", FILE, b"x")]), "holds '../banger'"),
            (archive(&[("banger", EntryType::Symlink, b"")]), "holds 'banger'"),
            (archive(&[("banger", EntryType::Link, b"")]), "holds 'banger'"),
            (archive(&[("banger", EntryType::Directory, b"")]), "holds 'banger'"),
            (archive(&[("banger", EntryType::Char, b"")]), "holds 'banger'"),
            (archive(&[("banger", EntryType::XHeader, b"x")]), "holds 'banger'"),
            (archive(&[("banger", EntryType::GNUSparse, b"x")]), "holds 'banger'"),
            (archive(&[("banger", FILE, &[7; 2001])]), "too large"),
            (archive(&[("banger", FILE, b"")]), "empty"),
            (archive(&[]), "it is empty"),
            (no_end, "ends too early"),
            (half, "ends in the middle"),
            (dirty, "between banger and the end"),
            (behind, "behind banger"),
            (broken, "no tar archive"),
            (endless, "goes on behind its end"),
            (vec![], "ends too early"),
        ] {
            let error = said(&gz(&tar)).expect_err(why);
            assert!(error.contains(why), "{why}: {error}");
        }
        let mut twice = gz(&good);
        twice.extend(gz(&good));
        assert!(said(&twice).expect_err("two").contains("behind its gzip stream"));
        assert!(said(&good).expect_err("no gzip").contains("cannot be read"));
        let mut cut = gz(&good);
        cut.truncate(cut.len() - 4);
        assert!(said(&cut).expect_err("cut off").contains("cannot be read"));
    }

    #[test]
    fn a_disk_that_is_full_is_not_the_tarballs_fault() {
        let tarball = gz(&archive(&[("banger", FILE, &[7; 2000])]));
        let mut full = [0; 10];
        let error = unpack(&tarball[..], &mut &mut full[..], 2000).expect_err("no room").to_string();
        assert!(error.starts_with("the executable cannot be written"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_one_file(bytes in prop::collection::vec(any::<u8>(), 0..600), at in 0usize..1500, with in any::<u8>()) {
            drop(said(&bytes));
            drop(said(&gz(&bytes)));
            let mut bent = archive(&[("banger", FILE, &[7; 100])]);
            let len = bent.len();
            bent[at % len] = with;
            if let Ok(out) = said(&gz(&bent)) {
                prop_assert_eq!(out.len(), 100);
            }
        }
    }
}
