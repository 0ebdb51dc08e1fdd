//! Which paths may be created below a work tree.

use std::fmt;

/// The longest path, in bytes (PATH_MAX).
pub const MAX_PATH: usize = 4096;

/// A path that git would not check out; a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPath(String);

/// A path that is safe to create below a work tree: relative, without empty, `.` and `..` components, without NUL, and without a component
/// that some file system would take for `.git` (git's verify_path: case, `git~1`, trailing dots and spaces, ignored Unicode).
pub fn parse_path(path: &[u8]) -> Result<&[u8], BadPath> {
    let refused = |why: &str| Err(BadPath(format!("the path \"{}\" {why}", path.escape_ascii())));
    if path.is_empty() || path.len() > MAX_PATH {
        return refused("is empty or too long");
    }
    if path.contains(&0) {
        return refused("holds a NUL");
    }
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" | b"." | b".." => return refused("is not relative and plain"),
            component if is_dot_git(component) => return refused("would be git's own"),
            _ => {}
        }
    }
    Ok(path)
}

/// Whether a component is `.git`, or would be on HFS+ or NTFS (git's is_hfs_dotgit, is_ntfs_dotgit).
fn is_dot_git(component: &[u8]) -> bool {
    let text = String::from_utf8_lossy(component);
    // What HFS+ ignores (git utf8.c, next_hfs_char).
    let ignored = |c: &char| matches!(*c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let plain: String = text.chars().filter(|c| !ignored(c)).collect::<String>().to_lowercase();
    // NTFS: streams after a colon, and backslashes that separate there.
    plain.split('\\').any(|part| {
        let part = part.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
        part == ".git" || part == "git~1"
    })
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadPath {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_git_would_not_check_out_is_refused() {
        for path in ["a", "a/b", ".gitignore", ".github/x", "a/.gitmodules", "-x", "a\nb", "git", "c:d"] {
            assert!(parse_path(path.as_bytes()).is_ok(), "{path:?}");
        }
        for path in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "./a",
            ".git",
            ".git/hooks/x",
            "a/.GIT/config",
            ".git.",
            ".git ",
            "git~1/x",
            ".g\u{200c}it/config",
            ".git::$INDEX_ALLOCATION",
            "a\\.git\\x",
            "a\0b",
        ] {
            assert!(parse_path(path.as_bytes()).is_err(), "{path:?}");
        }
        assert!(parse_path(&[b'a'; MAX_PATH + 1]).is_err());
    }
}
