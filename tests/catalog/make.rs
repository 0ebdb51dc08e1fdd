//! `banger internal make-bundle`: what it makes can be pulled, twice the same, and it needs no daemon.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{ARCH, BUILTIN, Publisher, Ran, Rig, Server, VERSION, catalog, fake_kernel, names_in};

const AT: &str = "/catalog.json";

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A small root file system as a tar.
fn root_tar(dir: &Path) -> String {
    let root = dir.join("root");
    fs::create_dir_all(root.join("etc")).expect("makes directories");
    fs::write(root.join("etc/hostname"), "bundle\n").expect("writes");
    let out = dir.join("root.tar");
    let tar = std::process::Command::new("tar")
        .args([
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "-cf",
            text(&out),
            "-C",
            text(&root),
            ".",
        ])
        .status();
    assert!(tar.expect("runs tar").success());
    text(&out).to_owned()
}

/// What it printed.
fn printed(ran: &Ran) -> Value {
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    serde_json::from_str(&ran.out).expect("JSON")
}

fn kernel_files(dir: &Path) -> (String, String) {
    fs::create_dir(dir.join("modules")).expect("makes a directory");
    fs::write(dir.join("modules/modules.builtin"), BUILTIN).expect("writes");
    std::os::unix::fs::symlink("/usr/src/linux", dir.join("modules/build")).expect("links");
    fs::write(dir.join("kernel"), fake_kernel(VERSION, 1)).expect("writes");
    (text(&dir.join("kernel")).to_owned(), text(&dir.join("modules")).to_owned())
}

#[test]
fn a_kernels_bundle_is_made_without_a_daemon_twice_the_same_and_pulled_by_its_entry() {
    let rig = Rig::new("");
    let dir = tempfile::tempdir().expect("a directory");
    let (kernel, modules) = kernel_files(dir.path());
    let out = text(dir.path()).to_owned();
    let args = [
        "internal",
        "make-bundle",
        "-q",
        "--kernel",
        &kernel,
        "--modules",
        &modules,
        "--name",
        "small",
        "--version",
        VERSION,
        "--description",
        "a small one",
        "--out",
        &out,
    ];
    let made = printed(&rig.args(&args));
    assert!(!rig.path("state").exists() && !rig.path("run").exists(), "no daemon was needed");
    let sha256 = made["sha256"].as_str().expect("text");
    let bundle = made["bundle"].as_str().expect("text");
    assert_eq!(bundle, format!("{out}/small-{ARCH}-{}.tar.zst", &sha256[..12]));
    assert_eq!(made["size"], fs::metadata(bundle).expect("stats").len());
    assert_eq!(
        made["entry"],
        json!({"name": "small", "arch": ARCH, "version": VERSION, "description": "a small one", "url": bundle,
               "sha256": sha256, "size": made["size"]})
    );
    let first = fs::read(bundle).expect("reads");
    assert_eq!(printed(&rig.args(&args)), made);
    assert!(fs::read(bundle).expect("reads") == first, "the same bytes");
    assert_eq!(names_in(dir.path()).len(), 3, "nothing else is left: {:?}", names_in(dir.path()));
    // The entry is ready: a catalog of this machine may name files of it.
    let (server, publisher) = (Server::start(), Publisher::new());
    publisher.publish(&server, AT, &catalog(&[], &[made["entry"].clone()]));
    let pulling = Rig::with(&server, &publisher, &[AT]);
    pulling.ok("kernel pull small");
    assert_eq!(pulling.json("kernel show --json small")["version"], VERSION);
}

#[test]
#[ignore = "needs mke2fs and e2fsck"]
fn an_images_bundle_is_made_of_a_tar_and_pulled_by_its_entry() {
    let rig = Rig::new("");
    let dir = tempfile::tempdir().expect("a directory");
    let (tar, out) = (root_tar(dir.path()), dir.path().join("mine.tar.zst"));
    let args = [
        "internal",
        "make-bundle",
        "--rootfs-tar",
        &tar,
        "--name",
        "mine",
        "--distro",
        "debian",
        "--arch",
        ARCH,
        "--kernel-ref",
        "small",
        "--description",
        "my own",
        "--size",
        "256M",
        "--out",
        text(&out),
    ];
    let made = printed(&rig.args(&args));
    assert!(!rig.path("state").exists(), "no daemon was needed");
    assert_eq!((made["bundle"].as_str(), &made["entry"]["kernel"]), (out.to_str(), &json!("small")));
    let (server, publisher) = (Server::start(), Publisher::new());
    publisher.publish(&server, AT, &catalog(&[made["entry"].clone()], &[]));
    let pulling = Rig::with(&server, &publisher, &[AT]);
    pulling.ok("image pull mine");
    let shown = pulling.json("image show --json mine");
    assert_eq!((&shown["bytes"], &shown["kernel"]), (&json!(256 << 20), &json!("small")));
    let file = pulling.path(&format!("state/images/{}.ext4", shown["id"].as_str().expect("an id")));
    let run = |program: &str, args: &[&str]| {
        let out = std::process::Command::new(program)
            .args(args)
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .output();
        let out = out.expect("runs");
        assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stdout));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    run("e2fsck", &["-fn", text(&file)]);
    assert_eq!(run("debugfs", &["-R", "cat /etc/hostname", text(&file)]), "bundle\n");
    // From a pipe it is the same.
    let (mut again, piped) = (args, dir.path().join("piped.tar.zst"));
    let at = |word: &str| args.iter().position(|a| *a == word).expect("is there") + 1;
    (again[at("--rootfs-tar")], again[at("--out")]) = ("-", text(&piped));
    let piped = rig.command(&again).stdin(fs::File::open(&tar).expect("opens")).output().expect("runs");
    assert_eq!(printed(&piped.into())["sha256"], made["sha256"]);
}

#[test]
fn what_makes_no_bundle_is_refused_and_leaves_nothing() {
    let rig = Rig::new("");
    let dir = tempfile::tempdir().expect("a directory");
    let (kernel, modules) = kernel_files(dir.path());
    let junk = dir.path().join("junk");
    fs::write(&junk, "this is neither a tar nor a kernel").expect("writes");
    let out = dir.path().join("out");
    fs::create_dir(&out).expect("makes a directory");
    let junk = text(&junk);
    let table: [(&[&str], &str); 10] = [
        (&["--name", "x"], "one of --rootfs-tar FILE and --kernel FILE"),
        (
            &["--name", "x", "--kernel", &kernel, "--rootfs-tar", junk],
            "one of --rootfs-tar FILE and --kernel FILE",
        ),
        (&["--name", "x", "--rootfs-tar", junk], "an image needs --distro"),
        (&["--name", "x", "--kernel", &kernel, "--size", "1G"], "--size are an image's"),
        (
            &["--name", "x", "--rootfs-tar", junk, "--distro", "d", "--version", "6"],
            "--version are a kernel's",
        ),
        (&["--name", "X/y", "--rootfs-tar", junk, "--distro", "d"], "cannot name an image"),
        (&["--name", "x", "--rootfs-tar", junk, "--distro", "d"], "cannot make an image of that"),
        (&["--name", "x", "--kernel", junk], "cannot make a kernel of that"),
        (&["--name", "x", "--kernel", &kernel], "nothing says which drivers are built into"),
        (
            &["--name", "x", "--kernel", &kernel, "--modules", &modules, "--version", "5.0"],
            "the kernel is 6.12.30, not 5.0",
        ),
    ];
    for (args, why) in table {
        let ran = rig.args(&[&["internal", "make-bundle", "-q", "--out", text(&out)], args].concat());
        assert!(ran.code == Some(1) && ran.err.contains(why), "{args:?}: {ran:?}");
        assert_eq!(names_in(&out), [""; 0], "{args:?}");
    }
}
