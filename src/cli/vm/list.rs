//! `banger vm list`, `banger ps` and `banger vm show`.

use argh::{ArgsInfo, FromArgs};

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::render;
use crate::proto::api::{VmList, VmShow, VmView};
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
    note = "Fields of --json: id, name, image, image_name, kernel, spec (vcpu, memory_mib, disk_mib, vmm, accel, nat), state (stopped, starting, running, stopping, failed, deleting), reason (why it failed), problem (why a running VM cannot be reached), processes, created_at, started_at (seconds since 1970), owner, directory, address, running_on (vmm, accel)."
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
        let header = ["ID", "NAME", "STATE", "IMAGE", "IP", "VCPU", "MEM", "DISK", "CREATED"];
        render::out(&render::table(header, &rows))
    }
}

fn row(vm: &VmView, now: u64) -> [String; 9] {
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
        render::age(now, record.created_at),
    ]
}

impl Show {
    pub fn run(&self) -> Result<(), Error> {
        let vm = Client::from_env()?.ask(VmShow { vm: self.vm.clone() })?;
        if self.json {
            return render::json(&vm);
        }
        let now = render::now();
        let VmView { record, directory, address, running_on, problem } = vm;
        let reason = match &record.state {
            State::Failed { reason } => reason.clone(),
            _ => String::new(),
        };
        render::out(&render::fields(&[
            ("id", record.id.to_string()),
            ("name", record.name.to_string()),
            ("state", record.state.label().to_owned()),
            ("reason", reason),
            ("problem", problem.unwrap_or_default()),
            ("image", format!("{} ({})", record.image_name, record.image.get(..12).unwrap_or(&record.image))),
            ("kernel", record.kernel.unwrap_or_else(|| "the default".to_owned())),
            ("spec", record.spec.to_string()),
            ("address", address.unwrap_or_default()),
            ("running on", running_on.map(|on| format!("{} with {}", on.vmm, on.accel)).unwrap_or_default()),
            ("created", render::age(now, record.created_at)),
            ("started", record.started_at.map(|at| render::age(now, at)).unwrap_or_default()),
            ("directory", directory),
        ]))
    }
}
