//! A work tree that was brought before: what of that still counts.

use std::path::Path;

use super::gather::Gathered;
use super::repository;
use crate::proto::workspace::Held;
use crate::vm::workspace::Workspace;

impl Gathered {
    /// What is remembered of it once it is at `guest_path`.
    pub fn record(&self, guest_path: &str, now: u64) -> Workspace {
        let brought = self.repository.as_ref();
        Workspace {
            guest_path: guest_path.to_owned(),
            source: self.top.to_string_lossy().into_owned(),
            head: brought.map(|brought| brought.read.head.clone()),
            branch: brought.and_then(|brought| brought.read.branch.clone()),
            from: brought.filter(|brought| brought.committed).map(|brought| brought.head.clone()),
            prepared_at: now,
            untracked: self.untracked,
        }
    }

    /// A branch that was made for the guest (--branch) stays its own until another is asked for: as long as the one here is the same, or
    /// for good where it does not begin at what is here (--from).
    pub fn keep_branch(&mut self, known: &Workspace, held: &Held) {
        let (Some(brought), Some(placed)) = (&mut self.repository, &held.placed) else { return };
        let goes_on = brought.committed || brought.read.branch == known.branch;
        if !brought.asked && goes_on && placed.branch.is_some() {
            brought.branch.clone_from(&placed.branch);
        }
    }

    /// Whether it is what was found at `known`'s source.
    pub fn is_of(&self, known: &Workspace) -> bool {
        self.top.to_string_lossy() == known.source
    }

    /// Whether it is what was at `known`'s source, where there is nothing any more: it has the commit that was brought.
    pub fn has_moved_from(&self, known: &Workspace) -> bool {
        let (Some(brought), Some(head)) = (&self.repository, &known.head) else { return false };
        let has =
            || repository::commit(&brought.read.found, head).is_ok_and(|found| found.as_ref() == Some(head));
        std::fs::symlink_metadata(Path::new(&known.source)).is_err() && has()
    }
}
