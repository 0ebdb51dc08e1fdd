//! `banger system` as far as it can be tried where nothing may be installed: what it lists, what it refuses, and that it changes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::fake::Fake;

/// A user of this machine who is nobody's person.
const SERVICE: &str = "nobody";

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).expect("lists").next().is_none()
}

/// As if banger were installed there, for root to believe.
fn installed(version: &str) -> Fake {
    assert!(rustix::process::geteuid().is_root(), "this test needs root, to whom install.toml must belong");
    let fake = Fake::absent();
    std::fs::create_dir(fake.root().join("config")).expect("makes");
    std::fs::create_dir(fake.root().join("units")).expect("makes");
    let text = format!("owner = 'me'\nuid = 0\ngid = 0\nhome = '/root'\nversion = '{version}'\n");
    std::fs::write(fake.root().join("config/install.toml"), text).expect("writes");
    fake
}

#[test]
fn a_dry_run_lists_every_file_with_its_purpose_and_changes_nothing() {
    let fake = Fake::absent();
    let ran = fake.run(&["system", "install", "--dry-run", "--owner", SERVICE]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(is_empty(fake.root()));
    let listed: BTreeSet<&str> = ran
        .out
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(words.len() > 3 && words[0] == "create", "{line}");
            words[1].strip_prefix(fake.root().to_str().expect("UTF-8")).expect("below the directory")
        })
        .collect();
    for path in [
        "/bin/banger",
        "/bin/bangerd",
        "/bin/bangerd-root",
        "/bin/banger-vsock",
        "/config/install.toml",
        "/units/bangerd.service",
        "/units/bangerd-root.service",
        "/units/bangerd-root.socket",
        "/units/banger-recover.service",
        "/units/multi-user.target.wants/bangerd.service",
        "/units/sockets.target.wants/bangerd-root.socket",
        "/share/bash-completion/completions/banger",
        "/share/zsh/site-functions/_banger",
        "/share/fish/vendor_completions.d/banger.fish",
        "/share/man/man1/banger.1",
        "/share/man/man1/banger-vm.1",
        "/keep/directories",
        "/state/",
        "/cache/updates/",
    ] {
        assert!(listed.contains(path), "{path} is not in\n{}", ran.out);
    }
    assert!(ran.err.contains("as it is, nothing would be installed:"), "{ran:?}");
    assert!(ran.err.contains("nobody is a service's account"), "{ran:?}");
}

#[test]
fn everything_that_is_missing_is_said_at_once_and_nothing_is_changed() {
    let fake = Fake::absent();
    let bin = fake.root().join("bin");
    std::fs::create_dir(&bin).expect("makes");
    std::fs::write(bin.join("banger"), "#!/bin/sh\n").expect("writes");
    let mut command = fake.banger(&["system", "install", "--owner", "no-such-user"]);
    let ran = crate::fake::Ran::of(command.env_remove("SUDO_USER").output().expect("runs"));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for said in [
        "there is no user \"no-such-user\"; name a user of this machine",
        "bin/banger was not put there by banger; move it away, or remove it",
        "BANGER_ROOT is set, and an installation is the machine's; unset it",
        "nothing was installed, and nothing was changed",
    ] {
        assert!(ran.err.contains(said), "{said}: {ran:?}");
    }
    assert_eq!(std::fs::read_dir(fake.root()).expect("lists").count(), 1);
    assert_eq!(std::fs::read(bin.join("banger")).expect("reads"), b"#!/bin/sh\n");
}

#[test]
fn the_owner_is_who_used_sudo_and_without_one_it_is_asked_for() {
    let fake = Fake::absent();
    let run = |user: Option<&str>| {
        let mut command = fake.banger(&["system", "install", "--dry-run"]);
        command.env_remove("SUDO_USER");
        if let Some(user) = user {
            command.env("SUDO_USER", user);
        }
        crate::fake::Ran::of(command.output().expect("runs")).err
    };
    assert!(
        run(None).contains("nothing says whose VMs they are to be; use `sudo`, or name a user: --owner USER")
    );
    assert!(run(Some("")).contains("nothing says whose VMs"));
    assert!(run(Some("root")).contains("root is root, whose `banger` works without an installation"));
    assert!(run(Some("nobody")).contains("nobody is a service's account"));
}

#[test]
fn without_an_installation_there_is_nothing_to_look_at_or_to_remove() {
    let fake = Fake::absent();
    for args in
        [&["system", "status"][..], &["system", "status", "--json"], &["system", "refresh", "--dry-run"]]
    {
        let ran = fake.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{args:?}");
        assert_eq!(
            ran.err,
            "banger: banger is not installed on this machine; `sudo banger system install` installs it\n",
            "{args:?}"
        );
    }
    assert!(is_empty(fake.root()));
}

#[test]
#[ignore = "needs root, to whom install.toml must belong"]
fn a_refresh_says_what_would_change_and_changes_it_only_when_told_to() {
    let fake = installed("0.0.1");
    for made in ["bin", "keep"] {
        std::fs::create_dir(fake.root().join(made)).expect("makes");
    }
    let unit = fake.root().join("units/banger-later.service");
    let bangerd = fake.root().join("bin/bangerd");
    std::os::unix::fs::symlink("banger", &bangerd).expect("links");
    let dry = fake.run(&["system", "refresh", "--dry-run", "--json"]);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    let changes = |out: &str| -> Vec<(String, String)> {
        let lines: Vec<Value> = serde_json::from_str(out).expect("JSON");
        let word = |line: &Value, key: &str| line[key].as_str().expect("a word").to_owned();
        lines.iter().map(|line| (word(line, "path"), word(line, "change"))).collect()
    };
    let first = changes(&dry.out);
    let pages = first.iter().filter(|(path, _)| path.ends_with(".1")).count();
    assert!(pages > 5, "{first:?}");
    assert_eq!(first.len() - pages, 10, "{first:?}");
    for (path, change) in &first {
        let want = if Path::new(path) == bangerd { "keep" } else { "create" };
        assert_eq!(change, want, "{path}");
    }
    assert!(!fake.root().join("units/bangerd.service").exists());
    // Nobody has units there, so that no service manager is told.
    let done = fake.run(&["system", "refresh"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        changes(&fake.run(&["system", "refresh", "--dry-run", "--json"]).out)
            .iter()
            .all(|(_, c)| c == "keep")
    );
    let mark = std::fs::read_to_string(fake.root().join("units/bangerd.service")).expect("reads");
    let mark = mark.lines().next().expect("a line");
    std::fs::write(&unit, format!("{mark}\n[Unit]\n")).expect("writes");
    let last = changes(&fake.run(&["system", "refresh", "--dry-run", "--json"]).out).pop().expect("a line");
    assert_eq!(last, (unit.display().to_string(), "remove".to_owned()));
}

#[test]
#[ignore = "needs root, to whom install.toml must belong"]
fn a_status_says_what_is_wrong_and_exits_with_1() {
    let fake = installed("0.0.1");
    let ran = fake.run(&["system", "status", "--json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let view: Value = serde_json::from_str(&ran.out).expect("JSON");
    let mut keys: Vec<&str> = view.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    // Programs rely on these; help names them.
    assert_eq!(
        keys,
        ["binary", "daemon", "helper", "installed", "owner", "problems", "sockets", "uid", "units", "vms"]
    );
    assert_eq!((view["owner"].as_str(), view["installed"]["version"].as_str()), (Some("me"), Some("0.0.1")));
    let problems = view["problems"].as_array().expect("a list");
    let says = |text: &str| problems.iter().any(|p| p.as_str().expect("a sentence").contains(text));
    assert!(says("bin/banger cannot be run"), "{problems:?}");
    assert!(
        says("bangerd does not answer: bangerd is not running; `sudo banger system restart` starts it"),
        "{problems:?}"
    );
    assert!(says("bangerd-root does not answer: "), "{problems:?}");
    let text = fake.run(&["system", "status"]);
    assert!(
        text.out.contains("problem:") && text.out.contains("`sudo banger system install` mends it"),
        "{text:?}"
    );
}

#[test]
#[ignore = "needs root, to whom install.toml must belong"]
fn an_install_toml_that_others_can_write_is_not_believed() {
    use std::os::unix::fs::PermissionsExt;
    let fake = installed("0.0.1");
    let file = fake.root().join("config/install.toml");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).expect("opens it to all");
    for args in [&["system", "status"][..], &["system", "refresh"], &["system", "uninstall"]] {
        let ran = fake.run(args);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains("may have been written by somebody else than root"), "{args:?}: {ran:?}");
    }
    assert!(file.exists());
}

#[test]
#[ignore = "needs root, to whom install.toml must belong"]
fn vms_that_may_run_keep_an_installation_from_being_removed() {
    let fake = installed("0.0.1");
    std::fs::create_dir_all(fake.root().join("run-root/vms")).expect("makes");
    std::fs::write(fake.root().join("run-root/vms/00000000002a.json"), "{}").expect("writes");
    let ran = fake.run(&["system", "uninstall"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("bangerd does not run, and this does: VM 00000000002a; "), "{ran:?}");
    assert!(ran.err.contains("--force ends them"), "{ran:?}");
    assert!(fake.root().join("config/install.toml").exists());
}
