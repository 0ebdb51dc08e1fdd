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

/// A registry on a free port of 127.0.0.1, ended when dropped.
struct Registry {
    process: std::process::Child,
    port: u16,
}

impl Registry {
    fn start(dir: &Path) -> Self {
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let config = dir.join("registry.yml");
        let store = dir.join("store");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            store.display()
        );
        std::fs::write(&config, text).expect("writes");
        let log = std::fs::File::create(dir.join("registry.log")).expect("creates");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(log.try_clone().expect("clones")).stderr(log);
        let process = command.spawn().expect("runs docker-registry");
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Self { process, port }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).expect("it ran until now");
    }
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn an_image_that_is_not_here_is_pulled_by_its_reference() {
    let rig = Rig::new();
    let dir = tempfile::tempdir().expect("a directory");
    layout(dir.path());
    let registry = Registry::start(dir.path());
    let reference = format!("127.0.0.1:{}/team/app:1", registry.port);
    let copy = ["copy", "-q", "--dest-tls-verify=false", "oci:layout:app", &format!("docker://{reference}")];
    run("skopeo", &copy, dir.path());
    // A name that stands for another image is refused before anything is fetched, unless it is to move.
    let said = rig.refused(&format!("image pull {reference} --name scratch"));
    assert!(said.contains("\"scratch\" stands for another image already"), "{said}");
    let blobs = std::fs::read_dir(rig.path().join("cache/oci/blobs/sha256"));
    assert_eq!(blobs.map_or(0, Iterator::count), 0);
    let scratch = rig.json("image show --json scratch");
    let end = rig.banger(&format!("vm run --rm --image {reference}"));
    assert_eq!((end.status, end.stdout.as_str()), (0, "the default\n"), "{end:#?}");
    let shown = rig.json(&format!("image show --json {reference}"));
    assert!(shown["digest"].as_str().is_some_and(|d| d.starts_with("sha256:")), "{shown:#}");
    rig.refused(&format!("image pull {reference} --name scratch"));
    assert_eq!(rig.json("image show --json scratch"), scratch);
    rig.ok(&format!("image pull {reference} --name scratch --force"));
    assert_eq!(rig.json("image show --json scratch")["id"], shown["id"]);
    let said = rig.refused(&format!("image pull 127.0.0.1:{}/team/nothing:1", registry.port));
    assert!(said.contains("team/nothing"), "{said}");
    // With the registry gone, what is here still runs.
    drop(registry);
    rig.ok(&format!("vm create --no-start --image {reference}"));
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

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_registered_file_boots_and_stays_as_it_is_and_its_vms_outlive_it_once_it_is_promoted() {
    let rig = Rig::new();
    let dir = tempfile::tempdir().expect("a directory");
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).expect("makes a directory");
    run("tar", &["-xf", part("busybox.tar").to_str().expect("UTF-8")], &tree);
    // As large as its blocks are small: 1 KiB, mke2fs's choice for a file system of this size.
    run("mke2fs", &["-q", "-t", "ext4", "-d", "tree", "mine.ext4", "24M"], dir.path());
    let file = dir.path().join("mine.ext4");
    let sum = || blake3::hash(&std::fs::read(&file).expect("reads"));
    let before = sum();
    rig.ok_args(&["image", "register", file.to_str().expect("UTF-8")]);
    let list = rig.ok("image list");
    assert!(list.contains(&format!("registered: {}", file.display())), "{list}");
    rig.ok("vm run -q -d --name dev --image mine --disk-size 1G");
    rig.sh(
        "dev",
        "echo theirs >/etc/group; echo kept >/root/kept; head -c 40000000 /dev/zero >/root/much; sync",
    );
    rig.ok("vm restart dev");
    assert_eq!(rig.sh("dev", "cat /root/kept"), "kept\n");
    assert_eq!(sum(), before);
    rig.ok("image promote mine");
    let shown = rig.json("image show --json mine");
    assert_eq!(
        (shown["id"].as_str(), shown["path"].as_str()),
        (Some(before.to_hex().as_str()), None),
        "{shown:#}"
    );
    std::fs::remove_file(&file).expect("removes it");
    rig.ok("vm restart dev");
    assert_eq!(rig.sh("dev", "cat /root/kept /etc/group; wc -c </root/much"), "kept\ntheirs\n40000000\n");
}
