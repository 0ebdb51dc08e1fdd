//! What the store keeps of a VM.

use serde::{Deserialize, Serialize};

use crate::vm::id::VmId;
use crate::vm::name::VmName;
use crate::vm::publish::Publish;
use crate::vm::spec::Spec;
use crate::vm::state::{Process, State};
use crate::vm::workspace::Workspace;

/// One VM, as stored. Times are in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    pub id: VmId,
    pub name: VmName,
    /// The image's id; the file it stands for never changes.
    pub image: String,
    /// What the image was called when the VM was made; for people.
    pub image_name: String,
    /// The kernel's name; None: the default one at each start.
    #[serde(default)]
    pub kernel: Option<String>,
    pub spec: Spec,
    /// The ports of this host that lead to the guest, as asked for.
    #[serde(default)]
    pub publish: Vec<Publish>,
    #[serde(flatten)]
    pub state: State,
    pub created_at: u64,
    #[serde(default)]
    pub started_at: Option<u64>,
    /// The process for whose lifetime this VM exists (`vm run --rm`): when it ends, the VM is deleted.
    #[serde(default)]
    pub owner: Option<Process>,
    /// When it is deleted, whatever it does (`--ttl`).
    #[serde(default)]
    pub expires_at: Option<u64>,
    /// The work trees in it; the one that was brought last is the last, and commands start there.
    #[serde(default)]
    pub workspaces: Vec<Workspace>,
}
