//! A work tree into a guest, and what became of it back out: two conversations of the agent's, each on one connection.
//!
//! Every part that is called a segment is Data frames and one Eof. A refusal in the middle is Failed, as everywhere.
//!
//! **Prepare** (op `prepare`) brings a work tree:
//!
//! | | who | segment |
//! |---|---|---|
//! | 1 | guest | answers [`Held`](crate::proto::agent::Answer::Held): what is there already |
//! | 2 | guest | the ledger, a [`Record`] for each path that the last prepare has placed, empty if there was none |
//! | 3 | host | the [`Order`], one line of JSON |
//! | 4 | host | the wanted tree, a [`Wanted`] for each path; what is in the ledger and not in it goes |
//! | 5 | guest | an [`Obstacle`] for each path that is in the way: it exists, was not placed by a prepare, and is wanted, or is no directory where one is wanted |
//! | 5a | host | only with [`Held::present`]: paths (NUL after each) of which 2 or 5 has told a blob that is the same here. They stay as they are, count as placed, and do not come in 7 |
//! | 6 | host | git's index, as [`crate::git::index::Entry`] writes it; empty without [`Order::repository`]. Then a segment for the index of each of [`Repository::submodules`], depth first, paths relative to that submodule |
//! | 7 | host | a tar stream of the paths that are [`Wanted::sent`] |
//! | 8 | guest | the ids of the blobs that it made of what it was sent, one in a line |
//! | 9 | host | a pack of the objects that the guest lacks, those of submodules too; empty if it lacks none |
//! | 10 | guest | Eof when all of it is on disk; before it, if it had to keep commits, a list of [`Kept`], one line of JSON |
//!
//! After 5 the host hangs up if it does not want to overwrite them. Until 9 has been received whole, HEAD, refs and index stay as they were;
//! files that came in 7 are there, and are in the ledger of the next prepare (whose `placed` is still what it was).
//!
//! A submodule that is in [`Repository::submodules`] has its files in the wanted tree, and is not in it by itself; one that is not checked out is an
//! empty directory of it. In the guest it is a repository of its own (`sub/.git` is a directory) that borrows all objects of the outermost
//! repository (objects/info/alternates).
//!
//! **Changes** (op `changes`) tells how a work tree differs from what was placed, in files, whatever was committed:
//!
//! | | who | segment |
//! |---|---|---|
//! | 1 | guest | answers [`Held`](crate::proto::agent::Answer::Held) |
//! | 2 | guest | a [`Difference`] for each path that differs, and for each `.gitignore`, even if it does not; with [`Changes::all`], for every path |
//! | 3 | host | paths (NUL after each) |
//! | 4 | guest | a tar stream: `old/N` and `new/N`, N counting those paths from 0, each the content of a blob, where there is one |
//!
//! 3 and 4 may be repeated; the host hangs up when it has enough.
//!
//! An agent that is older or newer than the host tells of what is [`Present`] only if both know of it.
//!
//! Paths are bytes, relative to the work tree, and hold no NUL; [`crate::git::parse_path`] refuses those that git would not check out.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::git::{Format, Mode, parse_path};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// Where the work tree is or will be: absolute, in the guest.
    pub path: String,
    /// Tell what is there now of what was changed or is in the way. A host that does not ask for it does not understand it.
    #[serde(default)]
    pub present: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    pub path: String,
    /// Tell of every path, not only of those that differ.
    #[serde(default)]
    pub all: bool,
}

/// What the guest has at the path. All of it is the guest's word.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Held {
    /// What the last prepare placed; None: there was none, or nothing is left of it.
    pub placed: Option<Placed>,
    /// The commit that HEAD is at now; None: no repository, or an unborn branch.
    pub head: Option<String>,
    /// The branch that HEAD is on now, without `refs/heads/`.
    pub branch: Option<String>,
    /// Where HEAD of submodules is now, by path in the work tree, as far as it is not where it was placed.
    #[serde(default)]
    pub submodules: Vec<(String, At)>,
    /// It is told what is there now, as [`Prepare::present`] asks.
    #[serde(default)]
    pub present: bool,
    /// In answer to Changes: how many commits HEAD has that were not brought; None: that is not known.
    #[serde(default)]
    pub ahead: Option<usize>,
}

/// Where HEAD is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct At {
    pub head: Option<String>,
    pub branch: Option<String>,
}

/// A commit that HEAD or a branch was moved away from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The submodule's path in the work tree; empty: the repository's own.
    pub path: String,
    pub id: String,
    /// The ref that leads to it now.
    pub name: String,
}

/// What a prepare placed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Placed {
    /// The commit that HEAD was set to; None: a plain copy.
    pub head: Option<String>,
    pub branch: Option<String>,
    /// Heads of all prepares up to then: with their histories, the guest has these commits.
    #[serde(default)]
    pub heads: Vec<String>,
    /// Its history is cut off at a depth ([`Repository::shallow`]).
    #[serde(default)]
    pub shallow: bool,
    /// Commits whose parents the guest lacks, as its `shallow` file has them now.
    #[serde(default)]
    pub boundary: Vec<String>,
    /// The same of each submodule's repository, by path relative to this one.
    #[serde(default)]
    pub submodules: Vec<(String, Placed)>,
}

impl Placed {
    /// What was placed at a submodule's path in the work tree, or at the empty one.
    pub fn at(&self, path: &str) -> Option<&Self> {
        if path.is_empty() {
            return Some(self);
        }
        self.submodules.iter().find_map(|(below, sub)| match path.strip_prefix(below.as_str())? {
            "" => Some(sub),
            deeper => sub.at(deeper.strip_prefix('/')?),
        })
    }
}

/// What the host wants done beside the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// None: leave HEAD, refs and index as they are, or make no repository (a plain copy).
    pub repository: Option<Repository>,
    /// How objects are named; of a plain copy too.
    #[serde(default)]
    pub format: Format,
}

/// The repository's state after a prepare.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Repository {
    /// The commit that HEAD is at.
    pub head: String,
    /// The branch that HEAD is on, without `refs/heads/`; None: detached.
    pub branch: Option<String>,
    /// Tags by name, without `refs/tags/`, and what they point to.
    #[serde(default)]
    pub tags: Vec<(String, String)>,
    /// Commits whose parents are not there (gitformat-shallow), older ones of [`Placed::boundary`] that still have none included: all of the
    /// `shallow` file; empty: there is none.
    #[serde(default)]
    pub shallow: Vec<String>,
    /// `remote.origin.url`, without credentials.
    #[serde(default)]
    pub origin: Option<String>,
    #[serde(default)]
    pub user_name: Option<String>,
    #[serde(default)]
    pub user_email: Option<String>,
    /// The content of `info/exclude`.
    #[serde(default)]
    pub exclude: String,
    /// Repositories of submodules, whose trees are part of the wanted tree, by path relative to this repository.
    #[serde(default)]
    pub submodules: Vec<(String, Repository)>,
    /// What HEAD and the branch point to in the guest now is kept as `refs/banger/before/N`, of a submodule too, in it, even if a prepare has brought
    /// it. What none has brought is kept always.
    #[serde(default)]
    pub keep_before: bool,
}

/// What identifies the state of a host's file (size, times, inode), as the host computed it when it sent the file. To the guest it means nothing.
pub type Stamp = u128;

/// A line of the ledger: what was placed, and whether the guest still has it so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub mode: Mode,
    /// The blob's id; of a plain copy's files as well. Empty for directories and gitlinks that have none.
    pub id: String,
    pub stamp: Stamp,
    pub fate: Fate,
    /// What has become of it, if it was changed.
    pub now: Option<Present>,
    pub path: Vec<u8>,
}

/// What is at a path of the guest's now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    pub mode: Mode,
    /// Of the blob that it is, or would be; empty for a directory.
    pub id: String,
}

/// A path that is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// None: no file or symlink, or it was not asked for.
    pub now: Option<Present>,
    pub path: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Unchanged,
    Changed,
    Deleted,
}

/// A path of the wanted tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub mode: Mode,
    pub stamp: Stamp,
    /// It comes in the tar stream; else the guest has it from an earlier prepare, and what it has made of it stays.
    pub sent: bool,
    pub path: Vec<u8>,
}

/// How a path differs from what was placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Mode and id as placed; None: it is new.
    pub old: Option<(Mode, String)>,
    /// Mode and size in bytes now; None: it is gone.
    pub new: Option<(Mode, u64)>,
    pub differs: bool,
    pub path: Vec<u8>,
}

/// It is not what the protocol says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord(pub String);

/// The most paths of a work tree.
pub const MAX_PATHS: usize = 4_000_000;
/// The longest [`Order`], in bytes.
pub const MAX_ORDER: usize = 64 << 20;

impl Record {
    /// `mode id stamp fate TAB path NUL`; of what was changed, `mode id` of now behind the fate.
    pub fn write(&self, to: &mut Vec<u8>) {
        let fate = match self.fate {
            Fate::Unchanged => '=',
            Fate::Changed => '~',
            Fate::Deleted => '-',
        };
        let now = self.now.as_ref().map_or(String::new(), |now| format!(" {}", now.words()));
        line(to, &format!("{} {} {:032x} {fate}{now}", self.mode.word(), self.id, self.stamp), &self.path);
    }

    pub fn parse(record: &[u8]) -> Result<Self, BadRecord> {
        let (words, path) = words(record)?;
        let (&[mode, id, stamp, fate], now) = words.split_first_chunk().ok_or_else(|| bad(record))?;
        let fate = match fate {
            b"=" => Fate::Unchanged,
            b"~" => Fate::Changed,
            b"-" => Fate::Deleted,
            _ => return Err(bad(record)),
        };
        let mode = Mode::parse(mode).ok_or_else(|| bad(record))?;
        let now = if now.is_empty() { None } else { Present::parse(now, record)? };
        Ok(Self { mode, id: parse_id(id, record)?, stamp: parse_stamp(stamp, record)?, fate, now, path })
    }
}

impl Present {
    fn words(&self) -> String {
        format!("{} {}", self.mode.word(), self.id)
    }

    fn parse(words: &[&[u8]], record: &[u8]) -> Result<Option<Self>, BadRecord> {
        match words {
            [b"-", b"-"] => Ok(None),
            [mode, id] => {
                let mode = Mode::parse(mode).ok_or_else(|| bad(record))?;
                Ok(Some(Self { mode, id: parse_id(id, record)? }))
            }
            _ => Err(bad(record)),
        }
    }
}

impl Obstacle {
    /// `mode id TAB path NUL`; `- -` in the place of what is not told.
    pub fn write(&self, to: &mut Vec<u8>) {
        line(to, &self.now.as_ref().map_or("- -".to_owned(), Present::words), &self.path);
    }

    pub fn parse(record: &[u8]) -> Result<Self, BadRecord> {
        let (words, path) = words(record)?;
        Ok(Self { now: Present::parse(&words, record)?, path })
    }
}

impl Wanted {
    /// `mode stamp S|K TAB path NUL`.
    pub fn write(&self, to: &mut Vec<u8>) {
        let sent = if self.sent { 'S' } else { 'K' };
        line(to, &format!("{} {:032x} {sent}", self.mode.word(), self.stamp), &self.path);
    }

    pub fn parse(record: &[u8]) -> Result<Self, BadRecord> {
        let ([mode, stamp, sent], path) = fields(record)?;
        let sent = match sent {
            b"S" => true,
            b"K" => false,
            _ => return Err(bad(record)),
        };
        let mode = Mode::parse(mode).ok_or_else(|| bad(record))?;
        Ok(Self { mode, stamp: parse_stamp(stamp, record)?, sent, path })
    }
}

impl Difference {
    /// `mode id mode size D|= TAB path NUL`; `- -` in the place of what is not there.
    pub fn write(&self, to: &mut Vec<u8>) {
        let old = self.old.as_ref().map_or("- -".to_owned(), |(mode, id)| format!("{} {id}", mode.word()));
        let new = self.new.map_or("- -".to_owned(), |(mode, size)| format!("{} {size}", mode.word()));
        line(to, &format!("{old} {new} {}", if self.differs { 'D' } else { '=' }), &self.path);
    }

    pub fn parse(record: &[u8]) -> Result<Self, BadRecord> {
        let ([old_mode, id, new_mode, size, differs], path) = fields(record)?;
        let mode = |word: &[u8]| match word {
            b"-" => Ok(None),
            word => Mode::parse(word).map(Some).ok_or_else(|| bad(record)),
        };
        let old = match mode(old_mode)? {
            None => None,
            Some(mode) => Some((mode, parse_id(id, record)?)),
        };
        let new = match mode(new_mode)? {
            None => None,
            Some(mode) => {
                let size = std::str::from_utf8(size).ok().and_then(|s| s.parse().ok());
                Some((mode, size.ok_or_else(|| bad(record))?))
            }
        };
        let differs = match differs {
            b"D" => true,
            b"=" => false,
            _ => return Err(bad(record)),
        };
        Ok(Self { old, new, differs, path })
    }
}

fn line(to: &mut Vec<u8>, words: &str, path: &[u8]) {
    to.extend_from_slice(words.as_bytes());
    to.push(b'\t');
    to.extend_from_slice(path);
    to.push(0);
}

/// The words before the tab, and the path after it, which is a safe one. `record` is without its NUL.
fn words(record: &[u8]) -> Result<(Vec<&[u8]>, Vec<u8>), BadRecord> {
    let tab = record.iter().position(|b| *b == b'\t').ok_or_else(|| bad(record))?;
    let (words, path) = (&record[..tab], &record[tab + 1..]);
    let path = parse_path(path).map_err(|e| BadRecord(e.to_string()))?.to_vec();
    Ok((words.split(|b| *b == b' ').collect(), path))
}

fn fields<const N: usize>(record: &[u8]) -> Result<([&[u8]; N], Vec<u8>), BadRecord> {
    let (words, path) = words(record)?;
    Ok((<[&[u8]; N]>::try_from(words).map_err(|_| bad(record))?, path))
}

fn bad(record: &[u8]) -> BadRecord {
    let shown = &record[..record.len().min(200)];
    BadRecord(format!("\"{}\" is no record of a work tree", shown.escape_ascii()))
}

/// Lower-case hexadecimal of either format's length, or nothing.
fn parse_id(word: &[u8], record: &[u8]) -> Result<String, BadRecord> {
    let hex = word.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match word.len() {
        0 | 40 | 64 if hex => Ok(String::from_utf8_lossy(word).into_owned()),
        _ => Err(bad(record)),
    }
}

fn parse_stamp(word: &[u8], record: &[u8]) -> Result<Stamp, BadRecord> {
    let text = std::str::from_utf8(word).ok().filter(|text| text.len() == 32);
    text.and_then(|text| Stamp::from_str_radix(text, 16).ok()).ok_or_else(|| bad(record))
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadRecord {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_what_they_were_when_they_are_read() {
        let id = "0123456789abcdef0123456789abcdef01234567".to_owned();
        let path = b"a b/\n\xff".to_vec();
        let record = Record {
            mode: Mode::Symlink,
            id: id.clone(),
            stamp: 7 << 100,
            fate: Fate::Changed,
            now: None,
            path: path.clone(),
        };
        let now = Some(Present { mode: Mode::Executable, id: id.clone() });
        let changed = Record { now: now.clone(), ..record.clone() };
        let directory = Some(Present { mode: Mode::Directory, id: String::new() });
        let replaced = Record { now: directory, ..record.clone() };
        let wanted = Wanted { mode: Mode::Executable, stamp: 1, sent: true, path: path.clone() };
        let new = Difference { old: None, new: Some((Mode::File, 5)), differs: true, path: path.clone() };
        let gone = Difference { old: Some((Mode::File, id)), new: None, differs: true, path: path.clone() };
        let mut bytes = vec![];
        record.write(&mut bytes);
        assert_eq!(bytes.pop(), Some(0));
        assert_eq!(Record::parse(&bytes), Ok(record));
        for record in [changed, replaced] {
            bytes.clear();
            record.write(&mut bytes);
            bytes.pop();
            assert_eq!(Record::parse(&bytes), Ok(record));
        }
        for obstacle in [Obstacle { now, path: path.clone() }, Obstacle { now: None, path: path.clone() }] {
            bytes.clear();
            obstacle.write(&mut bytes);
            bytes.pop();
            assert_eq!(Obstacle::parse(&bytes), Ok(obstacle));
        }
        bytes.clear();
        wanted.write(&mut bytes);
        bytes.pop();
        assert_eq!(Wanted::parse(&bytes), Ok(wanted));
        for difference in [new, gone] {
            bytes.clear();
            difference.write(&mut bytes);
            bytes.pop();
            assert_eq!(Difference::parse(&bytes), Ok(difference));
        }
        for text in ["", "100644", "100644 1 S\ta", "100600 00000000000000000000000000000001 S\ta"] {
            assert!(Wanted::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
