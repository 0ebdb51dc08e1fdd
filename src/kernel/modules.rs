//! Which modules a guest loads before it has a root file system, and in which order.

use std::collections::BTreeSet;
use std::fmt;

use crate::kernel::catalog::Catalog;

/// What a module is loaded for; /init loads those of the groups that its machine needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// virtio devices as QEMU's microvm and Firecracker attach them.
    Mmio,
    /// virtio devices on PCI.
    Pci,
    Block,
    /// The root's file system.
    Root,
    /// The device-mapper snapshot that is the root.
    Snapshot,
    Vsock,
    Net,
    Rng,
}

/// One module to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Early {
    pub name: String,
    /// Its file in the module tree.
    pub path: String,
    pub groups: BTreeSet<Group>,
}

/// What /init loads: dependencies first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closure {
    pub modules: Vec<Early>,
    /// Whether a device-mapper snapshot can be built.
    pub snapshot: bool,
}

/// The kernel lacks what no guest can do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MissingModule {
    /// It is neither built in nor there as a module.
    Essential { name: &'static str, config: &'static str },
    /// A module that is there needs one that is not.
    Dependency { name: String, needed_by: String },
}

/// How much a guest needs a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Essential,
    /// All of these, or no snapshot.
    Snapshot,
    Optional,
}

/// What guests need: the normalised name, the option that builds it (kernel: Kconfig), what for, how much.
/// dm-linear and dm-striped are part of dm-mod.
const NEEDS: [(&str, &str, Group, Need); 10] = [
    ("virtio_mmio", "CONFIG_VIRTIO_MMIO", Group::Mmio, Need::Essential),
    ("virtio_pci", "CONFIG_VIRTIO_PCI", Group::Pci, Need::Optional),
    ("virtio_blk", "CONFIG_VIRTIO_BLK", Group::Block, Need::Essential),
    ("dm_mod", "CONFIG_BLK_DEV_DM", Group::Snapshot, Need::Snapshot),
    ("dm_snapshot", "CONFIG_DM_SNAPSHOT", Group::Snapshot, Need::Snapshot),
    ("dm_zero", "CONFIG_DM_ZERO", Group::Snapshot, Need::Snapshot),
    ("ext4", "CONFIG_EXT4_FS", Group::Root, Need::Essential),
    ("vmw_vsock_virtio_transport", "CONFIG_VIRTIO_VSOCKETS", Group::Vsock, Need::Essential),
    ("virtio_net", "CONFIG_VIRTIO_NET", Group::Net, Need::Optional),
    ("virtio_rng", "CONFIG_HW_RANDOM_VIRTIO", Group::Rng, Need::Optional),
];

/// Chooses the modules to load from those there are; what is built in needs no loading.
pub fn closure(catalog: &Catalog) -> Result<Closure, MissingModule> {
    let there = |name: &str| catalog.is_builtin(name) || catalog.find(name).is_some();
    let snapshot = NEEDS.iter().all(|(name, _, _, need)| *need != Need::Snapshot || there(name));
    let mut modules: Vec<Early> = vec![];
    for (name, config, group, need) in NEEDS {
        if catalog.is_builtin(name) || (need == Need::Snapshot && !snapshot) {
            continue;
        }
        let Some(index) = catalog.find(name) else {
            match need {
                Need::Essential => return Err(MissingModule::Essential { name, config }),
                Need::Snapshot | Need::Optional => continue,
            }
        };
        for index in catalog.load_order(index) {
            let module = &catalog.modules()[index];
            if let Some(missing) = catalog.missing(index) {
                let needed_by = module.name.clone();
                return Err(MissingModule::Dependency { name: missing.to_owned(), needed_by });
            }
            match modules.iter_mut().find(|m| m.name == module.name) {
                Some(early) => drop(early.groups.insert(group)),
                None => modules.push(Early {
                    name: module.name.clone(),
                    path: module.path.clone(),
                    groups: [group].into(),
                }),
            }
        }
    }
    Ok(Closure { modules, snapshot })
}

/// Names of what guests need and a kernel's configuration has built in: the text of a .config.
pub fn builtin_by_config(config: &str) -> impl Iterator<Item = String> {
    let set: BTreeSet<&str> = config.lines().filter_map(|line| line.trim().strip_suffix("=y")).collect();
    NEEDS.iter().filter(move |(_, option, _, _)| set.contains(option)).map(|(name, ..)| (*name).to_owned())
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mmio => "mmio",
            Self::Pci => "pci",
            Self::Block => "block",
            Self::Root => "root",
            Self::Snapshot => "snapshot",
            Self::Vsock => "vsock",
            Self::Net => "net",
            Self::Rng => "rng",
        })
    }
}

impl fmt::Display for MissingModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Essential { name, config } => write!(
                f,
                "it has no {name}, neither built in nor as a module, which guests need; use a kernel with {config}"
            ),
            Self::Dependency { name, needed_by } => {
                write!(
                    f,
                    "its module {needed_by} needs {name}, which is not there; give the whole module tree"
                )
            }
        }
    }
}

impl std::error::Error for MissingModule {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::catalog::tests::module;

    /// As Debian's 6.1 for clouds: ext4 and its checksums built in, the rest modules.
    fn cloud(without: &str) -> Catalog {
        let ring: &[&str] = &["virtio", "virtio_ring"];
        let modules = vec![
            module("kernel/drivers/virtio/virtio.ko", &[], &[], &[]),
            module("kernel/drivers/virtio/virtio_ring.ko", &["virtio"], &[], &[]),
            module("kernel/drivers/virtio/virtio_mmio.ko", ring, &[], &[]),
            module("kernel/drivers/block/virtio_blk.ko", ring, &[], &[]),
            module("kernel/drivers/md/dm-mod.ko", &[], &[], &[]),
            module("kernel/drivers/md/dm-bufio.ko", &["dm_mod"], &[], &[]),
            module("kernel/drivers/md/dm-snapshot.ko", &["dm_mod", "dm_bufio"], &[], &[]),
            module("kernel/drivers/md/dm-zero.ko", &["dm_mod"], &[], &[]),
            module("kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko", ring, &[], &[]),
        ];
        let modules = modules.into_iter().filter(|m| m.name != without).collect();
        let builtin = if without == "ext4" { None } else { Some("ext4".to_owned()) };
        Catalog::new(modules, "").with_builtin(builtin)
    }

    fn lines(closure: &Closure) -> Vec<String> {
        let groups = |e: &Early| e.groups.iter().map(Group::to_string).collect::<Vec<_>>().join(",");
        closure.modules.iter().map(|e| format!("{} {}", e.name, groups(e))).collect()
    }

    #[test]
    fn modules_come_in_order_with_all_that_they_are_for() {
        let closure = closure(&cloud("")).expect("complete");
        assert!(closure.snapshot);
        let want = [
            "virtio mmio,block,vsock",
            "virtio_ring mmio,block,vsock",
            "virtio_mmio mmio",
            "virtio_blk block",
            "dm_mod snapshot",
            "dm_bufio snapshot",
            "dm_snapshot snapshot",
            "dm_zero snapshot",
            "vmw_vsock_virtio_transport vsock",
        ];
        assert_eq!(lines(&closure), want);
    }

    #[test]
    fn without_a_part_of_the_snapshot_there_is_none_and_its_modules_are_left_out() {
        for part in ["dm_mod", "dm_snapshot", "dm_zero"] {
            let closure = closure(&cloud(part)).expect("complete");
            assert!(!closure.snapshot, "{part}");
            assert!(!lines(&closure).iter().any(|l| l.contains("snapshot")), "{part}");
        }
    }

    #[test]
    fn what_no_guest_can_do_without_is_named() {
        for (name, config) in [
            ("ext4", "CONFIG_EXT4_FS"),
            ("virtio_blk", "CONFIG_VIRTIO_BLK"),
            ("vmw_vsock_virtio_transport", "CONFIG_VIRTIO_VSOCKETS"),
        ] {
            let error = closure(&cloud(name)).expect_err("refused").to_string();
            assert!(error.contains(name) && error.contains(config), "{error}");
        }
        let error = closure(&cloud("virtio")).expect_err("refused").to_string();
        assert_eq!(
            error,
            "its module virtio_ring needs virtio, which is not there; give the whole module tree"
        );
    }

    #[test]
    fn a_configuration_tells_what_is_built_in() {
        let config =
            "CONFIG_EXT4_FS=y\nCONFIG_VIRTIO_BLK=m\n# CONFIG_DM_ZERO is not set\nCONFIG_DM_SNAPSHOT=y\n";
        assert_eq!(builtin_by_config(config).collect::<Vec<_>>(), ["dm_snapshot", "ext4"]);
    }
}
