//! git's index, as `ls-files -s -v -z` prints it, and trees, as `ls-tree -r -z` does: both as entries of an index.

use super::error::WorkspaceError;
use crate::git::index::{BadEntry, Entry, Flags};
use crate::git::{Format, Hasher, Id};

/// Each entry of an index, of whatever stage.
///
/// # Errors
/// A path that git would not check out: whoever made such an index wants something else than a work tree.
pub fn parse(listing: &[u8], format: Format) -> Result<Vec<Entry>, WorkspaceError> {
    lines(listing).map(|line| tagged(line, format)).collect()
}

/// Each entry of a tree.
pub fn parse_tree(listing: &[u8], format: Format) -> Result<Vec<Entry>, WorkspaceError> {
    let entry = |line: &[u8]| {
        // `mode type id TAB path`
        let mut words = line.splitn(3, |b| *b == b' ');
        let [mode, _, rest] = [(); 3].map(|()| words.next().unwrap_or_default());
        let tab = rest.iter().position(|b| *b == b'\t').unwrap_or(rest.len());
        let line = [mode, b" ", &rest[..tab], b" 0", &rest[tab..]].concat();
        Entry::parse(&line, format).map_err(refused)
    };
    lines(listing).map(entry).collect()
}

fn lines(listing: &[u8]) -> impl Iterator<Item = &[u8]> {
    listing.split(|b| *b == 0).filter(|line| !line.is_empty())
}

/// `tag mode id stage TAB path`: the tag is `S` for skip-worktree, and a small letter for assume-unchanged (git-ls-files(1), -t and -v).
fn tagged(line: &[u8], format: Format) -> Result<Entry, WorkspaceError> {
    let [tag, b' ', line @ ..] = line else { return Err(refused(BadEntry::Line(line.to_vec()))) };
    let mut entry = Entry::parse(line, format).map_err(refused)?;
    let (skipped, assumed) = (tag.eq_ignore_ascii_case(&b'S'), tag.is_ascii_lowercase());
    entry.flags = Flags { assumed, skipped, announced: false };
    Ok(entry)
}

fn refused(e: BadEntry) -> WorkspaceError {
    WorkspaceError::Refused(match e {
        BadEntry::Path(e) => format!("the repository is not to be trusted: {e}"),
        BadEntry::Line(line) => format!("git lists \"{}\", which is not understood", line.escape_ascii()),
    })
}

/// Whether it may be one that is announced only (`git add -N`): git has it as an empty file.
pub fn may_be_announced(entry: &Entry, format: Format) -> bool {
    entry.stage == 0 && entry.id == Hasher::object(format, "blob", 0).finish()
}

/// Marks those of `entries` that are announced only. `told` is what `ls-files -z --debug` prints: after the NUL of each path five lines about it, the
/// last of which ends in its flags. That is for people, and may change; then none is marked.
pub fn mark_announced(entries: &mut [Entry], told: &[u8], format: Format) {
    const ANNOUNCED: u32 = 1 << 29;
    let mut entries = entries.iter_mut().peekable();
    let mut path = vec![];
    for part in told.split(|b| *b == 0) {
        // What is said of the path before, and the next one.
        let mut lines = part.splitn(6, |b| *b == b'\n');
        let flags = lines.nth(4).and_then(|line| std::str::from_utf8(line).ok()?.rsplit_once("flags: "));
        let flags = flags.and_then(|(_, flags)| u32::from_str_radix(flags, 16).ok()).unwrap_or(0);
        if flags & ANNOUNCED != 0
            && let Some(entry) = entries.find(|entry| entry.path == path)
        {
            entry.flags.announced = may_be_announced(entry, format);
        }
        path = lines.next().unwrap_or(part).to_vec();
    }
}

/// What is sent of an index.
pub fn written(entries: &[Entry]) -> Vec<u8> {
    let mut lines = vec![];
    entries.iter().for_each(|entry| entry.write_line(&mut lines));
    lines
}

/// Whether it is an object's name in full.
pub fn is_id(text: &str) -> bool {
    Id::parse(text.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::Mode;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn parse(listing: &[u8]) -> Result<Vec<Entry>, WorkspaceError> {
        super::parse(listing, Format::Sha1)
    }

    #[test]
    fn an_index_is_read_with_every_kind_of_name() {
        let mut listing = format!("H 100644 {ID} 0\ta\n\tb\0M 120000 {ID} 2\tl").into_bytes();
        listing.extend(b"\xff\0");
        let read = parse(&listing).expect("reads");
        let paths: Vec<(Mode, u8, &[u8])> = read.iter().map(|e| (e.mode, e.stage, &e.path[..])).collect();
        assert_eq!(paths, [(Mode::File, 0, &b"a\n\tb"[..]), (Mode::Symlink, 2, &b"l\xff"[..])]);
        for bad in ["H 100644 0123 0\ta", "100644\ta", "755 x", &format!("100644 {ID} 0\ta")] {
            let error = parse(format!("{bad}\0").as_bytes()).expect_err(bad).to_string();
            assert!(error.ends_with(", which is not understood"), "{error}");
        }
    }

    #[test]
    fn flags_are_taken_from_tags() {
        let listing = ["H", "h", "S", "s"].map(|tag| format!("{tag} 100644 {ID} 0\t{tag}\0")).concat();
        let flags: Vec<Flags> =
            parse(listing.as_bytes()).expect("reads").into_iter().map(|entry| entry.flags).collect();
        let want = [(false, false), (true, false), (false, true), (true, true)];
        assert_eq!(flags, want.map(|(assumed, skipped)| Flags { assumed, skipped, announced: false }));
    }

    #[test]
    fn an_index_that_names_gits_own_files_is_refused() {
        for path in [".git/hooks/post-checkout", "../x", "a/.GIT/config", "/etc/passwd"] {
            let error = parse(format!("H 100755 {ID} 0\t{path}\0").as_bytes()).expect_err(path).to_string();
            assert!(error.starts_with("the repository is not to be trusted: "), "{error}");
        }
    }

    #[test]
    fn a_tree_is_an_index_too() {
        let listing = format!("100755 blob {ID}\tx y\0160000 commit {ID}\tsub\0");
        let entries = parse_tree(listing.as_bytes(), Format::Sha1).expect("reads");
        let index = format!("100755 {ID} 0\tx y\0160000 {ID} 0\tsub\0");
        assert_eq!(written(&entries), index.into_bytes());
        for bad in ["100755 blob\tx", "100755\tx", "100755 blob 12\tx"] {
            assert!(parse_tree(bad.as_bytes(), Format::Sha1).is_err(), "{bad}");
        }
    }
}
