//! `banger vm`: the tree of its verbs; each has a file, those that do one thing to several VMs share one.

pub mod asked;
mod bootstrap;
mod cp;
mod create;
pub mod exec;
mod health;
pub mod list;
pub mod logs;
pub mod ports;
mod prune;
mod run;
mod set;
pub mod several;
mod stats;
mod workspace;

use argh::{ArgsInfo, FromArgs};

use crate::cli::error::Error;
use crate::cli::ssh::session;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Make, use and delete virtual machines. A VM is named by its name, its id, or the beginning of its id.
#[argh(
    subcommand,
    name = "vm",
    help_triggers("-h", "--help", "help"),
    example = "banger vm run --name dev                # a VM and a shell in it\n\
               banger vm exec dev -- uname -a          # a command in it\n\
               banger vm delete dev                    # and it is gone"
)]
pub struct Vm {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Verb {
    Run(run::Run),
    Create(create::Create),
    Start(several::Start),
    Stop(several::Stop),
    Kill(several::Kill),
    Restart(several::Restart),
    Delete(several::Delete),
    Prune(prune::Prune),
    Set(set::Set),
    Exec(exec::Exec),
    Shell(exec::Shell),
    Ssh(session::Ssh),
    List(list::List),
    Show(list::Show),
    Stats(stats::Stats),
    Health(health::Health),
    Ping(health::Ping),
    Logs(logs::Logs),
    Ports(ports::Ports),
    Cp(cp::Cp),
    Workspace(workspace::WorkspaceGroup),
}

impl Vm {
    /// `command` is what followed `--`.
    pub fn run(&self, command: Option<Vec<String>>) -> Result<(), Error> {
        let command = command.unwrap_or_default();
        match &self.verb {
            Verb::Run(run) => run.run(command),
            Verb::Create(create) => create.run(),
            Verb::Start(start) => start.run(),
            Verb::Stop(stop) => stop.run(),
            Verb::Kill(kill) => kill.run(),
            Verb::Restart(restart) => restart.run(),
            Verb::Delete(delete) => delete.run(),
            Verb::Prune(prune) => prune.run(),
            Verb::Set(set) => set.run(),
            Verb::Exec(exec) => exec.run(command),
            Verb::Shell(shell) => shell.run(),
            Verb::Ssh(ssh) => ssh.run(&command),
            Verb::List(list) => list.run(),
            Verb::Show(show) => show.run(),
            Verb::Stats(stats) => stats.run(),
            Verb::Health(health) => health.run(),
            Verb::Ping(ping) => ping.run(),
            Verb::Logs(logs) => logs.run(),
            Verb::Ports(ports) => ports.run(),
            Verb::Cp(cp) => cp.run(),
            Verb::Workspace(workspace) => workspace.run(),
        }
    }
}

/// A stopped VM, as a daemon tells of it.
#[cfg(test)]
pub fn stopped(name: &str, id: u64) -> crate::proto::api::VmView {
    let json = serde_json::json!({
        "id": format!("{id:012x}"), "name": name, "image": "i", "image_name": "debian",
        "spec": { "vcpu": 1, "memory_mib": 512, "disk_mib": 8192, "vmm": "auto", "accel": "auto", "nat": false },
        "state": "stopped", "created_at": 0, "directory": "/d", "address": null, "running_on": null,
    });
    serde_json::from_value(json).expect("a view")
}
