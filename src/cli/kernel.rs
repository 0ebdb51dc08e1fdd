//! `banger kernel`: what guests boot (DESIGN D5).

use argh::{ArgsInfo, FromArgs};

use crate::cli::client::{Attention, Client};
use crate::cli::error::Error;
use crate::cli::files::absolute;
use crate::cli::render::{self, Progress};
use crate::host::environment::Environment;
use crate::proto::api::{
    KernelCatalog, KernelDefault, KernelImport, KernelList, KernelOffer, KernelPull, KernelRemove,
    KernelShow, KernelSource, KernelView,
};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Manage the kernels that VMs boot.
#[argh(
    subcommand,
    name = "kernel",
    help_triggers("-h", "--help", "help"),
    example = "banger kernel import --host\nbanger kernel list"
)]
pub struct Kernel {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Verb {
    Import(Import),
    Pull(Pull),
    List(List),
    Show(Show),
    Rm(Rm),
    Default(SetDefault),
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Import a kernel with its modules. The first one becomes the default.
#[argh(
    subcommand,
    name = "import",
    help_triggers("-h", "--help", "help"),
    example = "banger kernel import --host                                # the running one\n\
               banger kernel import --deb linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb\n\
               banger kernel import --from ./build --name mine            # vmlinux or bzImage, and modules"
)]
struct Import {
    /// a Debian kernel package, linux-image-*.deb
    #[argh(option, arg_name = "file")]
    deb: Option<String>,
    /// a directory with vmlinux or bzImage, and optional modules
    #[argh(option, arg_name = "dir")]
    from: Option<String>,
    /// the kernel that this host runs, from /boot and /lib/modules
    #[argh(switch)]
    host: bool,
    /// what to call it; its version by default
    #[argh(option, arg_name = "name")]
    name: Option<String>,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Pull a kernel by its name in a catalog. The first one becomes the default.
#[argh(
    subcommand,
    name = "pull",
    help_triggers("-h", "--help", "help"),
    example = "banger kernel list --available              # what the catalogs have\n\
               banger kernel pull generic-6.12\n\
               banger kernel pull generic-6.12 --force     # in place of another one of that name"
)]
struct Pull {
    /// its name in a catalog
    #[argh(positional)]
    kernel: String,
    /// replace another kernel of that name
    #[argh(switch)]
    force: bool,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// List the kernels. A star marks the default.
#[argh(
    subcommand,
    name = "list",
    help_triggers("-h", "--help", "help"),
    example = "banger kernel list\n\
               banger kernel list --available              # what the catalogs have\n\
               banger kernel list --json | jq '.[].name'",
    note = "Fields of --json: name, version, arch, blake3, source, snapshot, modules, bundle, imported_at (seconds since 1970), default, disk_bytes. \
            With --available: name, version, arch, description, source, bytes, state (pulled or available), catalog."
)]
struct List {
    /// list what the catalogs have
    #[argh(switch)]
    available: bool,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Show all that is known of one kernel.
#[argh(
    subcommand,
    name = "show",
    help_triggers("-h", "--help", "help"),
    example = "banger kernel show 6.1.0-56-cloud-amd64",
    note = "Fields of --json: as `banger kernel list --json`."
)]
struct Show {
    /// the kernel's name
    #[argh(positional)]
    kernel: String,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Remove a kernel.
#[argh(
    subcommand,
    name = "rm",
    help_triggers("-h", "--help", "help"),
    example = "banger kernel rm 6.1.0-56-cloud-amd64"
)]
struct Rm {
    /// the kernel's name
    #[argh(positional)]
    kernel: String,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Choose the kernel that VMs boot when they name none.
#[argh(
    subcommand,
    name = "default",
    help_triggers("-h", "--help", "help"),
    example = "banger kernel default 6.1.0-56-cloud-amd64"
)]
struct SetDefault {
    /// the kernel's name
    #[argh(positional)]
    kernel: String,
}

impl Kernel {
    pub fn run(&self) -> Result<(), Error> {
        let client = Client::from_env()?;
        match &self.verb {
            Verb::Import(import) => import.run(&client),
            Verb::Pull(pull) => pull.run(&client),
            Verb::List(list) => list.run(&client),
            Verb::Show(show) => show.run(&client),
            Verb::Rm(rm) => Ok(client.ask(KernelRemove { kernel: rm.kernel.clone() })?),
            Verb::Default(default) => {
                client.ask(KernelDefault { kernel: default.kernel.clone() })?;
                Ok(())
            }
        }
    }
}

impl Import {
    fn source(&self) -> Result<KernelSource, Error> {
        match (&self.deb, &self.from, self.host) {
            (Some(deb), None, false) => Ok(KernelSource::Deb(absolute(deb)?)),
            (None, Some(from), false) => Ok(KernelSource::From(absolute(from)?)),
            (None, None, true) => Ok(KernelSource::Host),
            _ => Err(Error::Refused(
                "say where the kernel comes from with one of --deb FILE, --from DIR and --host".to_owned(),
            )),
        }
    }

    fn run(&self, client: &Client) -> Result<(), Error> {
        let request = KernelImport { source: self.source()?, name: self.name.clone() };
        let mut progress = Progress::new(self.quiet);
        let view = client.call(request, &mut Attention::to(&mut progress))?;
        progress.clear();
        render::out_line(&view.record.name)
    }
}

impl Pull {
    fn run(&self, client: &Client) -> Result<(), Error> {
        let request = KernelPull {
            kernel: self.kernel.clone(),
            force: self.force,
            environment: Environment::of_process().to_bring(),
        };
        let mut progress = Progress::new(self.quiet);
        let view = client.call(request, &mut Attention::to(&mut progress))?;
        progress.clear();
        render::out_line(&view.record.name)
    }
}

impl List {
    fn run(&self, client: &Client) -> Result<(), Error> {
        if self.available {
            return self.offers(client);
        }
        let kernels = client.ask(KernelList {})?;
        if self.json {
            return render::json(&kernels);
        }
        let row = |k: &KernelView| {
            [
                format!("{}{}", k.record.name, if k.default { " *" } else { "" }),
                k.record.version.clone(),
                k.record.arch.clone(),
                render::bytes(k.disk_bytes),
                k.record.source.clone(),
                render::age(render::now(), k.record.imported_at),
            ]
        };
        let rows: Vec<_> = kernels.iter().map(row).collect();
        render::out(&render::table(["NAME", "VERSION", "ARCH", "SIZE", "SOURCE", "IMPORTED"], &rows))
    }

    fn offers(&self, client: &Client) -> Result<(), Error> {
        // Of a catalog that cannot be had a note says why.
        let mut progress = Progress::new(false);
        let offers = client.call(
            KernelCatalog { offline: false, environment: Environment::of_process().to_bring() },
            &mut Attention::to(&mut progress),
        )?;
        progress.clear();
        if self.json {
            return render::json(&offers);
        }
        let row = |offer: &KernelOffer| {
            [
                offer.name.clone(),
                render::offer_state(offer.state).to_owned(),
                offer.version.clone(),
                offer.arch.clone(),
                render::bytes(offer.bytes),
                offer.description.clone(),
            ]
        };
        let rows: Vec<_> = offers.iter().map(row).collect();
        render::out(&render::table(["NAME", "STATE", "VERSION", "ARCH", "SIZE", "DESCRIPTION"], &rows))
    }
}

impl Show {
    fn run(&self, client: &Client) -> Result<(), Error> {
        let kernel = client.ask(KernelShow { kernel: self.kernel.clone() })?;
        if self.json {
            return render::json(&kernel);
        }
        let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
        let record = kernel.record;
        render::out(&render::fields(&[
            ("name", record.name),
            ("version", record.version),
            ("arch", record.arch),
            ("default", yes(kernel.default)),
            ("snapshots", yes(record.snapshot)),
            ("module tree", yes(record.modules)),
            ("size", render::bytes(kernel.disk_bytes)),
            ("source", record.source),
            ("blake3", record.blake3),
            ("imported", render::age(render::now(), record.imported_at)),
        ]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_source_is_taken() {
        let import = |deb: Option<&str>, from: Option<&str>, host| Import {
            deb: deb.map(str::to_owned),
            from: from.map(str::to_owned),
            host,
            name: None,
            quiet: false,
        };
        assert!(matches!(import(None, None, true).source(), Ok(KernelSource::Host)));
        assert!(matches!(import(Some("/a"), None, false).source(), Ok(KernelSource::Deb(_))));
        for wrong in
            [import(None, None, false), import(Some("/a"), None, true), import(Some("/a"), Some("/b"), false)]
        {
            assert!(wrong.source().is_err(), "{wrong:?}");
        }
    }
}
