//! The blob store: content by digest, one file each, named by the hash. A file with that name is whole.
//!
//! Whoever uses a file holds a shared lock on it (flock(2)), which ends with its process: what is locked is not pruned, and a
//! staged file that is not is a crash's leftover.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{FlockOperation, flock};

use crate::host::files::{create_private_dir, remove_if_present, sync_directory};
use crate::image::digest::Digest;
use crate::oci::arrival::Transfer;
use crate::oci::region::Region;

/// A handle; its clones are the same store, and know of what is on its way to the others.
#[derive(Debug, Clone)]
pub struct Blobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    coming: Mutex<HashMap<Digest, Weak<Transfer>>>,
}

/// A blob that somebody wants.
#[derive(Debug)]
pub enum Claim {
    Here(Region),
    /// On its way, or about to be.
    Coming {
        transfer: Arc<Transfer>,
        /// Somebody else wanted it first.
        joined: bool,
    },
}

impl Blobs {
    /// The store in `directory`, which is made when it is needed.
    pub fn at(directory: PathBuf) -> Self {
        Self(Arc::new(Inner { directory, coming: Mutex::default() }))
    }

    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.0.directory.join(digest.hex())
    }

    fn coming(&self) -> MutexGuard<'_, HashMap<Digest, Weak<Transfer>>> {
        self.0.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blob, if it is here, or the way by which it comes, which is the same for all who want it at the same time.
    pub fn claim(&self, digest: &Digest, size: u64) -> io::Result<Claim> {
        create_private_dir(&self.0.directory)?;
        // It is put in its place before it is forgotten as a transfer: under this lock one of both is seen.
        let mut coming = self.coming();
        if let Some(transfer) = coming.get(digest).and_then(Weak::upgrade).filter(|t| t.size() == size) {
            return Ok(Claim::Coming { transfer, joined: true });
        }
        if let Some(region) = self.get(digest, size)? {
            return Ok(Claim::Here(region));
        }
        coming.retain(|_, transfer| transfer.strong_count() > 0);
        let transfer = Arc::new(Transfer::new(self.clone(), digest.clone(), size));
        coming.insert(digest.clone(), Arc::downgrade(&transfer));
        Ok(Claim::Coming { transfer, joined: false })
    }

    /// The blob, if it is here. One of another length is not it, and is removed.
    fn get(&self, digest: &Digest, size: u64) -> io::Result<Option<Region>> {
        let file = match File::open(self.path(digest)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        hold(&file);
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

    /// Puts the finished file `staged` in the blob's place.
    pub fn place(&self, staged: &Path, digest: &Digest) -> io::Result<()> {
        std::fs::rename(staged, self.path(digest))?;
        sync_directory(&self.0.directory)
    }

    /// The transfer is not to be joined any more.
    pub fn forget(&self, digest: &Digest, transfer: &Transfer) {
        let mut coming = self.coming();
        if coming.get(digest).is_some_and(|known| std::ptr::eq(known.as_ptr(), transfer)) {
            coming.remove(digest);
        }
    }
}

/// Takes the lock that says that a file is in use. Who looks whether it is idle has it for a moment.
pub fn hold(file: &File) {
    // On a file system without locks nothing is lost but that.
    if let Err(e) = flock(file, FlockOperation::LockShared) {
        log::debug!("cannot lock a blob: {e}");
    }
}

/// Whether nobody uses the file: then it is locked, until it is closed, against those who would begin to.
pub fn is_idle(file: &File) -> bool {
    flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}
