//! install.toml: whose installation this is, and of which build. `banger system install` writes it, everybody reads it.

use std::path::{Path, PathBuf};

use rustix::process::{Gid, Uid};
use serde::{Deserialize, Serialize};

use crate::host::trusted::{self, Untrusted};

/// An installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Install {
    /// The name of the user whose VMs these are.
    pub owner: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
    /// Of the installed executable, as it says them of itself. An older install.toml may lack them.
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub commit: String,
    /// RFC 3339, UTC.
    #[serde(default)]
    pub built_at: String,
}

impl Install {
    /// Reads `path`; None where there is no installation.
    ///
    /// # Errors
    /// [`Untrusted`], also for a file that somebody else than root can have written.
    pub fn read(path: &Path) -> Result<Option<Self>, Untrusted> {
        let Some(text) = trusted::read(path)? else { return Ok(None) };
        Self::parse(&text).map(Some).map_err(|why| Untrusted::Invalid(path.to_owned(), why))
    }

    /// # Errors
    /// A sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let install: Self = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        if install.owner.is_empty() || !install.home.is_absolute() {
            return Err("owner and home do not name a user".to_owned());
        }
        // -1 is "no change" to chown(2) and setresuid(2), not a user.
        if install.uid == u32::MAX || install.gid == u32::MAX {
            return Err("uid and gid do not name a user".to_owned());
        }
        Ok(install)
    }

    /// The file's content, which [`Install::parse`] reads.
    pub fn text(&self) -> String {
        let home = self.home.to_string_lossy();
        let lines = [
            ("owner", quoted(&self.owner)),
            ("uid", self.uid.to_string()),
            ("gid", self.gid.to_string()),
            ("home", quoted(&home)),
            ("version", quoted(&self.version)),
            ("commit", quoted(&self.commit)),
            ("built_at", quoted(&self.built_at)),
        ];
        lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
    }

    pub fn owner_uid(&self) -> Uid {
        Uid::from_raw(self.uid)
    }

    pub fn owner_gid(&self) -> Gid {
        Gid::from_raw(self.gid)
    }
}

/// A basic string (TOML 1.0, String).
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let install = Install {
            owner: "me".to_owned(),
            uid: 1000,
            gid: 100,
            home: "/home/\"me\" \\ \u{7f}\n/é".into(),
            version: "0.1.0".to_owned(),
            commit: "abc".to_owned(),
            built_at: "2026-11-29T00:00:00Z".to_owned(),
        };
        assert_eq!(Install::parse(&install.text()), Ok(install));
    }

    #[test]
    fn an_owner_is_a_user_with_a_number_and_the_rest_may_be_missing() {
        let text = "owner = 'me'\nuid = 1000\ngid = 100\nhome = '/home/me'\nversion = '1.0'\nlater = 1\n";
        let install = Install::parse(text).expect("an owner");
        assert_eq!((install.uid, install.gid, install.version.as_str()), (1000, 100, "1.0"));
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
            Install::parse(bad).expect_err(bad);
        }
    }
}
