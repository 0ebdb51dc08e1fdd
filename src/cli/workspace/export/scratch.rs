//! A repository of our own for as long as a patch is made: what the guest sends becomes objects here, and only git's own formats of them
//! are ever read. It sees the objects of the host's repository, and writes none there.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::error::WorkspaceError;
use crate::git::Format;
use crate::host::cmd::git::Git;
use crate::host::files::{remove_tree_if_present, try_lock};

/// Removed when it is dropped.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
    pub git: Git,
    /// Held by whoever uses the directory.
    _lock: File,
}

static COUNT: AtomicU32 = AtomicU32::new(0);
const PREFIX: &str = "workspace-";

impl Scratch {
    /// Makes one below `cache`, with `objects` beside its own.
    pub fn make(cache: &Path, format: Format, objects: Option<&Path>) -> Result<Self, WorkspaceError> {
        fs::create_dir_all(cache).map_err(WorkspaceError::here("create", cache))?;
        sweep(cache);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let dir = cache.join(&name);
        let (git_dir, tree) = (dir.join("git"), dir.join("tree"));
        let make = || -> io::Result<File> {
            // Whoever sweeps sees it only when it is locked.
            let unseen = cache.join(format!(".{name}"));
            DirBuilder::new().mode(0o700).create(&unseen)?;
            let lock = try_lock(&lock_of(&unseen))?.ok_or(io::ErrorKind::ResourceBusy)?;
            fs::rename(&unseen, &dir)?;
            fs::create_dir(&tree)?;
            for below in ["objects/pack", "objects/info", "refs", "info"] {
                fs::create_dir_all(git_dir.join(below))?;
            }
            fs::write(git_dir.join("HEAD"), "ref: refs/heads/none\n")?;
            let (version, extensions) = match format {
                Format::Sha1 => (0, ""),
                Format::Sha256 => (1, "[extensions]\n\tobjectFormat = sha256\n"),
            };
            // What is here for a moment is neither squeezed nor kept through a power cut.
            let config = format!(
                "[core]\n\trepositoryformatversion = {version}\n\tcompression = 0\n\tfsync = none\n\
                 [fastimport]\n\tunpackLimit = 0\n{extensions}"
            );
            fs::write(git_dir.join("config"), config)?;
            Ok(lock)
        };
        let lock = match make() {
            Ok(lock) => lock,
            Err(e) => {
                remove_tree_if_present(&dir).unwrap_or_default();
                return Err(WorkspaceError::here("make a repository in", &dir)(e));
            }
        };
        let git = Git::at(&git_dir, &tree).alone().with_objects(objects.into_iter());
        Ok(Self { dir, git, _lock: lock })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where files are laid out for git to look at; nothing of a guest's is but `.gitignore`.
    pub fn tree(&self) -> PathBuf {
        self.path("tree")
    }

    pub fn git_dir(&self) -> PathBuf {
        self.path("git")
    }

    /// Its own objects.
    pub fn objects(&self) -> PathBuf {
        self.path("git/objects")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next one sweeps up what is left.
        remove_tree_if_present(&self.dir).unwrap_or_default();
    }
}

fn lock_of(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// Removes what was left by those that were killed.
fn sweep(cache: &Path) {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let lock = lock_of(&entry.path());
        if let Ok(Some(_held)) = try_lock(&lock) {
            remove_tree_if_present(&entry.path()).unwrap_or_default();
        }
    }
}
