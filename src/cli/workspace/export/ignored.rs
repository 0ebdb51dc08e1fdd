//! Which new files of a guest git would ignore: by the guest's own `.gitignore` files, as they are now, and by what this host ignores beside
//! them. It is git that judges; of a guest's files nothing but those is laid out for it.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::super::error::WorkspaceError;
use super::super::peer::Peer;
use super::contents::{Side, ask};
use super::scratch::Scratch;
use crate::git::Mode;
use crate::host::cmd::CmdError;
use crate::proto::workspace::Difference;

/// The longest `.gitignore`, and all of them together, in bytes; longer ones do not count.
const MAX_FILE: u64 = 4 << 20;
const MAX_ALL: u64 = 64 << 20;

/// The paths among `new` that are ignored. `exclude` is what this host ignores.
pub fn among(
    scratch: &Scratch,
    peer: &mut Peer<'_, '_>,
    differences: &[Difference],
    exclude: &str,
    new: &[&[u8]],
) -> Result<HashSet<Vec<u8>>, WorkspaceError> {
    if new.is_empty() {
        return Ok(HashSet::new());
    }
    lay_out(scratch, peer, differences)?;
    let info = scratch.git_dir().join("info/exclude");
    fs::write(&info, exclude).map_err(WorkspaceError::here("write", &info))?;
    // Else one that begins with a colon would be magic.
    let input: Vec<u8> = new.iter().flat_map(|path| [b"./", *path, b"\0"].concat()).collect();
    let args = ["check-ignore", "-z", "--stdin", "--no-index"];
    let ignored = match scratch.git.read_fed(&args, &input) {
        Ok(ignored) => ignored,
        // None of them (git-check-ignore(1), exit status).
        Err(CmdError::Failed { status, .. }) if status.code() == Some(1) => vec![],
        Err(e) => return Err(e.into()),
    };
    Ok(ignored.split(|b| *b == 0).filter_map(|path| path.strip_prefix(b"./")).map(<[u8]>::to_vec).collect())
}

fn lay_out(
    scratch: &Scratch,
    peer: &mut Peer<'_, '_>,
    differences: &[Difference],
) -> Result<(), WorkspaceError> {
    let mut all = 0;
    let mut fits = |size: u64| {
        all += size;
        size <= MAX_FILE && all <= MAX_ALL
    };
    let files: Vec<&[u8]> = differences
        .iter()
        .filter(|d| d.path == b".gitignore" || d.path.ends_with(b"/.gitignore"))
        // As git, which follows no symlink there.
        .filter(|d| matches!(d.new, Some((Mode::File | Mode::Executable, size)) if fits(size)))
        .map(|d| &*d.path)
        .collect();
    if files.is_empty() {
        return Ok(());
    }
    let tree = scratch.tree();
    ask(peer, &files, |side, number, size, content| match side {
        Side::Old => Ok(()),
        Side::New if size > MAX_FILE => {
            WorkspaceError::refused("a .gitignore of the guest's is longer than the guest said")
        }
        Side::New => {
            // The path has been judged when it was read, and nothing below the tree is a symlink: only we make something here.
            let path = tree.join(Path::new(std::ffi::OsStr::from_bytes(files[number])));
            let mut text = vec![];
            Read::take(content, MAX_FILE)
                .read_to_end(&mut text)
                .and_then(|_| fs::create_dir_all(path.parent().unwrap_or(&tree)))
                .and_then(|()| OpenOptions::new().write(true).create_new(true).open(&path))
                .and_then(|mut file| file.write_all(&text))
                .map_err(WorkspaceError::here("lay out", &path))
        }
    })
}
