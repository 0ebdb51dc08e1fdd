//! What is sent, what goes, and what stands against it: this host's tree and the guest's ledger, path by path.

use std::collections::{HashMap, HashSet};

use super::stamp::NEVER;
use super::tree::Item;
use crate::git::Mode;
use crate::proto::workspace::{Fate, Held, Present, Record, Wanted};

/// What is done with the wanted paths.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Which of the items are sent, by their places.
    pub sent: Vec<bool>,
    /// Paths that go from the guest.
    pub removed: usize,
    /// Paths that were changed on both sides.
    pub conflicts: Vec<Vec<u8>>,
    /// Paths that were changed on both sides to the same.
    pub agreed: Vec<Vec<u8>>,
    pub untracked: Untracked,
}

/// What becomes of files that were brought, are here, and stay behind now as they are not tracked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Untracked {
    /// Of those that are removed.
    pub left: usize,
    /// Changed in the guest: they are its own from now on.
    pub stayed: usize,
}

/// Compares; `behind` are paths that are here and are not to come. Where stamps differ, `id` is asked which blob the content is.
pub fn compare<E>(
    items: &[Item],
    behind: &[Vec<u8>],
    ledger: &HashMap<Vec<u8>, Record>,
    mut id: impl FnMut(&Item) -> Result<Option<String>, E>,
) -> Result<Changes, E> {
    let mut changes = Changes { sent: vec![true; items.len()], ..Changes::default() };
    let mut found = 0;
    for (at, item) in items.iter().enumerate() {
        let Some(record) = ledger.get(&item.path) else { continue };
        found += 1;
        let stamped = item.stamp != NEVER && item.stamp == record.stamp;
        if record.mode == item.mode && (stamped || matches!(item.mode, Mode::Directory | Mode::Gitlink)) {
            changes.sent[at] = false;
            continue;
        }
        let id = id(item)?;
        let unchanged = record.mode == item.mode && id.as_ref() == Some(&record.id);
        let agreed = !unchanged && is_now(item, id, record.now.as_ref());
        changes.sent[at] = !unchanged && !agreed;
        if agreed {
            changes.agreed.push(item.path.clone());
        } else if !unchanged && record.fate != Fate::Unchanged {
            changes.conflicts.push(item.path.clone());
        }
    }
    if found < ledger.len() {
        let wanted: HashSet<&[u8]> = items.iter().map(|item| &item.path[..]).collect();
        let behind: HashSet<&[u8]> = behind.iter().map(|path| &path[..]).collect();
        for (path, record) in ledger.iter().filter(|(path, _)| !wanted.contains(&path[..])) {
            let behind = behind.contains(&path[..]);
            match record.fate {
                Fate::Unchanged => {
                    changes.removed += 1;
                    changes.untracked.left += usize::from(behind);
                }
                // It is gone on both sides; what is in the guest's directory is looked at by itself.
                Fate::Changed if record.now.as_ref().is_some_and(|now| now.mode == Mode::Directory) => {}
                Fate::Changed if behind => changes.untracked.stayed += 1,
                Fate::Changed => changes.conflicts.push(path.clone()),
                Fate::Deleted => {}
            }
        }
    }
    changes.conflicts.sort();
    Ok(changes)
}

/// Whether an item, of which this is the blob, is what the guest has there now.
pub fn is_now(item: &Item, id: Option<String>, now: Option<&Present>) -> bool {
    now.is_some_and(|now| now.mode == item.mode && id.as_ref() == Some(&now.id))
}

/// The wanted tree, as it is told to the guest.
pub fn wanted(items: &[Item], sent: &[bool], mut put: impl FnMut(&Wanted)) {
    for (item, sent) in items.iter().zip(sent) {
        put(&Wanted { mode: item.mode, stamp: item.stamp, sent: *sent, path: item.path.clone() });
    }
}

/// What becomes of the guest's HEAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// It is set; with `keep`, what it was is kept beside.
    Set { keep: bool },
    /// It stays: something was committed in the guest, and nothing here.
    Stays,
    /// Both moved.
    Torn,
}

/// Decides what becomes of HEAD, which is wanted to be at `head` and `branch`.
pub fn head(held: &Held, head: &str, branch: Option<&str>, force: bool) -> Head {
    let Some(placed) = held.placed.as_ref().filter(|placed| placed.head.is_some() && held.head.is_some())
    else {
        return Head::Set { keep: held.head.is_some() };
    };
    let placed = (placed.head.as_deref(), placed.branch.as_deref());
    moved(placed, (held.head.as_deref(), held.branch.as_deref()), (Some(head), branch), force)
}

/// The same of a submodule, by its path in the work tree.
pub fn head_of_submodule(held: &Held, path: &str, head: &str, branch: Option<&str>, force: bool) -> Head {
    let placed = held.placed.as_ref().and_then(|placed| placed.at(path));
    let now = held.submodules.iter().find(|(moved, at)| moved == path && at.head.is_some());
    let (Some(placed), Some((_, now))) = (placed, now) else { return Head::Set { keep: false } };
    let placed = (placed.head.as_deref(), placed.branch.as_deref());
    moved(placed, (now.head.as_deref(), now.branch.as_deref()), (Some(head), branch), force)
}

/// A commit, and a branch.
type At<'a> = (Option<&'a str>, Option<&'a str>);

fn moved(placed: At<'_>, guest: At<'_>, host: At<'_>, force: bool) -> Head {
    // Both may have come to the same.
    match (guest != placed && guest != host, host != placed, force) {
        (false, _, _) => Head::Set { keep: false },
        (true, false, _) => Head::Stays,
        (true, true, true) => Head::Set { keep: true },
        (true, true, false) => Head::Torn,
    }
}

/// Up to ten of the paths, for a sentence.
pub fn named(paths: &[Vec<u8>]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<_> = paths.iter().take(SHOWN).map(|path| String::from_utf8_lossy(path)).collect();
    match paths.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::proto::workspace::{Placed, Stamp};

    fn item(path: &str, stamp: Stamp) -> Item {
        Item { path: path.into(), mode: Mode::File, stamp, size: 1, mtime: 0, blob: None }
    }

    fn record(path: &str, stamp: Stamp, fate: Fate) -> (Vec<u8>, Record) {
        let id = "placed".to_owned();
        let record = Record { mode: Mode::File, id, stamp, fate, now: None, path: path.into() };
        (path.into(), record)
    }

    #[test]
    fn only_what_changed_here_is_sent_and_what_changed_there_too_is_a_conflict() {
        use Fate::{Changed, Deleted, Unchanged};
        // Stamp in the ledger and fate in the guest; stamp here; whether the content is the same; sent, conflict.
        let table = [
            (7, Unchanged, Some(7), false, false, false),
            (7, Unchanged, Some(8), false, true, false),
            (7, Unchanged, Some(8), true, false, false),
            (7, Changed, Some(7), false, false, false),
            (7, Changed, Some(8), false, true, true),
            (7, Changed, Some(8), true, false, false),
            (7, Deleted, Some(7), false, false, false),
            (7, Deleted, Some(8), false, true, true),
            (NEVER, Unchanged, Some(NEVER), false, true, false),
            (NEVER, Changed, Some(NEVER), true, false, false),
            (7, Unchanged, None, false, false, false),
            (7, Changed, None, false, false, true),
            (7, Deleted, None, false, false, false),
        ];
        for (old, fate, new, content, sent, conflict) in table {
            let ledger = HashMap::from([record("f", old, fate)]);
            let items: Vec<Item> = new.map(|stamp| item("f", stamp)).into_iter().collect();
            let id = if content { "placed" } else { "another" };
            let got = compare::<Infallible>(&items, &[], &ledger, |_| Ok(Some(id.to_owned())))
                .expect("does not fail");
            let case = format!("{old} {fate:?} {new:?} {content}");
            assert_eq!(got.sent, new.map(|_| sent).into_iter().collect::<Vec<_>>(), "{case}");
            assert_eq!(!got.conflicts.is_empty(), conflict, "{case}");
            assert_eq!(got.removed, usize::from(new.is_none() && fate == Unchanged), "{case}");
        }
        let new = compare::<Infallible>(&[item("g", 7)], &[], &HashMap::new(), |_| Ok(None))
            .expect("does not fail");
        assert_eq!(new.sent, [true]);
    }

    #[test]
    fn what_changed_to_the_same_on_both_sides_is_neither_sent_nor_a_conflict() {
        let file = |id: &str| Some((Mode::File, id.to_owned()));
        let directory = Some((Mode::Directory, String::new()));
        // What is in the guest now; what is here; whether it is sent, agreed, a conflict.
        let table = [
            (file("new"), file("new"), false, true, false),
            (file("new"), file("other"), true, false, true),
            (file("new"), file("placed"), false, false, false),
            (file("new"), Some((Mode::Executable, "new".to_owned())), true, false, true),
            (None, file("new"), true, false, true),
            (directory.clone(), file("new"), true, false, true),
            (directory, None, false, false, false),
            (file("new"), None, false, false, true),
        ];
        for (now, here, sent, agreed, conflict) in table {
            let case = format!("{now:?} {here:?}");
            let (path, mut record) = record("f", 7, Fate::Changed);
            record.now = now.map(|(mode, id)| Present { mode, id });
            let items: Vec<Item> =
                here.iter().map(|(mode, _)| Item { mode: *mode, ..item("f", 8) }).collect();
            let id = here.map(|(_, id)| id);
            let ledger = HashMap::from([(path, record)]);
            let got = compare::<Infallible>(&items, &[], &ledger, |_| Ok(id.clone())).expect("does not fail");
            let got = (got.sent == [true], !got.agreed.is_empty(), !got.conflicts.is_empty());
            assert_eq!(got, (sent, agreed, conflict), "{case}");
        }
    }

    #[test]
    fn what_stays_behind_from_now_on_leaves_the_guest_unless_it_was_changed_there() {
        let ledger = HashMap::from([
            record("gone", 7, Fate::Unchanged),
            record("kept", 7, Fate::Unchanged),
            record("changed", 7, Fate::Changed),
            record("deleted", 7, Fate::Deleted),
        ]);
        let behind = ["kept", "changed", "deleted", "never"].map(|path| path.as_bytes().to_vec());
        let got = compare::<Infallible>(&[], &behind, &ledger, |_| Ok(None)).expect("does not fail");
        assert_eq!((got.removed, got.conflicts), (2, vec![]));
        assert_eq!(got.untracked, Untracked { left: 1, stayed: 1 });
    }

    #[test]
    fn what_was_committed_in_the_guest_is_not_lost() {
        // Placed, in the guest now, here now: commit and branch; force.
        let table = [
            (None, None, "am", false, Head::Set { keep: false }),
            (None, Some("xm"), "am", false, Head::Set { keep: true }),
            (Some("am"), Some("am"), "am", false, Head::Set { keep: false }),
            (Some("am"), Some("am"), "bm", false, Head::Set { keep: false }),
            (Some("am"), Some("xm"), "am", false, Head::Stays),
            (Some("am"), Some("an"), "am", true, Head::Stays),
            (Some("am"), Some("xm"), "bm", false, Head::Torn),
            (Some("am"), Some("xm"), "an", false, Head::Torn),
            (Some("am"), Some("xm"), "bm", true, Head::Set { keep: true }),
            (Some("am"), Some("bm"), "bm", false, Head::Set { keep: false }),
            (Some("am"), None, "am", false, Head::Set { keep: false }),
        ];
        let split = |text: &str| (Some(text[..1].to_owned()), Some(text[1..].to_owned()));
        for (placed, there, here, force, want) in table {
            let placed = placed.map(|text| {
                let (head, branch) = split(text);
                Placed { head, branch, ..Placed::default() }
            });
            let (at, on) = there.map_or((None, None), split);
            let held = Held { placed, head: at, branch: on, ..Held::default() };
            assert_eq!(head(&held, &here[..1], Some(&here[1..]), force), want, "{held:?} {here} {force}");
        }
    }

    #[test]
    fn ten_paths_are_named() {
        let paths: Vec<Vec<u8>> = (0..12).map(|n| format!("p{n}").into_bytes()).collect();
        assert_eq!(named(&paths[..2]), "p0, p1");
        assert_eq!(named(&paths), "p0, p1, p2, p3, p4, p5, p6, p7, p8, p9 and 2 more");
    }
}
