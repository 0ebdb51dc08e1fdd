//! A member's path, normalised as docker does (Go's filepath.Clean), before anything is looked up by it.

/// The longest path and the longest name, in bytes (path_resolution(7)), and the deepest tree.
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;
pub const MAX_DEPTH: usize = 256;

/// The names from the root to what is meant; none for the root itself. Absolute paths begin at the root too.
///
/// # Errors
/// What is wrong with it, to be said of the member.
pub fn normalise(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if path.len() > MAX_PATH {
        return Err("has a path longer than 4096 bytes");
    }
    let mut names: Vec<&[u8]> = vec![];
    for name in path.split(|b| *b == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop().ok_or("has a path that leads out of the image")?;
            }
            name if name.len() > MAX_NAME => return Err("has a name longer than 255 bytes"),
            name if name.contains(&0) => return Err("has a name with a NUL in it"),
            name => names.push(name),
        }
    }
    if names.len() > MAX_DEPTH { Err("lies deeper than 256 directories") } else { Ok(names) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_or_refused() {
        let long = vec![b'x'; 256];
        let deep = b"d/".repeat(257);
        let table: [(&[u8], Option<&str>); 14] = [
            (b"a/b", Some("a/b")),
            (b"./a//b/", Some("a/b")),
            (b"/etc/passwd", Some("etc/passwd")),
            (b"a/../b", Some("b")),
            (b".", Some("")),
            (b"", Some("")),
            (b"./", Some("")),
            (b"a/..", Some("")),
            (b"..", None),
            (b"a/../../b", None),
            (b"/..", None),
            (b"a\0b", None),
            (&long, None),
            (&deep, None),
        ];
        for (path, want) in table {
            let got =
                normalise(path).ok().map(|names| String::from_utf8_lossy(&names.join(&b'/')).into_owned());
            assert_eq!(got.as_deref(), want, "{}", path.escape_ascii());
        }
    }
}
