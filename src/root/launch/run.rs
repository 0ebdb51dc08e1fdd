//! What the processes of one VM become: from a request and the programs of this host to their orders.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::network::names::TapName;
use crate::proto::root::{DriveKind, Launch, Vmm, Vsock};
use crate::root::launch::descriptors::{self, Role};
use crate::root::launch::machine::{self, TAP};
use crate::root::launch::order::{Device, Jailer, Mount, Order, Ours};
use crate::root::launch::{LaunchError, Site, cgroup};
use crate::vmm::firecracker::{self, Firecracker};
use crate::vmm::{Accel, Machine, Nic, Tap, Vmm as _};

/// For the directories and the mount points of a jail, its configuration, its devices.
const ROOM_BYTES: u64 = 4 << 20;

/// Where jails are made, and with what.
pub struct Jails<'a> {
    pub base: &'a Path,
    pub site: &'a Site<'a>,
}

/// The processes of a VM.
pub struct Runs {
    /// The vsock device, where it is a process; it comes first.
    pub vsock: Option<Run>,
    pub vmm: Run,
}

/// One process: its order, but for what is known only later.
pub struct Run {
    order: Order,
    /// The socket on which the vsock device must listen before this one begins.
    after: Option<PathBuf>,
}

impl Runs {
    /// Finds the programs and plans the machine. Changes nothing.
    pub fn plan(jails: &Jails<'_>, launch: &Launch) -> Result<Self, LaunchError> {
        let machine =
            machine::machine(launch, jails.site.subnet, jails.site.slot).map_err(LaunchError::Machine)?;
        match launch.vmm {
            Vmm::Firecracker => firecracker(jails, launch, &machine),
            Vmm::QemuKvm => qemu(jails, launch, &machine, Accel::Kvm),
            Vmm::QemuTcg => qemu(jails, launch, &machine, Accel::Tcg),
        }
    }

    /// The descriptors for the processes, in the order by which their orders name them: those that were given, then the tap.
    pub fn descriptors(
        &self,
        given: Vec<(Role, OwnedFd)>,
        launch: &Launch,
        site: &Site<'_>,
    ) -> Result<Vec<OwnedFd>, LaunchError> {
        let mut descriptors: Vec<_> = given.into_iter().map(|(_, fd)| fd).collect();
        if self.vmm.order.inherited.is_some() {
            descriptors.push((site.open_tap)(TapName::of(launch.vm)).map_err(LaunchError::Tap)?);
        }
        Ok(descriptors)
    }
}

impl Run {
    pub fn order(self, cgroup: Option<PathBuf>, device: Option<u32>) -> Order {
        let mut order = Order { cgroup, ..self.order };
        if let Jailer::Ours(ours) = &mut order.jailer {
            ours.after = device.zip(self.after);
        }
        order
    }
}

fn firecracker(jails: &Jails<'_>, launch: &Launch, machine: &Machine) -> Result<Runs, LaunchError> {
    let (program, jailer) = jails.site.programs.firecracker().map_err(LaunchError::Program)?;
    // The jailer copies it.
    let size = fs::metadata(&program).map_err(LaunchError::effect("look at Firecracker"))?.len();
    let jailer = firecracker::jail::Jailer {
        program: jailer,
        base: jails.base.to_owned(),
        uid: jails.site.uid,
        cgroup: cgroup::name(launch.vm),
    };
    let jailed = jailer.plan(&Firecracker { program }, machine).map_err(LaunchError::Plan)?;
    let roles = descriptors::roles(launch);
    let order = Order {
        cgroup: None,
        base: jails.base.to_owned(),
        room_bytes: size + ROOM_BYTES,
        root: jailed.root,
        // The console is its stdout.
        mounts: mounts(launch, &roles, |role| role != Role::Console),
        files: jailed.files,
        jailer: Jailer::Own,
        inherited: None,
        stdout: place(&roles, Role::Console),
        stderr: place(&roles, Role::Log),
        argv: jailed.argv,
    };
    Ok(Runs { vsock: None, vmm: Run { order, after: None } })
}

fn qemu(jails: &Jails<'_>, launch: &Launch, machine: &Machine, accel: Accel) -> Result<Runs, LaunchError> {
    let programs = jails.site.programs;
    let program = programs.qemu().map_err(LaunchError::Program)?;
    let device = match launch.vsock {
        Vsock::Kernel => None,
        Vsock::Device => Some(programs.vhost_device_vsock().map_err(LaunchError::Program)?),
    };
    let plan = machine::qemu(accel, program, device).plan(machine).map_err(LaunchError::Plan)?;
    let roles = descriptors::roles(launch);
    let mut devices = vec![Device::Null, Device::Zero, Device::Urandom];
    devices.extend((accel == Accel::Kvm).then_some(Device::Kvm));
    devices.extend((launch.vsock == Vsock::Kernel).then_some(Device::VhostVsock));
    let run = |argv, devices, shown: fn(Role) -> bool, after| Run {
        order: Order {
            cgroup: None,
            base: jails.base.to_owned(),
            room_bytes: ROOM_BYTES,
            root: jails.base.to_owned(),
            mounts: mounts(launch, &roles, shown),
            files: vec![],
            jailer: Jailer::Ours(Ours { uid: jails.site.uid, devices, after: None }),
            inherited: None,
            stdout: place(&roles, Role::Log),
            stderr: place(&roles, Role::Log),
            argv,
        },
        after,
    };
    let basic = vec![Device::Null, Device::Zero, Device::Urandom];
    let listens = plan.vsock.as_ref().map(|vsock| vsock.socket.clone());
    let vsock = plan.vsock.map(|vsock| run(vsock.argv, basic, |role| role == Role::Sockets, None));
    // Its log is its stderr.
    let mut vmm = run(plan.vmm.argv, devices, |role| role != Role::Log, listens);
    if let Some(Nic::Tap { tap: Tap::Open(_), .. }) = machine.nic {
        vmm.order.inherited = Some((roles.len(), TAP));
    }
    Ok(Runs { vsock, vmm })
}

/// Where in the jail the descriptors are that `shown` is true of.
fn mounts(launch: &Launch, roles: &[Role], shown: impl Fn(Role) -> bool) -> Vec<Mount> {
    let mount = |(descriptor, role): (usize, &Role)| {
        let (at, read_only) = match role {
            Role::Sockets => (machine::sockets(launch), false),
            Role::Console => (machine::CONSOLE.into(), false),
            Role::Log => (machine::LOG.into(), false),
            Role::Kernel => (machine::KERNEL.into(), true),
            Role::Initrd => (machine::INITRD.into(), true),
            Role::Drive(n, kind) => (machine::drive(*n), *kind == DriveKind::ReadOnly),
        };
        shown(*role).then_some(Mount { descriptor, at, read_only })
    };
    roles.iter().enumerate().filter_map(mount).collect()
}

fn place(roles: &[Role], role: Role) -> usize {
    // Those that are asked for here are in every launch.
    roles.iter().position(|r| *r == role).unwrap_or_default()
}
