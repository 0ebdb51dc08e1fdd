//! The initramfs of a kernel with this very executable as /init: made when a VM first needs it, kept beside the kernel.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::daemon::fault::Fault;
use crate::daemon::names_in;
use crate::daemon::op::Op;
use crate::host::dirs::Dirs;
use crate::host::files;
use crate::kernel::initramfs::assemble;

/// The executable that runs, even if its file was replaced since.
const MYSELF: &str = "/proc/self/exe";

/// Returns the initramfs for `kernel`, made first if it is not there. Those of other versions of banger are removed: a VMM reads
/// its initramfs when it starts, and never again.
pub fn ensure(dirs: &Dirs, kernel: &str, op: &Op) -> Result<PathBuf, Fault> {
    let directory = dirs.kernel(kernel);
    make(&directory, op)
        .map_err(|e| Fault::failed(format!("cannot make the initramfs of kernel {kernel}"), &e))
}

fn make(directory: &Path, op: &Op) -> io::Result<PathBuf> {
    // Of two VMs that start at once, one makes it and the other finds it.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let name = format!("initrd-{}.cpio", my_digest()?);
    let path = directory.join(&name);
    if path.try_exists()? {
        return Ok(path);
    }
    log::debug!("{op} makes {}", path.display());
    let modules = std::fs::read(directory.join("modules.cpio"))?;
    let bytes = assemble(&std::fs::read(MYSELF)?, &modules);
    files::write_atomic(&path, &bytes, 0o444)?;
    for old in names_in(directory)? {
        if old.starts_with("initrd-") && old != name {
            files::remove_if_present(&directory.join(&old))?;
        }
    }
    Ok(path)
}

/// The first 16 digits of this executable's blake3; computed once, a little of the file in memory at a time.
fn my_digest() -> io::Result<&'static str> {
    static DIGEST: OnceLock<String> = OnceLock::new();
    if let Some(digest) = DIGEST.get() {
        return Ok(digest);
    }
    let mut file = File::open(MYSELF)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        };
    }
    let digest = hasher.finalize().to_hex()[..16].to_owned();
    Ok(DIGEST.get_or_init(|| digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_replaces_that_of_another_version() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("modules.cpio"), b"").expect("writes");
        std::fs::write(dir.path().join("initrd-0123456789abcdef.cpio"), b"old").expect("writes");
        let path = make(dir.path(), &Op::own()).expect("makes it");
        assert_eq!(make(dir.path(), &Op::own()).expect("finds it"), path);
        let mut names = names_in(dir.path()).expect("lists");
        names.sort();
        assert_eq!(names, [path.file_name().expect("a name").to_str().expect("text"), "modules.cpio"]);
        assert!(std::fs::metadata(&path).expect("stats").len() > 1 << 20);
    }
}
