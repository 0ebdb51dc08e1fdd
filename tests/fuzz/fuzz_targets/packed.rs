//! Receiving a pack, and reading all of it again.

use std::collections::HashSet;
use std::fs::File;

use banger::git::pack::{Cache, Index, Kind, Pack, resolve, scan, write_index};
use banger::git::{Format, Hasher, Id};

pub fn digest(format: Format, bytes: &[u8]) -> Id {
    let mut hasher = Hasher::new(format);
    hasher.update(bytes);
    hasher.finish()
}

pub fn name(format: Format, kind: Kind, content: &[u8]) -> Id {
    let mut hasher = Hasher::object(format, kind.name(), content.len() as u64);
    hasher.update(content);
    hasher.finish()
}

/// The objects of a pack, each read again by its name; None: it is refused. `elsewhere` has the blobs that it may build upon.
pub fn received(
    bytes: &[u8],
    format: Format,
    elsewhere: &dyn Fn(&Id) -> Option<Vec<u8>>,
) -> Option<HashSet<Id>> {
    let mut file = tempfile::tempfile_in("/dev/shm").expect("a file");
    let scanned = scan(&mut &bytes[..], &mut file, format).ok()??;
    let blob = |id: &Id| elsewhere(id).map(|content| (Kind::Blob, content));
    let (entries, checksum) = resolve(scanned, &file, &mut |id| Ok(blob(id))).ok()?;
    let mut index = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file");
    write_index(&mut index, format, entries.clone(), checksum).expect("writes");
    let index = Index::open(File::open(index.path()).expect("opens"), format).expect("an index");
    let pack = Pack { file: &file, format, number: 0 };
    let mut ids = HashSet::new();
    for entry in entries {
        assert!(index.offset(&entry.id).expect("looks").is_some());
        let (kind, content) = pack
            .content(entry.offset, &mut Cache::new(1 << 16), &|_, base| index.offset(base))
            .expect("reads");
        assert_eq!(name(format, kind, &content), entry.id);
        ids.insert(entry.id);
    }
    Some(ids)
}
