//! `banger vm create`: a VM for later.

use argh::{ArgsInfo, FromArgs};

use super::asked;
use crate::cli::client::{Attention, Client};
use crate::cli::error::Error;
use crate::cli::render::{self, Progress};
use crate::host::environment::Environment;
use crate::proto::api::VmCreate;
use crate::vm::lifetime::Ttl;
use crate::vm::name::VmName;
use crate::vm::publish::Publish;
use crate::vm::size::Mib;
use crate::vm::spec::{AccelChoice, VmmChoice, Wish};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Create a VM and start it. Prints its name.
#[argh(
    subcommand,
    name = "create",
    usage = "[<options>]",
    help_triggers("-h", "--help", "help"),
    example = "banger vm create --name dev --memory 2G\n\
               banger vm create --image debian:12 --disk-size 20G --no-start\n\
               banger vm create --image nginx --publish 8080:80 --ttl 2h"
)]
pub struct Create {
    /// a local image, or a reference to pull; the default image if not given
    #[argh(option, arg_name = "image")]
    image: Option<String>,
    /// the VM's name; an adjective and a noun if not given
    #[argh(option, arg_name = "name")]
    name: Option<VmName>,
    /// how many CPUs; a quarter of this host's, 1 to 4, if not given
    #[argh(option, arg_name = "n", from_str_fn(asked::vcpu))]
    vcpu: Option<u8>,
    /// how much memory, such as 512M or 4G; an eighth of this host's, 512M to 8G, if not given
    #[argh(option, arg_name = "size")]
    memory: Option<Mib>,
    /// how large the disk is; 8G, or the image's size where that is more, if not given
    #[argh(option, arg_name = "size")]
    disk_size: Option<Mib>,
    /// give the guest a network with this host's way out
    #[argh(switch)]
    nat: bool,
    /// let that way lead to private networks too; with --nat
    #[argh(switch)]
    lan: bool,
    /// lead a port of this host to the guest, [addr:]host:guest[/udp], on 127.0.0.1 if no address is given; host 0 takes any free port; may be repeated
    #[argh(option, short = 'p', arg_name = "ports")]
    publish: Vec<Publish>,
    /// delete the VM after this time, whatever it does, such as 30m or 2h
    #[argh(option, arg_name = "time")]
    ttl: Option<Ttl>,
    /// what runs it: auto, firecracker or qemu
    #[argh(option, arg_name = "vmm", default = "VmmChoice::Auto")]
    vmm: VmmChoice,
    /// what executes it: auto, kvm or tcg
    #[argh(option, arg_name = "accel", default = "AccelChoice::Auto")]
    accel: AccelChoice,
    /// the kernel's name; the one that the image wants, else the default one, if not given
    #[argh(option, arg_name = "kernel")]
    kernel: Option<String>,
    /// do not start it
    #[argh(switch)]
    no_start: bool,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
}

impl Create {
    pub fn run(&self) -> Result<(), Error> {
        let request = VmCreate {
            name: self.name.clone(),
            image: self.image.clone(),
            kernel: self.kernel.clone(),
            wish: asked::hardware(Wish {
                vcpu: self.vcpu,
                memory: self.memory,
                disk: self.disk_size,
                vmm: self.vmm,
                accel: self.accel,
                nat: self.nat,
                lan: self.lan,
            })?,
            start: !self.no_start,
            soon: false,
            ephemeral: false,
            publish: self.publish.clone(),
            ttl_s: asked::ttl(self.ttl),
            advise: false,
            environment: Environment::of_process().to_bring(),
        };
        let mut progress = Progress::new(self.quiet);
        let vm = Client::from_env()?.call(request, &mut Attention::to(&mut progress))?;
        progress.say(&format!("spec: {}", vm.record.spec));
        progress.clear();
        render::out_line(vm.record.name.as_str())
    }
}
