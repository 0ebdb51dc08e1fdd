//! What a good release does, and what can be asked before it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use serde_json::Value;

use crate::publisher::{BANGER, Executable};
use crate::rig::{Rig, names_in};

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_check_says_one_line() {
    let rig = Rig::with(&[Executable::new("v0.1.0")]);
    assert_eq!(rig.updated("--check").out, "up to date\n");
    rig.publish(&[Executable::new("v0.1.0"), Executable::new("v0.2.0")]);
    assert_eq!(rig.updated("--check").out, "update available: v0.1.0 -> v0.2.0\n");
    let view: Value = serde_json::from_str(&rig.updated("--check --json").out).expect("JSON");
    assert_eq!((&view["state"], &view["target"]), (&"available".into(), &"v0.2.0".into()));
    rig.assert_untouched("a check");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_check_needs_neither_root_nor_an_installation_and_an_update_does() {
    let rig = Rig::with(&[Executable::new("v9.0.0")]);
    // Where nobody else can read it, the executable of the tests is.
    let copy = rig.path("banger");
    fs::copy(BANGER, &copy).expect("copies");
    fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).expect("sets the mode");
    let as_user = |options: &str| {
        let made = rig.update_command(options);
        let mut command = std::process::Command::new(&copy);
        command.args(made.get_args()).env("BANGER_ROOT", rig.path("")).env("HOME", "/").uid(65534).gid(65534);
        crate::rig::Ran::from(command.output().expect("runs"))
    };
    assert_eq!(as_user("--check").out, "update available: v0.1.0 -> v9.0.0\n");
    let said = as_user("").err;
    assert!(said.contains("an update is root's to do; use `sudo banger update`"), "{said}");
    rig.assert_untouched("a user");
    fs::remove_file(rig.path("config/install.toml")).expect("removes");
    fs::remove_file(rig.path("bin/banger")).expect("removes");
    assert!(as_user("--check").out.starts_with("update available: v"), "{:?}", as_user("--check"));
    let said = rig.refused("");
    assert!(said.contains("banger is not installed on this machine"), "{said}");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn an_update_comes_in_whole_and_goes_back_whole() {
    let (one, two, three) = (Executable::new("v0.1.0"), Executable::new("v0.2.0"), Executable::new("v0.3.0"));
    let rig = Rig::with(&[one.clone(), two.clone()]);
    let said = rig.updated("").out;
    assert_eq!(said, "updated: v0.1.0 -> v0.2.0; `sudo banger update --rollback` goes back\n");
    rig.assert_is(&two, "v0.1.0", "the update");
    let install = rig.read("config/install.toml");
    assert!(
        install.contains("commit = \"commit-of-v0.2.0\"") && install.contains("owner = \"root\""),
        "{install}"
    );
    assert_eq!(rig.updated("").out, "up to date\n");
    rig.publish(&[one.clone(), two.clone(), three.clone()]);
    rig.updated("");
    rig.assert_is(&three, "v0.2.0", "the next update");
    assert_eq!(rig.read("keep/newest"), "v0.3.0\n");
    let said = rig.banger("update -q --rollback");
    assert_eq!(
        said.out, "rolled back: v0.3.0 -> v0.2.0; `sudo banger update --rollback` returns to v0.3.0\n",
        "{said:?}"
    );
    rig.assert_is(&two, "v0.3.0", "back");
    assert_eq!(rig.read("keep/newest"), "v0.3.0\n");
    rig.banger("update -q --rollback");
    rig.assert_is(&three, "v0.2.0", "forth");
    // Older than what has been here: only where it is meant.
    let said = rig.refused("--to v0.1.0");
    assert!(said.contains("--to v0.1.0 --allow-downgrade"), "{said}");
    rig.updated("--to v0.1.0 --allow-downgrade");
    assert_eq!(rig.version(), "v0.1.0");
    assert_eq!(rig.read("bin/banger.previous").lines().nth(1), Some("# v0.3.0"));
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_dry_run_says_what_would_be_done_and_leaves_it_staged() {
    let rig = Rig::with(&[Executable::new("v0.2.0")]);
    let said = rig.updated("--dry-run").out;
    assert!(
        said.starts_with(
            "would update: v0.1.0 -> v0.2.0; 2 files of the installation change; the database stays"
        ),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1);
    assert_eq!(names_in(&rig.path("cache/updates")), ["banger"]);
    assert_eq!(fs::metadata(rig.path("cache/updates")).expect("stats").permissions().mode() & 0o777, 0o700);
    assert_eq!(rig.version(), "v0.1.0");
    fs::write(rig.path("cache/updates/left"), "x").expect("writes");
    rig.updated("");
    rig.assert_is(&Executable::new("v0.2.0"), "v0.1.0", "what was staged is cleaned first");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_database_that_is_migrated_is_copied_first() {
    let two = Executable {
        migrations: 1,
        start:
            "[ ! -e $r/run/daemon ] || exit 9; echo migrated >$r/state/banger.redb; echo 0.2.0 >$r/run/daemon"
                .to_owned(),
        ..Executable::new("v0.2.0")
    };
    let rig = Rig::with(std::slice::from_ref(&two));
    rig.updated("");
    rig.assert_is(&two, "v0.1.0", "the update");
    assert_eq!(rig.read("state/banger.redb"), "migrated\n");
    assert_eq!(rig.read("state/banger.redb.before-update"), "records of v0.1.0");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn going_back_past_a_migration_is_refused_and_the_copy_is_named() {
    let two = Executable { migrations: 1, ..Executable::new("v0.2.0") };
    let rig = Rig::with(std::slice::from_ref(&two));
    rig.updated("");
    // The one of before cannot read what the new one has made of the database.
    let one = Executable { migrations: 2, ..Executable::new("v0.1.0") };
    fs::write(rig.path("bin/banger.previous"), one.script()).expect("writes");
    let said = rig.banger("update -q --rollback").err;
    assert!(said.contains("it cannot work with the database that is here"), "{said}");
    assert!(said.contains("state/banger.redb.before-update is a copy of the database"), "{said}");
    assert_eq!(rig.version(), "v0.2.0");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn two_keys_count_while_one_follows_the_other() {
    let rig = Rig::with(&[Executable::new("v0.2.0")]);
    let other = crate::publisher::Publisher::new().pem();
    fs::write(rig.path("key.pem"), format!("{other}{}", rig.publisher.pem())).expect("writes");
    rig.updated("");
    assert_eq!(rig.version(), "v0.2.0");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn the_configuration_says_where_releases_are_and_what_counts_beyond_its_time() {
    let rig = Rig::with(&[Executable::new("v0.2.0")]);
    let mut manifest: Value = serde_json::from_slice(&rig.server.body(crate::rig::MANIFEST)).expect("JSON");
    manifest["releases"][0]["expires"] = "2020-01-01T00:00:00Z".into();
    rig.server.put("/expired.json", manifest.to_string());
    let config = |refuse: bool| {
        let text = format!(
            "[update]\nmanifest_url = '{}'\nrefuse_expired = {refuse}\n",
            rig.server.at("/expired.json")
        );
        fs::write(rig.path("config/config.toml"), text).expect("writes");
    };
    config(true);
    let update = format!("update -q --pubkey-file {}", rig.path("key.pem").display());
    let ran = rig.banger(&update);
    assert!(
        ran.code == Some(1) && ran.err.contains("has expired, and the configuration refuses that"),
        "{ran:?}"
    );
    rig.assert_untouched("an expired manifest");
    config(false);
    let ran = rig.banger(&update);
    assert!(
        ran.code == Some(0) && ran.err.contains("note: what the manifest says of v0.2.0 has expired"),
        "{ran:?}"
    );
    rig.assert_is(&Executable::new("v0.2.0"), "v0.1.0", "an expired manifest that counts");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn one_updates_at_a_time() {
    let rig = Rig::with(&[Executable::new("v0.2.0")]);
    let lock =
        fs::File::options().write(true).create(true).truncate(false).open(rig.path("keep/update.lock"));
    let lock = lock.expect("opens");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locks");
    assert!(rig.refused("").contains("another `banger update`, or `banger system install`, is under way"));
    rig.assert_untouched("the second");
    drop(lock);
    rig.updated("");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn what_is_asked_of_the_owners_state_is_asked_as_the_owner() {
    const OWNER: u32 = 65534;
    let rig = Rig::new();
    let state = rig.path("state");
    for path in [&state, &rig.path("state/banger.redb"), &rig.path("run")] {
        std::os::unix::fs::chown(path, Some(OWNER), Some(OWNER)).expect("gives it away");
        let private = if path.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(path, PermissionsExt::from_mode(private)).expect("closes it");
    }
    let install = rig.read("config/install.toml").replace("= 0", &format!("= {OWNER}"));
    fs::write(rig.path("config/install.toml"), install).expect("writes");
    // The copy of the database is made by the tests' executable, which the owner must be able to run.
    let copy = rig.path("banger");
    fs::copy(BANGER, &copy).expect("copies");
    fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).expect("sets the mode");
    let of_owner = |executable: Executable| {
        let script = executable.script().replace(BANGER, &copy.display().to_string());
        script.replace(
            "echo 'the verdict",
            "echo $(id -u) $(id -g) $(id -G) >$r/state/asked; echo 'the verdict",
        )
    };
    fs::write(rig.path("bin/banger"), of_owner(Executable::new("v0.1.0"))).expect("writes");
    let two = Executable { migrations: 1, ..Executable::new("v0.2.0") };
    let entry = rig.publisher.release(&rig.server, "v0.2.0", crate::publisher::pack(&of_owner(two)));
    rig.server.put(crate::rig::MANIFEST, crate::publisher::manifest("v0.2.0", &[entry]));
    // Below BANGER_ROOT a daemon is asked by its own user alone.
    rig.updated("--force");
    assert_eq!(rig.version(), "v0.2.0");
    assert_eq!(rig.read("state/asked"), format!("{OWNER} {OWNER} {OWNER}\n"));
    for name in ["asked", "banger.redb", "banger.redb.before-update"] {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(state.join(name)).expect("stats").uid(), OWNER, "{name}");
    }
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn what_goes_on_is_not_cut_off_unless_that_is_asked_for() {
    let rig = Rig::with(&[Executable::new("v0.2.0")]);
    for name in ["run/daemon", "state/banger.redb"] {
        fs::remove_file(rig.path(name)).expect("removes");
    }
    // A daemon of the tests' executable, busy with an archive that does not come to its end.
    assert_eq!(rig.banger("ps").code, Some(0));
    let mut importing = rig.command("image import -q --name slow -");
    let mut importing = importing
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("runs");
    let said = loop {
        let ran = rig.update("");
        match ran.code {
            Some(1) => break ran.err,
            // It had not begun yet, and the update went through: back, and once more.
            _ => assert_eq!(rig.banger("update -q --rollback --force").code, Some(0), "{ran:?}"),
        }
    };
    assert!(said.contains("prepare: bangerd is busy with image.import of slow (op-"), "{said}");
    assert!(said.contains("--force"), "{said}");
    assert_eq!(rig.version(), "v0.1.0");
    rig.updated("--force");
    assert_eq!(rig.version(), "v0.2.0");
    importing.kill().expect("ends it");
    importing.wait().expect("ends");
    assert_eq!(rig.banger("daemon stop").code, Some(0));
}
