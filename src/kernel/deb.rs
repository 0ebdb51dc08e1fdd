//! A Debian package: an ar archive of `debian-binary`, control.tar and data.tar (deb(5)).
//!
//! Its tar is read without interpretation: dpkg writes plain and GNU headers, and of the latter only long names matter here.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use tar::EntryType;

use crate::host::progress::{Progress, Unit};
use crate::kernel::packed;

/// What a package says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Control {
    pub package: String,
    /// The first package that it depends on and that is called as kernels are.
    pub kernel: Option<String>,
}

/// Why a package could not be read.
#[derive(Debug)]
pub enum DebError<E> {
    NotAPackage,
    Open(io::Error),
    Damaged(io::Error),
    /// The visitor's.
    Visit(E),
}

/// The longest name and the longest control file, in bytes.
const MAX_NAME: u64 = 4096;
const MAX_CONTROL: u64 = 1 << 20;
/// The most that a package may unpack to, in bytes: debug packages have 6 GB.
const MAX_DATA: u64 = 32 << 30;

/// Reads the package at `path`. Calls `visit` with the path, relative to the root, and the content of every regular file for
/// whose path `wanted` gives a limit, in bytes; a larger one is damage.
///
/// # Errors
/// The visitor's, or what is wrong with the package. A cancelled `progress` ends it as [`DebError::Damaged`].
pub fn read<E>(
    path: &Path,
    progress: &dyn Progress,
    wanted: impl Fn(&str) -> Option<usize>,
    mut visit: impl FnMut(&str, Vec<u8>) -> Result<(), E>,
) -> Result<Control, DebError<E>> {
    let file = File::open(path).map_err(DebError::Open)?;
    let total = file.metadata().map_err(DebError::Open)?.len();
    let file = Watched { inner: file, done: 0, total, progress };
    let mut archive = ar::Archive::new(BufReader::with_capacity(1 << 16, file));
    let mut control = None;
    let mut first = true;
    while let Some(entry) = archive.next_entry() {
        let entry = match entry {
            Err(_) if first => return Err(DebError::NotAPackage),
            other => other.map_err(DebError::Damaged)?,
        };
        let name = String::from_utf8_lossy(entry.header().identifier()).into_owned();
        if first && name != "debian-binary" {
            return Err(DebError::NotAPackage);
        }
        first = false;
        let length = entry.header().size();
        let part = Exact { inner: entry, left: length };
        if name.starts_with("control.tar") {
            control = Some(read_control(part).map_err(DebError::Damaged)?);
        } else if name.starts_with("data.tar") {
            read_data(part, &wanted, &mut visit)?;
            return control.ok_or_else(|| DebError::Damaged(absent("control.tar")));
        }
    }
    Err(if first { DebError::NotAPackage } else { DebError::Damaged(absent("data.tar")) })
}

fn absent(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("it has no {what}"))
}

fn read_data<E>(
    part: impl Read,
    wanted: impl Fn(&str) -> Option<usize>,
    visit: &mut impl FnMut(&str, Vec<u8>) -> Result<(), E>,
) -> Result<(), DebError<E>> {
    let stream = packed::reader(BufReader::new(part)).map_err(DebError::Damaged)?;
    let mut archive = tar::Archive::new(stream.take(MAX_DATA));
    let mut long_name = None;
    for entry in archive.entries().map_err(DebError::Damaged)?.raw(true) {
        let mut entry = entry.map_err(DebError::Damaged)?;
        let kind = entry.header().entry_type();
        if kind == EntryType::GNULongName {
            long_name = Some(read_name(&mut entry).map_err(DebError::Damaged)?);
            continue;
        }
        let name = match long_name.take() {
            Some(name) => name,
            None => entry.path_bytes().into_owned(),
        };
        let Ok(name) = std::str::from_utf8(&name) else { continue };
        let name = name.trim_start_matches("./");
        let (EntryType::Regular, Some(limit)) = (kind, wanted(name)) else { continue };
        let size = entry.header().entry_size().map_err(DebError::Damaged)?;
        if size > limit as u64 {
            let text = format!("{name:?} has {size} bytes");
            return Err(DebError::Damaged(io::Error::new(io::ErrorKind::FileTooLarge, text)));
        }
        let mut content = vec![];
        entry.read_to_end(&mut content).map_err(DebError::Damaged)?;
        if content.len() as u64 != size {
            return Err(DebError::Damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        visit(name, content).map_err(DebError::Visit)?;
    }
    Ok(())
}

fn read_name(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut name = vec![];
    entry.take(MAX_NAME + 1).read_to_end(&mut name)?;
    if name.len() as u64 > MAX_NAME {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a file's name has no end"));
    }
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    name.truncate(end);
    Ok(name)
}

fn read_control(part: impl Read) -> io::Result<Control> {
    let mut archive = tar::Archive::new(packed::reader(BufReader::new(part))?.take(16 * MAX_CONTROL));
    for entry in archive.entries()?.raw(true) {
        let entry = entry?;
        if matches!(&*entry.path_bytes(), b"./control" | b"control") {
            let mut text = vec![];
            entry.take(MAX_CONTROL).read_to_end(&mut text)?;
            return Ok(Control::parse(&String::from_utf8_lossy(&text)));
        }
    }
    Err(absent("control file"))
}

impl Control {
    fn parse(text: &str) -> Self {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let plain = |word: &&str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.~".contains(&b))
        };
        let names = field("Depends").unwrap_or_default().split([',', '|']);
        let names = names.filter_map(|name| name.split_whitespace().next()).filter(plain);
        Self {
            package: field("Package").map(str::trim).filter(plain).unwrap_or("the package").to_owned(),
            kernel: names.into_iter().find(|name| name.starts_with("linux-image-")).map(str::to_owned),
        }
    }
}

/// Tells how far a file has been read, and ends when nobody waits any more.
struct Watched<'a> {
    inner: File,
    done: u64,
    total: u64,
    progress: &'a dyn Progress,
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.progress.cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        let n = self.inner.read(buf)?;
        self.done += n as u64;
        self.progress.advance(self.done, self.total, Unit::Bytes);
        Ok(n)
    }
}

/// A part of an archive, whose end before its length is an error: decoders may take an early end for the end.
struct Exact<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if n == 0 && self.left > 0 && !buf.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends in the middle"));
        }
        self.left = self.left.saturating_sub(n as u64);
        Ok(n)
    }
}

#[cfg(test)]
pub(super) mod tests;
