//! What became of a work tree: the guest's word, without what git would ignore.

use std::path::{Path, PathBuf};

use super::super::error::WorkspaceError;
use super::super::peer::Peer;
use super::super::prepare::Guest;
use super::super::records::Limits;
use super::super::repository;
use super::super::source::{Found, Source};
use super::ignored;
use super::listing;
use super::scratch::Scratch;
use crate::cli::client::Attention;
use crate::git::{Format, Mode};
use crate::host::cmd::git::Patience;
use crate::proto::workspace::{Difference, Held, Placed};
use crate::vm::workspace::Workspace;

/// This host's side of it.
pub struct Origin {
    /// None: a plain copy.
    pub found: Option<Found>,
    /// Where a scratch repository may be made.
    pub cache: PathBuf,
    /// How git is waited for.
    pub patience: Patience,
}

/// Everything that is known, and the connection for asking more.
pub struct Seen<'a, 'b> {
    pub held: Held,
    pub placed: Placed,
    /// Sorted by path; of new ones, those that are not ignored. Files and symlinks only.
    pub differences: Vec<Difference>,
    pub notes: Vec<String>,
    pub scratch: Scratch,
    pub peer: Peer<'a, 'b>,
}

impl Origin {
    /// Finds the repository that `workspace` came from.
    pub fn find(workspace: &Workspace, cache: &Path, patience: Patience) -> Result<Self, WorkspaceError> {
        let found = match workspace.head {
            None => None,
            Some(_) => match Source::find(Path::new(&workspace.source), false, &patience)? {
                Source::Repository(found) => Some(found),
                Source::Plain(_) => None,
            },
        };
        Ok(Self { found, cache: cache.to_owned(), patience })
    }

    /// Hears what the guest says. `known` tells of a new path whether it is to be taken even if it is ignored.
    pub fn see<'a, 'b>(
        &self,
        guest: Guest,
        known: impl Fn(&[u8]) -> bool,
        attention: &'a mut Attention<'b>,
    ) -> Result<Seen<'a, 'b>, WorkspaceError> {
        let Guest { held, connection } = guest;
        let Some(placed) = held.placed.clone() else {
            return WorkspaceError::refused(
                "the guest does not know what was brought to it, so nothing can be compared; `banger vm workspace prepare` brings it anew",
            );
        };
        let format = self.found.as_ref().map_or(Format::Sha1, |found| found.format);
        let objects = self.found.as_ref().map(|found| found.common.join("objects"));
        let scratch = Scratch::make(&self.cache, format, objects.as_deref())?.patient(&self.patience);
        let mut peer = Peer::new(connection, attention);
        let told = listing::read(&mut peer, Limits::WORK_TREE)?;
        let new: Vec<&[u8]> =
            told.iter().filter(|d| is_new(d) && !known(&d.path)).map(|d| &*d.path).collect();
        let mut notes = vec![];
        // A plain copy is not git's: what is in it was brought whatever its .gitignore says.
        let ignored = match &self.found {
            Some(found) => {
                let exclude = repository::exclude(found)?;
                ignored::among(&scratch, &mut peer, &told, &exclude, &new, &mut notes)?
            }
            None => Default::default(),
        };
        let differences = told
            .into_iter()
            .filter(|d| !ignored.contains(&d.path))
            .filter_map(|d| content(d, &mut notes))
            .collect();
        Ok(Seen { held, placed, differences, notes, scratch, peer })
    }
}

/// A path that was not placed, and is something that a patch can hold.
fn is_new(d: &Difference) -> bool {
    d.old.is_none() && d.new.is_some_and(|(mode, _)| is_content(mode))
}

fn is_content(mode: Mode) -> bool {
    matches!(mode, Mode::File | Mode::Executable | Mode::Symlink)
}

/// The part of a difference that git has a blob for; what else it was is worth a word, or none.
fn content(mut d: Difference, notes: &mut Vec<String>) -> Option<Difference> {
    // In the place of a directory too: a submodule that is not checked out here.
    let was_none = !d.old.as_ref().is_some_and(|(mode, _)| is_content(*mode));
    if was_none && d.differs && matches!(d.new, Some((Mode::Gitlink, _))) {
        let path = String::from_utf8_lossy(&d.path);
        notes.push(format!("{path} is a repository of its own and stays in the guest"));
    }
    d.old = d.old.filter(|(mode, _)| is_content(*mode));
    d.new = d.new.filter(|(mode, _)| is_content(*mode));
    (d.old.is_some() || d.new.is_some()).then_some(d)
}
