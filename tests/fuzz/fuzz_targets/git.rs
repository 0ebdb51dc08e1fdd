//! Any bytes, as a pack that a host sends, with a checksum that is right; as a line of an index; and as a record of a work tree. A pack that is
//! taken is one whose objects are all to be read again under their names.
#![no_main]

use std::fs::File;

use banger::git::index::Entry;
use banger::git::pack::{Cache, Index, Pack, resolve, scan, write_index};
use banger::git::{Format, Hasher};
use banger::proto::workspace::{Difference, Record, Wanted};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for format in [Format::Sha1, Format::Sha256] {
        drop(Entry::parse(bytes, format));
        pack(bytes, format);
        let mut hasher = Hasher::new(format);
        hasher.update(bytes);
        pack(&[bytes, hasher.finish().bytes()].concat(), format);
    }
    let mut again = vec![];
    if let Ok(record) = Record::parse(bytes) {
        record.write(&mut again);
    } else if let Ok(wanted) = Wanted::parse(bytes) {
        wanted.write(&mut again);
    } else {
        drop(Difference::parse(bytes));
        return;
    }
    assert_eq!(again.strip_suffix(b"\0"), Some(bytes));
});

fn pack(bytes: &[u8], format: Format) {
    let mut file = tempfile::tempfile().expect("a file");
    let Ok(Some(scanned)) = scan(&mut &bytes[..], &mut file, format) else { return };
    let Ok((entries, checksum)) = resolve(scanned, &file, &mut |_| Ok(None)) else { return };
    let mut index = tempfile::NamedTempFile::new().expect("a file");
    write_index(&mut index, format, entries.clone(), checksum).expect("writes");
    let index = Index::open(File::open(index.path()).expect("opens"), format).expect("an index");
    let pack = Pack { file: &file, format };
    for entry in entries {
        assert!(index.offset(&entry.id).expect("looks").is_some());
        let (kind, content) =
            pack.content(entry.offset, &mut Cache::new(1 << 16), &|_, base| index.offset(base)).expect("reads");
        let mut hasher = Hasher::object(format, kind.name(), content.len() as u64);
        hasher.update(&content);
        assert_eq!(hasher.finish(), entry.id);
    }
}
