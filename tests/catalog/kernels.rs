//! Kernels from catalogs.

use serde_json::json;

use crate::support::{Page, Publisher, Rig, Server, VERSION, catalog, kernel_bundle, names_in};

const AT: &str = "/catalog.json";
const BUNDLE: &str = "/small.tar.zst";

fn published(seed: u8) -> (Server, Publisher, Rig) {
    let (server, publisher) = (Server::start(), Publisher::new());
    let small = kernel_bundle(&server, BUNDLE, "small", seed);
    publisher.publish(&server, AT, &catalog(&[], &[small]));
    let rig = Rig::with(&server, &publisher, &[AT]);
    (server, publisher, rig)
}

#[test]
fn a_bundle_becomes_a_kernel_as_any_other_and_the_first_is_the_default() {
    let (server, _publisher, rig) = published(1);
    assert_eq!(rig.ok("kernel pull small").out, "small\n");
    let shown = rig.json("kernel show --json small");
    assert_eq!(
        (&shown["version"], &shown["default"], &shown["snapshot"]),
        (&json!(VERSION), &json!(true), &json!(true))
    );
    assert_eq!(shown["source"], server.at(BUNDLE));
    assert_eq!(names_in(&rig.path("state/kernels")), ["small"]);
    assert_eq!(names_in(&rig.path("state/kernels/small")), ["modules.cpio", "vmlinux"]);
    let ran = rig.ok("kernel pull small");
    assert!(ran.err.contains("kernel small is up to date"), "{ran:?}");
    assert_eq!(server.answers(BUNDLE), [200]);
}

#[test]
fn another_kernel_of_that_name_is_replaced_only_by_force() {
    let (server, publisher, rig) = published(1);
    rig.ok("kernel pull small");
    let before = rig.json("kernel show --json small");
    let small = kernel_bundle(&server, BUNDLE, "small", 2);
    publisher.publish(&server, AT, &catalog(&[], &[small]));
    let said = rig.refused("kernel pull small");
    assert!(said.contains("there is another kernel small already (6.12.30, from http://127.0.0.1"), "{said}");
    assert!(said.contains("`banger kernel pull small --force` replaces it"), "{said}");
    assert_eq!(rig.json("kernel show --json small"), before);
    rig.ok("kernel pull small --force");
    let after = rig.json("kernel show --json small");
    assert_ne!(after["blake3"], before["blake3"]);
    assert_eq!(after["default"], true);
    let vmlinux = std::fs::read(rig.path("state/kernels/small/vmlinux")).expect("reads");
    assert_eq!(blake3::hash(&vmlinux).to_hex().to_string(), after["blake3"]);
    assert_eq!(names_in(&rig.path("state/kernels")), ["small"], "nothing is left of the old one");
}

#[test]
fn a_name_that_no_catalog_has_is_refused_with_the_nearest() {
    let (_server, _publisher, rig) = published(1);
    rig.ok("kernel list --available");
    let said = rig.refused("kernel pull smal");
    assert!(said.contains("there is no kernel \"smal\" in the catalogs; did you mean small?"), "{said}");
    let said = rig.refused("kernel pull generic-6.12");
    assert!(said.contains("`banger kernel list --available` shows what there is"), "{said}");
    assert!(rig.refused("kernel pull ../x").contains("cannot name a kernel"));
}

#[test]
fn a_kernel_of_another_version_than_the_catalog_says_is_refused_and_leaves_nothing() {
    let (server, publisher, rig) = published(1);
    let mut small = kernel_bundle(&server, BUNDLE, "small", 1);
    small["version"] = json!("6.13");
    publisher.publish(&server, AT, &catalog(&[], &[small]));
    let said = rig.refused("kernel pull small");
    assert!(said.contains("another than the catalog means: its version is 6.12.30, not 6.13"), "{said}");
    assert_eq!(names_in(&rig.path("state/kernels")), [""; 0]);
}

#[test]
fn a_daemon_that_is_killed_while_it_pulls_leaves_nothing_and_the_next_one_pulls() {
    let (server, publisher) = (Server::start(), Publisher::new());
    let good = kernel_bundle(&server, "/good.tar.zst", "good", 1);
    let mut endless = good.clone();
    (endless["name"], endless["url"], endless["size"]) =
        (json!("endless"), json!(server.at(BUNDLE)), json!(1u64 << 30));
    server.page(BUNDLE, Page { status: 200, endless: true, ..Page::default() });
    publisher.publish(&server, AT, &catalog(&[], &[endless, good]));
    let rig = Rig::with(&server, &publisher, &[AT]);
    let mut pulling = rig.command(&["kernel", "pull", "-q", "endless"]).spawn().expect("runs");
    while server.answers(BUNDLE).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(names_in(&rig.path("state/kernels")).len(), 1, "its place while it is not finished");
    let pid = u32::try_from(rig.json("daemon status --json")["pid"].as_u64().expect("a pid")).expect("a pid");
    let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.expect("runs kill").success());
    assert_eq!(pulling.wait().expect("ends").code(), Some(1));
    // kill(1) returns before the process has gone.
    while banger::host::process::observe(pid).expect("reads /proc").is_some() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    rig.ok("kernel pull good");
    assert_eq!(names_in(&rig.path("state/kernels")), ["good"]);
    rig.assert_nothing_is_staged();
}
