//! A VM's driver: the one task that changes this VM, its record and its processes. Orders are carried out one after the other;
//! in between it waits for the VMM's end and, for a VM that belongs to a process (`vm run --rm`), for that process's end.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use smol::{Task, Timer, future};

use crate::daemon::exit::Exit;
use crate::daemon::fault::{Fault, chain};
use crate::daemon::lifetime::Clock;
use crate::daemon::op::Op;
use crate::daemon::orders::{self, Inbox, Order};
use crate::daemon::{
    Daemon, Shared, apply, blocking, lifetime, logs, machine, network, operations, set, start, stop,
    workspace,
};
use crate::host::failpoint;
use crate::host::files::remove_tree_if_present;
use crate::host::progress::Progress;
use crate::network::lease::Lease;
use crate::proto::api::{Code, What};
use crate::store::Changes;
use crate::store::record::Run;
use crate::vm::id::VmId;
use crate::vm::record::VmRecord;
use crate::vm::state::{Event, State};

pub struct Driver {
    pub d: Shared,
    /// As stored. Only this driver changes it.
    pub record: VmRecord,
    pub inbox: Inbox,
    /// How it runs, from before its processes are there until all of them is gone.
    pub run: Option<Run>,
    /// The VMM's process, while there is one.
    pub vmm: Option<Exit>,
    /// The vsock device's, where it has one.
    pub device: Option<Exit>,
    /// Keeps the logs short, while there are processes that write them.
    pub logs: Option<Task<()>>,
    owner: Owner,
    pub clock: Clock,
    /// Until then whoever made it is about to start it.
    awaited: Option<Instant>,
}

/// How long whoever makes a VM to start it at once may take to say so.
const ABOUT_TO_START: Duration = Duration::from_secs(60);

/// How far apart a VMM and its vsock device may end and still have ended together.
const TOGETHER: Duration = Duration::from_secs(1);

/// The process for whose lifetime the VM exists.
enum Owner {
    None,
    Alive(Exit),
    Gone,
}

enum Next {
    Order(Order),
    VmmEnded,
    DeviceEnded,
    OwnerEnded,
    /// Something may be due.
    Time,
    /// The daemon ends.
    Nothing,
}

impl Driver {
    /// A driver of the VM as it is; a VMM that runs is watched from here on.
    pub fn new(d: Shared, record: VmRecord, inbox: Inbox, soon: bool) -> Self {
        let watch = |process, what| match Exit::of(process) {
            Ok(exit) => exit,
            Err(e) => {
                log::error!("vm {}: cannot watch its {what}: {e}", record.name);
                None
            }
        };
        let processes = record.state.processes();
        let vmm = processes.and_then(|p| watch(p.vmm, "VMM"));
        let device = processes.and_then(|p| watch(p.vsock?, "vsock device"));
        let owner = match record.owner {
            None => Owner::None,
            Some(process) => watch(process, "owner").map_or(Owner::Gone, Owner::Alive),
        };
        let logs = processes.and_then(|_| keep_logs_short(&d, &record));
        let run = d.store.get::<Run>(record.id).unwrap_or_else(|e| {
            log::error!("vm {}: {}", record.name, chain(&e));
            None
        });
        publish_again(&d, &record);
        let clock = Clock::since(crate::daemon::now().saturating_sub(record.started_at.unwrap_or(u64::MAX)));
        let awaited = soon.then(|| Instant::now() + ABOUT_TO_START);
        Self { d, record, inbox, run, vmm, device, logs, owner, clock, awaited }
    }

    pub async fn drive(mut self) {
        loop {
            match self.next().await {
                Next::Nothing => return,
                Next::VmmEnded => stop::ended_by_itself(&mut self).await,
                Next::DeviceEnded => self.device_ended().await,
                Next::OwnerEnded => {
                    let op = Op::own();
                    log::info!("{op} vm {}: its owner has ended", self.record.name);
                    let going = operations::begin(&self.d, &op, "vm.delete", self.record.name.to_string());
                    let outcome = self.delete(&op).await;
                    going.ended(outcome.as_ref().err());
                    match outcome {
                        Ok(()) => return,
                        Err(fault) => log::error!("{op} vm {}: {}", self.record.name, fault.message),
                    }
                    // What is left is still there to be deleted by hand.
                    self.owner = Owner::None;
                }
                Next::Time => {
                    if lifetime::see_to(&mut self).await {
                        return;
                    }
                }
                Next::Order(order) if order.op.cancelled() => {
                    log::info!("{} vm {}: cancelled before it began", order.op, self.record.name);
                    order.answer(Err(Fault::new(Code::Failed, "cancelled")));
                }
                Next::Order(order) => {
                    let op = order.op.clone();
                    let outcome = match &order.what {
                        orders::What::Start => {
                            self.awaited = None;
                            start::start(&mut self, &op).await
                        }
                        orders::What::Stop { force } => stop::stop(&mut self, &op, *force).await,
                        orders::What::Delete => self.delete(&op).await,
                        orders::What::Prune => self.prune(&op).await,
                        orders::What::Set(change) => set::set(&mut self, &op, change).await,
                        orders::What::Workspace(brought) => workspace::record(&mut self, &op, brought).await,
                    };
                    let gone =
                        matches!(order.what, orders::What::Delete | orders::What::Prune) && outcome.is_ok();
                    let verb = order.what.verb();
                    let name = &self.record.name;
                    order.answer(outcome.map_err(|fault| fault.within(format!("cannot {verb} vm {name}"))));
                    if gone {
                        return;
                    }
                }
            }
        }
    }

    async fn next(&mut self) -> Next {
        let due = lifetime::next(self);
        let Self { inbox, vmm, device, owner, .. } = self;
        let order = async { inbox.next().await.map_or(Next::Nothing, Next::Order) };
        let vmm = async {
            match vmm {
                Some(exit) => exit.ended().await,
                None => future::pending().await,
            }
            Next::VmmEnded
        };
        let device = async {
            match device {
                Some(exit) => exit.ended().await,
                None => future::pending().await,
            }
            Next::DeviceEnded
        };
        let owner = async {
            match owner {
                Owner::None => future::pending().await,
                Owner::Alive(exit) => exit.ended().await,
                Owner::Gone => {}
            }
            Next::OwnerEnded
        };
        let time = async {
            match due {
                Some(at) => drop(Timer::at(at).await),
                None => future::pending().await,
            }
            Next::Time
        };
        // A VM that has ended is recorded as such before anybody is told to act on it.
        future::or(vmm, future::or(device, future::or(owner, future::or(order, time)))).await
    }

    /// The guest runs on: what it has not written yet would be lost with it. Whoever wants to reach it is told
    /// ([`crate::daemon::vms::problem`]).
    async fn device_ended(&mut self) {
        self.device = None;
        // A device ends with its VMM, and may be the first to be seen.
        let ends_too = match &self.vmm {
            Some(vmm) => vmm.ended_within(TOGETHER).await,
            None => true,
        };
        if !ends_too {
            log::error!("vm {}: its vsock device has ended; nothing can reach the guest", self.record.name);
        }
    }

    /// Returns when an order waits, or the owner has ended, so that the present one must give way.
    pub async fn interrupted(&mut self, urgent: impl Fn(&orders::What) -> bool) {
        let Self { inbox, owner, .. } = self;
        let owner = async {
            match owner {
                Owner::Alive(exit) => exit.ended().await,
                Owner::None | Owner::Gone => future::pending().await,
            }
        };
        future::or(owner, inbox.urgent(urgent)).await;
    }

    /// Takes the VM to the state after `event`: stored first, then known here. `run` is how it runs, in the states that have
    /// processes.
    pub async fn enter(&mut self, op: &Op, event: Event, run: Option<&Run>) -> Result<(), Fault> {
        let mut record = self.record.clone();
        record.state = self.record.state.on(event)?;
        if matches!(record.state, State::Running { .. }) {
            record.started_at = Some(crate::daemon::now());
            self.clock.reset();
        }
        let mut changes = Changes::new().put(&record);
        if let Some(run) = run {
            changes = changes.put(run);
        }
        if record.state.processes().is_none() {
            changes = changes.remove::<Run>(record.id);
        }
        apply(&self.d, changes).await?;
        self.took(op, record);
        Ok(())
    }

    /// Like [`Driver::enter`], after something that has happened whether it can be stored or not: the VMM's end.
    pub async fn note(&mut self, op: &Op, event: Event) {
        let name = self.record.name.clone();
        let state = self.record.state.on(event.clone());
        if let Err(fault) = self.enter(op, event, None).await {
            log::error!("{op} vm {name}: {}", fault.message);
            if let Ok(state) = state {
                let record = VmRecord { state, ..self.record.clone() };
                self.took(op, record);
            }
        }
    }

    pub fn took(&mut self, op: &Op, record: VmRecord) {
        let (from, to) = (self.record.state.label(), record.state.label());
        if from != to {
            let more = match (&record.state, record.state.processes()) {
                (State::Failed { reason }, _) => {
                    format!(" ({})", crate::daemon::guest_text::harmless(reason, 200))
                }
                (_, Some(processes)) => format!(" (pid {})", processes.vmm.pid),
                _ => String::new(),
            };
            log::info!("{op} vm {}: {from} -> {to}{more}", record.name);
        }
        self.d.events.vm_took(op, &self.record, &record);
        self.record = record;
    }

    /// Removes the VM if it has ended, and nobody is about to start it.
    async fn prune(&mut self, op: &Op) -> Result<(), Fault> {
        let conflict = |why: String| Err(Fault::new(Code::Conflict, why));
        match &self.record.state {
            State::Stopped | State::Failed { .. } | State::Deleting => {}
            State::Starting { .. } | State::Running { .. } | State::Stopping { .. } => {
                return conflict(format!("it is {}", self.record.state.label()));
            }
        }
        // A VM that has an owner goes with it.
        if matches!(self.owner, Owner::Alive(_)) || self.awaited.is_some_and(|until| Instant::now() < until) {
            return conflict("whoever made it is about to use it".to_owned());
        }
        self.delete(op).await
    }

    /// Ends the VM and removes all of it.
    pub async fn delete(&mut self, op: &Op) -> Result<(), Fault> {
        if self.record.state.processes().is_some() {
            stop::stop(self, op, true).await?;
        }
        self.enter(op, Event::Delete, None).await?;
        failpoint::reach("delete: stored");
        let (id, name) = (self.record.id, self.record.name.clone());
        let left = blocking(&self.d, move |d| {
            // Root may not have been there to be asked when the VM ended, and its address is soon another VM's.
            let left = if d.root.is_there() { network::leave(d, id) } else { Ok(()) };
            remove_files(d, id).map(|()| left)
        });
        if let Err(fault) = left.await? {
            log::error!("{op} vm {name}: {}; it goes at the next start of bangerd", fault.message);
        }
        failpoint::reach("delete: files removed");
        apply(&self.d, Changes::new().remove::<VmRecord>(id).remove::<Run>(id).remove::<Lease>(id)).await?;
        failpoint::reach("delete: record removed");
        log::info!("{op} vm {name}: deleted");
        self.d.uses.forget(id);
        self.d.events.vm(Some(op), What::VmDeleted, &self.record, None);
        self.d.vms.forget(id);
        Ok(())
    }
}

/// Takes the published ports of a VM that runs.
fn publish_again(d: &Shared, record: &VmRecord) {
    match (&record.state, d.store.get::<Run>(record.id)) {
        (State::Running { .. }, Ok(Some(run))) => d.ports.restore(d, record, &run),
        (State::Running { .. }, Err(e)) => {
            log::error!("vm {}: cannot publish its ports: {}", record.name, crate::daemon::fault::chain(&e));
        }
        _ => {}
    }
}

/// Keeps the VM's logs short until the task is dropped.
pub fn keep_logs_short(d: &Shared, record: &VmRecord) -> Option<Task<()>> {
    let (directory, name) = (d.dirs.vm(record.id), record.name.clone());
    d.spawn(async move {
        let files = [machine::CONSOLE, machine::VMM_LOG].map(|file| directory.join(file));
        if let Err(e) = logs::keep_short(files.into()).await {
            log::warn!("vm {name}: cannot keep its logs short: {e}");
        }
    })
}

/// Removes a VM's directories; what is not there is no error.
pub fn remove_files(d: &Daemon, id: VmId) -> Result<(), Fault> {
    let cannot =
        |dir: PathBuf| move |e: std::io::Error| Fault::failed(format!("cannot remove {}", dir.display()), &e);
    let (sockets, disk) = (d.dirs.vm_sockets(id), d.dirs.vm(id));
    remove_sockets(&sockets).map_err(cannot(sockets.clone()))?;
    remove_tree_if_present(&disk).map_err(cannot(disk.clone()))
}

/// Removes a VM's directory for sockets, which is the VMM's too. One that was taken over can have made directories in it that are closed
/// to everybody but the user that it was in its jail; then it is moved away, so that the VM can be started and deleted all the same.
pub fn remove_sockets(dir: &Path) -> std::io::Result<()> {
    match remove_tree_if_present(dir) {
        Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::DirectoryNotEmpty) => {
            let mut aside = std::ffi::OsString::from(".left-");
            aside.push(dir.file_name().unwrap_or_default());
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            aside.push(format!("-{}", since.as_nanos()));
            let aside = dir.with_file_name(aside);
            std::fs::rename(dir, &aside)?;
            log::error!(
                "{}: cannot be removed ({e}): its VMM has made directories in it; they are in {}, for root to remove",
                dir.display(),
                aside.display()
            );
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_a_vmm_has_closed_among_its_sockets_is_in_nobodys_way() {
        let vms = tempfile::tempdir().expect("a directory");
        let sockets = vms.path().join("000000000001");
        let closed = sockets.join("closed");
        std::fs::create_dir_all(closed.join("in it")).expect("makes directories");
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("sets the mode");
        };
        mode(&closed, 0);
        remove_sockets(&sockets).expect("removes, or moves away");
        assert!(!sockets.exists());
        // Root, as which tests may run, is kept out of nothing.
        for left in std::fs::read_dir(vms.path()).expect("lists") {
            let left = left.expect("lists").path();
            assert!(left.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".left-")));
            mode(&left.join("closed"), 0o700);
        }
        remove_sockets(&sockets).expect("has nothing to remove");
    }
}
