//! `kill -9` at every step of an update, and before every file operation: `banger` runs, and the next command finishes or undoes the
//! update and says so. Failpoints are in debug builds alone, as this one is.

use std::fmt::Write;
use std::os::unix::process::CommandExt;

use banger::release::journal::{Phase, Recovery, Step};

use crate::publisher::{BANGER, Executable};
use crate::rig::Rig;

/// A release that migrates the database, so that every step has something to do.
fn two() -> Executable {
    Executable {
        migrations: 1,
        start: "echo migrated >$r/state/banger.redb; echo 0.2.0 >$r/run/daemon".to_owned(),
        ..Executable::new("v0.2.0")
    }
}

/// Updates, and dies at `failpoint`; false: it did not come by there.
fn dies(rig: &Rig, failpoint: &str) -> bool {
    use std::os::unix::process::ExitStatusExt;
    let output = rig.update_command("").env("BANGER_FAILPOINT", failpoint).output().expect("runs");
    output.status.signal() == Some(9)
}

/// What the next command of root says, after which the installation is whole. `Some(new)`: there was something to mend.
fn mended(rig: &Rig, context: &str) -> Option<bool> {
    // Whatever was cut off, the installed executable is one of the two, whole.
    let installed = rig.read("bin/banger");
    assert!(
        [Executable::new("v0.1.0").script(), two().script()].contains(&installed),
        "{context}: half an executable"
    );
    let ran = rig.banger("version");
    assert_eq!(ran.code, Some(0), "{context}: {ran:?}");
    assert!(ran.out.starts_with("version:"), "{context}: {ran:?}");
    let outcome = match () {
        () if ran.err.contains("has been undone: this is v0.1.0, as before") => Some(false),
        () if ran.err.contains("has been finished: this is v0.2.0 now") => Some(true),
        () => {
            assert_eq!(ran.err, "", "{context}");
            None
        }
    };
    assert_eq!(ran.err.lines().count(), usize::from(outcome.is_some()), "{context}: {ran:?}");
    assert_eq!(rig.banger("version").err, "", "{context}: it is said once");
    outcome
}

/// All of the old, or all of the new. Returns whether it is the new.
fn assert_whole(rig: &Rig, context: &str) -> bool {
    let new = rig.version() == "v0.2.0";
    if new {
        rig.assert_is(&two(), "v0.1.0", context);
        assert_eq!(rig.read("state/banger.redb"), "migrated\n", "{context}");
    } else {
        // Before the first step there is only the staging, which the next update cleans.
        if rig.path("cache/updates").exists() {
            std::fs::remove_dir_all(rig.path("cache/updates")).expect("removes");
        }
        rig.assert_untouched(context);
    }
    new
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn at_every_step_it_is_finished_or_undone() {
    let mut table = String::new();
    for step in Step::ALL {
        for when in ["before", "after"] {
            let context = format!("{when} {step}");
            let rig = Rig::with(&[two()]);
            assert!(dies(&rig, &format!("update: {context}")), "{context}: it did not die there");
            let outcome = mended(&rig, &context);
            // After a step the journal may say the next phase already.
            let at = Step::ALL.iter().position(|s| *s == step).expect("is one");
            let phase = |step: Step| step.phase(true).map(|phase: Phase| phase.recovery(true));
            let want = match when {
                "before" => phase(step),
                _ => Step::ALL.get(at + 1).and_then(|next| phase(*next)),
            };
            let want = want.map(|recovery| recovery == Recovery::Finish);
            let want = if (when, step) == ("after", Step::End) { None } else { want };
            if step == Step::Halt && when == "before" {
                // The journal of this step is written by it.
                assert_eq!(outcome, Some(false), "{context}");
            } else {
                assert_eq!(outcome, want, "{context}");
            }
            let new = assert_whole(&rig, &context);
            let said = match outcome {
                Some(true) => "finished by the next command",
                Some(false) => "undone by the next command",
                None => "nothing to mend",
            };
            writeln!(table, "{context:32} -> {} ({said})", if new { "v0.2.0" } else { "v0.1.0" })
                .expect("writes");
            // From there the next update comes in.
            rig.updated("");
            assert_eq!(rig.version(), "v0.2.0", "{context}");
        }
    }
    println!("{table}");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn before_every_file_operation_it_is_finished_or_undone() {
    let mut table = String::new();
    let mut operations = 0;
    loop {
        let context = format!("file operation {}", operations + 1);
        let rig = Rig::with(&[two()]);
        if !dies(&rig, &format!("update: {context}")) {
            break;
        }
        operations += 1;
        mended(&rig, &context);
        let new = assert_whole(&rig, &context);
        writeln!(table, "{context:20} -> {}", if new { "v0.2.0" } else { "v0.1.0" }).expect("writes");
    }
    println!("{table}");
    assert!(operations > 40, "only {operations} file operations");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn going_back_can_be_cut_off_as_well() {
    let bad = Executable {
        doctor: "echo '[{\"subject\": \"x\", \"verdict\": \"fail\"}]'; exit 1".to_owned(),
        ..two()
    };
    let mut table = String::new();
    for step in ["executable", "files", "database", "undone", "restarted"] {
        let rig = Rig::with(std::slice::from_ref(&bad));
        assert!(dies(&rig, &format!("roll back: {step}")), "{step}: it did not die there");
        let ran = rig.banger("version");
        assert!(ran.err.contains("has been undone: this is v0.1.0"), "{step}: {ran:?}");
        rig.assert_untouched(step);
        writeln!(table, "roll back: {step:12} -> v0.1.0").expect("writes");
    }
    println!("{table}");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn at_boot_nothing_is_restarted_and_all_is_put_back() {
    let rig = Rig::with(&[two()]);
    assert!(dies(&rig, "update: after restart bangerd"));
    // The power went: no daemon runs.
    std::fs::remove_file(rig.path("run/daemon")).expect("removes");
    let ran = rig.banger("internal finish-update");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("has been undone"), "{ran:?}");
    assert!(!rig.path("run/daemon").exists(), "nothing was started");
    std::fs::write(rig.path("run/daemon"), "0.1.0\n").expect("writes");
    rig.assert_untouched("at boot");
    assert_eq!(rig.banger("internal finish-update").err, "", "there is nothing more to do");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_user_is_told_what_mends_it_and_gets_what_was_asked_for() {
    let rig = Rig::with(&[two()]);
    assert!(dies(&rig, "update: after swap"));
    let copy = rig.path("banger");
    std::fs::copy(BANGER, &copy).expect("copies");
    let as_user = || {
        let mut command = std::process::Command::new(&copy);
        command.arg("version").env("BANGER_ROOT", rig.path("")).env("HOME", "/").uid(65534).gid(65534);
        crate::rig::Ran::from(command.output().expect("runs"))
    };
    let ran = as_user();
    assert_eq!(ran.err, "banger: an update was cut off; `sudo banger update` mends it\n");
    assert!(ran.code == Some(0) && ran.out.starts_with("version:"), "{ran:?}");
    assert_eq!(mended(&rig, "root's"), Some(false));
    assert_eq!(as_user().err, "");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn the_next_update_mends_and_then_updates() {
    let rig = Rig::with(&[two()]);
    assert!(dies(&rig, "update: after swap"));
    let ran = rig.updated("");
    assert!(ran.err.contains("has been undone: this is v0.1.0"), "{ran:?}");
    assert_whole(&rig, "the next update");
    assert_eq!(rig.version(), "v0.2.0");
}
