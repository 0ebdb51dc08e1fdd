//! The services of an installation, as systemd knows them.

use serde::Serialize;

use crate::host::cmd::{self, CmdError};
use crate::system::layout::Layout;

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

/// How a unit is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct State {
    /// systemd's word: `active`, `inactive`, `failed`, `activating`, ...
    pub active: String,
    /// Its word for the unit at boot: `enabled`, `disabled`; empty for one that is not there.
    pub at_boot: String,
    /// Why it is not active any more: `exit-code`, `signal`, ...; empty where that says nothing.
    pub result: String,
}

/// What can be seen of units, and what only an end of everything needs.
pub trait Units: Services {
    fn state(&self, unit: Unit) -> Result<State, CmdError>;
    /// Kills all that is left of a unit that was stopped.
    fn kill(&self, unit: Unit) -> Result<(), CmdError>;
    /// The last line that a unit's processes have written; empty if that is not known.
    fn last_words(&self, unit: Unit) -> String;
    /// Forgets that units failed.
    fn forget_failures(&self) -> Result<(), CmdError>;
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

impl Units for Systemd {
    fn state(&self, unit: Unit) -> Result<State, CmdError> {
        let out =
            cmd::run("systemctl", ["show", "--property=ActiveState,UnitFileState,Result", unit.name()])?;
        Ok(parse(&String::from_utf8_lossy(&out)))
    }
    fn kill(&self, unit: Unit) -> Result<(), CmdError> {
        systemctl(&["kill", "--signal=SIGKILL", unit.name()])
    }
    fn last_words(&self, unit: Unit) -> String {
        // Not of the unit, about which systemd has more to say than its processes.
        let of = format!("_SYSTEMD_UNIT={}", unit.name());
        let said = cmd::run("journalctl", ["--quiet", "--no-pager", "--output=cat", "--lines=1", &of]);
        said.map(|line| String::from_utf8_lossy(&line).trim().to_owned()).unwrap_or_default()
    }
    fn forget_failures(&self) -> Result<(), CmdError> {
        match systemctl(&["reset-failed", "bangerd*", "banger-recover*"]) {
            // There are none.
            Ok(()) | Err(CmdError::Failed { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// Who has the units of a layout.
#[derive(Debug, Clone, Copy)]
pub enum Manager {
    /// The host's.
    Host(Systemd),
    /// Nobody: the units below a directory for tests are only files, and those of the same names are another installation's.
    Nobody,
}

impl Manager {
    pub fn of(layout: &Layout) -> Self {
        if *layout == Layout::host() { Self::Host(Systemd) } else { Self::Nobody }
    }

    fn order(&self, order: impl FnOnce(&Systemd) -> Result<(), CmdError>) -> Result<(), CmdError> {
        match self {
            Self::Host(systemd) => order(systemd),
            Self::Nobody => Ok(()),
        }
    }
}

impl Services for Manager {
    fn reload(&self) -> Result<(), CmdError> {
        self.order(Systemd::reload)
    }
    fn start(&self, unit: Unit) -> Result<(), CmdError> {
        self.order(|systemd| systemd.start(unit))
    }
    fn stop(&self, unit: Unit) -> Result<(), CmdError> {
        self.order(|systemd| systemd.stop(unit))
    }
    fn restart(&self, unit: Unit) -> Result<(), CmdError> {
        self.order(|systemd| systemd.restart(unit))
    }
    fn enable(&self, unit: Unit) -> Result<(), CmdError> {
        self.order(|systemd| systemd.enable(unit))
    }
    fn disable(&self, unit: Unit) -> Result<(), CmdError> {
        self.order(|systemd| systemd.disable(unit))
    }
}

impl Units for Manager {
    fn state(&self, unit: Unit) -> Result<State, CmdError> {
        match self {
            Self::Host(systemd) => systemd.state(unit),
            Self::Nobody => Ok(parse("ActiveState=unknown")),
        }
    }
    fn kill(&self, unit: Unit) -> Result<(), CmdError> {
        self.order(|systemd| systemd.kill(unit))
    }
    fn last_words(&self, unit: Unit) -> String {
        match self {
            Self::Host(systemd) => systemd.last_words(unit),
            Self::Nobody => String::new(),
        }
    }
    fn forget_failures(&self) -> Result<(), CmdError> {
        self.order(Systemd::forget_failures)
    }
}

fn parse(shown: &str) -> State {
    let value = |name: &str| {
        let line = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().to_owned()
    };
    let result = Some(value("Result")).filter(|result| result != "success").unwrap_or_default();
    State { active: value("ActiveState"), at_boot: value("UnitFileState"), result }
}

fn systemctl(args: &[&str]) -> Result<(), CmdError> {
    cmd::run("systemctl", args).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_what_systemd_shows() {
        let state = parse("Result=exit-code\nActiveState=failed\nUnitFileState=enabled\n");
        assert_eq!(
            (state.active.as_str(), state.at_boot.as_str(), state.result.as_str()),
            ("failed", "enabled", "exit-code")
        );
        let state = parse("Result=success\nActiveState=inactive\nUnitFileState=\n");
        assert_eq!(
            (state.active.as_str(), state.at_boot.as_str(), state.result.as_str()),
            ("inactive", "", "")
        );
    }
}
