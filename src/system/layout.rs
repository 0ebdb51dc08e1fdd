//! Where an installation's files are, all of them root's.

use std::path::{Path, PathBuf};

use crate::host::dirs::Dirs;

/// The personalities that are symlinks to the executable beside them.
pub const PERSONALITIES: [&str; 3] = ["bangerd", "bangerd-root", "banger-vsock"];

/// The directories of an installation that are root's to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Where the executable and its symlinks are.
    pub bin: PathBuf,
    /// systemd's units, of the administrator.
    pub units: PathBuf,
    /// What shells, and others that read below `share`, look for.
    pub share: PathBuf,
    /// What an update downloads and looks at before it is believed. Every directory above it is root's.
    pub staging: PathBuf,
    /// An update's journal, and what it puts back when it fails. It outlives a reboot, and nobody else can write there.
    pub keep: PathBuf,
    /// Where daemons and the owner have theirs.
    pub dirs: Dirs,
}

impl Layout {
    /// The host's, or one below `BANGER_ROOT` where that is set.
    pub fn from_env() -> Self {
        match std::env::var_os("BANGER_ROOT").map(PathBuf::from).filter(|root| root.is_absolute()) {
            Some(root) => Self::below(&root),
            None => Self::host(),
        }
    }

    /// The host's.
    pub fn host() -> Self {
        Self {
            bin: PathBuf::from("/usr/local/bin"),
            units: PathBuf::from("/etc/systemd/system"),
            share: PathBuf::from("/usr/local/share"),
            staging: PathBuf::from("/var/cache/banger/updates"),
            keep: PathBuf::from("/var/lib/banger-root"),
            dirs: Dirs::host(),
        }
    }

    /// One below `root`.
    pub fn below(root: &Path) -> Self {
        Self {
            bin: root.join("bin"),
            units: root.join("units"),
            share: root.join("share"),
            staging: root.join("cache/updates"),
            keep: root.join("keep"),
            dirs: Dirs::below(root),
        }
    }

    /// The executable.
    pub fn binary(&self) -> PathBuf {
        self.bin.join("banger")
    }

    /// Where man(1) looks for pages on commands of the administrator's.
    pub fn manual(&self) -> PathBuf {
        self.share.join("man/man1")
    }

    /// The executable that an update has replaced, and the way back to it.
    pub fn previous(&self) -> PathBuf {
        self.bin.join("banger.previous")
    }

    /// The other names of the executable.
    pub fn links(&self) -> [PathBuf; 3] {
        PERSONALITIES.map(|name| self.bin.join(name))
    }

    /// The directories that were made for an installation and did not exist before it, one a line, for its removal.
    pub fn made(&self) -> PathBuf {
        self.keep.join("directories")
    }

    /// Held by whoever changes the installation.
    pub fn lock(&self) -> PathBuf {
        self.keep.join("update.lock")
    }

    /// Where an update keeps the executable that was [`Layout::previous`] until it ends.
    pub fn older(&self) -> PathBuf {
        self.bin.join(".staged-banger.older")
    }

    /// Copies of the files that an update may change.
    pub fn saved(&self) -> PathBuf {
        self.keep.join("saved")
    }

    /// The phase of an update that is under way, or was cut off.
    pub fn journal(&self) -> PathBuf {
        self.keep.join("update.json")
    }
}
