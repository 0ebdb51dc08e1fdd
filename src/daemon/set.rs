//! `vm set`: a VM's size, network and published ports, changed by its driver. What the running machine cannot take is stored and counts
//! from the next start, and the answer says so.

use crate::daemon::driver::Driver;
use crate::daemon::fault::Fault;
use crate::daemon::op::Op;
use crate::daemon::{Daemon, apply, blocking, network};
use crate::host::facts;
use crate::host::progress::Progress;
use crate::proto::api::Code;
use crate::store::Changes;
use crate::store::record::Run;
use crate::vm::change::{Change, later};
use crate::vm::publish;
use crate::vm::record::VmRecord;
use crate::vm::spec::Host;
use crate::vm::state::State;

/// Changes the VM as asked, or not at all.
pub async fn set(driver: &mut Driver, op: &Op, change: &Change) -> Result<(), Fault> {
    let refused = |e: &dyn std::error::Error| Fault::new(Code::BadRequest, e.to_string());
    let d = std::sync::Arc::clone(&driver.d);
    let (record, running) = (driver.record.clone(), matches!(driver.record.state, State::Running { .. }));
    let host = blocking(&d, |d| host(d)).await?;
    let run = if running { d.store.get::<Run>(record.id)? } else { None };
    let spec = change.settle(&record.spec, &host).map_err(|e| refused(&e))?;
    let actual = |publish: &publish::Publish| {
        let bound = run.iter().flat_map(|run| &run.ports).find(|bound| bound.publish == *publish);
        bound.map_or(*publish, |bound| bound.actual())
    };
    let list = publish::change(&record.publish, &change.publish, &change.unpublish, actual);
    let wanted = VmRecord { spec, publish: list.map_err(|e| refused(&e))?, ..record.clone() };

    let Some(run) = run else {
        apply(&d, Changes::new().put(&wanted)).await?;
        driver.took(op, wanted);
        return Ok(());
    };
    let ports = d.ports.change(&d, &run, &wanted.publish).await?;
    let now = Run { ports, ..run.clone() };
    let stored = apply(&d, Changes::new().put(&wanted).put(&now)).await;
    if let Err(e) = stored {
        // What is served must be what is stored.
        if let Err(fault) = d.ports.change(&d, &run, &record.publish).await {
            log::error!("{op} vm {}: {}", record.name, fault.message);
        }
        return Err(e.into());
    }
    driver.took(op, wanted);
    let live = apply_network(driver, change).await?;
    let parts = later(&record.spec, &spec, live);
    if !parts.is_empty() {
        let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        let verb = if parts.len() == 1 { "changes" } else { "change" };
        op.note(&format!("{} of {} {verb} when it is started the next time", join(&parts), record.name));
    }
    Ok(())
}

/// Opens or closes the way out of a VM that runs, as its record has it now, where `change` is about that. Returns whether that could be
/// done while it runs: the user-mode network is a device of the machine, which QEMU has or has not from its start.
///
/// Root is asked even if the record was so before: it may be from a time when root could not be asked.
async fn apply_network(driver: &mut Driver, change: &Change) -> Result<bool, Fault> {
    if !driver.run.as_ref().is_some_and(|run| run.bridged) {
        return Ok(false);
    }
    if change.nat.is_some() || change.lan.is_some() {
        let record = driver.record.clone();
        blocking(&driver.d, move |d| network::apply(d, &record)).await?;
    }
    Ok(true)
}

/// What this host can bear, as for a new VM.
pub fn host(d: &Daemon) -> Result<Host, Fault> {
    // Disks may have a file system of their own mounted there.
    let disks = d.dirs.state.join("vms");
    let place = if disks.is_dir() { &disks } else { &d.dirs.state };
    facts::read(place).map_err(|e| Fault::failed("cannot look at the host", &e))
}

/// `a`, `a and b`, `a, b and c`.
fn join(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [front @ .., last] => format!("{} and {last}", front.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_listed_as_in_a_sentence() {
        let parts = ["the memory", "the disk", "the network"].map(str::to_owned);
        assert_eq!(join(&parts[..1]), "the memory");
        assert_eq!(join(&parts[..2]), "the memory and the disk");
        assert_eq!(join(&parts), "the memory, the disk and the network");
    }
}
