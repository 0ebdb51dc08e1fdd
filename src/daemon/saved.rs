//! A copy of the database, made and put back by an update, while no daemon has it open.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;

use crate::daemon::fault::Fault;
use crate::daemon::socket;
use crate::host::dirs::Dirs;
use crate::host::files::{remove_if_present, staged_name, sync_directory};
use crate::proto::api::Code;

/// Copies the database to `copy`. Where there is none, there is no copy either.
pub fn save(dirs: &Dirs, copy: &Path) -> Result<(), Fault> {
    exclusively(dirs, || replace(&dirs.database(), copy))
}

/// Makes the database what `copy` is. Without a copy there was no database.
pub fn restore(dirs: &Dirs, copy: &Path) -> Result<(), Fault> {
    exclusively(dirs, || replace(copy, &dirs.database()))
}

/// Whoever holds the lock of the socket may touch the database.
fn exclusively(dirs: &Dirs, work: impl FnOnce() -> io::Result<()>) -> Result<(), Fault> {
    let failed = |e: &dyn std::error::Error| Fault::failed("cannot copy the database", e);
    if !dirs.state.exists() {
        return Err(Fault::new(Code::NotFound, format!("{} is not there", dirs.state.display())));
    }
    let _lock = socket::lock(dirs).map_err(|e| failed(&e))?;
    work().map_err(|e| failed(&e))
}

/// Makes `to` a copy of `from`, or nothing where `from` is nothing. A crash leaves `to` as it was or whole.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW.bits() as i32;
    let mut source = match OpenOptions::new().read(true).custom_flags(flags).open(from) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            remove_if_present(to)?;
            return sync_directory(to.parent().unwrap_or(Path::new("/")));
        }
        Err(e) => return Err(e),
    };
    let meta = source.metadata()?;
    if !meta.is_file() || meta.uid() != geteuid().as_raw() {
        return Err(io::Error::other(format!("{} is no file of this user's", from.display())));
    }
    let staged = staged_name(to);
    remove_if_present(&staged)?;
    let mut target: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
    io::copy(&mut source, &mut target)?;
    target.sync_all()?;
    std::fs::rename(&staged, to)?;
    sync_directory(to.parent().unwrap_or(Path::new("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_comes_back_as_it_was_unless_a_daemon_has_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let dirs = Dirs::below(dir.path());
        let copy = dirs.state.join("copy");
        save(&dirs, &copy).expect_err("no state");
        std::fs::create_dir_all(&dirs.state).expect("makes a directory");
        save(&dirs, &copy).expect("nothing to copy");
        assert!(!copy.exists());
        std::fs::write(dirs.database(), "old").expect("writes");
        save(&dirs, &copy).expect("copies");
        std::fs::write(dirs.database(), "new").expect("writes");
        let lock = socket::lock(&dirs).expect("locks");
        // A listening daemon says so at once; one that does not listen may be ending.
        let listener = std::os::unix::net::UnixListener::bind(dirs.socket()).expect("binds");
        let error = restore(&dirs, &copy).expect_err("in use").message;
        assert!(error.contains("another bangerd is running"), "{error}");
        drop((lock, listener));
        restore(&dirs, &copy).expect("copies");
        assert_eq!(std::fs::read(dirs.database()).expect("reads"), b"old");
        std::fs::remove_file(&copy).expect("removes");
        restore(&dirs, &copy).expect("there was none");
        assert!(!dirs.database().exists());
    }
}
