//! Whose helper this is: install.toml, which `banger system install` has written.

use std::fmt;
use std::path::PathBuf;

use rustix::process::{Gid, Uid};
use serde::Deserialize;

use crate::host::dirs::Dirs;
use crate::root::Ground;
use crate::root::trusted::{self, Untrusted};

/// Why nobody can be served.
#[derive(Debug)]
pub enum NoInstall {
    /// There is no installation.
    Missing(PathBuf),
    Untrusted(Untrusted),
}

/// The rest of the file, such as the version, is for others.
#[derive(Deserialize)]
struct Raw {
    owner: String,
    uid: u32,
    gid: u32,
    home: PathBuf,
}

/// The installation's directories, and the owner that its install.toml names.
pub fn ground() -> Result<Ground, NoInstall> {
    let dirs = Dirs::installed();
    let path = dirs.install_file();
    let Some(text) = trusted::read(&path).map_err(NoInstall::Untrusted)? else {
        return Err(NoInstall::Missing(path));
    };
    let (owner, group) = parse(&text).map_err(|why| NoInstall::Untrusted(Untrusted::Invalid(path, why)))?;
    Ok(Ground { owner, group, dirs })
}

fn parse(text: &str) -> Result<(Uid, Gid), String> {
    let raw: Raw = toml::from_str(text).map_err(|e| e.message().to_owned())?;
    if raw.owner.is_empty() || !raw.home.is_absolute() {
        return Err("owner and home do not name a user".to_owned());
    }
    // -1 is "no change" to chown(2) and setresuid(2), not a user.
    if raw.uid == u32::MAX || raw.gid == u32::MAX {
        return Err("uid and gid do not name a user".to_owned());
    }
    Ok((Uid::from_raw(raw.uid), Gid::from_raw(raw.gid)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_a_user_with_a_number_and_the_rest_is_for_others() {
        let text = "owner = 'me'\nuid = 1000\ngid = 100\nhome = '/home/me'\nversion = '1.0'\n";
        let (uid, gid) = parse(text).expect("an owner");
        assert_eq!((uid.as_raw(), gid.as_raw()), (1000, 100));
        for bad in [
            "",
            "owner = 'me'\nuid = 1000\ngid = 100",
            "owner = ''\nuid = 1\ngid = 1\nhome = '/'",
            "owner = 'me'\nuid = -1\ngid = 1\nhome = '/'",
            "owner = 'me'\nuid = 4294967295\ngid = 1\nhome = '/'",
            "owner = 'me'\nuid = 4294967296\ngid = 1\nhome = '/'",
            "owner = 'me'\nuid = '0'\ngid = 1\nhome = '/'",
            "owner = 'me'\nuid = 1\ngid = 1\nhome = 'here'",
        ] {
            parse(bad).expect_err(bad);
        }
    }
}
