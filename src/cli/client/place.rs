//! Which daemon a command speaks to: the installation's, for its owner and for root, and for everybody else one of their own.

use std::fmt;
use std::path::PathBuf;

use rustix::process::{Uid, geteuid};

use super::ClientError;
use crate::config::Places;
use crate::host::dirs::Dirs;
use crate::host::install::Install;

/// Where a daemon is, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub dirs: Dirs,
    /// Who must be at the other end of its socket.
    pub uid: Uid,
    /// systemd starts it, and nobody else does.
    pub installed: bool,
    /// What it is configured by.
    pub config: Places,
}

/// Where a daemon writes what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Log {
    File(PathBuf),
    Journal,
}

impl Place {
    pub fn from_env() -> Result<Self, ClientError> {
        // A directory for tests is a world of its own, whatever is installed.
        let elsewhere = std::env::var_os("BANGER_ROOT").is_some();
        let installed = Dirs::installed();
        let install = match elsewhere {
            true => None,
            false => Install::read(&installed.install_file()).map_err(ClientError::Install)?,
        };
        match choose(install.as_ref(), geteuid()) {
            Some(owner) => Ok(Self::of_installation(installed, owner)),
            None => {
                let dirs = Dirs::from_env().map_err(ClientError::NoHome)?;
                let home = std::env::var_os("HOME").map(PathBuf::from);
                let config = Places::of_user(&dirs, home);
                Ok(Self { dirs, uid: geteuid(), installed: false, config })
            }
        }
    }

    pub fn of_installation(dirs: Dirs, owner: Uid) -> Self {
        let install = Install::read(&dirs.install_file()).ok().flatten();
        // Without a home there is root's file alone.
        let config = match install {
            Some(install) => Places::of_installation(&dirs, &install.home),
            None => Places::of_user(&dirs, None),
        };
        Self { dirs, uid: owner, installed: true, config }
    }

    pub fn log(&self) -> Log {
        if self.installed { Log::Journal } else { Log::File(self.dirs.daemon_log()) }
    }
}

/// The owner of the installation whose daemon `uid` speaks to; None: one of their own.
fn choose(install: Option<&Install>, uid: Uid) -> Option<Uid> {
    install.map(Install::owner_uid).filter(|owner| uid.is_root() || uid == *owner)
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Journal => f.write_str("`journalctl -u bangerd`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_and_root_speak_to_the_installations_daemon_and_others_to_their_own() {
        let install = Install::parse("owner = 'me'\nuid = 1000\ngid = 1000\nhome = '/home/me'")
            .expect("an installation");
        let uid = Uid::from_raw;
        assert_eq!(choose(Some(&install), uid(1000)), Some(uid(1000)));
        assert_eq!(choose(Some(&install), uid(0)), Some(uid(1000)));
        assert_eq!(choose(Some(&install), uid(1001)), None);
        assert_eq!(choose(None, uid(1000)), None);
    }
}
