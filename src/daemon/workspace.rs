//! Work trees: the daemon opens the conversation with the guest's agent, hands it to the client, and remembers what was brought.

use std::os::fd::OwnedFd;

use crate::daemon::driver::Driver;
use crate::daemon::fault::Fault;
use crate::daemon::op::Op;
use crate::daemon::{Shared, apply, guest};
use crate::proto::agent::{Answer, Request};
use crate::proto::api::{VmChanges, VmPrepare};
use crate::proto::workspace::Held;
use crate::store::Changes;
use crate::vm::record::VmRecord;
use crate::vm::workspace::{Workspace, remember};

pub async fn prepare(d: &Shared, wanted: VmPrepare) -> Result<(Held, OwnedFd), Fault> {
    converse(d, &wanted.vm, Request::Prepare(wanted.prepare)).await
}

pub async fn changes(d: &Shared, wanted: VmChanges) -> Result<(Held, OwnedFd), Fault> {
    converse(d, &wanted.vm, Request::Changes(wanted.changes)).await
}

/// Remembers that a work tree has been brought.
pub async fn record(driver: &mut Driver, op: &Op, brought: &Workspace) -> Result<(), Fault> {
    let workspaces = remember(driver.record.workspaces.clone(), brought.clone());
    let wanted = VmRecord { workspaces, ..driver.record.clone() };
    apply(&driver.d, Changes::new().put(&wanted)).await?;
    driver.took(op, wanted);
    Ok(())
}

async fn converse(d: &Shared, vm: &str, request: Request) -> Result<(Held, OwnedFd), Fault> {
    let (_, channel, _using) = guest::using(d, vm)?;
    match guest::ask(d, channel, request).await? {
        (Answer::Held(held), fd) => Ok((*held, fd)),
        _ => Err(guest::another_answer()),
    }
}
