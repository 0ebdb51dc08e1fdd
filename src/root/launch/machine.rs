//! From a request's numbers to a machine as the VMM in its jail sees it, and to what that VMM is told.

use std::path::PathBuf;

use crate::network::names::{Mac, TapName};
use crate::network::subnet::Subnet;
use crate::proto::root::{DriveKind, Launch, Root, Vmm, Vsock};
use crate::vm::boot::{self, Boot, Net, systemd_words};
use crate::vmm::qemu::{Qemu, VsockDevice};
use crate::vmm::{self, Accel, Drive, Kind, Machine, Nic, Tap, tsc};

/// The descriptor as which QEMU finds its tap: far from those that a program has at its start.
pub const TAP: i32 = 64;

/// Why a request describes no machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadMachine {
    /// A snapshot needs an image and a disk, a plain root one drive, modules one more.
    Drives,
    /// Firecracker has a vsock device of its own.
    Vsock,
    /// The VM has no address in the bridge's network.
    Slot(u16),
    Vcpu,
}

impl std::fmt::Display for BadMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Drives => f.write_str("the drives are not those of its root and its modules"),
            Self::Vsock => f.write_str("Firecracker's vsock does not go through the host's kernel"),
            Self::Slot(slot) => write!(f, "slot {slot} has no address in the bridge's network"),
            Self::Vcpu => f.write_str("a machine has at least one vCPU"),
        }
    }
}

impl std::error::Error for BadMachine {}

/// Where things are in a jail.
pub fn sockets(launch: &Launch) -> PathBuf {
    // Its last component is the machine's name (vmm/mod.rs).
    PathBuf::from("/vm").join(launch.vm.to_string())
}
pub const CONSOLE: &str = "/console.log";
pub const LOG: &str = "/vmm.log";
pub const KERNEL: &str = "/kernel";
pub const INITRD: &str = "/initrd";
pub fn drive(n: usize) -> PathBuf {
    PathBuf::from(format!("/drive{n}"))
}

/// The machine of `launch`, in `slot` of the network `subnet`.
pub fn machine(launch: &Launch, subnet: Subnet, slot: u16) -> Result<Machine, BadMachine> {
    let kind = kind(launch.vmm);
    if kind == Kind::Firecracker && launch.vsock == Vsock::Kernel {
        return Err(BadMachine::Vsock);
    }
    if launch.vcpu == 0 {
        return Err(BadMachine::Vcpu);
    }
    let net = launch.network.then(|| net(subnet, slot)).transpose()?;
    let nic = net.as_ref().map(|net| Nic::Tap {
        tap: match kind {
            Kind::Firecracker => Tap::Named(TapName::of(launch.vm)),
            Kind::Qemu => Tap::Open(TAP),
        },
        mac: Mac::of(net.address),
    });
    let boot = Boot {
        id: launch.vm,
        name: launch.name.clone(),
        root: root(launch)?,
        modules: launch.modules.then(|| device(launch.drives.len() - 1)),
        net,
        ready_port: launch.ready_port,
        halt: kind.halt(),
    };
    let drives = launch.drives.iter().enumerate().map(|(n, kind)| Drive {
        path: drive(n),
        read_only: *kind == DriveKind::ReadOnly,
        disposable: *kind == DriveKind::Disposable,
    });
    Ok(Machine {
        vcpu: launch.vcpu,
        memory: launch.memory,
        kernel: KERNEL.into(),
        initrd: INITRD.into(),
        words: format!("{boot} {}", systemd_words(launch.vm)),
        drives: drives.collect(),
        cid: launch.vm.cid(),
        nic,
        sockets: sockets(launch),
        console_log: CONSOLE.into(),
        vmm_log: LOG.into(),
    })
}

/// How the guest's root is made; the drives must be there for it, and one of them for the modules.
fn root(launch: &Launch) -> Result<boot::Root, BadMachine> {
    let (root, needed) = match launch.root {
        Root::Snapshot { sectors } => (boot::Root::Snapshot { base: device(0), cow: device(1), sectors }, 2),
        Root::Plain => (boot::Root::Plain { device: device(0) }, 1),
    };
    match launch.drives.len() == needed + usize::from(launch.modules) {
        true => Ok(root),
        false => Err(BadMachine::Drives),
    }
}

/// What the guest calls its drive `n`; the planners refuse more than there are letters.
fn device(n: usize) -> String {
    format!("vd{}", char::from(b'a' + n as u8))
}

/// The guest's place on the bridge, whose address is its gateway and its DNS server.
fn net(subnet: Subnet, slot: u16) -> Result<Net, BadMachine> {
    let address = subnet.address(slot).ok_or(BadMachine::Slot(slot))?;
    Ok(Net { address, prefix: subnet.prefix(), gateway: subnet.gateway(), dns: vec![subnet.gateway()] })
}

pub fn kind(vmm: Vmm) -> Kind {
    match vmm {
        Vmm::Firecracker => Kind::Firecracker,
        Vmm::QemuKvm | Vmm::QemuTcg => Kind::Qemu,
    }
}

/// A QEMU at `program`, and with Vsock::Device a vsock process at `device`.
pub fn qemu(accel: Accel, program: PathBuf, device: Option<PathBuf>) -> Qemu {
    let vsock = match device {
        Some(program) => VsockDevice::Process { program },
        None => VsockDevice::Kernel,
    };
    let tsc_khz = match accel {
        Accel::Tcg => tsc::khz(),
        vmm::Accel::Kvm => None,
    };
    Qemu { program, accel, vsock, tsc_khz }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::subnet;
    use crate::vm::size::Mib;

    fn launch() -> Launch {
        Launch {
            vm: "00000000002a".parse().expect("an id"),
            name: "dev".parse().expect("a name"),
            vmm: Vmm::Firecracker,
            vsock: Vsock::Device,
            vcpu: 2,
            memory: Mib(512),
            drives: vec![DriveKind::ReadOnly, DriveKind::Disposable, DriveKind::ReadOnly],
            root: Root::Snapshot { sectors: 2048 },
            modules: true,
            network: true,
            ready_port: 1001,
        }
    }

    #[test]
    fn numbers_become_a_machine_whose_paths_are_in_the_jail() {
        let machine = machine(&launch(), subnet::DEFAULT, 2).expect("a machine");
        let words = "banger.id=00000000002a banger.name=dev banger.root=snapshot:vda:vdb:2048 banger.modules=vdc \
                     banger.net=172.16.0.2/24,172.16.0.1 banger.dns=172.16.0.1 banger.ready=1001 banger.halt=reboot \
                     systemd.machine_id=ba9e500000000000000000000000002a";
        assert!(machine.words.starts_with(words), "{}", machine.words);
        let drives: Vec<_> =
            machine.drives.iter().map(|d| (d.path.to_str(), d.read_only, d.disposable)).collect();
        let want =
            [(Some("/drive0"), true, false), (Some("/drive1"), false, true), (Some("/drive2"), true, false)];
        assert_eq!(drives, want);
        assert_eq!(machine.sockets, PathBuf::from("/vm/00000000002a"));
        let tap = Tap::Named(TapName::of(launch().vm));
        assert_eq!(machine.nic, Some(Nic::Tap { tap, mac: Mac::of([172, 16, 0, 2].into()) }));
        let qemu = Launch { vmm: Vmm::QemuKvm, ..launch() };
        let machine = super::machine(&qemu, subnet::DEFAULT, 2).expect("a machine");
        assert!(matches!(machine.nic, Some(Nic::Tap { tap: Tap::Open(TAP), .. })));
        assert!(machine.words.contains("banger.halt=poweroff"));
        let alone =
            super::machine(&Launch { network: false, ..launch() }, subnet::DEFAULT, 2).expect("a machine");
        assert!(alone.nic.is_none() && !alone.words.contains("banger.net"), "{}", alone.words);
    }

    #[test]
    fn numbers_that_describe_no_machine_are_refused() {
        let refused = |change: fn(&mut Launch)| {
            let mut launch = launch();
            change(&mut launch);
            machine(&launch, subnet::DEFAULT, 2).expect_err("refused")
        };
        assert_eq!(refused(|l| l.drives.truncate(2)), BadMachine::Drives);
        assert_eq!(refused(|l| l.drives.clear()), BadMachine::Drives);
        assert_eq!(refused(|l| l.modules = false), BadMachine::Drives);
        assert_eq!(refused(|l| l.root = Root::Plain), BadMachine::Drives);
        assert_eq!(refused(|l| l.vsock = Vsock::Kernel), BadMachine::Vsock);
        assert_eq!(refused(|l| l.vcpu = 0), BadMachine::Vcpu);
        for slot in [0, 1, 255, u16::MAX] {
            assert_eq!(
                machine(&launch(), subnet::DEFAULT, slot).expect_err("refused"),
                BadMachine::Slot(slot)
            );
        }
    }
}
