//! What a path is: the modes that git knows, and the empty directory that it does not.

/// The kind of a path, as git has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    File,
    Executable,
    Symlink,
    /// A submodule.
    Gitlink,
    /// A directory; only where nothing is in it (plain copies, and submodules that are not checked out).
    Directory,
}

impl Mode {
    /// As git writes it: `100644`.
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "100644",
            Self::Executable => "100755",
            Self::Symlink => "120000",
            Self::Gitlink => "160000",
            Self::Directory => "040000",
        }
    }

    pub fn parse(word: &[u8]) -> Option<Self> {
        [Self::File, Self::Executable, Self::Symlink, Self::Gitlink, Self::Directory]
            .into_iter()
            .find(|mode| mode.word().as_bytes() == word)
    }

    /// As git lists it of an index or a tree: gits of old times stored group-writable files with a mode of their own.
    pub fn listed(word: &[u8]) -> Option<Self> {
        if word == b"100664" { Some(Self::File) } else { Self::parse(word) }
    }
}
