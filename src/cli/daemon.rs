//! `banger daemon`: the process behind it all, which comes by itself and goes when told to.

use argh::{ArgsInfo, FromArgs};

use crate::cli::client::{Client, ClientError};
use crate::cli::error::Error;
use crate::cli::render;
use crate::proto::api::DaemonStatus;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Look at bangerd, or stop it. It starts by itself when it is needed; where banger is installed, systemd keeps it running.
#[argh(
    subcommand,
    name = "daemon",
    help_triggers("-h", "--help", "help"),
    example = "banger daemon status\nbanger daemon stop            # VMs run on"
)]
pub struct Daemon {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Verb {
    Status(Status),
    Stop(Stop),
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Show whether bangerd runs, and what it is. Exits with 1 when it does not run.
#[argh(
    subcommand,
    name = "status",
    help_triggers("-h", "--help", "help"),
    example = "banger daemon status",
    note = "Fields of --json: pid, version, commit, built, started_at (seconds since 1970), socket, state_dir, running_vms, dns_suffix, dns (list of address, problem?), config (tells the configuration that it has read from others)."
)]
struct Status {
    /// print JSON
    #[argh(switch)]
    json: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Stop bangerd. VMs run on, and the next command that needs it starts it again.
#[argh(subcommand, name = "stop", help_triggers("-h", "--help", "help"), example = "banger daemon stop")]
struct Stop {}

impl Daemon {
    pub fn run(&self) -> Result<(), Error> {
        let client = Client::from_env()?;
        match &self.verb {
            Verb::Status(status) => status.run(&client),
            Verb::Stop(_) if client.is_of_installation() => Err(Error::Refused(
                "systemd keeps this installation's bangerd running; `sudo systemctl stop bangerd` stops it, and \
                 `sudo banger system restart` starts it anew. VMs run on"
                    .to_owned(),
            )),
            Verb::Stop(_) => match client.stop_running() {
                // What does not run is stopped.
                Ok(()) | Err(ClientError::NotRunning) => Ok(()),
                Err(e) => Err(e.into()),
            },
        }
    }
}

impl Status {
    fn run(&self, client: &Client) -> Result<(), Error> {
        let view = client.ask_running(DaemonStatus {})?;
        if self.json {
            return render::json(&view);
        }
        let mut fields = vec![
            ("pid", view.pid.to_string()),
            ("version", format!("v{}", view.version)),
            ("commit", view.commit),
            ("built", view.built),
            ("started", render::age(render::now(), view.started_at)),
            ("socket", view.socket),
            ("state", view.state_dir),
            ("running VMs", view.running_vms.to_string()),
        ];
        fields.extend(view.dns.into_iter().map(|dns| match dns.problem {
            Some(problem) => ("dns", format!("not at {}: {problem}", dns.address)),
            None => ("dns", dns.address),
        }));
        render::out(&render::fields(&fields))
    }
}
