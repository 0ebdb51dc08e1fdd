//! What is done for each request: judged, recorded, done, each step with its undo.
//!
//! One VM's requests wait for each other, and what changes the firewall or the bridge waits for all that does: both are judged by
//! what the records say, so that must not change meanwhile.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::process::{Uid, geteuid};

use crate::host::endpoint;
use crate::proto::root::{Answer, Port, Request};
use crate::root::Ground;
use crate::root::chores::Hands;
use crate::root::error::RootError;
use crate::root::policy::{Asker, Denied, Installed, judge};
use crate::root::records::{BridgeRecord, Record, Records};
use crate::root::settings::Settings;
use crate::vm::id::VmId;

/// All that the helper does, and what it knows. One of them works in one place at a time.
#[derive(Debug)]
pub struct Root {
    pub(super) ground: Ground,
    pub(super) settings: Settings,
    pub(super) records: Arc<Records>,
    pub(super) hands: Hands,
    /// Held while the bridge, the firewall or the forwarding is changed.
    network: Mutex<()>,
    busy: Busy,
    _lock: File,
}

/// Makes the helper's directories, and takes the lock that lets nobody else work there.
pub fn take(ground: &Ground) -> Result<File, RootError> {
    let dirs = &ground.dirs;
    // Whoever may connect to the socket must be able to get to it.
    endpoint::own_directory(&dirs.root_runtime, 0o711).map_err(RootError::Place)?;
    endpoint::own_directory(&ground.records(), 0o700).map_err(RootError::Place)?;
    // The launcher of a helper that was killed finishes what it has begun, whatever became of the socket.
    let lock = endpoint::lock(&dirs.root_runtime.join("lock"), "bangerd-root", &dirs.root_socket(), || true);
    lock.map_err(RootError::Place)
}

impl Root {
    /// The helper's work in this process, which must be root's.
    ///
    /// # Errors
    /// [`RootError::Place`] while another works in the same place.
    pub fn new(ground: Ground, settings: Settings) -> Result<Self, RootError> {
        let lock = take(&ground)?;
        Self::assemble(ground, settings, Hands::Here, lock)
    }

    pub(super) fn assemble(
        ground: Ground,
        settings: Settings,
        hands: Hands,
        lock: File,
    ) -> Result<Self, RootError> {
        let records = Records::open(&ground.records()).map_err(RootError::effect("read the records"))?;
        let records = Arc::new(records);
        Ok(Self {
            ground,
            settings,
            records,
            hands,
            network: Mutex::default(),
            busy: Busy::default(),
            _lock: lock,
        })
    }

    /// Does `request` for this process's own user.
    pub fn perform(&self, request: &Request, descriptors: Vec<OwnedFd>) -> Result<Answer, RootError> {
        self.perform_for(geteuid(), request, descriptors)
    }

    /// Does `request`, if `uid` may have it done.
    pub fn perform_for(
        &self,
        uid: Uid,
        request: &Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Answer, RootError> {
        let allowed = || {
            let asker = Asker { uid, descriptors: descriptors.len() };
            judge(
                asker,
                Installed { owner: self.ground.owner, subnet: self.settings.subnet },
                &self.records.exists(),
                request,
            )
        };
        match request {
            Request::EnsureBridge { subnet, dns_port } => {
                let _network = self.network();
                allowed()?;
                self.ensure_bridge(*subnet, *dns_port)?;
            }
            Request::CreateTap { vm, port } => {
                let _vm = self.busy.hold(*vm);
                let _network = self.network();
                allowed()?;
                self.create_tap(*vm, *port)?;
            }
            Request::DeleteTap { vm } => {
                let _vm = self.busy.hold(*vm);
                allowed()?;
                self.remove(*vm)?;
            }
            Request::SetNat { vm, nat, lan } => {
                let _vm = self.busy.hold(*vm);
                let _network = self.network();
                allowed()?;
                self.set_nat(*vm, *nat, *lan)?;
            }
            Request::SetResolver { dns_port } => {
                let _network = self.network();
                allowed()?;
                self.set_resolver(*dns_port)?;
            }
            Request::ClearResolver => {
                let _network = self.network();
                allowed()?;
                self.clear_resolver()?;
            }
            Request::LaunchVm(launch) => {
                let _vm = self.busy.hold(launch.vm);
                allowed()?;
                return self.launch(launch, descriptors);
            }
            Request::SignalVm { vm, signal } => {
                // It waits for nobody: whoever is signalled is a process that has been recorded.
                allowed()?;
                self.signal(*vm, *signal)?;
            }
            Request::RemoveVm { vm } => {
                let _vm = self.busy.hold(*vm);
                allowed()?;
                self.remove(*vm)?;
            }
            Request::Status => {
                allowed()?;
                return self.status().map(Answer::Status);
            }
        }
        Ok(Answer::Done)
    }

    pub(super) fn network(&self) -> MutexGuard<'_, ()> {
        // What it guards is in the kernel, which a panic leaves as it was.
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record(&self, vm: VmId) -> Result<Record, RootError> {
        self.records.exists().vms.get(&vm).copied().ok_or(RootError::Denied(Denied::Unknown(vm)))
    }

    pub(super) fn write(&self, record: &Record) -> Result<(), RootError> {
        self.records.write(record).map_err(RootError::effect(format!("record VM {}", record.vm)))
    }

    pub(super) fn bridge(&self) -> Result<BridgeRecord, RootError> {
        self.records.exists().bridge.ok_or(RootError::Denied(Denied::NoBridge))
    }

    /// Whose the tap is: whoever opens it by its name, the owner, or the user that the VM is in its jail.
    pub(super) fn user(&self, port: Port) -> Uid {
        if port.direct { self.ground.owner } else { self.settings.jail_uid(port.slot) }
    }
}

/// VMs that something is being done for.
#[derive(Debug, Default)]
struct Busy {
    vms: Mutex<BTreeSet<VmId>>,
    freed: Condvar,
}

struct Held<'a> {
    busy: &'a Busy,
    vm: VmId,
}

impl Busy {
    /// Waits until nothing is done for `vm`, and keeps others waiting.
    fn hold(&self, vm: VmId) -> Held<'_> {
        let mut vms = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        while !vms.insert(vm) {
            vms = self.freed.wait(vms).unwrap_or_else(PoisonError::into_inner);
        }
        Held { busy: self, vm }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.busy.vms.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.vm);
        self.busy.freed.notify_all();
    }
}
