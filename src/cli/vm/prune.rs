//! `banger vm prune`: deletes what has ended.

use std::io::{self, BufRead, IsTerminal, Write};

use argh::{ArgsInfo, FromArgs};

use super::list::workspace;
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
            if !agreed(&question(&vms))? {
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
    render::out(&listed(vms, render::now()))
}

fn listed(vms: &[VmView], now: u64) -> String {
    let row = |vm: &VmView| {
        let record = &vm.record;
        [
            record.id.to_string(),
            record.name.to_string(),
            record.state.label().to_owned(),
            record.image_name.clone(),
            workspace(record).to_owned(),
            render::age(now, record.created_at),
        ]
    };
    let rows: Vec<_> = vms.iter().map(row).collect();
    render::table(["ID", "NAME", "STATE", "IMAGE", "WORKSPACE", "CREATED"], &rows)
}

/// What is asked. Work trees are named, since what was changed in them is nowhere else.
fn question(vms: &[VmView]) -> String {
    let trees = vms.iter().filter(|vm| !vm.record.workspaces.is_empty()).count();
    let what = match vms.len() {
        1 => "it and its disk".to_owned(),
        count => format!("these {count} and their disks"),
    };
    let with = match (vms.len(), trees) {
        (_, 0) => String::new(),
        (1, _) => ", with its work tree".to_owned(),
        (_, 1) => ", 1 of them with a work tree".to_owned(),
        (_, trees) => format!(", {trees} of them with work trees"),
    };
    format!("delete {what}{with}? [y/N] ")
}

/// Asks on the terminal; anything but yes means no.
fn agreed(question: &str) -> Result<bool, Error> {
    let cannot = |source| Error::Host { what: "ask on the terminal".to_owned(), source };
    let mut stderr = io::stderr().lock();
    stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(cannot)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::vm::stopped;

    fn vm(name: &str, trees: &[&str]) -> VmView {
        let trees: Vec<_> = trees
            .iter()
            .map(|path| {
                serde_json::json!({
                    "guest_path": path, "source": "/s", "head": null, "branch": null, "prepared_at": 0,
                })
            })
            .collect();
        let mut vm = stopped(name, 0xabc);
        vm.record.workspaces = serde_json::from_value(trees.into()).expect("work trees");
        vm
    }

    #[test]
    fn whoever_is_asked_sees_the_work_trees_that_go_too() {
        let (plain, one, two) = (vm("a", &[]), vm("b", &["/root/repo"]), vm("c", &["/root/repo", "/srv/x"]));
        let shown = listed(&[plain.clone(), two.clone()], 0);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].contains("WORKSPACE"), "{shown}");
        assert!(lines[2].contains("/srv/x") && !lines[1].contains('/'), "{shown}");
        for (vms, want) in [
            (vec![&plain], "delete it and its disk? [y/N] "),
            (vec![&two], "delete it and its disk, with its work tree? [y/N] "),
            (vec![&plain, &plain], "delete these 2 and their disks? [y/N] "),
            (vec![&plain, &one], "delete these 2 and their disks, 1 of them with a work tree? [y/N] "),
            (vec![&one, &plain, &two], "delete these 3 and their disks, 2 of them with work trees? [y/N] "),
        ] {
            let vms: Vec<VmView> = vms.into_iter().cloned().collect();
            assert_eq!(question(&vms), want);
        }
    }
}
