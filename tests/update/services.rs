//! What an update asks of the service manager, in which order: nothing before it must, and enough to go back.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use banger::host::cmd::{CmdError, run_with};
use banger::host::environment::Environment;
use banger::host::install::Install;
use banger::host::location::Location;
use banger::host::progress::Silent;
use banger::release::manifest::Manifest;
use banger::system::layout::Layout;
use banger::system::services::{Services, State, Unit, Units};
use banger::updater::Updater;
use banger::updater::error::UpdateError;
use banger::updater::fetch::Patience;
use banger::updater::held;
use banger::updater::install::Gate;
use banger::updater::stage::keys;

use crate::publisher::Executable;
use crate::rig::{MANIFEST, Rig};

/// A service manager that remembers what it was asked, and whose daemon is started by the installed executable.
struct Manager {
    root: PathBuf,
    asked: Mutex<Vec<String>>,
    /// The state of the daemon's unit.
    active: &'static str,
}

impl Manager {
    fn ask(&self, what: &str, unit: Unit) -> Result<(), CmdError> {
        self.asked.lock().expect("not poisoned").push(format!("{what} {}", unit.name()));
        if unit == Unit::Daemon {
            let root = self.root.display().to_string();
            let binary = format!("{root}bin/banger");
            let words: &[&[&str]] = match what {
                "stop" => &[&["daemon", "stop"]],
                _ => &[&["daemon", "stop"], &["ps"]],
            };
            for words in words {
                run_with(&binary, *words, &[("BANGER_ROOT", &root)])?;
            }
        }
        Ok(())
    }
}

impl Services for Manager {
    fn reload(&self) -> Result<(), CmdError> {
        self.asked.lock().expect("not poisoned").push("reload".to_owned());
        Ok(())
    }
    fn start(&self, unit: Unit) -> Result<(), CmdError> {
        self.ask("start", unit)
    }
    fn stop(&self, unit: Unit) -> Result<(), CmdError> {
        self.ask("stop", unit)
    }
    fn restart(&self, unit: Unit) -> Result<(), CmdError> {
        self.ask("restart", unit)
    }
    fn enable(&self, unit: Unit) -> Result<(), CmdError> {
        self.ask("enable", unit)
    }
    fn disable(&self, unit: Unit) -> Result<(), CmdError> {
        self.ask("disable", unit)
    }
}

impl Units for Manager {
    fn state(&self, _: Unit) -> Result<State, CmdError> {
        Ok(State { active: self.active.to_owned(), at_boot: String::new(), result: String::new() })
    }
    fn kill(&self, unit: Unit) -> Result<(), CmdError> {
        self.ask("kill", unit)
    }
    fn last_words(&self, _: Unit) -> String {
        "no luck".to_owned()
    }
    fn forget_failures(&self) -> Result<(), CmdError> {
        self.asked.lock().expect("not poisoned").push("forget failures".to_owned());
        Ok(())
    }
}

/// Installs `new`, and returns what was asked of the service manager, and how it ended.
fn asked(
    new: &Executable,
    active: &'static str,
    patience: Patience,
) -> (Rig, Vec<String>, Result<(), UpdateError>) {
    let rig = Rig::with(std::slice::from_ref(new));
    // SAFETY: nextest runs each test in a process of its own, and no thread of it reads the environment now.
    unsafe { std::env::set_var("BANGER_ROOT", rig.path("")) };
    let layout = Layout::below(&rig.path(""));
    let install = Install::read(&layout.dirs.install_file()).expect("reads").expect("is there");
    let manager = Manager { root: rig.path(""), asked: Mutex::default(), active };
    let updater = Updater {
        layout: &layout,
        install: &install,
        services: &manager,
        helper: false,
        progress: &Silent,
        patience,
    };
    let manifest: Location = rig.server.at(MANIFEST).parse().expect("a place");
    let releases = Manifest::parse(&rig.server.body(MANIFEST)).expect("a manifest").releases;
    let keys = keys(Some(&rig.path("key.pem")), "").expect("keys");
    let held = held::hold(&layout).expect("locks").expect("nobody else");
    let staged = updater.stage(&Environment::default(), &manifest, &releases[0], &keys).expect("stages");
    let ended = updater.install(&held, &"v0.1.0".parse().expect("a version"), staged, Gate::Decides);
    let asked = manager.asked.lock().expect("not poisoned").clone();
    (rig, asked, ended)
}

const BACK: [&str; 6] = [
    "reload",
    "forget failures",
    "stop bangerd-root.service",
    "restart bangerd-root.socket",
    "start bangerd-root.service",
    "restart bangerd.service",
];

fn failing() -> String {
    "echo '[{\"subject\": \"x\", \"verdict\": \"fail\"}]'; exit 1".to_owned()
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_good_release_restarts_the_helper_and_then_the_daemon() {
    let (rig, asked, ended) = asked(&Executable::new("v0.2.0"), "active", Patience::default());
    ended.expect("comes in");
    assert_eq!(asked, ["restart bangerd-root.service", "restart bangerd.service"]);
    rig.assert_is(&Executable::new("v0.2.0"), "v0.1.0", "with a service manager");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_socket_with_another_unit_is_made_anew_while_its_service_is_stopped() {
    let refresh = "echo \"[{\\\"path\\\": \\\"$r/units/bangerd-root.socket\\\", \\\"change\\\": \\\"replace\\\"}]\"; exit";
    let new = Executable { refresh: refresh.to_owned(), ..Executable::new("v0.2.0") };
    let (_rig, asked, ended) = asked(&new, "active", Patience::default());
    ended.expect("comes in");
    assert_eq!(asked[..3], BACK[2..5]);
    assert_eq!(asked[3..], ["restart bangerd.service"]);
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn what_fails_before_the_restart_restarts_nothing() {
    let new = Executable { refresh: "exit 1".to_owned(), ..Executable::new("v0.2.0") };
    let (rig, asked, ended) = asked(&new, "active", Patience::default());
    let said = ended.expect_err("fails").to_string();
    assert!(said.ends_with("(rolled back to previous install)"), "{said}");
    assert_eq!(asked, ["reload"]);
    rig.assert_untouched("before the restart");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn what_fails_after_the_restart_restarts_all_of_it() {
    let new = Executable { doctor: failing(), ..Executable::new("v0.2.0") };
    let (rig, asked, ended) = asked(&new, "active", Patience::default());
    ended.expect_err("fails");
    assert_eq!(asked[..2], ["restart bangerd-root.service", "restart bangerd.service"]);
    assert_eq!(asked[2..], BACK);
    rig.assert_untouched("after the restart");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn the_daemon_is_stopped_while_its_database_is_copied_and_put_back() {
    let start = "echo migrated >$r/state/banger.redb; echo 0.2.0 >$r/run/daemon".to_owned();
    let new = Executable { migrations: 1, doctor: failing(), start, ..Executable::new("v0.2.0") };
    let (rig, asked, ended) = asked(&new, "active", Patience::default());
    ended.expect_err("fails");
    let forth = ["stop bangerd.service", "restart bangerd-root.service", "restart bangerd.service"];
    assert_eq!(asked[..3], forth);
    assert_eq!(asked[3], "stop bangerd.service");
    assert_eq!(asked[4..], BACK);
    rig.assert_untouched("with its database");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_unit_that_has_failed_is_not_waited_for() {
    // It starts, and answers nothing.
    let new = Executable { start: "rm -f $r/run/daemon".to_owned(), ..Executable::new("v0.2.0") };
    let begun = std::time::Instant::now();
    let (rig, _, ended) =
        asked(&new, "failed", Patience { answer: Duration::from_secs(3600), ..Patience::default() });
    assert!(begun.elapsed() < Duration::from_secs(600));
    let said = ended.expect_err("fails").to_string();
    assert!(
        said.starts_with("restart: bangerd does not answer") && said.contains("its last words were: no luck"),
        "{said}"
    );
    rig.assert_untouched("a unit that has failed");
    // One that neither fails nor answers has only so long.
    drop(rig);
    let (rig, _, ended) =
        asked(&new, "active", Patience { answer: Duration::from_millis(300), ..Patience::default() });
    assert!(ended.expect_err("fails").to_string().contains("within 300ms"));
    rig.assert_untouched("a daemon that does not answer");
}
