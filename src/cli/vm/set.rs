//! `banger vm set`: change VMs that there are already.

use argh::{ArgsInfo, FromArgs};

use super::asked;
use super::several::{Act, each};
use crate::cli::error::Error;
use crate::vm::change::Change;
use crate::vm::publish::{Publish, Unpublish};
use crate::vm::size::Mib;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Change VMs. CPUs, memory and disk of one that runs change when it is started the next time; its published ports change at once.
#[argh(
    subcommand,
    name = "set",
    usage = "<vm>... [<options>]",
    help_triggers("-h", "--help", "help"),
    example = "banger vm set dev --vcpu 4 --memory 8G\n\
               banger vm set dev --disk-size 40G             # a disk only grows\n\
               banger vm set web --publish 8080:80 --unpublish 8000\n\
               banger vm set dev web --nat on",
    note = "A note says what counts from the next start: `banger vm restart dev`."
)]
pub struct Set {
    /// names, ids, or beginnings of ids
    #[argh(positional)]
    vm: Vec<String>,
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
    /// show no notes
    #[argh(switch, short = 'q')]
    quiet: bool,
}

impl Set {
    pub fn run(&self) -> Result<(), Error> {
        let change = Change {
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
        each(&self.vm, Act::Set(&change), self.quiet)
    }
}
