//! What connects a VM: a port of the bridge where there is somebody to ask for it (root_client), else the VMM's own user-mode
//! network, which needs no privilege and isolates nothing from the host's side.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::daemon::fault::{Fault, chain};
use crate::daemon::root_client::RootError;
use crate::daemon::{Daemon, Shared, leases, threads};
use crate::host::failpoint;
use crate::host::undo::Undo;
use crate::network::lease::Lease;
use crate::network::names::{Mac, TapName};
use crate::network::subnet::Subnet;
use crate::proto::root::{Code, Port, Request};
use crate::store::record::Run;
use crate::vm::boot::Net;
use crate::vm::id::VmId;
use crate::vm::record::VmRecord;
use crate::vm::spec::Spec;

/// How VMs are connected by this daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Bridge(Subnet),
    User,
}

/// A VM's place on the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub lease: Lease,
    pub tap: TapName,
    pub mac: Mac,
    /// As the guest is told.
    pub net: Net,
}

/// What the daemon remembers of the bridge.
#[derive(Default)]
pub struct Bridge {
    /// The host's resolver was told to ask us; once in a daemon's life.
    resolver_is_set: AtomicBool,
}

/// How a VM that is started now is connected.
pub fn way(d: &Daemon) -> Way {
    // Where the configuration wants no bridge there is nobody to ask.
    if d.root.is_there() { Way::Bridge(d.config.network.subnet) } else { Way::User }
}

/// Gives the VM its port of the bridge, which is made if it is not there. `direct`: the VMM will run as this daemon's own user.
pub fn join(
    d: &Shared,
    record: &VmRecord,
    subnet: Subnet,
    direct: bool,
    undo: &mut Undo,
) -> Result<Joined, Fault> {
    ensure_bridge(d, subnet)?;
    let lease = leases::ensure(d, record.id, subnet)?;
    let joined = place(subnet, lease)?;
    failpoint::reach("start: leased");
    let create = Request::CreateTap { vm: record.id, port: port(&record.spec, lease, direct) };
    match d.root.order(&create) {
        // It does not run: whatever root has of it is left from a time when root could not be asked to remove it.
        Err(RootError::Refused { code: Code::Conflict, .. }) => {
            leave(d, record.id)?;
            d.root.order(&create)?;
        }
        done => done?,
    }
    undo.push(format!("tap {}", joined.tap), {
        let (d, vm) = (std::sync::Arc::clone(d), record.id);
        move || d.root.order(&Request::DeleteTap { vm }).map_err(std::io::Error::other)
    });
    failpoint::reach("start: tap made");
    Ok(joined)
}

/// What follows from a lease.
fn place(subnet: Subnet, lease: Lease) -> Result<Joined, Fault> {
    let address = subnet.address(lease.slot).ok_or_else(|| {
        Fault::new(crate::proto::api::Code::Failed, format!("slot {} has no address in {subnet}", lease.slot))
    })?;
    let net =
        Net { address, prefix: subnet.prefix(), gateway: subnet.gateway(), dns: vec![subnet.gateway()] };
    Ok(Joined { lease, tap: TapName::of(lease.vm), mac: Mac::of(address), net })
}

/// The port of a VM, as the helper is asked for it.
fn port(spec: &Spec, lease: Lease, direct: bool) -> Port {
    Port { slot: lease.slot, nat: spec.nat, lan: spec.lan, direct }
}

/// Makes again what is missing of the bridge, its firewall and the forwarding.
pub fn mend_bridge(d: &Shared) -> Result<(), Fault> {
    ensure_bridge(d, d.config.network.subnet)
}

/// Makes the bridge or mends it, lets guests ask for names, and sends the host's questions about names here.
fn ensure_bridge(d: &Shared, subnet: Subnet) -> Result<(), Fault> {
    let dns_port = d.config.network.dns_port;
    d.root.order(&Request::EnsureBridge { subnet, dns_port })?;
    d.dns.listen_on_bridge(subnet);
    if !d.bridge.resolver_is_set.swap(true, Ordering::Relaxed) {
        // Beside: the host's resolver takes its time, and no guest waits for it.
        let again = std::sync::Arc::clone(d);
        let set = async move {
            let asked = std::sync::Arc::clone(&again);
            let order = move || asked.root.order(&Request::SetResolver { dns_port });
            match threads::aside(order).await {
                Ok(()) => {}
                // There is no systemd-resolved, which is how some hosts are; `doctor` says what to do.
                Err(RootError::Refused { code: Code::NotFound, message }) => log::info!("{message}"),
                Err(e) => {
                    log::warn!("names of VMs are not resolved on this host: {}", chain(&e));
                    again.bridge.resolver_is_set.store(false, Ordering::Relaxed);
                }
            }
        };
        if let Some(task) = d.spawn(set) {
            // Detached: it ends by the helper's own deadline, and with the executor.
            task.detach();
        }
    }
    Ok(())
}

/// Takes the VM off the bridge, and removes what is left of its jail and its processes.
pub fn leave(d: &Daemon, vm: VmId) -> Result<(), Fault> {
    match d.root.order(&Request::RemoveVm { vm }) {
        // It has none.
        Err(RootError::Refused { code: Code::NotFound, .. }) => Ok(()),
        done => Ok(done?),
    }
}

/// Lets the name of a VM on the bridge lead to its address.
pub fn name(d: &Daemon, record: &VmRecord, run: &Run) {
    if !run.bridged {
        return;
    }
    match run.address.as_deref().map(str::parse) {
        Some(Ok(address)) => d.dns.names().insert(&record.name, address),
        _ => log::error!("vm {}: nothing is stored of its address", record.name),
    }
}

/// After a start of this daemon: names lead to those who run, and root and the store agree about who is on the bridge.
pub fn restore(d: &Shared) -> Result<(), Fault> {
    let runs = d.store.all::<Run>()?;
    let bridged = |vm: VmId| runs.iter().find(|run| run.vm == vm && run.bridged);
    // Whether root can be asked or not: the guests are where they were.
    for run in runs.iter().filter(|run| run.bridged) {
        if let Some(record) = d.store.get::<VmRecord>(run.vm)? {
            name(d, &record, run);
        }
    }
    if !d.root.is_there() {
        return Ok(());
    }
    let status = d.root.status()?;
    for had in &status.vms {
        if bridged(had.vm).is_none() {
            log::info!("root has things of vm {}, which does not run; they are removed", had.vm);
            // One that cannot be removed must not keep the others from being used.
            if let Err(fault) = leave(d, had.vm) {
                log::error!("vm {}: {}", had.vm, fault.message);
            }
        }
    }
    for run in runs.iter().filter(|run| run.bridged) {
        let Some(record) = d.store.get::<VmRecord>(run.vm)? else { continue };
        let had = status.vms.iter().find(|had| had.vm == run.vm).and_then(|had| had.port);
        if let Err(fault) = rejoin(d, &record, run, had) {
            log::error!("vm {}: {}", record.name, fault.message);
        }
    }
    Ok(())
}

/// What a VM that runs has on the bridge, made again where it is missing.
fn rejoin(d: &Shared, record: &VmRecord, run: &Run, had: Option<Port>) -> Result<(), Fault> {
    let subnet = d.config.network.subnet;
    ensure_bridge(d, subnet)?;
    let lease = leases::ensure(d, record.id, subnet)?;
    let port = port(&record.spec, lease, !run.jailed);
    match had {
        Some(had) if had == port => {}
        Some(_) => apply(d, record)?,
        None => d.root.order(&Request::CreateTap { vm: record.id, port })?,
    }
    Ok(())
}

/// Applies what was changed of where a VM that runs may send packets.
pub fn apply(d: &Daemon, record: &VmRecord) -> Result<(), Fault> {
    let Spec { nat, lan, .. } = record.spec;
    Ok(d.root.order(&Request::SetNat { vm: record.id, nat, lan })?)
}
