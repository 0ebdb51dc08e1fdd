//! What there is to bring: decided and read on this host alone, before there is a VM.

use std::path::{Path, PathBuf};

use super::error::WorkspaceError;
use super::index::{parse_tree, written};
use super::prepare::{Done, commits};
use super::repository::{self, Listing, Repo, directory};
use super::source::{Found, Source};
use super::tree::{Item, Tree};
use super::{names, plain, stamp};
use crate::git::{Mode, is_ref_name};
use crate::host::cmd::git::Patience;
use crate::proto::workspace::MAX_PATHS;

/// How many commits of history are brought if nothing else is said.
pub const DEPTH: usize = 10;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    pub path: PathBuf,
    /// A plain directory, whatever it is beside.
    pub copy: bool,
    /// The branch that the guest's HEAD is to be on; None: the host's.
    pub branch: Option<String>,
    /// The commit that it is at; None: HEAD, with the files as they are on disk. So it is with HEAD's own name too, but where there is no
    /// `branch`: then it is the commit of an earlier time.
    pub from: Option<String>,
    /// How many commits of history; None: all.
    pub depth: Option<usize>,
    pub untracked: bool,
    /// How git is waited for.
    pub patience: Patience,
}

/// What has been read.
#[derive(Debug)]
pub struct Gathered {
    /// Absolute, without symlinks.
    pub top: PathBuf,
    /// None: a plain copy.
    pub repository: Option<Brought>,
    pub items: Vec<Item>,
    /// Paths that stay behind, as they are not tracked.
    pub behind: Vec<Vec<u8>>,
    pub notes: Vec<String>,
    pub untracked: bool,
    pub patience: Patience,
}

/// A repository, and what of it is wanted.
#[derive(Debug)]
pub struct Brought {
    pub read: Repo,
    /// The commit and the branch that the guest's HEAD is to be at.
    pub head: String,
    pub branch: Option<String>,
    /// The branch is one that was asked for.
    pub asked: bool,
    /// The files are a commit's, not those on disk.
    pub committed: bool,
    pub depth: Option<usize>,
}

/// Reads what `wish` asks for.
///
/// # Errors
/// [`WorkspaceError::Refused`] wherever it cannot be brought.
pub fn gather(wish: &Wish) -> Result<Gathered, WorkspaceError> {
    let source = Source::find(&wish.path, wish.copy, &wish.patience)?;
    let gathered = match source {
        Source::Plain(top) => {
            let listing = plain::list(&mut Tree::open(&top, &wish.patience)?)?;
            whole(top, None, listing, wish, false)
        }
        Source::Repository(found) => {
            let top = found.top.clone();
            let within = wish.path.canonicalize().ok().filter(|path| *path != top);
            if let Some(branch) = &wish.branch {
                check_branch(&found, branch)?;
            }
            let from =
                wish.from.as_ref().map(|from| asked_for(&found, from, wish.branch.is_none())).transpose()?;
            let here = repository::commit(&found, "HEAD")?;
            let from = from.filter(|from| wish.branch.is_none() || Some(from) != here.as_ref());
            let (read, mut listing, committed) = match from {
                None => {
                    let (read, listing) = repository::read(found, wish.untracked)?;
                    (read, listing, None)
                }
                Some(from) => {
                    let mut listing = Listing::default();
                    let mut read = repository::state(found, &mut listing.notes)?;
                    take_tree(&mut read, &from, &mut listing)?;
                    (read, listing, Some(from))
                }
            };
            if let Some(path) = within {
                let note = format!("{} is in {}, which is brought whole", path.display(), top.display());
                listing.notes.insert(0, note);
            }
            let brought = Brought {
                head: committed.clone().unwrap_or_else(|| read.head.clone()),
                branch: wish.branch.clone().or_else(|| read.branch.clone()),
                asked: wish.branch.is_some(),
                committed: committed.is_some(),
                depth: wish.depth,
                read,
            };
            whole(top, Some(brought), listing, wish, wish.untracked)
        }
    };
    if gathered.items.len() > MAX_PATHS {
        return WorkspaceError::refused(format!(
            "{} has {} paths; {MAX_PATHS} can be brought",
            gathered.top.display(),
            gathered.items.len()
        ));
    }
    Ok(gathered)
}

/// The commit that `from` means, somebody's word for it now or, if it is `again`, at an earlier time.
fn asked_for(found: &Found, from: &str, again: bool) -> Result<String, WorkspaceError> {
    names::begins_here(found, from)?;
    let top = found.top.display();
    match repository::commit(found, from)? {
        Some(id) => Ok(id),
        None if again => WorkspaceError::refused(format!(
            "{top} no longer has the commit {from}, which --from named; --branch brings what is here"
        )),
        None => WorkspaceError::refused(format!("{top} has no commit {from}")),
    }
}

fn whole(
    top: PathBuf,
    repository: Option<Brought>,
    listing: Listing,
    wish: &Wish,
    untracked: bool,
) -> Gathered {
    let Listing { items, untracked: found, mut notes } = listing;
    let behind = if untracked { vec![] } else { found };
    match behind.len() {
        0 => {}
        1 => notes.push("1 untracked file stays behind; --include-untracked brings it".to_owned()),
        n => notes.push(format!("{n} untracked files stay behind; --include-untracked brings them")),
    }
    let patience = wish.patience.clone();
    Gathered { top, repository, items, behind, notes, untracked, patience }
}

/// The paths of the commit `from`, in the place of those on disk.
fn take_tree(read: &mut Repo, from: &str, listing: &mut Listing) -> Result<(), WorkspaceError> {
    let listed = read.found.git.read(&["ls-tree", "-r", "-z", "--full-tree", from])?;
    let entries = parse_tree(&listed, read.found.format)?;
    read.index = written(&entries);
    let mut submodules = 0;
    for entry in entries {
        if entry.mode == Mode::Gitlink {
            submodules += 1;
            listing.items.push(directory(entry.path));
            continue;
        }
        let id = entry.id.to_string();
        let stamp = stamp::of_blob(&id, entry.mode.word());
        listing.items.push(Item {
            path: entry.path,
            mode: entry.mode,
            stamp,
            size: 0,
            mtime: 0,
            blob: Some(id),
        });
    }
    sizes(read, &mut listing.items)?;
    listing.notes.push("the files are as they were committed; uncommitted changes stay behind".to_owned());
    if submodules > 0 {
        listing.notes.push(format!(
            "{submodules} submodules stay behind, as another commit's are not checked out here"
        ));
    }
    Ok(())
}

/// Fills in how large blobs are.
fn sizes(read: &Repo, items: &mut [Item]) -> Result<(), WorkspaceError> {
    let asked: String =
        items.iter().filter_map(|item| item.blob.as_ref()).map(|id| format!("{id}\n")).collect();
    let told = read.found.git.read_fed(&["cat-file", "--batch-check=%(objectsize)"], asked.as_bytes())?;
    let told = String::from_utf8_lossy(&told);
    for (item, size) in items.iter_mut().filter(|item| item.blob.is_some()).zip(told.lines()) {
        item.size = if item.mode == Mode::Symlink { 0 } else { size.parse().unwrap_or(0) };
    }
    Ok(())
}

fn check_branch(found: &Found, branch: &str) -> Result<(), WorkspaceError> {
    // It also takes @{-1}, for which it says another name.
    match found.git.line(&["check-ref-format", "--branch", branch]) {
        Ok(Some(name)) if name == branch && is_ref_name(branch) => Ok(()),
        Ok(_) | Err(crate::host::cmd::CmdError::Failed { .. }) => {
            WorkspaceError::refused(format!("{branch:?} is no name for a branch (git check-ref-format)"))
        }
        Err(e) => Err(e.into()),
    }
}

impl Gathered {
    /// Where it is in a guest if nothing else is said: the top directory's name below /root, made safe.
    pub fn guest_path(&self) -> String {
        format!("/root/{}", safe_name(&self.top))
    }

    /// What it comes to where a guest has none of it.
    pub fn all(&self) -> Result<Done, WorkspaceError> {
        let commits = match &self.repository {
            Some(brought) => commits(brought)?,
            None => 0,
        };
        let bytes = self.items.iter().map(|item| item.size).sum();
        Ok(Done { sent: self.items.len(), commits, bytes, ..Done::default() })
    }
}

/// The commit that the repository at `path` is at; None: whatever stands in the way of knowing it.
pub fn head_of(path: &Path, patience: &Patience) -> Option<String> {
    match Source::find(path, false, patience) {
        Ok(Source::Repository(found)) => repository::commit(&found, "HEAD").ok().flatten(),
        Ok(Source::Plain(_)) | Err(_) => None,
    }
}

fn safe_name(top: &Path) -> String {
    let name = top.file_name().unwrap_or_default().to_string_lossy();
    let safe = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+') { c } else { '_' };
    let name: String = name.chars().map(safe).take(100).collect();
    match name.trim_start_matches(['.', '-']) {
        "" => "workspace".to_owned(),
        _ if name.starts_with('.') || name.starts_with('-') => format!("_{}", &name[1..]),
        _ => name,
    }
}

/// A path in a guest at which a work tree can be: absolute and plain.
pub fn guest_path(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let plain = text.starts_with('/')
        && !text.chars().any(char::is_control)
        && text.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    match plain {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no place for a work tree; write it like /root/app")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_this_hosts_becomes_a_safe_one() {
        let table = [
            ("/home/me/repo", "repo"),
            ("/home/me/my repo\n", "my_repo_"),
            ("/home/me/.dotfiles", "_dotfiles"),
            ("/home/me/-rf", "_rf"),
            ("/home/me/größe", "größe"),
            ("/home/me/...", "workspace"),
            ("/", "workspace"),
        ];
        for (top, want) in table {
            assert_eq!(safe_name(Path::new(top)), want, "{top}");
        }
    }

    #[test]
    fn a_place_in_a_guest_is_absolute_and_plain() {
        assert_eq!(guest_path("/srv/app/").as_deref(), Ok("/srv/app"));
        for bad in ["", "/", "app", "/a/../b", "/a//b", "/a\n", "//a"] {
            assert!(guest_path(bad).is_err(), "{bad:?}");
        }
    }
}
