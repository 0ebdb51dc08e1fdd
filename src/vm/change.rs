//! What `vm set` changes of a VM that there is already, and from when on it counts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::vm::lifetime::Ttl;
use crate::vm::name::VmName;
use crate::vm::publish::{Publish, Unpublish};
use crate::vm::size::Mib;
use crate::vm::spec::{BadSpec, Host, MEMORY_FLOOR, Spec, VCPU_CEILING};

/// None, and an empty list: it stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Change {
    pub vcpu: Option<u8>,
    #[serde(rename = "memory_mib")]
    pub memory: Option<Mib>,
    #[serde(rename = "disk_mib")]
    pub disk: Option<Mib>,
    pub nat: Option<bool>,
    pub lan: Option<bool>,
    #[serde(default)]
    pub name: Option<VmName>,
    /// How long it is to exist from now on.
    #[serde(default)]
    pub ttl: Option<Ttl>,
    #[serde(default)]
    pub publish: Vec<Publish>,
    #[serde(default)]
    pub unpublish: Vec<Unpublish>,
}

/// A part of a running VM that changes when it is started the next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Later {
    Vcpu,
    Memory,
    Disk,
    Network,
}

impl Change {
    /// The spec after the change. Only what changes is judged: a VM that came from a larger host can still be given less.
    ///
    /// # Errors
    /// [`BadSpec`], as for a new VM; a disk never shrinks.
    pub fn settle(&self, now: &Spec, host: &Host) -> Result<Spec, BadSpec> {
        let ceiling = host.cpus.min(VCPU_CEILING);
        // What is reached by way of nat goes with it.
        let nat = self.nat.unwrap_or(now.nat);
        let lan = self.lan.unwrap_or(now.lan && nat);
        match (self.vcpu, self.memory, self.disk) {
            (Some(asked), ..) if asked == 0 || asked > ceiling => Err(BadSpec::Vcpu { asked, ceiling }),
            (_, Some(asked), _) if asked < MEMORY_FLOOR => Err(BadSpec::MemoryBelow { asked }),
            (_, Some(asked), _) if asked > host.memory => {
                Err(BadSpec::MemoryAbove { asked, host: host.memory })
            }
            (_, _, Some(asked)) if asked < now.disk => Err(BadSpec::DiskShrinks { asked, has: now.disk }),
            (_, _, Some(asked)) if asked > host.disk => Err(BadSpec::DiskAbove { asked, host: host.disk }),
            _ if lan && !nat => Err(BadSpec::LanWithoutNat),
            (vcpu, memory, disk) => Ok(Spec {
                vcpu: vcpu.unwrap_or(now.vcpu),
                memory: memory.unwrap_or(now.memory),
                disk: disk.unwrap_or(now.disk),
                nat,
                lan,
                ..*now
            }),
        }
    }
}

/// What differs between the two and cannot be changed while the VM runs. `live`: its network can.
pub fn later(from: &Spec, to: &Spec, live: bool) -> Vec<Later> {
    let network = (from.nat, from.lan) != (to.nat, to.lan);
    [
        (from.vcpu != to.vcpu, Later::Vcpu),
        (from.memory != to.memory, Later::Memory),
        (from.disk != to.disk, Later::Disk),
        (network && !live, Later::Network),
    ]
    .into_iter()
    .filter_map(|(differs, what)| differs.then_some(what))
    .collect()
}

impl fmt::Display for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcpu => "the number of CPUs",
            Self::Memory => "the memory",
            Self::Disk => "the size of the disk",
            Self::Network => "the network",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::spec::{AccelChoice, VmmChoice};

    const HOST: Host = Host { cpus: 8, memory: Mib(32_768), disk: Mib(100_000) };
    const NOW: Spec = Spec {
        vcpu: 16,
        memory: Mib(65_536),
        disk: Mib(8192),
        vmm: VmmChoice::Auto,
        accel: AccelChoice::Auto,
        nat: true,
        lan: true,
    };

    fn ask(change: Change) -> Result<Spec, BadSpec> {
        change.settle(&NOW, &HOST)
    }

    #[test]
    fn only_what_changes_is_judged_and_the_rest_stays() {
        assert_eq!(ask(Change::default()), Ok(NOW));
        let less = ask(Change { memory: Some(Mib(1024)), ..Change::default() });
        assert_eq!(less, Ok(Spec { memory: Mib(1024), ..NOW }));
        let more = ask(Change { vcpu: Some(8), disk: Some(Mib(9000)), ..Change::default() });
        assert_eq!(more, Ok(Spec { vcpu: 8, disk: Mib(9000), ..NOW }));
    }

    #[test]
    fn what_a_new_vm_would_be_refused_is_refused() {
        let table = [
            (Change { vcpu: Some(0), ..Change::default() }, BadSpec::Vcpu { asked: 0, ceiling: 8 }),
            (Change { vcpu: Some(9), ..Change::default() }, BadSpec::Vcpu { asked: 9, ceiling: 8 }),
            (Change { memory: Some(Mib(1)), ..Change::default() }, BadSpec::MemoryBelow { asked: Mib(1) }),
            (
                Change { memory: Some(Mib(40_000)), ..Change::default() },
                BadSpec::MemoryAbove { asked: Mib(40_000), host: Mib(32_768) },
            ),
            (
                Change { disk: Some(Mib(8191)), ..Change::default() },
                BadSpec::DiskShrinks { asked: Mib(8191), has: Mib(8192) },
            ),
            (
                Change { disk: Some(Mib(100_001)), ..Change::default() },
                BadSpec::DiskAbove { asked: Mib(100_001), host: Mib(100_000) },
            ),
            (Change { nat: Some(false), lan: Some(true), ..Change::default() }, BadSpec::LanWithoutNat),
        ];
        for (change, want) in table {
            assert_eq!(ask(change.clone()), Err(want), "{change:?}");
        }
    }

    #[test]
    fn private_networks_go_with_the_way_out() {
        let spec = ask(Change { nat: Some(false), ..Change::default() }).expect("possible");
        assert_eq!((spec.nat, spec.lan), (false, false));
        let closed = Spec { nat: false, lan: false, ..NOW };
        let both = Change { nat: Some(true), lan: Some(true), ..Change::default() }.settle(&closed, &HOST);
        assert_eq!(both, Ok(NOW));
        let alone = Change { lan: Some(true), ..Change::default() }.settle(&closed, &HOST);
        assert_eq!(alone, Err(BadSpec::LanWithoutNat));
    }

    #[test]
    fn what_counts_from_the_next_start_is_named() {
        let to = Spec { vcpu: 1, disk: Mib(9000), nat: false, ..NOW };
        assert_eq!(later(&NOW, &to, false), [Later::Vcpu, Later::Disk, Later::Network]);
        assert_eq!(later(&NOW, &to, true), [Later::Vcpu, Later::Disk]);
        assert_eq!(later(&NOW, &NOW, false), []);
    }
}
