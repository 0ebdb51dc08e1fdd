//! A staged executable takes the installed one's place, step by step; what fails is taken back.

use crate::host::failpoint;
use crate::host::process;
use crate::release::journal::{Journal, Phase, Recovery, SCHEMA, Step, Updater as Writer};
use crate::release::version::Version;
use crate::system::files;
use crate::system::services::Unit;
use crate::updater::candidate::{self, Kind, Migration};
use crate::updater::doctor::{self, Row};
use crate::updater::error::{At, UpdateError};
use crate::updater::held::{self, Held};
use crate::updater::program::{As, Program, last_words};
use crate::updater::stage::Staged;
use crate::updater::{Updater, saved, swap};

/// What doctor's word means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// What fails now and did not before takes the update back.
    Decides,
    /// It is told: whoever goes back on purpose may know why.
    Tells,
}

/// An installation on its way from one executable to another.
struct Transaction<'a> {
    updater: &'a Updater<'a>,
    journal: Journal,
    staged: Staged,
    gate: Gate,
    /// What doctor said before; None: nobody could be asked.
    before: Option<Vec<Row>>,
    /// The helper's socket has another unit now.
    socket_changed: bool,
}

impl Updater<'_> {
    /// Installs `staged` over `from`. When it returns an error, all is as it was, or the error says what is not.
    pub fn install(
        &self,
        _held: &Held,
        from: &Version,
        staged: Staged,
        gate: Gate,
    ) -> Result<(), UpdateError> {
        self.progress.stage("asking doctor how things are");
        let before = self.doctor();
        let journal = self.begin(from, &staged)?;
        let mut transaction =
            Transaction { updater: self, journal, staged, gate, before, socket_changed: false };
        for step in Step::ALL {
            failpoint::reach(&format!("update: before {step}"));
            if let Err(error) = transaction.take(step) {
                return Err(transaction.take_back(error));
            }
            failpoint::reach(&format!("update: after {step}"));
        }
        Ok(())
    }

    /// What is to be done, before anything of it is.
    fn begin(&self, from: &Version, staged: &Staged) -> Result<Journal, UpdateError> {
        let layout = self.layout;
        let digest = |path: &std::path::Path| {
            let read = swap::digest(path).map_err(At::Swap.io(format!("read {}", path.display())))?;
            read.ok_or_else(|| At::Swap.said(format!("{} is not there", path.display())))
        };
        let paths =
            files::all(layout).into_iter().chain(staged.changes.iter().map(|change| change.path.clone()));
        let me = process::myself().map_err(At::Swap.io("read /proc"))?;
        Ok(Journal {
            schema: SCHEMA,
            phase: Phase::Saving,
            from: from.clone(),
            to: staged.version.clone(),
            old: digest(&layout.binary())?,
            new: digest(&super::staging::executable(&layout.staging))?,
            older: layout.previous().exists(),
            database: staged.migration == Migration::Will,
            files: saved::look(paths).map_err(At::Swap.io("look at the installed files"))?,
            updater: Writer { pid: me.pid, started: me.started },
        })
    }

    /// What the installed executable's doctor says; None: nothing that is understood.
    fn doctor(&self) -> Option<Vec<Row>> {
        let output = self.installed().run(As::Us, "banger", &["doctor", "--json"]).ok()?;
        doctor::rows(&output)
    }

    pub(super) fn installed(&self) -> Program<'_> {
        Program::at(&self.layout.binary(), self.install, self.patience.program)
    }
}

impl Transaction<'_> {
    fn take(&mut self, step: Step) -> Result<(), UpdateError> {
        let Self { updater, journal, staged, .. } = self;
        let (layout, services, database) = (updater.layout, updater.services, journal.database);
        let swap = |what: &str| At::Swap.io(what.to_owned());
        match step {
            Step::Begin => held::write(layout, journal).map_err(swap("write the journal")),
            Step::Save => {
                saved::save(&journal.files, &held::saved(layout)).map_err(swap("copy the installed files"))
            }
            Step::Halt if database => {
                held::enter(layout, journal, Phase::Halting).map_err(swap("write the journal"))?;
                updater.progress.stage("stopping bangerd, to copy its database");
                services.stop(Unit::Daemon).map_err(At::Swap.program())
            }
            Step::SaveDatabase if database => updater.save_database(),
            Step::Halt | Step::SaveDatabase => Ok(()),
            Step::Copy => {
                updater.progress.stage(&format!("installing banger {}", journal.to));
                swap::copy(layout, &mut staged.file, &journal.new).map_err(swap("copy the new executable"))
            }
            Step::Commit => held::enter(layout, journal, Phase::Swapping).map_err(swap("write the journal")),
            Step::LinkOlder if journal.older => {
                swap::link_older(layout).map_err(swap("keep the executable of before"))
            }
            Step::LinkOlder => Ok(()),
            Step::LinkPrevious => swap::link_previous(layout).map_err(swap("keep the old executable")),
            Step::Rename => {
                swap::rename(layout).map_err(swap("put the new executable in the old one's place"))
            }
            Step::Refresh => {
                let changes = candidate::refresh(&updater.installed(), false)?;
                let is_socket = |path: &std::path::Path| path.ends_with(Unit::HelperSocket.name());
                self.socket_changed = changes.iter().any(|c| is_socket(&c.path) && c.change != Kind::Keep);
                Ok(())
            }
            Step::Release => {
                held::enter(layout, journal, Phase::Restarting).map_err(swap("write the journal"))
            }
            Step::RestartHelper => {
                updater.progress.stage("restarting services; VMs run on");
                if self.socket_changed {
                    // A socket is not made anew while its service has it.
                    services.stop(Unit::Helper).map_err(At::Restart.program())?;
                    services.restart(Unit::HelperSocket).map_err(At::Restart.program())?;
                }
                services.restart(Unit::Helper).map_err(At::Restart.program())
            }
            Step::RestartDaemon => services.restart(Unit::Daemon).map_err(At::Restart.program()),
            Step::Answer => updater.wait_for(&journal.to),
            Step::Doctor => self.ask_doctor(),
            Step::Accept => {
                held::enter(layout, journal, Phase::Accepted).map_err(At::Finish.io("write the journal"))
            }
            Step::Record | Step::Clean | Step::End => updater.finish(journal, step),
        }
    }

    fn ask_doctor(&self) -> Result<(), UpdateError> {
        self.updater.progress.stage("asking the new doctor");
        let installed = self.updater.installed();
        let output = installed.run(As::Us, "banger", &["doctor", "--json"]).map_err(At::Doctor.program())?;
        let complaint = match doctor::rows(&output) {
            None => vec![format!("it gave no rows ({}): {}", output.status, last_words(&output))],
            Some(now) => doctor::worse(self.before.as_deref(), &now),
        };
        match (complaint.as_slice(), self.gate) {
            ([], _) => Ok(()),
            (_, Gate::Decides) => Err(At::Doctor.said(complaint.join("; "))),
            (_, Gate::Tells) => {
                complaint.iter().for_each(|row| self.updater.progress.note(&format!("doctor: {row}")));
                Ok(())
            }
        }
    }

    /// Puts back what was done, and returns `error` with what became of that.
    fn take_back(mut self, error: UpdateError) -> UpdateError {
        let recovery = self.journal.recovery();
        if recovery == Recovery::Finish {
            return error
                .then("; the new version is in place and works, and the next `sudo banger` command finishes the update");
        }
        let restarted = !matches!(recovery, Recovery::Undo(undo) if !undo.restart);
        let rolled_back = restarted || matches!(recovery, Recovery::Undo(undo) if undo.files);
        if rolled_back {
            self.updater.progress.stage(&format!("going back to {}", self.journal.from));
        }
        match self.updater.take_back(&mut self.journal, super::recover::When::Now) {
            Ok(()) if !rolled_back => error,
            Ok(()) if !restarted => error.then(" (rolled back to previous install)"),
            Ok(()) => match self.updater.wait_for(&self.journal.from) {
                Ok(()) => error.then(" (rolled back to previous install)"),
                Err(silent) => error.then(format!(
                    " (rolled back to previous install, which does not answer: {silent}; look at `journalctl -u bangerd -u \
                     bangerd-root`, then `sudo systemctl restart bangerd-root bangerd`)"
                )),
            },
            Err(e) => {
                let by_hand = self.updater.by_hand(&self.journal);
                error.then(format!("; and it could not be rolled back: {e}. By hand: {by_hand}"))
            }
        }
    }
}
