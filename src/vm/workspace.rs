//! A work tree that was brought into a VM.

use serde::{Deserialize, Serialize};

/// What is remembered of it on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    /// Absolute, in the guest.
    pub guest_path: String,
    /// Absolute, on the host. What is no UTF-8 of it is lost: it is for people, and for finding it again.
    pub source: String,
    /// The commit that the host's HEAD was at; None: a plain copy.
    pub head: Option<String>,
    pub branch: Option<String>,
    /// The commit that was asked for (--from), whose files were brought; None: what was on disk.
    #[serde(default)]
    pub from: Option<String>,
    /// Seconds since 1970.
    pub prepared_at: u64,
    /// Untracked files were brought too.
    #[serde(default)]
    pub untracked: bool,
}

/// `list` with `workspace` as its last, in the place of an earlier one at the same path.
pub fn remember(mut list: Vec<Workspace>, workspace: Workspace) -> Vec<Workspace> {
    list.retain(|known| known.guest_path != workspace.guest_path);
    list.push(workspace);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_was_brought_last_is_the_last() {
        let at = |path: &str, at| Workspace {
            guest_path: path.to_owned(),
            source: "/src".to_owned(),
            head: None,
            branch: None,
            from: None,
            prepared_at: at,
            untracked: false,
        };
        let list = remember(remember(remember(vec![], at("/root/a", 1)), at("/root/b", 2)), at("/root/a", 3));
        let paths: Vec<(&str, u64)> = list.iter().map(|w| (w.guest_path.as_str(), w.prepared_at)).collect();
        assert_eq!(paths, [("/root/b", 2), ("/root/a", 3)]);
    }
}
