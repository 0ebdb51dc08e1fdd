//! May they? The verdict on a request, from who asks, whose helper this is and what exists. Pure.
//!
//! The owner's account may be in somebody else's hands: then all that can be had here is what the owner can have anyway, VMs on
//! the bridge, and nothing of anybody else's.

use std::fmt;

use rustix::process::Uid;

use crate::network::subnet::Subnet;
use crate::proto::root::{Code, Launch, MAX_DESCRIPTORS, Request, Root};
use crate::root::records::{Doing, Exists, Record};
use crate::vm::id::VmId;
use crate::vm::size::Mib;
use crate::vm::spec::{MEMORY_FLOOR, VCPU_CEILING};

/// Ports below are root's to give (ip(7), ip_unprivileged_port_start).
const FIRST_PORT: u16 = 1024;
/// The descriptors of a launch that are not drives: sockets' directory, two logs, kernel, initramfs.
const FIXED_DESCRIPTORS: usize = 5;
/// More memory than any host has, and small enough for every sum of bytes.
const MEMORY_CEILING: Mib = Mib(64 << 20);

/// Who asks, and what came with the request.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    pub uid: Uid,
    pub descriptors: usize,
}

/// Whose helper it is.
#[derive(Debug, Clone, Copy)]
pub struct Installed {
    pub owner: Uid,
    /// The bridge's network, by root's own configuration: who could choose it could take addresses that others on this host speak with.
    pub subnet: Subnet,
}

/// Why it is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    Peer(u32),
    Descriptors {
        came: usize,
        wanted: usize,
    },
    /// A port that is root's.
    Port(u16),
    /// No guest can have that address.
    Slot {
        slot: u16,
        subnet: Subnet,
    },
    SlotTaken {
        slot: u16,
        by: VmId,
    },
    NoBridge,
    /// VMs are on the bridge, which has another network.
    OtherSubnet(Subnet),
    /// Root's configuration says this one.
    NotConfigured(Subnet),
    Unknown(VmId),
    /// Its record is another version's, or damaged.
    Unreadable(VmId),
    HasTap(VmId),
    /// Something was begun and has not been finished.
    Unfinished(VmId),
    Launched(VmId),
    NotLaunched(VmId),
    /// Its tap is the owner's, for a VMM without a jail.
    Direct(VmId),
    /// The numbers make no machine.
    Machine(&'static str),
}

/// Says whether `asker` may have `request` done now.
pub fn judge(asker: Asker, installed: Installed, exists: &Exists, request: &Request) -> Result<(), Denied> {
    if !asker.uid.is_root() && asker.uid != installed.owner {
        return Err(Denied::Peer(asker.uid.as_raw()));
    }
    let wanted = descriptors(request);
    if asker.descriptors != wanted {
        return Err(Denied::Descriptors { came: asker.descriptors, wanted });
    }
    match request {
        Request::EnsureBridge { subnet, dns_port } => {
            port(*dns_port)?;
            match exists.bridge {
                // Their guests know the network that they were started in.
                Some(bridge)
                    if bridge.subnet != *subnet
                        && !(exists.vms.is_empty() && exists.unreadable.is_empty()) =>
                {
                    Err(Denied::OtherSubnet(bridge.subnet))
                }
                Some(_) | None if *subnet != installed.subnet => Err(Denied::NotConfigured(installed.subnet)),
                Some(_) | None => Ok(()),
            }
        }
        Request::CreateTap { vm, port } => {
            let bridge = exists.bridge.ok_or(Denied::NoBridge)?;
            match exists.vms.get(vm) {
                _ if exists.unreadable.contains(vm) => return Err(Denied::Unreadable(*vm)),
                Some(Record { doing: Some(_), .. }) => return Err(Denied::Unfinished(*vm)),
                Some(_) => return Err(Denied::HasTap(*vm)),
                None => {}
            }
            if bridge.subnet.address(port.slot).is_none() {
                return Err(Denied::Slot { slot: port.slot, subnet: bridge.subnet });
            }
            match exists.vms.values().find(|other| other.port.slot == port.slot) {
                Some(other) => Err(Denied::SlotTaken { slot: port.slot, by: other.vm }),
                None => Ok(()),
            }
        }
        Request::DeleteTap { vm } => match known(exists, *vm)? {
            Record { processes: Some(_), .. } | Record { doing: Some(Doing::Launching), .. } => {
                Err(Denied::Launched(*vm))
            }
            Record { doing: Some(Doing::CreatingTap | Doing::Removing) | None, .. } => Ok(()),
        },
        Request::SetNat { vm, .. } => at_rest(exists, *vm).map(|_| ()),
        Request::SetResolver { dns_port } => {
            port(*dns_port)?;
            exists.bridge.map(|_| ()).ok_or(Denied::NoBridge)
        }
        Request::ClearResolver | Request::Status => Ok(()),
        Request::LaunchVm(launch) => {
            machine(launch)?;
            exists.bridge.ok_or(Denied::NoBridge)?;
            match at_rest(exists, launch.vm)? {
                Record { processes: Some(_), .. } => Err(Denied::Launched(launch.vm)),
                Record { port, .. } if port.direct => Err(Denied::Direct(launch.vm)),
                _ => Ok(()),
            }
        }
        Request::SignalVm { vm, .. } => match known(exists, *vm)? {
            Record { processes: Some(_), .. } => Ok(()),
            Record { processes: None, .. } => Err(Denied::NotLaunched(*vm)),
        },
        Request::RemoveVm { vm } => known(exists, *vm).map(|_| ()),
    }
}

/// How many descriptors come with it.
fn descriptors(request: &Request) -> usize {
    match request {
        Request::LaunchVm(launch) => FIXED_DESCRIPTORS + launch.drives.len(),
        Request::EnsureBridge { .. }
        | Request::CreateTap { .. }
        | Request::DeleteTap { .. }
        | Request::SetNat { .. }
        | Request::SetResolver { .. }
        | Request::ClearResolver
        | Request::SignalVm { .. }
        | Request::RemoveVm { .. }
        | Request::Status => 0,
    }
}

fn port(port: u16) -> Result<(), Denied> {
    if port < FIRST_PORT { Err(Denied::Port(port)) } else { Ok(()) }
}

fn known(exists: &Exists, vm: VmId) -> Result<&Record, Denied> {
    match exists.vms.get(&vm) {
        Some(record) => Ok(record),
        None if exists.unreadable.contains(&vm) => Err(Denied::Unreadable(vm)),
        None => Err(Denied::Unknown(vm)),
    }
}

fn at_rest(exists: &Exists, vm: VmId) -> Result<&Record, Denied> {
    match known(exists, vm)? {
        Record { doing: Some(_), .. } => Err(Denied::Unfinished(vm)),
        record => Ok(record),
    }
}

fn machine(launch: &Launch) -> Result<(), Denied> {
    let root = match launch.root {
        Root::Snapshot { .. } => 2,
        Root::Plain => 1,
    };
    match () {
        () if launch.vcpu == 0 || launch.vcpu > VCPU_CEILING => Err(Denied::Machine("its number of vCPUs")),
        () if launch.memory < MEMORY_FLOOR || launch.memory > MEMORY_CEILING => {
            Err(Denied::Machine("its memory"))
        }
        () if launch.drives.len() < root + usize::from(launch.modules) => {
            Err(Denied::Machine("its number of drives"))
        }
        () if FIXED_DESCRIPTORS + launch.drives.len() > MAX_DESCRIPTORS => {
            Err(Denied::Machine("its number of drives"))
        }
        () if launch.root == (Root::Snapshot { sectors: 0 }) => Err(Denied::Machine("the size of its root")),
        () => Ok(()),
    }
}

impl Denied {
    pub fn code(&self) -> Code {
        match self {
            Self::Descriptors { .. } => Code::BadRequest,
            Self::Peer(_) | Self::Port(_) | Self::NotConfigured(_) | Self::Slot { .. } | Self::Machine(_) => {
                Code::Denied
            }
            Self::NoBridge | Self::Unknown(_) | Self::NotLaunched(_) => Code::NotFound,
            Self::SlotTaken { .. }
            | Self::OtherSubnet(_)
            | Self::Unreadable(_)
            | Self::HasTap(_)
            | Self::Unfinished(_)
            | Self::Launched(_)
            | Self::Direct(_) => Code::Conflict,
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(uid) => write!(f, "the user with uid {uid} is not whom this helper serves"),
            Self::Descriptors { came, wanted } => {
                write!(f, "{came} descriptors came with the request, which takes {wanted}")
            }
            Self::Port(port) => write!(f, "port {port} is root's; choose {FIRST_PORT} or more"),
            Self::Slot { slot, subnet } => write!(f, "no guest of {subnet} can have address number {slot}"),
            Self::SlotTaken { slot, by } => write!(f, "address number {slot} is VM {by}'s"),
            Self::NoBridge => f.write_str("there is no bridge yet"),
            Self::NotConfigured(subnet) => write!(
                f,
                "the bridge's network is {subnet}; another one is set by `bridge_address` in root's own config.toml, /etc/banger on an \
                 installed machine"
            ),
            Self::OtherSubnet(subnet) => {
                write!(f, "VMs are on the bridge with {subnet}; stop them before it becomes another network")
            }
            Self::Unknown(vm) => write!(f, "there is no VM {vm} here"),
            Self::Unreadable(vm) => {
                write!(f, "the record of VM {vm} cannot be read; what it has stays as it is")
            }
            Self::HasTap(vm) => write!(f, "VM {vm} has its tap already"),
            Self::Unfinished(vm) => write!(f, "something was begun for VM {vm} and not finished; remove it"),
            Self::Launched(vm) => write!(f, "VM {vm} was launched and has not been removed"),
            Self::NotLaunched(vm) => write!(f, "VM {vm} has not been launched here"),
            Self::Direct(vm) => write!(f, "the tap of VM {vm} is its owner's, for a VMM without a jail"),
            Self::Machine(what) => write!(f, "{what} makes no machine"),
        }
    }
}

impl std::error::Error for Denied {}

#[cfg(test)]
mod tests;
