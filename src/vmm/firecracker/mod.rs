//! Firecracker, 1.5 or later: configured by one JSON file, controlled by HTTP over a unix socket.

pub mod api;
pub mod config;
pub mod faults;
pub mod jail;
pub mod version;

use std::path::{Path, PathBuf};

use crate::vmm::{
    Accel, Channel, Kind, Launch, Machine, PORT_SUFFIX, Plan, PlanError, Vmm, check_drives, command_line,
    socket, text,
};

/// A Firecracker that this host can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firecracker {
    pub program: PathBuf,
}

/// What Firecracker's guests get on their kernel command line, before the machine's own words: no PCI, no keyboard to look
/// for, and a reset through the keyboard controller, at the guest's end and after a panic, which ends Firecracker
/// (Firecracker: vmm_config/boot_source.rs, docs/getting-started.md).
const WORDS: &str = "console=ttyS0 quiet loglevel=3 reboot=k panic=1 pci=off i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd \
                     cryptomgr.notests";

impl Vmm for Firecracker {
    fn kind(&self) -> Kind {
        Kind::Firecracker
    }

    fn accel(&self) -> Accel {
        Accel::Kvm
    }

    fn channel(&self, sockets: &Path, _: u32) -> Result<Channel, PlanError> {
        Ok(Channel::Hybrid { socket: socket(sockets, "vsock.sock", PORT_SUFFIX)? })
    }

    fn plan(&self, machine: &Machine) -> Result<Plan, PlanError> {
        let file = machine.sockets.join("firecracker.json");
        let told = Told::new(machine, &file)?;
        let mut argv = vec![text(&self.program)?.to_owned(), "--id".to_owned(), machine.name()];
        argv.extend(told.argv);
        Ok(Plan {
            stale: vec![told.api.clone(), told.vsock.clone()],
            files: vec![
                (file, told.config.to_string().into_bytes()),
                // Before 1.14 the logger wants its file to exist.
                (machine.vmm_log.clone(), vec![]),
            ],
            vsock: None,
            vmm: Launch { argv, log: machine.console_log.clone(), socket: told.api },
            channel: Channel::Hybrid { socket: told.vsock },
        })
    }
}

/// What a Firecracker is told, in a jail or not.
struct Told {
    /// All but the program and `--id`.
    argv: Vec<String>,
    /// What its configuration file holds.
    config: serde_json::Value,
    api: PathBuf,
    vsock: PathBuf,
}

impl Told {
    /// For `machine`, with the configuration in `file`.
    fn new(machine: &Machine, file: &Path) -> Result<Self, PlanError> {
        check_drives(machine)?;
        let api = socket(&machine.sockets, "api.sock", 0)?;
        let vsock = socket(&machine.sockets, "vsock.sock", PORT_SUFFIX)?;
        let mut argv = vec!["--api-sock", text(&api)?, "--config-file", text(file)?];
        // Not in the file: until that is read, the log goes to stdout, which is the guest's console.
        // Its warnings are of what the guest does, as often as the guest likes.
        argv.extend(["--log-path", text(&machine.vmm_log)?, "--level", "Error", "--show-level"]);
        let argv = argv.into_iter().map(str::to_owned).collect();
        let config = config::config(machine, &command_line(WORDS, machine)?, &vsock)?;
        Ok(Self { argv, config, api, vsock })
    }
}

#[cfg(test)]
mod tests;
