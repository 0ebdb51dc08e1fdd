//! What the guest says of its work tree: as much as a work tree can have, each path once, and none below a file.

use std::collections::HashSet;

use super::super::error::WorkspaceError;
use super::super::peer::Peer;
use crate::git::{MAX_PATH, Mode};
use crate::proto::workspace::{Difference, MAX_PATHS};

/// The longest record: its path, two modes, an id, a size.
const MAX_RECORD: usize = MAX_PATH + 256;

/// How much is taken from a guest.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub paths: usize,
    /// Of all records together.
    pub bytes: usize,
}

impl Limits {
    pub const WORK_TREE: Self = Self { paths: MAX_PATHS, bytes: 1 << 30 };
}

/// Reads the guest's differences, sorted by path.
///
/// # Errors
/// A sentence for a guest that says too much, or what cannot be.
pub fn read(peer: &mut Peer<'_, '_>, limits: Limits) -> Result<Vec<Difference>, WorkspaceError> {
    let (mut differences, mut begun, mut total) = (vec![], vec![], 0);
    while let Some(piece) = peer.piece()? {
        total += piece.len();
        if total > limits.bytes {
            return too_much();
        }
        let mut parts = piece.split(|b| *b == 0).peekable();
        while let Some(part) = parts.next() {
            begun.extend_from_slice(part);
            if begun.len() > MAX_RECORD {
                return WorkspaceError::refused("the guest tells of a path that is longer than paths can be");
            }
            if parts.peek().is_none() {
                // No NUL behind it yet.
                break;
            }
            if differences.len() == limits.paths {
                return too_much();
            }
            differences.push(Difference::parse(&begun).map_err(|e| not_to_be_trusted(&e.to_string()))?);
            begun.clear();
        }
    }
    if !begun.is_empty() {
        return WorkspaceError::refused("the guest broke off in the middle of a path");
    }
    differences.sort_by(|a, b| a.path.cmp(&b.path));
    coherent(&differences)?;
    Ok(differences)
}

fn too_much<T>() -> Result<T, WorkspaceError> {
    WorkspaceError::refused("the guest tells of more paths than a work tree can have; nothing was made of it")
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
