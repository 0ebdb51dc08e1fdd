//! What the helper reads of config.toml: the names' domain, the programs that it may run, and the uids that VMs run as.

use std::path::{Path, PathBuf};

use rustix::process::Uid;
use serde::Deserialize;

use crate::host::trusted::{self, Untrusted};
use crate::network::subnet::{self, Subnet};
use crate::network::suffix::Suffix;
use crate::root::launch::Programs;

/// Far from people, services, containers' ranges (subuid(5): from 100000) and systemd's (524288 to 1879048191), and below 2^31.
const JAIL_UIDS: u32 = 1_900_000_000;
/// Below are people and services.
const LEAST_JAIL_UID: u32 = 100_000;

/// Root's own settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub suffix: Suffix,
    /// The bridge's.
    pub subnet: Subnet,
    pub programs: Programs,
    /// The VM of slot n runs as uid and gid `jail_uids` + n.
    pub jail_uids: u32,
}

/// Other keys are bangerd's, which says what is wrong with them.
#[derive(Deserialize)]
struct Raw {
    dns_suffix: Option<String>,
    bridge_address: Option<String>,
    firecracker_bin: Option<PathBuf>,
    jailer_bin: Option<PathBuf>,
    qemu_bin: Option<PathBuf>,
    vhost_device_vsock_bin: Option<PathBuf>,
    jail_uids: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            suffix: Suffix::default(),
            subnet: subnet::DEFAULT,
            programs: Programs::default(),
            jail_uids: JAIL_UIDS,
        }
    }
}

impl Settings {
    /// Reads `path`; without it, everything is as it is by default.
    ///
    /// # Errors
    /// [`Untrusted`], also for a file that somebody else than root can have written.
    pub fn read(path: &Path) -> Result<Self, Untrusted> {
        let Some(text) = trusted::read(path)? else { return Ok(Self::default()) };
        Self::parse(&text).map_err(|why| Untrusted::Invalid(path.to_owned(), why))
    }

    fn parse(text: &str) -> Result<Self, String> {
        Self::of(text.parse().map_err(|e: toml::de::Error| e.message().to_owned())?)
    }

    /// Reads `table`, and leaves the keys alone that are others'.
    ///
    /// # Errors
    /// A sentence about the first key that is wrong.
    pub fn of(table: toml::Table) -> Result<Self, String> {
        let raw: Raw = table.try_into().map_err(|e: toml::de::Error| e.message().to_owned())?;
        let program = |key: &str, path: Option<PathBuf>| match path {
            Some(path) if !path.is_absolute() => {
                Err(format!("{key}: {} is no absolute path; begin it with /", path.display()))
            }
            path => Ok(path),
        };
        let jail_uids = raw.jail_uids.unwrap_or(JAIL_UIDS);
        // The last slot of the widest subnet must have an uid too, and -1 is none.
        if jail_uids < LEAST_JAIL_UID || jail_uids > u32::MAX - 1 - u32::from(u16::MAX) {
            return Err(format!(
                "jail_uids: {jail_uids} does not begin a range of uids for VMs; choose {LEAST_JAIL_UID} or more, such as \
                 {JAIL_UIDS}"
            ));
        }
        Ok(Self {
            suffix: match raw.dns_suffix {
                None => Suffix::default(),
                Some(text) => text.parse().map_err(|e| format!("dns_suffix: {e}"))?,
            },
            subnet: match raw.bridge_address {
                None => subnet::DEFAULT,
                Some(text) => text.parse().map_err(|e| format!("bridge_address: {e}"))?,
            },
            programs: Programs {
                firecracker: program("firecracker_bin", raw.firecracker_bin)?,
                jailer: program("jailer_bin", raw.jailer_bin)?,
                qemu: program("qemu_bin", raw.qemu_bin)?,
                vhost_device_vsock: program("vhost_device_vsock_bin", raw.vhost_device_vsock_bin)?,
            },
            jail_uids,
        })
    }

    /// The uid, and the gid, of the VM in `slot`.
    pub fn jail_uid(&self, slot: u16) -> Uid {
        Uid::from_raw(self.jail_uids + u32::from(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_optional_and_others_keys_are_left_alone() {
        assert_eq!(Settings::parse(""), Ok(Settings::default()));
        let text = "dns_suffix = 'test'\nfirecracker_bin = '/opt/fc'\njail_uids = 200000\nnetwork = 'user'\n[vm_defaults]\nvcpu = 2";
        let settings = Settings::parse(text).expect("settings");
        assert_eq!((settings.suffix.as_str(), settings.jail_uid(3).as_raw()), ("test", 200_003));
        assert_eq!(settings.programs.firecracker.as_deref(), Some(Path::new("/opt/fc")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, want) in [
            ("qemu_bin = 'qemu'", "qemu_bin: qemu is no absolute path"),
            ("jailer_bin = '~/jailer'", "jailer_bin: ~/jailer is no absolute path"),
            ("jail_uids = 1000", "jail_uids: 1000 does not begin"),
            ("jail_uids = 4294967000", "jail_uids: 4294967000 does not begin"),
            ("dns_suffix = 'local'", "dns_suffix: local has a meaning"),
        ] {
            let error = Settings::parse(text).expect_err(text);
            assert!(error.starts_with(want), "{error}");
        }
    }
}
