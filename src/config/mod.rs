//! The configuration, config.toml: what a user may set.
//!
//! ```text
//! file (text, and where in it each key is) -> judge (file by file, key by key) -> layers (the owner's over root's) -> settings
//!                                              keys (the one table of them)                                        `-> shown
//! ```
//!
//! Nothing here needs a daemon: bangerd reads it at its start, `banger config` at any time. The root helper and updates read the same
//! file themselves (root::settings, updater::settings), and judge their keys here too.

mod file;
mod file_sync;
mod judge;
pub mod keys;
mod layers;
mod registries;
mod settings;
pub mod shown;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use self::file::Document;
pub use self::file_sync::FileSync;
pub use self::layers::{Layer, Read, read};
pub use self::settings::{Config, Network, NetworkKind, VmDefaults};
use crate::host::dirs::Dirs;

/// Which files are one configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Root's, where there is an installation.
    pub roots: Option<PathBuf>,
    /// The user's own, which lies over it key by key.
    pub own: PathBuf,
    /// What `~` means.
    pub home: Option<PathBuf>,
}

impl Places {
    pub fn of_user(dirs: &Dirs, home: Option<PathBuf>) -> Self {
        Self { roots: None, own: dirs.config_file(), home }
    }

    /// An installation's, whose owner has this `home`.
    pub fn of_installation(dirs: &Dirs, home: &Path) -> Self {
        let own = home.join(".config/banger/config.toml");
        Self { roots: Some(dirs.config_file()), own, home: Some(home.to_owned()) }
    }

    /// In the order in which they count: a later one lies over an earlier one.
    pub fn files(&self) -> impl Iterator<Item = (Whose, &Path)> {
        let roots = self.roots.as_deref().map(|path| (Whose::Roots, path));
        let whose = if self.roots.is_some() { Whose::Owners } else { Whose::Users };
        roots.into_iter().chain([(whose, self.own.as_path())])
    }
}

/// Whose a file is, which decides what may be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// There is no other: the user's where nothing is installed.
    Users,
    /// An installation's, in root's own directory.
    Roots,
    /// That of the owner of an installation.
    Owners,
}

/// What is wrong with a file, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    /// Line and column, from 1.
    pub at: Option<(usize, usize)>,
    /// A sentence.
    pub why: String,
}

/// Why a configuration is not one.
#[derive(Debug)]
pub enum ConfigError {
    Read(PathBuf, io::Error),
    /// At least one.
    Invalid(Vec<Problem>),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some((line, column)) = self.at {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.why)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, _) => write!(f, "cannot read {}", path.display()),
            Self::Invalid(problems) => match problems.as_slice() {
                [] => f.write_str("the configuration is wrong"),
                [one] => one.fmt(f),
                [first, more @ ..] => {
                    write!(f, "{first} (and {} more; `banger config check` shows all)", more.len())
                }
            },
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_, e) => Some(e),
            Self::Invalid(_) => None,
        }
    }
}
