//! Images from every kind of source, and what they ask of the processes that run in them.

use std::path::Path;
use std::process::Command;

use crate::rig::{Rig, part};

fn run(program: &str, args: &[&str], dir: &Path) {
    let out = Command::new(program).args(args).current_dir(dir).output().expect("runs");
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// An OCI layout `layout` in `dir` with one image `app`: busybox, with a configuration of its own.
fn layout(dir: &Path) {
    let busybox = part("busybox.tar");
    run("umoci", &["init", "--layout", "layout"], dir);
    run("umoci", &["new", "--image", "layout:app"], dir);
    run("umoci", &["raw", "add-layer", "--image", "layout:app", busybox.to_str().expect("UTF-8")], dir);
    let config = [
        "config",
        "--image",
        "layout:app",
        "--config.user",
        "app",
        "--config.workingdir",
        "/srv/app",
        "--config.env",
        "COLOUR=blue",
        "--config.env",
        "PATH=/bin",
        "--config.entrypoint",
        "echo",
        "--config.cmd",
        "the default",
    ];
    run("umoci", &config, dir);
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn an_images_own_configuration_is_honoured_as_docker_does() {
    let rig = Rig::new();
    let dir = tempfile::tempdir().expect("a directory");
    layout(dir.path());
    let path = dir.path().join("layout");
    rig.ok_args(&["image", "import", path.to_str().expect("UTF-8"), "--name", "app"]);
    // Entrypoint with Cmd; Entrypoint with what was asked for; exec without either.
    assert_eq!(rig.ok("vm run -q --rm --image app"), "the default\n");
    let end = rig.banger("vm run -q --name dev --image app -- something else");
    assert_eq!((end.status, end.stdout.as_str()), (0, "something else\n"), "{end:#?}");
    assert_eq!(rig.sh("dev", "echo $COLOUR $PWD $(id -un)"), "blue /srv/app app\n");
    let script = "echo $COLOUR $(pwd)";
    let changed = ["vm", "exec", "-e", "COLOUR=red", "-w", "/", "dev", "--", "sh", "-c", script];
    assert_eq!(rig.ok_args(&changed), "red /\n");
}

#[test]
#[ignore = "needs the parts made by tests/run.sh"]
fn an_image_is_recognised_by_content_whatever_it_is_packed_in() {
    let rig = Rig::new();
    let dir = tempfile::tempdir().expect("a directory");
    layout(dir.path());
    run("tar", &["-C", "layout", "-cf", "layout.tar", "."], dir.path());
    run("skopeo", &["copy", "-q", "oci:layout:app", "docker-archive:docker.tar:example/app:1"], dir.path());
    run("sh", &["-c", "gzip -k docker.tar; zstd -q layout.tar"], dir.path());
    let mut ids = vec![];
    for name in ["layout", "layout.tar", "docker.tar", "docker.tar.gz", "layout.tar.zst"] {
        let path = dir.path().join(name);
        let alias = name.replace('.', "-");
        rig.ok_args(&["image", "import", path.to_str().expect("UTF-8"), "--name", &alias]);
        let shown = rig.json(&format!("image show --json {alias}"));
        assert_eq!(shown["config"]["User"], "app", "{name}: {shown:#}");
        ids.push(shown["id"].as_str().expect("an id").to_owned());
    }
    let tar = std::fs::read(dir.path().join("docker.tar")).expect("reads");
    let output = rig.feed(&["image", "import", "-", "--name", "piped"], &tar);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let piped = rig.json("image show --json piped");
    assert_eq!(piped["config"]["User"], "app", "{piped:#}");
    for id in ids {
        assert_eq!(rig.json(&format!("image show --json {id}"))["bytes"], piped["bytes"]);
    }
}

#[test]
#[ignore = "needs the parts made by tests/run.sh"]
fn names_can_be_added_moved_and_removed_and_an_image_in_use_is_kept() {
    let rig = Rig::new();
    rig.ok("image tag busybox mine");
    rig.ok("vm create --no-start --name dev --image mine");
    let id = rig.json("image show --json busybox")["id"].as_str().expect("an id").to_owned();
    assert!(rig.refused(&format!("image delete {id}")).contains("dev"));
    rig.ok("image delete mine");
    assert!(rig.refused("image delete busybox").contains("dev"));
    rig.ok("vm delete dev");
    rig.ok("image delete busybox");
    assert!(!rig.state(&format!("images/{id}.ext4")).exists());
    assert!(rig.ok("image list").contains("minbase"));
}
