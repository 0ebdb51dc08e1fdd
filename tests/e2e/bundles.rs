//! From a machine with everything to one with nothing and no network, by one file: an image, its kernel, and banger itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::rig::{Rig, part};

/// A network namespace in which nothing is up, not even loopback; dropping it removes it.
struct Alone(String);

impl Alone {
    fn new() -> Self {
        let alone = Self(format!("bgralone{:x}", std::process::id()));
        let made = Command::new("ip").args(["netns", "add", &alone.0]).status().expect("runs ip");
        assert!(made.success());
        alone
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let gone = Command::new("ip").args(["netns", "delete", &self.0]).status().expect("runs ip");
        assert!(gone.success() || std::thread::panicking());
    }
}

fn bundle(rig: &Rig, dir: &Path, what: &[&str]) -> PathBuf {
    let path = dir.join("offline.bundle");
    let file = path.to_str().expect("UTF-8");
    rig.ok_args(&[&["bundle", "create", "-q", file], what].concat());
    path
}

#[test]
#[ignore = "boots a VM in a network namespace of its own, as root; run by tests/run.sh"]
fn a_machine_with_nothing_and_no_network_boots_a_vm_from_one_file() {
    let seed = Rig::new();
    let dir = tempfile::tempdir_in(part("")).expect("a directory");
    let kernel = seed.json("kernel list --json")[0]["name"].as_str().expect("a name").to_owned();
    let file = bundle(&seed, dir.path(), &["--image", "busybox", "--kernel", &kernel]);
    let listed = seed.json("image show --json busybox");
    drop(seed);

    let alone = Alone::new();
    // The file is all that this machine is given: banger comes out of it, too.
    let mut rig = Rig::empty_in(&alone.0);
    let taken = Command::new("tar")
        .arg("--zstd")
        .arg("-xf")
        .arg(&file)
        .arg("banger")
        .current_dir(rig.path())
        .status();
    assert!(taken.expect("runs tar").success());
    rig.run_by(rig.path().join("banger"));
    let view = rig.json(&format!("bundle install --json {}", file.display()));
    let states: Vec<_> =
        view["parts"].as_array().expect("parts").iter().map(|p| p["state"].clone()).collect();
    assert_eq!(states, [json!("installed"), json!("installed")]);
    std::fs::remove_file(&file).expect("removes");
    assert_eq!(rig.json("image show --json busybox")["id"], listed["id"]);
    let end = rig.args(&[
        "vm",
        "run",
        "--rm",
        "-q",
        "--image",
        "busybox",
        "--",
        "sh",
        "-c",
        "uname -r; ls /lib/modules; echo done",
    ]);
    assert_eq!(
        (end.status, end.stdout),
        (0, format!("{kernel}\n{kernel}\ndone\n")),
        "{}\n{}",
        end.stderr,
        rig.daemon_log()
    );
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "needs the parts made by tests/run.sh"]
fn a_crash_while_a_bundle_is_installed_leaves_all_of_it_or_what_the_next_start_removes() {
    let seed = Rig::new().debug();
    let dir = tempfile::tempdir_in(part("")).expect("a directory");
    let kernel = seed.json("kernel list --json")[0]["name"].as_str().expect("a name").to_owned();
    let file = bundle(&seed, dir.path(), &["--image", "busybox", "--kernel", &kernel]);
    let line = format!("bundle install -q {}", file.display());
    for step in ["bundle: unpacked", "bundle: kernel moved", "bundle: files moved", "bundle: recorded"] {
        let rig = Rig::empty().debug();
        let words: Vec<&str> = line.split(' ').collect();
        let end = rig.command(words).env("BANGER_FAILPOINT", step).output().expect("runs");
        assert!(!end.status.success(), "{step}: {end:?}");
        let there = step == "bundle: recorded";
        assert_eq!(
            rig.json("image list --json").as_array().expect("images").len(),
            usize::from(there),
            "{step}"
        );
        assert_eq!(
            rig.json("kernel list --json").as_array().expect("kernels").len(),
            usize::from(there),
            "{step}"
        );
        for place in ["images", "kernels"] {
            let left = std::fs::read_dir(rig.state(place)).expect("lists").count();
            assert_eq!(left, usize::from(there), "{step}: {place}");
        }
        rig.ok(&line);
        assert_eq!(rig.json("image list --json").as_array().expect("images").len(), 1, "{step}");
    }
}
