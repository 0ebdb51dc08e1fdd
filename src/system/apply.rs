//! Carries out what has been planned: each file is whole or not there, whenever the power goes.

use std::fmt;
use std::fs::{File as Open, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown, symlink};
use std::path::{Path, PathBuf};

use crate::host::files::{remove_if_present, staged_name, sync_directory};
use crate::system::files::{Directory, File, What, Whose};
use crate::system::layout::Layout;
use crate::system::plan::{Change, Step};

/// Uid and gid of those to whom files are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// 0 and 0, but in tests.
    pub root: (u32, u32),
    pub owner: (u32, u32),
}

/// A file could not be changed.
#[derive(Debug)]
pub struct ApplyError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ApplyError {
    let path = path.to_owned();
    move |source| ApplyError { what, path, source }
}

/// Carries out `step`; nothing for a file that is as it should be.
pub fn step(step: &Step, root: (u32, u32)) -> Result<(), ApplyError> {
    match step {
        Step::Put { change: Change::Keep, .. } => Ok(()),
        Step::Put { file, .. } => put(file, root),
        Step::Remove { path } => remove(path),
    }
}

/// Puts `file` in its place.
pub fn put(file: &File, root: (u32, u32)) -> Result<(), ApplyError> {
    match &file.what {
        What::Text { content, mode } => copy(&mut content.as_slice(), &file.path, *mode, root),
        What::Link { target } => {
            link(target, &file.path, root).map_err(failed("make the symlink", &file.path))
        }
    }
}

/// Writes all of `from` to `path`.
pub fn copy(from: &mut dyn Read, path: &Path, mode: u32, root: (u32, u32)) -> Result<(), ApplyError> {
    let staged = staged_name(path);
    let mut write = || -> io::Result<()> {
        // What a crash has left there need not be ours to write to.
        remove_if_present(&staged)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
        io::copy(from, &mut file)?;
        file.flush()?;
        // /usr/local has the group staff on some hosts, which its directories hand down (setgid).
        fchown(&file, Some(root.0), Some(root.1))?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    };
    publish(write(), &staged, path).map_err(failed("write", path))
}

fn link(target: &Path, path: &Path, root: (u32, u32)) -> io::Result<()> {
    let staged = staged_name(path);
    remove_if_present(&staged)?;
    let made = symlink(target, &staged).and_then(|()| lchown(&staged, Some(root.0), Some(root.1)));
    publish(made, &staged, path)
}

fn publish(made: io::Result<()>, staged: &Path, path: &Path) -> io::Result<()> {
    match made.and_then(|()| std::fs::rename(staged, path)) {
        Ok(()) => sync_directory(path.parent().unwrap_or(Path::new("/"))),
        Err(e) => remove_if_present(staged).and(Err(e)),
    }
}

/// Removes a file or a symlink, if it is there.
pub fn remove(path: &Path) -> Result<(), ApplyError> {
    let removed = match std::fs::remove_file(path) {
        Ok(()) => sync_directory(path.parent().unwrap_or(Path::new("/"))),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        Err(e) => Err(e),
    };
    removed.map_err(failed("remove", path))
}

/// Makes `directory`, or gives what is there the owner and the mode that it is to have; whether it was made. What others use too
/// stays as it is.
pub fn directory(directory: &Directory, layout: &Layout, ids: Ids) -> Result<bool, ApplyError> {
    let path = &directory.path;
    let made = match std::fs::create_dir(path) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(failed("make the directory", path)(e)),
    };
    if !made && directory.is_shared(layout) {
        return Ok(false);
    }
    let mend = || -> io::Result<()> {
        // By its descriptor: the owner may change what is below the state, and nothing there is followed.
        let open =
            OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)?;
        let meta = open.metadata()?;
        let want = match directory.whose {
            Whose::Root => ids.root,
            Whose::Owner => ids.owner,
        };
        if (meta.uid(), meta.gid()) != want {
            fchown(&open, Some(want.0), Some(want.1))?;
        }
        if meta.mode() & 0o7777 != directory.mode {
            open.set_permissions(Permissions::from_mode(directory.mode))?;
        }
        if made { sync_directory(path.parent().unwrap_or(Path::new("/"))) } else { Ok(()) }
    };
    mend().map_err(failed("set the owner and the mode of", path))?;
    Ok(made)
}

/// Removes an empty directory; false: it is not empty.
pub fn remove_empty(path: &Path) -> Result<bool, ApplyError> {
    match std::fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(e) => Err(failed("remove the directory", path)(e)),
    }
}

/// Removes what is at `path`, a directory with all that is in it. Mounts below it stay, and are an error.
pub fn remove_tree(path: &Path) -> Result<(), ApplyError> {
    crate::host::files::remove_tree_if_present(path).map_err(failed("remove", path))
}

/// Opens the executable that runs, even if its file was replaced since (proc(5)).
pub fn myself() -> Result<Open, ApplyError> {
    let path = Path::new("/proc/self/exe");
    Open::open(path).map_err(failed("read this executable at", path))
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.what, self.path.display())
    }
}

impl std::error::Error for ApplyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::files;
    use crate::system::plan::{self, look};

    const NONE: files::Shared = files::Shared { bash: "b", zsh: "z", fish: "f", pages: Vec::new };

    fn me() -> Ids {
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Ids { root: me, owner: me }
    }

    #[test]
    fn what_was_put_is_kept_the_next_time_and_mended_when_it_was_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::below(dir.path());
        std::fs::create_dir(&layout.units).expect("makes");
        for directory in files::directories(&layout) {
            assert!(super::directory(&directory, &layout, me()).expect("makes"), "{directory:?}");
        }
        let run = || -> Vec<Change> {
            let steps =
                plan::against_host(&layout, files::wanted(&layout, "me", &NONE), me().root).expect("plans");
            for step in &steps {
                super::step(step, me().root).expect("applies");
            }
            steps.iter().map(Step::change).collect()
        };
        assert_eq!(run(), [Change::Create; 10]);
        assert_eq!(run(), [Change::Keep; 10]);
        let unit = layout.units.join("bangerd.service");
        std::fs::set_permissions(&unit, Permissions::from_mode(0o666)).expect("changes");
        std::fs::remove_file(&layout.links()[0]).expect("removes");
        std::fs::create_dir(layout.bin.join("sub")).expect("makes");
        assert_eq!(run().iter().filter(|change| **change != Change::Keep).count(), 2);
        assert_eq!(std::fs::metadata(&unit).expect("stats").mode() & 0o7777, 0o644);
        assert_eq!(look(&layout.links()[0]).expect("looks"), plan::Have::Link { target: "banger".into() });
    }

    #[test]
    fn a_directory_of_bangers_is_mended_and_one_that_others_use_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::below(dir.path());
        let all = files::directories(&layout);
        let mode = |path: &Path| std::fs::metadata(path).expect("stats").mode() & 0o7777;
        for directory in &all {
            super::directory(directory, &layout, me()).expect("makes");
            std::fs::set_permissions(&directory.path, Permissions::from_mode(0o775)).expect("changes");
        }
        for directory in &all {
            assert!(!super::directory(directory, &layout, me()).expect("mends"));
            let want = if directory.is_shared(&layout) { 0o775 } else { directory.mode };
            assert_eq!(mode(&directory.path), want, "{}", directory.path.display());
        }
    }

    #[test]
    fn a_symlink_in_a_directorys_place_is_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::below(dir.path());
        let theirs = dir.path().join("theirs");
        std::fs::create_dir(&theirs).expect("makes");
        std::fs::set_permissions(&theirs, Permissions::from_mode(0o755)).expect("changes");
        symlink(&theirs, &layout.dirs.state).expect("links");
        let state =
            files::directories(&layout).into_iter().find(|d| d.path == layout.dirs.state).expect("the state");
        super::directory(&state, &layout, me()).expect_err("a symlink");
        assert_eq!(std::fs::metadata(&theirs).expect("stats").mode() & 0o7777, 0o755);
    }

    #[test]
    fn a_file_that_cannot_be_put_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        std::fs::create_dir_all(path.join("sub")).expect("a directory in the way");
        let error = copy(&mut &b"x"[..], &path, 0o755, me().root).expect_err("a directory");
        assert_eq!(error.to_string(), format!("cannot write {}", path.display()));
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 1);
    }
}
