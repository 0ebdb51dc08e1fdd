//! The files that an update may change, besides the executable: looked at, copied, and put back.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::host::files::staged_name;
use crate::release::journal::{Saved, Was};
use crate::updater::disk;

/// What is at `paths`. Each is there once.
pub fn look(paths: impl IntoIterator<Item = PathBuf>) -> io::Result<Vec<Saved>> {
    let mut paths: Vec<PathBuf> = paths.into_iter().collect();
    paths.sort();
    paths.dedup();
    paths.into_iter().enumerate().map(|(number, path)| Ok(Saved { was: was(&path, number)?, path })).collect()
}

fn was(path: &Path, number: usize) -> io::Result<Was> {
    let meta = match std::fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Was::Absent);
        }
        other => other?,
    };
    match () {
        () if meta.is_symlink() => Ok(Was::Link { target: std::fs::read_link(path)? }),
        () if meta.is_file() => {
            Ok(Was::File { copy: number.to_string(), mode: meta.permissions().mode() & 0o7777 })
        }
        () => Err(io::Error::other(format!("{} is neither a file nor a link", path.display()))),
    }
}

/// Copies what `files` were into `directory`.
pub fn save(files: &[Saved], directory: &Path) -> io::Result<()> {
    disk::remove_tree(directory)?;
    crate::host::files::create_private_dir(directory)?;
    for file in files {
        if let Was::File { copy, .. } = &file.was {
            disk::copy(&File::open(&file.path)?, &directory.join(copy), 0o600)?;
        }
    }
    Ok(())
}

/// Makes `files` what they were. What has not changed is not written.
pub fn restore(files: &[Saved], directory: &Path) -> io::Result<()> {
    for Saved { path, was } in files {
        // What was being written when it was cut off.
        disk::remove(&staged_name(path))?;
        match was {
            Was::Absent => disk::remove(path)?,
            Was::Link { target } => {
                if std::fs::read_link(path).ok().as_ref() != Some(target) {
                    disk::point(target, path)?;
                }
            }
            Was::File { copy, mode } => {
                let bytes = std::fs::read(directory.join(copy))?;
                if !is(path, &bytes, *mode) {
                    disk::write(path, &bytes, *mode)?;
                }
            }
        }
    }
    Ok(())
}

fn is(path: &Path, bytes: &[u8], mode: u32) -> bool {
    let meta = std::fs::symlink_metadata(path);
    meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o7777 == mode)
        && std::fs::read(path).is_ok_and(|found| found == bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_links_and_absences_come_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "old").expect("writes");
        std::fs::set_permissions(at("file"), PermissionsExt::from_mode(0o640)).expect("sets the mode");
        symlink("banger", at("link")).expect("links");
        let all = || ["file", "link", "new", "file"].map(at);
        let files = look(all()).expect("looks");
        assert_eq!(files.len(), 3);
        save(&files, &at("saved")).expect("saves");
        // As they are, nothing is to be done.
        restore(&files, &at("saved")).expect("restores");
        std::fs::remove_file(at("file")).expect("removes");
        std::fs::remove_file(at("link")).expect("removes");
        std::fs::write(at("link"), "a file now").expect("writes");
        std::fs::write(at("new"), "new").expect("writes");
        for _ in 0..2 {
            restore(&files, &at("saved")).expect("restores");
            assert_eq!(look(all()).expect("looks"), files);
            assert_eq!(std::fs::read(at("file")).expect("reads"), b"old");
        }
        std::fs::create_dir(at("directory")).expect("makes one");
        look([at("directory")]).expect_err("neither");
    }
}
