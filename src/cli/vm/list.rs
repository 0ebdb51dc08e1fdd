//! `banger vm list`, `banger ps` and `banger vm show`.

use std::time::Duration;

use argh::{ArgsInfo, FromArgs};

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::render;
use crate::proto::api::{Published, VmList, VmShow, VmView};
use crate::vm::publish::Publish;
use crate::vm::record::VmRecord;
use crate::vm::state::State;

#[derive(FromArgs, ArgsInfo, Debug)]
/// List the VMs.
#[argh(
    subcommand,
    name = "list",
    help_triggers("-h", "--help", "help"),
    example = "banger vm list\n\
               banger vm list --json | jq -r '.[].name'\n\
               banger vm delete $(banger vm list -q)   # all of them",
    note = "Fields of --json: id, name, image, image_name, kernel, spec (vcpu, memory_mib, disk_mib, vmm, accel, nat, lan), publish (as asked for: address, host, guest, protocol), published (the same as it is now, and problem), state (stopped, starting, running, stopping, failed, deleting), reason (why it failed), problem (why a running VM cannot be reached), pending (what counts from its next start: vcpu, memory, disk, network), processes, created_at, started_at, expires_at (when it is deleted, --ttl; all in seconds since 1970), owner, workspaces (guest_path, source, head, branch, prepared_at, untracked; the one brought last is the last), directory, address, running_on (vmm, accel)."
)]
pub struct List {
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// print ids only; -q is the same
    #[argh(switch)]
    ids: bool,
    /// print ids only
    #[argh(switch, short = 'q')]
    quiet: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// List the VMs; the same as `banger vm list`.
#[argh(subcommand, name = "ps", help_triggers("-h", "--help", "help"), example = "banger ps")]
pub struct Ps {
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// print ids only; -q is the same
    #[argh(switch)]
    ids: bool,
    /// print ids only
    #[argh(switch, short = 'q')]
    quiet: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Show all that is known of one VM.
#[argh(
    subcommand,
    name = "show",
    help_triggers("-h", "--help", "help"),
    example = "banger vm show dev\nbanger vm show dev --json | jq .spec",
    note = "Fields of --json: as `banger vm list --json`."
)]
pub struct Show {
    /// the VM's name, its id, or the beginning of its id
    #[argh(positional)]
    vm: String,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

impl Ps {
    pub fn run(&self) -> Result<(), Error> {
        List { json: self.json, ids: self.ids, quiet: self.quiet }.run()
    }
}

impl List {
    pub fn run(&self) -> Result<(), Error> {
        if self.json && (self.ids || self.quiet) {
            return Err(Error::Refused(
                "--json prints all and --ids prints ids only; choose one of them".to_owned(),
            ));
        }
        let vms = Client::from_env()?.ask(VmList {})?;
        if self.json {
            return render::json(&vms);
        }
        if self.ids || self.quiet {
            return render::out(&vms.iter().map(|vm| format!("{}\n", vm.record.id)).collect::<String>());
        }
        let now = render::now();
        let rows: Vec<_> = vms.iter().map(|vm| row(vm, now)).collect();
        let header = ["ID", "NAME", "STATE", "IMAGE", "IP", "VCPU", "MEM", "DISK", "WORKSPACE", "UPTIME"];
        render::out(&render::table(header, &rows))
    }
}

fn row(vm: &VmView, now: u64) -> [String; 10] {
    let record = &vm.record;
    [
        record.id.to_string(),
        record.name.to_string(),
        record.state.label().to_owned(),
        record.image_name.clone(),
        vm.address.clone().unwrap_or_default(),
        record.spec.vcpu.to_string(),
        format!("{} MiB", record.spec.memory.0),
        record.spec.disk.to_string(),
        workspace(record).to_owned(),
        uptime(record, now),
    ]
}

/// The work tree that was brought last: where commands start.
pub fn workspace(record: &VmRecord) -> &str {
    record.workspaces.last().map_or("", |brought| brought.guest_path.as_str())
}

/// How long it has been running.
pub fn uptime(record: &VmRecord, now: u64) -> String {
    match (&record.state, record.started_at) {
        (State::Running { .. } | State::Stopping { .. }, Some(started)) => {
            render::span(now.saturating_sub(started))
        }
        _ => String::new(),
    }
}

impl Show {
    pub fn run(&self) -> Result<(), Error> {
        let vm = Client::from_env()?.ask(VmShow { vm: self.vm.clone() })?;
        if self.json {
            return render::json(&vm);
        }
        let now = render::now();
        let VmView { record, directory, address, running_on, published, problem, pending } = vm;
        let reason = match &record.state {
            State::Failed { reason } => reason.clone(),
            _ => String::new(),
        };
        let pending = match &pending[..] {
            [] => String::new(),
            parts => {
                let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
                format!("{}, from its next start on", parts.join(", "))
            }
        };
        let deleted = record.expires_at.map(|end| {
            let left = Duration::from_secs(end.saturating_sub(now));
            format!("in {} (--ttl)", humantime::format_duration(left))
        });
        let (network, published) = (network(&record).to_owned(), ports(&record, &published));
        render::out(&render::fields(&[
            ("id", record.id.to_string()),
            ("name", record.name.to_string()),
            ("state", record.state.label().to_owned()),
            ("reason", reason),
            ("problem", problem.unwrap_or_default()),
            ("image", format!("{} ({})", record.image_name, record.image.get(..12).unwrap_or(&record.image))),
            ("kernel", record.kernel.unwrap_or_else(|| "the default".to_owned())),
            ("spec", record.spec.to_string()),
            ("pending", pending),
            ("network", network),
            ("address", address.unwrap_or_default()),
            ("published", published),
            ("running on", running_on.map(|on| format!("{} with {}", on.vmm, on.accel)).unwrap_or_default()),
            ("created", render::age(now, record.created_at)),
            ("started", record.started_at.map(|at| render::age(now, at)).unwrap_or_default()),
            ("deleted", deleted.unwrap_or_default()),
            ("directory", directory),
        ]))
    }
}

fn network(record: &VmRecord) -> &'static str {
    match (record.spec.nat, record.spec.lan) {
        (false, _) => "",
        (true, false) => "nat",
        (true, true) => "nat and lan",
    }
}

/// What is published: of a VM that runs as it is, else as it will be.
fn ports(record: &VmRecord, published: &[Published]) -> String {
    let one = |publish: &Publish| format!("{} to {}", publish.place(), publish.guest);
    let shown: Vec<String> = match published {
        [] => record.publish.iter().map(one).collect(),
        now => now
            .iter()
            .map(|p| match &p.problem {
                None => one(&p.publish),
                Some(problem) => format!("{} ({problem})", one(&p.publish)),
            })
            .collect(),
    };
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_shown_as_it_is_while_the_vm_runs() {
        let json = serde_json::json!({
            "id": "000000000001", "name": "dev", "image": "i", "image_name": "debian",
            "spec": { "vcpu": 1, "memory_mib": 512, "disk_mib": 8192, "vmm": "auto", "accel": "auto", "nat": true, "lan": true },
            "publish": [{ "address": "127.0.0.1", "host": 0, "guest": 80, "protocol": "tcp" }],
            "state": "stopped", "created_at": 0,
        });
        let record: VmRecord = serde_json::from_value(json).expect("a record");
        assert_eq!(ports(&record, &[]), "127.0.0.1:0 to 80");
        let publish = Publish { host: 40_000, ..record.publish[0] };
        let now = |problem: Option<&str>| [Published { publish, problem: problem.map(str::to_owned) }];
        assert_eq!(ports(&record, &now(None)), "127.0.0.1:40000 to 80");
        assert_eq!(ports(&record, &now(Some("taken"))), "127.0.0.1:40000 to 80 (taken)");
        assert_eq!(network(&record), "nat and lan");
    }
}
