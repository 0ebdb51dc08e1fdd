//! VMMs: what runs a guest. Firecracker where KVM works, QEMU everywhere else (DESIGN D4).
//!
//! A VMM is chosen, described, then launched: [`choose::find`] looks at the host and says which; [`Vmm::plan`] is pure
//! and says which files to write and which programs to run; the daemon does it, in that order, and knows the processes
//! before they exec (daemon/launch.rs). From then on the guest is reached through its [`Channel`], and the VMM itself
//! through its control socket ([`control`]).

pub mod channel;
pub mod choose;
pub mod control;
mod deadline;
pub mod firecracker;
mod kvm;
pub mod observe;
pub mod qemu;
pub mod tsc;
pub mod unanswered;
mod vsock_address;

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::files::remove_if_present;
use crate::network::names::{Mac, TapName};
use crate::vm::boot::Halt;
use crate::vm::size::Mib;

/// A program that builds a machine and runs it.
pub trait Vmm {
    fn kind(&self) -> Kind;
    fn accel(&self) -> Accel;

    /// What the guest must do at its end, so that this VMM ends too.
    fn halt(&self) -> Halt {
        self.kind().halt()
    }

    /// How the guest will be reached; known before there is a [`Plan`], since a listener's port is one of the words.
    ///
    /// # Errors
    /// [`PlanError::LongSocket`].
    fn channel(&self, sockets: &Path, cid: u32) -> Result<Channel, PlanError>;

    /// All that it takes to run `machine`. Reads and writes nothing.
    ///
    /// # Errors
    /// [`PlanError`] for what this VMM cannot be told or cannot do.
    fn plan(&self, machine: &Machine) -> Result<Plan, PlanError>;
}

/// Which VMM it is; enough to speak to one that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Firecracker,
    Qemu,
}

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
    /// A directory of this VM alone, for sockets; exists, mode 0700. Its name is the VM's id, and what the VMM is told to call
    /// the machine.
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
    /// A tap; the guest's interface has this MAC.
    Tap { tap: Tap, mac: Mac },
}

/// How the VMM comes by its tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tap {
    /// It opens it by name, and must run as the user that the tap was made for.
    Named(TapName),
    /// It is born with the tap open, as this descriptor; Firecracker cannot be told of one.
    Open(RawFd),
}

/// What was chosen to run a machine, found on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// Where stdout and stderr go; appended to. Firecracker's stdout is the guest's console.
    pub log: PathBuf,
    /// The program is of use once this socket exists.
    pub socket: PathBuf,
}

/// All that it takes to run a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Sockets that an earlier run may have left; removed first, since who binds them refuses to start otherwise.
    pub stale: Vec<PathBuf>,
    /// Files to write first, mode 0600.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// The vsock device, where it is a program of its own; it is launched before the VMM, and ended after it.
    pub vsock: Option<Launch>,
    pub vmm: Launch,
    pub channel: Channel,
}

/// Why a machine cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanError {
    LongSocket { path: PathBuf },
    NotText { path: PathBuf },
    LongWords { bytes: usize },
    ManyDrives { asked: usize },
    UserNetwork,
    OpenTap,
}

/// A unix socket's path has at most this many bytes (unix(7): 108 with the final NUL).
const SOCKET_PATH: usize = 107;
/// `_` and a port of ten digits, which follow the path of a hybrid vsock socket.
const PORT_SUFFIX: usize = 11;
/// x86's COMMAND_LINE_SIZE with the final NUL; the kernel cuts the rest off without a word.
const WORDS: usize = 2048;
/// Both VMMs have more slots; a VM has an image, a disk and the kernel's modules.
const DRIVES: usize = 8;

impl Plan {
    /// Removes what is stale and writes the files.
    pub fn prepare(&self) -> io::Result<()> {
        self.stale.iter().try_for_each(|path| remove_if_present(path))?;
        self.files.iter().try_for_each(|(path, bytes)| write_private(path, bytes))
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    // Not atomic: nobody reads it before the VMM is launched, and it is written anew for every launch.
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(bytes)
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Firecracker => "firecracker",
            Self::Qemu => "qemu",
        }
    }

    /// What its control socket is called, in the directory for sockets.
    pub fn control_socket(self) -> &'static str {
        match self {
            Self::Firecracker => "api.sock",
            Self::Qemu => "qmp.sock",
        }
    }

    /// The one that [`Kind::name`] calls so.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Firecracker, Self::Qemu].into_iter().find(|kind| kind.name() == name)
    }

    pub fn halt(self) -> Halt {
        match self {
            // Firecracker knows no power button; it ends when the guest resets through the keyboard controller.
            Self::Firecracker => Halt::Reboot,
            Self::Qemu => Halt::PowerOff,
        }
    }
}

impl Machine {
    /// What the VMM calls this machine: letters, digits and `-`, at most 64 (Firecracker: validate_instance_id).
    fn name(&self) -> String {
        let name = self.sockets.file_name().unwrap_or_default().to_string_lossy();
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        format!("banger-{}", name.chars().map(plain).take(57).collect::<String>())
    }
}

/// `path` as text for an argument or a JSON file.
fn text(path: &Path) -> Result<&str, PlanError> {
    path.to_str().ok_or_else(|| PlanError::NotText { path: path.to_owned() })
}

/// The socket `name` in `directory`, with room for `suffix` more bytes behind it.
fn socket(directory: &Path, name: &str, suffix: usize) -> Result<PathBuf, PlanError> {
    let path = directory.join(name);
    match path.as_os_str().len() + suffix {
        n if n <= SOCKET_PATH => Ok(path),
        _ => Err(PlanError::LongSocket { path }),
    }
}

/// The kernel command line: the VMM's words, then the machine's.
fn command_line(vmm: &str, machine: &Machine) -> Result<String, PlanError> {
    let words = format!("{vmm} {}", machine.words);
    if words.len() < WORDS { Ok(words) } else { Err(PlanError::LongWords { bytes: words.len() }) }
}

fn check_drives(machine: &Machine) -> Result<(), PlanError> {
    match machine.drives.len() {
        n if n <= DRIVES => Ok(()),
        asked => Err(PlanError::ManyDrives { asked }),
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LongSocket { path } => write!(
                f,
                "the socket path {path:?} is too long for the kernel ({SOCKET_PATH} bytes); set XDG_RUNTIME_DIR or BANGER_ROOT to \
                 a shorter path"
            ),
            Self::NotText { path } => {
                write!(f, "the path {path:?} is not UTF-8; set BANGER_ROOT to a path that is")
            }
            Self::LongWords { bytes } => {
                write!(f, "the kernel command line has {bytes} bytes; the kernel reads {} of them", WORDS - 1)
            }
            Self::ManyDrives { asked } => write!(f, "{asked} drives are too many; a machine takes {DRIVES}"),
            Self::UserNetwork => {
                f.write_str("Firecracker has no user-mode network; use --vmm qemu with --nat")
            }
            Self::OpenTap => f.write_str("Firecracker opens its tap by name and takes no descriptor"),
        }
    }
}

impl std::error::Error for PlanError {}
