//! CLI to daemon: one request per connection, as one line of JSON on a unix stream socket.
//!
//! The daemon answers with lines: any number of [`Reply::Event`], then one [`Reply::Done`] or [`Reply::Error`]. Where the
//! answer is a byte stream (exec, read, write, logs), the line [`Reply::Done`] carries one file descriptor
//! (SCM_RIGHTS): a connection to the guest's agent after its [`Answer`](crate::proto::agent::Answer), or an open log file. From then
//! on the daemon is not involved: it may restart while a session goes on.
//!
//! When the client hangs up before the answer, the daemon cancels what has not been started yet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::image::config::Asked;
use crate::image::record::ImageRecord;
use crate::kernel::record::KernelRecord;
use crate::proto::agent;
pub use crate::proto::calls::{Call, Request, UNKNOWN_REQUEST};
use crate::proto::finding::Fix;
pub use crate::proto::finding::{Finding, Verdict};
pub use crate::proto::watch::*;
use crate::proto::workspace;
use crate::vm::change::{Change, Later};
use crate::vm::name::VmName;
use crate::vm::publish::{Protocol, Publish};
use crate::vm::record::VmRecord;
use crate::vm::spec::Wish;
use crate::vm::workspace::Workspace;

/// The longest request line, in bytes; above [`agent::MAX_REQUEST`], which travels in it.
pub const MAX_REQUEST: usize = agent::MAX_REQUEST + 4096;
/// The longest reply line, in bytes.
pub const MAX_REPLY: usize = 16 << 20;

/// The exit status of a bangerd that did not start since its configuration is wrong (sysexits.h, EX_CONFIG); the last line that it
/// wrote says what.
pub const BAD_CONFIG: u8 = 78;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {}

/// Looks at all that banger needs of this host. Changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonDoctor {}

/// Mends what is the daemon's to mend: the network, the resolver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonMend {
    pub fix: Fix,
}

/// The daemon answers, then ends. VMs run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStop {}

/// What goes on that should not be cut off, such as pulls and starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonOperations {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmCreate {
    /// None: an adjective-noun name.
    pub name: Option<VmName>,
    /// A local image, or a reference, which is then pulled. None: the default image.
    pub image: Option<String>,
    pub kernel: Option<String>,
    pub wish: Wish,
    pub start: bool,
    /// It will be started at once, by a request of its own: what would stand in the way is said before anything is made.
    #[serde(default)]
    pub soon: bool,
    /// The VM goes when the process that asks goes (`vm run --rm`).
    pub ephemeral: bool,
    #[serde(default)]
    pub publish: Vec<Publish>,
    /// How long it is to exist, whatever it does, in seconds; None: until it is deleted.
    #[serde(default)]
    pub ttl_s: Option<u64>,
    /// Tell the person, once, what this host does not offer.
    #[serde(default)]
    pub advise: bool,
    /// As in [`ImagePull`].
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// Answered when the guest is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStart {
    pub vm: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStop {
    pub vm: String,
    /// End the VMM at once instead of asking the guest.
    pub force: bool,
}

/// Changes a VM; what a running one cannot take counts from its next start, and a note says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSet {
    pub vm: String,
    #[serde(flatten)]
    pub change: Change,
}

/// Ends the VM if it runs, then removes all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmDelete {
    pub vm: String,
    /// Only if it is stopped or has failed when its turn comes (`vm prune`); else it is a [`Code::Conflict`].
    #[serde(default)]
    pub only_if_ended: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmList {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmShow {
    pub vm: String,
}

/// Starts a command in a running VM, in the work tree that was brought last, which is the answer. The descriptor that comes with it speaks
/// frames (see `proto::agent`, exec).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmExec {
    pub vm: String,
    pub asked: Asked,
    /// Compose the command as the image's first process (`docker run`), not as a further one (`docker exec`).
    pub as_run: bool,
    pub tty: Option<agent::Tty>,
    pub stdin: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRead {
    pub vm: String,
    pub read: agent::Read,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmWrite {
    pub vm: String,
    pub write: agent::Write,
}

/// Brings a work tree into a running VM. The descriptor that comes with the answer stands behind the agent's (see `proto::workspace`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmPrepare {
    pub vm: String,
    pub prepare: workspace::Prepare,
}

/// Asks what became of a work tree; the descriptor as in [`VmPrepare`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmChanges {
    pub vm: String,
    pub changes: workspace::Changes,
}

/// Records that a work tree has been brought: commands start in the one that was brought last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmWorkspace {
    pub vm: String,
    pub workspace: Workspace,
}

/// What listens in the guest of a running VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmPorts {
    pub vm: String,
    /// Find out which of it is a web server, by asking.
    #[serde(default)]
    pub probe: bool,
}

/// The descriptor that comes with the answer is the log, open for reading; the answer is where what was asked for begins, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmLogs {
    pub vm: String,
    pub which: Log,
    /// What was written at this time or later, in milliseconds since 1970; None: all of it.
    #[serde(default)]
    pub since_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// What the guest wrote to its serial console.
    #[default]
    Console,
    /// What the VMM said.
    Vmm,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePull {
    /// A name in a catalog, or else a reference.
    pub reference: String,
    /// A further name for it; None: the catalog's name, or the one made from the reference.
    pub name: Option<String>,
    /// `linux/amd64/v3`; None: this machine's, the plainest variant.
    #[serde(default)]
    pub platform: Option<String>,
    /// What counts of the caller's environment: proxies, certificates, docker's directory. The daemon's own counts where it says
    /// nothing.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Let `name` stand for this image even if it stands for another one.
    #[serde(default)]
    pub force: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageImport {
    /// An absolute path; None: the request carries a descriptor to read from.
    pub path: Option<String>,
    /// None: the names found in the archive.
    pub name: Option<String>,
    /// `linux/amd64/v3`; None: this machine's, the plainest variant.
    #[serde(default)]
    pub platform: Option<String>,
    /// Let `name` stand for this image even if it stands for another one.
    #[serde(default)]
    pub force: bool,
}

/// Makes an image of an ext4 file without copying it. It stays its owner's: banger only reads it, and never removes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRegister {
    /// An absolute path.
    pub path: String,
    /// None: the file's name without its extension, if that can be one.
    pub name: Option<String>,
    /// The kernel that its VMs take when none is asked for.
    pub kernel: Option<String>,
    /// Let the name stand for this image even if it stands for another one.
    pub force: bool,
}

/// Copies the file of a registered image, which is banger's own from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePromote {
    pub image: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageList {}

/// What the catalogs offer for this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageCatalog {
    /// Take what is known of the catalogs here, and ask nobody.
    pub offline: bool,
    /// As in [`ImagePull`].
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageShow {
    pub image: String,
}

/// Gives an image a further name; one that stands for another image moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageTag {
    pub image: String,
    pub name: String,
}

/// Removes a name, and with its last name, or by its id, the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDelete {
    pub image: String,
}

/// The blobs in the cache, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageCacheList {}

/// Removes the blobs that no pull uses just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageCachePrune {
    /// Only say what would be removed.
    pub dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelImport {
    pub source: KernelSource,
    /// None: the kernel's version.
    pub name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelSource {
    /// A Debian package `linux-image-*.deb`, by absolute path.
    Deb(String),
    /// A directory with vmlinux or bzImage, and optional modules, by absolute path.
    From(String),
    /// The running kernel.
    Host,
}

/// Pulls a kernel by its name in a catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelPull {
    pub kernel: String,
    /// Replace another kernel of that name.
    pub force: bool,
    /// As in [`ImagePull`].
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelList {}

/// What the catalogs offer for this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCatalog {
    /// Take what is known of the catalogs here, and ask nobody.
    pub offline: bool,
    /// As in [`ImagePull`].
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelShow {
    pub kernel: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelRemove {
    pub kernel: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelDefault {
    pub kernel: String,
}

/// Writes a bundle for a machine without a network to the descriptor that comes with the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleCreate {
    pub images: Vec<String>,
    pub kernels: Vec<String>,
    /// The absolute path of Firecracker, or of a directory with it.
    pub firecracker: Option<String>,
}

/// Installs the bundle that is read from the descriptor that comes with the request: all of it, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleInstall {
    /// Let names stand for what is in the bundle even if they stand for something else.
    pub force: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonView {
    pub pid: u32,
    pub version: String,
    pub commit: String,
    pub built: String,
    /// Seconds since 1970.
    pub started_at: u64,
    pub socket: String,
    pub state_dir: String,
    pub running_vms: usize,
    /// Where names of VMs are answered; nothing as long as no VM has needed it.
    #[serde(default)]
    pub dns: Vec<DnsView>,
    /// What names of VMs end with.
    #[serde(default)]
    pub dns_suffix: String,
    /// Tells the configuration that it has read from others.
    #[serde(default)]
    pub config: String,
}

/// A request that changes something, on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationView {
    /// As log lines and errors have it.
    pub id: String,
    /// Its method: `vm.start`.
    pub kind: String,
    /// What it works on, as it was asked for.
    pub subject: String,
    /// Seconds since 1970.
    pub started_at: u64,
    pub done: bool,
}

/// An address of the DNS server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsView {
    pub address: String,
    /// Why nobody is answered there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A VM as `vm list --json` and `vm show --json` give it: the record, and what is known of it only now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmView {
    #[serde(flatten)]
    pub record: VmRecord,
    /// Where its files are.
    pub directory: String,
    /// The guest's IPv4 address.
    pub address: Option<String>,
    /// What runs it now: `qemu` or `firecracker`, and `kvm` or `tcg`.
    pub running_on: Option<RunningOn>,
    /// What is published of it now: the record says what is asked for.
    #[serde(default)]
    pub published: Vec<Published>,
    /// What has been changed and counts from its next start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<Later>,
    /// Why nothing can reach the guest although it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A port of this host that leads to a running guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// With the port that it has, where any was asked for.
    #[serde(flatten)]
    pub publish: Publish,
    /// Why it does not lead there; it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A port of a guest, as `vm ports --json` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortView {
    pub protocol: Protocol,
    /// Where it listens in the guest; None: it is published, and nothing listens.
    pub address: Option<IpAddr>,
    pub port: u16,
    pub pid: Option<u32>,
    pub program: Option<String>,
    /// How it is reached from here: `127.0.0.1:8080`, `dev.vm:80`. Empty: not at all.
    pub reach: Vec<String>,
    /// What it speaks, if it is a web server. None: it is none, or nobody asked it.
    #[serde(default)]
    pub scheme: Option<Scheme>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    Http,
    Https,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningOn {
    pub vmm: String,
    pub accel: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageView {
    #[serde(flatten)]
    pub record: ImageRecord,
    /// What it takes on disk, in bytes.
    pub disk_bytes: u64,
    /// Names of the VMs that need it.
    pub used_by: Vec<String>,
    /// What is wrong with the file of a registered image: it is gone, or looks changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobView {
    pub digest: String,
    /// What it takes on disk.
    pub bytes: u64,
    /// Seconds since 1970.
    pub fetched_at: u64,
    /// By a pull that goes on.
    pub in_use: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedView {
    pub blobs: u64,
    pub bytes: u64,
    pub directory: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelView {
    #[serde(flatten)]
    pub record: KernelRecord,
    pub default: bool,
    pub disk_bytes: u64,
}

/// An image that a catalog offers, as `image list --available --json` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOffer {
    pub name: String,
    pub distro: String,
    pub arch: String,
    /// The name of the kernel that it wants.
    pub kernel: Option<String>,
    pub description: String,
    /// Its reference, or its bundle's URL.
    pub source: String,
    /// What is downloaded, in bytes; None for a reference.
    pub bytes: Option<u64>,
    pub state: OfferState,
    /// The catalog's URL, or `banger` for the one in it.
    pub catalog: String,
}

/// A kernel that a catalog offers, as `kernel list --available --json` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelOffer {
    pub name: String,
    pub version: String,
    pub arch: String,
    pub description: String,
    /// Its bundle's URL.
    pub source: String,
    /// What is downloaded, in bytes.
    pub bytes: u64,
    pub state: OfferState,
    pub catalog: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OfferState {
    /// What is offered is here, under this name.
    Pulled,
    Available,
}

/// What went into a bundle, or came out of it, as `bundle install --json` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleView {
    /// The version of the banger that made it, and is in it.
    pub banger: String,
    pub parts: Vec<BundlePart>,
    /// Of the whole bundle; None where it was installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// An image, a kernel or a program in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundlePart {
    pub kind: PartKind,
    /// What it is called; an image's id where it has no name.
    pub name: String,
    /// The sizes of its files together, in bytes, holes included.
    pub bytes: u64,
    pub state: PartState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    Image,
    Kernel,
    Program,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartState {
    Packed,
    Installed,
    /// In place of something else that had its name.
    Replaced,
    /// It was here already.
    Here,
}

/// A line from the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Event(Event),
    /// The answer, of the request's type.
    Done(serde_json::Value),
    Error(Failure),
}

/// What goes on meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Something begins; a phrase such as `pulling debian:12`.
    Stage { text: String },
    /// How far the stage is. `total` 0: not known.
    Progress { done: u64, total: u64, unit: Unit },
    /// Something worth a line, such as a warning.
    Note { text: String },
    /// Something that was listened for.
    Happened(Box<Happening>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Bytes,
    Items,
}

/// Why it was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub code: Code,
    /// The whole chain, from what was tried to why, joined by `: `.
    pub message: String,
    /// The operation's id, which every log line of the operation bears: `op-4f1c...`.
    pub op: String,
    /// Lines that help to understand it, such as the last ones of the guest's console. They come from the guest.
    #[serde(default)]
    pub details: Vec<String>,
}

/// What a program would act on differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    BadRequest,
    NotFound,
    Conflict,
    /// The guest answered, and refused; exec gives 126 and 127 their own codes.
    NoProgram,
    NotExecutable,
    NotRunning,
    /// The guest did not come up in time. The VM is kept.
    NotReady,
    Failed,
}
