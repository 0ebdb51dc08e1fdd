//! How far the guest's commits have come from what was brought: read from the objects, without git.

use std::cell::Cell;
use std::collections::HashSet;
use std::path::Path;

use super::ledger::Ledger;
use super::objects::Objects;
use crate::git::history::{parents_of, walk};
use crate::git::pack::Kind;
use crate::git::{Format, Id};
use crate::proto::workspace::Held;

/// How many commits are read for it.
const MOST: usize = 10_000;

/// How many commits HEAD has that were not brought; None: there is no HEAD, or more would have to be read to know it.
pub fn of(top: &Path, ledger: &Ledger, held: &Held) -> Option<usize> {
    let brought = held.placed.as_ref()?.head.as_ref()?;
    between(&top.join(".git/objects"), ledger.header.format, brought, held.head.as_ref()?)
}

fn between(objects: &Path, format: Format, brought: &str, head: &str) -> Option<usize> {
    let mut objects = Objects::open(objects, format).ok()?;
    let (mut left, ended) = (MOST, Cell::new(false));
    let mut parents = |id: &str| {
        left = left.checked_sub(1).ok_or(())?;
        let read = objects.read(&Id::parse(id.as_bytes()).ok_or(())?).map_err(drop)?;
        let parents = read.filter(|(kind, _)| *kind == Kind::Commit).map(|(_, text)| parents_of(&text));
        // A root, or where the history is cut off.
        ended.set(ended.get() || parents.as_ref().is_none_or(Vec::is_empty));
        Ok::<_, ()>(parents)
    };
    let cut = HashSet::from([brought.to_owned()]);
    let mut past = walk(&[head.to_owned()], None, &cut, &mut parents).ok()?.commits;
    past.remove(brought);
    // Where all ways lead to what was brought, none of it lies behind that.
    if ended.get() {
        let before = walk(&[brought.to_owned()], None, &HashSet::new(), &mut parents).ok()?;
        past.retain(|id| !before.commits.contains(id));
    }
    Some(past.len())
}
