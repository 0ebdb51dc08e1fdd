//! Updates that fail after the swap: all is as it was, and the failure is told.

use std::process::{Command, Stdio};

use crate::publisher::{BANGER, Executable};
use crate::rig::{Ran, Rig};

const BACK: &str = "(rolled back to previous install)";

/// Installs a v0.2.0 that was changed by `change`, which must be taken back, and returns why.
fn taken_back(change: impl FnOnce(&mut Executable)) -> (Rig, String) {
    let mut two = Executable::new("v0.2.0");
    change(&mut two);
    let rig = Rig::with(&[two]);
    let said = rig.refused("");
    assert!(said.ends_with(BACK), "{said}");
    rig.assert_untouched(&said);
    (rig, said)
}

fn rows(subject: &str) -> String {
    format!(
        "echo '[{{\"subject\": \"kvm\", \"verdict\": \"fail\", \"found\": \"x\"}}, {{\"subject\": \"{subject}\", \
             \"verdict\": \"fail\", \"found\": \"gone\"}}]'; exit 1"
    )
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn what_doctor_finds_worse_is_taken_back_and_what_was_bad_before_is_not() {
    let (rig, said) = taken_back(|e| e.doctor = rows("bridge"));
    assert_eq!(said, format!("banger: doctor: bridge: gone {BACK}"));
    // Not remembered as one that has been here, and the next one comes in.
    assert_eq!(rig.read("keep/newest"), "");
    rig.publish(&[Executable { doctor: rows("kvm"), ..Executable::new("v0.2.1") }]);
    rig.updated("");
    rig.assert_is(&Executable { doctor: rows("kvm"), ..Executable::new("v0.2.1") }, "v0.1.0", "the next one");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_doctor_that_cannot_be_understood_is_one_that_fails() {
    for doctor in ["exit 3", "echo nonsense", "kill -9 $$"] {
        let (_rig, said) = taken_back(|e| e.doctor = doctor.to_owned());
        assert!(said.contains("doctor: it gave no rows"), "{said}");
    }
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_release_that_does_not_start_is_taken_back() {
    let (_rig, said) = taken_back(|e| e.start = "echo 'cannot start: no luck' >&2; exit 1".to_owned());
    assert!(said.starts_with("banger: restart: ") && said.contains("no luck"), "{said}");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_release_that_cannot_bring_units_up_to_date_is_taken_back() {
    let (_rig, said) = taken_back(|e| {
        e.refresh = "echo half >$r/units/bangerd.service; echo 'no room' >&2; exit 1".to_owned()
    });
    assert!(said.starts_with("banger: swap: ") && said.contains("no room"), "{said}");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_database_that_was_migrated_is_put_back() {
    let (rig, _) = taken_back(|e| {
        e.migrations = 1;
        e.doctor = rows("store");
        e.start = "echo migrated >$r/state/banger.redb; echo 0.2.0 >$r/run/daemon".to_owned();
    });
    assert_eq!(rig.read("state/banger.redb.before-update"), "records of v0.1.0");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn where_going_back_fails_too_everything_known_is_said() {
    let two = Executable {
        doctor: format!(
            "chmod -x $r/bin/banger.previous; sed -i 's/^ps) .*/ps) exit 7 ;;/' $r/bin/banger.previous; {}",
            rows("bridge")
        ),
        ..Executable::new("v0.2.0")
    };
    let rig = Rig::with(&[two]);
    let said = rig.refused("");
    for part in [
        "doctor: bridge: gone",
        "could not be rolled back",
        "By hand: as root:",
        "banger.previous",
        "restart bangerd-root",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains(BACK), "{said}");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn going_back_on_purpose_is_not_stopped_by_doctor() {
    let bad = Executable { doctor: rows("bridge"), ..Executable::new("v0.1.0") };
    let rig = Rig::with(&[Executable::new("v0.2.0")]);
    std::fs::write(rig.path("bin/banger"), bad.script()).expect("writes");
    rig.updated("");
    let ran = rig.banger("update --rollback");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("note: doctor: bridge: gone"), "{ran:?}");
    assert_eq!(rig.read("bin/banger"), bad.script());
    assert_eq!(rig.read("bin/banger.previous"), Executable::new("v0.2.0").script());
    rig.assert_nothing_is_left("back");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn where_files_cannot_grow_nothing_is_half_done() {
    let two = Executable::new("v0.2.0");
    let mut outcomes = vec![];
    for kib in 1..=8 {
        let rig = Rig::with(std::slice::from_ref(&two));
        // The largest of the files that are copied, and larger than the executable.
        std::fs::write(rig.path("units/banger-recover.service"), [b'#'; 6 << 10]).expect("writes");
        let made = rig.update_command("");
        let mut command = Command::new("bash");
        // Writes beyond it fail, as on a full disk (setrlimit(2), RLIMIT_FSIZE).
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\""), BANGER]);
        command.args(made.get_args()).env("BANGER_ROOT", rig.path("")).stdin(Stdio::null());
        let ran = Ran::from(command.output().expect("runs"));
        match ran.code {
            Some(0) => rig.assert_is(&two, "v0.1.0", &format!("{kib} KiB")),
            _ => {
                assert!(ran.err.contains("File too large"), "{kib} KiB: {ran:?}");
                rig.assert_untouched(&ran.err);
            }
        }
        println!("{kib} KiB: {}", if ran.code == Some(0) { &ran.out } else { &ran.err });
        outcomes.push(ran.code == Some(0));
    }
    // Some fail as the release is staged, some when the journal is there already.
    assert!(outcomes.is_sorted() && outcomes.contains(&false) && outcomes.contains(&true), "{outcomes:?}");
}
