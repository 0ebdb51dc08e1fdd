//! `banger system status`.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use crate::cli::error::Error;
use crate::cli::render;
use crate::cli::system::daemons::Asked;
use crate::cli::system::installed;
use crate::system::layout::Layout;
use crate::system::services::Manager;
use crate::system::status::{self, Binary, Socket, UnitView};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Show what is installed, whether it runs, and which VMs do. Exits with 1 if something is not as it should be.
#[argh(
    subcommand,
    name = "status",
    help_triggers("-h", "--help", "help"),
    example = "banger system status\nbanger system status --json | jq -r '.units[] | select(.active != \"active\") | .unit'",
    note = "Fields of --json: owner, uid, installed (version, commit, built_at), binary (path, says), daemon and helper (version, commit, pid, problem), units (unit, active, at_boot, result), sockets (path, uid, mode, listens), vms (name, state), problems."
)]
pub struct Status {
    /// print JSON
    #[argh(switch)]
    json: bool,
}

#[derive(Serialize)]
struct View {
    owner: String,
    uid: u32,
    installed: Build,
    binary: Binary,
    daemon: Daemon,
    helper: Daemon,
    units: Vec<UnitView>,
    sockets: Vec<Socket>,
    vms: Vec<Vm>,
    /// Sentences.
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Build {
    version: String,
    commit: String,
    built_at: String,
}

/// What a daemon says of itself; `problem` where it says nothing.
#[derive(Serialize, Default)]
struct Daemon {
    version: Option<String>,
    commit: Option<String>,
    pid: Option<u32>,
    problem: Option<String>,
}

#[derive(Serialize)]
struct Vm {
    name: String,
    state: String,
}

impl Status {
    pub fn run(&self, layout: &Layout) -> Result<(), Error> {
        let view = look(layout)?;
        match self.json {
            true => render::json(&view)?,
            false => render::out(&text(&view))?,
        }
        if view.problems.is_empty() { Ok(()) } else { Err(Error::Said(1)) }
    }
}

fn look(layout: &Layout) -> Result<View, Error> {
    let install = installed(layout)?;
    let asked = Asked { layout, owner: install.owner_uid() };
    let daemon = match asked.daemon_view() {
        Ok(view) => Daemon {
            version: Some(view.version),
            commit: Some(view.commit),
            pid: Some(view.pid),
            problem: None,
        },
        Err(e) => Daemon { problem: Some(render::chain(&e)), ..Daemon::default() },
    };
    let helper = match asked.helper_status() {
        Ok(status) => Daemon { version: Some(status.version), pid: Some(status.pid), ..Daemon::default() },
        Err(e) => Daemon { problem: Some(e.to_string()), ..Daemon::default() },
    };
    let vms = match daemon.problem {
        None => asked.vms()?,
        Some(_) => vec![],
    };
    let vm = |vm: crate::proto::api::VmView| Vm {
        name: vm.record.name.to_string(),
        state: vm.record.state.label().to_owned(),
    };
    let mut view = View {
        owner: install.owner,
        uid: install.uid,
        installed: Build { version: install.version, commit: install.commit, built_at: install.built_at },
        binary: status::binary(layout),
        daemon,
        helper,
        units: status::units(&Manager::of(layout)),
        sockets: status::sockets(layout),
        vms: vms.into_iter().map(vm).collect(),
        problems: vec![],
    };
    view.problems = problems(&view);
    Ok(view)
}

/// What is not as it should be.
fn problems(view: &View) -> Vec<String> {
    let mut problems = vec![];
    let line = format!("v{} ", view.installed.version);
    match &view.binary.says {
        None => problems.push(format!("{} cannot be run", view.binary.path)),
        Some(says) if !says.contains(&line) => {
            problems.push(format!(
                "{} says {says}, and v{} was installed",
                view.binary.path, view.installed.version
            ));
        }
        Some(_) => {}
    }
    for (name, daemon) in [("bangerd", &view.daemon), ("bangerd-root", &view.helper)] {
        match daemon {
            Daemon { problem: Some(why), .. } => problems.push(format!("{name} does not answer: {why}")),
            Daemon { version: Some(version), .. } if *version != view.installed.version => {
                problems
                    .push(format!("{name} runs as v{version}, and v{} is installed", view.installed.version));
            }
            _ => {}
        }
    }
    for UnitView { unit, state } in &view.units {
        let runs = state.active == "active" || *unit == "banger-recover.service";
        if state.active == "failed" || !runs {
            problems.push(format!("{unit} is {}", state.active));
        }
        if state.at_boot != "enabled" {
            problems.push(format!("{unit} is not started at boot"));
        }
    }
    problems
}

fn text(view: &View) -> String {
    let daemon = |daemon: &Daemon| match daemon {
        Daemon { version: Some(version), pid: Some(pid), .. } => format!("v{version}, pid {pid}"),
        Daemon { problem, .. } => problem.clone().unwrap_or_default(),
    };
    let unit = |UnitView { unit, state }: &UnitView| {
        let words = [&state.active, &state.at_boot, &state.result];
        let words: Vec<&str> =
            words.iter().map(|word| word.as_str()).filter(|word| !word.is_empty()).collect();
        (*unit, words.join(", "))
    };
    let socket = |socket: &Socket| match (&socket.uid, &socket.mode) {
        (Some(uid), Some(mode)) => {
            let listens = if socket.listens { "" } else { ", and nobody listens" };
            ("socket", format!("{} (uid {uid}, mode {mode}){listens}", socket.path))
        }
        _ => ("socket", format!("{} is not there, or not yours to see", socket.path)),
    };
    let mut fields = vec![
        ("owner", format!("{} (uid {})", view.owner, view.uid)),
        (
            "installed",
            format!(
                "v{} ({}), built {}",
                view.installed.version, view.installed.commit, view.installed.built_at
            ),
        ),
        (
            "executable",
            format!("{}: {}", view.binary.path, view.binary.says.as_deref().unwrap_or("cannot be run")),
        ),
        ("bangerd", daemon(&view.daemon)),
        ("bangerd-root", daemon(&view.helper)),
    ];
    fields.extend(view.units.iter().map(unit));
    fields.extend(view.sockets.iter().map(socket));
    fields.extend(view.vms.iter().map(|vm| ("VM", format!("{} ({})", vm.name, vm.state))));
    fields.extend(view.problems.iter().map(|problem| ("problem", problem.clone())));
    let mut text = render::fields(&fields);
    if !view.problems.is_empty() {
        text += "\n`sudo banger system restart` restarts it, and `sudo banger system install` mends it\n";
    }
    text
}
