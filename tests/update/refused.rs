//! Releases that are not taken: nothing changes, and one sentence says why.

use std::fs;

use serde_json::{Value, json};
use tar::EntryType;

use crate::publisher::{Executable, Publisher, manifest, pack_members, sha256, tarball_name};
use crate::rig::{MANIFEST, Rig};
use crate::server::Page;

const SUMS: &str = "/v0.2.0/SHA256SUMS";
const SIGNATURE: &str = "/v0.2.0/SHA256SUMS.sig";

fn tarball() -> String {
    format!("/v0.2.0/{}", tarball_name("v0.2.0"))
}

/// Publishes v0.2.0, lets `bend` change something of it, and returns why it is refused.
fn bent(bend: impl FnOnce(&Rig)) -> String {
    let rig = Rig::with(&[Executable::new("v0.2.0")]);
    bend(&rig);
    let said = rig.refused("");
    rig.assert_untouched(&said);
    said
}

fn of(bytes: Vec<u8>) -> String {
    bent(|rig| drop(rig.publisher.release(&rig.server, "v0.2.0", bytes)))
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn what_its_publisher_has_not_signed_is_refused() {
    let wrong = "verify: SHA256SUMS is not accepted: its signature was made by none of the known keys";
    for (why, said) in [
        (wrong, bent(|rig| rig.server.put(SIGNATURE, Publisher::new().sign(&rig.server.body(SUMS))))),
        (
            wrong,
            bent(|rig| rig.server.put(SUMS, format!("{}  {}\n", "0".repeat(64), tarball_name("v0.2.0")))),
        ),
        ("its signature is not base64", bent(|rig| rig.server.put(SIGNATURE, "!"))),
        (
            "download: fetch signature: HTTP 404 Not Found",
            bent(|rig| rig.server.page(SIGNATURE, Page::Status(404))),
        ),
        ("SHA256SUMS.sig is longer than 1024 bytes", bent(|rig| rig.server.put(SIGNATURE, "A".repeat(1025)))),
        ("SHA256SUMS is longer than 16384 bytes", bent(|rig| rig.server.put(SUMS, "A".repeat(16385)))),
        (
            "download: fetch SHA256SUMS: HTTP 500 Internal Server Error",
            bent(|rig| rig.server.page(SUMS, Page::Status(500))),
        ),
        (
            "a placeholder",
            bent(|rig| {
                fs::write(rig.path("key.pem"), include_str!("../../src/updater/keys.pem")).expect("writes")
            }),
        ),
        ("cannot read the key", bent(|rig| fs::remove_file(rig.path("key.pem")).expect("removes"))),
    ] {
        assert!(said.contains(why), "{why}: {said}");
    }
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_tarball_that_is_another_one_is_refused() {
    let resigned = |sums: String| {
        bent(|rig| {
            rig.server.put(SIGNATURE, rig.publisher.sign(sums.as_bytes()));
            rig.server.put(SUMS, sums);
        })
    };
    let name = tarball_name("v0.2.0");
    for (why, said) in [
        (
            "verify: the sha256 of banger-v0.2.0",
            bent(|rig| rig.server.put(&tarball(), Executable::new("v0.3.0").tarball())),
        ),
        (
            "SHA256SUMS has no banger-v0.2.0",
            resigned(format!("{}  {}\n", "0".repeat(64), tarball_name("v0.1.9"))),
        ),
        ("SHA256SUMS cannot be read: line 2", resigned(format!("{}  {name}\nhello\n", "0".repeat(64)))),
        ("a second digest", resigned(format!("{}  {name}\n{}  {name}\n", "0".repeat(64), "1".repeat(64)))),
        ("tarball: HTTP 404 Not Found", bent(|rig| rig.server.page(&tarball(), Page::Status(404)))),
    ] {
        assert!(said.contains(why), "{why}: {said}");
    }
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_tarball_of_anything_but_one_file_is_refused() {
    let script = Executable::new("v0.2.0").script();
    let file = ("banger", EntryType::Regular, script.as_bytes());
    for (why, said) in [
        ("holds 'bangerd'", of(pack_members(&[file, ("bangerd", EntryType::Regular, b"x")]))),
        ("holds 'banger'", of(pack_members(&[("banger", EntryType::Symlink, b"")]))),
        ("holds 'bin/banger'", of(pack_members(&[("bin/banger", EntryType::Regular, script.as_bytes())]))),
        ("holds 'banger'", of(pack_members(&[("banger", EntryType::Directory, b"")]))),
        ("the tarball cannot be read", of(b"no gzip at all".to_vec())),
    ] {
        assert!(said.starts_with("banger: unpack: ") && said.contains(why), "{why}: {said}");
    }
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn an_executable_is_refused_by_its_own_words() {
    let executable = |change: fn(&mut Executable)| {
        let mut executable = Executable::new("v0.2.0");
        change(&mut executable);
        of(executable.tarball())
    };
    for (why, said) in [
        (
            "check: the release was to be v0.2.0, and says that it is v0.1.0",
            executable(|e| e.says = "v0.1.0".to_owned()),
        ),
        ("check: it does not say its version", executable(|e| e.says = "nothing".to_owned())),
        (
            "check: it cannot work with the database that is here: the verdict of v0.2.0",
            executable(|e| e.migrations = 2),
        ),
        ("check: it cannot judge the database", executable(|e| e.migrations = 3)),
        ("check: it does not say its version", of(crate::publisher::pack("#!/bin/false\n"))),
        ("check: cannot run", of(crate::publisher::pack("not a program"))),
    ] {
        assert!(said.contains(why), "{why}: {said}");
    }
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_manifest_decides_only_what_it_may() {
    let with = |change: &dyn Fn(&mut Value)| {
        bent(|rig| {
            let mut value: Value = serde_json::from_slice(&rig.server.body(MANIFEST)).expect("JSON");
            change(&mut value);
            rig.server.put(MANIFEST, value.to_string());
        })
    };
    for (why, said) in [
        (
            "discover: fetch manifest: HTTP 404 Not Found",
            bent(|rig| rig.server.page(MANIFEST, Page::Status(404))),
        ),
        (
            "it has schema 2, and this banger reads schema 1; update by hand",
            with(&|m| m["schema_version"] = json!(2)),
        ),
        ("names no signature", with(&|m| m["releases"][0]["sha256sums_sig_url"] = json!(""))),
        ("no absolute https URL", with(&|m| m["releases"][0]["tarball_url"] = json!("t.tar.gz"))),
        (
            "http is for this machine alone",
            with(&|m| m["releases"][0]["tarball_url"] = json!("http://example.org/t")),
        ),
        ("can be reached from v0.1.5 on", with(&|m| m["releases"][0]["min_version"] = json!("v0.1.5"))),
        ("is longer than 1048576 bytes", bent(|rig| rig.server.put(MANIFEST, " ".repeat((1 << 20) + 1)))),
        ("not the JSON of a manifest", bent(|rig| rig.server.put(MANIFEST, "<html>"))),
    ] {
        assert!(said.contains(why), "{why}: {said}");
    }
    let rig = Rig::with(&[Executable::new("v0.2.0")]);
    rig.server.page(MANIFEST, Page::Status(404));
    assert_eq!(rig.refused("--check"), "banger: discover: fetch manifest: HTTP 404 Not Found");
    assert!(rig.refused("--to 3").contains("is no version"));
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn an_older_release_is_not_taken_for_a_newer_one() {
    let rig = Rig::with(&[Executable::new("v0.0.5")]);
    for options in ["", "--check", "--to v0.0.5"] {
        let said = rig.refused(options);
        assert!(said.contains("v0.0.5 is older than v0.1.0, which has been here already"), "{said}");
    }
    assert!(rig.refused("--allow-downgrade").contains("--allow-downgrade needs --to"));
    assert!(
        rig.refused("--to v0.7.0").contains("there is no release v0.7.0; the newest stable one is v0.0.5")
    );
    rig.assert_untouched("an older one");
    // An old tarball under a new number is known by the name that was signed.
    let old = Executable::new("v0.0.5").tarball();
    let sums = format!("{}  {}\n", sha256(&old), tarball_name("v0.0.5"));
    let mut entry = rig.publisher.release(&rig.server, "v0.2.0", old);
    rig.server.put("/old/SHA256SUMS", sums.clone());
    rig.server.put("/old/SHA256SUMS.sig", rig.publisher.sign(sums.as_bytes()));
    entry["sha256sums_url"] = json!(rig.server.at("/old/SHA256SUMS"));
    entry["sha256sums_sig_url"] = json!(rig.server.at("/old/SHA256SUMS.sig"));
    rig.server.put(MANIFEST, manifest("v0.2.0", &[entry]));
    assert!(rig.refused("").contains("SHA256SUMS has no banger-v0.2.0"));
    rig.assert_untouched("an old one under a new number");
}
