//! The directory for what is not believed yet: root's alone, and empty when an update begins.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::host::files::remove_tree_if_present;
use crate::updater::error::{At, UpdateError};

/// Empties and makes it.
///
/// # Errors
/// A sentence where somebody else could put things into it, or in its place: every directory above must be root's, too (A16).
pub fn clean(staging: &Path) -> Result<(), UpdateError> {
    let parent = staging.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(parent)
        .map_err(At::Prepare.io(format!("create {}", parent.display())))?;
    for above in parent.ancestors() {
        let meta = std::fs::symlink_metadata(above)
            .map_err(At::Prepare.io(format!("look at {}", above.display())))?;
        let sticky = meta.mode() & 0o1000 != 0;
        let ours = meta.uid() == 0 || meta.uid() == geteuid().as_raw();
        if !meta.is_dir() || !ours || (meta.mode() & 0o022 != 0 && !sticky) {
            return Err(At::Prepare.said(format!(
                "{} is not root's alone, so what is staged below it could be exchanged; `chown root` and `chmod go-w` it",
                above.display()
            )));
        }
    }
    // A directory of ours that cannot be exchanged; what is in it is removed without following links.
    if std::fs::symlink_metadata(staging).is_ok_and(|meta| !meta.is_dir()) {
        std::fs::remove_file(staging).map_err(At::Prepare.io(format!("remove {}", staging.display())))?;
    }
    remove_tree_if_present(staging).map_err(At::Prepare.io(format!("empty {}", staging.display())))?;
    DirBuilder::new()
        .mode(0o700)
        .create(staging)
        .map_err(At::Prepare.io(format!("create {}", staging.display())))
}

/// Where the executable is staged.
pub fn executable(staging: &Path) -> PathBuf {
    staging.join("banger")
}

/// A new file that is to be the executable.
pub fn create_executable(staging: &Path) -> io::Result<File> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let path = executable(staging);
    let file = File::options().write(true).create_new(true).mode(0o755).open(&path)?;
    // Whatever the umask is.
    file.set_permissions(PermissionsExt::from_mode(0o755))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn it_is_emptied_and_nobody_elses() {
        let dir = tempfile::tempdir().expect("a directory");
        let staging = dir.path().join("cache/updates");
        clean(&staging).expect("makes it");
        std::fs::write(staging.join("left"), "x").expect("writes");
        clean(&staging).expect("empties it");
        assert_eq!(std::fs::read_dir(&staging).expect("lists").count(), 0);
        assert_eq!(std::fs::metadata(&staging).expect("stats").mode() & 0o777, 0o700);
        // A link in its place leads nowhere.
        let other = dir.path().join("other");
        std::fs::create_dir(&other).expect("makes a directory");
        std::fs::write(other.join("kept"), "x").expect("writes");
        std::fs::remove_dir(&staging).expect("removes");
        symlink(&other, &staging).expect("links");
        clean(&staging).expect("makes it");
        assert!(other.join("kept").exists() && !staging.is_symlink());
        let cache = dir.path().join("cache");
        std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o777)).expect("sets the mode");
        let error = clean(&staging).expect_err("open to all").to_string();
        assert!(error.contains("is not root's alone"), "{error}");
    }
}
