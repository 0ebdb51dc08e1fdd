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

/// The longest `.gitignore`, and all of them together, in bytes; what is beyond does not count. git tries each line on each path, so a guest
/// that may say as much as it likes keeps this host busy for ever.
const MAX_FILE: u64 = 256 << 10;
const MAX_ALL: u64 = 2 << 20;

/// The paths among `new` that are ignored. `exclude` is what this host ignores.
pub fn among(
    scratch: &Scratch,
    peer: &mut Peer<'_, '_>,
    differences: &[Difference],
    exclude: &str,
    new: &[&[u8]],
    notes: &mut Vec<String>,
) -> Result<HashSet<Vec<u8>>, WorkspaceError> {
    if new.is_empty() {
        return Ok(HashSet::new());
    }
    lay_out(scratch, peer, differences, notes)?;
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
    notes: &mut Vec<String>,
) -> Result<(), WorkspaceError> {
    let (files, beyond) = that_count(differences);
    if let [first, ..] = beyond[..] {
        let first = String::from_utf8_lossy(first);
        notes.push(match beyond.len() {
            1 => format!("{first} is too long and does not count; what it ignores is taken too"),
            count => format!(
                "{count} .gitignore files are too long and do not count, {first} for one; what they ignore is taken too"
            ),
        });
    }
    if files.is_empty() {
        return Ok(());
    }
    let tree = scratch.tree();
    let paths: Vec<&[u8]> = files.iter().map(|(path, _)| *path).collect();
    ask(peer, &paths, |side, number, size, content| match side {
        Side::Old => Ok(()),
        Side::New if size > files[number].1 => {
            let path = String::from_utf8_lossy(files[number].0);
            WorkspaceError::refused(format!("{path} is longer than the guest said; try again"))
        }
        Side::New => {
            // The path has been judged when it was read, and nothing below the tree is a symlink: only we make something here.
            let path = tree.join(Path::new(std::ffi::OsStr::from_bytes(files[number].0)));
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

/// The `.gitignore` files that count, with how long they are, and those that are beyond all measure.
#[expect(clippy::type_complexity, reason = "two lists of paths")]
fn that_count(differences: &[Difference]) -> (Vec<(&[u8], u64)>, Vec<&[u8]>) {
    let (mut files, mut beyond, mut all) = (vec![], vec![], 0_u64);
    for d in differences.iter().filter(|d| d.path == b".gitignore" || d.path.ends_with(b"/.gitignore")) {
        // As git, which follows no symlink there.
        let Some((Mode::File | Mode::Executable, size)) = d.new else { continue };
        // One that does not fit takes no room from those behind it.
        match all.checked_add(size).filter(|all| size <= MAX_FILE && *all <= MAX_ALL) {
            Some(more) => {
                all = more;
                files.push((&*d.path, size));
            }
            None => beyond.push(&*d.path),
        }
    }
    (files, beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gitignore_beyond_all_measure_does_not_count_and_those_behind_it_do() {
        let file = |path: &str, size| Difference {
            old: None,
            new: Some((Mode::File, size)),
            differs: true,
            path: path.as_bytes().to_vec(),
        };
        let mut link = file("l/.gitignore", 1);
        link.new = Some((Mode::Symlink, 1));
        let list = [
            file(".gitignore", u64::MAX),
            file("a/.gitignore", MAX_FILE),
            file("b/.gitignore", u64::MAX),
            file("c/.gitignore", MAX_FILE + 1),
            file("d/.gitignore", 7),
            file("d/x.gitignore", 7),
            link,
        ];
        let (files, beyond) = that_count(&list);
        assert_eq!(files, [(&b"a/.gitignore"[..], MAX_FILE), (b"d/.gitignore", 7)]);
        assert_eq!(beyond, [&b".gitignore"[..], b"b/.gitignore", b"c/.gitignore"]);
        let many: Vec<Difference> = (0..20)
            .map(|n| file(&format!("{n:02}/.gitignore"), MAX_FILE - 1))
            .chain([file("z/.gitignore", 8)])
            .collect();
        let (files, beyond) = that_count(&many);
        assert_eq!((files.len(), beyond.len()), (9, 12), "the small one still fits");
    }
}
