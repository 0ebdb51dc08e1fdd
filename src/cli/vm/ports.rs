//! `banger vm ports`: what listens in guests, and how to reach it.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use super::several::{Meant, at_once, complain, resolve};
use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::render;
use crate::proto::api::{PortView, Scheme, VmList, VmPorts, VmView};
use crate::vm::state::State;

#[derive(FromArgs, ArgsInfo, Debug)]
/// List what listens in VMs, and how to reach it from here.
#[argh(
    subcommand,
    name = "ports",
    usage = "[<vm>...] [<options>]",
    help_triggers("-h", "--help", "help"),
    example = "banger vm ports                        # of all VMs that run\n\
               banger vm ports dev --json | jq -r '.[].reach[]'",
    note = "Fields of --json: vm, protocol (tcp, udp), address (where it listens in the guest; null: it is published, and nothing listens), port, pid, program, reach (a list; empty: it cannot be reached from here), scheme (http, https; null: it is no web server, or was not asked).\n\
            Each TCP port is asked, through the guest's agent, whether it speaks HTTP or TLS; one that does not answer within three seconds speaks neither. A program that expects exactly one connection takes that for it: --no-probe."
)]
pub struct Ports {
    /// names, ids, or beginnings of ids; all VMs that run if not given
    #[argh(positional)]
    vm: Vec<String>,
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// do not ask what listens whether it is a web server
    #[argh(switch)]
    no_probe: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    vm: &'a str,
    #[serde(flatten)]
    port: &'a PortView,
}

impl Ports {
    pub fn run(&self) -> Result<(), Error> {
        let client = Client::from_env()?;
        let vms = client.ask(VmList {})?;
        let meant = if self.vm.is_empty() { running(&vms) } else { resolve(&self.vm, &vms) };
        let ask = |id: &str| client.ask(VmPorts { vm: id.to_owned(), probe: !self.no_probe });
        let (mut rows, mut errors): (Vec<Row<'_>>, Vec<Error>) = (vec![], vec![]);
        let outcomes = at_once(ask, &meant, &vms);
        for (meant, outcome) in meant.iter().zip(&outcomes) {
            match (meant, outcome) {
                (Meant::Vm(at), Some(Ok(ports))) => {
                    rows.extend(ports.iter().map(|port| Row { vm: vms[*at].record.name.as_str(), port }));
                }
                (Meant::Nothing(e), _) => errors.push(Error::Refused(e.to_string())),
                (Meant::Vm(_), _) => {}
            }
        }
        if self.json {
            render::json(&rows)?;
        } else if !rows.is_empty() || errors.is_empty() {
            let lines: Vec<_> = rows.iter().map(line).collect();
            render::out(&render::table(["NAME", "PROTO", "PORT", "PROGRAM", "SCHEME", "REACH"], &lines))?;
        }
        errors.extend(outcomes.into_iter().flatten().filter_map(Result::err).map(Error::from));
        complain(errors)
    }
}

/// All VMs that run.
pub fn running(vms: &[VmView]) -> Vec<Meant> {
    let runs = |at: &usize| matches!(vms[*at].record.state, State::Running { .. });
    (0..vms.len()).filter(runs).map(Meant::Vm).collect()
}

fn line(row: &Row<'_>) -> [String; 6] {
    let port = row.port;
    let program = match (&port.program, port.address) {
        (Some(program), _) => program.clone(),
        (None, Some(_)) => String::new(),
        (None, None) => "(nothing listens)".to_owned(),
    };
    let scheme = match port.scheme {
        None => "",
        Some(Scheme::Http) => "http",
        Some(Scheme::Https) => "https",
    };
    let way = |reach: &String| if scheme.is_empty() { reach.clone() } else { format!("{scheme}://{reach}") };
    let ways: Vec<String> = port.reach.iter().map(way).collect();
    let reach = if ways.is_empty() { "-p to publish".to_owned() } else { ways.join(", ") };
    [row.vm.to_owned(), port.protocol.to_string(), port.port.to_string(), program, scheme.to_owned(), reach]
}
