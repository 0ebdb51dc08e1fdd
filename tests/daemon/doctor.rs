//! `banger doctor` against the real daemon, whose state somebody has damaged.

use std::process::Command;

use banger::proto::api::{DaemonDoctor, Verdict};
use banger::proto::finding::Finding;
use banger::store::Store;
use serde_json::Value;

use crate::rig::{BANGER, Rig};

fn found(rig: &Rig, subject: &str) -> Finding {
    let rows = rig.call(DaemonDoctor {}).expect("answers");
    rows.into_iter().find(|row| row.subject == subject).unwrap_or_else(|| panic!("no row {subject}"))
}

/// The command line's rows, and its exit status. Where no daemon runs it starts one.
fn rows(rig: &Rig) -> (Vec<Value>, Option<i32>) {
    let mut command = Command::new(BANGER);
    let out =
        command.args(["doctor", "--json"]).env("BANGER_ROOT", rig.path()).env("HOME", rig.path()).output();
    let out = out.expect("runs");
    (serde_json::from_slice(&out.stdout).expect("JSON"), out.status.code())
}

#[test]
fn a_daemon_whose_database_is_of_a_later_version_is_a_row_with_the_reason() {
    let rig = Rig::new();
    let dirs = rig.dirs();
    banger::host::files::create_private_dir(&dirs.state).expect("makes a directory");
    drop(Store::open(&dirs.database()).expect("makes one"));
    let database = redb::Database::open(dirs.database()).expect("opens");
    let tx = database.begin_write().expect("begins");
    tx.open_table(redb::TableDefinition::<&str, u32>::new("meta"))
        .expect("is there")
        .insert("schema", 99)
        .expect("writes");
    tx.commit().expect("commits");
    drop(database);
    let (rows, code) = rows(&rig);
    assert_eq!(code, Some(1));
    let row = |subject: &str| rows.iter().find(|row| row["subject"] == subject).expect(subject);
    assert_eq!(row("architecture")["verdict"], "pass");
    let daemon = row("bangerd");
    assert_eq!(daemon["verdict"], "fail");
    let why = daemon["found"].as_str().expect("text");
    assert!(why.contains("the database has schema 99, this banger knows up to"), "{why}");
}

#[test]
fn what_the_daemon_needs_and_somebody_has_removed_fails() {
    let rig = Rig::started();
    for subject in ["store", "image", "kernel", "vm defaults"] {
        assert_eq!(found(&rig, subject).verdict, Verdict::Pass, "{:?}", found(&rig, subject));
    }
    let dirs = rig.dirs();
    let image = dirs.image_file(&"ab".repeat(32));
    std::fs::write(&image, "shorter").expect("writes");
    assert!(found(&rig, "image").found.contains("does not have its length any more"));
    std::fs::remove_file(&image).expect("removes");
    let row = found(&rig, "image");
    assert!(row.verdict == Verdict::Fail && row.found.contains("base cannot be used"), "{row:?}");
    std::fs::remove_dir_all(dirs.kernel(crate::rig::KERNEL)).expect("removes");
    let row = found(&rig, "kernel");
    assert!(row.verdict == Verdict::Fail && row.found.contains("is gone"), "{row:?}");
    let aside = dirs.state.join("aside");
    std::fs::rename(dirs.database(), &aside).expect("moves");
    assert_eq!(found(&rig, "store").verdict, Verdict::Fail);
    std::fs::rename(&aside, dirs.database()).expect("moves it back");
    assert_eq!(found(&rig, "store").verdict, Verdict::Pass);
}

#[test]
fn defaults_that_no_vm_can_have_here_fail() {
    let mut rig = Rig::new();
    rig.configure("network = 'user'\n[vm_defaults]\nmemory = '1000T'\n");
    rig.seed();
    rig.start();
    let row = found(&rig, "vm defaults");
    assert!(row.verdict == Verdict::Fail && row.found.contains("is more than this host has"), "{row:?}");
}

#[test]
fn what_is_roots_to_mend_the_daemon_refuses() {
    let rig = Rig::started();
    for fix in ["network", "resolver", "services", "directories"] {
        let fix = serde_json::from_str(&format!("\"{fix}\"")).expect("a word");
        let failure = rig.call(banger::proto::api::DaemonMend { fix }).expect_err("there is no bridge here");
        assert_eq!(failure.message, "there is no root helper here, and so no bridge to mend");
    }
}
