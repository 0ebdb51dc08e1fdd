//! A module tree on its way from a package or a directory into a guest: names in memory, contents in a nameless file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::host::files::nameless;

/// What lies at a path of the tree, which is relative to /lib/modules/<version>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    Directory,
    File(&'a [u8]),
}

/// A tree of directories and files, with all directories above each file.
#[derive(Debug)]
pub struct Tree {
    entries: BTreeMap<String, Node>,
    spool: File,
    end: u64,
}

#[derive(Debug, Clone, Copy)]
enum Node {
    Directory,
    File { at: u64, length: usize },
}

/// The most files of a tree; a distribution's kernel with every driver has about 7,000.
const MAX_ENTRIES: usize = 100_000;
/// The most bytes of a tree; a distribution's kernel with every driver has about 700 MB.
const MAX_BYTES: u64 = 8 << 30;

impl Tree {
    /// An empty tree, whose contents go to a file in the directory `scratch`, without a name there: it is gone with the
    /// tree, whatever happens.
    pub fn new(scratch: &Path) -> io::Result<Self> {
        Ok(Self { entries: BTreeMap::new(), spool: nameless(scratch)?, end: 0 })
    }

    /// Adds a file; one of the same path is replaced.
    ///
    /// # Errors
    /// `InvalidInput` for a path that is not made of plain names, or has a file for a directory; `FileTooLarge` for
    /// too much of anything; the spool's own.
    pub fn add(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let plain = |name: &str| !matches!(name, "" | "." | "..") && !name.contains(|c: char| c.is_control());
        let bad = || io::Error::new(io::ErrorKind::InvalidInput, format!("unusable path {path:?}"));
        if path.len() > 1024 || !path.split('/').all(plain) {
            return Err(bad());
        }
        if matches!(self.entries.get(path), Some(Node::Directory)) {
            return Err(bad());
        }
        let end = self.end.saturating_add(content.len() as u64);
        if self.entries.len() >= MAX_ENTRIES || end > MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more modules than any kernel has"));
        }
        for (i, _) in path.match_indices('/') {
            match self.entries.entry(path[..i].to_owned()).or_insert(Node::Directory) {
                Node::Directory => {}
                Node::File { .. } => return Err(bad()),
            }
        }
        self.spool.write_all(content)?;
        let node = Node::File { at: self.end, length: content.len() };
        self.entries.insert(path.to_owned(), node);
        self.end = end;
        Ok(())
    }

    /// The content of a file; None if there is none of this path.
    pub fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        match self.entries.get(path) {
            Some(Node::File { at, length }) => self.load(*at, *length).map(Some),
            Some(Node::Directory) | None => Ok(None),
        }
    }

    /// The paths of all files, in order.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .filter(|(_, node)| matches!(node, Node::File { .. }))
            .map(|(path, _)| path.as_str())
    }

    /// Calls `visit` with every entry, a directory before what is in it, in the order of the paths. One file at a time is in
    /// memory.
    pub fn walk<E: From<io::Error>>(
        &self,
        mut visit: impl FnMut(&str, Entry<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (path, node) in &self.entries {
            match node {
                Node::Directory => visit(path, Entry::Directory)?,
                Node::File { at, length } => visit(path, Entry::File(&self.load(*at, *length)?))?,
            }
        }
        Ok(())
    }

    #[cfg(test)]
    /// Writes the tree into `directory`, which must be empty, with the modes 0755 and 0644 whatever the umask is.
    pub fn unpack(&self, directory: &Path) -> io::Result<()> {
        use std::fs::Permissions;
        use std::os::unix::fs::PermissionsExt;
        // Every path is made of plain names, and the directory holds nothing but what we make: no symlink to follow.
        self.walk(|path, entry| {
            let path = directory.join(path);
            let mode = match entry {
                Entry::Directory => {
                    std::fs::create_dir(&path)?;
                    0o755
                }
                Entry::File(content) => {
                    File::create_new(&path)?.write_all(content)?;
                    0o644
                }
            };
            std::fs::set_permissions(&path, Permissions::from_mode(mode))
        })
    }

    fn load(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut content = vec![0; length];
        self.spool.read_exact_at(&mut content, at)?;
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = Tree::new(dir.path()).expect("a tree");
        (dir, tree)
    }

    #[test]
    fn what_is_added_is_found_walked_and_unpacked() {
        let (dir, mut tree) = tree();
        tree.add("kernel/fs/b.ko", b"old").expect("adds");
        tree.add("kernel/a.ko", b"aa").expect("adds");
        tree.add("kernel/fs/b.ko", b"new").expect("replaces");
        assert_eq!(tree.read("kernel/fs/b.ko").expect("reads"), Some(b"new".to_vec()));
        assert_eq!(tree.read("kernel/fs").expect("reads"), None);
        assert_eq!(tree.files().collect::<Vec<_>>(), ["kernel/a.ko", "kernel/fs/b.ko"]);
        let mut seen = vec![];
        tree.walk(|path, entry| {
            seen.push((path.to_owned(), entry == Entry::Directory));
            Ok::<_, io::Error>(())
        })
        .expect("walks");
        let want = [("kernel", true), ("kernel/a.ko", false), ("kernel/fs", true), ("kernel/fs/b.ko", false)];
        assert_eq!(seen, want.map(|(p, d)| (p.to_owned(), d)));
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 0, "the spool has no name");
        tree.unpack(dir.path()).expect("unpacks");
        assert_eq!(std::fs::read(dir.path().join("kernel/fs/b.ko")).expect("reads"), b"new");
    }

    #[test]
    fn a_path_that_could_leave_the_tree_is_refused() {
        let (_dir, mut tree) = tree();
        tree.add("a/b", b"").expect("adds");
        for path in ["", "/etc/passwd", "../x", "a/../../x", "a//c", "a/./c", "x\n", "a", "a/b/c"] {
            let error = tree.add(path, b"").expect_err(path);
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }
}
