//! `kill -9` at every step of an update, and before every file operation: `banger` runs, and the next command finishes or undoes the
//! update and says so. Failpoints are in debug builds alone, as this one is.

use std::fmt::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use banger::release::journal::{Recovery, Step};

use crate::publisher::{BANGER, Executable};
use crate::rig::Rig;

/// What the new release does to the database.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Database {
    Stays,
    Migrates,
}

fn two(database: Database) -> Executable {
    match database {
        Database::Stays => Executable::new("v0.2.0"),
        Database::Migrates => Executable {
            migrations: 1,
            start: "echo migrated >$r/state/banger.redb; echo 0.2.0 >$r/run/daemon".to_owned(),
            ..Executable::new("v0.2.0")
        },
    }
}

/// As [`two`], and doctor finds something.
fn bad(database: Database) -> Executable {
    let doctor = "echo '[{\"subject\": \"x\", \"verdict\": \"fail\"}]'; exit 1".to_owned();
    Executable { doctor, ..two(database) }
}

/// Runs `command`, which is to die at `failpoint`; false: it did not come by there.
fn dies(mut command: Command, failpoint: &str) -> bool {
    command.env("BANGER_FAILPOINT", failpoint).output().expect("runs").status.signal() == Some(9)
}

/// What the next command of root says of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Said {
    Nothing,
    Undone,
    Finished,
}

/// The next command of root, after which all is mended.
fn mended(rig: &Rig, new: &Executable, context: &str) -> Said {
    // Whatever was cut off, the installed executable is one of the two, whole.
    let installed = rig.read("bin/banger");
    assert!(
        [Executable::new("v0.1.0").script(), new.script()].contains(&installed),
        "{context}: half an executable"
    );
    let ran = rig.banger("version");
    assert!(ran.code == Some(0) && ran.out.starts_with("version:"), "{context}: {ran:?}");
    let said = match () {
        () if ran.err.contains("has been undone: this is v0.1.0, as before") => Said::Undone,
        () if ran.err.contains("has been finished: this is v0.2.0 now") => Said::Finished,
        () => {
            assert_eq!(ran.err, "", "{context}");
            Said::Nothing
        }
    };
    assert_eq!(ran.err.lines().count(), usize::from(said != Said::Nothing), "{context}: {ran:?}");
    assert_eq!(rig.banger("version").err, "", "{context}: it is said once");
    if said == Said::Nothing {
        rig.clear_leftovers();
    }
    said
}

/// All of the old, or all of the new. Returns the version.
fn assert_whole(rig: &Rig, new: &Executable, context: &str) -> String {
    let version = rig.version();
    match version.as_str() {
        "v0.2.0" => {
            rig.assert_is(new, "v0.1.0", context);
            let records = if new.migrations == 1 { "migrated\n" } else { "records of v0.1.0" };
            assert_eq!(rig.read("state/banger.redb"), records, "{context}");
        }
        _ => rig.assert_untouched(context),
    }
    version
}

/// What the rule says of an update that was cut off there.
fn rule(step: Step, after: bool, database: Database) -> Said {
    let phase = |step: Step| step.phase(database == Database::Migrates);
    let at = Step::ALL.iter().position(|s| *s == step).expect("is one");
    let phase = match after {
        false => phase(step),
        // A step may take the journal to the phase of the next one.
        true => Step::ALL.get(at + 1).and_then(|next| phase(*next)),
    };
    match phase.map(|phase| phase.recovery(database == Database::Migrates)) {
        None => Said::Nothing,
        Some(Recovery::Finish) => Said::Finished,
        Some(Recovery::Undo(_) | Recovery::Restart) => Said::Undone,
    }
}

fn at_every_step(database: Database) {
    let mut table = String::new();
    for step in Step::ALL {
        for after in [false, true] {
            let context = format!("{} {step}", if after { "after" } else { "before" });
            let new = two(database);
            let rig = Rig::with(std::slice::from_ref(&new));
            assert!(
                dies(rig.update_command(""), &format!("update: {context}")),
                "{context}: it did not die there"
            );
            let said = mended(&rig, &new, &context);
            assert_eq!(said, rule(step, after, database), "{context}");
            let version = assert_whole(&rig, &new, &context);
            writeln!(table, "{context:32} -> {version} ({said:?})").expect("writes");
            // From there the next update comes in.
            rig.updated("");
            assert_eq!(rig.version(), "v0.2.0", "{context}");
        }
    }
    println!("database {database:?}\n{table}");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn at_every_step_it_is_finished_or_undone() {
    at_every_step(Database::Stays);
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn at_every_step_it_is_finished_or_undone_with_its_database() {
    at_every_step(Database::Migrates);
}

/// Dies before each file operation of an update to `new`, and returns the version after each.
fn at_every_file_operation(new: &Executable) -> Vec<String> {
    let mut versions = vec![];
    loop {
        let context = format!("file operation {}", versions.len() + 1);
        let rig = Rig::with(std::slice::from_ref(new));
        if !dies(rig.update_command(""), &format!("update: {context}")) {
            break;
        }
        mended(&rig, new, &context);
        versions.push(assert_whole(&rig, new, &context));
    }
    let table: String =
        versions.iter().zip(1..).map(|(version, n)| format!("operation {n:3} -> {version}\n")).collect();
    println!("doctor: {}, migrations: {}\n{table}", new.doctor, new.migrations);
    versions
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn before_every_file_operation_it_is_finished_or_undone() {
    let versions = at_every_file_operation(&two(Database::Stays));
    // Once it is the new one, it stays so.
    assert!(versions.len() > 40 && versions.is_sorted(), "{versions:?}");
    assert_eq!(versions.last().map(String::as_str), Some("v0.2.0"));
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn before_every_file_operation_it_is_finished_or_undone_with_its_database() {
    let versions = at_every_file_operation(&two(Database::Migrates));
    assert!(versions.len() > 40 && versions.is_sorted(), "{versions:?}");
    assert_eq!(versions.last().map(String::as_str), Some("v0.2.0"));
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn before_every_file_operation_of_going_back_it_is_undone() {
    for database in [Database::Stays, Database::Migrates] {
        let versions = at_every_file_operation(&bad(database));
        assert!(versions.len() > 50 && versions.iter().all(|version| version == "v0.1.0"), "{versions:?}");
    }
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn what_mends_can_be_cut_off_as_well() {
    for cut in ["update: after swap", "update: after doctor", "update: after accept"] {
        let mut operations = 0;
        loop {
            let context = format!("{cut}, then file operation {}", operations + 1);
            let new = two(Database::Migrates);
            let rig = Rig::with(std::slice::from_ref(&new));
            assert!(dies(rig.update_command(""), cut), "{context}");
            if !dies(rig.command("version"), &format!("update: file operation {}", operations + 1)) {
                break;
            }
            operations += 1;
            mended(&rig, &new, &context);
            let version = assert_whole(&rig, &new, &context);
            assert_eq!(version == "v0.2.0", cut.ends_with("accept"), "{context}");
        }
        assert!(operations > 5, "{cut}: only {operations} file operations");
        println!("{cut}: mended although cut off before each of {operations} file operations");
    }
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn going_back_can_be_cut_off_between_its_parts() {
    for step in ["executable", "files", "database", "undone", "restarted"] {
        let new = bad(Database::Migrates);
        let rig = Rig::with(std::slice::from_ref(&new));
        assert!(dies(rig.update_command(""), &format!("roll back: {step}")), "{step}: it did not die there");
        assert_eq!(mended(&rig, &new, step), Said::Undone, "{step}");
        rig.assert_untouched(step);
        println!("roll back: {step:12} -> v0.1.0");
    }
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn at_boot_nothing_is_restarted_and_all_is_put_back() {
    let rig = Rig::with(&[two(Database::Migrates)]);
    assert!(dies(rig.update_command(""), "update: after restart bangerd"));
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
    let rig = Rig::with(&[two(Database::Migrates)]);
    assert!(dies(rig.update_command(""), "update: after swap"));
    let copy = rig.path("banger");
    std::fs::copy(BANGER, &copy).expect("copies");
    let as_user = || {
        let mut command = Command::new(&copy);
        command.arg("version").env("BANGER_ROOT", rig.path("")).env("HOME", "/").uid(65534).gid(65534);
        crate::rig::Ran::from(command.output().expect("runs"))
    };
    let ran = as_user();
    assert_eq!(ran.err, "banger: an update was cut off; `sudo banger update` mends it\n");
    assert!(ran.code == Some(0) && ran.out.starts_with("version:"), "{ran:?}");
    assert_eq!(mended(&rig, &two(Database::Migrates), "root's"), Said::Undone);
    assert_eq!(as_user().err, "");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn the_next_update_mends_and_then_updates() {
    let rig = Rig::with(&[two(Database::Migrates)]);
    assert!(dies(rig.update_command(""), "update: after swap"));
    let ran = rig.updated("");
    assert!(ran.err.contains("has been undone: this is v0.1.0"), "{ran:?}");
    assert_eq!(assert_whole(&rig, &two(Database::Migrates), "the next update"), "v0.2.0");
}
