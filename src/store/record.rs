//! The tables: what is kept of each thing, as JSON under its key.

use redb::TableDefinition;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::image::record::ImageRecord;
use crate::kernel::record::KernelRecord;
use crate::network::lease::Lease;
use crate::vm::id::VmId;
use crate::vm::publish::Publish;
use crate::vm::record::VmRecord;
use crate::vm::spec::Spec;

pub(super) type Table = TableDefinition<'static, &'static str, &'static [u8]>;

/// Something that has a table of its own.
pub trait Kept: Serialize + DeserializeOwned {
    const TABLE: &'static str;
    fn key(&self) -> String;
}

pub(super) const fn table<T: Kept>() -> Table {
    TableDefinition::new(T::TABLE)
}

impl Kept for VmRecord {
    const TABLE: &'static str = "vms";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Kept for ImageRecord {
    const TABLE: &'static str = "images";
    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Kept for KernelRecord {
    const TABLE: &'static str = "kernels";
    fn key(&self) -> String {
        self.name.clone()
    }
}

impl Kept for Lease {
    const TABLE: &'static str = "leases";
    fn key(&self) -> String {
        self.vm.to_string()
    }
}

/// How a VM was started: what the daemon must know again after a restart of its own to use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub vm: VmId,
    /// `qemu` or `firecracker`.
    pub vmm: String,
    /// `kvm` or `tcg`.
    pub accel: String,
    pub channel: Reach,
    /// The VMM's control socket.
    #[serde(default)]
    pub control: Option<std::path::PathBuf>,
    /// The kernel that it runs, by name: its files must stay.
    pub kernel: String,
    /// The guest's IPv4 address.
    #[serde(default)]
    pub address: Option<String>,
    /// It is a port of the bridge, made by root.
    #[serde(default)]
    pub bridged: bool,
    /// Root started its processes, each in a jail, and only root can end them.
    #[serde(default)]
    pub jailed: bool,
    /// What it was started with; None: by a banger that did not say.
    #[serde(default)]
    pub spec: Option<Spec>,
    /// The ports of this host that were published.
    #[serde(default)]
    pub ports: Vec<Bound>,
}

/// What was to be published, and the port that it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    pub publish: Publish,
    pub port: u16,
}

impl Bound {
    /// What is published in fact.
    pub fn actual(&self) -> Publish {
        Publish { host: self.port, ..self.publish }
    }
}

/// How to reach the guest's vsock ports: [`crate::vmm::Channel`], as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    Hybrid(std::path::PathBuf),
    Vhost(u32),
}

impl Kept for Run {
    const TABLE: &'static str = "runs";
    fn key(&self) -> String {
        self.vm.to_string()
    }
}

/// A single value, such as the name of the default kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub name: String,
    pub value: String,
}

impl Kept for Setting {
    const TABLE: &'static str = "settings";
    fn key(&self) -> String {
        self.name.clone()
    }
}
