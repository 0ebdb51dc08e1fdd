//! Daemon to root helper: one request per connection, as one line of JSON on a unix stream socket, answered by one line.
//!
//! The list is closed, and no request holds a path, an interface's name or an argv (DESIGN D7): ids, numbers, and for
//! [`Request::LaunchVm`] descriptors that the caller has opened with its own rights (SCM_RIGHTS, with the line's first byte).
//!
//! The caller may be anybody who took over the owner's account: see `root::policy` for what is refused.

use serde::{Deserialize, Serialize};

use crate::network::guest::Guest;
use crate::network::subnet::Subnet;
use crate::vm::id::VmId;
use crate::vm::name::VmName;
use crate::vm::size::Mib;
use crate::vm::state::Processes;

/// The longest request line, in bytes, its newline included.
pub const MAX_REQUEST: usize = 64 << 10;
/// The longest answer line, in bytes.
pub const MAX_ANSWER: usize = 1 << 20;
/// The most descriptors that come with a request.
pub const MAX_DESCRIPTORS: usize = 16;

/// All that the helper does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Makes the bridge, its firewall and forwarding, or mends what of it is missing.
    EnsureBridge {
        subnet: Subnet,
        dns_port: u16,
    },
    /// Makes the tap of a VM, a port of the bridge, and lets it pass the firewall.
    CreateTap {
        vm: VmId,
        port: Port,
    },
    DeleteTap {
        vm: VmId,
    },
    /// Changes where the VM may send packets, while it runs.
    SetNat {
        vm: VmId,
        nat: bool,
        lan: bool,
    },
    /// Sends the host's questions about names of VMs to 127.0.0.1, port `dns_port`.
    SetResolver {
        dns_port: u16,
    },
    ClearResolver,
    /// Starts a VMM in its jail. The descriptors are those of [`Launch`].
    LaunchVm(Launch),
    SignalVm {
        vm: VmId,
        signal: Signal,
    },
    /// Ends what is left of the VM's processes, and removes its jail and its tap.
    RemoveVm {
        vm: VmId,
    },
    Status,
}

/// A VM's place on the bridge, and where it may send packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its address, MAC and uid follow from it ([`crate::network::lease::Lease`]).
    pub slot: u16,
    /// To the internet, by masquerade.
    pub nat: bool,
    /// To private networks too; means nothing without `nat`.
    pub lan: bool,
    /// The VMM will be started by the owner, without a jail, so that the tap must be the owner's.
    pub direct: bool,
}

impl Port {
    /// The VM as the firewall knows it. None: the slot is no VM's in that network.
    pub fn guest(self, vm: VmId, subnet: Subnet) -> Option<Guest> {
        Guest::new(vm, self.slot, subnet).map(|guest| Guest { nat: self.nat, lan: self.lan, ..guest })
    }
}

/// A machine in numbers. With the request come these descriptors, in this order: the directory for its sockets, the console log and
/// the VMM's log (for appending), the kernel, the initramfs, then the drives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    pub vm: VmId,
    /// Part of what the guest is told, and of nothing else.
    pub name: VmName,
    pub vmm: Vmm,
    pub vsock: Vsock,
    pub vcpu: u8,
    #[serde(rename = "memory_mib")]
    pub memory: Mib,
    pub drives: Vec<DriveKind>,
    pub root: Root,
    /// Whether the last drive holds the kernel's modules.
    pub modules: bool,
    /// The VM's tap is the guest's one interface.
    pub network: bool,
    /// The vsock port of the host on which the daemon waits for the guest.
    pub ready_port: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vmm {
    Firecracker,
    QemuKvm,
    QemuTcg,
}

/// What stands behind the guest's vsock, which decides how the caller reaches the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vsock {
    /// A unix socket in the directory for sockets: Firecracker's own, or with QEMU a process of its own.
    Device,
    /// The host's kernel; QEMU only.
    Kernel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriveKind {
    ReadOnly,
    Writable,
    /// Writable, and its flushes need not reach the host's disk.
    Disposable,
}

/// How the guest's root is made of its first drives ([`crate::vm::boot::Root`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// A snapshot of the first drive on the second, so many sectors of 512 bytes long.
    Snapshot { sectors: u64 },
    /// The first drive.
    Plain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    Terminate,
    Kill,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    Done,
    Launched {
        processes: Processes,
    },
    Status(Status),
    /// It was not done, and nothing is left of it. A sentence.
    Refused {
        code: Code,
        message: String,
    },
}

/// Why the helper did not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The line is no request.
    BadRequest,
    /// The caller may not ask this.
    Denied,
    /// There is something of that name which banger did not make, or the network is somebody else's.
    Foreign,
    /// There is no such VM, or no bridge yet.
    NotFound,
    /// It has been done already, or something else must be done first.
    Conflict,
    /// Anything else that the kernel or a program refused.
    Failed,
}

/// What the helper has made and what it can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub pid: u32,
    pub version: String,
    /// None: there is no bridge.
    pub subnet: Option<Subnet>,
    pub vms: Vec<VmStatus>,
    /// Which programs it would run, and what is wrong with them; sentences.
    pub notes: Vec<String>,
    /// Why it cannot run Firecracker; None: it can.
    #[serde(default)]
    pub no_firecracker: Option<String>,
    /// What there is of the network; None: it is an older one, which does not say.
    #[serde(default)]
    pub network: Option<Network>,
}

/// What the kernel has of the network at this moment, whatever was once made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub bridge: Bridge,
    pub firewall: Firewall,
    /// Whether the host forwards packets.
    pub forwarding: bool,
    /// VMs that ought to be ports of the bridge, and are not.
    pub unplugged: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bridge {
    Missing,
    Ours,
    /// It is somebody else's.
    Foreign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firewall {
    Missing,
    /// Rules of it are missing, or there are some that are not its.
    Changed,
    Whole,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStatus {
    pub vm: VmId,
    pub port: Option<Port>,
    /// Of those that were launched and have not been removed; they may have ended.
    pub processes: Option<Processes>,
}
