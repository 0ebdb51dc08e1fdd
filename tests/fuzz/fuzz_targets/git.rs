//! Any bytes, as what is in a repository, or is said of a work tree: a pack, with a checksum that is right; a pack and its index that do not fit;
//! git's index, as a file and as a listing; records. What is taken is the same when it is written and read again.
#![no_main]

mod packed;

use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

use banger::git::index::{self, Entry};
use banger::git::pack::{Cache, Index, Inflate, Pack, inflate_whole};
use banger::git::{Format, Id};
use banger::proto::workspace::{Difference, Record, Wanted};
use packed::{digest, received};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for format in [Format::Sha1, Format::Sha256] {
        drop(received(bytes, format, &|_| None));
        drop(received(&[bytes, digest(format, bytes).bytes()].concat(), format, &|_| None));
        repository(bytes, format);
        listing(bytes, format);
        let file = [bytes, digest(format, bytes).bytes()].concat();
        let _digest = index::digest_of_file(format, &file);
    }
    record(bytes);
});

/// An index that is perhaps somebody else's, and the pack behind it.
fn repository(bytes: &[u8], format: Format) {
    let Some((at, bytes)) = bytes.split_first_chunk::<2>() else { return };
    let (before, pack) = bytes.split_at(usize::from(u16::from_le_bytes(*at)).min(bytes.len()));
    let file = |content: &[u8]| {
        let mut file = tempfile::tempfile_in("/dev/shm").expect("a file");
        file.write_all(content).expect("writes");
        file
    };
    let file_of_pack = file(pack);
    drop(inflate_whole(&mut Inflate::new(&file_of_pack, 0), 1 << 16));
    let index_file = file(before);
    let Ok(index) = Index::open(index_file.try_clone().expect("a file"), format) else { return };
    let pack = Pack { file: &file_of_pack, format, number: 0 };
    // Each name that it could have.
    let (names, length) = (8 + 256 * 4, format.id_bytes());
    let mut name = vec![0; length];
    for n in 0..64 {
        if index_file.read_exact_at(&mut name, names + n * length as u64).is_err() {
            return;
        }
        let id = Id::from_bytes(&name).expect("a name");
        let Ok(Some(at)) = index.offset(&id) else { continue };
        if let Ok(Some((_, size, content))) = pack.stream(at) {
            drop(content.take(size.min(1 << 16)).read_to_end(&mut vec![]));
        }
        drop(pack.content(at, &mut Cache::new(1 << 16), &|_, base| index.offset(base)));
    }
}

/// A listing becomes an index that says the same.
fn listing(bytes: &[u8], format: Format) {
    let entries: Vec<Entry> =
        bytes.split(|b| *b == 0).filter_map(|line| Entry::parse(line, format).ok()).collect();
    let mut file = vec![];
    index::write(&mut file, format, &entries, |_| Default::default()).expect("writes");
    assert_eq!(index::digest_of_file(format, &file), Some(index::digest(format, &entries)));
}

fn record(bytes: &[u8]) {
    let mut again = vec![];
    if let Ok(record) = Record::parse(bytes) {
        record.write(&mut again);
    } else if let Ok(wanted) = Wanted::parse(bytes) {
        wanted.write(&mut again);
    } else if let Ok(difference) = Difference::parse(bytes) {
        // A size may have had a sign and zeros before it.
        difference.write(&mut again);
        again.pop();
        assert_eq!(Difference::parse(&again), Ok(difference));
        return;
    } else {
        return;
    }
    assert_eq!(again.strip_suffix(b"\0"), Some(bytes));
}
