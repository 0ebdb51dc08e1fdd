//! What a VM is made of, and what a host can bear.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::vm::size::Mib;

/// The virtual hardware of one VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub vcpu: u8,
    #[serde(rename = "memory_mib")]
    pub memory: Mib,
    #[serde(rename = "disk_mib")]
    pub disk: Mib,
    pub vmm: VmmChoice,
    pub accel: AccelChoice,
    /// Whether the guest has a network and may use the host's way out.
    pub nat: bool,
    /// Whether that way leads to private networks too; never without `nat`.
    #[serde(default)]
    pub lan: bool,
}

/// Which VMM runs it (DESIGN D4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VmmChoice {
    #[default]
    Auto,
    Firecracker,
    Qemu,
}

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccelChoice {
    #[default]
    Auto,
    Kvm,
    Tcg,
}

/// The text is no such choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadChoice {
    Vmm(String),
    Accel(String),
}

impl FromStr for VmmChoice {
    type Err = BadChoice;
    fn from_str(s: &str) -> Result<Self, BadChoice> {
        match s {
            "auto" => Ok(Self::Auto),
            "firecracker" => Ok(Self::Firecracker),
            "qemu" => Ok(Self::Qemu),
            _ => Err(BadChoice::Vmm(s.to_owned())),
        }
    }
}

impl FromStr for AccelChoice {
    type Err = BadChoice;
    fn from_str(s: &str) -> Result<Self, BadChoice> {
        match s {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => Err(BadChoice::Accel(s.to_owned())),
        }
    }
}

impl fmt::Display for BadChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vmm(typed) => write!(f, "{typed:?} is no VMM; choose auto, firecracker or qemu"),
            Self::Accel(typed) => write!(f, "{typed:?} is no accelerator; choose auto, kvm or tcg"),
        }
    }
}

impl std::error::Error for BadChoice {}

/// What the host has; the upper bounds of every VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    pub cpus: u8,
    pub memory: Mib,
    /// The size of the file system that holds the disks, free or not: disks are sparse.
    pub disk: Mib,
}

/// The least memory that a distribution kernel and our initramfs start in.
pub const MEMORY_FLOOR: Mib = Mib(128);
/// More vCPUs than QEMU's microvm and Firecracker both take (Firecracker: MachineConfiguration.vcpu_count, 1 to 32).
pub const VCPU_CEILING: u8 = 32;

/// What a person asked for; None where the defaults decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wish {
    pub vcpu: Option<u8>,
    #[serde(rename = "memory_mib")]
    pub memory: Option<Mib>,
    #[serde(rename = "disk_mib")]
    pub disk: Option<Mib>,
    #[serde(default)]
    pub vmm: VmmChoice,
    #[serde(default)]
    pub accel: AccelChoice,
    #[serde(default)]
    pub nat: bool,
    #[serde(default)]
    pub lan: bool,
}

/// Why a wish cannot be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadSpec {
    Vcpu {
        asked: u8,
        ceiling: u8,
    },
    MemoryBelow {
        asked: Mib,
    },
    MemoryAbove {
        asked: Mib,
        host: Mib,
    },
    DiskBelow {
        asked: Mib,
        image: Mib,
    },
    DiskAbove {
        asked: Mib,
        host: Mib,
    },
    /// The disk has this size already, and a disk only grows.
    DiskShrinks {
        asked: Mib,
        has: Mib,
    },
    LanWithoutNat,
}

impl Wish {
    /// Returns the spec of a VM on `host` with an image of `image` MiB: what was wished for, else a quarter of the CPUs
    /// (1 to 4), an eighth of the memory (512 MiB to 8 GiB), and 8 GiB of disk or the image's size where that is more.
    ///
    /// # Errors
    /// [`BadSpec`] for a wish below the floor or above the host.
    pub fn settle(&self, host: &Host, image: Mib) -> Result<Spec, BadSpec> {
        let vcpu = self.vcpu.unwrap_or_else(|| (host.cpus / 4).clamp(1, 4));
        let memory =
            self.memory.unwrap_or_else(|| Mib((host.memory.0 / 8).clamp(512, 8192)).min(host.memory));
        let disk = self.disk.unwrap_or_else(|| Mib(8192).min(host.disk).max(image));
        let ceiling = host.cpus.min(VCPU_CEILING);
        match () {
            () if vcpu == 0 || vcpu > ceiling => Err(BadSpec::Vcpu { asked: vcpu, ceiling }),
            () if memory < MEMORY_FLOOR => Err(BadSpec::MemoryBelow { asked: memory }),
            () if memory > host.memory => Err(BadSpec::MemoryAbove { asked: memory, host: host.memory }),
            () if disk < image => Err(BadSpec::DiskBelow { asked: disk, image }),
            () if disk > host.disk => Err(BadSpec::DiskAbove { asked: disk, host: host.disk }),
            () if self.lan && !self.nat => Err(BadSpec::LanWithoutNat),
            () => {
                let (nat, lan) = (self.nat, self.lan);
                Ok(Spec { vcpu, memory, disk, vmm: self.vmm, accel: self.accel, nat, lan })
            }
        }
    }
}

impl fmt::Display for BadSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vcpu { asked, ceiling } => {
                write!(f, "{asked} vCPUs are not possible here; ask for 1 to {ceiling}")
            }
            Self::MemoryBelow { asked } => {
                write!(f, "{asked} of memory is too little to boot; ask for at least {MEMORY_FLOOR}")
            }
            Self::MemoryAbove { asked, host } => {
                write!(f, "{asked} of memory is more than this host has; ask for at most {host}")
            }
            Self::DiskBelow { asked, image } => {
                write!(f, "a disk of {asked} is too small for the image; ask for at least {image}")
            }
            Self::DiskAbove { asked, host } => {
                write!(f, "a disk of {asked} is larger than the host's file system; ask for at most {host}")
            }
            Self::DiskShrinks { asked, has } => {
                write!(f, "the disk has {has} and cannot shrink to {asked}; a disk only grows")
            }
            Self::LanWithoutNat => {
                f.write_str("--lan opens private networks on the way out that --nat gives; ask for --nat too")
            }
        }
    }
}

impl std::error::Error for BadSpec {}

/// `4 vcpu · 8192 MiB · 8 GiB disk`, as printed before a boot.
impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} vcpu · {} MiB · {} disk", self.vcpu, self.memory.0, self.disk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host = Host { cpus: 8, memory: Mib(32_768), disk: Mib(100_000) };

    #[test]
    fn without_a_wish_the_host_decides() {
        let spec = Wish::default().settle(&HOST, Mib(300)).expect("defaults fit");
        assert_eq!((spec.vcpu, spec.memory, spec.disk), (2, Mib(4096), Mib(8192)));
        let small = Host { cpus: 1, memory: Mib(400), disk: Mib(2000) };
        let spec = Wish::default().settle(&small, Mib(300)).expect("defaults fit a small host");
        assert_eq!((spec.vcpu, spec.memory, spec.disk), (1, Mib(400), Mib(2000)));
    }

    #[test]
    fn a_wish_outside_the_bounds_is_refused_with_the_bound() {
        let ask = |change: fn(&mut Wish)| {
            let mut wish = Wish::default();
            change(&mut wish);
            wish.settle(&HOST, Mib(300))
        };
        assert_eq!(ask(|w| w.vcpu = Some(0)), Err(BadSpec::Vcpu { asked: 0, ceiling: 8 }));
        assert_eq!(ask(|w| w.vcpu = Some(9)), Err(BadSpec::Vcpu { asked: 9, ceiling: 8 }));
        assert_eq!(ask(|w| w.memory = Some(Mib(64))), Err(BadSpec::MemoryBelow { asked: Mib(64) }));
        assert!(matches!(ask(|w| w.memory = Some(Mib(99_999))), Err(BadSpec::MemoryAbove { .. })));
        assert!(matches!(ask(|w| w.disk = Some(Mib(299))), Err(BadSpec::DiskBelow { .. })));
        assert!(matches!(ask(|w| w.disk = Some(Mib(100_001))), Err(BadSpec::DiskAbove { .. })));
        assert!(ask(|w| w.disk = Some(Mib(300))).is_ok());
        assert_eq!(ask(|w| w.lan = true), Err(BadSpec::LanWithoutNat));
        assert!(ask(|w| (w.nat, w.lan) = (true, true)).is_ok_and(|spec| spec.lan));
    }
}
