//! git's index, as `ls-files -s -z` prints it, and trees, as `ls-tree -r -z` does.

use super::error::WorkspaceError;
use crate::git::{Id, Mode, parse_path};

/// What the index, or a tree, says of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    pub mode: Mode,
    pub id: String,
    pub path: Vec<u8>,
}

/// Each entry of an index, of whatever stage.
///
/// # Errors
/// A path that git would not check out: whoever made such an index wants something else than a work tree.
pub fn parse(listing: &[u8]) -> Result<Vec<Tracked>, WorkspaceError> {
    listing.split(|b| *b == 0).filter(|line| !line.is_empty()).map(|line| entry(line, 1)).collect()
}

/// Each entry of a tree, and the index that holds just them.
pub fn parse_tree(listing: &[u8]) -> Result<(Vec<Tracked>, Vec<u8>), WorkspaceError> {
    let (mut entries, mut index) = (vec![], vec![]);
    for line in listing.split(|b| *b == 0).filter(|line| !line.is_empty()) {
        let tracked = entry(line, 2)?;
        index.extend_from_slice(format!("{} {} 0\t", tracked.mode.word(), tracked.id).as_bytes());
        index.extend_from_slice(&tracked.path);
        index.push(0);
        entries.push(tracked);
    }
    Ok((entries, index))
}

/// `mode id stage TAB path`, or `mode type id TAB path`: the id is the word at `at`.
fn entry(line: &[u8], at: usize) -> Result<Tracked, WorkspaceError> {
    let bad =
        || WorkspaceError::Refused(format!("git lists \"{}\", which is not understood", line.escape_ascii()));
    let tab = line.iter().position(|b| *b == b'\t').ok_or_else(bad)?;
    let words: Vec<&[u8]> = line[..tab].split(|b| *b == b' ').collect();
    let [mode, ..] = words[..] else { return Err(bad()) };
    let mode = Mode::listed(mode).ok_or_else(bad)?;
    let id =
        words.get(at).and_then(|id| std::str::from_utf8(id).ok()).filter(|id| is_id(id)).ok_or_else(bad)?;
    let path = parse_path(&line[tab + 1..])
        .map_err(|e| WorkspaceError::Refused(format!("the repository is not to be trusted: {e}")))?;
    Ok(Tracked { mode, id: id.to_owned(), path: path.to_vec() })
}

/// Whether it is an object's name in full.
pub fn is_id(text: &str) -> bool {
    Id::parse(text.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn an_index_is_read_with_every_kind_of_name() {
        let mut listing = format!("100644 {ID} 0\ta\n\tb\0120000 {ID} 2\tl").into_bytes();
        listing.extend(b"\xff\0");
        let read = parse(&listing).expect("reads");
        let paths: Vec<(Mode, &[u8])> = read.iter().map(|t| (t.mode, &t.path[..])).collect();
        assert_eq!(paths, [(Mode::File, &b"a\n\tb"[..]), (Mode::Symlink, &b"l\xff"[..])]);
        for bad in ["100644 0123 0\ta", "100644\ta", "", "755 x"] {
            assert!(parse(format!("{bad}\0").as_bytes()).is_err() || bad.is_empty(), "{bad}");
        }
    }

    #[test]
    fn an_index_that_names_gits_own_files_is_refused() {
        for path in [".git/hooks/post-checkout", "../x", "a/.GIT/config", "/etc/passwd"] {
            let error = parse(format!("100755 {ID} 0\t{path}\0").as_bytes()).expect_err(path).to_string();
            assert!(error.starts_with("the repository is not to be trusted: "), "{error}");
        }
    }

    #[test]
    fn a_tree_is_an_index_too() {
        let listing = format!("100755 blob {ID}\tx\0160000 commit {ID}\tsub\0");
        let (entries, index) = parse_tree(listing.as_bytes()).expect("reads");
        assert_eq!(entries.len(), 2);
        assert_eq!(parse(&index).expect("reads"), entries);
    }
}
