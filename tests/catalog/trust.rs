//! Whose catalogs count: signed by a known key, of a known version, no longer than they may be; and what is known of them when
//! they cannot be had.

use serde_json::json;

use crate::support::{Page, Publisher, Rig, Server, catalog, image_bundle, names_in};

const AT: &str = "/catalog.json";

/// A server with a catalog of one image, `golden`, and a banger that trusts its publisher.
fn published() -> (Server, Publisher, Rig) {
    let (server, publisher) = (Server::start(), Publisher::new());
    let golden = image_bundle(&server, "/golden.tar.zst", "golden", 1);
    publisher.publish(&server, AT, &catalog(&[golden], &[]));
    let rig = Rig::with(&server, &publisher, &[AT]);
    (server, publisher, rig)
}

#[test]
fn a_signed_catalog_gives_its_image() {
    let (_server, _publisher, rig) = published();
    assert_eq!(rig.ok("image pull golden").out, "golden\n");
    let shown = rig.json("image show --json golden");
    assert_eq!(shown["config"]["Env"], json!(["FROM=bundle"]), "{shown:#}");
}

#[test]
fn what_nobody_known_has_signed_is_not_read() {
    let (server, publisher, rig) = published();
    let body = catalog(&[], &[]).to_string();
    let stranger = Publisher::new().sign(body.as_bytes());
    let other = publisher.sign(b"another catalog");
    for (signature, why) in [
        (Some(stranger), "its signature was made by none of the known keys, or for another content"),
        (Some(other), "its signature was made by none of the known keys, or for another content"),
        (Some("not base64!".to_owned()), "its signature is not base64"),
        (Some(String::new()), "its signature was made by none of the known keys"),
        (Some("A".repeat(2000)), "catalog.json.sig is longer than 1024 bytes"),
        (None, "is not signed: there is nothing at"),
    ] {
        server.put(AT, body.clone());
        match signature {
            Some(signature) => server.put("/catalog.json.sig", signature),
            None => server.remove("/catalog.json.sig"),
        }
        let said = rig.refused("image pull golden");
        assert!(said.contains(why), "{why}: {said}");
        assert!(said.contains("docker.io/library/golden"), "the way past it: {said}");
    }
    assert_eq!(names_in(&rig.path("cache/catalogs")), [""; 0], "nothing of it is kept");
}

#[test]
fn without_a_key_of_the_publishers_no_catalog_counts() {
    let (server, ..) = published();
    let placeholder = banger::catalog::EMBEDDED_KEY;
    for keys in ["[]".to_owned(), format!("['''{placeholder}''']")] {
        let rig = Rig::new(&format!("catalog_urls = ['{}']\ncatalog_keys = {keys}\n", server.at(AT)));
        let said = rig.refused("image pull golden");
        assert!(said.contains("name its publisher's key in catalog_keys"), "{said}");
    }
    let rig = Rig::new(&format!("catalog_urls = ['{}']\ncatalog_keys = ['/no/such.pem']\n", server.at(AT)));
    assert!(rig.refused("image pull golden").contains("cannot read the key /no/such.pem"));
}

#[test]
fn a_key_may_be_a_file_and_a_catalog_too() {
    let publisher = Publisher::new();
    let server = Server::start();
    let golden = image_bundle(&server, "/golden.tar.zst", "golden", 1);
    let body = catalog(&[golden], &[]).to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("key.pem"), publisher.pem()).expect("writes");
    std::fs::write(path("catalog.json"), &body).expect("writes");
    let config = format!(
        "catalog_urls = ['{}']\ncatalog_keys = ['{}']\n",
        path("catalog.json").display(),
        path("key.pem").display()
    );
    let rig = Rig::new(&config);
    assert!(rig.refused("image pull golden").contains("catalog.json.sig"), "it is not signed");
    std::fs::write(path("catalog.json.sig"), publisher.sign(body.as_bytes())).expect("writes");
    rig.ok("image pull golden");
}

#[test]
fn a_newer_or_bent_or_endless_catalog_is_refused_in_a_sentence() {
    let (server, publisher, rig) = published();
    for (catalog, why) in [
        (
            json!({"version": 2, "images": []}),
            "it is of version 2, and this banger knows catalogs up to version 1",
        ),
        (json!({"version": 1, "images": [{"name": "x"}]}), "it is not JSON as a catalog has it"),
        (
            json!({"version": 1, "images": [{"name": "../x", "distro": "d", "arch": "a", "reference": "debian"}]}),
            "its image 1 (../x) is not as it should be: its name",
        ),
    ] {
        publisher.publish(&server, AT, &catalog);
        let said = rig.refused("image pull golden");
        assert!(said.contains(why), "{said}");
    }
    let long = format!("{{\"version\":1,\"x\":\"{}\"}}", "x".repeat(1 << 20));
    server.put(AT, long.clone());
    server.put("/catalog.json.sig", publisher.sign(long.as_bytes()));
    assert!(rig.refused("image pull golden").contains("catalog.json is longer than 1048576 bytes"));
    server.page(AT, Page { status: 200, endless: true, ..Page::default() });
    assert!(rig.refused("image pull golden").contains("catalog.json is longer than 1048576 bytes"));
}

#[test]
fn a_catalog_that_is_down_is_taken_as_it_was_and_that_is_said() {
    let (server, publisher, rig) = published();
    rig.ok("image pull golden");
    server.down(true);
    let ran = rig.ok("image pull golden");
    assert!(ran.err.contains("what is known of it from before is used"), "{ran:?}");
    assert!(ran.err.contains("golden is up to date"), "{ran:?}");
    server.down(false);
    server.page(AT, Page { status: 503, ..Page::default() });
    let ran = rig.ok("image pull golden");
    assert!(ran.err.contains("cannot be had (status 503); what is known of it"), "{ran:?}");
    // It is as it was, and costs no second transfer; then it is another.
    publisher.publish(&server, AT, &catalog(&[image_bundle(&server, "/golden.tar.zst", "golden", 1)], &[]));
    let ran = rig.ok("image pull golden");
    assert!(!ran.err.contains("from before") && ran.err.contains("golden is up to date"), "{ran:?}");
    assert_eq!(server.answers(AT), [200, 503, 304]);
    publisher.publish(&server, AT, &catalog(&[], &[]));
    let offers = rig.json("image list --available --json");
    assert_eq!(offers.as_array().expect("a list").len(), 1, "only the one in banger: {offers:#}");
}

#[test]
fn what_is_kept_of_a_catalog_is_judged_again_each_time() {
    let (server, _publisher, rig) = published();
    rig.ok("image pull golden");
    server.down(true);
    let cache = rig.path("cache/catalogs");
    let names = names_in(&cache);
    let [name] = names.as_slice() else { panic!("{names:?}") };
    let kept = std::fs::read(cache.join(name)).expect("reads");
    let bent = String::from_utf8(kept).expect("UTF-8").replace("golden.tar.zst", "poison.tar.zst");
    std::fs::write(cache.join(name), bent).expect("writes");
    let said = rig.refused("image pull golden");
    assert!(said.contains("cannot look up golden in the catalogs: cannot read http://127.0.0.1"), "{said}");
    // A bent file does not answer for the server's "not modified" either.
    server.down(false);
    rig.ok("image pull golden");
    assert_eq!(server.answers(AT), [200, 200]);
}

#[test]
fn a_key_that_is_withdrawn_takes_what_is_kept_with_it() {
    let (server, _publisher, rig) = published();
    rig.ok("image pull golden");
    rig.ok("daemon stop");
    let other = Publisher::new().pem();
    rig.configure(&format!("catalog_urls = ['{}']\ncatalog_keys = ['''{other}''']\n", server.at(AT)));
    server.down(true);
    let said = rig.refused("image pull golden");
    assert!(said.contains("cannot read http://127.0.0.1"), "{said}");
}

#[test]
fn the_first_catalog_that_has_a_name_decides_and_one_that_is_down_is_not_passed_over() {
    let (server, publisher) = (Server::start(), Publisher::new());
    let (mine, theirs) = ("/mine.json", "/theirs.json");
    let entry = |seed| image_bundle(&server, &format!("/{seed}.tar.zst"), "golden", seed);
    let (one, two) = (entry(1), entry(2));
    publisher.publish(&server, mine, &catalog(&[one], &[]));
    publisher.publish(&server, theirs, &catalog(&[two], &[]));
    let rig = Rig::with(&server, &publisher, &[mine, theirs]);
    rig.ok("image pull golden");
    assert_eq!((server.answers("/1.tar.zst"), server.answers("/2.tar.zst")), (vec![200], vec![]));
    assert_eq!(server.answers(theirs), [0u16; 0], "nobody had to ask there");
    let offers = rig.json("image list --available --json");
    let golden: Vec<_> =
        offers.as_array().expect("a list").iter().filter(|o| o["name"] == "golden").collect();
    assert_eq!(golden.len(), 1, "{offers:#}");
    assert_eq!(golden[0]["catalog"], server.at(mine));
    // A banger that has never read the first one does not go on to the second.
    let new = Rig::with(&server, &publisher, &[mine, theirs]);
    server.page(mine, Page { status: 500, ..Page::default() });
    let said = new.refused("image pull golden");
    assert!(said.contains("mine.json cannot be had (status 500)"), "{said}");
    assert_eq!(server.answers("/2.tar.zst"), [0u16; 0]);
    // In a list the others count, and the one that is missing is named.
    let ran = new.ok("image list --available --json");
    assert!(
        ran.err.contains("mine.json cannot be had (status 500)") && ran.out.contains("/2.tar.zst"),
        "{ran:?}"
    );
}

#[test]
fn a_catalog_may_be_moved_but_not_to_a_less_safe_place() {
    let (server, publisher, rig) = published();
    // A redirect without a place, and one in circles.
    server.page(AT, Page { status: 302, ..Page::default() });
    assert!(rig.refused("image pull golden").contains("it redirects to where nothing may be read from"));
    publisher.publish(&server, AT, &catalog(&[], &[]));
    rig.ok("image list --available");
}

#[test]
fn the_proxy_of_whoever_asks_is_asked_whoever_has_started_the_daemon() {
    let (proxy, publisher) = (Server::start(), Publisher::new());
    let pem = publisher.pem();
    let rig = Rig::new(&format!(
        "catalog_urls = ['https://catalog.invalid/c.json']\ncatalog_keys = ['''{pem}''']\n"
    ));
    // Without a proxy.
    rig.ok("image list");
    let lines: [&[&str]; 4] = [
        &["image", "pull", "x"],
        &["kernel", "pull", "x"],
        &["image", "list", "--available"],
        &["vm", "create"],
    ];
    for (n, line) in lines.iter().enumerate() {
        let ran =
            rig.command(line).env("HTTPS_PROXY", &proxy.url).env("NO_PROXY", "").output().expect("runs");
        assert_eq!(proxy.answers("catalog.invalid:443").len(), n + 1, "{line:?}: {ran:?}");
    }
}
