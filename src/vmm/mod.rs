//! VMMs: what runs a guest. Firecracker where KVM works, QEMU everywhere else (DESIGN D4).
//!
//! A VMM is described, then launched: [`Vmm::plan`] is pure and says which files to write and which programs to run;
//! the daemon does it, in that order, and knows the processes before they exec (daemon/launch.rs).

use std::path::PathBuf;

use crate::vm::size::Mib;

/// What a VMM must build: the devices of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub vcpu: u8,
    pub memory: Mib,
    /// The ELF vmlinux.
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    /// The words for /init and the image's init; the VMM puts those of its own before them.
    pub words: String,
    /// The guest sees them as vda, vdb, ... in this order.
    pub drives: Vec<Drive>,
    /// The guest's vsock context id, unique on this host.
    pub cid: u32,
    pub nic: Option<Nic>,
    /// A directory of this VM alone, for sockets; exists, mode 0700.
    pub sockets: PathBuf,
    pub console_log: PathBuf,
    pub vmm_log: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    pub path: PathBuf,
    pub read_only: bool,
    /// The guest's flushes need not reach the host's disk: the VM is deleted when it ends.
    pub disposable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nic {
    /// QEMU's user-mode network (10.0.2.0/24, the gateway .2, DNS .3): needs no privilege.
    User,
}

/// What was chosen to run a machine, found on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    Kvm,
    Tcg,
}

/// How to reach a guest's vsock ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// A unix socket that takes `CONNECT <port>\n`; the guest's connections to host port N arrive at `<socket>_N`
    /// (Firecracker: docs/vsock.md).
    Hybrid { socket: PathBuf },
    /// The host kernel's vhost-vsock.
    Vhost { cid: u32 },
}

/// One program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program by absolute path, and its arguments.
    pub argv: Vec<String>,
    /// Where stdout and stderr go; appended to.
    pub log: PathBuf,
    /// The program is of use once this socket exists.
    pub socket: PathBuf,
}

/// All that it takes to run a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Files to write first, mode 0600.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// The vsock device, where it is a program of its own; it is launched before the VMM, and ended after it.
    pub vsock: Option<Launch>,
    pub vmm: Launch,
    pub channel: Channel,
}
