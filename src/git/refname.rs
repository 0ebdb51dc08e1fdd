//! Names of refs.

/// Whether git would take it below `refs/heads/` or `refs/tags/` (git-check-ref-format). Such a name is also a safe path.
pub fn is_ref_name(name: &str) -> bool {
    let plain = |component: &str| {
        !component.is_empty()
            && !component.starts_with('.')
            && !component.ends_with(".lock")
            && component.len() <= 255
    };
    name.len() <= 1024
        && name.split('/').all(plain)
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with('.')
        && !name.starts_with('-')
        && !name.bytes().any(|b| b <= b' ' || b == 0x7f || b"~^:?*[\\".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_git_takes_are_taken_and_no_others() {
        for name in ["main", "a/b/c", "v1.0", "über", "@", "a@b", "x.lockd"] {
            assert!(is_ref_name(name), "{name:?}");
        }
        for name in [
            "", "/", "a/", "/a", "a//b", ".a", "a/.b", "..", "a/../b", "a..b", "a.lock", "a.lock/b", "a b",
            "a\n", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "a@{1}", "a.", "-d", "\u{7f}",
        ] {
            assert!(!is_ref_name(name), "{name:?}");
        }
    }
}
