//! Images from catalogs: by reference or in a bundle, once for everybody who asks, and nothing of what is not as it should be.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use crate::support::{
    ARCH, OTHER_ARCH, Page, Publisher, Rig, Server, catalog, image_bundle, image_bundle_of, names_in, raw,
};

const AT: &str = "/catalog.json";
const BUNDLE: &str = "/golden.tar.zst";

#[test]
fn a_bundle_becomes_an_image_as_any_other() {
    let (server, publisher) = (Server::start(), Publisher::new());
    let raw = banger::catalog::about::RawAbout { kernel: Some("small".to_owned()), ..raw("golden") };
    let golden = image_bundle_of(&server, BUNDLE, raw, 1);
    publisher.publish(&server, AT, &catalog(std::slice::from_ref(&golden), &[]));
    let rig = Rig::with(&server, &publisher, &[AT]);
    let ran = rig.ok("image pull golden --name mine");
    assert_eq!(ran.out, "mine\n");
    assert!(ran.err.contains("pulling golden") && ran.err.contains("unpacking golden"), "{ran:?}");
    let shown = rig.json("image show --json golden");
    assert_eq!(shown["names"], json!(["golden", "mine"]));
    assert_eq!(shown["kernel"], "small");
    assert_eq!(shown["digest"], format!("sha256:{}", golden["sha256"].as_str().expect("text")));
    assert_eq!((&shown["source"], &shown["arch"]), (&golden["url"], &json!(ARCH)));
    let id = shown["id"].as_str().expect("an id");
    let file = rig.path(&format!("state/images/{id}.ext4"));
    let meta = std::fs::metadata(&file).expect("is there");
    assert_eq!((meta.permissions().mode() & 0o777, meta.len()), (0o444, 2 << 20));
    assert!(meta.blocks() * 512 < 1 << 20, "zeros take no room");
    assert_eq!(blake3::hash(&std::fs::read(&file).expect("reads")).to_hex().to_string(), id);
    rig.assert_nothing_is_staged();
    // What is here costs nothing but the look into the catalog.
    assert!(rig.ok("image pull golden").err.contains("golden is up to date"));
    assert_eq!(server.answers(BUNDLE), [200]);
}

#[test]
fn a_name_moves_to_what_the_catalog_says_now() {
    let (server, publisher) = (Server::start(), Publisher::new());
    let publish = |seed| {
        let golden = image_bundle(&server, BUNDLE, "golden", seed);
        publisher.publish(&server, AT, &catalog(&[golden], &[]));
    };
    publish(1);
    let rig = Rig::with(&server, &publisher, &[AT]);
    rig.ok("image pull golden");
    rig.ok("image tag golden old");
    publish(2);
    rig.ok("image pull golden");
    let names = |name| rig.json(&format!("image show --json {name}"))["names"].clone();
    assert_eq!((names("golden"), names("old")), (json!(["golden"]), json!(["old"])));
}

#[test]
fn a_bundle_that_is_not_the_one_that_is_meant_leaves_nothing() {
    let (server, publisher) = (Server::start(), Publisher::new());
    let golden = image_bundle(&server, BUNDLE, "golden", 1);
    publisher.publish(&server, AT, &catalog(std::slice::from_ref(&golden), &[]));
    let rig = Rig::with(&server, &publisher, &[AT]);
    let other = Server::start();
    image_bundle(&other, BUNDLE, "golden", 2);
    let size = usize::try_from(golden["size"].as_u64().expect("a number")).expect("small");
    let mut wrong = vec![b'x'; size];
    for (page, why) in [
        (
            Page { status: 200, body: wrong.clone(), ..Page::default() },
            "is not what the catalog says: its sha256 is",
        ),
        (Page { status: 200, body: wrong[1..].to_vec(), ..Page::default() }, "bytes, not"),
        (
            Page {
                status: 200,
                body: {
                    wrong.push(0);
                    wrong.clone()
                },
                ..Page::default()
            },
            "bytes, not",
        ),
        (
            Page { status: 200, body: wrong[..size].to_vec(), cut: Some(size / 2), ..Page::default() },
            "cannot read",
        ),
        (Page { status: 200, endless: true, ..Page::default() }, "it has more than"),
        (Page { status: 404, ..Page::default() }, "there is nothing at"),
        (Page { status: 500, ..Page::default() }, "cannot be had (status 500)"),
    ] {
        server.page(BUNDLE, page);
        let said = rig.refused("image pull golden");
        assert!(said.contains("cannot pull the image golden") && said.contains(why), "{why}: {said}");
        assert_eq!(names_in(&rig.path("state/images")), [""; 0]);
    }
    server.down(true);
    assert!(rig.refused("image pull golden").contains("cannot"));
}

#[test]
fn a_bundle_of_another_name_is_refused_although_its_hash_is_right() {
    let (server, publisher) = (Server::start(), Publisher::new());
    let mut copper = image_bundle(&server, BUNDLE, "copper", 1);
    copper["name"] = json!("golden");
    publisher.publish(&server, AT, &catalog(&[copper], &[]));
    let rig = Rig::with(&server, &publisher, &[AT]);
    let said = rig.refused("image pull golden");
    assert!(said.contains("another than the catalog means: its name is copper, not golden"), "{said}");
    assert_eq!(names_in(&rig.path("state/images")), [""; 0]);
}

#[test]
fn many_who_ask_for_one_name_at_once_share_the_work() {
    let (server, publisher) = (Server::start(), Publisher::new());
    let golden = image_bundle(&server, BUNDLE, "golden", 1);
    publisher.publish(&server, AT, &catalog(&[golden], &[]));
    let rig = Rig::with(&server, &publisher, &[AT]);
    rig.ok("image list");
    let children: Vec<_> = (0..8)
        .map(|_| {
            let mut command = rig.command(&["image", "pull", "-q", "golden"]);
            command.stdout(std::process::Stdio::piped()).spawn().expect("runs")
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success() && output.stdout == b"golden\n", "{output:?}");
    }
    assert_eq!(server.answers(BUNDLE), [200]);
}

#[test]
fn an_entry_for_another_machine_is_not_pulled_from_a_registry_instead() {
    let (server, publisher) = (Server::start(), Publisher::new());
    let mut golden = image_bundle(&server, BUNDLE, "golden", 1);
    golden["arch"] = json!(OTHER_ARCH);
    publisher.publish(&server, AT, &catalog(&[golden], &[]));
    let rig = Rig::with(&server, &publisher, &[AT]);
    let said = rig.refused("image pull golden");
    assert!(said.contains(&format!("is for {OTHER_ARCH}, and this machine is {ARCH}")), "{said}");
}

#[test]
fn a_reference_of_a_catalog_is_asked_of_its_registry() {
    let (server, publisher) = (Server::start(), Publisher::new());
    // No registry: whoever asks it gets a 404, and the error names whom it has asked.
    let registry = server.url.strip_prefix("http://").expect("a URL");
    let entry =
        json!({"name": "app", "distro": "none", "arch": ARCH, "reference": format!("{registry}/team/app:1")});
    publisher.publish(&server, AT, &catalog(&[entry], &[]));
    let rig = Rig::with(&server, &publisher, &[AT]);
    let said = rig.refused("image pull app");
    assert!(said.contains(&format!("cannot pull {registry}/team/app:1")), "{said}");
    assert!(!server.answers("/v2/team/app/manifests/1").is_empty());
    // What has a tag is no name of a catalog: nobody looks there.
    let before = server.answers(AT).len();
    rig.refused(&format!("image pull {registry}/team/app:2"));
    assert_eq!(server.answers(AT).len(), before);
}

#[test]
fn whoever_gives_up_waiting_leaves_nothing() {
    let (server, publisher) = (Server::start(), Publisher::new());
    let mut golden = image_bundle(&server, BUNDLE, "golden", 1);
    // It comes without end, and there is no end to wait for.
    golden["size"] = json!(1u64 << 34);
    publisher.publish(&server, AT, &catalog(&[golden], &[]));
    server.page(BUNDLE, Page { status: 200, endless: true, ..Page::default() });
    let rig = Rig::with(&server, &publisher, &[AT]);
    let mut child = rig.command(&["image", "pull", "-q", "golden"]).spawn().expect("runs");
    while server.answers(BUNDLE).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().expect("kills its own child");
    child.wait().expect("reaps");
    let begun = std::time::Instant::now();
    while !rig.log().contains("cannot pull the image golden: cancelled") {
        assert!(begun.elapsed().as_secs() < 60, "{}", rig.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(open_files(&rig), 0);
    rig.assert_nothing_is_staged();
    assert_eq!(names_in(&rig.path("state/images")), [""; 0]);
}

/// Files without a name that the rig's daemon has open below its images.
fn open_files(rig: &Rig) -> usize {
    let pid = rig.json("daemon status --json")["pid"].as_u64().expect("a pid");
    let images = rig.path("state/images");
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("lists");
    let paths = links.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    paths.filter(|path| path.starts_with(&images)).count()
}
