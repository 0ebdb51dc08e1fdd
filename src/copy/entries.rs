//! A hostile tar stream as entries: names checked, every length capped, every disagreement between headers refused (A5, A6).
//!
//! The tar crate reads blocks and checksums; names, long names and PAX records are put together here, since its own reader
//! keeps as much of them in memory as the stream says.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;

use tar::{Archive, Entry as Raw, EntryType, Header, PaxExtensions};

/// The longest name, link target or set of PAX records, in bytes. Linux takes paths of 4096 (PATH_MAX).
const MAX_NAME: u64 = 64 * 1024;

/// One thing to make, and what it is to be like.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Below the stream's root: no empty component, no `.`, no `..`, no NUL. Empty for the root itself.
    pub name: Vec<OsString>,
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Of its content, in bytes.
    pub size: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    /// Any target: a link is data, as nothing follows it here.
    Symlink(OsString),
    /// A further name for an entry of the stream, checked like a name.
    HardLink(Vec<OsString>),
    Fifo,
    Device,
}

/// Why the stream goes no further.
#[derive(Debug)]
pub enum Broken<E> {
    /// The stream's own fault; a clause.
    Stream(String),
    /// Reading it failed.
    Read(io::Error),
    /// Whoever takes the entries does not want more.
    Taker(E),
}

/// Gives each entry of `stream`, and its content, to `take`.
pub fn each<R: Read, E>(
    stream: R,
    mut take: impl FnMut(Entry, &mut dyn Read) -> Result<(), E>,
) -> Result<(), Broken<E>> {
    let mut archive = Archive::new(stream);
    let raw = archive.entries().map_err(Broken::Read)?.raw(true);
    let mut extra = Extra::default();
    for entry in raw {
        let mut entry = entry.map_err(broken_or_read)?;
        if extra.collect(&mut entry)? {
            continue;
        }
        let header = entry.header().clone();
        let made = compose(&header, &std::mem::take(&mut extra)).map_err(Broken::Stream)?;
        take(made, &mut entry).map_err(Broken::Taker)?;
    }
    Ok(())
}

/// The tar crate says with `Other` that it does not like the stream; all else is the reader's.
fn broken_or_read<E>(e: io::Error) -> Broken<E> {
    match e.kind() {
        io::ErrorKind::Other | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            Broken::Stream(e.to_string())
        }
        _ => Broken::Read(e),
    }
}

/// What comes before an entry and belongs to it.
#[derive(Default)]
struct Extra {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Vec<u8>,
}

impl Extra {
    /// Takes an entry that only describes the next one; false if it is an entry of its own.
    fn collect<R: Read, E>(&mut self, entry: &mut Raw<'_, R>) -> Result<bool, Broken<E>> {
        let kind = entry.header().entry_type();
        let slot = match kind {
            EntryType::GNULongName => self.name.insert(vec![]),
            EntryType::GNULongLink => self.link.insert(vec![]),
            EntryType::XHeader => &mut self.pax,
            // Says something about all entries; nothing that is used here.
            EntryType::XGlobalHeader => return Ok(true),
            _ => return Ok(false),
        };
        slot.clear();
        entry.take(MAX_NAME + 1).read_to_end(slot).map_err(Broken::Read)?;
        if slot.len() as u64 > MAX_NAME {
            return Err(Broken::Stream(format!("it has a name of more than {MAX_NAME} bytes")));
        }
        if kind != EntryType::XHeader && slot.last() == Some(&0) {
            slot.pop();
        }
        Ok(true)
    }

    fn pax(&self, key: &str) -> Option<&[u8]> {
        PaxExtensions::new(&self.pax)
            .filter_map(Result::ok)
            .filter(|record| record.key() == Ok(key))
            .map(|record| record.value_bytes())
            .last()
    }

    fn pax_number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, String> {
        let Some(value) = self.pax(key) else { return Ok(None) };
        // Times have fractions; whole seconds are what is kept.
        let whole = std::str::from_utf8(value).ok().and_then(|v| v.split('.').next());
        match whole.and_then(|v| v.parse().ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(format!("its PAX record {key} is no number")),
        }
    }
}

fn compose(header: &Header, extra: &Extra) -> Result<Entry, String> {
    let bad = |what: &str| {
        let what = what.to_owned();
        move |e: io::Error| format!("{what}: {e}")
    };
    let name_bytes = match (&extra.name, extra.pax("path")) {
        (Some(name), _) => name.clone(),
        (None, Some(path)) => path.to_vec(),
        (None, None) => header.path_bytes().into_owned(),
    };
    let link_bytes = || match (&extra.link, extra.pax("linkpath")) {
        (Some(link), _) => link.clone(),
        (None, Some(link)) => link.to_vec(),
        (None, None) => header.link_name_bytes().unwrap_or_default().into_owned(),
    };
    let size = header.entry_size().map_err(bad("a size"))?;
    if extra.pax_number::<u64>("size")?.is_some_and(|pax| pax != size) {
        return Err("its headers disagree about a size".to_owned());
    }
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => {
            let target = link_bytes();
            if target.is_empty() || target.contains(&0) {
                return Err("it has a symlink without a target".to_owned());
            }
            Kind::Symlink(OsString::from_vec(target))
        }
        EntryType::Link => Kind::HardLink(components(&link_bytes())?),
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char | EntryType::Block => Kind::Device,
        other => {
            return Err(format!("it has an entry of the unknown type {:?}", char::from(other.as_byte())));
        }
    };
    if kind != Kind::File && size != 0 {
        return Err("it has content where there can be none".to_owned());
    }
    let id = |pax: Option<u64>, header: io::Result<u64>, what| -> Result<u32, String> {
        let n = match pax {
            Some(n) => n,
            None => header.map_err(bad(what))?,
        };
        // (u32)-1 means "leave it as it is" (chown(2)).
        u32::try_from(n).ok().filter(|n| *n != u32::MAX).ok_or_else(|| format!("{what} {n} is out of range"))
    };
    let mtime = match extra.pax_number::<i64>("mtime")? {
        Some(mtime) => mtime,
        None => i64::try_from(header.mtime().map_err(bad("a time"))?).map_err(|e| format!("a time: {e}"))?,
    };
    Ok(Entry {
        name: components(&name_bytes)?,
        kind,
        mode: header.mode().map_err(bad("a mode"))? & 0o7777,
        uid: id(extra.pax_number("uid")?, header.uid(), "an owner")?,
        gid: id(extra.pax_number("gid")?, header.gid(), "a group")?,
        mtime,
        size,
    })
}

/// The components of a name that stays below where it starts.
///
/// # Errors
/// A clause, for a name that does not.
fn components(name: &[u8]) -> Result<Vec<OsString>, String> {
    let shown = || format!("{:?}", String::from_utf8_lossy(name));
    if name.is_empty() {
        return Err("it has an entry without a name".to_owned());
    }
    if name.starts_with(b"/") {
        return Err(format!("the name {} is absolute", shown()));
    }
    if name.contains(&0) {
        return Err(format!("the name {} has a NUL in it", shown()));
    }
    let parts = name.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    let parts: Vec<OsString> = parts.map(|part| OsString::from_vec(part.to_vec())).collect();
    if parts.iter().any(|part| part == "..") {
        return Err(format!("the name {} leads out of the tree", shown()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(stream: &[u8]) -> Result<Vec<Entry>, String> {
        let mut entries = vec![];
        let result = each(stream, |entry, _| {
            entries.push(entry);
            Ok::<(), ()>(())
        });
        match result {
            Ok(()) => Ok(entries),
            Err(Broken::Stream(why)) => Err(why),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn header(kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o640);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(9);
        header
    }

    /// A stream of one entry with this very name, whatever the tar crate thinks of it.
    fn named(name: &[u8], kind: EntryType, link: &[u8]) -> Vec<u8> {
        let mut header = header(kind, 0);
        let gnu = header.as_gnu_mut().expect("gnu");
        gnu.name[..name.len()].copy_from_slice(name);
        gnu.linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        [&header.as_bytes()[..], &[0; 1024]].concat()
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in [&b"/etc/passwd"[..], b"../x", b"a/../../x", b"a/..", b".."] {
            assert!(
                read(&named(name, EntryType::Regular, b"")).is_err(),
                "{}",
                String::from_utf8_lossy(name)
            );
            assert!(read(&named(b"x", EntryType::Link, name)).is_err(), "{}", String::from_utf8_lossy(name));
        }
        assert!(read(&named(b"", EntryType::Regular, b"")).is_err());
    }

    #[test]
    fn a_name_is_read_as_its_components() {
        for (name, want) in
            [(&b"a/b"[..], &["a", "b"][..]), (b"./a//b/./", &["a", "b"]), (b".", &[]), (b"...", &["..."])]
        {
            let entries = read(&named(name, EntryType::Directory, b"")).expect("reads");
            assert_eq!(entries[0].name, want.iter().map(OsString::from).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_symlinks_target_is_kept_as_it_is() {
        let entries = read(&named(b"l", EntryType::Symlink, b"../../etc//passwd")).expect("reads");
        assert_eq!(entries[0].kind, Kind::Symlink("../../etc//passwd".into()));
        assert!(read(&named(b"l", EntryType::Symlink, b"")).is_err());
    }

    #[test]
    fn what_has_no_place_in_a_copy_is_refused() {
        for kind in [EntryType::GNUSparse, EntryType::new(b'V'), EntryType::new(b'?')] {
            assert!(read(&named(b"x", kind, b"")).is_err(), "{kind:?}");
        }
        let mut directory = header(EntryType::Directory, 10);
        directory.set_path("d").expect("a path");
        directory.set_cksum();
        assert!(read(&[&directory.as_bytes()[..], &[0; 512]].concat()).is_err());
    }

    #[test]
    fn long_names_and_pax_records_belong_to_the_next_entry() {
        let mut builder = tar::Builder::new(vec![]);
        let long = "d/".repeat(100) + "f";
        builder.append_data(&mut header(EntryType::Regular, 2), &long, &b"hi"[..]).expect("appends");
        builder
            .append_pax_extensions([("path", &b"p/q"[..]), ("mtime", b"77.5"), ("uid", b"70000")])
            .expect("appends");
        builder.append_data(&mut header(EntryType::Regular, 0), "short", io::empty()).expect("appends");
        builder.append_data(&mut header(EntryType::Regular, 0), "last", io::empty()).expect("appends");
        let entries = read(&builder.into_inner().expect("finishes")).expect("reads");
        assert_eq!(entries[0].name.len(), 101);
        assert_eq!((entries[1].name.len(), entries[1].mtime, entries[1].uid), (2, 77, 70_000));
        assert_eq!((entries[2].name[0].to_str(), entries[2].mtime, entries[2].uid), (Some("last"), 9, 7));
    }

    #[test]
    fn headers_that_disagree_about_a_size_are_refused() {
        let mut builder = tar::Builder::new(vec![]);
        builder.append_pax_extensions([("size", &b"512"[..])]).expect("appends");
        builder.append_data(&mut header(EntryType::Regular, 0), "f", io::empty()).expect("appends");
        assert!(read(&builder.into_inner().expect("finishes")).expect_err("refused").contains("disagree"));
    }

    #[test]
    fn a_name_without_end_is_refused_before_it_fills_the_memory() {
        let mut long = header(EntryType::GNULongName, 1 << 40);
        long.set_cksum();
        let stream = long.as_bytes().chain(io::repeat(b'a').take(MAX_NAME * 4));
        let result = each(stream, |_, _| Ok::<(), ()>(()));
        assert!(matches!(result, Err(Broken::Stream(_))));
    }

    proptest! {
        #[test]
        fn no_stream_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let result = each(&bytes[..], |entry, _| {
                assert!(entry.name.iter().all(|part| part != ".." && !part.is_empty()));
                Ok::<(), ()>(())
            });
            drop(result);
        }
    }
}
