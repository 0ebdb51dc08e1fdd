//! What became of a work tree, back out (`proto::workspace`, changes): read, compared, made a patch or a branch of.
//!
//! All of it comes from a guest. This host's git makes the patch, in a repository that has no configuration but ours; the host's own
//! repository is only read, but for the branch that is asked for.
//!
//! | file | idea |
//! |---|---|
//! | listing.rs | the guest's records, as many as there can be, none against another |
//! | scratch.rs | a repository for the moment, beside the host's objects |
//! | ignored.rs | which new files git would ignore |
//! | seen.rs | the three above: what differs |
//! | contents.rs, blobs.rs | what files hold, from a hostile tar stream into objects |
//! | patch.rs | two trees, and git's word on what lies between them |
//! | status.rs | one line for each path |
//! | branch.rs, run.rs | commits, from a hostile pack into a branch |

mod blobs;
mod branch;
mod contents;
mod ignored;
mod listing;
mod patch;
mod run;
mod scratch;
mod seen;
mod status;

#[cfg(test)]
mod tests;

use self::blobs::room;
pub use self::branch::{Branch, feed, only_there};
pub use self::patch::{Base, How, Patch, Unwritten};
pub use self::run::{Ran, run};
pub use self::scratch::Scratch;
pub use self::seen::Origin;
pub use self::status::{Change, Status};
