//! `vm set`: a VM's name, size, network, time and published ports, changed by its driver. What the running machine cannot take is stored and counts
//! from the next start, and the answer says so.

use crate::daemon::driver::Driver;
use crate::daemon::fault::Fault;
use crate::daemon::guest_text::harmless;
use crate::daemon::op::Op;
use crate::daemon::{Daemon, agent, apply, blocking, machine, network, now, vms};
use crate::host::facts;
use crate::host::progress::Progress;
use crate::proto::agent::{Hostname, Request};
use crate::proto::api::Code;
use crate::store::Changes;
use crate::store::record::Run;
use crate::vm::change::{Change, later};
use crate::vm::name::VmName;
use crate::vm::publish;
use crate::vm::record::VmRecord;
use crate::vm::spec::Host;
use crate::vm::state::State;

/// How long a guest may take to take its name.
const TELLING: std::time::Duration = std::time::Duration::from_secs(5);

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
    let new_name = change.name.as_ref().filter(|name| **name != record.name);
    // Nobody else may take it until it is stored.
    let _claimed = new_name.map(|name| vms::claim(&d, Some(name.clone()))).transpose()?;
    let wanted = VmRecord {
        spec,
        publish: list.map_err(|e| refused(&e))?,
        name: new_name.unwrap_or(&record.name).clone(),
        expires_at: change.ttl.map_or(record.expires_at, |ttl| ttl.end(now())),
        ..record.clone()
    };

    let Some(run) = run else {
        apply(&d, Changes::new().put(&wanted)).await?;
        if new_name.is_some() {
            log::info!("{op} vm {}: it is called {} from now on", record.name, wanted.name);
        }
        driver.took(op, wanted);
        return Ok(());
    };
    let ports = d.ports.change(&d, &run, &wanted.publish).await?;
    let run_now = Run { ports, ..run.clone() };
    if new_name.is_some() {
        // Before another VM can have it.
        d.dns.names().remove(&record.name);
    }
    let stored = apply(&d, Changes::new().put(&wanted).put(&run_now)).await;
    if let Err(e) = stored {
        network::name(&d, &record, &run);
        // What is served must be what is stored.
        if let Err(fault) = d.ports.change(&d, &run, &record.publish).await {
            log::error!("{op} vm {}: {}", record.name, fault.message);
        }
        return Err(e.into());
    }
    driver.took(op, wanted);
    if new_name.is_some() {
        rename(driver, op, &record.name).await;
    }
    apply_network(driver, change).await?;
    let started = run.spec.unwrap_or(record.spec);
    let parts = later(&started, &spec, run.bridged);
    if !parts.is_empty() {
        let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        let verb = if parts.len() == 1 { "changes" } else { "change" };
        op.note(&format!(
            "{} of {} {verb} when it is started the next time",
            join(&parts),
            driver.record.name
        ));
    }
    Ok(())
}

/// Tells those who know a VM that runs by its name, which was `old`. The guest takes it from its words at the next start otherwise.
async fn rename(driver: &Driver, op: &Op, old: &VmName) {
    let record = driver.record.clone();
    let name = record.name.clone();
    log::info!("{op} vm {old}: it is called {name} from now on");
    driver.d.ports.rename(record.id, &name);
    if let Some(run) = &driver.run {
        network::name(&driver.d, &record, run);
    }
    let told = blocking(&driver.d, move |d| {
        let Some(run) = d.store.get::<Run>(record.id)? else { return Ok(()) };
        let request = Request::Hostname(Hostname { name: record.name });
        Ok::<_, Fault>(agent::ask(&machine::channel(&run), &request, TELLING).map(drop)?)
    });
    if let Err(fault) = told.await {
        log::warn!("{op} vm {name}: the guest did not take its name: {}", harmless(&fault.message, 500));
        op.note(&format!("the guest of {name} calls itself {old} until it is started the next time"));
    }
}

/// Opens or closes the way out of a VM that runs, as its record has it now, where `change` is about that and it can be done while it
/// runs: the user-mode network is a device of the machine, which QEMU has or has not from its start.
///
/// Root is asked even if the record was so before: it may be from a time when root could not be asked.
async fn apply_network(driver: &mut Driver, change: &Change) -> Result<(), Fault> {
    if driver.run.as_ref().is_some_and(|run| run.bridged) && (change.nat.is_some() || change.lan.is_some()) {
        let record = driver.record.clone();
        blocking(&driver.d, move |d| network::apply(d, &record)).await?;
    }
    Ok(())
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
