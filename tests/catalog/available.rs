//! What catalogs have, for people and for programs.

use serde_json::json;

use crate::support::{OTHER_ARCH, Publisher, Rig, Server, catalog, image_bundle, kernel_bundle};

const AT: &str = "/catalog.json";

fn published() -> (Server, Rig) {
    let (server, publisher) = (Server::start(), Publisher::new());
    let golden = image_bundle(&server, "/golden.tar.zst", "golden", 1);
    let mut foreign = image_bundle(&server, "/foreign.tar.zst", "foreign", 1);
    foreign["arch"] = json!(OTHER_ARCH);
    let small = kernel_bundle(&server, "/small.tar.zst", "small", 1);
    publisher.publish(&server, AT, &catalog(&[golden, foreign], &[small]));
    let rig = Rig::with(&server, &publisher, &[AT]);
    (server, rig)
}

fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[test]
fn what_there_is_for_this_machine_is_listed_with_what_is_here_of_it() {
    let (_server, rig) = published();
    let table = rig.ok("image list --available").out;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(cells(lines[0]), ["NAME", "STATE", "DISTRO", "ARCH", "SIZE", "DESCRIPTION"]);
    let golden = cells(lines[1]);
    assert_eq!((golden[0], golden[1], golden[5]), ("golden", "available", "golden, for tests"));
    assert_eq!(&cells(lines[2])[..2], ["debian-bookworm", "available"], "the one in banger comes last");
    assert!(!table.contains("foreign"), "{table}");
    rig.ok("image pull golden");
    rig.ok("kernel pull small");
    for (list, name) in [("image", "golden"), ("kernel", "small")] {
        let offers = rig.json(&format!("{list} list --available --json"));
        let offer = offers.as_array().expect("a list").iter().find(|o| o["name"] == name).expect("is there");
        assert_eq!(offer["state"], "pulled", "{offer:#}");
        assert!(offer["bytes"].as_u64().is_some_and(|bytes| bytes > 100), "{offer:#}");
        let table = rig.ok(&format!("{list} list --available")).out;
        assert!(table.lines().any(|l| cells(l)[..2] == [name, "pulled"]), "{table}");
    }
    // The fields are a promise to programs; help names them.
    let fields = |line: &str| -> Vec<String> {
        rig.json(line)[0].as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(
        fields("image list --available --json"),
        ["arch", "bytes", "catalog", "description", "distro", "kernel", "name", "source", "state"]
    );
    assert_eq!(
        fields("kernel list --available --json"),
        ["arch", "bytes", "catalog", "description", "name", "source", "state", "version"]
    );
}

#[test]
fn names_are_completed_from_what_is_known_here_and_nobody_is_asked() {
    let (server, rig) = published();
    let completed = |words: &[&str]| -> Vec<String> {
        let ran = rig.args(&[&["complete", "--"], words].concat());
        ran.out.lines().map(|l| l.split('\t').next().expect("a word").to_owned()).collect()
    };
    rig.ok("image list");
    assert_eq!(completed(&["image", "pull", ""]), ["debian-bookworm"]);
    assert_eq!(server.answers(AT), [0u16; 0]);
    rig.ok("image list --available");
    assert_eq!(completed(&["image", "pull", ""]), ["golden", "debian-bookworm"]);
    assert_eq!(completed(&["kernel", "pull", "s"]), ["small"]);
    assert_eq!(server.answers(AT), [200]);
}
