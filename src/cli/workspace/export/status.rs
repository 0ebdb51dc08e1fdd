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
            lines.push(format!(
                "commits: the guest is at {}{branch}; {} was brought",
                short(head),
                short(brought)
            ));
        }
        if let (Some(brought), Some(head)) = (&self.brought, &self.host_head)
            && brought != head
        {
            lines.push(format!("this host has moved on from {} to {}", short(brought), short(head)));
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
    Some(Change { status, path: String::from_utf8_lossy(&d.path).into_owned() })
}
