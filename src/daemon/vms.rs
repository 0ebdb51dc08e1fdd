//! The VMs: finding one, making one, and handing orders to its driver.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smol::Task;
use smol::channel::{Sender, unbounded};
use smol::future::FutureExt;

use crate::daemon::driver::Driver;
use crate::daemon::fault::{Fault, chain};
use crate::daemon::made_of::Chosen;
use crate::daemon::op::{self, Op};
use crate::daemon::orders::{Inbox, Order, What};
use crate::daemon::{Daemon, Shared, blocking, images, machine, made_of, network_hint, now, set};
use crate::host::failpoint;
use crate::host::files::{create_private_dir, remove_tree_if_present};
use crate::host::process;
use crate::host::progress::Progress;
use crate::host::undo::Undo;
use crate::image::record::ImageRecord;
use crate::kernel::record::KernelRecord;
use crate::proto::api::{self as proto, Code, RunningOn, VmCreate, VmView};
use crate::store::Changes;
use crate::store::record::Run;
use crate::vm::change::{Later, later};
use crate::vm::id::VmId;
use crate::vm::lifetime::Ttl;
use crate::vm::lookup::{self, Candidate};
use crate::vm::name::VmName;
use crate::vm::publish;
use crate::vm::record::VmRecord;
use crate::vm::size::Mib;
use crate::vm::state::{Processes, State};

/// The drivers, and the names that are promised to VMs in the making.
#[derive(Default)]
pub struct Vms {
    drivers: Mutex<BTreeMap<VmId, Handle>>,
    reserved: Mutex<BTreeSet<VmName>>,
}

/// Dropping it cancels the driver.
struct Handle {
    orders: Sender<Order>,
    _driver: Task<()>,
}

impl Vms {
    fn drivers(&self) -> MutexGuard<'_, BTreeMap<VmId, Handle>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserved(&self) -> MutexGuard<'_, BTreeSet<VmName>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a driver work on this VM from now on.
    pub fn adopt(&self, d: &Shared, record: VmRecord) {
        self.drive(d, record, false);
    }

    /// The same; `soon`: whoever made it is about to start it.
    fn drive(&self, d: &Shared, record: VmRecord, soon: bool) {
        let (orders, inbox) = unbounded();
        let id = record.id;
        // A driver that panicked may have closed it.
        d.uses.open(id);
        let driver = Driver::new(Arc::clone(d), record, Inbox::new(inbox), soon);
        let again = Arc::clone(d);
        let driver = async move {
            // A mistake of ours must not leave the VM without a driver: another one goes on from what is stored.
            if AssertUnwindSafe(driver.drive()).catch_unwind().await.is_err() {
                log::error!("vm {id}: its driver panicked");
                again.vms.forget(id);
                match again.store.get::<VmRecord>(id) {
                    Ok(Some(record)) => again.vms.adopt(&again, record),
                    Ok(None) => {}
                    Err(e) => log::error!("vm {id}: {}", chain(&e)),
                }
            }
        };
        // None: the daemon ends, and the next one adopts it.
        if let Some(task) = d.spawn(driver) {
            self.drivers().insert(id, Handle { orders, _driver: task });
        }
    }

    /// The VM is gone; its driver calls this last.
    pub fn forget(&self, id: VmId) {
        let handle = self.drivers().remove(&id);
        // Dropped outside of the lock: this cancels the very task that is running, at its next await, of which it has none.
        drop(handle);
    }

    /// Orders the VM `id` to do something without waiting for it.
    pub fn order(&self, id: VmId, order: Order) -> Result<(), Order> {
        match self.drivers().get(&id) {
            Some(handle) => handle.orders.try_send(order).map_err(|e| e.into_inner()),
            None => Err(order),
        }
    }
}

/// All VMs, by name.
pub fn list(d: &Daemon) -> Result<Vec<VmView>, Fault> {
    let runs = d.store.all::<Run>()?;
    let mut records = d.store.all::<VmRecord>()?;
    records.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(records
        .into_iter()
        .map(|record| {
            let run = runs.iter().find(|run| run.vm == record.id);
            view(d, record, run)
        })
        .collect())
}

pub fn show(d: &Daemon, typed: &str) -> Result<VmView, Fault> {
    let record = find(d, typed)?;
    let run = d.store.get::<Run>(record.id)?;
    Ok(view(d, record, run.as_ref()))
}

fn view(d: &Daemon, record: VmRecord, run: Option<&Run>) -> VmView {
    VmView {
        directory: d.dirs.vm(record.id).display().to_string(),
        address: run.and_then(|run| run.address.clone()),
        running_on: run.map(|run| RunningOn { vmm: run.vmm.clone(), accel: run.accel.clone() }),
        published: d.ports.view(record.id),
        pending: run.map(|run| pending(&record, run)).unwrap_or_default(),
        problem: problem(&record),
        record,
    }
}

/// What has been changed of a VM that runs, and counts from its next start.
pub fn pending(record: &VmRecord, run: &Run) -> Vec<Later> {
    match (&record.state, &run.spec) {
        (State::Running { .. }, Some(started)) => later(started, &record.spec, run.bridged),
        _ => vec![],
    }
}

/// Why nothing can reach the guest of a VM that runs: the program that is its vsock device has ended, and no VMM takes another
/// one for a guest that knows the first.
pub fn problem(record: &VmRecord) -> Option<String> {
    let State::Running { processes: Processes { vsock: Some(device), .. } } = record.state else {
        return None;
    };
    match process::is_alive(device) {
        Ok(true) => None,
        Ok(false) => Some(format!(
            "its vsock device (process {}) has ended, and nothing can reach the guest; `banger vm stop {name}`, then \
             `banger vm start {name}`, give it another",
            device.pid,
            name = record.name
        )),
        Err(e) => {
            log::warn!("cannot look at process {}: {e}", device.pid);
            None
        }
    }
}

/// The VM that `typed` means.
pub fn find(d: &Daemon, typed: &str) -> Result<VmRecord, Fault> {
    let mut records = d.store.all::<VmRecord>()?;
    let keys: Vec<([String; 1], String)> =
        records.iter().map(|r| ([r.name.to_string()], r.id.to_string())).collect();
    let candidates: Vec<Candidate<'_>> = keys.iter().map(|(names, id)| Candidate { names, id }).collect();
    let index = lookup::find("VM", typed, &candidates)?;
    Ok(records.swap_remove(index))
}

/// Orders the VM that `typed` means to do something, and waits until it is done.
pub async fn order(d: &Shared, op: &Op, typed: &str, what: What) -> Result<VmId, Fault> {
    let record = find(d, typed)?;
    let (order, done) = Order::new(what, op);
    let gone = || Fault::new(Code::NotFound, format!("vm {} is gone", record.name));
    d.vms.order(record.id, order).map_err(|_| match d.store.get::<VmRecord>(record.id) {
        // Its record comes before its disk, and its disk before its driver.
        Ok(Some(_)) => {
            Fault::new(Code::Conflict, format!("vm {} is still being made; try again", record.name))
        }
        Ok(None) | Err(_) => gone(),
    })?;
    // Its driver ends without an answer when an order before this one has deleted the VM.
    done.recv().await.map_err(|_| gone())??;
    Ok(record.id)
}

/// A name that is promised to one VM, and free again when this is dropped, unless that has it by then.
#[must_use = "dropping it makes the name free"]
pub struct Claimed {
    d: Shared,
    name: VmName,
}

/// What a VM in the making will be known by.
struct Reserved {
    id: VmId,
    claimed: Claimed,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.d.vms.reserved().remove(&self.name);
    }
}

/// Reserves the wished name, or an automatic one.
fn reserve(d: &Shared, wished: Option<VmName>) -> Result<Reserved, Fault> {
    Ok(Reserved { id: VmId::from_random(op::random()), claimed: claim(d, wished)? })
}

/// Promises the wished name, or an automatic one, to whoever asks, if no VM has it.
pub fn claim(d: &Shared, wished: Option<VmName>) -> Result<Claimed, Fault> {
    let mut reserved = d.vms.reserved();
    let records = d.store.all::<VmRecord>()?;
    let holder = |name: &VmName| records.iter().find(|r| r.name == *name);
    let name = match wished {
        None => VmName::pick(op::random(), |name| reserved.contains(name) || holder(name).is_some())
            .ok_or_else(|| {
                Fault::new(Code::Conflict, "all automatic names are taken; give one with --name")
            })?,
        Some(name) => {
            if let Some(holder) = holder(&name) {
                return Err(Fault::new(
                    Code::Conflict,
                    format!(
                        "there is a VM {name} already ({}); take another name, or delete it with `banger vm delete {name}`",
                        holder.id
                    ),
                ));
            }
            if reserved.contains(&name) {
                return Err(Fault::new(
                    Code::Conflict,
                    format!("a VM {name} is being made already; take another name"),
                ));
            }
            name
        }
    };
    reserved.insert(name.clone());
    Ok(Claimed { d: Arc::clone(d), name })
}

/// Makes a VM, and starts it where that was asked for.
pub async fn create(d: &Shared, op: &Op, wanted: VmCreate) -> Result<VmView, Fault> {
    let name = reserve(d, wanted.name.clone())?;
    let owner = if wanted.ephemeral { Some(owner(op)?) } else { None };
    publish::judge(&wanted.publish).map_err(|e| Fault::new(Code::BadRequest, e.to_string()))?;
    // Before an image is pulled for minutes.
    if wanted.start || wanted.soon {
        d.ports
            .check(name.id, &wanted.publish)
            .map_err(|e| e.within(format!("cannot start vm {}", name.claimed.name)))?;
    }
    let image = made_of::image(d, op, wanted.image.as_deref(), &wanted.environment).await?;
    // Before an image is pulled for minutes.
    let kernel =
        made_of::kernel(d, op, wanted.kernel.as_deref(), image.kernel(), &wanted.environment).await?;
    let (image, image_name) =
        made_of::here(d, op, image, wanted.image.as_deref(), &wanted.environment).await?;
    if op.cancelled() {
        return Err(Fault::new(Code::Failed, "cancelled"));
    }
    let (start, soon, advise) = (wanted.start, wanted.soon, wanted.advise);
    let asked = op.clone();
    let record = blocking(d, move |d| {
        let record = settle(d, wanted, &name, &image, image_name, &kernel, owner)?;
        let kernel = kernel.record;
        make(d, &asked, &record, &image, &kernel)?;
        drop(name);
        Ok::<_, Fault>(record)
    })
    .await?;
    let (id, name) = (record.id, record.name.clone());
    log::info!("{op} vm {name}: created ({id}, {})", record.spec);
    d.events.vm(Some(op), proto::What::VmCreated, &record, None);
    d.vms.drive(d, record, soon || start);
    // The VM is made, whatever becomes of the advice.
    if advise && let Err(fault) = network_hint::say_once(d, op).await {
        log::warn!("{op} {}", fault.message);
    }
    if start {
        order(d, op, &id.to_string(), What::Start).await?;
    }
    show(d, &id.to_string())
}

/// The client's process, for whose lifetime the VM is to exist.
fn owner(op: &Op) -> Result<crate::vm::state::Process, Fault> {
    let gone = || Fault::new(Code::Failed, "the client has gone");
    let observed = process::observe(op.client().ok_or_else(gone)?);
    observed.map_err(|e| Fault::failed("cannot look at the client", &e))?.ok_or_else(gone)
}

fn settle(
    d: &Daemon,
    wanted: VmCreate,
    reserved: &Reserved,
    image: &ImageRecord,
    image_name: String,
    chosen: &Chosen,
    owner: Option<crate::vm::state::Process>,
) -> Result<VmRecord, Fault> {
    let kernel = &chosen.record;
    if image.arch != kernel.arch {
        return Err(Fault::new(
            Code::BadRequest,
            format!(
                "image {image_name} is for {} and kernel {} for {}; take one of each for the same architecture",
                image.arch, kernel.name, kernel.arch
            ),
        ));
    }
    let host = set::host(d)?;
    let wish = d.config.vm_defaults.fill(wanted.wish);
    let spec = wish
        .settle(&host, Mib::holding(image.bytes))
        .map_err(|e| Fault::new(Code::BadRequest, e.to_string()))?;
    Ok(VmRecord {
        id: reserved.id,
        name: reserved.claimed.name.clone(),
        image: image.id.clone(),
        image_name,
        kernel: chosen.pinned.then(|| kernel.name.clone()),
        spec,
        publish: wanted.publish,
        state: State::Stopped,
        created_at: now(),
        started_at: None,
        owner,
        expires_at: wanted.ttl_s.and_then(|seconds| Ttl::Seconds(seconds).end(now())),
        workspaces: vec![],
    })
}

/// Stores the record, then makes the directory and the disk. Nothing is left of either on an error.
fn make(
    d: &Shared,
    op: &Op,
    record: &VmRecord,
    image: &ImageRecord,
    kernel: &KernelRecord,
) -> Result<(), Fault> {
    let file =
        images::file(d, op, &image.id).map_err(|e| e.within(format!("cannot make vm {}", record.name)))?;
    let mut undo = Undo::default();
    {
        // Neither may be deleted between the look and the record that needs it.
        let _ledger = d.ledger();
        if d.store.get::<ImageRecord>(&image.id)?.is_none() {
            return Err(Fault::new(
                Code::Conflict,
                format!("image {} was deleted meanwhile", record.image_name),
            ));
        }
        if record.kernel.is_some() && d.store.get::<KernelRecord>(&kernel.name)?.is_none() {
            return Err(Fault::new(Code::Conflict, format!("kernel {} was deleted meanwhile", kernel.name)));
        }
        d.store.apply(Changes::new().put(record))?;
    }
    undo.push(format!("record of vm {}", record.name), {
        let (d, id) = (Arc::clone(d), record.id);
        move || d.store.apply(Changes::new().remove::<VmRecord>(id)).map_err(std::io::Error::other)
    });
    failpoint::reach("create: stored");
    let directory = d.dirs.vm(record.id);
    let cannot = |e: std::io::Error| Fault::failed(format!("cannot make the disk of vm {}", record.name), &e);
    create_private_dir(&directory).map_err(cannot)?;
    undo.push(format!("directory {}", directory.display()), {
        let directory = directory.clone();
        move || remove_tree_if_present(&directory)
    });
    failpoint::reach("create: directory made");
    machine::make_disk(&directory, &file, record.spec.disk, kernel.snapshot).map_err(cannot)?;
    failpoint::reach("create: disk made");
    undo.commit();
    Ok(())
}
