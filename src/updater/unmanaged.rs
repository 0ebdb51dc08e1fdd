//! Services where no service manager has them: an installation below `BANGER_ROOT`, whose daemon is started by whoever needs it.

use std::path::PathBuf;
use std::time::Duration;

use crate::host::cmd::{CmdError, PATH, Run};
use crate::system::services::{Services, State, Unit, Units};

/// Restarting is stopping, and asking something that starts it.
#[derive(Debug)]
pub struct Unmanaged {
    /// The installation's executable.
    pub binary: PathBuf,
}

const PATIENCE: Duration = Duration::from_secs(60);

impl Unmanaged {
    fn banger(&self, args: &[&str]) -> Result<(), CmdError> {
        let root = std::env::var("BANGER_ROOT").unwrap_or_default();
        let env = [("PATH", PATH), ("LC_ALL", "C"), ("HOME", "/"), ("BANGER_ROOT", root.as_str())];
        let run = Run { program: &self.binary, called: None, user: None, env: &env, limit: PATIENCE };
        let output = run.fed(args, b"")?;
        match output.status.success() {
            true => Ok(()),
            false => Err(CmdError::Failed {
                program: format!("banger {}", args.join(" ")),
                status: output.status,
                stderr: crate::updater::program::last_words(&output),
            }),
        }
    }
}

impl Services for Unmanaged {
    fn reload(&self) -> Result<(), CmdError> {
        Ok(())
    }
    fn start(&self, unit: Unit) -> Result<(), CmdError> {
        match unit {
            Unit::Daemon => self.banger(&["ps"]),
            _ => Ok(()),
        }
    }
    fn stop(&self, unit: Unit) -> Result<(), CmdError> {
        match unit {
            Unit::Daemon => self.banger(&["daemon", "stop"]),
            _ => Ok(()),
        }
    }
    fn restart(&self, unit: Unit) -> Result<(), CmdError> {
        self.stop(unit)?;
        self.start(unit)
    }
    fn enable(&self, _: Unit) -> Result<(), CmdError> {
        Ok(())
    }
    fn disable(&self, _: Unit) -> Result<(), CmdError> {
        Ok(())
    }
}

impl Units for Unmanaged {
    /// Nobody has an eye on it, so it has not failed.
    fn state(&self, _: Unit) -> Result<State, CmdError> {
        Ok(State { active: "active".to_owned(), at_boot: String::new(), result: String::new() })
    }
    fn kill(&self, _: Unit) -> Result<(), CmdError> {
        Ok(())
    }
    fn last_words(&self, _: Unit) -> String {
        String::new()
    }
    fn forget_failures(&self) -> Result<(), CmdError> {
        Ok(())
    }
}
