//! `vm cp`, both ways.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};

use crate::rig::Rig;

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_tree_keeps_owners_modes_times_and_symlinks_there_and_back() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    let dir = tempfile::tempdir().expect("a directory");
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("deep/er")).expect("makes");
    fs::write(tree.join("deep/er/data"), vec![7; 300_000]).expect("writes");
    fs::write(tree.join("script"), "#!/bin/sh\necho ran\n").expect("writes");
    fs::set_permissions(tree.join("script"), fs::Permissions::from_mode(0o751)).expect("sets");
    std::os::unix::fs::chown(tree.join("script"), Some(1000), Some(50)).expect("sets");
    symlink("deep/er/data", tree.join("link")).expect("links");
    symlink("/nowhere/at all", tree.join("dangling")).expect("links");
    fs::write(tree.join("name with\nnewline"), "x").expect("writes");
    let old = "2001-02-03T04:05:06";
    Command::new("touch").args(["-d", old]).arg(tree.join("script")).status().expect("runs touch");

    rig.ok_args(&["vm", "cp", tree.to_str().expect("UTF-8"), "dev:/tmp"]);
    assert_eq!(rig.sh("dev", "/tmp/tree/script"), "ran\n");
    assert_eq!(rig.sh("dev", "stat -c '%a %u %g' /tmp/tree/script"), "751 1000 50\n");
    assert_eq!(
        rig.sh("dev", "for l in link dangling; do readlink /tmp/tree/$l; done"),
        "deep/er/data\n/nowhere/at all\n"
    );

    rig.ok_args(&["vm", "cp", "dev:/tmp/tree", dir.path().join("back").to_str().expect("UTF-8")]);
    let back = dir.path().join("back");
    let diff = Command::new("diff")
        .args(["-r", "--no-dereference"])
        .arg(&tree)
        .arg(&back)
        .output()
        .expect("runs diff");
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    let (a, b) = (
        fs::metadata(tree.join("script")).expect("stats"),
        fs::metadata(back.join("script")).expect("stats"),
    );
    assert_eq!((a.mode(), a.uid(), a.gid(), a.mtime()), (b.mode(), b.uid(), b.gid(), b.mtime()));
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_tar_stream_goes_in_by_stdin_and_comes_out_by_stdout() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("f"), "streamed").expect("writes");
    let tar =
        Command::new("tar").arg("-C").arg(dir.path()).args(["-cf", "-", "f"]).output().expect("runs tar");
    let output = rig.feed(&["vm", "cp", "-", "dev:/tmp"], &tar.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(rig.sh("dev", "cat /tmp/f"), "streamed");
    let mut child = rig.spawn(&["vm", "cp", "dev:/tmp/f", "-"]);
    let list = Command::new("tar")
        .args(["-tf", "-"])
        .stdin(Stdio::from(child.stdout.take().expect("is piped")))
        .output();
    assert_eq!(String::from_utf8_lossy(&list.expect("runs tar").stdout), "f\n");
    assert!(child.wait().expect("ends").success());
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn copying_what_is_not_there_is_one_clear_sentence() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    let dir = tempfile::tempdir().expect("a directory");
    let here = dir.path().to_str().expect("UTF-8");
    assert!(rig.refused(&format!("vm cp dev:/no/such {here}")).contains("/no/such"));
    assert!(rig.refused(&format!("vm cp {here}/none dev:/tmp")).contains("none"));
    assert!(rig.refused(&format!("vm cp {here} dev:/no/such/dir")).contains("/no/such"));
    assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 0);
}
