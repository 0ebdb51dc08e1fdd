//! What is in the blob store, and how it is emptied. Each blob is one file that is there or not, so a crash leaves no half state;
//! what a pull uses just now is left alone.

use std::fs::{DirEntry, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use crate::host::files::{remove_if_present, sync_directory};
use crate::image::digest::{Algorithm, Digest};
use crate::oci::blobs::{Blobs, is_idle};

/// How names of files begin that are not blobs yet.
const STAGED: &str = ".staged-";

/// A blob in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub digest: Digest,
    /// What it takes on disk.
    pub bytes: u64,
    pub since: SystemTime,
    pub in_use: bool,
}

/// What was removed, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    pub blobs: u64,
    pub bytes: u64,
}

/// All blobs, the newest first.
pub fn list(store: &Blobs) -> io::Result<Vec<Held>> {
    let mut found = vec![];
    for entry in entries(store)? {
        let Some(digest) = digest(&entry) else { continue };
        let Some((file, meta)) = open(&entry)? else { continue };
        let held = Held { digest, bytes: bytes(&meta), since: meta.modified()?, in_use: !is_idle(&file) };
        found.push(held);
    }
    found.sort_by(|a, b| b.since.cmp(&a.since).then_with(|| a.digest.cmp(&b.digest)));
    Ok(found)
}

/// Removes every blob that nobody uses, and what crashes have left; with `dry_run` it only looks.
pub fn prune(store: &Blobs, dry_run: bool) -> io::Result<Pruned> {
    remove_idle(store, dry_run, |entry| is_staged(entry) || digest(entry).is_some())
}

/// Removes what crashes have left.
pub fn sweep(store: &Blobs) -> io::Result<Pruned> {
    remove_idle(store, false, is_staged)
}

fn remove_idle(store: &Blobs, dry_run: bool, of: impl Fn(&DirEntry) -> bool) -> io::Result<Pruned> {
    let mut pruned = Pruned::default();
    for entry in entries(store)?.into_iter().filter(of) {
        let Some((file, meta)) = open(&entry)? else { continue };
        if !is_idle(&file) {
            continue;
        }
        if !dry_run {
            remove_if_present(&entry.path())?;
        }
        pruned.blobs += 1;
        pruned.bytes += bytes(&meta);
    }
    if pruned.blobs > 0 && !dry_run {
        sync_directory(store.directory())?;
    }
    Ok(pruned)
}

fn entries(store: &Blobs) -> io::Result<Vec<DirEntry>> {
    match std::fs::read_dir(store.directory()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(e) => Err(e),
        Ok(entries) => entries.collect(),
    }
}

/// The regular file there; None if it has just gone.
fn open(entry: &DirEntry) -> io::Result<Option<(File, std::fs::Metadata)>> {
    match File::open(entry.path()) {
        Ok(file) => {
            let meta = file.metadata()?;
            Ok(meta.is_file().then_some((file, meta)))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn bytes(meta: &std::fs::Metadata) -> u64 {
    meta.blocks() * 512
}

/// The digest that a name is; whatever else is in the directory is not ours to remove.
fn digest(entry: &DirEntry) -> Option<Digest> {
    let name = entry.file_name().into_string().ok()?;
    [Algorithm::Sha256, Algorithm::Sha512]
        .into_iter()
        .find(|algorithm| name.len() == 2 * algorithm.bytes())
        .and_then(|algorithm| format!("{}:{name}", algorithm.name()).parse().ok())
}

fn is_staged(entry: &DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with(STAGED)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::oci::blobs::Claim;
    use crate::oci::hash::sha256;

    fn put(directory: &Path, content: &[u8]) -> Digest {
        let digest = sha256(content).expect("a digest");
        std::fs::create_dir_all(directory).expect("makes a directory");
        std::fs::write(directory.join(digest.hex()), content).expect("writes");
        digest
    }

    #[test]
    fn what_a_pull_uses_stays_and_what_a_crash_left_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Blobs::at(dir.path().join("sha256"));
        assert_eq!(prune(&store, false).expect("there is nothing yet"), Pruned::default());
        let (used, idle) = (put(store.directory(), b"used"), put(store.directory(), b"idle"));
        std::fs::write(store.directory().join(".staged-1-2-blob"), b"half").expect("writes");
        std::fs::write(store.directory().join("README"), b"not ours").expect("writes");
        let Claim::Here(region) = store.claim(&used, 4).expect("reads") else { panic!("it is here") };
        let Claim::Coming { transfer, .. } =
            store.claim(&sha256(b"x").expect("a digest"), 1).expect("claims")
        else {
            panic!("it is not here")
        };
        let fate = crate::oci::fate::Fate::default();
        let turn = transfer.take_part(&fate, &mut |_| ()).expect("begins");

        let listed: Vec<_> = list(&store).expect("lists").into_iter().map(|h| (h.digest, h.in_use)).collect();
        assert_eq!(listed.len(), 2);
        assert!(listed.contains(&(used.clone(), true)) && listed.contains(&(idle, false)), "{listed:?}");

        let names = || std::fs::read_dir(store.directory()).expect("lists").count();
        assert_eq!(prune(&store, true).expect("looks").blobs, 2);
        assert_eq!(names(), 5, "a dry run removes nothing");
        assert_eq!(sweep(&store).expect("sweeps").blobs, 1);
        let pruned = prune(&store, false).expect("prunes");
        assert_eq!((pruned.blobs, pruned.bytes), (1, 4096));
        assert_eq!(names(), 3, "the used one, the arriving one, and what is not ours");
        drop((region, turn));
        drop(transfer);
        assert_eq!(prune(&store, false).expect("prunes").blobs, 1);
        assert_eq!(names(), 1);
    }
}
