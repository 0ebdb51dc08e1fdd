//! The cache of blobs: what is in it, and how its owner gets the space back. What was removed is fetched again when it is needed.

use std::io;
use std::time::UNIX_EPOCH;

use crate::daemon::fault::Fault;
use crate::daemon::op::Op;
use crate::daemon::{Daemon, Shared, blocking};
use crate::oci::cache;
use crate::proto::api::{BlobView, PrunedView};

pub async fn list(d: &Shared) -> Result<Vec<BlobView>, Fault> {
    blocking(d, |d| {
        let held = cache::list(&d.images.blobs).map_err(|e| failed(d, "look into", &e))?;
        let view = |held: cache::Held| BlobView {
            digest: held.digest.to_string(),
            bytes: held.bytes,
            fetched_at: held.since.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            in_use: held.in_use,
        };
        Ok(held.into_iter().map(view).collect())
    })
    .await
}

/// Removes what no pull uses just now; with `dry_run` it only says what that would be.
pub async fn prune(d: &Shared, op: &Op, dry_run: bool) -> Result<PrunedView, Fault> {
    let op = op.clone();
    blocking(d, move |d| {
        let pruned = cache::prune(&d.images.blobs, dry_run).map_err(|e| failed(d, "prune", &e))?;
        if !dry_run {
            log::info!("{op} cache: {} blobs removed, {} bytes", pruned.blobs, pruned.bytes);
        }
        let directory = d.images.blobs.directory().display().to_string();
        Ok(PrunedView { blobs: pruned.blobs, bytes: pruned.bytes, directory })
    })
    .await
}

/// Removes what a crash has left half-fetched. A cache that cannot be swept does not keep the daemon from its work.
pub fn sweep(d: &Daemon) {
    match cache::sweep(&d.images.blobs) {
        Ok(cache::Pruned { blobs: 0, .. }) => {}
        Ok(swept) => log::info!("cache: {} half-fetched blobs removed, {} bytes", swept.blobs, swept.bytes),
        Err(e) => log::warn!("cannot sweep {}: {e}", d.images.blobs.directory().display()),
    }
}

fn failed(d: &Daemon, verb: &str, e: &io::Error) -> Fault {
    Fault::failed(format!("cannot {verb} the cache {}", d.images.blobs.directory().display()), e)
}
