//! Starting the daemons, and waiting until both answer as the version that they are to be.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::host::cmd::CmdError;
use crate::system::error::SystemError;
use crate::system::services::{Unit, Units};

/// An executable, as it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    pub version: String,
    pub commit: String,
    /// RFC 3339, UTC.
    pub built_at: String,
}

/// The two daemons, as they answer to whoever asks.
pub trait Daemons {
    /// bangerd's version and commit, or a sentence about why there is no answer.
    fn daemon(&self) -> Result<(String, String), String>;
    /// bangerd-root's version.
    fn helper(&self) -> Result<String, String>;
}

/// How long both together may take; hosts that emulate their processor are slow.
pub const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(100);

/// Restarts the helper, and then the daemon, which asks it for things at its start. VMs run on.
pub fn restart(units: &impl Units) -> Result<(), CmdError> {
    // A socket cannot be changed while its service runs.
    units.stop(Unit::Helper)?;
    units.restart(Unit::HelperSocket)?;
    units.start(Unit::Helper)?;
    units.restart(Unit::Daemon)
}

/// Whether both answer as `build`; a sentence about which does not, and why.
pub fn answer(daemons: &impl Daemons, build: &Build) -> Result<(), (Unit, String)> {
    match daemons.helper() {
        Ok(version) if version == build.version => {}
        Ok(version) => return Err((Unit::Helper, format!("bangerd-root answers as v{version}"))),
        Err(why) => return Err((Unit::Helper, format!("bangerd-root does not answer: {why}"))),
    }
    match daemons.daemon() {
        Ok((version, commit)) if (&version, &commit) == (&build.version, &build.commit) => Ok(()),
        Ok((version, commit)) => Err((Unit::Daemon, format!("bangerd answers as v{version} ({commit})"))),
        Err(why) => Err((Unit::Daemon, format!("bangerd does not answer: {why}"))),
    }
}

/// Waits until [`answer`] finds nothing wrong, for as long as `patience`, or until a unit has failed.
pub fn wait(
    units: &impl Units,
    daemons: &impl Daemons,
    build: &Build,
    patience: Duration,
) -> Result<(), SystemError> {
    let deadline = Instant::now() + patience;
    loop {
        let Err((unit, why)) = answer(daemons, build) else { return Ok(()) };
        let state = units.state(unit)?;
        if state.active == "failed" || Instant::now() >= deadline {
            let result = if state.result.is_empty() { String::new() } else { format!(" ({})", state.result) };
            let words = units.last_words(unit);
            let said =
                if words.is_empty() { String::new() } else { format!(", and its last words were: {words}") };
            return Err(SystemError::Refused(format!(
                "{why}; {name} is {}{result}{said}; `journalctl -u {name} -n 20` says more",
                state.active,
                name = unit.name()
            )));
        }
        sleep(PAUSE);
    }
}
