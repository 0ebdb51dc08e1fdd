//! Whether a name of a commit is the repository's own.
//!
//! A ref may go on to another (symref), and git follows it to whatever has such a name below `.git`: `ORIG_HEAD`, `worktrees/x/HEAD`, `x/y`.
//! That may be a symlink to another repository's. Only what lies in `refs/` has been looked at ([`super::source`]), so it has to end there.

use std::path::Path;

use super::error::WorkspaceError;
use super::source::{Found, elsewhere, stays_beneath};
use crate::host::cmd::CmdError;

/// Refuses where HEAD or a ref goes on to what is not in `refs/`.
pub fn stay_here(found: &Found) -> Result<(), WorkspaceError> {
    // It says of each the last name that it goes on to, and nothing of one that is no symref.
    let ends = found.git.read(&["for-each-ref", "--format=%(symref)"])?;
    let ends = String::from_utf8_lossy(&ends);
    let head = found.git.line(&["symbolic-ref", "--quiet", "HEAD"])?;
    match head.as_deref().into_iter().chain(ends.lines()).find(|end| !end.is_empty() && !is_looked_at(end)) {
        Some(end) => elsewhere(&found.git_dir.join(end)),
        None => Ok(()),
    }
}

/// Refuses where `revision`, which is somebody's word for a commit (gitrevisions), begins with what is not the repository's own.
pub fn begins_here(found: &Found, revision: &str) -> Result<(), WorkspaceError> {
    if revision.contains("@{") {
        found.keeps_its_logs()?;
    }
    let name = revision.split(['~', '^']).next().unwrap_or_default();
    for end in name.match_indices("@{").map(|(at, _)| at).chain([name.len()]).filter(|end| *end > 0) {
        match found.git.read(&["rev-parse", "--symbolic-full-name", "--end-of-options", &name[..end]]) {
            Ok(told) => {
                // It may repeat the option; there is no more where it is no name of a ref.
                let told = String::from_utf8_lossy(&told);
                for full in told.lines().filter(|full| *full != "--end-of-options" && !is_looked_at(full)) {
                    if !is_root_ref(full) {
                        return elsewhere(&found.git_dir.join(full));
                    }
                    stays_beneath(&found.git_dir, Path::new(full))?;
                }
            }
            Err(CmdError::Failed { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn is_looked_at(full: &str) -> bool {
    full == "HEAD" || full.starts_with("refs/")
}

/// FETCH_HEAD and the like.
fn is_root_ref(full: &str) -> bool {
    full.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
}
