//! Refs of a repository, as files and packed (git's files backend): read without git, and set.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::git::{Id, is_ref_name};

/// The longest file of a ref that is read.
const MAX_REF: u64 = 4096;
/// What of packed-refs is read, in bytes.
const MAX_PACKED: u64 = 256 << 20;

/// Where HEAD is: the commit, if there is one, and the branch, if it is on one, without `refs/heads/`.
pub fn head(git: &Path) -> (Option<String>, Option<String>) {
    let mut name = "HEAD".to_owned();
    let mut branch = None;
    // git follows no more than five either.
    for _ in 0..5 {
        let text = match loose(git, &name) {
            Some(text) => text,
            None => match packed(git).unwrap_or_default().remove(&name) {
                Some(id) => id,
                None => return (None, branch),
            },
        };
        match text.strip_prefix("ref: ") {
            Some(target) => {
                name = target.trim().to_owned();
                match name.strip_prefix("refs/") {
                    Some(rest) if is_ref_name(rest) => {
                        branch = rest.strip_prefix("heads/").map(str::to_owned)
                    }
                    _ => return (None, None),
                }
            }
            None => return (Id::parse(text.as_bytes()).map(|id| id.to_string()), branch),
        }
    }
    (None, branch)
}

/// What a ref below `refs/` points to.
pub fn get(git: &Path, name: &str) -> Option<String> {
    let text = loose(git, name).or_else(|| packed(git).ok()?.remove(name))?;
    Id::parse(text.as_bytes()).map(|id| id.to_string())
}

fn loose(git: &Path, name: &str) -> Option<String> {
    read(&git.join(name), MAX_REF).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The text of a small file; None: it is not there, or is none.
pub fn read(path: &Path, most: u64) -> Option<String> {
    // A fifo would be waited for.
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    fs::File::open(path).ok()?.take(most).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Refs in packed-refs, by name.
pub fn packed(git: &Path) -> io::Result<BTreeMap<String, String>> {
    let path = git.join("packed-refs");
    let text = match fs::File::open(&path) {
        Ok(file) => {
            let mut bytes = vec![];
            file.take(MAX_PACKED).read_to_end(&mut bytes)?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(e),
    };
    let mut refs = BTreeMap::new();
    for line in text.lines() {
        // `#` is the header's, `^` what the tag before it leads to, which git can find by itself.
        if let Some((id, name)) = line.split_once(' ').filter(|_| !line.starts_with(['#', '^'])) {
            refs.insert(name.to_owned(), id.to_owned());
        }
    }
    Ok(refs)
}

/// Adds tags to packed-refs. One that the guest has as a file of its own keeps hiding the packed one.
pub fn add_tags(git: &Path, tags: &[(String, String)]) -> io::Result<()> {
    if tags.is_empty() {
        return Ok(());
    }
    let mut refs = packed(git)?;
    refs.extend(tags.iter().map(|(name, id)| (format!("refs/tags/{name}"), id.clone())));
    let mut text = "# pack-refs with: sorted \n".to_owned();
    for (name, id) in refs {
        text += &format!("{id} {name}\n");
    }
    replace(&git.join("packed-refs"), text.as_bytes())
}

/// Why a branch cannot be set: git has no branch below another one.
pub fn conflict(git: &Path, branch: &str) -> Option<String> {
    let packed = packed(git).unwrap_or_default();
    let heads = git.join("refs/heads");
    let mut above = branch;
    while let Some((shorter, _)) = above.rsplit_once('/') {
        above = shorter;
        if heads.join(above).is_file() || packed.contains_key(&format!("refs/heads/{above}")) {
            return Some(above.to_owned());
        }
    }
    let below = format!("refs/heads/{branch}/");
    if packed.keys().any(|name| name.starts_with(&below)) {
        return Some(format!("{branch}/..."));
    }
    holds_files(&heads.join(branch)).then(|| format!("{branch}/..."))
}

fn holds_files(directory: &Path) -> bool {
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => waiting.push(entry.path()),
                _ => return true,
            }
        }
    }
    false
}

/// Sets a ref below `refs/`. What it points to is given to `leaves` first, while git is kept from changing it.
pub fn set(
    git: &Path,
    name: &str,
    id: &str,
    leaves: impl FnOnce(Option<String>) -> io::Result<()>,
) -> io::Result<()> {
    let path = git.join(name);
    if path.is_dir() {
        // git leaves empty directories where branches have been.
        remove_empty(&path).map_err(|e| match e.kind() {
            io::ErrorKind::DirectoryNotEmpty => {
                io::Error::other(format!("{name} cannot be made: something below it has been made meanwhile"))
            }
            _ => e,
        })?;
    }
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    replace_by(&path, |out| {
        leaves(get(git, name))?;
        writeln!(out, "{id}")?;
        Ok(true)
    })
}

/// Removes a directory in which there are only directories.
fn remove_empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

/// Keeps a commit as `refs/banger/before/N`, and returns that name, unless one of them is it already.
pub fn keep_before(git: &Path, id: &str) -> io::Result<Option<String>> {
    let mut number = 1;
    while let Some(kept) = get(git, &format!("refs/banger/before/{number}")) {
        if kept == id {
            return Ok(None);
        }
        number += 1;
    }
    let name = format!("refs/banger/before/{number}");
    set(git, &name, id, |_| Ok(()))?;
    Ok(Some(name))
}

/// The file by which git keeps others from changing `path`.
pub fn lock_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Replaces a file of a repository as git does: it is there whole, or as it was, and a git that is at work keeps us off.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_by(path, |out| out.write_all(content).map(|()| true))
}

/// The same by what `write` writes; if it says false, the file stays as it is.
pub fn replace_by(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<bool>) -> io::Result<()> {
    let lock = lock_of(path);
    let file = match OpenOptions::new().write(true).create_new(true).open(&lock) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            return Err(io::Error::other(format!("git is at work there: {} exists", lock.display())));
        }
        other => other?,
    };
    let mut out = io::BufWriter::new(file);
    let written = write(&mut out).and_then(|replaces| {
        out.flush()?;
        if replaces { fs::rename(&lock, path) } else { fs::remove_file(&lock) }
    });
    if written.is_err() {
        drop(fs::remove_file(&lock));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    #[test]
    fn what_a_ref_is_moved_from_is_told_while_git_is_kept_from_moving_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let git = dir.path();
        fs::create_dir_all(git.join("refs/heads/a/b")).expect("makes");
        set(git, "refs/heads/a", ONE, |was| {
            assert_eq!((was, git.join("refs/heads/a.lock").exists()), (None, true));
            Ok(())
        })
        .expect("sets");
        let refused = set(git, "refs/heads/a", TWO, |was| {
            assert_eq!((was.as_deref(), git.join("refs/heads/a.lock").exists()), (Some(ONE), true));
            Err(io::Error::other("no"))
        });
        refused.expect_err("is not moved");
        assert_eq!(get(git, "refs/heads/a").as_deref(), Some(ONE));
    }
}
