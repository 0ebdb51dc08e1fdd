//! All keys of config.toml, in the order of the README, and those of the first banger that are gone.

use crate::vm::lookup::nearest;

/// A key: all that is said of it anywhere is said here.
#[derive(Debug)]
pub struct Key {
    /// With its section before a dot.
    pub name: &'static str,
    /// What it takes, and an example as it is written in the file.
    pub takes: (&'static str, &'static str),
    pub absent: Absent,
    pub reader: Reader,
    /// A phrase.
    pub about: &'static str,
}

/// What holds where a key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// The same as if this was written.
    Is(&'static str),
    /// What is done without it.
    Without(&'static str),
    /// It follows from this host.
    Host,
}

/// Who goes by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// bangerd and banger.
    Daemon,
    /// The root helper as well, which reads root's file and no other.
    Both,
    /// The root helper alone.
    Helper,
    /// Updates alone, of an installation.
    Updates,
}

const TEXT: &str = "text";
const PATH: &str = "an absolute path";
const SIZE: &str = "a size";
const NUMBER: &str = "a number";
const FLAG: &str = "true or false";

const fn key(
    name: &'static str,
    takes: (&'static str, &'static str),
    absent: Absent,
    reader: Reader,
    about: &'static str,
) -> Key {
    Key { name, takes, absent, reader, about }
}

use Absent::{Host, Is, Without};
use Reader::{Both, Daemon, Helper, Updates};

pub const KEYS: &[Key] = &[
    key(
        "default_image_name",
        (TEXT, "'debian:12'"),
        Is("'debian-bookworm'"),
        Daemon,
        "the image of a VM for which none is named",
    ),
    key(
        "auto_stop_stale_after",
        ("a time", "'8h'"),
        Without("off"),
        Daemon,
        "stop VMs that nobody has used for so long",
    ),
    key(
        "log_level",
        ("error, warn, info, debug or trace", "'debug'"),
        Is("'info'"),
        Daemon,
        "how much bangerd's log says; BANGER_LOG_LEVEL wins",
    ),
    key(
        "ssh_key_path",
        (PATH, "'~/.ssh/banger'"),
        Without("one of banger's own"),
        Daemon,
        "the private key that `banger vm ssh` shows to guests",
    ),
    key(
        "network",
        ("auto or user", "'user'"),
        Is("'auto'"),
        Daemon,
        "user: no bridge and no jails, whatever there is the privilege for",
    ),
    key(
        "bridge_address",
        ("an address and the length of its prefix", "'172.16.0.1/24'"),
        Is("'172.16.0.1/24'"),
        Both,
        "the bridge's, and with it the VMs' network",
    ),
    key("dns_suffix", (TEXT, "'vm'"), Is("'vm'"), Both, "what names of VMs end with"),
    key("dns_port", (NUMBER, "42069"), Is("42069"), Daemon, "where questions about names are answered"),
    key(
        "firecracker_bin",
        (PATH, "'~/bin/firecracker'"),
        Without("looked for"),
        Both,
        "the program Firecracker",
    ),
    key(
        "jailer_enabled",
        (FLAG, "true"),
        Is("true"),
        Daemon,
        "false: VMMs on the bridge run as you, without a jail; for debugging",
    ),
    key(
        "jailer_bin",
        (PATH, "'/usr/bin/jailer'"),
        Without("looked for"),
        Helper,
        "Firecracker's jailer, as root runs it",
    ),
    key(
        "qemu_bin",
        (PATH, "'/usr/bin/qemu-system-x86_64'"),
        Without("looked for"),
        Helper,
        "QEMU, as root runs it",
    ),
    key(
        "vhost_device_vsock_bin",
        (PATH, "'/usr/local/bin/vhost-device-vsock'"),
        Without("looked for"),
        Helper,
        "vhost-device-vsock, as root runs it",
    ),
    key(
        "jail_uids",
        (NUMBER, "1900000000"),
        Is("1900000000"),
        Helper,
        "the first uid that VMs run as in jails",
    ),
    key(
        "catalog_urls",
        ("a list of places", "['https://example.org/catalog.json']"),
        Is("[]"),
        Daemon,
        "catalogs of images and kernels besides the one in banger",
    ),
    key(
        "catalog_keys",
        ("a list of keys, or of paths to them", "['~/example.pem']"),
        Is("[]"),
        Daemon,
        "whose signatures of catalogs count",
    ),
    key("vm_defaults.vcpu", (NUMBER, "2"), Host, Daemon, "how many CPUs a VM has"),
    key("vm_defaults.memory", (SIZE, "'2G'"), Host, Daemon, "how much memory a VM has"),
    key("vm_defaults.disk_size", (SIZE, "'20G'"), Host, Daemon, "how large a VM's disk is"),
    key(
        "vm_defaults.vmm",
        ("auto, firecracker or qemu", "'qemu'"),
        Is("'auto'"),
        Daemon,
        "what runs a VM; --vmm and BANGER_VMM win",
    ),
    key(
        "vm_defaults.accel",
        ("auto, kvm or tcg", "'kvm'"),
        Is("'auto'"),
        Daemon,
        "what executes it; --accel and BANGER_ACCEL win",
    ),
    key(
        "file_sync",
        ("a list of files", "[{ host = '~/.gitconfig', guest = '~/.gitconfig' }]"),
        Without("none"),
        Daemon,
        "files and directories of your home that every VM gets in /root when it starts",
    ),
    key(
        "registries",
        ("a table for each registry", "{ 'ghcr.io' = { insecure = true } }"),
        Without("none"),
        Daemon,
        "mirrors of registries, and which need not prove who they are",
    ),
    key(
        "image_limits.layer_size",
        (SIZE, "'64G'"),
        Is("'64G'"),
        Daemon,
        "what one layer of an image may unpack to",
    ),
    key(
        "image_limits.ratio",
        (NUMBER, "2000"),
        Is("2000"),
        Daemon,
        "times its size, once that is more than 1 GiB",
    ),
    key(
        "image_limits.entries",
        (NUMBER, "1048576"),
        Is("1048576"),
        Daemon,
        "members in all layers of an image together",
    ),
    key(
        "image_limits.metadata_size",
        (SIZE, "'384M'"),
        Is("'384M'"),
        Daemon,
        "memory for their names and attributes",
    ),
    key(
        "update.manifest_url",
        ("a place", "'https://example.org/manifest.json'"),
        Is("'https://releases.thaloco.com/banger/manifest.json'"),
        Updates,
        "where releases of banger are listed",
    ),
    key(
        "update.refuse_expired",
        (FLAG, "true"),
        Is("false"),
        Updates,
        "whether a list of releases counts no longer than it says",
    ),
];

/// Other names of keys, for those who know them from the first banger.
pub const ALIASES: [(&str, &str); 1] = [("vm_defaults.memory_mib", "vm_defaults.memory")];

/// Keys of the first banger that mean nothing here, and what there is instead.
const GONE: [(&str, &str); 10] = [
    ("bridge_name", "the bridge is br-banger; leave it out"),
    ("bridge_ip", "write address and prefix into bridge_address, such as '172.16.0.1/24'"),
    ("cidr", "write address and prefix into bridge_address, such as '172.16.0.1/24'"),
    ("tap_pool_size", "taps are made as VMs start, and there is no pool of them; leave it out"),
    ("default_dns", "guests ask whom this host asks, and banger for names of VMs; leave it out"),
    ("jailer_chroot_base", "the root of a jail is in memory; leave it out"),
    ("stats_poll_interval", "nothing is polled; leave it out"),
    ("metrics_poll_interval", "nothing is polled; leave it out"),
    ("web_listen_addr", "there is no web page; leave it out"),
    ("vm_defaults.system_overlay_size", "a VM has one disk; vm_defaults.disk_size says how large it is"),
];

pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether the owner of an installation must say the same as root. Programs may differ: the helper runs its own.
pub fn must_agree(name: &str) -> bool {
    matches!(name, "bridge_address" | "dns_suffix")
}

/// Whether keys have this section.
pub fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.split_once('.').is_some_and(|(section, _)| section == name))
}

/// Why `name`, which is no key, is refused: what there is in its place, or the nearest key.
pub fn unknown(name: &str) -> String {
    if let Some((_, instead)) = GONE.iter().find(|(gone, _)| *gone == name) {
        return format!("{name} is a key of another banger: {instead}");
    }
    let (section, leaf) = name.rsplit_once('.').map_or(("", name), |(section, leaf)| (section, leaf));
    let leaves = || KEYS.iter().map(|key| key.name.split_once('.').unwrap_or(("", key.name)));
    // Sections are written as keys too: `vm_default = { vcpu = 2 }`.
    let here: Vec<&str> = leaves()
        .filter_map(|(of, leaf)| match (of, section) {
            (of, section) if of == section => Some(leaf),
            (of, "") => Some(of),
            _ => None,
        })
        .collect();
    let mut said = format!("there is no key {leaf:?}");
    if !section.is_empty() {
        said += &format!(" in [{section}]");
    }
    let place = |of: &str| match of {
        "" => "before the first section".to_owned(),
        of => format!("below [{of}]"),
    };
    if let Some((of, _)) = leaves().find(|(of, other)| *other == leaf && *of != section) {
        return format!("{said}; write it {}", place(of));
    }
    if let Some(near) = nearest(leaf, here.iter().copied()) {
        return format!("{said}; did you mean {near}?");
    }
    let elsewhere = nearest(leaf, leaves().map(|(_, leaf)| leaf));
    match elsewhere.and_then(|near| leaves().find(|(_, leaf)| *leaf == near)) {
        Some((of, near)) => format!("{said}; did you mean {near} {}?", place(of)),
        None if section.is_empty() => format!("{said}; `banger config keys` shows which there are"),
        None => format!("{said}; there are {}", here.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_refused_with_what_is_meant() {
        let table = [
            (
                "defualt_image_name",
                "there is no key \"defualt_image_name\"; did you mean default_image_name?",
            ),
            ("vm_default", "there is no key \"vm_default\"; did you mean vm_defaults?"),
            ("vcpu", "there is no key \"vcpu\"; write it below [vm_defaults]"),
            (
                "vm_defaults.dns_port",
                "there is no key \"dns_port\" in [vm_defaults]; write it before the first section",
            ),
            (
                "vm_defaults.cpus",
                "there is no key \"cpus\" in [vm_defaults]; there are vcpu, memory, disk_size, vmm, accel",
            ),
            ("frobnicate", "there is no key \"frobnicate\"; `banger config keys` shows which there are"),
            (
                "tap_pool_size",
                "tap_pool_size is a key of another banger: taps are made as VMs start, and there is no pool of them; leave it out",
            ),
            (
                "vm_defaults.system_overlay_size",
                "vm_defaults.system_overlay_size is a key of another banger: a VM has one disk; vm_defaults.disk_size says how large it is",
            ),
        ];
        for (name, want) in table {
            assert_eq!(unknown(name), want);
        }
    }

    #[test]
    fn no_key_is_there_twice_or_gone() {
        let mut names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        names.extend(GONE.iter().map(|(name, _)| *name));
        names.extend(ALIASES.iter().map(|(name, _)| *name));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_readme_has_every_key() {
        let readme = include_str!("../../README.md");
        for key in KEYS {
            let leaf = key.name.rsplit('.').next().expect("a name");
            assert!(readme.contains(leaf), "{}", key.name);
        }
    }
}
