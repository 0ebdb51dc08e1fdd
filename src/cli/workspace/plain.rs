//! A plain directory, whole, without what git has in it.

use super::error::WorkspaceError;
use super::repository::{Listing, directory};
use super::tree::{There, Tree};
use crate::git::parse_path;

/// Everything below `tree`, in order. Of directories only empty ones are items: the others follow from what is in them.
pub fn list(tree: &mut Tree) -> Result<Listing, WorkspaceError> {
    let mut listing = Listing::default();
    let (mut repositories, mut special) = (0, 0);
    // Directories that are still to be read, the next one last.
    let mut left: Vec<Vec<u8>> = vec![vec![]];
    while let Some(dir) = left.pop() {
        let names = tree.names(&dir)?;
        if names.is_empty() && !dir.is_empty() {
            listing.items.push(directory(dir));
            continue;
        }
        let mut below = vec![];
        for name in names {
            if name == b".git" {
                repositories += 1;
                continue;
            }
            let path = if dir.is_empty() { name } else { [&dir[..], b"/", &name].concat() };
            if let Err(e) = parse_path(&path) {
                listing.notes.push(format!("{e}; it stays behind"));
                continue;
            }
            match tree.look(&path)? {
                There::Item(item) => listing.items.push(item),
                There::Directory => below.push(path),
                There::Special => special += 1,
                There::Nothing => {}
            }
        }
        left.extend(below.into_iter().rev());
    }
    if repositories > 0 {
        listing.notes.push(format!("{repositories} .git left out"));
    }
    if special > 0 {
        listing.notes.push(format!("{special} sockets, pipes or devices left out"));
    }
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::git::Mode;
    use crate::host::cmd::git::Patience;

    #[test]
    fn all_of_a_directory_is_listed_but_for_repositories_and_what_is_no_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for name in ["a/b", "a/.git", "empty", ".git"] {
            std::fs::create_dir_all(at(name)).expect("makes");
        }
        for name in ["a/b/f", "a/.git/config", ".git/HEAD", "z"] {
            std::fs::write(at(name), "x").expect("writes");
        }
        symlink("/etc", at("l")).expect("links");
        let _socket = std::os::unix::net::UnixListener::bind(at("s")).expect("binds");
        let listing = list(&mut Tree::open(dir.path(), &Patience::default()).expect("opens")).expect("lists");
        let mut items: Vec<(&[u8], Mode)> = listing.items.iter().map(|i| (&i.path[..], i.mode)).collect();
        items.sort_by_key(|(path, _)| *path);
        let want = [
            (&b"a/b/f"[..], Mode::File),
            (b"empty", Mode::Directory),
            (b"l", Mode::Symlink),
            (b"z", Mode::File),
        ];
        assert_eq!(items, want);
        assert_eq!(listing.notes, ["2 .git left out", "1 sockets, pipes or devices left out"]);
    }
}
