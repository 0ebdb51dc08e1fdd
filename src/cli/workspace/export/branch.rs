//! A guest's commits become a branch of the host's repository: nothing is checked out, nothing that either side names is run.
//!
//! A pack of a guest's is hostile. It is received into a repository of our own, where git checks every object of it (as `git fsck` does, with
//! what it calls a warning an error) and that nothing is missing. Only then it goes to the host's, and the branch is made.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::super::error::WorkspaceError;
use super::super::index::{is_id, parse_tree};
use super::super::repository;
use super::super::source::{self, Found, leads_elsewhere, small};
use super::room;
use super::scratch::Scratch;
use crate::git::{Format, Mode};
use crate::host::cmd::CmdError;
use crate::host::cmd::git::Stdin;
use crate::host::files::remove_if_present;
use crate::proto::workspace::Placed;

/// A branch that may be made.
#[derive(Debug)]
pub struct Branch<'a> {
    found: &'a Found,
    pub name: &'a str,
    /// What it is at now.
    old: Option<String>,
}

/// What is asked of a guest: everything up to `head` that is not in `bases`.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    pub head: String,
    pub bases: Vec<String>,
}

/// The most commits that a guest is told the host has.
const MAX_BASES: usize = 1000;

impl<'a> Branch<'a> {
    /// # Errors
    /// A sentence for a name that is none, and for a branch that may not be moved.
    pub fn judge(found: &'a Found, name: &'a str, force: bool) -> Result<Self, WorkspaceError> {
        let full = format!("refs/heads/{name}");
        let fits = match found.git.read(&["check-ref-format", &full]) {
            Ok(_) => !name.starts_with('-') && name != "HEAD",
            Err(CmdError::Failed { status, .. }) if status.code() == Some(1) => false,
            Err(e) => return Err(e.into()),
        };
        if !fits {
            return WorkspaceError::refused(format!(
                "{name:?} is no name for a branch; write it like try or fix/typo"
            ));
        }
        let listed = found.git.read(&["worktree", "list", "--porcelain"])?;
        if String::from_utf8_lossy(&listed).lines().any(|line| line.strip_prefix("branch ") == Some(&full)) {
            return WorkspaceError::refused(format!(
                "the branch {name} is checked out in {}, and its files would no longer fit it; choose another name",
                found.top.display()
            ));
        }
        if let Some(other) = found.git.line(&["symbolic-ref", "--quiet", &full])? {
            return WorkspaceError::refused(format!(
                "the branch {name} is another name for {other}, which would be moved; choose another name"
            ));
        }
        // git appends to one that is there, whatever it is told about new ones (core.logAllRefUpdates).
        let log = PathBuf::from(format!("logs/{full}"));
        if leads_elsewhere(&found.common, &log)? {
            return WorkspaceError::refused(format!(
                "{} leads elsewhere, and git would write there; choose another name",
                found.common.join(log).display()
            ));
        }
        if let Some(what) = busy(&found.common, name) {
            return WorkspaceError::refused(format!(
                "the branch {name} is in the middle of a {what} in {}; end that first, or choose another name",
                found.top.display()
            ));
        }
        let old = found.git.line(&["rev-parse", "--verify", "--quiet", "--end-of-options", &full])?;
        if old.is_some() && !force {
            return WorkspaceError::refused(format!(
                "there is a branch {name} in {} already; --force moves it, or choose another name",
                found.top.display()
            ));
        }
        Ok(Self { found, name, old })
    }

    /// What there is to ask a guest for whose HEAD is at `head`; None: this host has it.
    pub fn wanted(&self, placed: &Placed, head: &str) -> Result<Option<Wanted>, WorkspaceError> {
        let brought = placed.head.as_deref().unwrap_or_default();
        if !is_id(head) || !is_id(brought) {
            return WorkspaceError::refused("the guest does not say which commit it is at");
        }
        if repository::commit(self.found, brought)?.is_none() {
            return WorkspaceError::refused(format!(
                "{} no longer has the commit {brought} that was brought, on which the guest's commits are based",
                self.found.top.display()
            ));
        }
        if repository::commit(self.found, head)?.is_some() {
            return Ok(None);
        }
        let mut bases = vec![brought.to_owned()];
        for base in placed.heads.iter().filter(|base| is_id(base) && *base != brought).take(MAX_BASES) {
            bases.extend(repository::commit(self.found, base)?);
        }
        Ok(Some(Wanted { head: head.to_owned(), bases }))
    }

    /// Takes a pack of what is `wanted` from `feed`, and returns it once it is known to be whole and harmless.
    pub fn receive<E: From<WorkspaceError>>(
        &self,
        scratch: &Scratch,
        wanted: &Wanted,
        feed: impl FnOnce(&mut Stdin) -> Result<(), E>,
    ) -> Result<File, E> {
        let most = format!("--max-input-size={}", room(scratch)?);
        let args = ["index-pack", "--stdin", "--fix-thin", "--strict", &most];
        let mut git = scratch.git.start(&args, Stdio::piped()).map_err(WorkspaceError::from)?;
        if let Some(mut stdin) = git.stdin.take() {
            feed(&mut stdin)?;
        }
        let mut said = String::new();
        let read = git.stdout.take().map_or(Ok(0), |stdout| stdout.take(1 << 16).read_to_string(&mut said));
        git.finish_after(read.map(drop)).map_err(|e| self.not_accepted(e))?;
        // Each commit, tree and blob that the new ones name has to be there.
        let args = ["rev-list", "--objects", "--quiet", &wanted.head, "--not"];
        let bases: Vec<&str> = wanted.bases.iter().map(String::as_str).collect();
        let shallow = self.found.common.join("shallow");
        let git = if shallow.exists() { scratch.git.shallow_at(&shallow) } else { scratch.git.clone() };
        git.read(&[&args, &bases[..]].concat()).map_err(|e| self.not_accepted(e))?;
        let pack = scratch.objects().join("pack").join(format!("{}.pack", pack_name(&said)?));
        Ok(File::open(&pack).map_err(WorkspaceError::here("read", &pack))?)
    }

    fn not_accepted(&self, e: CmdError) -> WorkspaceError {
        match e {
            CmdError::Failed { program, stderr, .. } => {
                let why = if stderr.is_empty() { "it says nothing more" } else { &stderr };
                WorkspaceError::Refused(format!(
                    "the guest's commits are not accepted: {program} refuses them: {why}"
                ))
            }
            e => e.into(),
        }
    }

    /// Puts `pack` into the host's repository, and makes the branch. Returns how many commits it has that were not brought.
    ///
    /// # Errors
    /// Then the repository is as it was.
    pub fn publish(
        self,
        pack: Option<File>,
        head: &str,
        brought: &str,
        why: &str,
    ) -> Result<usize, WorkspaceError> {
        let added = pack.map(|pack| Added::to(self.found, pack)).transpose()?;
        let made = self.make(head, brought, why);
        if made.is_err()
            && let Some(added) = added
        {
            added.remove();
        }
        made
    }

    fn make(&self, head: &str, brought: &str, why: &str) -> Result<usize, WorkspaceError> {
        let count = self.found.git.line(&["rev-list", "--count", head, "--not", brought])?;
        let none = match self.found.format {
            Format::Sha1 => "0".repeat(40),
            Format::Sha256 => "0".repeat(64),
        };
        let old = self.old.as_ref().unwrap_or(&none);
        let full = format!("refs/heads/{}", self.name);
        // With the old value: whoever moved it meanwhile is not overruled.
        self.found.git.read(&["update-ref", "--no-deref", "-m", why, &full, head, old])?;
        Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
    }
}

/// The submodules that are at another commit in `head` than in `brought`, at one that their repositories here do not have.
pub fn only_there(found: &Found, brought: &str, head: &str) -> Result<Vec<(String, String)>, WorkspaceError> {
    let submodules = |commit: &str| -> Result<BTreeMap<Vec<u8>, String>, WorkspaceError> {
        let listed = found.git.read(&["ls-tree", "-r", "-z", "--full-tree", commit])?;
        let entries = parse_tree(&listed, found.format)?;
        let submodules = entries.into_iter().filter(|entry| entry.mode == Mode::Gitlink);
        Ok(submodules.map(|entry| (entry.path, entry.id.to_string())).collect())
    };
    let before = submodules(brought)?;
    let mut after = submodules(head)?;
    after.retain(|path, id| before.get(path) != Some(id) && !is_here(found, path, id));
    Ok(after.into_iter().map(|(path, id)| (String::from_utf8_lossy(&path).into_owned(), id)).collect())
}

/// Whether the submodule at `path` has the commit here. One that cannot be asked has it not.
fn is_here(found: &Found, path: &[u8], id: &str) -> bool {
    let top = found.top.join(OsStr::from_bytes(path));
    let straight = top.canonicalize().is_ok_and(|real| real == top);
    let open = || source::open(&top, Some(&found.git_dir.join("modules")), found.git.patience());
    straight && open().and_then(|sub| repository::commit(&sub, id)).is_ok_and(|commit| commit.is_some())
}

/// What git is in the middle of with a branch, in any work tree: HEAD is detached then, and the branch is moved at the end (git's branch.c,
/// prepare_checked_out_branches).
fn busy(common: &Path, name: &str) -> Option<&'static str> {
    let full = format!("refs/heads/{name}");
    let others = std::fs::read_dir(common.join("worktrees")).into_iter().flatten().flatten();
    let directories = std::iter::once(common.to_owned()).chain(others.map(|entry| entry.path()));
    let files = [
        ("rebase-merge/head-name", "rebase"),
        ("rebase-merge/update-refs", "rebase"),
        ("rebase-apply/head-name", "rebase"),
        ("BISECT_START", "bisection"),
    ];
    let names_it = |file: PathBuf| {
        let text = small(&file).ok().flatten().unwrap_or_default();
        text.split(|b| *b == b'\n').any(|line| line == full.as_bytes() || line == name.as_bytes())
    };
    directories.into_iter().find_map(|directory| {
        files.iter().find(|(file, _)| names_it(directory.join(file))).map(|(_, what)| *what)
    })
}

/// A pack that was added to the host's repository, and was not there before.
struct Added<'a>(&'a Found, String);

impl<'a> Added<'a> {
    fn to(found: &'a Found, pack: File) -> Result<Self, WorkspaceError> {
        let before = Self::packs(found);
        let mut git = found.git.start(&["index-pack", "--stdin"], Stdio::from(pack))?;
        let mut said = String::new();
        let read = git.stdout.take().map_or(Ok(0), |stdout| stdout.take(1 << 16).read_to_string(&mut said));
        git.finish_after(read.map(drop))?;
        let name = pack_name(&said)?;
        Ok(Self(found, if before.contains(&name) { String::new() } else { name }))
    }

    fn packs(found: &Found) -> Vec<String> {
        let entries = std::fs::read_dir(found.common.join("objects/pack")).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| name.strip_suffix(".pack").map(str::to_owned)).collect()
    }

    fn remove(self) {
        if self.1.is_empty() {
            return;
        }
        // The index first: without it git sees no pack. What stays behind is garbage that `git gc` removes.
        for end in ["idx", "rev", "pack"] {
            let path = self.0.common.join("objects/pack").join(format!("{}.{end}", self.1));
            remove_if_present(&path).unwrap_or_default();
        }
    }
}

/// What index-pack calls the pack that it made: `pack`, a tab, a hash.
fn pack_name(said: &str) -> Result<String, WorkspaceError> {
    let hash = said.trim().strip_prefix("pack\t").filter(|hash| is_id(hash));
    hash.map_or_else(
        || WorkspaceError::refused("git index-pack does not say what it made"),
        |hash| Ok(format!("pack-{hash}")),
    )
}

/// Feeds index-pack, which may not want more; then it says why at its end.
pub fn feed(stdin: &mut Stdin, bytes: &[u8]) -> bool {
    stdin.write_all(bytes).is_ok()
}
