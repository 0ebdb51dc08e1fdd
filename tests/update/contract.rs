//! What an updater of another version asks of this executable, and gets in a form that it understands (FAULTS F13): a change here breaks
//! the updates of those who have an older banger, and is noticed by them alone.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use banger::host::install::Install;
use banger::release::version::Version;
use banger::updater::candidate::{self, Migration};
use banger::updater::doctor;
use banger::updater::program::{As, Program};
use serde_json::Value;

use crate::publisher::BANGER;
use crate::rig::Rig;

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn this_executable_answers_as_an_updater_asks() {
    let rig = Rig::new();
    for name in ["run/daemon", "state/banger.redb"] {
        std::fs::remove_file(rig.path(name)).expect("removes");
    }
    // The readers are the updater's own.
    // SAFETY: nextest runs each test in a process of its own, and no thread of it reads the environment now.
    unsafe { std::env::set_var("BANGER_ROOT", rig.path("")) };
    let install = Install::read(&rig.path("config/install.toml")).expect("reads").expect("is there");
    let program = Program::at(Path::new(BANGER), &install, Duration::from_secs(120));
    let version: Version = banger::build::VERSION.parse().expect("a version");
    candidate::is(&program, &version).expect("its version");
    let about = candidate::about(&program).expect("about it");
    assert_eq!((about.version, about.commit.as_str()), (version.clone(), banger::build::COMMIT));
    assert_eq!(about.built_at, banger::build::BUILT);
    assert_eq!(candidate::migration(&program).expect("a verdict"), Migration::None);
    let changes = candidate::refresh(&program, true).expect("changes");
    assert!(changes.iter().any(|change| change.path == rig.path("units/bangerd.service")), "{changes:?}");

    assert_eq!(rig.banger("ps").code, Some(0), "a daemon is started");
    let ask = |args: &[&str]| -> Output { program.run(As::Us, "banger", args).expect("runs") };
    let status: Value = serde_json::from_slice(&ask(&["daemon", "status", "--json"]).stdout).expect("JSON");
    assert_eq!(status["version"].as_str().and_then(|text| text.parse().ok()), Some(version));
    let rows = doctor::rows(&ask(&["doctor", "--json"])).expect("rows");
    assert!(rows.iter().all(|row| ["pass", "warn", "fail"].contains(&row.verdict.as_str())), "{rows:?}");
    assert!(rows.iter().any(|row| row.subject == "bangerd"), "{rows:?}");
    assert_eq!(rig.banger("daemon stop").code, Some(0));
}
