//! `banger vm prune`: deletes what has ended.

use std::io::{self, BufRead, IsTerminal, Write};

use argh::{ArgsInfo, FromArgs};

use super::several::{Meant, at_once};
use crate::cli::client::{Client, ClientError};
use crate::cli::error::Error;
use crate::cli::render;
use crate::cli::ssh;
use crate::proto::api::{Code, VmDelete, VmList, VmView};
use crate::vm::state::State;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Delete every VM that is stopped or has failed, with its disk. Asks before, unless -f is given. There is no way back.
#[argh(
    subcommand,
    name = "prune",
    help_triggers("-h", "--help", "help"),
    example = "banger vm prune --dry-run\nbanger vm prune -f",
    note = "A VM that is started meanwhile stays."
)]
pub struct Prune {
    /// do not ask
    #[argh(switch, short = 'f')]
    force: bool,
    /// only list them
    #[argh(switch)]
    dry_run: bool,
}

impl Prune {
    pub fn run(&self) -> Result<(), Error> {
        let client = Client::from_env()?;
        let vms: Vec<VmView> = client.ask(VmList {})?.into_iter().filter(has_ended).collect();
        if vms.is_empty() {
            render::say("no VM is stopped or has failed");
            return Ok(());
        }
        if self.dry_run {
            return list(&vms);
        }
        if !self.force {
            if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
                return Err(Error::Refused(
                    "there is no terminal to ask on; -f deletes without asking, --dry-run shows what"
                        .to_owned(),
                ));
            }
            list(&vms)?;
            if !agreed(vms.len())? {
                return Ok(());
            }
        }
        delete(&client, &vms)
    }
}

/// A VM with an owner goes with it.
fn has_ended(vm: &VmView) -> bool {
    match vm.record.state {
        State::Stopped | State::Failed { .. } => vm.record.owner.is_none(),
        State::Starting { .. } | State::Running { .. } | State::Stopping { .. } | State::Deleting => false,
    }
}

fn list(vms: &[VmView]) -> Result<(), Error> {
    let now = render::now();
    let row = |vm: &VmView| {
        let record = &vm.record;
        [
            record.id.to_string(),
            record.name.to_string(),
            record.state.label().to_owned(),
            record.image_name.clone(),
            render::age(now, record.created_at),
        ]
    };
    let rows: Vec<_> = vms.iter().map(row).collect();
    render::out(&render::table(["ID", "NAME", "STATE", "IMAGE", "CREATED"], &rows))
}

/// Asks on the terminal; anything but yes means no.
fn agreed(count: usize) -> Result<bool, Error> {
    let cannot = |source| Error::Host { what: "ask on the terminal".to_owned(), source };
    let what =
        if count == 1 { "it and its disk".to_owned() } else { format!("these {count} and their disks") };
    let mut stderr = io::stderr().lock();
    write!(stderr, "delete {what}? [y/N] ").and_then(|()| stderr.flush()).map_err(cannot)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(cannot)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn delete(client: &Client, vms: &[VmView]) -> Result<(), Error> {
    let meant: Vec<Meant> = (0..vms.len()).map(Meant::Vm).collect();
    let one = |id: &str| {
        client.ask(VmDelete { vm: id.to_owned(), only_if_ended: true }).inspect(|()| ssh::forget(id))
    };
    let mut failed = false;
    for (vm, outcome) in vms.iter().zip(at_once(one, &meant, vms)) {
        let name = &vm.record.name;
        match outcome {
            Some(Ok(())) => render::out_line(name.as_str())?,
            Some(Err(ClientError::Failed(failure))) if failure.code == Code::Conflict => {
                render::say(&format!("note: {name} stays: {}", failure.message));
            }
            // Somebody else was quicker.
            Some(Err(ClientError::Failed(failure))) if failure.code == Code::NotFound => {}
            Some(Err(e)) => {
                failed = true;
                render::error(&e.into());
            }
            None => {
                failed = true;
                render::error(&Error::Refused(format!("VM {name} was not reached")));
            }
        }
    }
    if failed { Err(Error::Said(1)) } else { Ok(()) }
}
