//! Work trees: the guest's side of [`crate::proto::workspace`]. The guest may have no git at all; what is made here is a repository that any git
//! takes for its own.
//!
//! ```text
//! prepare.rs   the conversation that brings one
//!   place.rs       files, as they come, and a pack of their blobs      tree.rs: never out of the work tree; seen.rs: nothing that nobody was told of
//!   objects.rs     the host's pack                                     crate::git::pack
//!   repository.rs  index, refs and HEAD, last of all                   refs.rs, staged.rs: what the guest has in its index
//!   ledger.rs      what was placed, and how its files looked then
//! changes.rs   the conversation that tells what became of it, by the ledger
//!   ahead.rs       commits, counted
//! ```

mod ahead;
mod changes;
mod ledger;
mod objects;
mod place;
mod prepare;
mod refs;
mod repository;
mod seen;
mod segment;
mod staged;
mod tree;

use std::io;
use std::path::Path;

use crate::guest::Failed;
use crate::guest::wire::Wire;
use crate::proto::workspace::{Changes, Prepare};

/// Where what was placed is remembered in a guest.
pub const LEDGERS: &str = "/var/lib/banger/workspaces";

pub fn prepare(wire: &mut Wire, wanted: &Prepare, ledgers: &Path) -> io::Result<()> {
    prepare::run(wire, wanted, ledgers)
}

pub fn changes(wire: &mut Wire, wanted: &Changes, ledgers: &Path) -> io::Result<()> {
    changes::run(wire, wanted, ledgers)
}

/// Something that is not as it should be, though no call has failed.
fn trouble(tried: impl Into<String>, why: impl Into<String>) -> Failed {
    Failed { tried: tried.into(), source: io::Error::other(why.into()) }
}

#[cfg(test)]
mod tests;
