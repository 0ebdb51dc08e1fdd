//! What the guest has in an index, or has under way, that a prepare must not lose.
//!
//! An index cannot be merged as files are: it is the guest's or the host's. Where the host's says what it said last time, there is nothing to bring, and
//! the guest's stays; else the host's comes, since it belongs to the HEAD that comes with it, and the guest's is kept beside it, as
//! `.git/banger-index-before`, for `GIT_INDEX_FILE`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::git::{Format, Id, index};

/// The longest index that is read, in bytes.
const MAX_INDEX: u64 = 1 << 30;
/// Under which name the first index is kept.
const BEFORE: &str = "banger-index-before";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Stays,
    Goes,
    /// It goes, and is kept.
    Kept,
}

/// What an index says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// There is no index.
    Nothing,
    This(Id),
    /// It is not understood.
    Unknown,
}

/// What is to become of the guest's index. `last`: the host's that was placed last; `force`: what the guest has done is not to stay.
pub fn fate(guest: Said, last: Option<Id>, wanted: Id, force: bool) -> Fate {
    match guest {
        Said::Nothing => Fate::Goes,
        // With what is known of the files that have come.
        Said::This(id) if id == wanted || Some(id) == last => Fate::Goes,
        _ if last == Some(wanted) && !force => Fate::Stays,
        _ => Fate::Kept,
    }
}

pub fn read(path: &Path, format: Format) -> io::Result<Said> {
    // A fifo would be waited for.
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Said::Nothing),
        Err(e) => return Err(e),
        Ok(meta) if !meta.is_file() || meta.len() > MAX_INDEX => return Ok(Said::Unknown),
        Ok(_) => {}
    }
    let mut bytes = vec![];
    File::open(path)?.take(MAX_INDEX).read_to_end(&mut bytes)?;
    Ok(index::digest_of_file(format, &bytes).map_or(Said::Unknown, Said::This))
}

/// Keeps the index under a name of its own, beside those that are kept already.
pub fn keep(git: &Path) -> io::Result<()> {
    let mut number = 1;
    let mut name = BEFORE.to_owned();
    // git never writes into an index, but replaces it.
    while let Err(e) = fs::hard_link(git.join("index"), git.join(&name)) {
        if e.kind() != io::ErrorKind::AlreadyExists {
            return Err(e);
        }
        number += 1;
        name = format!("{BEFORE}-{number}");
    }
    Ok(())
}

/// By which git knows that one of its commands is not done yet, what it calls that, and the command.
const UNDER_WAY: [(&str, &str, &str); 6] = [
    ("rebase-apply/applying", "an am", "am"),
    ("rebase-apply", "a rebase", "rebase"),
    ("rebase-merge", "a rebase", "rebase"),
    ("MERGE_HEAD", "a merge", "merge"),
    ("CHERRY_PICK_HEAD", "a cherry-pick", "cherry-pick"),
    ("REVERT_HEAD", "a revert", "revert"),
];

/// What is under way in a repository, if something is; a sentence.
pub fn under_way(git: &Path) -> Option<String> {
    let (_, what, command) = UNDER_WAY.iter().find(|(name, ..)| git.join(name).exists())?;
    let at = git.parent().unwrap_or(git).display();
    Some(format!("{what} is under way in the guest, in {at}; finish it, or `git {command} --abort`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_goes_unkept_only_if_nothing_is_lost_with_it() {
        let [a, b, c] = [[1; 20], [2; 20], [3; 20]].map(|bytes| Id::from_bytes(&bytes).expect("an id"));
        for (guest, last, wanted, force, fate) in [
            (Said::Nothing, None, b, false, Fate::Goes),
            (Said::Nothing, Some(b), b, false, Fate::Goes),
            (Said::This(a), Some(a), a, false, Fate::Goes),
            (Said::This(a), Some(a), b, false, Fate::Goes),
            (Said::This(b), Some(a), b, false, Fate::Goes),
            (Said::This(b), None, b, false, Fate::Goes),
            (Said::This(c), Some(a), a, false, Fate::Stays),
            (Said::This(c), Some(a), a, true, Fate::Kept),
            (Said::This(c), Some(a), b, false, Fate::Kept),
            (Said::This(c), None, b, false, Fate::Kept),
            (Said::Unknown, Some(a), a, false, Fate::Stays),
            (Said::Unknown, Some(a), b, false, Fate::Kept),
            (Said::Unknown, None, b, false, Fate::Kept),
        ] {
            assert_eq!(
                super::fate(guest, last, wanted, force),
                fate,
                "{guest:?} {last:?} {wanted:?} {force}"
            );
        }
    }
}
