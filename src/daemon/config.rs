//! The configuration, config.toml: what a user may set. An unknown key is refused, since a misspelt one would be ignored.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::catalog::KeyAt;
use crate::daemon::registries;
use crate::host::location::Location;
use crate::host::signature::Key;
use crate::network::subnet::{self, Subnet};
use crate::network::suffix::Suffix;
use crate::oci::Limits;
use crate::oci::registries::Registries;
use crate::vm::lookup::nearest;
use crate::vm::size::Mib;
use crate::vm::spec::Wish;

/// Some are the root helper's and the updater's, which read the same file (root::settings, updater::settings).
const KEYS: [&str; 17] = [
    "bridge_address",
    "catalog_keys",
    "catalog_urls",
    "default_image_name",
    "dns_port",
    "dns_suffix",
    "firecracker_bin",
    "image_limits",
    "jail_uids",
    "jailer_bin",
    "jailer_enabled",
    "network",
    "qemu_bin",
    "registries",
    "update",
    "vhost_device_vsock_bin",
    "vm_defaults",
];
const VM_KEYS: [&str; 3] = ["vcpu", "memory", "disk_size"];
const LIMIT_KEYS: [&str; 4] = ["layer_size", "ratio", "entries", "metadata_size"];
/// Where an installation has them, in root's file alone; `update` is what updates go by (cli::update).
const ROOTS_ALONE: &str = "update";
/// What the root helper goes by as well, which reads root's file and no other.
const SHARED: [&str; 2] = ["bridge_address", "dns_suffix"];
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
}

/// Why a configuration is not one.
#[derive(Debug)]
pub enum ConfigError {
    Read(PathBuf, io::Error),
    /// The sentence says what and where.
    Invalid(PathBuf, String),
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
}

/// `"4G"`, or a number of MiB.
#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Text(String),
    Mib(u64),
}

impl Config {
    /// Reads `path`; without one, everything is as it is by default.
    pub fn read(path: &Path, home: Option<&Path>) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(ConfigError::Read(path.to_owned(), e)),
        };
        Self::parse(&text, home).map_err(|e| ConfigError::Invalid(path.to_owned(), e))
    }

    /// An installation's: root's file, and the owner's over it, key by key.
    pub fn read_both(roots: &Path, owners: &Path, home: &Path) -> Result<Self, ConfigError> {
        let read = |path: &Path| match std::fs::read_to_string(path) {
            Ok(text) => Ok(text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(e) => Err(ConfigError::Read(path.to_owned(), e)),
        };
        let (root_text, owner_text) = (read(roots)?, read(owners)?);
        let invalid = |path: &Path| {
            let path = path.to_owned();
            move |e| ConfigError::Invalid(path, e)
        };
        let mut table = checked(&root_text).map_err(invalid(roots))?;
        table.remove(ROOTS_ALONE);
        // Each alone first, so that a mistake is looked for where it is.
        Self::of(table.clone(), Some(home)).map_err(invalid(roots))?;
        let over = checked(&owner_text).map_err(invalid(owners))?;
        Self::of(over.clone(), Some(home)).map_err(invalid(owners))?;
        refuse_roots(&table, &over, roots).map_err(invalid(owners))?;
        lay_over(&mut table, over);
        Self::of(table, Some(home)).map_err(invalid(owners))
    }

    fn parse(text: &str, home: Option<&Path>) -> Result<Self, String> {
        let mut table = checked(text)?;
        // Without an installation there is nothing that they would mean.
        table.remove(ROOTS_ALONE);
        Self::of(table, home)
    }

    fn of(mut table: toml::Table, home: Option<&Path>) -> Result<Self, String> {
        let registries = table.remove("registries").map(registries::parse).transpose()?.unwrap_or_default();
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
        })
    }
}

/// The keys of `text`, all of them known.
fn checked(text: &str) -> Result<toml::Table, String> {
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
    refuse_unknown(&table, &KEYS)?;
    for (name, keys) in [("vm_defaults", &VM_KEYS[..]), ("image_limits", &LIMIT_KEYS)] {
        if let Some(toml::Value::Table(inner)) = table.get(name) {
            refuse_unknown(inner, keys)?;
        }
    }
    Ok(table)
}

/// The helper would go on by root's word, and refuse what the daemon asks it for.
fn refuse_roots(root: &toml::Table, over: &toml::Table, file: &Path) -> Result<(), String> {
    if over.contains_key(ROOTS_ALONE) {
        return Err(format!("{ROOTS_ALONE}: it is the administrator's; write it into {}", file.display()));
    }
    let differs = |key: &&&str| over.get(**key).is_some_and(|wanted| root.get(**key) != Some(wanted));
    match SHARED.iter().find(differs) {
        Some(key) => {
            Err(format!("{key}: the root helper goes by it too; write it into {} alone", file.display()))
        }
        None => Ok(()),
    }
}

/// Keys of tables are laid over one by one, so that setting one default does not unset another.
fn lay_over(table: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(over)) => lay_over(inner, over),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

impl VmDefaults {
    /// Fills what a person did not wish for.
    pub fn fill(&self, wish: Wish) -> Wish {
        Wish {
            vcpu: wish.vcpu.or(self.vcpu),
            memory: wish.memory.or(self.memory),
            disk: wish.disk.or(self.disk),
            ..wish
        }
    }
}

/// Names the first key that is not known, and the nearest one that is.
pub fn refuse_unknown(table: &toml::Table, known: &[&str]) -> Result<(), String> {
    let Some(key) = table.keys().find(|k| !known.contains(&k.as_str())) else { return Ok(()) };
    Err(match nearest(key, known.iter().copied()) {
        Some(near) => format!("there is no key {key:?}; did you mean {near}?"),
        None => format!("there is no key {key:?}; there are {}", known.join(", ")),
    })
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

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, _) => write!(f, "cannot read {}", path.display()),
            Self::Invalid(path, why) => write!(f, "{}: {}", path.display(), why.trim_end()),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_, e) => Some(e),
            Self::Invalid(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Some(Path::new("/home/me")))
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
    fn the_owners_keys_lie_over_roots_one_by_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let (roots, owners) = (dir.path().join("root.toml"), dir.path().join("owner.toml"));
        let read = |root: &str, owner: &str| {
            std::fs::write(&roots, root).expect("writes");
            std::fs::write(&owners, owner).expect("writes");
            Config::read_both(&roots, &owners, Path::new("/home/me"))
        };
        let root = "dns_suffix = 'test'\ndefault_image_name = 'a'\n[vm_defaults]\nvcpu = 2\nmemory = 512\n[update]\nx = 1";
        let config =
            read(root, "default_image_name = 'b'\n[vm_defaults]\nmemory = 1024").expect("a configuration");
        assert_eq!((config.default_image.as_str(), config.network.suffix.as_str()), ("b", "test"));
        assert_eq!((config.vm_defaults.vcpu, config.vm_defaults.memory), (Some(2), Some(Mib(1024))));
        read(root, "dns_suffix = 'test'").expect("the same word twice");
        for (owner, want) in [
            ("dns_suffix = 'other'", "dns_suffix: the root helper goes by it too; write it into"),
            ("bridge_address = '10.9.0.1/24'", "bridge_address: the root helper goes by it too"),
            ("[update]\nmanifest_url = 'x'", "update: it is the administrator's; write it into"),
            ("dns_port = 53", "dns_port: 53 is root's to use"),
        ] {
            let error = read(root, owner).expect_err(owner).to_string();
            assert!(error.starts_with(&format!("{}: {want}", owners.display())), "{error}");
        }
        let error = read("dns_port = 53", "").expect_err("root's mistake").to_string();
        assert!(error.starts_with(&format!("{}: dns_port", roots.display())), "{error}");
        std::fs::remove_file(&roots).expect("removes");
        std::fs::remove_file(&owners).expect("removes");
        Config::read_both(&roots, &owners, Path::new("/home/me")).expect("neither is needed");
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
    fn what_is_wrong_is_named_with_the_nearest_key() {
        let table = [
            (
                "defualt_image_name = 'x'",
                "there is no key \"defualt_image_name\"; did you mean default_image_name?",
            ),
            ("[vm_defaults]\ncpus = 1", "there is no key \"cpus\"; there are vcpu, memory, disk_size"),
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
