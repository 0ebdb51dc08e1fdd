//! What the guest says of its work tree: as much as a work tree can have, each path once, and none below a file.

use std::collections::HashSet;

use super::super::error::WorkspaceError;
use super::super::peer::Peer;
use super::super::records::{self, Limits};
use crate::git::Mode;
use crate::proto::workspace::Difference;

/// Reads the guest's differences, sorted by path.
///
/// # Errors
/// A sentence for a guest that says too much, or what cannot be.
pub fn read(peer: &mut Peer<'_, '_>, limits: Limits) -> Result<Vec<Difference>, WorkspaceError> {
    let mut differences = vec![];
    records::each(peer, limits, |record| {
        differences.push(Difference::parse(record).map_err(|e| not_to_be_trusted(&e.to_string()))?);
        Ok(())
    })?;
    differences.sort_by(|a, b| a.path.cmp(&b.path));
    coherent(&differences)?;
    Ok(differences)
}

fn not_to_be_trusted(why: &str) -> WorkspaceError {
    WorkspaceError::Refused(format!("what the guest says of its work tree is not accepted: {why}"))
}

/// Whether a tree can be made of what was, and one of what is.
fn coherent(differences: &[Difference]) -> Result<(), WorkspaceError> {
    if let Some(pair) = differences.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Err(not_to_be_trusted(&format!("it tells twice of \"{}\"", pair[0].path.escape_ascii())));
    }
    let holds = |mode: Mode| matches!(mode, Mode::File | Mode::Executable | Mode::Symlink);
    let sides: [fn(&Difference) -> Option<Mode>; 2] =
        [|d| d.old.as_ref().map(|(mode, _)| *mode), |d| d.new.map(|(mode, _)| mode)];
    for side in sides {
        let there = differences.iter().filter(|d| side(d).is_some_and(holds));
        let files: HashSet<&[u8]> = there.clone().map(|d| &*d.path).collect();
        for d in there {
            let above = d.path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| &d.path[..at]);
            if let Some(file) = above.into_iter().find(|above| files.contains(above)) {
                return Err(not_to_be_trusted(&format!(
                    "\"{}\" cannot be there, since \"{}\" is no directory",
                    d.path.escape_ascii(),
                    file.escape_ascii()
                )));
            }
        }
    }
    Ok(())
}
