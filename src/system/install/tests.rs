use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::host::cmd::{self, CmdError};
use crate::system::remove::{self, Extent};
use crate::system::services::{Services, State};

/// A service manager that notes what it is told, and fails where a test wants it to.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    said: Vec<String>,
    fails_at: Option<String>,
    enabled: BTreeSet<&'static str>,
    active: BTreeSet<&'static str>,
    failed: BTreeSet<&'static str>,
}

impl Fake {
    fn failing_at(step: &str) -> Self {
        let fake = Self::default();
        fake.told().fails_at = Some(step.to_owned());
        fake
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.0.lock().expect("not poisoned")
    }

    fn tell(&self, verb: &str, unit: &str) -> Result<(), CmdError> {
        let step = format!("{verb} {unit}").trim_end().to_owned();
        let mut told = self.told();
        let fails = told.fails_at.as_deref() == Some(&step);
        told.said.push(step);
        // Any program that fails has an error of the right type.
        if fails { cmd::run("false", [""; 0]).map(drop) } else { Ok(()) }
    }
}

impl Services for Fake {
    fn reload(&self) -> Result<(), CmdError> {
        self.tell("reload", "")
    }
    fn start(&self, unit: Unit) -> Result<(), CmdError> {
        self.tell("start", unit.name())?;
        self.told().active.insert(unit.name());
        Ok(())
    }
    fn stop(&self, unit: Unit) -> Result<(), CmdError> {
        self.tell("stop", unit.name())?;
        self.told().active.remove(unit.name());
        Ok(())
    }
    fn restart(&self, unit: Unit) -> Result<(), CmdError> {
        self.tell("restart", unit.name())?;
        self.told().active.insert(unit.name());
        Ok(())
    }
    fn enable(&self, unit: Unit) -> Result<(), CmdError> {
        self.tell("enable", unit.name())?;
        self.told().enabled.insert(unit.name());
        Ok(())
    }
    fn disable(&self, unit: Unit) -> Result<(), CmdError> {
        self.tell("disable", unit.name())?;
        self.told().enabled.remove(unit.name());
        Ok(())
    }
}

impl Units for Fake {
    fn state(&self, unit: Unit) -> Result<State, CmdError> {
        let told = self.told();
        let word = match () {
            () if told.failed.contains(unit.name()) => "failed",
            () if told.active.contains(unit.name()) => "active",
            () => "inactive",
        };
        Ok(State { active: word.to_owned(), at_boot: String::new(), result: "exit-code".to_owned() })
    }
    fn kill(&self, unit: Unit) -> Result<(), CmdError> {
        self.tell("kill", unit.name())
    }
    fn last_words(&self, _unit: Unit) -> String {
        "help".to_owned()
    }
    fn forget_failures(&self) -> Result<(), CmdError> {
        self.tell("forget", "failures")
    }
}

/// Daemons that answer as this build, if their units are active.
struct Answering {
    units: Fake,
    build: Build,
}

impl Answering {
    fn when_active<T>(&self, unit: Unit, answer: T) -> Result<T, String> {
        if self.units.told().active.contains(unit.name()) {
            Ok(answer)
        } else {
            Err("nobody listens".to_owned())
        }
    }
}

impl Daemons for Answering {
    fn daemon(&self) -> Result<(String, String), String> {
        self.when_active(Unit::Daemon, (self.build.version.clone(), self.build.commit.clone()))
    }
    fn helper(&self) -> Result<String, String> {
        self.when_active(Unit::Helper, self.build.version.clone())
    }
}

struct Host {
    _directory: tempfile::TempDir,
    layout: Layout,
    wish: Wish,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::below(directory.path());
        std::fs::create_dir_all(&layout.units).expect("makes");
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let wish = Wish {
            account: Account { name: "me".to_owned(), uid, gid, home: "/home/me".into() },
            build: Build { version: "0.1.0".to_owned(), commit: "c".to_owned(), built_at: String::new() },
            shared: Shared {
                bash: "b",
                zsh: "z",
                fish: "f",
                pages: || vec![("banger".to_owned(), ".TH BANGER 1".to_owned())],
            },
            root: (uid, gid),
        };
        Self { _directory: directory, layout, wish }
    }

    fn install(&self, units: &Fake) -> Result<Done, SystemError> {
        let prepared = prepare(&self.layout, &self.wish).expect("looks");
        let daemons = Answering { units: units.clone(), build: self.wish.build.clone() };
        install(&self.layout, &self.wish, &prepared, units, &daemons, Duration::from_millis(300))
    }

    fn remove(&self, units: &Fake, purge: bool) -> Result<bool, SystemError> {
        let cleared = RefCell::new(false);
        let clear = || {
            *cleared.borrow_mut() = true;
            Ok(())
        };
        remove::remove(&self.layout, Extent { purge, end_vms: false }, units, clear)?;
        Ok(cleared.take())
    }

    /// Every path, with its mode.
    fn tree(&self) -> BTreeSet<String> {
        fn walk(path: &Path, into: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(path).expect("lists") {
                let path = entry.expect("an entry").path();
                let meta = std::fs::symlink_metadata(&path).expect("stats");
                into.insert(format!("{} {:o}", path.display(), meta.permissions().mode()));
                if meta.is_dir() {
                    walk(&path, into);
                }
            }
        }
        let mut tree = BTreeSet::new();
        walk(self._directory.path(), &mut tree);
        tree
    }
}

#[test]
fn what_was_installed_and_removed_leaves_the_files_as_they_were() {
    let host = Host::new();
    let before = host.tree();
    let units = Fake::default();
    assert_eq!(host.install(&units).expect("installs"), Done { files: 13, restarted: true });
    assert_eq!(units.told().enabled.len(), 4);
    assert!(units.told().active.contains("bangerd.service"));
    assert!(host.remove(&units, true).expect("removes"), "the helper's work must be cleared");
    assert_eq!(host.tree(), before);
    assert!(units.told().enabled.is_empty() && units.told().active.is_empty(), "{:?}", units.told().said);
}

#[test]
fn the_owners_data_stays_unless_it_is_purged() {
    let host = Host::new();
    let units = Fake::default();
    host.install(&units).expect("installs");
    let config = host.layout.dirs.config_file();
    std::fs::write(host.layout.dirs.database(), "x").expect("writes");
    std::fs::write(host.layout.dirs.cache.join("oci/blob"), "x").expect("writes");
    std::fs::write(&config, "").expect("writes");
    std::fs::write(host.layout.staging.join("staged"), "x").expect("writes");
    std::fs::write(host.layout.previous(), "x").expect("writes");
    host.remove(&units, false).expect("removes");
    for kept in [&host.layout.dirs.database(), &host.layout.dirs.cache.join("oci/blob"), &config] {
        assert!(kept.exists(), "{}", kept.display());
    }
    for gone in [&host.layout.staging, &host.layout.keep, &host.layout.previous(), &host.layout.binary()] {
        assert!(!gone.exists(), "{}", gone.display());
    }
    assert!(!remove::is_there(&host.layout, false) && remove::is_there(&host.layout, true));
    host.remove(&units, true).expect("removes the rest");
    assert!(!remove::is_there(&host.layout, true));
}

#[test]
fn directories_that_were_there_before_stay() {
    let host = Host::new();
    std::fs::create_dir_all(host.layout.share.join("zsh/site-functions")).expect("makes");
    std::fs::create_dir_all(&host.layout.bin).expect("makes");
    let before = host.tree();
    let units = Fake::default();
    host.install(&units).expect("installs");
    // Mending makes nothing, and must not forget what the first time made.
    host.install(&units).expect("mends");
    host.remove(&units, true).expect("removes");
    assert_eq!(host.tree(), before);
}

#[test]
fn a_second_time_changes_nothing_and_restarts_nothing() {
    let host = Host::new();
    let units = Fake::default();
    host.install(&units).expect("installs");
    units.told().said.clear();
    assert_eq!(host.install(&units).expect("mends"), Done { files: 0, restarted: false });
    let said = units.told().said.clone();
    assert!(said.iter().all(|step| step.starts_with("enable ")), "{said:?}");
}

#[test]
fn what_was_damaged_is_mended_and_daemons_that_do_not_run_are_started() {
    let host = Host::new();
    let units = Fake::default();
    host.install(&units).expect("installs");
    let mode = |path: &Path| std::fs::metadata(path).expect("stats").permissions().mode() & 0o7777;
    let set =
        |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("sets");
    set(&host.layout.binary(), 0o777);
    set(&host.layout.dirs.state, 0o755);
    std::fs::remove_file(&host.layout.links()[1]).expect("removes");
    std::fs::write(host.layout.units.join("bangerd.service"), "[Unit]\n").expect("writes");
    assert_eq!(host.install(&units).expect("mends"), Done { files: 3, restarted: true });
    assert_eq!((mode(&host.layout.binary()), mode(&host.layout.dirs.state)), (0o755, 0o700));
    assert!(host.layout.links()[1].is_symlink());
    units.told().active.remove("bangerd.service");
    assert_eq!(host.install(&units).expect("starts"), Done { files: 0, restarted: true });
}

#[test]
fn whatever_fails_in_a_first_installation_nothing_is_left_of_it() {
    for step in [
        "reload",
        "enable bangerd-root.socket",
        "enable bangerd.service",
        "enable banger-recover.service",
        "restart bangerd-root.socket",
        "start bangerd-root.service",
        "restart bangerd.service",
    ] {
        let host = Host::new();
        let before = host.tree();
        let units = Fake::failing_at(step);
        host.install(&units).expect_err(step);
        assert_eq!(host.tree(), before, "{step}");
        assert!(
            units.told().enabled.is_empty() && units.told().active.is_empty(),
            "{step}: {:?}",
            units.told().said
        );
    }
}

#[test]
fn a_daemon_that_does_not_answer_is_a_failure_that_says_where_to_look() {
    let host = Host::new();
    let before = host.tree();
    let units = Fake::default();
    let prepared = prepare(&host.layout, &host.wish).expect("looks");
    let other = Build { version: "0.0.9".to_owned(), ..host.wish.build.clone() };
    let daemons = Answering { units: units.clone(), build: other };
    let patience = Duration::from_millis(200);
    let error =
        install(&host.layout, &host.wish, &prepared, &units, &daemons, patience).expect_err("other daemons");
    assert_eq!(
        error.to_string(),
        "bangerd-root answers as v0.0.9; bangerd-root.service is active (exit-code), and its last words were: help; `journalctl -u \
         bangerd-root.service -n 20` says more"
    );
    assert_eq!(host.tree(), before);
}

#[test]
fn a_unit_that_failed_is_not_waited_for() {
    let units = Fake::default();
    units.told().failed.insert("bangerd-root.service");
    let host = Host::new();
    let daemons = Answering { units: units.clone(), build: host.wish.build.clone() };
    let error =
        ready::wait(&units, &daemons, &host.wish.build, Duration::from_secs(3600)).expect_err("failed");
    assert!(error.to_string().contains("bangerd-root.service is failed (exit-code)"), "{error}");
}

#[test]
fn an_installation_that_was_there_stays_when_it_cannot_be_mended() {
    let host = Host::new();
    host.install(&Fake::default()).expect("installs");
    std::fs::remove_file(host.layout.units.join("bangerd.service")).expect("removes");
    host.install(&Fake::failing_at("restart bangerd.service")).expect_err("fails");
    assert!(host.layout.dirs.install_file().exists() && host.layout.units.join("bangerd.service").exists());
}

#[test]
fn a_removal_that_failed_is_taken_up_again_wherever_it_was() {
    for step in [
        "disable bangerd.service",
        "stop bangerd.service",
        "stop bangerd-root.service",
        "disable banger-recover.service",
        "reload",
    ] {
        let host = Host::new();
        let before = host.tree();
        let units = Fake::default();
        host.install(&units).expect("installs");
        units.told().fails_at = Some(step.to_owned());
        host.remove(&units, true).expect_err(step);
        assert!(remove::is_there(&host.layout, false), "{step}");
        units.told().fails_at = None;
        host.remove(&units, true).expect(step);
        assert_eq!(host.tree(), before, "{step}");
    }
}

#[test]
fn files_are_not_removed_before_what_the_helper_made_is() {
    let host = Host::new();
    let units = Fake::default();
    host.install(&units).expect("installs");
    units.told().said.clear();
    let refuse = || Err(SystemError::Refused("the bridge stays".to_owned()));
    remove::remove(&host.layout, Extent { purge: true, end_vms: true }, &units, refuse).expect_err("refuses");
    assert!(host.layout.binary().exists() && host.layout.dirs.install_file().exists());
    let said = units.told().said.clone();
    let at = |step: &str| said.iter().position(|s| s == step).unwrap_or_else(|| panic!("{step} in {said:?}"));
    assert!(at("stop bangerd.service") < at("stop bangerd-root.socket"));
    assert!(at("stop bangerd-root.socket") < at("stop bangerd-root.service"));
    assert!(at("stop bangerd.service") < at("kill bangerd.service"));
}

#[test]
fn nothing_is_changed_while_somebody_else_changes_it() {
    let host = Host::new();
    let units = Fake::default();
    host.install(&units).expect("installs");
    let before = host.tree();
    let held = hold(&host.layout).expect("holds");
    for error in [host.install(&units).expect_err("held"), host.remove(&units, true).expect_err("held")] {
        assert!(error.to_string().contains("is being updated, made or removed just now"), "{error}");
    }
    assert_eq!(host.tree(), before);
    drop(held);
    host.remove(&units, true).expect("removes");
}
