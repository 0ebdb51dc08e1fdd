//! Requests of those who want to know what goes on, and their answers.

use serde::{Deserialize, Serialize};

use crate::proto::stats::{GuestStats, VmmStats};

/// What a running VM uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStats {
    pub vm: String,
    /// How long its guest may take to answer, in milliseconds; None: a few seconds.
    #[serde(default)]
    pub within_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsView {
    pub guest: Option<GuestStats>,
    pub vmm: Option<VmmStats>,
    /// Why there is nothing of the guest.
    #[serde(default)]
    pub problem: Option<String>,
}

/// Asks a guest's agent who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmPing {
    pub vm: String,
    pub within_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingView {
    pub name: String,
    /// From the daemon to the agent and back.
    pub took_us: u64,
    /// banger's version in the guest, and its kernel's; both come from the guest.
    pub version: String,
    pub kernel: String,
}

/// Whether a VM is well: rows as of a doctor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmHealth {
    pub vm: String,
}

/// What happens from now on, as [`Event::Happened`](crate::proto::api::Event::Happened), for as long as the client listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonEvents {
    /// First, what is remembered from this time on, in milliseconds since 1970.
    #[serde(default)]
    pub since_ms: Option<u64>,
}

/// Something that has happened. All keys are always there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub what: What,
    /// Of the VM, the image or the kernel; of kernels, their name.
    pub id: Option<String>,
    pub name: Option<String>,
    /// The operation that it belongs to.
    pub op: Option<String>,
    /// The operation's method: `vm.start`.
    pub method: Option<String>,
    /// Why something failed, the workspace's path, the image's names. It may be a guest's, a registry's or an archive's text.
    pub detail: Option<String>,
    /// How many were lost.
    pub count: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    #[serde(rename = "vm.created")]
    VmCreated,
    #[serde(rename = "vm.starting")]
    VmStarting,
    #[serde(rename = "vm.running")]
    VmRunning,
    #[serde(rename = "vm.stopping")]
    VmStopping,
    #[serde(rename = "vm.stopped")]
    VmStopped,
    #[serde(rename = "vm.failed")]
    VmFailed,
    #[serde(rename = "vm.deleting")]
    VmDeleting,
    #[serde(rename = "vm.deleted")]
    VmDeleted,
    /// Its size, its network, its ports or its name.
    #[serde(rename = "vm.changed")]
    VmChanged,
    /// A work tree was brought.
    #[serde(rename = "vm.workspace")]
    VmWorkspace,
    /// It is new, or has other names.
    #[serde(rename = "image.changed")]
    ImageChanged,
    #[serde(rename = "image.deleted")]
    ImageDeleted,
    #[serde(rename = "kernel.changed")]
    KernelChanged,
    #[serde(rename = "kernel.deleted")]
    KernelDeleted,
    #[serde(rename = "kernel.default")]
    KernelDefault,
    #[serde(rename = "operation.begun")]
    OperationBegun,
    #[serde(rename = "operation.done")]
    OperationDone,
    #[serde(rename = "operation.failed")]
    OperationFailed,
    /// The listener was too slow for some.
    #[serde(rename = "events.lost")]
    Lost,
}

impl Happening {
    pub fn new(at_ms: u64, what: What) -> Self {
        Self { at_ms, what, id: None, name: None, op: None, method: None, detail: None, count: None }
    }
}
