//! The services of an installation, as systemd knows them.

use crate::host::cmd::{self, CmdError};

/// A unit of banger's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// The owner's daemon.
    Daemon,
    /// The root helper.
    Helper,
    /// The root helper's socket, which starts it.
    HelperSocket,
    /// Finishes or undoes an update at boot.
    Recovery,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Daemon => "bangerd.service",
            Self::Helper => "bangerd-root.service",
            Self::HelperSocket => "bangerd-root.socket",
            Self::Recovery => "banger-recover.service",
        }
    }
}

/// All units, those that need others behind them.
pub const ALL: [Unit; 4] = [Unit::HelperSocket, Unit::Helper, Unit::Daemon, Unit::Recovery];

/// What can be asked of the host's service manager. Tests have one of their own.
pub trait Services {
    /// Reads units again that have changed on disk.
    fn reload(&self) -> Result<(), CmdError>;
    fn start(&self, unit: Unit) -> Result<(), CmdError>;
    fn stop(&self, unit: Unit) -> Result<(), CmdError>;
    /// Stops it if it runs, and starts it.
    fn restart(&self, unit: Unit) -> Result<(), CmdError>;
    /// Has it started at boot from now on.
    fn enable(&self, unit: Unit) -> Result<(), CmdError>;
    fn disable(&self, unit: Unit) -> Result<(), CmdError>;
}

/// systemd (systemctl(1)).
#[derive(Debug, Clone, Copy)]
pub struct Systemd;

impl Services for Systemd {
    fn reload(&self) -> Result<(), CmdError> {
        systemctl(&["daemon-reload"])
    }
    fn start(&self, unit: Unit) -> Result<(), CmdError> {
        systemctl(&["start", unit.name()])
    }
    fn stop(&self, unit: Unit) -> Result<(), CmdError> {
        systemctl(&["stop", unit.name()])
    }
    fn restart(&self, unit: Unit) -> Result<(), CmdError> {
        systemctl(&["restart", unit.name()])
    }
    fn enable(&self, unit: Unit) -> Result<(), CmdError> {
        systemctl(&["enable", "--quiet", unit.name()])
    }
    fn disable(&self, unit: Unit) -> Result<(), CmdError> {
        systemctl(&["disable", "--quiet", unit.name()])
    }
}

fn systemctl(args: &[&str]) -> Result<(), CmdError> {
    cmd::run("systemctl", args).map(drop)
}
