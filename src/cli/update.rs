//! `banger update`: this installation's next version, or its previous one.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use argh::{ArgsInfo, FromArgs};
use rustix::process::geteuid;
use serde::Serialize;

use crate::build;
use crate::cli::client::{Client, ClientError};
use crate::cli::error::Error;
use crate::cli::recovery::Place;
use crate::cli::render;
use crate::cli::shown::Shown;
use crate::host::environment::Environment;
use crate::host::install::Install;
use crate::host::location::Location;
use crate::proto::api::DaemonOperations;
use crate::release::choice::{self, Choice, Here, Wish};
use crate::release::manifest::Release;
use crate::release::version::Version;
use crate::system::layout::Layout;
use crate::updater::candidate::{self, Kind, Migration};
use crate::updater::error::{At, UpdateError};
use crate::updater::fetch::Patience;
use crate::updater::held::{self, Held};
use crate::updater::install::Gate;
use crate::updater::program::Program;
use crate::updater::settings::Settings;
use crate::updater::stage::{self, Staged};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Update this installation, or go back to the version before. VMs run on. What fails is taken back by itself.
#[argh(
    subcommand,
    name = "update",
    help_triggers("-h", "--help", "help"),
    example = "banger update --check                          # needs no root\n\
               sudo banger update\n\
               sudo banger update --to v0.2.0 --allow-downgrade\n\
               sudo banger update --rollback                  # to the version before",
    note = "Fields of --json: state (up to date, available, planned, updated or rolled back), current, target?, notes."
)]
pub struct Update {
    /// only say whether there is an update
    #[argh(switch)]
    check: bool,
    /// fetch and verify the release, say what would be done, and leave it staged
    #[argh(switch)]
    dry_run: bool,
    /// the version to update to, instead of the newest stable one
    #[argh(option, arg_name = "vX.Y.Z")]
    to: Option<Version>,
    /// update although operations go on, which it cuts off
    #[argh(switch)]
    force: bool,
    /// take the version of --to although a newer one has been here
    #[argh(switch)]
    allow_downgrade: bool,
    /// go back to the version that was installed before this one
    #[argh(switch)]
    rollback: bool,
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
    /// where the releases are listed, instead of where the configuration says
    #[argh(option, arg_name = "url", hidden_help)]
    manifest_url: Option<Location>,
    /// a file with the public keys that count, instead of the ones in this executable
    #[argh(option, arg_name = "file", hidden_help)]
    pubkey_file: Option<PathBuf>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct View<'a> {
    state: &'a str,
    current: &'a Version,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a Version>,
    notes: &'a [String],
}

impl Update {
    pub fn run(self) -> Result<(), Error> {
        self.refuse_contradictions()?;
        let layout = Layout::from_env();
        let install = Install::read(&layout.dirs.install_file()).map_err(Error::Install)?;
        let Some(install) = install.or_else(|| self.check.then(nobodys)) else {
            return Err(Error::Refused(
                "banger is not installed on this machine, so there is nothing to update: `sudo ./banger system install` installs \
                 this executable; a copy that is used as it is gets replaced by a newer file"
                    .to_owned(),
            ));
        };
        let current = current(&layout, &install)?;
        if self.rollback {
            return self.go_back(&layout, &install, &current);
        }
        let settings = Settings::read(&layout.dirs.config_file()).map_err(Error::Install)?;
        let manifest = self.manifest_url.as_ref().unwrap_or(&settings.manifest);
        let environment = Environment::of_process();
        let published = stage::manifest(&environment, manifest, Patience::default())?;
        let here = Here {
            current: current.clone(),
            newest_seen: held::newest(&layout),
            now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            refuse_expired: settings.refuse_expired,
        };
        let wish = Wish { to: self.to.clone(), allow_downgrade: self.allow_downgrade };
        let choice = choice::choose(&published, &here, &wish)
            .map_err(|refused| At::Discover.said(refused.to_string()))?;
        match choice {
            Choice::UpToDate(notes) => self.say("up to date", &current, None, &notes, "up to date"),
            Choice::Take(release, notes) if self.check => {
                let line = format!("update available: {current} -> {}", release.version);
                self.say("available", &current, Some(&release.version), &notes, &line)
            }
            Choice::Take(release, notes) => {
                let found = Found { current, manifest, environment: &environment, release: &release, notes };
                self.take(&layout, &install, found)
            }
        }
    }

    fn refuse_contradictions(&self) -> Result<(), Error> {
        let refuse = |text: &str| Err(Error::Refused(text.to_owned()));
        match () {
            () if self.check && (self.dry_run || self.rollback) => {
                refuse("--check only looks; leave out --dry-run and --rollback")
            }
            () if self.rollback && (self.to.is_some() || self.allow_downgrade) => refuse(
                "--rollback goes to the version before; to another one goes `--to vX.Y.Z --allow-downgrade`",
            ),
            () if self.allow_downgrade && self.to.is_none() => {
                refuse("--allow-downgrade needs --to: say which older version is meant")
            }
            () => Ok(()),
        }
    }

    fn take(&self, layout: &Layout, install: &Install, found: Found<'_>) -> Result<(), Error> {
        let held = self.hold(layout)?;
        let keys = stage::keys(self.pubkey_file.as_deref(), build::RELEASE_KEYS)?;
        let shown = Shown::new(self.quiet)?;
        found.notes.iter().for_each(|note| render::say(&format!("note: {note}")));
        let place = Place::new(layout);
        let updater = place.updater(install, &shown, Patience::default());
        let staged = updater.stage(found.environment, found.manifest, found.release, &keys)?;
        let (current, target) = (&found.current, staged.version.clone());
        if self.dry_run {
            shown.progress().clear();
            return self.say(
                "planned",
                current,
                Some(&target),
                &found.notes,
                &plan(layout, current, &staged),
            );
        }
        let installed = updater.install(&held, current, staged, Gate::Decides);
        shown.progress().clear();
        installed?;
        let line = format!("updated: {current} -> {target}; `sudo banger update --rollback` goes back");
        self.say("updated", current, Some(&target), &found.notes, &line)
    }

    fn go_back(&self, layout: &Layout, install: &Install, current: &Version) -> Result<(), Error> {
        let held = self.hold(layout)?;
        let shown = Shown::new(self.quiet)?;
        let place = Place::new(layout);
        let updater = place.updater(install, &shown, Patience::default());
        let staged = updater.stage_previous()?;
        let target = staged.version.clone();
        if self.dry_run {
            shown.progress().clear();
            return self.say("planned", current, Some(&target), &[], &plan(layout, current, &staged));
        }
        let installed = updater.install(&held, current, staged, Gate::Tells);
        shown.progress().clear();
        installed?;
        let line = format!(
            "rolled back: {current} -> {target}; `sudo banger update --rollback` returns to {current}"
        );
        self.say("rolled back", current, Some(&target), &[], &line)
    }

    /// Whatever changes something from here on is root's to do, one at a time, and while nothing goes on.
    fn hold(&self, layout: &Layout) -> Result<Held, Error> {
        if !geteuid().is_root() {
            return Err(Error::Refused("an update is root's to do; use `sudo banger update`".to_owned()));
        }
        let held = held::hold(layout)?.ok_or_else(|| {
            At::Prepare.said("another `banger update`, or `banger system install`, is under way")
        })?;
        // One that was cut off was mended before the command began, unless that could not be done.
        if held::journal(layout)?.is_some() {
            return Err(At::Prepare.said("an update was cut off and could not be mended; see above").into());
        }
        if !self.force {
            refuse_while_busy(&unfinished()?)?;
        }
        Ok(held)
    }

    fn say(
        &self,
        state: &str,
        current: &Version,
        target: Option<&Version>,
        notes: &[String],
        line: &str,
    ) -> Result<(), Error> {
        if self.json {
            return render::json(&View { state, current, target, notes });
        }
        // Those of an update were said before it began.
        if target.is_none() || self.check {
            notes.iter().for_each(|note| render::say(&format!("note: {note}")));
        }
        render::out_line(line)
    }
}

/// A release that is to be taken.
struct Found<'a> {
    current: Version,
    manifest: &'a Location,
    environment: &'a Environment,
    release: &'a Release,
    notes: Vec<String>,
}

/// Whose executable it is where nothing is installed: only to be compared.
fn nobodys() -> Install {
    Install {
        owner: "nobody".to_owned(),
        uid: geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        home: "/".into(),
        version: build::VERSION.to_owned(),
        commit: build::COMMIT.to_owned(),
        built_at: build::BUILT.to_owned(),
    }
}

/// The version that is installed: the executable's own word, where there is one.
fn current(layout: &Layout, install: &Install) -> Result<Version, UpdateError> {
    let binary = layout.binary();
    let ours = std::env::current_exe().is_ok_and(|exe| exe == binary);
    if ours || !binary.exists() {
        let text = if ours { build::VERSION } else { &install.version };
        return text
            .parse()
            .map_err(|e| At::Discover.said(format!("the installed version cannot be told: {e}")));
    }
    candidate::version(&Program::at(&binary, install, Patience::default().program))
}

/// What goes on in the daemon that an update would cut off; where there is no daemon, nothing does.
fn unfinished() -> Result<Vec<String>, Error> {
    let asked = Client::from_env().and_then(|client| client.ask_running(DaemonOperations {}));
    match asked {
        Ok(operations) => Ok(operations
            .into_iter()
            .filter(|operation| !operation.done)
            .map(|operation| format!("{} of {} ({})", operation.kind, operation.subject, operation.id))
            .collect()),
        Err(ClientError::NotRunning | ClientError::Down) => Ok(vec![]),
        Err(e) => {
            let why = render::chain(&e);
            Err(At::Prepare
                .said(format!("bangerd cannot be asked what goes on (--force goes on without): {why}"))
                .into())
        }
    }
}

fn refuse_while_busy(unfinished: &[String]) -> Result<(), UpdateError> {
    match unfinished {
        [] => Ok(()),
        busy => Err(At::Prepare.said(format!(
            "bangerd is busy with {}; wait for it, or cut it off with --force",
            busy.join(", ")
        ))),
    }
}

/// What would be done, in one line.
fn plan(layout: &Layout, current: &Version, staged: &Staged) -> String {
    let changed = staged.changes.iter().filter(|change| change.change != Kind::Keep).count();
    let database = match staged.migration {
        Migration::None => "the database stays as it is",
        Migration::Will => "the database is copied, then migrated",
    };
    format!(
        "would update: {current} -> {}; {changed} files of the installation change; {database}; bangerd and bangerd-root restart; \
         staged in {}",
        staged.version,
        layout.staging.display()
    )
}

impl From<UpdateError> for Error {
    fn from(e: UpdateError) -> Self {
        Self::Update(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_named() {
        refuse_while_busy(&[]).expect("nothing");
        let busy = ["vm.start of dev (op-1)".to_owned(), "image.pull of alpine (op-2)".to_owned()];
        let error = refuse_while_busy(&busy).expect_err("busy").to_string();
        assert_eq!(
            error,
            "prepare: bangerd is busy with vm.start of dev (op-1), image.pull of alpine (op-2); wait for it, or cut it off with \
             --force"
        );
    }
}
