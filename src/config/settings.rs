//! What bangerd and banger go by, as types that cannot be wrong.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use crate::catalog::KeyAt;
use crate::config::file_sync::{self, FileSync};
use crate::config::registries;
use crate::host::location::Location;
use crate::host::signature::Key;
use crate::network::subnet::{self, Subnet};
use crate::network::suffix::Suffix;
use crate::oci::Limits;
use crate::oci::registries::Registries;
use crate::vm::duration;
use crate::vm::size::Mib;
use crate::vm::spec::{AccelChoice, BadChoice, VmmChoice, Wish};

/// Where questions about VMs' names are answered.
const DNS_PORT: u16 = 42069;
/// What a VM is made of when nobody says it: an image of the catalog in banger.
const DEFAULT_IMAGE: &str = "debian-bookworm";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub default_image: String,
    /// Whether a person has chosen the default image.
    pub default_image_is_set: bool,
    pub firecracker: Option<PathBuf>,
    /// Where the catalogs are, besides the one in banger; the first that has a name counts.
    pub catalogs: Vec<Location>,
    /// Whose signatures of catalogs count.
    pub catalog_keys: Vec<KeyAt>,
    pub vm_defaults: VmDefaults,
    pub image_limits: Limits,
    pub registries: Registries,
    pub network: Network,
    /// Whether Firecracker runs under its jailer, where there is the privilege for it.
    pub jailer: bool,
    /// error, warn, info, debug or trace.
    pub log_level: Option<String>,
    /// The private key to go into guests with, in the place of banger's own.
    pub ssh_key: Option<PathBuf>,
    /// How long nobody uses a VM before it is stopped; None: it runs on.
    pub stale_after: Option<Duration>,
    /// What every VM gets when it starts.
    pub file_sync: Vec<FileSync>,
}

/// What VMs are connected to, and what they are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub kind: NetworkKind,
    pub subnet: Subnet,
    pub suffix: Suffix,
    /// Where the DNS server listens, on 127.0.0.1 and on the bridge.
    pub dns_port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkKind {
    /// The bridge where there is the privilege for it, else the VMM's user-mode network.
    Auto,
    User,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VmDefaults {
    pub vcpu: Option<u8>,
    pub memory: Option<Mib>,
    pub disk: Option<Mib>,
    pub vmm: VmmChoice,
    pub accel: AccelChoice,
}

#[derive(Deserialize)]
struct Raw {
    default_image_name: Option<String>,
    firecracker_bin: Option<String>,
    jailer_enabled: Option<bool>,
    network: Option<String>,
    bridge_address: Option<String>,
    dns_suffix: Option<String>,
    dns_port: Option<u16>,
    #[serde(default)]
    catalog_urls: Vec<String>,
    #[serde(default)]
    catalog_keys: Vec<String>,
    #[serde(default)]
    vm_defaults: RawVm,
    #[serde(default)]
    image_limits: RawLimits,
    log_level: Option<String>,
    ssh_key_path: Option<String>,
    auto_stop_stale_after: Option<String>,
}

#[derive(Deserialize, Default)]
struct RawLimits {
    layer_size: Option<Size>,
    ratio: Option<u64>,
    entries: Option<u64>,
    metadata_size: Option<Size>,
}

#[derive(Deserialize, Default)]
struct RawVm {
    vcpu: Option<u8>,
    memory: Option<Size>,
    disk_size: Option<Size>,
    vmm: Option<String>,
    accel: Option<String>,
}

/// `"4G"`, or a number of MiB.
#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Text(String),
    Mib(u64),
}

impl Config {
    /// Reads `table`, and leaves the keys alone that others go by.
    ///
    /// # Errors
    /// A sentence about the first key that is wrong, which begins with its name where it is not of another type.
    pub(super) fn of(mut table: toml::Table, home: Option<&Path>) -> Result<Self, String> {
        let registries = table.remove("registries").map(registries::parse).transpose()?.unwrap_or_default();
        let file_sync = table.remove("file_sync");
        let file_sync = file_sync.map_or(Ok(vec![]), |list| file_sync::parse(&list, home))?;
        let raw: Raw = table.try_into().map_err(|e: toml::de::Error| e.message().to_owned())?;
        let size = |key: &str, size: Option<Size>| match size {
            None => Ok(None),
            Some(Size::Mib(n)) => Ok(Some(Mib(n))),
            Some(Size::Text(s)) => s.parse().map(Some).map_err(|e| format!("{key}: {e}")),
        };
        let bytes = |key: &str, wanted: Option<Size>, default: u64| {
            Ok::<u64, String>(size(key, wanted)?.map_or(default, |Mib(n)| n.saturating_mul(1 << 20)))
        };
        let limits = Limits::default();
        Ok(Self {
            default_image_is_set: raw.default_image_name.is_some(),
            default_image: raw.default_image_name.unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
            firecracker: raw.firecracker_bin.map(|s| expand("firecracker_bin", &s, home)).transpose()?,
            catalogs: raw.catalog_urls.iter().map(|s| place(s, home)).collect::<Result<_, _>>()?,
            catalog_keys: raw.catalog_keys.iter().map(|s| key(s, home)).collect::<Result<_, _>>()?,
            vm_defaults: VmDefaults {
                vcpu: raw.vm_defaults.vcpu,
                memory: size("memory", raw.vm_defaults.memory)?,
                disk: size("disk_size", raw.vm_defaults.disk_size)?,
                vmm: choice("vmm", raw.vm_defaults.vmm)?,
                accel: choice("accel", raw.vm_defaults.accel)?,
            },
            image_limits: Limits {
                layer_bytes: bytes("layer_size", raw.image_limits.layer_size, limits.layer_bytes)?,
                metadata_bytes: bytes(
                    "metadata_size",
                    raw.image_limits.metadata_size,
                    limits.metadata_bytes,
                )?,
                ratio: raw.image_limits.ratio.unwrap_or(limits.ratio),
                entries: raw.image_limits.entries.unwrap_or(limits.entries),
            },
            registries,
            network: Network {
                kind: match raw.network.as_deref() {
                    None | Some("auto") => NetworkKind::Auto,
                    Some("user") => NetworkKind::User,
                    Some(other) => {
                        return Err(format!("network: there is no {other:?}; choose auto or user"));
                    }
                },
                subnet: match raw.bridge_address {
                    None => subnet::DEFAULT,
                    Some(text) => text.parse().map_err(|e| format!("bridge_address: {e}"))?,
                },
                suffix: match raw.dns_suffix {
                    None => Suffix::default(),
                    Some(text) => text.parse().map_err(|e| format!("dns_suffix: {e}"))?,
                },
                dns_port: match raw.dns_port {
                    None => DNS_PORT,
                    Some(port) if port >= 1024 => port,
                    Some(port) => {
                        return Err(format!("dns_port: {port} is root's to use; choose 1024 or more"));
                    }
                },
            },
            jailer: raw.jailer_enabled.unwrap_or(true),
            log_level: raw.log_level.map(level).transpose()?,
            ssh_key: raw.ssh_key_path.map(|s| expand("ssh_key_path", &s, home)).transpose()?,
            stale_after: raw.auto_stop_stale_after.as_deref().map(stale_after).transpose()?.flatten(),
            file_sync,
        })
    }
}

impl VmDefaults {
    /// Fills what a person did not wish for.
    pub fn fill(&self, wish: Wish) -> Wish {
        Wish {
            vcpu: wish.vcpu.or(self.vcpu),
            memory: wish.memory.or(self.memory),
            disk: wish.disk.or(self.disk),
            vmm: if wish.vmm == VmmChoice::Auto { self.vmm } else { wish.vmm },
            accel: if wish.accel == AccelChoice::Auto { self.accel } else { wish.accel },
            ..wish
        }
    }
}

/// A word that is one of a few, or the automatic choice.
fn choice<T: FromStr<Err = BadChoice> + Default>(key: &str, word: Option<String>) -> Result<T, String> {
    word.map_or(Ok(T::default()), |word| word.parse().map_err(|e| format!("{key}: {e}")))
}

fn level(text: String) -> Result<String, String> {
    match text.as_str() {
        "error" | "warn" | "info" | "debug" | "trace" => Ok(text),
        _ => Err(format!("log_level: there is no {text:?}; choose error, warn, info, debug or trace")),
    }
}

/// Less would stop a VM while somebody reads what is on the screen.
const LEAST_STALE: Duration = Duration::from_secs(1);

fn stale_after(text: &str) -> Result<Option<Duration>, String> {
    if matches!(text, "0" | "off") {
        return Ok(None);
    }
    let time = duration::parse(text).map_err(|e| format!("auto_stop_stale_after: {e}"))?;
    match time {
        Duration::ZERO => Ok(None),
        time if time < LEAST_STALE => Err("auto_stop_stale_after: that is less than a second".to_owned()),
        time => Ok(Some(time)),
    }
}

fn expand(key: &str, path: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => Ok(home.join(rest)),
        _ if Path::new(path).is_absolute() => Ok(path.into()),
        _ => Err(format!("{key}: {path:?} is no absolute path; begin it with / or ~/")),
    }
}

fn place(text: &str, home: Option<&Path>) -> Result<Location, String> {
    match text.starts_with("~/") {
        true => expand("catalog_urls", text, home).map(Location::File),
        false => text.parse().map_err(|e| format!("catalog_urls: {e}")),
    }
}

/// A key in PEM, or the path of a file with one.
fn key(text: &str, home: Option<&Path>) -> Result<KeyAt, String> {
    match text.trim_start().starts_with("-----BEGIN") {
        true => Key::parse(text).map(KeyAt::Here).map_err(|e| format!("catalog_keys: {e}")),
        false => expand("catalog_keys", text, home).map(KeyAt::File),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::of(text.parse().expect("TOML"), Some(Path::new("/home/me")))
    }

    #[test]
    fn every_key_is_optional_and_sizes_are_as_people_write_them() {
        let config = parse("").expect("an empty one");
        assert_eq!((config.default_image.as_str(), config.default_image_is_set), ("debian-bookworm", false));
        let config = parse(
            "default_image_name = 'alpine'\nfirecracker_bin = '~/fc'\n[vm_defaults]\nvcpu = 2\nmemory = 1024\ndisk_size = '2G'",
        )
        .expect("a full one");
        assert_eq!(config.firecracker.as_deref(), Some(Path::new("/home/me/fc")));
        let wish = config.vm_defaults.fill(Wish { vcpu: Some(1), ..Wish::default() });
        assert_eq!((wish.vcpu, wish.memory, wish.disk), (Some(1), Some(Mib(1024)), Some(Mib(2048))));
        let config = parse("[image_limits]\nlayer_size = '128G'\nratio = 5000").expect("limits");
        let want = Limits { layer_bytes: 128 << 30, ratio: 5000, ..Limits::default() };
        assert_eq!(config.image_limits, want);
    }

    #[test]
    fn every_default_of_the_table_is_the_one_that_holds() {
        for key in crate::config::keys::KEYS {
            if let crate::config::keys::Absent::Is(default) = key.absent {
                let said = Config {
                    default_image_is_set: false,
                    log_level: None,
                    ..parse(&format!("{} = {default}", key.name)).expect(key.name)
                };
                assert_eq!(said, parse("").expect("an empty one"), "{}", key.name);
            }
        }
    }

    #[test]
    fn a_vm_is_stopped_when_unused_only_where_that_is_wanted() {
        let after = |text: &str| parse(&format!("auto_stop_stale_after = '{text}'")).expect(text).stale_after;
        for off in ["0", "0s", "off"] {
            assert_eq!(after(off), None);
        }
        assert_eq!(after("8h"), Some(Duration::from_secs(8 * 3600)));
        assert_eq!(parse("").expect("an empty one").stale_after, None);
    }

    #[test]
    fn a_wish_wins_over_what_is_configured_of_the_vmm() {
        let defaults = parse("vm_defaults = { vmm = 'qemu', accel = 'tcg' }").expect("choices").vm_defaults;
        let wish = defaults.fill(Wish { vmm: VmmChoice::Firecracker, ..Wish::default() });
        assert_eq!((wish.vmm, wish.accel), (VmmChoice::Firecracker, AccelChoice::Tcg));
    }

    #[test]
    fn catalogs_are_places_and_keys_are_files_or_text() {
        let pem = crate::catalog::EMBEDDED_KEY;
        let config = parse(&format!(
            "catalog_urls = ['https://example.org/c.json', '/srv/c.json', '~/c.json']\n\
             catalog_keys = ['/etc/k.pem', '~/k.pem', \"\"\"{pem}\"\"\"]"
        ))
        .expect("places and keys");
        let shown: Vec<String> = config.catalogs.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["https://example.org/c.json", "/srv/c.json", "/home/me/c.json"]);
        let file = |path: &str| KeyAt::File(path.into());
        assert_eq!(
            config.catalog_keys,
            [file("/etc/k.pem"), file("/home/me/k.pem"), KeyAt::Here(Key::Placeholder)]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table = [
            (
                "log_level = 'loud'",
                "log_level: there is no \"loud\"; choose error, warn, info, debug or trace",
            ),
            ("[vm_defaults]\nvmm = 'xen'", "vmm: \"xen\" is no VMM; choose auto, firecracker or qemu"),
            ("auto_stop_stale_after = '1ms'", "auto_stop_stale_after: that is less than a second"),
            ("[vm_defaults]\nmemory = 'much'", "memory: \"much\" is no size; write it like 512M or 4G"),
            ("firecracker_bin = 'fc'", "firecracker_bin: \"fc\" is no absolute path; begin it with / or ~/"),
            (
                "catalog_urls = ['http://example.org/c']",
                "catalog_urls: 'http://example.org/c' is no place to read from: http is for this machine alone; use https",
            ),
            ("network = 'bridged'", "network: there is no \"bridged\"; choose auto or user"),
            ("dns_port = 53", "dns_port: 53 is root's to use; choose 1024 or more"),
            (
                "bridge_address = '172.16.0.1'",
                "bridge_address: \"172.16.0.1\" is no bridge address; write it like 172.16.0.1/24",
            ),
            (
                "catalog_keys = ['k.pem']",
                "catalog_keys: \"k.pem\" is no absolute path; begin it with / or ~/",
            ),
            (
                "catalog_keys = ['-----BEGIN EC PRIVATE KEY-----']",
                "catalog_keys: it is a private key; give the public one, and keep this one to yourself",
            ),
        ];
        for (text, want) in table {
            assert_eq!(parse(text).expect_err(text), want);
        }
    }
}
