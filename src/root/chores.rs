//! What belongs to jails, as a list: done in this process, or by the launcher.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::network::subnet::Subnet;
use crate::proto::root::{Code, Launch, Port, Signal};
use crate::root::error::chain;
use crate::root::launch::{self, Site};
use crate::root::launcher::Launcher;
use crate::root::settings::Settings;
use crate::root::{Ground, tap};
use crate::vm::id::VmId;
use crate::vm::state::Processes;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "chore", rename_all = "kebab-case")]
pub enum Chore {
    /// With the descriptors of the request.
    Launch {
        launch: Launch,
        port: Port,
        subnet: Subnet,
    },
    Signal {
        processes: Processes,
        signal: Signal,
    },
    /// Ends what is left of the VM, and removes its jail.
    Remove {
        vm: VmId,
        processes: Option<Processes>,
    },
    /// Which VMs have a jail, or the rest of one?
    Jails,
    /// What is wrong with the programs that would be run?
    Notes,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    Done,
    Launched { vm: VmId, processes: Processes },
    Jails { vms: Vec<VmId> },
    Notes { notes: Vec<String>, no_firecracker: Option<String> },
}

/// The executable that runs, even if its file was replaced since (proc(5)).
const MYSELF: &str = "/proc/self/exe";

/// It was not done, and nothing is left of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failed {
    pub code: Code,
    pub message: String,
}

/// Who does it.
#[derive(Debug)]
pub enum Hands {
    Here,
    Apart(Launcher),
}

impl Hands {
    pub fn ask(
        &self,
        ground: &Ground,
        settings: &Settings,
        chore: Chore,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Outcome, Failed> {
        match self {
            Self::Here => perform(ground, settings, chore, descriptors),
            Self::Apart(launcher) => {
                let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                launcher.ask(&chore, &descriptors).unwrap_or_else(|e| {
                    Err(Failed { code: Code::Failed, message: format!("cannot ask the launcher: {e}") })
                })
            }
        }
    }
}

/// Does `chore` in this process.
pub fn perform(
    ground: &Ground,
    settings: &Settings,
    chore: Chore,
    descriptors: Vec<OwnedFd>,
) -> Result<Outcome, Failed> {
    match chore {
        Chore::Launch { launch, port, subnet } => {
            let vm = launch.vm;
            let site = Site {
                programs: &settings.programs,
                uid: settings.jail_uid(port.slot).as_raw(),
                subnet,
                slot: port.slot,
                open_tap: &|name| tap::open(name).map_err(Into::into),
                executable: Path::new(MYSELF),
            };
            let launched = launch::launch(ground, &site, &launch, descriptors);
            launched
                .map(|processes| Outcome::Launched { vm, processes })
                .map_err(|e| Failed { code: e.code(), message: chain(&e) })
        }
        Chore::Signal { processes, signal } => {
            launch::signal(processes, signal).map(|()| Outcome::Done).map_err(|e| failed(&e))
        }
        Chore::Remove { vm, processes } => {
            let removed = launch::remove(ground, vm, processes);
            removed.map(|()| Outcome::Done).map_err(|e| Failed { code: e.code(), message: chain(&e) })
        }
        Chore::Jails => launch::jails(ground).map(|vms| Outcome::Jails { vms }).map_err(|e| failed(&e)),
        Chore::Notes => {
            let (notes, no_firecracker) = settings.programs.notes();
            Ok(Outcome::Notes { notes, no_firecracker })
        }
    }
}

fn failed(e: &dyn std::error::Error) -> Failed {
    Failed { code: Code::Failed, message: chain(e) }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failed {}
