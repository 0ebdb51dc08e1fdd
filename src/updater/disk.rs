//! What an update does to files: each operation is whole or not done, on disk when it returns, and a place where a test lets the
//! process die.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::host::failpoint;
use crate::host::files::{self, remove_if_present, staged_name};

/// The next operation. A power cut may come before any of them.
fn next() {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    failpoint::reach(&format!("update: file operation {}", COUNT.fetch_add(1, Ordering::Relaxed)));
}

/// Writes `bytes` to `path`: whoever reads it sees the old content or the new one.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let staged = staged_name(path);
    next();
    remove_if_present(&staged)?;
    next();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&staged)?;
    file.write_all(bytes)?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    rename(&staged, path)
}

/// Makes `path` a file with all that can be read from `from`. It is whole when this returns, and may be half a one if it does not.
pub fn copy(mut from: &File, path: &Path, mode: u32) -> io::Result<()> {
    next();
    remove_if_present(path)?;
    next();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    io::copy(&mut from, &mut file)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    next();
    sync_parent(path)
}

/// Makes `path` a further name of the file at `from`, in the same directory.
pub fn link(from: &Path, path: &Path) -> io::Result<()> {
    let staged = staged_name(path);
    next();
    remove_if_present(&staged)?;
    next();
    std::fs::hard_link(from, &staged)?;
    rename(&staged, path)?;
    // Of two names of one file rename(2) keeps both.
    next();
    remove_if_present(&staged)
}

/// Makes `path` a symlink to `target`.
pub fn point(target: &Path, path: &Path) -> io::Result<()> {
    let staged = staged_name(path);
    next();
    remove_if_present(&staged)?;
    next();
    symlink(target, &staged)?;
    rename(&staged, path)
}

/// Moves a file over another one.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    next();
    std::fs::rename(from, to)?;
    next();
    sync_parent(to)
}

/// Removes a file; one that is not there is removed.
pub fn remove(path: &Path) -> io::Result<()> {
    next();
    remove_if_present(path)?;
    next();
    match sync_parent(path) {
        // A directory that is not there holds nothing.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a directory with all that is in it.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    next();
    files::remove_tree_if_present(path)?;
    next();
    Ok(())
}

fn sync_parent(path: &Path) -> io::Result<()> {
    files::sync_directory(path.parent().unwrap_or(Path::new("/")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_file_that_has_both_names_already_loses_the_third() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        write(&a, b"x", 0o755).expect("writes");
        for _ in 0..2 {
            link(&a, &b).expect("links");
            assert_eq!(std::fs::metadata(&a).expect("stats").nlink(), 2);
            assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 2);
        }
    }

    #[test]
    fn what_is_not_there_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        remove(&dir.path().join("none")).expect("nothing to do");
        remove(&dir.path().join("none/none")).expect("nothing to do");
        remove_tree(&dir.path().join("none")).expect("nothing to do");
    }
}
