//! Whiteouts: how a layer deletes what the layers below hold. `.wh.NAME` deletes NAME; `.wh..wh..opq` empties its
//! directory first (image-spec layer.md, "Whiteouts").

/// What a layer entry's last name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A file like any other.
    Plain,
    /// Deletes this sibling, as the layers below have it.
    Deletes(&'a [u8]),
    /// Deletes all siblings, as the layers below have them.
    Opaque,
    /// AUFS's own bookkeeping (`.wh..wh.plnk` and the like), which docker leaves out too.
    Ignored,
    /// A whiteout of nothing, of `.` or of `..`.
    Bad,
}

/// Judges the last name of an entry's path.
pub fn judge(name: &[u8]) -> Entry<'_> {
    match name.strip_prefix(b".wh.") {
        None => Entry::Plain,
        Some(b".wh..opq") => Entry::Opaque,
        Some(rest) if rest.starts_with(b".wh.") => Entry::Ignored,
        Some(b"" | b"." | b"..") => Entry::Bad,
        Some(rest) => Entry::Deletes(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged() {
        let table: [(&[u8], Entry<'_>); 9] = [
            (b"a", Entry::Plain),
            (b".wh", Entry::Plain),
            (b"x.wh.a", Entry::Plain),
            (b".wh.a", Entry::Deletes(b"a")),
            (b".wh..a", Entry::Deletes(b".a")),
            (b".wh..wh..opq", Entry::Opaque),
            (b".wh..wh.plnk", Entry::Ignored),
            (b".wh.", Entry::Bad),
            (b".wh...", Entry::Bad),
        ];
        for (name, want) in table {
            assert_eq!(judge(name), want, "{}", name.escape_ascii());
        }
    }
}
