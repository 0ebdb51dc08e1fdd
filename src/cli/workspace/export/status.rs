//! What became of a work tree, in words: a letter for each path, where HEAD went, here and there.

use serde::Serialize;

use super::super::error::WorkspaceError;
use super::super::prepare::Guest;
use super::super::repository;
use super::seen::{Origin, Seen};
use crate::cli::client::Attention;
use crate::git::Mode;
use crate::proto::workspace::Difference;

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    pub guest_path: String,
    pub source: String,
    /// The commit that was brought; None: a plain copy.
    pub brought: Option<String>,
    /// Where the guest's HEAD is now.
    pub guest_head: Option<String>,
    pub guest_branch: Option<String>,
    /// How many commits that has that were not brought; None: nobody knows.
    pub guest_commits: Option<usize>,
    /// Where the host's HEAD is now.
    pub host_head: Option<String>,
    pub changes: Vec<Change>,
    #[serde(skip)]
    pub notes: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `A`, `M`, `D` or `T`, as git has them.
    pub status: char,
    /// What is no UTF-8 of it is lost.
    pub path: String,
    /// As git writes them; None: it was not there, or is not any more.
    pub old_mode: Option<&'static str>,
    pub new_mode: Option<&'static str>,
}

impl Change {
    pub fn new(status: char, path: &[u8], old: Option<Mode>, new: Option<Mode>) -> Self {
        let path = String::from_utf8_lossy(path).into_owned();
        Self { status, path, old_mode: old.map(Mode::word), new_mode: new.map(Mode::word) }
    }
}

impl Status {
    pub fn of(
        guest_path: &str,
        source: &str,
        origin: &Origin,
        guest: Guest,
        attention: &mut Attention<'_>,
    ) -> Result<Self, WorkspaceError> {
        let host_head = match &origin.found {
            Some(found) => repository::commit(found, "HEAD")?,
            None => None,
        };
        let Seen { held, placed, differences, notes, .. } = origin.see(guest, |_| false, attention)?;
        Ok(Self {
            guest_path: guest_path.to_owned(),
            source: source.to_owned(),
            brought: placed.head,
            guest_head: held.head,
            guest_branch: held.branch,
            guest_commits: held.ahead,
            host_head,
            changes: differences.iter().filter_map(change).collect(),
            notes,
        })
    }

    /// A line for each thing worth one.
    pub fn lines(&self) -> Vec<String> {
        let short = |id: &str| id.get(..7).unwrap_or(id).to_owned();
        let mut lines = vec![];
        if let (Some(brought), Some(head)) = (&self.brought, &self.guest_head)
            && brought != head
        {
            let branch = self.guest_branch.as_ref().map_or(String::new(), |branch| format!(", on {branch}"));
            let (head, brought) = (short(head), short(brought));
            lines.push(match self.guest_commits {
                None | Some(0) => format!("commits: the guest is at {head}{branch}; {brought} was brought"),
                Some(1) => format!("commits: the guest is at {head}{branch}, 1 commit past {brought}, which was brought"),
                Some(n) => {
                    format!("commits: the guest is at {head}{branch}, {n} commits past {brought}, which was brought")
                }
            });
        }
        if let (Some(brought), Some(head)) = (&self.brought, &self.host_head)
            && brought != head
        {
            lines.push(format!("this host is at {}, and {} was brought", short(head), short(brought)));
        }
        lines.extend(self.changes.iter().map(|change| format!("{}  {}", change.status, change.path)));
        lines
    }
}

fn change(d: &Difference) -> Option<Change> {
    let is_link = |mode: Mode| mode == Mode::Symlink;
    let status = match (&d.old, d.new) {
        _ if !d.differs => return None,
        (None, None) => return None,
        (None, Some(_)) => 'A',
        (Some(_), None) => 'D',
        (Some((old, _)), Some((new, _))) if is_link(*old) != is_link(new) => 'T',
        (Some(_), Some(_)) => 'M',
    };
    Some(Change::new(status, &d.path, d.old.as_ref().map(|(mode, _)| *mode), d.new.map(|(mode, _)| mode)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_counted_where_their_number_is_known() {
        let said = |head: &str, commits| {
            let status = Status {
                guest_path: "/root/repo".to_owned(),
                source: "/repo".to_owned(),
                brought: Some("0123456789".to_owned()),
                guest_head: Some(head.to_owned()),
                guest_branch: Some("main".to_owned()),
                guest_commits: commits,
                host_head: None,
                changes: vec![],
                notes: vec![],
            };
            status.lines().join("\n")
        };
        assert_eq!(said("0123456789", Some(0)), "");
        for (commits, want) in [
            (None, "commits: the guest is at fedcba9, on main; 0123456 was brought"),
            (Some(0), "commits: the guest is at fedcba9, on main; 0123456 was brought"),
            (Some(1), "commits: the guest is at fedcba9, on main, 1 commit past 0123456, which was brought"),
            (
                Some(12),
                "commits: the guest is at fedcba9, on main, 12 commits past 0123456, which was brought",
            ),
        ] {
            assert_eq!(said("fedcba9876", commits), want);
        }
    }
}
