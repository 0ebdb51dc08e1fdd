//! The blob store: content by digest, one file each, named by the hash. A file with that name is whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::host::files::{create_private_dir, remove_if_present, sync_directory};
use crate::host::undo::Undo;
use crate::image::digest::Digest;
use crate::oci::hash::Hasher;
use crate::oci::region::Region;
use crate::oci::spool::fresh_name;

pub struct Blobs {
    directory: PathBuf,
}

/// Why a blob is not in the store.
#[derive(Debug)]
pub enum PutError {
    /// The source failed.
    Source(io::Error),
    Disk(io::Error),
    /// It has another digest.
    Digest(String),
    /// It is not as long as it should be.
    Size(u64),
}

impl Blobs {
    pub fn open(directory: &Path) -> io::Result<Self> {
        create_private_dir(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }

    /// The blob, if it is here. One of another length is not it, and is removed.
    pub fn get(&self, digest: &Digest, size: u64) -> io::Result<Option<Region>> {
        let file = match File::open(self.path(digest)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let region = Region::whole(file)?;
        if region.len() == size {
            return Ok(Some(region));
        }
        self.remove(digest)?;
        Ok(None)
    }

    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        remove_if_present(&self.path(digest))
    }

    /// Takes `size` bytes from `source`, and keeps them if they have this digest. Else nothing of them is left.
    pub fn put(&self, digest: &Digest, size: u64, source: &mut dyn Read) -> Result<Region, PutError> {
        let staged = self.directory.join(fresh_name("blob"));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&staged)
            .map_err(PutError::Disk)?;
        let mut undo = Undo::default();
        let doomed = staged.clone();
        undo.push(format!("file {}", staged.display()), move || remove_if_present(&doomed));
        let mut hasher = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; 128 << 10];
        let mut bytes = 0;
        loop {
            let n = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(PutError::Source(e)),
            };
            bytes += n as u64;
            // A registry that never stops sending is not listened to for long.
            if bytes > size {
                return Err(PutError::Size(bytes));
            }
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(PutError::Disk)?;
        }
        if bytes != size {
            return Err(PutError::Size(bytes));
        }
        hasher.check(digest).map_err(PutError::Digest)?;
        file.sync_all().map_err(PutError::Disk)?;
        std::fs::rename(&staged, self.path(digest)).map_err(PutError::Disk)?;
        undo.commit();
        sync_directory(&self.directory).map_err(PutError::Disk)?;
        Region::whole(file).map_err(PutError::Disk)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::oci::hash::sha256;

    #[test]
    fn a_blob_is_kept_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let blobs = Blobs::open(&dir.path().join("sha256")).expect("opens");
        let digest = sha256(b"content").expect("a digest");
        let put = |bytes: &[u8], size| blobs.put(&digest, size, &mut &*bytes);
        assert!(matches!(put(b"contenT", 7), Err(PutError::Digest(_))));
        assert!(matches!(put(b"conten", 7), Err(PutError::Size(6))));
        assert!(matches!(put(b"content and more", 7), Err(PutError::Size(16))));
        let count = || std::fs::read_dir(&blobs.directory).expect("lists").count();
        assert_eq!(count(), 0);
        put(b"content", 7).expect("keeps");
        assert_eq!(count(), 1);
        let mode = std::fs::metadata(blobs.path(&digest)).expect("stats").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let found = blobs.get(&digest, 7).expect("reads").expect("is there");
        assert_eq!(found.read_all(100).expect("reads").as_deref(), Some(b"content".as_slice()));
        assert!(blobs.get(&digest, 8).expect("reads").is_none());
        assert_eq!(count(), 0, "a blob of the wrong length is no blob");
    }
}
