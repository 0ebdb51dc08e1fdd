//! What a new VM is made of when nobody says it: the default image and a kernel, pulled where they are not here, and said so.

use serde_json::json;

use crate::support::{
    BUILTIN, Publisher, Rig, Server, VERSION, catalog, fake_kernel, image_bundle, image_bundle_of,
    kernel_bundle, raw,
};

const AT: &str = "/catalog.json";
const CREATE: &str = "vm create --no-start --memory 128M --vcpu 1 --disk-size 64M";

/// A catalog with the default image, which wants the kernel `wanted`, and two kernels.
fn published(wanted: Option<&str>) -> (Server, Publisher, Rig) {
    let (server, publisher) = (Server::start(), Publisher::new());
    let raw =
        banger::catalog::about::RawAbout { kernel: wanted.map(str::to_owned), ..raw("debian-bookworm") };
    let image = image_bundle_of(&server, "/debian.tar.zst", raw, 1);
    let first = kernel_bundle(&server, "/first.tar.zst", "first", 1);
    let second = kernel_bundle(&server, "/second.tar.zst", "second", 2);
    publisher.publish(&server, AT, &catalog(&[image], &[first, second]));
    let rig = Rig::with(&server, &publisher, &[AT]);
    (server, publisher, rig)
}

/// Imports a kernel from a directory, as `--from` takes it.
fn import_kernel(rig: &Rig, name: &str, seed: u8) {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("modules")).expect("makes a directory");
    std::fs::write(dir.path().join("modules/modules.builtin"), BUILTIN).expect("writes");
    std::fs::write(dir.path().join("vmlinux"), fake_kernel(VERSION, seed)).expect("writes");
    let from = dir.path().to_str().expect("UTF-8");
    let ran = rig.args(&["kernel", "import", "--from", from, "--name", name]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

fn kernel_of(rig: &Rig, vm: &str) -> serde_json::Value {
    rig.json(&format!("vm show --json {vm}"))["kernel"].clone()
}

#[test]
fn with_nothing_here_image_and_kernel_are_pulled_and_each_is_said() {
    let (server, _publisher, rig) = published(None);
    let ran = rig.ok(&format!("{CREATE} --name dev"));
    assert!(
        ran.err.contains("note: there is no kernel here yet; pulling first from http://127.0.0.1"),
        "{ran:?}"
    );
    assert!(
        ran.err
            .contains("note: there is no image debian-bookworm here yet; pulling it from http://127.0.0.1"),
        "{ran:?}"
    );
    let shown = rig.json("vm show --json dev");
    assert_eq!((&shown["image_name"], &shown["kernel"]), (&json!("debian-bookworm"), &json!(null)));
    assert_eq!(rig.json("kernel show --json first")["default"], true);
    // All of it is here now: the second one asks nobody.
    server.down(true);
    let ran = rig.ok(&format!("{CREATE} --name other"));
    assert!(!ran.err.contains("pulling"), "{ran:?}");
}

#[test]
fn the_kernel_that_an_image_wants_is_its_vms() {
    let (server, _publisher, rig) = published(Some("second"));
    import_kernel(&rig, "mine", 9);
    let ran = rig.ok(&format!("{CREATE} --name dev"));
    assert!(
        ran.err.contains("note: the image wants the kernel second; pulling it from http://127.0.0.1"),
        "{ran:?}"
    );
    assert_eq!(kernel_of(&rig, "dev"), "second");
    assert_eq!(rig.json("kernel show --json mine")["default"], true, "the default is what it was");
    assert_eq!(server.answers("/first.tar.zst"), [0u16; 0]);
    // It is here now; whoever says another one gets it; and it cannot be removed while the VM needs it.
    rig.ok(&format!("{CREATE} --name other"));
    assert_eq!(kernel_of(&rig, "other"), "second");
    rig.ok(&format!("{CREATE} --name third --kernel mine"));
    assert_eq!(kernel_of(&rig, "third"), "mine");
    assert!(rig.refused("kernel rm second").contains("kernel second is needed by vms "));
}

#[test]
fn a_wanted_kernel_that_nobody_has_gives_way_to_the_default_one_with_a_line() {
    let (_server, _publisher, rig) = published(Some("third"));
    import_kernel(&rig, "mine", 9);
    let ran = rig.ok(&format!("{CREATE} --name dev"));
    assert!(
        ran.err.contains("the image wants the kernel third, which is not here; the default one is taken (no catalog has it)"),
        "{ran:?}"
    );
    assert_eq!(kernel_of(&rig, "dev"), json!(null));
}

#[test]
fn without_a_kernel_anywhere_nothing_is_downloaded_and_the_ways_are_said() {
    let (server, publisher, rig) = published(None);
    publisher.publish(
        &server,
        AT,
        &catalog(&[image_bundle(&server, "/debian.tar.zst", "debian-bookworm", 1)], &[]),
    );
    let said = rig.refused(CREATE);
    assert!(
        said.contains("there is no kernel yet") && said.contains("`banger kernel import --deb FILE`"),
        "{said}"
    );
    assert_eq!(server.answers("/debian.tar.zst"), [0u16; 0]);
    server.down(true);
    rig.ok("daemon stop");
    std::fs::remove_dir_all(rig.path("cache/catalogs")).expect("removes");
    let said = rig.refused(&format!("{CREATE} --image docker.io/library/busybox"));
    assert!(
        said.contains("and the catalogs cannot be asked for one (cannot read http://127.0.0.1"),
        "{said}"
    );
}

#[test]
fn an_image_that_somebody_called_debian_is_the_default_until_the_catalogs_is_here() {
    let (server, _publisher, rig) = published(None);
    import_kernel(&rig, "mine", 9);
    rig.ok("image pull debian-bookworm");
    rig.ok("image tag debian-bookworm keep");
    rig.ok("image tag debian-bookworm debian");
    rig.ok("image delete debian-bookworm");
    let name = |vm: &str| rig.json(&format!("vm show --json {vm}"))["image_name"].clone();
    server.down(true);
    rig.ok(&format!("{CREATE} --name dev"));
    assert_eq!(name("dev"), "debian");
    server.down(false);
    rig.ok("image pull debian-bookworm");
    rig.ok(&format!("{CREATE} --name other"));
    assert_eq!(name("other"), "debian-bookworm");
    // What the configuration says is not second-guessed.
    rig.ok("daemon stop");
    rig.configure("default_image_name = 'keep'");
    rig.ok(&format!("{CREATE} --name third"));
    assert_eq!(name("third"), "keep");
}
