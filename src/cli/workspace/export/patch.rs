//! A patch of what became of a work tree: two trees of the scratch repository, and what git says lies between them.
//!
//! Only paths that differ are in the trees, so what did not change is neither sent nor looked at.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Stdio;

use super::super::error::WorkspaceError;
use super::super::index;
use super::super::prepare::Guest;
use super::super::repository;
use super::blobs::Blobs;
use super::contents::{self, ask};
use super::copied::{self, Now};
use super::large::{self, Large, Side};
use super::scratch::Scratch;
use super::seen::{Origin, Seen};
use super::status::Change;
use crate::cli::client::Attention;
use crate::copy::CopyError;
use crate::git::{Mode, parse_path};
use crate::host::cmd::git::Running;
use crate::host::cmd::{CmdError, used_up};
use crate::proto::workspace::{Difference, Placed};

/// Nothing that is named anywhere is run for it.
const COMPARE: [&str; 6] =
    ["diff-tree", "-r", "--no-renames", "--no-textconv", "--no-ext-diff", "--no-color"];

/// Between two trees.
pub struct Patch {
    scratch: Scratch,
    base: String,
    new: String,
    /// What lies between them, path by path; nothing if it is compared with a commit.
    compared: Vec<(Difference, Made)>,
    pub notes: Vec<String>,
}

/// What is shown of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Patch,
    Stat,
    Names,
}

/// How much longer a file may have become since the guest told of it, in bytes.
const GROWTH: u64 = 64 << 20;

/// The commit of the host's repository that everything is to be compared with.
#[derive(Debug)]
pub struct Base {
    commit: String,
    paths: HashSet<Vec<u8>>,
    submodules: Vec<(String, Vec<u8>)>,
}

impl Base {
    pub fn find(origin: &Origin, named: &str) -> Result<Self, WorkspaceError> {
        let Some(found) = &origin.found else {
            return WorkspaceError::refused("a plain copy has no commits; leave --base-commit out");
        };
        let Some(commit) = repository::commit(found, named)? else {
            return WorkspaceError::refused(format!(
                "{} has no commit {named:?}; the guest's own commits come here with --as-branch",
                found.top.display()
            ));
        };
        let listed = found.git.read(&["ls-tree", "-r", "-z", "--full-tree", &commit])?;
        let entries = index::parse_tree(&listed, found.format)?;
        let mut base = Self { commit, paths: HashSet::new(), submodules: vec![] };
        for entry in entries {
            match entry.mode {
                Mode::Gitlink => base.submodules.push((entry.id.to_string(), entry.path)),
                _ => drop(base.paths.insert(entry.path)),
            }
        }
        Ok(base)
    }
}

impl Patch {
    /// Makes it, from what was placed, or from `base`; then the guest was asked for all of its paths.
    pub fn make(
        origin: &Origin,
        guest: Guest,
        base: Option<&Base>,
        attention: &mut Attention<'_>,
    ) -> Result<Self, WorkspaceError> {
        let known = |path: &[u8]| base.is_some_and(|base| base.paths.contains(path));
        let mut seen = origin.see(guest, known, attention)?;
        let submodules = base.map_or(&[][..], |base| &base.submodules);
        if let Some(base) = base {
            leave_out_submodules(&mut seen, base);
        }
        if base.is_none() {
            seen.differences.retain(|d| d.differs);
        }
        let made = match (&origin.found, base) {
            (Some(_), None) => made(&mut seen, Old::Guest)?,
            (Some(_), Some(_)) => made(&mut seen, Old::Commit)?,
            (None, _) => {
                let now = copied::read(&origin.top, &origin.patience, &seen.scratch, &seen.differences)?;
                let made = made(&mut seen, Old::Copied(&now))?;
                unless_settled(&mut seen, made, &now, &origin.top)?
            }
        };
        let Seen { differences, notes, scratch, .. } = seen;
        let compared: Vec<(Difference, Made)> = differences.into_iter().zip(made).collect();
        // What is a file now holds no submodule any more.
        let files: HashSet<&[u8]> =
            compared.iter().filter(|(d, _)| d.new.is_some()).map(|(d, _)| &*d.path).collect();
        let kept = submodules.iter().filter(|(_, path)| !at_and_above(path).any(|path| files.contains(path)));
        let kept = kept.map(|(id, path)| (Mode::Gitlink, id.as_str(), &**path));
        let new = tree(&scratch, "after", after(&compared).chain(kept))?;
        drop(files);
        let (base, compared) = match base {
            Some(base) => (tree_of(&scratch, &base.commit)?, vec![]),
            None => (tree(&scratch, "before", before(&compared))?, compared),
        };
        Ok(Self { scratch, base, new, compared, notes })
    }

    pub fn is_empty(&self) -> bool {
        self.base == self.new
    }

    /// What it changes, path by path.
    pub fn changes(&self) -> Result<Vec<Change>, WorkspaceError> {
        let args = [&COMPARE, &["--raw", "-z"][..], &[&self.base, &self.new]].concat();
        let told = self.scratch.git.read(&args)?;
        parse_raw(&told)
            .map_or_else(|| WorkspaceError::refused("what git says of the differences is not understood"), Ok)
    }

    /// Writes it to `to`.
    ///
    /// # Errors
    /// [`Unwritten::To`] is `to`'s own.
    pub fn write(&self, how: How, to: &mut dyn Write) -> Result<(), Unwritten> {
        let small = match how {
            How::Patch => self.write_larges(to)?,
            How::Stat | How::Names => None,
        };
        let (base, new) = small.as_ref().map_or((&self.base, &self.new), |(base, new)| (base, new));
        let how: &[&str] = match how {
            How::Patch => &["-p", "--binary", "--full-index"],
            How::Stat => &["--stat", "--summary"],
            How::Names => &["--name-only"],
        };
        let args = [&COMPARE, how, &[base, new]].concat();
        let mut git = self.scratch.git.start(&args, Stdio::null()).map_err(WorkspaceError::from)?;
        let mut buffer = vec![0; 64 * 1024];
        let mut stdout = git.stdout.take();
        let moved = loop {
            match stdout.as_mut().map_or(Ok(0), |stdout| stdout.read(&mut buffer)) {
                Ok(0) => break Ok(()),
                Ok(n) => to.write_all(&buffer[..n]).map_err(Unwritten::To)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        Ok(git.finish_after(moved).map_err(not_compared)?)
    }

    /// Writes what git makes no patch of, and returns the trees without it; None: there is nothing of that kind.
    fn write_larges(&self, to: &mut dyn Write) -> Result<Option<(String, String)>, Unwritten> {
        let large = larges(&self.scratch, &self.compared)?;
        if large.is_empty() {
            return Ok(None);
        }
        // Ahead of git's: one that leaves makes room for what git brings there.
        large.iter().try_for_each(|large| self.write_large(large, to))?;
        let paths: HashSet<&[u8]> = large.iter().map(|large| &*large.path).collect();
        let small = |(_, _, path): &Entry<'_>| !paths.contains(path);
        let before = tree(&self.scratch, "before-small", before(&self.compared).filter(small))?;
        let after = tree(&self.scratch, "after-small", after(&self.compared).filter(small))?;
        Ok(Some((before, after)))
    }

    fn write_large(&self, large: &Large, to: &mut dyn Write) -> Result<(), Unwritten> {
        let open = |side: &Option<Side>| -> Result<Option<Running>, WorkspaceError> {
            let Some(side) = side else { return Ok(None) };
            Ok(Some(self.scratch.git.start(&["cat-file", "blob", &side.id], Stdio::null())?))
        };
        let (mut old, mut new) = (open(&large.old)?, open(&large.new)?);
        let take = |git: &mut Option<Running>| -> Box<dyn Read> {
            match git.as_mut().and_then(|git| git.stdout.take()) {
                Some(stdout) => Box::new(stdout),
                None => Box::new(io::empty()),
            }
        };
        let written = large.write(&mut take(&mut old), &mut take(&mut new), to);
        match written {
            // The old one may not have been read to its end.
            Ok(()) => Ok(new.map_or(Ok(()), Running::finish).map_err(WorkspaceError::from)?),
            Err(large::Failed::To(e)) => Err(Unwritten::To(e)),
            Err(large::Failed::From(e)) if e.kind() == io::ErrorKind::FileTooLarge => {
                Err(not_large(large, "differs in more than a patch takes").into())
            }
            Err(large::Failed::From(e)) => {
                Err(WorkspaceError::here("read from git in", &self.scratch.tree())(e).into())
            }
        }
    }
}

fn not_large(large: &Large, why: &str) -> WorkspaceError {
    let path = String::from_utf8_lossy(&large.path);
    WorkspaceError::Refused(format!("{path} {why}; `banger vm cp` copies files as they are"))
}

/// What is too large for git to compare.
fn larges(scratch: &Scratch, compared: &[(Difference, Made)]) -> Result<Vec<Large>, WorkspaceError> {
    let ids: BTreeSet<&str> =
        compared.iter().flat_map(|(_, made)| [&*made.old, &*made.new]).filter(|id| !id.is_empty()).collect();
    if ids.is_empty() {
        return Ok(vec![]);
    }
    let input: String = ids.iter().flat_map(|id| [*id, "\n"]).collect();
    let said =
        scratch.git.read_fed(&["cat-file", "--batch-check=%(objectname) %(objectsize)"], input.as_bytes())?;
    let said = String::from_utf8_lossy(&said);
    let sizes: HashMap<&str, u64> = said
        .lines()
        .filter_map(|line| line.split_once(' ').and_then(|(id, size)| Some((id, size.parse().ok()?))))
        .collect();
    let side = |mode: Mode, id: &str| Some(Side { mode, id: id.to_owned(), size: *sizes.get(id)? });
    let mut found = vec![];
    for (d, made) in compared {
        let old = d.old.as_ref().and_then(|(mode, _)| side(*mode, &made.old));
        let new = d.new.and_then(|(mode, _)| side(mode, &made.new));
        if Large::is_one(old.as_ref(), new.as_ref()) {
            found.push(Large { path: d.path.clone(), old, new });
        }
    }
    match found.iter().find_map(|large| Some((large, large.refused()?))) {
        None => Ok(found),
        Some((large, why)) => Err(not_large(large, why)),
    }
}

/// Parses `:mode mode id id status NUL path NUL` (git-diff-tree(1), raw output format). None: it is something else.
fn parse_raw(told: &[u8]) -> Option<Vec<Change>> {
    let mut changes = vec![];
    let mut words = told.split(|b| *b == 0);
    while let Some(line) = words.next().filter(|line| !line.is_empty()) {
        let line: Vec<&[u8]> = line.strip_prefix(b":")?.split(|b| *b == b' ').collect();
        let [old, new, _, _, [status, ..]] = line[..] else { return None };
        let mode = |word| if word == b"000000" { Some(None) } else { Mode::listed(word).map(Some) };
        changes.push(Change::new(char::from(*status), words.next()?, mode(old)?, mode(new)?));
    }
    Some(changes)
}

/// git may have only so much memory and time ([`crate::host::cmd::git::Git::alone`]), and what it says when it has no more helps nobody.
fn not_compared(e: CmdError) -> WorkspaceError {
    let (program, lacks) = match &e {
        CmdError::Failed { program, status, .. } if used_up(*status) => (program, "time".to_owned()),
        CmdError::Failed { program, stderr, .. } if stderr.to_lowercase().contains("memory") => {
            (program, format!("memory ({stderr})"))
        }
        _ => return e.into(),
    };
    WorkspaceError::Refused(format!(
        "{program} has not enough {lacks} to compare what differs; `banger vm cp` copies files as they are"
    ))
}

/// Why a patch was not written whole.
#[derive(Debug)]
pub enum Unwritten {
    Not(WorkspaceError),
    To(io::Error),
}

impl From<WorkspaceError> for Unwritten {
    fn from(e: WorkspaceError) -> Self {
        Self::Not(e)
    }
}

/// A commit holds of a submodule which commit it is at; what is in it is another repository's.
fn leave_out_submodules(seen: &mut Seen<'_, '_>, base: &Base) {
    let known: HashSet<&[u8]> = base.submodules.iter().map(|(_, top)| &**top).collect();
    let newer = newer(&seen.placed, base);
    let mut told = BTreeSet::new();
    seen.differences.retain(|d| {
        let top = at_and_above(&d.path).find(|path| known.contains(path) || newer.contains(*path));
        if let Some(top) = top
            && (d.differs || newer.contains(top))
        {
            told.insert(top.to_vec());
        }
        top.is_none()
    });
    for top in told {
        let what = if newer.contains(&top) { "the submodule" } else { "what was changed in the submodule" };
        let top = String::from_utf8_lossy(&top);
        seen.notes.push(format!("{what} {top} is left out; without --base-commit it is not"));
    }
}

/// The submodules that were placed, by the guest's word, and that `base` is too old to know. Where it has files of its own at such a path,
/// they are compared as the files that they were.
fn newer(placed: &Placed, base: &Base) -> HashSet<Vec<u8>> {
    let mut newer: HashSet<Vec<u8>> =
        placed.submodules.iter().map(|(path, _)| path.as_bytes().to_vec()).collect();
    newer.retain(|path| parse_path(path).is_ok());
    let known = base.paths.iter().chain(base.submodules.iter().map(|(_, path)| path));
    for path in known.flat_map(|path| at_and_above(path)) {
        newer.remove(path);
    }
    newer
}

/// The directories that `path` is in, from the top, and itself.
fn at_and_above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let above = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| &path[..at]);
    above.chain(std::iter::once(path))
}

/// The ids of the blobs of a path; empty where there is none.
#[derive(Debug, Default, Clone)]
struct Made {
    old: String,
    new: String,
}

/// Who knows what was placed at a path.
#[derive(Clone, Copy)]
enum Old<'a> {
    /// The guest, in its repository, as far as this host does not have it in its own.
    Guest,
    /// Nobody need: it is compared with a commit.
    Commit,
    /// This host's file, if it is still the same.
    Copied(&'a [Now]),
}

/// Makes a blob of each content that this host does not have.
fn made(seen: &mut Seen<'_, '_>, from: Old<'_>) -> Result<Vec<Made>, WorkspaceError> {
    let Seen { differences, scratch, .. } = seen;
    let here = match from {
        Old::Guest | Old::Commit => blobs_here(scratch, differences)?,
        Old::Copied(_) => HashSet::new(),
    };
    let mut made = vec![Made::default(); differences.len()];
    let mut asked = vec![];
    for (at, d) in differences.iter().enumerate() {
        let is_here = |id: &&String| match from {
            Old::Guest | Old::Commit => here.contains(*id),
            Old::Copied(now) => now[at].as_ref().is_some_and(|(_, now)| now == *id),
        };
        let old = d.old.as_ref().map(|(_, id)| id).filter(is_here);
        if let Some(id) = old {
            made[at].old.clone_from(id);
            if !d.differs {
                made[at].new.clone_from(id);
            }
        }
        let lacks_old = matches!(from, Old::Guest) && d.old.is_some() && made[at].old.is_empty();
        if lacks_old || (d.new.is_some() && made[at].new.is_empty()) {
            asked.push(at);
        }
    }
    if !asked.is_empty() {
        receive(seen, &asked, &mut made, matches!(from, Old::Guest))?;
    }
    for (d, made) in seen.differences.iter().zip(&made) {
        let path = String::from_utf8_lossy(&d.path);
        if matches!(from, Old::Guest) && d.old.is_some() && made.old.is_empty() {
            return WorkspaceError::refused(format!(
                "nobody has any more what {path} was when it was brought, so no patch can be made; `banger vm cp` copies it as it is now"
            ));
        }
        if d.new.is_some() && made.new.is_empty() {
            return WorkspaceError::refused(format!(
                "{path} was changed in the guest while it was read; try again"
            ));
        }
    }
    Ok(made)
}

/// Leaves out what is on this host as it is in the guest by now: of that there is nothing to bring.
///
/// # Errors
/// A sentence if anything else is neither as it was brought nor so.
fn unless_settled(
    seen: &mut Seen<'_, '_>,
    made: Vec<Made>,
    now: &[Now],
    top: &Path,
) -> Result<Vec<Made>, WorkspaceError> {
    let (mut kept, mut left, mut changed) = (vec![], vec![], vec![]);
    let all = std::mem::take(&mut seen.differences);
    let count = all.len();
    for ((d, made), now) in all.into_iter().zip(made).zip(now) {
        let now = now.as_ref().map(|(mode, id)| (*mode, id));
        if now == d.new.map(|(mode, _)| (mode, &made.new)) {
            continue;
        }
        if d.old.is_some() && made.old.is_empty() {
            changed.push(d.path);
            continue;
        }
        kept.push(d);
        left.push(made);
    }
    if !changed.is_empty() {
        return copied::refuse(top, &changed);
    }
    match count - kept.len() {
        0 => {}
        1 => seen.notes.push(format!("1 path is in {} as it is in the guest, and left out", top.display())),
        n => seen
            .notes
            .push(format!("{n} paths are in {} as they are in the guest, and left out", top.display())),
    }
    seen.differences = kept;
    Ok(left)
}

fn receive(
    seen: &mut Seen<'_, '_>,
    asked: &[usize],
    made: &mut [Made],
    with_old: bool,
) -> Result<(), WorkspaceError> {
    let Seen { differences, scratch, peer, .. } = seen;
    let mut blobs = Blobs::start(scratch)?;
    // Before any of it comes.
    let mut told = blobs.room;
    for at in asked.iter().copied().filter(|at| made[*at].new.is_empty()) {
        let d = &differences[at];
        if let Some((_, size)) = d.new {
            told.take(&String::from_utf8_lossy(&d.path), size, &scratch.git_dir())?;
        }
    }
    let mut added = vec![];
    let paths: Vec<&[u8]> = asked.iter().map(|at| &*differences[*at].path).collect();
    peer.stage(format!("receiving {} files", paths.len()), 0);
    ask(peer, &paths, |side, number, size, content| {
        let at = asked[number];
        let d = &differences[at];
        let name = String::from_utf8_lossy(&d.path);
        let wanted = match side {
            contents::Side::Old => with_old && d.old.is_some() && made[at].old.is_empty(),
            contents::Side::New => d.new.is_some() && made[at].new.is_empty(),
        };
        if !wanted {
            return Ok(());
        }
        if let (contents::Side::New, Some((_, told))) = (side, d.new)
            && size > told.saturating_add(GROWTH)
        {
            return WorkspaceError::refused(format!("{name} is much longer than the guest said"));
        }
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::UnexpectedEof => CopyError::Stream { why: format!("{name} breaks off") }.into(),
            _ => CopyError::Connection(e).into(),
        };
        added.push((side, at, blobs.add(&name, size, content, failed)?));
        Ok(())
    })?;
    let ids = blobs.finish()?;
    for (side, at, number) in added {
        let slot = match side {
            contents::Side::Old => &mut made[at].old,
            contents::Side::New => &mut made[at].new,
        };
        slot.clone_from(&ids[number]);
    }
    Ok(())
}

/// Which of the blobs that were placed this host has.
fn blobs_here(scratch: &Scratch, differences: &[Difference]) -> Result<HashSet<String>, WorkspaceError> {
    let ids: HashSet<&str> = differences
        .iter()
        .filter_map(|d| d.old.as_ref())
        .map(|(_, id)| id.as_str())
        .filter(|id| !id.is_empty())
        .collect();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let input: String = ids.iter().flat_map(|id| [*id, "\n"]).collect();
    let said =
        scratch.git.read_fed(&["cat-file", "--batch-check=%(objectname) %(objecttype)"], input.as_bytes())?;
    let said = String::from_utf8_lossy(&said);
    Ok(said.lines().filter_map(|line| line.strip_suffix(" blob")).map(str::to_owned).collect())
}

/// Of a tree: mode, id, path.
type Entry<'a> = (Mode, &'a str, &'a [u8]);

fn before(compared: &[(Difference, Made)]) -> impl Iterator<Item = Entry<'_>> {
    compared.iter().filter_map(|(d, made)| Some((d.old.as_ref()?.0, &*made.old, &*d.path)))
}

fn after(compared: &[(Difference, Made)]) -> impl Iterator<Item = Entry<'_>> {
    compared.iter().filter_map(|(d, made)| Some((d.new?.0, &*made.new, &*d.path)))
}

/// Writes a tree of `entries`, through an index of its own.
fn tree<'a>(
    scratch: &Scratch,
    name: &str,
    entries: impl Iterator<Item = Entry<'a>>,
) -> Result<String, WorkspaceError> {
    let (mut input, mut told) = (vec![], vec![]);
    for (mode, id, path) in entries {
        input.extend_from_slice(format!("{} {id}\t", mode.word()).as_bytes());
        input.extend_from_slice(path);
        input.push(0);
        told.push(path);
    }
    let git = scratch.git.index_at(&scratch.path(name));
    git.read_fed(&["update-index", "-z", "--index-info"], &input)?;
    // What it does not take (a symlink .gitmodules, say) it leaves out, and ends as if it had.
    let taken = git.read(&["ls-files", "-z"])?;
    let taken: HashSet<&[u8]> = taken.split(|b| *b == 0).collect();
    match told.into_iter().find(|path| !taken.contains(path)) {
        None => id(git.line(&["write-tree"])?),
        Some(path) => WorkspaceError::refused(format!(
            "git takes {} into no tree as it is in the guest, so no patch can be made; remove it there, or copy it with `banger vm cp`",
            String::from_utf8_lossy(path)
        )),
    }
}

fn tree_of(scratch: &Scratch, commit: &str) -> Result<String, WorkspaceError> {
    id(scratch.git.line(&["rev-parse", "--verify", "--end-of-options", &format!("{commit}^{{tree}}")])?)
}

fn id(line: Option<String>) -> Result<String, WorkspaceError> {
    line.filter(|id| index::is_id(id))
        .map_or_else(|| WorkspaceError::refused("git does not say which tree it made"), Ok)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn what_git_says_of_each_path_is_taken_apart() {
        let id = "0".repeat(40);
        let line = |modes: &str, rest: &str| format!(":{modes} {id} {id} {rest}\0");
        let told = [
            line("100644 100755", "M\0a b\n:\t"),
            line("000000 120000", "A\0l"),
            line("160000 000000", "D\0s"),
        ];
        let changes = parse_raw(told.concat().as_bytes()).expect("reads");
        let got: Vec<_> =
            changes.iter().map(|c| (c.status, c.path.as_str(), c.old_mode, c.new_mode)).collect();
        let want = [
            ('M', "a b\n:\t", Some("100644"), Some("100755")),
            ('A', "l", None, Some("120000")),
            ('D', "s", Some("160000"), None),
        ];
        assert_eq!(got, want);
        assert_eq!(parse_raw(b""), Some(vec![]));
        for bad in ["x", ":100644 100644 1 2\0p\0", ":100600 100644 1 2 M\0p\0", ":100644 100644 1 2 M"] {
            assert_eq!(parse_raw(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_git_that_has_no_more_memory_is_told_of_in_words_that_help() {
        let failed = |stderr: &str| {
            let status = ExitStatus::from_raw(128 << 8);
            not_compared(CmdError::Failed {
                program: "git diff-tree".to_owned(),
                status,
                stderr: stderr.to_owned(),
            })
            .to_string()
        };
        for said in [
            "Out of memory, malloc failed (tried to allocate 4294967297 bytes)",
            "mmap failed: Cannot allocate memory",
        ] {
            let told = failed(said);
            assert!(
                told.contains(said) && told.ends_with("`banger vm cp` copies files as they are"),
                "{told}"
            );
        }
        assert_eq!(failed("unable to read 123"), "git diff-tree failed: unable to read 123");
    }
}
