//! What the helper tells the process that becomes a VMM: one line of JSON, with the files as descriptors.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a process makes its jail and what it becomes. Descriptors are named by their place among those that come with it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The directory of its cgroup; None: this host has none.
    pub cgroup: Option<PathBuf>,
    /// The directory, root's own, on which it mounts the memory that holds its jail. Nothing of a jail is ever on a disk.
    pub base: PathBuf,
    /// How much that memory may become.
    pub room_bytes: u64,
    /// What will be its root: `base` or below.
    pub root: PathBuf,
    pub mounts: Vec<Mount>,
    /// To be written below the root.
    pub files: Vec<(PathBuf, String)>,
    pub jailer: Jailer,
    /// Stays open in the program, under this number.
    pub inherited: Option<(usize, i32)>,
    pub stdout: usize,
    pub stderr: usize,
    /// The program by absolute path, and its arguments.
    pub argv: Vec<String>,
}

/// A file or directory of the owner's that the jail shows.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub descriptor: usize,
    /// In the jail.
    pub at: PathBuf,
    pub read_only: bool,
}

/// Who makes the root the root, the devices in it, and who becomes the VM's user.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Jailer {
    /// Firecracker's, which the program is.
    Own,
    /// We.
    Ours(Ours),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ours {
    /// The user and the group that the program runs as.
    pub uid: u32,
    pub devices: Vec<Device>,
    /// The program begins once this process listens on this socket (its path as that process knows it).
    pub after: Option<(u32, PathBuf)>,
}

/// A device that the program may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    Null,
    Zero,
    Urandom,
    Kvm,
    VhostVsock,
}

impl Device {
    /// Its path, on the host and in the jail.
    pub fn path(self) -> &'static str {
        match self {
            Self::Null => "/dev/null",
            Self::Zero => "/dev/zero",
            Self::Urandom => "/dev/urandom",
            Self::Kvm => "/dev/kvm",
            Self::VhostVsock => "/dev/vhost-vsock",
        }
    }
}
