//! Bad input gets one clear sentence; nothing is lost, nothing is left behind.

use std::fs;
use std::process::Command;

use crate::rig::{Rig, binary, part};

#[test]
#[ignore = "needs the parts made by tests/run.sh"]
fn without_an_image_or_a_kernel_it_says_how_to_get_one() {
    let rig = Rig::empty();
    let said = rig.refused("vm create --no-start --image busybox");
    assert!(said.contains("image"), "{said}");
    let tar = part("busybox.tar");
    rig.ok_args(&["image", "import", tar.to_str().expect("UTF-8"), "--name", "busybox"]);
    let said = rig.refused("vm create --image busybox");
    assert!(said.contains("banger kernel import"), "{said}");
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "needs the parts made by tests/run.sh"]
fn every_wrong_word_is_named() {
    let rig = Rig::new();
    rig.ok("vm create --no-start --name dev --image busybox");
    rig.ok("vm create --no-start --name dev2 --image busybox");
    for (line, part_of_the_answer) in [
        ("vm show dve", "did you mean dev"),
        ("vm show nothing-like-it", "banger vm list"),
        ("vm create --no-start --name dev --image busybox", "dev"),
        ("vm create --no-start --name Dev_1 --image busybox", "starting with a letter"),
        ("vm create --no-start --memory 16M --image busybox", "at least 128 MiB"),
        ("vm create --no-start --memory 900T --image busybox", "at most"),
        ("vm create --no-start --disk-size 1M --image busybox", "at least"),
        ("vm create --no-start --disk-size 900T --image busybox", "at most"),
        ("vm create --no-start --vcpu 99 --image busybox", "1 to"),
        ("vm create --no-start --memory lots --image busybox", "no size"),
        ("vm create --no-start --image Not//A:ref", "Not//A:ref"),
        ("image show nothing", "nothing"),
        ("kernel show nothing", "nothing"),
        ("vm lst", "did you mean `banger vm list`"),
        ("vn list", "did you mean `banger vm`"),
        ("vm list --jsno", "--json"),
        ("vm run -d --rm --image busybox", "--rm"),
        ("vm run -d --image busybox -- true", "-d"),
        ("vm exec -t dev -- true", "terminal"),
    ] {
        let said = rig.refused(line);
        assert!(said.contains(part_of_the_answer), "{line}: {said}");
    }
    // An empty prefix fits every id, and is no prefix.
    assert_eq!(rig.args(&["vm", "show", ""]).status, 1);
    assert_eq!(rig.json("vm list --json").as_array().expect("a list").len(), 2);
}

#[test]
#[ignore = "needs the parts made by tests/run.sh"]
fn an_ambiguous_prefix_lists_what_it_could_be() {
    let rig = Rig::new();
    // With seventeen ids, two begin with the same digit.
    for _ in 0..17 {
        rig.ok("vm create -q --no-start --image busybox");
    }
    let list = rig.json("vm list --json");
    let ids: Vec<&str> =
        list.as_array().expect("a list").iter().map(|vm| vm["id"].as_str().expect("an id")).collect();
    let digit = ids.iter().map(|id| &id[..1]).find(|d| ids.iter().filter(|id| id.starts_with(d)).count() > 1);
    let said = rig.refused(&format!("vm show {}", digit.expect("two share a digit")));
    assert!(said.contains("more than one"), "{said}");
}

#[test]
#[ignore = "needs the parts made by tests/run.sh"]
fn what_is_no_image_or_a_damaged_one_is_refused_and_leaves_nothing() {
    let rig = Rig::new();
    let before = listing(&rig);
    let dir = tempfile::tempdir().expect("a directory");
    let text = dir.path().join("text");
    fs::write(&text, "this is no tar\n".repeat(100)).expect("writes");
    assert!(rig.refused(&format!("image import {}", text.display())).contains("no image"));
    let tar = fs::read(part("minbase.tar")).expect("reads");
    let cut = dir.path().join("cut.tar");
    fs::write(&cut, &tar[..tar.len() / 2]).expect("writes");
    let said = rig.refused(&format!("image import {}", cut.display()));
    assert!(said.contains("cut"), "{said}");
    assert!(rig.refused("image import /no/such/file").contains("/no/such/file"));
    assert_eq!(listing(&rig), before);
}

#[test]
#[ignore = "needs the parts made by tests/run.sh"]
fn a_full_disk_during_an_import_leaves_nothing_half_made() {
    // A file system of 60 MiB in a mount namespace of its own; the image needs three times that.
    let script = r#"
        set -e
        mount -t tmpfs -o size=60m none "$1"
        export BANGER_ROOT=$1
        status=0
        "$2" image import "$3" --name big || status=$?
        "$2" image list --json
        "$2" daemon stop
        find "$1" -type f -size +2M
        exit $status
    "#;
    let dir = tempfile::tempdir().expect("a directory");
    let out = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(binary())
        .arg(part("minbase.tar"))
        .output()
        .expect("runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(1), "{stdout}{stderr}");
    assert!(stderr.contains("No space left"), "{stderr}");
    assert_eq!(stdout.trim(), "[]", "{stderr}");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_guest_that_does_not_come_up_shows_its_last_console_lines_and_is_kept() {
    let rig = Rig::new();
    let end = crate::rig::ended(
        rig.command(["vm", "run", "--name", "dev", "--image", "busybox", "--", "true"])
            .env("BANGER_BOOT_TIMEOUT", "1")
            .output()
            .expect("runs"),
    );
    assert_eq!(end.status, 1, "{end:#?}");
    assert!(end.stderr.contains("banger vm logs dev"), "{end:#?}");
    assert_eq!(rig.vm_state("dev"), "failed");
    rig.ok("vm logs dev");
    rig.until("nothing runs", || rig.processes().is_empty());
}

#[test]
#[ignore = "needs the parts made by tests/run.sh"]
fn a_missing_qemu_is_named_with_the_package_that_brings_it() {
    let rig = Rig::new();
    rig.ok("vm create --no-start --name dev --image busybox");
    rig.ok("daemon stop");
    let dir = tempfile::tempdir().expect("a directory");
    // A mount namespace in which the program is an empty file that nobody may execute.
    let script = r#"
        for p in /usr/bin/qemu-system-x86_64 /usr/local/bin/qemu-system-x86_64; do
            [ -e "$p" ] && mount --bind "$1" "$p"
        done
        exec "$2" vm start --quiet dev
    "#;
    let empty = dir.path().join("empty");
    fs::write(&empty, "").expect("writes");
    let out = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(&empty)
        .arg(binary())
        .env("BANGER_ROOT", rig.path())
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("qemu-system-x86"), "{said}");
}

#[test]
#[ignore = "needs root and the parts made by tests/run.sh"]
fn a_socket_directory_of_someone_else_is_refused() {
    let rig = Rig::empty();
    let run = rig.path().join("run");
    fs::create_dir_all(&run).expect("makes");
    std::os::unix::fs::chown(&run, Some(1234), Some(1234)).expect("sets");
    let said = rig.refused("vm list");
    assert!(said.contains("1234") || said.contains("belongs"), "{said}");
}

fn listing(rig: &Rig) -> Vec<String> {
    let out = Command::new("find")
        .arg(rig.path())
        .args(["-type", "f", "!", "-name", "*.log", "-printf", "%P %s\n"])
        .output();
    let text = String::from_utf8_lossy(&out.expect("runs find").stdout).into_owned();
    // The database's length may change by pages; its content is checked through the commands.
    let mut lines: Vec<String> = text
        .lines()
        .filter(|l| !l.contains("banger.redb") && !l.contains("bangerd.lock"))
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}
