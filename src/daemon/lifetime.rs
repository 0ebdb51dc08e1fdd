//! VMs whose time is over: one with a --ttl is deleted, whatever it does; one that nobody uses is stopped, where the configuration says
//! so. When that is, is `vm::lifetime`'s to say.

use std::time::{Duration, Instant};

use crate::daemon::driver::Driver;
use crate::daemon::fault::Fault;
use crate::daemon::guest_text::harmless;
use crate::daemon::op::Op;
use crate::daemon::{agent, blocking, guest, machine, now, operations, stop};
use crate::proto::agent::{Answer, Request};
use crate::store::record::Run;
use crate::vm::lifetime::{Activity, Due, due};

/// How soon it is tried again to delete what could not be deleted.
const AGAIN: Duration = Duration::from_secs(60);
/// How long a guest may take to say whether it is used.
const ASKING: Duration = Duration::from_secs(5);

/// What a driver knows of its VM's use, and of what it could not do.
pub struct Clock {
    /// When it was used last, as far as is known.
    used: Instant,
    /// What is due is not done before.
    not_before: Option<Instant>,
}

impl Clock {
    /// Of a VM that was started this many seconds ago.
    pub fn since(seconds: u64) -> Self {
        let now = Instant::now();
        Self { used: now.checked_sub(Duration::from_secs(seconds)).unwrap_or(now), not_before: None }
    }

    /// It is used now.
    pub fn reset(&mut self) {
        self.used = Instant::now();
    }
}

fn unused(driver: &Driver) -> Duration {
    let last = driver.d.uses.last(driver.record.id);
    last.map_or(driver.clock.used, |last| last.max(driver.clock.used)).elapsed()
}

fn what_is_due(driver: &Driver) -> Due {
    due(&driver.record, driver.d.config.stale_after, now(), unused(driver))
}

/// When something may be due; None: not as long as nothing changes.
pub fn next(driver: &Driver) -> Option<Instant> {
    let at = match what_is_due(driver) {
        Due::Nothing => return None,
        Due::Wait(time) => Instant::now() + time,
        Due::Expired | Due::Unused => Instant::now(),
    };
    Some(driver.clock.not_before.map_or(at, |not_before| at.max(not_before)))
}

/// Does what is due. Returns whether the VM is gone.
pub async fn see_to(driver: &mut Driver) -> bool {
    driver.clock.not_before = None;
    match what_is_due(driver) {
        Due::Nothing | Due::Wait(_) => false,
        Due::Expired => expire(driver).await,
        Due::Unused => {
            stop_unless_used(driver).await;
            false
        }
    }
}

async fn expire(driver: &mut Driver) -> bool {
    let op = Op::own();
    let name = driver.record.name.clone();
    let why = "its time is over (--ttl)";
    log::info!("{op} vm {name}: {why}");
    let going = operations::begin_since(&driver.d, &op, "vm.delete", name.to_string(), Some(why));
    let deleted = driver.delete(&op).await;
    going.ended(deleted.as_ref().err());
    match deleted {
        Ok(()) => true,
        Err(fault) => {
            log::error!("{op} vm {name}: {}", fault.message);
            driver.clock.not_before = Some(Instant::now() + AGAIN);
            false
        }
    }
}

async fn stop_unless_used(driver: &mut Driver) {
    let op = Op::own();
    let (id, name) = (driver.record.id, driver.record.name.clone());
    let Some(after) = driver.d.config.stale_after else { return };
    let (looked, known) = (Instant::now(), unused(driver));
    let unused = match ask(driver).await {
        Ok(activity) => activity.unused(known),
        Err(fault) => {
            // Nothing is known of its use, so that it counts as used.
            log::warn!("{op} vm {name}: cannot say whether it is used: {}", harmless(&fault.message, 500));
            Duration::ZERO
        }
    };
    driver.clock.used = looked.checked_sub(unused).unwrap_or(looked);
    if unused < after {
        return;
    }
    if !driver.d.uses.close(id, looked) {
        // Somebody is on the way to it.
        return driver.clock.reset();
    }
    let why = format!("nobody has used it for {}; it is stopped", humantime::format_duration(after));
    log::info!("{op} vm {name}: {why}");
    let going = operations::begin_since(&driver.d, &op, "vm.stop", name.to_string(), Some(&why));
    let stopped = stop::stop(driver, &op, false).await;
    going.ended(stopped.as_ref().err());
    if let Err(fault) = stopped {
        log::error!("{op} vm {name}: {}", fault.message);
        driver.clock.reset();
    }
    driver.d.uses.open(id);
}

async fn ask(driver: &Driver) -> Result<Activity, Fault> {
    let id = driver.record.id;
    blocking(&driver.d, move |d| {
        let Some(run) = d.store.get::<Run>(id)? else { return Err(guest::another_answer()) };
        match agent::ask(&machine::channel(&run), &Request::Activity, ASKING)? {
            (Answer::Activity(activity), _) => Ok(activity),
            _ => Err(guest::another_answer()),
        }
    })
    .await
}
