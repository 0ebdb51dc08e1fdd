//! Files that are whole or not there, and locks.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

/// Writes `bytes` to `path` so that a reader, at any time and after any crash, sees the old content or the new one.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let staged = staged_name(path);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&staged)?;
    let written = file.write_all(bytes).and_then(|()| file.set_permissions(Permissions::from_mode(mode)));
    let published = written.and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&staged, path));
    if let Err(e) = published {
        remove_if_present(&staged)?;
        return Err(e);
    }
    sync_directory(path.parent().unwrap_or(Path::new("/")))
}

/// A name beside `path` for content that is not whole yet; a crash leaves it, and the daemon removes it at its start.
pub fn staged_name(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".staged-");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// A file without a name on the file system of `directory`, readable and writable: it is gone with its last descriptor,
/// whatever happens.
pub fn nameless(directory: &Path) -> io::Result<File> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    match open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => return Ok(fd.into()),
        // Some file systems have no O_TMPFILE (open(2)): NFS, FUSE, 9p.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {}
        Err(e) => return Err(e.into()),
    }
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!(".staged-{}-{number}-nameless", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Makes a rename or an unlink in `directory` survive a power cut.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

pub fn remove_if_present(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a directory and all below it, without following symlinks.
pub fn remove_tree_if_present(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Creates `path`, and what is missing above it, for this user only.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Takes the lock file `path`, made if missing; None if another process holds it. The lock lasts as long as the file is open.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = lock_file(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The same, and waits for whoever holds it.
pub fn lock(path: &Path) -> io::Result<File> {
    let file = lock_file(path)?;
    loop {
        match flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        write_atomic(&path, b"old", 0o644).expect("writes");
        write_atomic(&path, b"new", 0o400).expect("replaces");
        assert_eq!(std::fs::read(&path).expect("reads"), b"new");
        assert_eq!(std::fs::metadata(&path).expect("stats").permissions().mode() & 0o777, 0o400);
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("d");
        std::fs::create_dir_all(path.join("sub")).expect("makes a directory in the way");
        write_atomic(&path, b"x", 0o644).expect_err("a directory cannot be replaced");
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 1);
    }

    #[test]
    fn a_nameless_file_is_nowhere_to_be_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut file = nameless(dir.path()).expect("makes one");
        file.write_all(b"x").expect("writes");
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 0);
    }

    #[test]
    fn a_lock_has_one_holder() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lock");
        let held = try_lock(&path).expect("locks");
        assert!(held.is_some());
        assert!(try_lock(&path).expect("tries").is_none());
        drop(held);
        assert!(try_lock(&path).expect("locks").is_some());
    }
}
