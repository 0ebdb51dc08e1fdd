//! Reading a tar stream: ustar, GNU (long names, sparse files) and PAX, once and forward. The field formats are the tar
//! crate's; the walk from member to member is ours, as two rules need it: what a member's sizes contradict is refused
//! (CVE-2025-62518: entries that only one of two readers sees), and a PAX value may hold newlines, as capabilities do.

mod pax;
mod sparse;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Read};

use ::tar::{EntryType, Header};

use crate::ext4::tree::Time;
pub use sparse::Stretch;

const BLOCK: u64 = 512;
/// The largest extended header, in bytes: long names, PAX records with all xattrs.
const MAX_EXTENDED: u64 = 1 << 20;
/// The largest file, in bytes, with its holes.
pub const MAX_FILE: u64 = 1 << 40;
/// What an octal size field can say; only a larger file needs its size in a PAX record.
const MAX_OCTAL_SIZE: u64 = 0o77_777_777_777;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One member, with its extended headers applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As it is written: not normalised, not necessarily UTF-8.
    pub path: Vec<u8>,
    pub kind: Type,
    pub link: Vec<u8>,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub device: (u32, u32),
    /// Length of the file, in bytes, with its holes.
    pub size: u64,
    /// Where the data that follows belongs; one stretch for a file without holes.
    pub stretches: Vec<Stretch>,
}

/// Why it cannot be read on.
#[derive(Debug)]
pub enum TarError {
    /// What holds the tar cannot be read, or cannot be inflated.
    Read(io::Error),
    /// It ends within a member; its name is empty where it was not known yet.
    Truncated { path: String },
    /// A block that should be a member's header is none.
    NoHeader,
    /// A member that is not as the formats allow.
    Bad { path: String, why: String },
}

impl TarError {
    /// It ends within the member of this name.
    pub fn truncated(path: &[u8]) -> Self {
        Self::Truncated { path: shown(path) }
    }
}

impl fmt::Display for TarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(_) => f.write_str("cannot read it"),
            Self::Truncated { path } if path.is_empty() => f.write_str("the tar archive ends in the middle"),
            Self::Truncated { path } => {
                write!(f, "the tar archive ends in the middle of its member '{path}'")
            }
            Self::NoHeader => f.write_str("the tar archive is damaged: a header's checksum is wrong"),
            Self::Bad { path, why } if path.is_empty() => write!(f, "the tar archive has a member {why}"),
            Self::Bad { path, why } => write!(f, "its member '{path}' {why}"),
        }
    }
}

impl std::error::Error for TarError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(e) => Some(e),
            _ => None,
        }
    }
}

/// A path as an error shows it: short, and nothing that a terminal would obey.
pub fn shown(path: &[u8]) -> String {
    let cut = &path[..path.len().min(120)];
    let dots = if cut.len() < path.len() { "..." } else { "" };
    match std::str::from_utf8(cut) {
        Ok(text) => format!("{}{dots}", crate::image::manifest::harmless(text)),
        Err(_) => format!("{}{dots}", cut.escape_ascii()),
    }
}

/// A source of bytes that can leave some out.
pub trait Source: Read + Sized {
    /// Passes over `bytes`; false if there are not so many.
    fn skip(&mut self, bytes: u64) -> io::Result<bool> {
        let passed = io::copy(&mut self.by_ref().take(bytes), &mut io::sink())?;
        Ok(passed == bytes)
    }

    /// Where the next read begins; used by those who want to come back.
    fn position(&self) -> u64 {
        0
    }
}

/// Bytes that can only be read.
pub struct Stream<R>(pub R);

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Source for Stream<R> {}

impl<R: BufRead> BufRead for Stream<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.0.consume(bytes);
    }
}

/// Walks a tar archive. Between two calls of [`Reader::next`] it reads as the member's data.
pub struct Reader<S> {
    source: S,
    /// Of the present member: data not read, and padding after it.
    left: u64,
    padding: u64,
    /// Its name.
    present: Vec<u8>,
}

/// What extended headers said of the member that follows them.
#[derive(Default)]
struct Extended {
    pax: Option<Vec<u8>>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<S: Source> Reader<S> {
    pub fn new(source: S) -> Self {
        Self { source, left: 0, padding: 0, present: vec![] }
    }

    pub fn source(&self) -> &S {
        &self.source
    }

    pub fn into_source(self) -> S {
        self.source
    }

    /// Goes to the next member; None at the archive's end.
    pub fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extended = Extended::default();
        loop {
            let rest = self.left + self.padding;
            if rest > 0 && !self.source.skip(rest).map_err(TarError::Read)? {
                return Err(TarError::truncated(&self.present));
            }
            (self.left, self.padding) = (0, 0);
            let Some(header) = self.header()? else {
                let dangling =
                    extended.pax.is_some() || extended.long_path.is_some() || extended.long_link.is_some();
                return if dangling { Err(TarError::truncated(&[])) } else { Ok(None) };
            };
            match header.entry_type() {
                EntryType::XHeader => self.extend(&header, |e| &mut e.pax, &mut extended)?,
                EntryType::GNULongName => self.extend(&header, |e| &mut e.long_path, &mut extended)?,
                EntryType::GNULongLink => self.extend(&header, |e| &mut e.long_link, &mut extended)?,
                // Global records (git archive's commit) and a volume's label describe no member; docker leaves them out.
                EntryType::XGlobalHeader => drop(self.extended_data(&header)?),
                other if other.as_byte() == b'V' => {}
                _ => return self.member(&header, extended).map(Some),
            }
        }
    }

    /// The next header block; None at the end: a block of zeros, or nothing more.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        match fill(&mut self.source, header.as_mut_bytes()).map_err(TarError::Read)? {
            0 => return Ok(None),
            n if (n as u64) < BLOCK => return Err(TarError::truncated(&[])),
            _ => {}
        }
        if header.as_bytes().iter().all(|b| *b == 0) {
            return Ok(None);
        }
        if is_header(header.as_bytes()) { Ok(Some(header)) } else { Err(TarError::NoHeader) }
    }

    fn extend(
        &mut self,
        header: &Header,
        which: impl Fn(&mut Extended) -> &mut Option<Vec<u8>>,
        extended: &mut Extended,
    ) -> Result<(), TarError> {
        let data = self.extended_data(header)?;
        match which(extended).replace(data) {
            None => Ok(()),
            Some(_) => Err(bad(&[], "with two extended headers of a kind")),
        }
    }

    fn extended_data(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let size = header.entry_size().map_err(|_| bad(&[], "whose extended header has no size"))?;
        if size > MAX_EXTENDED {
            return Err(bad(&[], "whose extended header is larger than 1 MiB"));
        }
        let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
        if fill(&mut self.source, &mut data).map_err(TarError::Read)? < data.len() {
            return Err(TarError::truncated(&[]));
        }
        self.padding = padding(size);
        Ok(data)
    }

    fn member(&mut self, header: &Header, extended: Extended) -> Result<Entry, TarError> {
        let records = match &extended.pax {
            Some(data) => pax::parse(data).map_err(|why| bad(&header.path_bytes(), why))?,
            None => pax::Records::default(),
        };
        let until_nul = |mut name: Vec<u8>| {
            name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
            name
        };
        let path = extended
            .long_path
            .map(until_nul)
            .or_else(|| records.sparse.name.clone())
            .or_else(|| records.path.clone())
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extended
            .long_link
            .map(until_nul)
            .or_else(|| records.link.clone())
            .unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let fail = |why: &str| bad(&path, why);
        let kind = kind(header, &path).map_err(&fail)?;
        let size = data_size(header, records.size, kind).map_err(&fail)?;
        self.left = size;
        self.padding = padding(size);
        let number = |field: io::Result<u64>, record: Option<u64>, what: &str| {
            let value = match record {
                Some(value) => Some(value),
                None => field.ok(),
            };
            // The last number means "leave as it is" to chown(2).
            value
                .and_then(|v| u32::try_from(v).ok())
                .filter(|v| *v != u32::MAX)
                .ok_or_else(|| fail(&format!("has no {what} that a file can have")))
        };
        let (uid, gid) =
            (number(header.uid(), records.uid, "owner")?, number(header.gid(), records.gid, "group")?);
        let mode = header.mode().map_err(|_| fail("has no mode"))? & 0o7777;
        let seconds = header.mtime().map_err(|_| fail("has no time"))?;
        let mtime = records.mtime.unwrap_or(Time { seconds: seconds.cast_signed(), nanoseconds: 0 });
        let (size, stretches) = if kind == Type::File {
            self.stretches(header, &records).map_err(|e| match e {
                TarError::Bad { why, .. } => bad(&path, &why),
                TarError::Truncated { .. } => TarError::truncated(&path),
                other => other,
            })?
        } else {
            (0, vec![])
        };
        let device = match kind {
            Type::CharDevice | Type::BlockDevice => {
                let part =
                    |n: io::Result<Option<u32>>| n.ok().flatten().ok_or_else(|| fail("has no device number"));
                (part(header.device_major())?, part(header.device_minor())?)
            }
            _ => (0, 0),
        };
        self.present.clone_from(&path);
        Ok(Entry {
            path,
            kind,
            link,
            mode: mode as u16,
            uid,
            gid,
            mtime,
            xattrs: records.xattrs,
            device,
            size,
            stretches,
        })
    }

    /// The file's length, and where its data belongs.
    fn stretches(
        &mut self,
        header: &Header,
        records: &pax::Records,
    ) -> Result<(u64, Vec<Stretch>), TarError> {
        let map = if header.entry_type().is_gnu_sparse() {
            Some(sparse::old_gnu(header, &mut self.source)?)
        } else if records.sparse.is_version_1() {
            let (map, taken) = sparse::version_1(&records.sparse, &mut (&mut self.source).take(self.left))?;
            self.left = self.left.checked_sub(taken).ok_or_else(|| bad(&[], "has a bad sparse map"))?;
            Some(map)
        } else {
            records.sparse.version_0().map_err(|why| bad(&[], why))?
        };
        match map {
            None => Ok((self.left, vec![Stretch { at: 0, len: self.left }])),
            Some(map) => {
                sparse::check(&map, self.left).map_err(|why| bad(&[], why))?;
                Ok((map.size, map.stretches))
            }
        }
    }
}

/// The present member's data.
impl<S: Source> Read for Reader<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let n = self.source.read(&mut buffer[..wanted])?;
        self.left -= n as u64;
        if n == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(n) }
    }
}

/// The same without copying; at the data's end there is nothing more.
impl<S: Source + BufRead> BufRead for Reader<S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let data = self.source.fill_buf()?;
        let wanted = data.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(&data[..wanted]) }
    }

    fn consume(&mut self, bytes: usize) {
        self.left -= bytes as u64;
        self.source.consume(bytes);
    }
}

/// Whether 512 bytes are a member's header: its checksum is right. Old writers summed signed bytes.
pub fn is_header(block: &[u8; 512]) -> bool {
    let mut header = Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    let Ok(said) = header.cksum() else { return false };
    let mut counted = *block;
    counted[148..156].fill(b' ');
    let unsigned: u32 = counted.iter().map(|b| u32::from(*b)).sum();
    let signed: i32 = counted.iter().map(|b| i32::from(b.cast_signed())).sum();
    said == unsigned || i64::from(said) == i64::from(signed)
}

fn kind(header: &Header, path: &[u8]) -> Result<Type, &'static str> {
    Ok(match header.entry_type() {
        // Before POSIX a directory was a file whose name ends in a slash.
        EntryType::Regular if header.as_bytes()[156] == 0 && path.ends_with(b"/") => Type::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Type::File,
        EntryType::Link => Type::HardLink,
        EntryType::Symlink => Type::Symlink,
        EntryType::Char => Type::CharDevice,
        EntryType::Block => Type::BlockDevice,
        EntryType::Directory => Type::Directory,
        EntryType::Fifo => Type::Fifo,
        _ => return Err("is of a kind that no file system has"),
    })
}

/// How much data follows the header.
fn data_size(header: &Header, record: Option<u64>, kind: Type) -> Result<u64, &'static str> {
    // Only files have data, whatever the field says: so reads Go's archive/tar, and with it docker.
    if kind != Type::File {
        return Ok(0);
    }
    let field = header.entry_size().map_err(|_| "has no size")?;
    let size = match record {
        None => field,
        Some(record) if record == field => field,
        // The record is there because the field cannot hold the size, and then the field is 0.
        Some(record) if field == 0 && record > MAX_OCTAL_SIZE => record,
        Some(_) => return Err("has two sizes that differ"),
    };
    if size > MAX_FILE { Err("is larger than 1 TiB") } else { Ok(size) }
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

fn bad(path: &[u8], why: &str) -> TarError {
    TarError::Bad { path: shown(path), why: why.to_owned() }
}

/// Reads until `buffer` is full or the source ends; returns how much it read.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
