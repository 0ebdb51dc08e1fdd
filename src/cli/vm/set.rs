//! `banger vm set`: change VMs that there are already.

use argh::{ArgsInfo, FromArgs};

use super::asked;
use super::several::{Act, Meant, at_once, each, resolve};
use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::render;
use crate::proto::api::{VmList, VmSet, VmView};
use crate::vm::change::Change;
use crate::vm::lifetime::Ttl;
use crate::vm::name::VmName;
use crate::vm::publish::{Publish, Unpublish};
use crate::vm::size::Mib;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Change VMs. CPUs, memory and disk of one that runs change when it is started the next time; its name, its time and its published ports change at once.
#[argh(
    subcommand,
    name = "set",
    usage = "<vm>... [<options>]",
    help_triggers("-h", "--help", "help"),
    example = "banger vm set dev --vcpu 4 --memory 8G\n\
               banger vm set dev --disk-size 40G             # a disk only grows\n\
               banger vm set web --publish 8080:80 --unpublish 8000\n\
               banger vm set dev web --nat on\n\
               banger vm set dev --name build --ttl 8h",
    note = "A note says what counts from the next start: `banger vm restart dev`.\n\
            --json prints an array, with the fields of `banger vm list --json`; `pending` (vcpu, memory, disk, network) counts from the next start."
)]
pub struct Set {
    /// names, ids, or beginnings of ids
    #[argh(positional)]
    vm: Vec<String>,
    /// what it is called from now on
    #[argh(option, arg_name = "name")]
    name: Option<VmName>,
    /// how many CPUs
    #[argh(option, arg_name = "n", from_str_fn(asked::vcpu))]
    vcpu: Option<u8>,
    /// how much memory, such as 512M or 4G
    #[argh(option, arg_name = "size")]
    memory: Option<Mib>,
    /// how large the disk is; not less than it is now
    #[argh(option, arg_name = "size")]
    disk_size: Option<Mib>,
    /// whether the guest has a network with this host's way out: on or off
    #[argh(option, arg_name = "on|off", from_str_fn(asked::on_or_off))]
    nat: Option<bool>,
    /// whether that way leads to private networks too: on or off
    #[argh(option, arg_name = "on|off", from_str_fn(asked::on_or_off))]
    lan: Option<bool>,
    /// lead a port of this host to the guest, [addr:]host:guest[/udp]; may be repeated
    #[argh(option, short = 'p', arg_name = "ports")]
    publish: Vec<Publish>,
    /// do so no longer, [addr:]host[:guest][/udp]; may be repeated
    #[argh(option, arg_name = "ports")]
    unpublish: Vec<Unpublish>,
    /// delete it after this time from now on, whatever it does, such as 30m or 2h; off: never
    #[argh(option, arg_name = "time|off")]
    ttl: Option<Ttl>,
    /// print the VMs as JSON
    #[argh(switch)]
    json: bool,
    /// show no notes
    #[argh(switch, short = 'q')]
    quiet: bool,
}

impl Set {
    pub fn run(&self) -> Result<(), Error> {
        let change = Change {
            name: self.name.clone(),
            ttl: self.ttl,
            vcpu: self.vcpu,
            memory: self.memory,
            disk: self.disk_size,
            nat: self.nat,
            lan: self.lan,
            publish: self.publish.clone(),
            unpublish: self.unpublish.clone(),
        };
        if change == Change::default() {
            let text = "nothing is to be changed; `banger vm set --help` shows what can be";
            return Err(Error::Refused(text.to_owned()));
        }
        if change.name.is_some() && self.vm.len() > 1 {
            return Err(Error::Refused("a name is for one VM; name one with --name".to_owned()));
        }
        if self.json { self.set_for_programs(&change) } else { each(&self.vm, Act::Set(&change), self.quiet) }
    }

    /// Prints those that were changed, in the order of first mention.
    fn set_for_programs(&self, change: &Change) -> Result<(), Error> {
        let client = Client::from_env()?;
        let vms = client.ask(VmList {})?;
        let meant = resolve(&self.vm, &vms);
        let one = |id: &str| client.ask(VmSet { vm: id.to_owned(), change: change.clone() });
        let outcomes = at_once(one, &meant, &vms);
        let mut changed: Vec<VmView> = vec![];
        let mut failed = false;
        for (meant, outcome) in meant.into_iter().zip(outcomes) {
            let error = match (meant, outcome) {
                (_, Some(Ok(view))) => {
                    changed.push(view);
                    continue;
                }
                (_, Some(Err(e))) => e.into(),
                (Meant::Nothing(e), None) => Error::Refused(e.to_string()),
                (Meant::Vm(at), None) => {
                    Error::Refused(format!("VM {} was not reached", vms[at].record.name))
                }
            };
            failed = true;
            render::error(&error);
        }
        render::json(&changed)?;
        if failed { Err(Error::Said(1)) } else { Ok(()) }
    }
}
