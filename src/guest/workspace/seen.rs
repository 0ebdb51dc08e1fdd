//! What was at paths when the host was told of them. It has decided by that what may go; minutes may have passed since, in which the guest was at work.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::tree::Found;
use crate::git::{Id, Mode};

#[derive(Debug, Default)]
pub struct Seen {
    /// A path that is not in it was not there.
    pub found: BTreeMap<Vec<u8>, Found>,
    /// What of it was in the way, and may go: a directory with all that is in it.
    pub whole: BTreeSet<Vec<u8>>,
    /// The blobs that were told, of what was changed or is in the way.
    pub now: BTreeMap<Vec<u8>, Id>,
}

impl Seen {
    /// # Errors
    /// What is at the path now is not what was there.
    pub fn check(&self, path: &[u8], now: Option<Found>) -> io::Result<()> {
        let directory = |found: &Found| found.mode == Some(Mode::Directory);
        match (self.found.get(path), now) {
            // What is in a directory changes it, and is looked at by itself.
            (_, Some(now)) if directory(&now) => Ok(()),
            (Some(then), None) if directory(then) => Ok(()),
            (then, now) if then.copied() == now => Ok(()),
            _ => Err(changed(path)),
        }
    }
}

pub fn changed(path: &[u8]) -> io::Error {
    let path = path.escape_ascii();
    io::Error::other(format!("\"{path}\" was changed in the guest while it was being brought; prepare again"))
}
