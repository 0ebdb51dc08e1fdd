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
//! | copied.rs | what they held, where no repository knows it |
//! | patch.rs | two trees, and git's word on what lies between them |
//! | status.rs | one line for each path |
//! | branch.rs, run.rs | commits, from a hostile pack into a branch |

mod blobs;
mod branch;
mod contents;
mod copied;
mod ignored;
mod large;
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
pub use self::copied::hint;
pub use self::patch::{Base, How, Patch, Unwritten};
pub use self::run::{Ran, run};
pub use self::scratch::Scratch;
pub use self::seen::Origin;
pub use self::status::{Change, Status};

/// For tests/fuzz: reads the paths that the guest tells of, and the contents of two of them.
#[cfg(fuzzing)]
pub fn what_a_guest_says_of_its_work_tree(
    guest: std::os::fd::OwnedFd,
) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error>> {
    let mut progress = crate::cli::render::Progress::silent();
    let mut attention = crate::cli::client::Attention::to(&mut progress);
    let mut peer = super::peer::Peer::new(guest, &mut attention);
    let listed = listing::read(&mut peer, super::records::Limits { paths: 1000, bytes: 1 << 20 })?;
    let paths = listed.into_iter().map(|difference| difference.path).collect();
    drop(contents::ask(&mut peer, &[b"a", b"b"], |_, _, size, content| {
        let mut bytes = vec![];
        content
            .read_to_end(&mut bytes)
            .map(|n| assert!(n as u64 <= size))
            .map_err(crate::copy::CopyError::Connection)?;
        Ok(())
    }));
    Ok(paths)
}
