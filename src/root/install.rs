//! Whose helper this is: install.toml, which `banger system install` has written.

use std::fmt;
use std::path::PathBuf;

use crate::host::dirs::Dirs;
use crate::host::install::Install;
use crate::host::trusted::Untrusted;
use crate::root::Ground;

/// Why nobody can be served.
#[derive(Debug)]
pub enum NoInstall {
    /// There is no installation.
    Missing(PathBuf),
    Untrusted(Untrusted),
}

/// The installation's directories, and the owner that its install.toml names.
pub fn ground() -> Result<Ground, NoInstall> {
    let dirs = Dirs::installed();
    let path = dirs.install_file();
    let Some(install) = Install::read(&path).map_err(NoInstall::Untrusted)? else {
        return Err(NoInstall::Missing(path));
    };
    Ok(Ground { owner: install.owner_uid(), group: install.owner_gid(), dirs })
}

impl fmt::Display for NoInstall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(
                f,
                "{} is missing, so there is no installation to be the helper of; run `banger` as root or as yourself",
                path.display()
            ),
            Self::Untrusted(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for NoInstall {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Missing(_) => None,
            Self::Untrusted(e) => e.source(),
        }
    }
}
