//! Stopping a VM: the guest is asked, given time, then ended. Its vsock device goes after it.

use std::time::Duration;

use smol::future;

use crate::daemon::agent;
use crate::daemon::driver::{Driver, remove_sockets};
use crate::daemon::fault::{Fault, chain};
use crate::daemon::guest_text::harmless;
use crate::daemon::machine::channel;
use crate::daemon::op::Op;
use crate::daemon::orders::What;
use crate::daemon::{blocking, exit, network};
use crate::host::failpoint;
use crate::host::progress::Progress;
use crate::proto::agent::Request;
use crate::proto::api::Code;
use crate::store::record::Run;
use crate::vm::state::{Event, State};
use crate::vmm::Kind;

/// How long a guest may take to end once it was asked.
const GRACE: Duration = Duration::from_secs(10);
/// How long its agent may take to take note.
const ASKING: Duration = Duration::from_secs(5);

/// Stops the VM, `force` without asking the guest. Nothing happens to one that does not run.
pub async fn stop(driver: &mut Driver, op: &Op, force: bool) -> Result<(), Fault> {
    let was_running = matches!(driver.record.state, State::Running { .. });
    driver.enter(op, Event::Stop, None).await?;
    if driver.record.state.processes().is_none() {
        return Ok(());
    }
    failpoint::reach("stop: stored");
    op.stage(&format!("stopping {}", driver.record.name));
    // A guest that has not come up has no agent to ask.
    if !force && was_running && !ask(driver, op).await {
        op.note(&format!("{} did not stop by itself and was ended", driver.record.name));
    }
    failpoint::reach("stop: guest asked");
    end_processes(driver).await?;
    failpoint::reach("stop: all ended");
    driver.note(op, Event::Exited).await;
    failpoint::reach("stop: stopped stored");
    Ok(())
}

/// Asks the guest to turn itself off, by its agent, else by its power button; whether it has.
async fn ask(driver: &mut Driver, op: &Op) -> bool {
    let (id, name) = (driver.record.id, driver.record.name.clone());
    let said = |fault: &Fault| harmless(&fault.message, 500);
    let asked = blocking(&driver.d, move |d| -> Result<Option<Fault>, Fault> {
        let run = d.store.get::<Run>(id)?;
        let run = run.ok_or_else(|| Fault::new(Code::Failed, "nothing is stored of how it runs"))?;
        let Err(e) = agent::ask(&channel(&run), &Request::PowerOff, ASKING) else { return Ok(None) };
        // Its init may live, and have things to write to the disk.
        match press_power(&run) {
            Ok(()) => Ok(Some(e.into())),
            Err(fault) => Err(fault.within(chain(&e))),
        }
    });
    match asked.await {
        Ok(None) => {}
        Ok(Some(fault)) => {
            log::warn!("{op} vm {name}: {}; its power button was pressed", said(&fault));
            op.note(&format!("the agent of {name} does not answer; its power button was pressed"));
        }
        Err(fault) => {
            log::warn!("{op} vm {name}: {}; it is ended", said(&fault));
            return false;
        }
    }
    let Some(vmm) = driver.vmm.take() else { return true };
    let ended = vmm.ended_within(GRACE);
    // Whoever loses patience says `vm kill`.
    let hurried = async {
        driver.interrupted(|what| matches!(what, What::Stop { force: true } | What::Delete)).await;
        false
    };
    let ended = future::or(ended, hurried).await;
    driver.vmm = Some(vmm);
    ended
}

fn press_power(run: &Run) -> Result<(), Fault> {
    let (Some(kind), Some(control)) = (Kind::named(&run.vmm), &run.control) else {
        return Err(Fault::new(Code::Failed, "nothing is stored of its VMM's control socket"));
    };
    kind.press_power(control, ASKING).map_err(|e| Fault::failed("cannot press its power button", &e))
}

/// Kills whatever of the VM's processes is left, the VMM first, and removes its sockets and its port of the bridge.
///
/// # Errors
/// Root started the processes, and cannot be asked to end them: they may still run.
pub async fn end_processes(driver: &mut Driver) -> Result<(), Fault> {
    let id = driver.record.id;
    driver.d.ports.close(id).await;
    driver.d.dns.names().remove(&driver.record.name);
    let jailed = driver.run.as_ref().is_some_and(|run| run.jailed);
    if let Some(vmm) = driver.vmm.take()
        && !jailed
    {
        vmm.kill().await;
    }
    (driver.device, driver.logs) = (None, None);
    if let Some(processes) = driver.record.state.processes()
        && !jailed
    {
        exit::end(processes.vmm).await;
        if let Some(vsock) = processes.vsock {
            exit::end(vsock).await;
        }
    }
    failpoint::reach("stop: processes ended");
    if driver.run.as_ref().is_some_and(|run| run.bridged) {
        let left = blocking(&driver.d, move |d| network::leave(d, id)).await;
        match left {
            Ok(()) => {}
            Err(fault) if jailed => return Err(fault.within("cannot end its processes")),
            // Its processes are gone; the tap goes when the helper is asked again, at the next start of the VM or of bangerd.
            Err(fault) => log::error!("vm {}: {}", driver.record.name, fault.message),
        }
    }
    driver.run = None;
    let name = driver.record.name.clone();
    blocking(&driver.d, move |d| {
        if let Err(e) = remove_sockets(&d.dirs.vm_sockets(id)) {
            log::error!("vm {name}: cannot remove its sockets: {e}");
        }
    })
    .await;
    Ok(())
}

/// The VMM's process has ended without an order: the guest was turned off from inside, or the VMM crashed or was killed.
pub async fn ended_by_itself(driver: &mut Driver) {
    if let Err(fault) = end_processes(driver).await {
        log::error!("vm {}: {}", driver.record.name, fault.message);
    }
    driver.note(&Op::own(), Event::Exited).await;
}
