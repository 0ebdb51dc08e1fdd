//! Taking an update back, or to its end: after an error, and after whatever cut it off, by the journal alone.

use std::fmt;
use std::fs::File;

use crate::host::causes::chain;
use crate::host::cmd::CmdError;
use crate::host::failpoint;
use crate::host::install::Install;
use crate::release::journal::{Journal, Phase, Recovery, Step};
use crate::release::version::Version;
use crate::system::services::Unit;
use crate::updater::error::{At, UpdateError};
use crate::updater::held::{self, Held};
use crate::updater::{Updater, candidate, disk, saved, staging, swap};

/// When it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Services may run.
    Now,
    /// Services have not been started, and will be when this is done.
    AtBoot,
}

/// What was done about an update that was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    Undone { from: Version, to: Version },
    Finished { from: Version, to: Version },
}

impl Updater<'_> {
    /// Finishes or undoes an update that was cut off; None: there was none.
    pub fn recover(&self, _held: &Held, when: When) -> Result<Option<Recovered>, UpdateError> {
        let Some(mut journal) = held::journal(self.layout)? else { return Ok(None) };
        let (from, to) = (journal.from.clone(), journal.to.clone());
        match journal.recovery() {
            Recovery::Finish => {
                for step in [Step::Record, Step::Clean, Step::End] {
                    self.finish(&journal, step)?;
                }
                Ok(Some(Recovered::Finished { from, to }))
            }
            Recovery::Undo(_) | Recovery::Restart => {
                let restarts = !matches!(journal.recovery(), Recovery::Undo(undo) if !undo.restart);
                self.take_back(&mut journal, when).map_err(|e| {
                    let by_hand = self.by_hand(&journal);
                    e.then(format!(". By hand: {by_hand}"))
                })?;
                // The command that has found it goes on, and is to find a daemon that answers. If none does, that command says so.
                if restarts
                    && when == When::Now
                    && let Err(silent) = self.wait_for(&from)
                {
                    self.progress.note(&silent.to_string());
                }
                Ok(Some(Recovered::Undone { from, to }))
            }
        }
    }

    /// A step of those that follow doctor's word. Each may be taken again.
    pub(super) fn finish(&self, journal: &Journal, step: Step) -> Result<(), UpdateError> {
        let layout = self.layout;
        match step {
            Step::Record => {
                let about = candidate::about(&self.installed())?;
                let install = Install {
                    version: about.version.to_string().trim_start_matches('v').to_owned(),
                    commit: about.commit,
                    built_at: about.built_at,
                    ..self.install.clone()
                };
                let path = layout.dirs.install_file();
                let written = disk::write(&path, install.text().as_bytes(), 0o644);
                written.map_err(At::Finish.io(format!("write {}", path.display())))?;
                for version in [&journal.from, &journal.to] {
                    held::remember(layout, version).map_err(At::Finish.io("remember the newest version"))?;
                }
                Ok(())
            }
            Step::Clean => {
                swap::forget_older(layout).map_err(At::Finish.io("remove the executable of before"))?;
                self.clear(At::Finish)
            }
            _ => held::forget(layout).map_err(At::Finish.io("remove the journal")),
        }
    }

    /// Puts the old things back, as far as `journal` says that they may have changed. Each part may be done again.
    pub(super) fn take_back(&self, journal: &mut Journal, when: When) -> Result<(), UpdateError> {
        let layout = self.layout;
        if let Recovery::Undo(undo) = journal.recovery() {
            if undo.files {
                swap::back(layout, journal).map_err(At::RollBack.io("put the old executable back"))?;
                failpoint::reach("roll back: executable");
                saved::restore(&journal.files, &held::saved(layout))
                    .map_err(At::RollBack.io("put the old files back"))?;
                failpoint::reach("roll back: files");
            } else {
                let staged = swap::staged(layout);
                disk::remove(&staged).map_err(At::RollBack.io(format!("remove {}", staged.display())))?;
            }
            if undo.database {
                if when == When::Now {
                    self.services.stop(Unit::Daemon).map_err(At::RollBack.program())?;
                }
                self.restore_database()?;
                failpoint::reach("roll back: database");
            }
            if undo.files {
                self.reload(when)?;
            }
            if undo.restart {
                // The old daemon may write to the database from here on, which must not be put back again.
                held::enter(layout, journal, Phase::Undone).map_err(At::RollBack.io("write the journal"))?;
                failpoint::reach("roll back: undone");
            }
        }
        if journal.phase == Phase::Undone && when == When::Now {
            // systemd counts how often a new version has failed to start, and would not start the old one either.
            if let Err(e) = self.services.forget_failures() {
                self.progress.note(&chain(&e));
            }
            // The new version may have had another unit for the socket.
            self.restart_helper(true).map_err(At::RollBack.program())?;
            self.services.restart(Unit::Daemon).map_err(At::RollBack.program())?;
            failpoint::reach("roll back: restarted");
        }
        // Without the copies nothing could be put back once more, so the journal goes first. The next update clears what is left.
        held::forget(layout).map_err(At::RollBack.io("remove the journal"))?;
        self.clear(At::RollBack)
    }

    /// With its socket, requests that come meanwhile are refused; without, they wait.
    pub(super) fn restart_helper(&self, with_socket: bool) -> Result<(), CmdError> {
        if !with_socket {
            return self.services.restart(Unit::Helper);
        }
        // A socket is not made anew while its service has it.
        self.services.stop(Unit::Helper)?;
        self.services.restart(Unit::HelperSocket)?;
        self.services.start(Unit::Helper)
    }

    /// Has units read again. At boot the daemons are to be started whether that can be done or not.
    fn reload(&self, when: When) -> Result<(), UpdateError> {
        match (self.services.reload().map_err(At::RollBack.program()), when) {
            (Err(e), When::AtBoot) => {
                self.progress.note(&e.to_string());
                Ok(())
            }
            (outcome, _) => outcome,
        }
    }

    /// Removes what only an update needs.
    fn clear(&self, at: At) -> Result<(), UpdateError> {
        for path in [&held::saved(self.layout), &self.layout.staging] {
            disk::remove_tree(path).map_err(at.io(format!("remove {}", path.display())))?;
        }
        Ok(())
    }

    /// What a person can do where all of this has failed.
    pub(super) fn by_hand(&self, journal: &Journal) -> String {
        let (binary, previous) = (self.layout.binary(), self.layout.previous());
        let mut commands = vec![];
        if swap::digest(&binary).ok().flatten().as_deref() != Some(&journal.old) {
            commands.push(format!("mv -f {} {}", previous.display(), binary.display()));
        }
        commands.push(format!("{} system install --owner {}", binary.display(), self.install.owner));
        if journal.phase == Phase::Restarting && journal.database {
            let copy = self.database_copy();
            let links = self.layout.links();
            commands.push(format!(
                "systemctl stop bangerd && sudo -u {} {} --system --restore-database {}",
                self.install.owner,
                links[0].display(),
                copy.display()
            ));
        }
        commands.push("systemctl restart bangerd-root bangerd".to_owned());
        commands.push(format!("rm -f {}", self.layout.journal().display()));
        format!("as root: {}", commands.join(" && "))
    }

    /// Stages the executable that was installed before this one.
    pub fn stage_previous(&self) -> Result<super::stage::Staged, UpdateError> {
        let previous = self.layout.previous();
        let none = || {
            At::Prepare.said(format!(
                "there is nothing to go back to: {} is not there; `banger update --to vX.Y.Z --allow-downgrade` fetches an older \
                 version",
                previous.display()
            ))
        };
        let file = match File::open(&previous) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(none()),
            other => other.map_err(At::Prepare.io(format!("open {}", previous.display())))?,
        };
        staging::clean(&self.layout.staging)?;
        let mut out = staging::create_executable(&self.layout.staging).map_err(At::Prepare.io("stage it"))?;
        let copied = std::io::copy(&mut &file, &mut out).and_then(|_| out.sync_all());
        copied.map_err(At::Prepare.io(format!("copy {}", previous.display())))?;
        drop(out);
        let program = super::program::Program::open(&file, self.install, self.patience.program);
        let program = program.map_err(At::Check.io(format!("open {}", previous.display())))?;
        let version = candidate::version(&program)?;
        let copy = self.database_copy();
        self.judge(version).map_err(|e| match copy.exists() {
            true => e.then(format!(
                "; {} is a copy of the database from before an update that migrated it, without what was made since",
                copy.display()
            )),
            false => e,
        })
    }
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undone { from, to } => {
                write!(
                    f,
                    "an update {from} -> {to} was cut off and has been undone: this is {from}, as before"
                )
            }
            Self::Finished { from, to } => {
                write!(f, "an update {from} -> {to} was cut off and has been finished: this is {to} now")
            }
        }
    }
}
