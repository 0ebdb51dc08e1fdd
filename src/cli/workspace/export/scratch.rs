//! A repository of our own for as long as a patch is made: what the guest sends becomes objects here, and only git's own formats of them
//! are ever read. It sees the objects of the host's repository, and writes none there.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::super::error::WorkspaceError;
use crate::git::Format;
use crate::host::cmd::git::{Git, Patience};
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
/// Of those that are being made: nobody has locked them yet, so they are swept up only when they are old.
const UNSEEN: &str = ".workspace-";
const OLD: Duration = Duration::from_secs(60);

impl Scratch {
    /// Makes one below `cache`, with `objects` beside its own.
    pub fn make(cache: &Path, format: Format, objects: Option<&Path>) -> Result<Self, WorkspaceError> {
        fs::create_dir_all(cache).map_err(WorkspaceError::here("create", cache))?;
        sweep(cache);
        let (unseen, dir) = free_name(cache)?;
        let (git_dir, tree) = (dir.join("git"), dir.join("tree"));
        let make = || -> io::Result<File> {
            // Whoever sweeps sees it only when it is locked.
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
            // What is here for a moment is neither squeezed nor kept through a power cut. Packs of the host's may be larger than the memory
            // that git may have here.
            let config = format!(
                "[core]\n\trepositoryformatversion = {version}\n\tcompression = 0\n\tfsync = none\n\tpackedGitLimit = 1g\n\
                 [fastimport]\n\tunpackLimit = 0\n{extensions}"
            );
            fs::write(git_dir.join("config"), config)?;
            Ok(lock)
        };
        let lock = match make() {
            Ok(lock) => lock,
            Err(e) => {
                for half_made in [&unseen, &dir] {
                    remove_tree_if_present(half_made).unwrap_or_default();
                }
                return Err(WorkspaceError::here("make a repository in", &dir)(e));
            }
        };
        let git = Git::at(&git_dir, &tree).alone().with_objects(objects.into_iter());
        Ok(Self { dir, git, _lock: lock })
    }

    /// As this one, its git waited for with `patience`.
    pub fn patient(mut self, patience: &Patience) -> Self {
        self.git = self.git.patient(patience);
        self
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

/// Makes a directory that nobody sees, under a name that is free: an earlier process may have had the same number. Returns its path, and the
/// one that it is to have.
fn free_name(cache: &Path) -> Result<(PathBuf, PathBuf), WorkspaceError> {
    loop {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |prefix: &str| cache.join(format!("{prefix}{}-{number}", std::process::id()));
        let (unseen, dir) = (name(UNSEEN), name(PREFIX));
        match DirBuilder::new().mode(0o700).create(&unseen) {
            Ok(()) if !dir.exists() => return Ok((unseen, dir)),
            Ok(()) => remove_tree_if_present(&unseen).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(WorkspaceError::here("create", &unseen)(e)),
        }
    }
}

fn lock_of(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// Removes what was left by those that were killed.
fn sweep(cache: &Path) {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    let left = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let old = || entry.metadata().and_then(|meta| meta.modified()).is_ok_and(is_old);
        name.starts_with(PREFIX) || (name.starts_with(UNSEEN) && old())
    };
    for entry in entries.filter(left) {
        let lock = lock_of(&entry.path());
        if let Ok(Some(_held)) = try_lock(&lock) {
            remove_tree_if_present(&entry.path()).unwrap_or_default();
        }
    }
}

fn is_old(modified: SystemTime) -> bool {
    modified.elapsed().is_ok_and(|age| age > OLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(cache: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(cache)
            .expect("lists")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    fn age(dir: &Path) {
        let long_ago = SystemTime::now() - 2 * OLD;
        File::open(dir).and_then(|dir| dir.set_modified(long_ago)).expect("sets the time");
    }

    #[test]
    fn what_was_left_half_made_is_swept_up_and_does_not_hold_up_a_process_of_the_same_number() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = dir.path();
        let next = COUNT.load(Ordering::Relaxed);
        let ours = cache.join(format!("{UNSEEN}{}-{next}", std::process::id()));
        let (fresh, old, used) =
            (cache.join(".workspace-1-0"), cache.join(".workspace-1-1"), cache.join(".workspace-1-2"));
        let seen = cache.join("workspace-1-3");
        for left in [&ours, &fresh, &old, &used, &seen] {
            fs::create_dir(left).expect("creates");
        }
        let _held = try_lock(&lock_of(&used)).expect("locks").expect("is free");
        for left in [&old, &used] {
            age(left);
        }
        let scratch = Scratch::make(cache, Format::Sha1, None).expect("is made");
        assert!(fresh.exists() && used.exists() && ours.exists(), "{:?}", names(cache));
        assert!(!old.exists() && !seen.exists(), "{:?}", names(cache));
        let made = scratch.dir.clone();
        assert!(lock_of(&made).exists());
        drop(scratch);
        assert!(!made.exists());
        age(&ours);
        sweep(cache);
        assert_eq!(names(cache), [".workspace-1-0", ".workspace-1-2"]);
    }

    #[test]
    fn one_that_cannot_be_made_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        // So long a path that there is no room for one below it: for its lock, or for what comes after that (PATH_MAX is 4096).
        for length in 4066..4080 {
            let mut cache = dir.path().to_owned();
            while cache.as_os_str().len() < length {
                let room = length - cache.as_os_str().len() - 1;
                cache.push("x".repeat(room.min(200)));
            }
            let error = Scratch::make(&cache, Format::Sha1, None).expect_err("no room").to_string();
            assert!(error.starts_with("cannot "), "{error}");
            assert_eq!(names(&cache), [""; 0], "{length}");
        }
    }
}
