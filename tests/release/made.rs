//! What `banger internal release` makes, looked at with other people's programs, and what it refuses to make.

use std::fs;
use std::process::Command;

use banger::publish::release::{ReleaseError, release};

use crate::rig::{Publisher, names_in, sh, tarball_name, write_executable, write_program};

#[test]
#[ignore = "needs bash, openssl and tar"]
fn a_release_is_understood_by_sha256sum_openssl_and_tar() {
    let publisher = Publisher::new();
    let made = publisher.release("v1.2.3");
    assert_eq!(
        (made.version.to_string().as_str(), made.latest_stable.to_string().as_str()),
        ("v1.2.3", "v1.2.3")
    );
    let out = publisher.out();
    assert_eq!(names_in(&out), ["install.sh", "manifest.json", "v1.2.3"]);
    let (dir, name) = (out.join("v1.2.3"), tarball_name("v1.2.3"));
    let manual = "banger-v1.2.3-man.tar.gz";
    assert_eq!(names_in(&dir), ["SHA256SUMS", "SHA256SUMS.sig", manual, name.as_str()]);
    assert_eq!(sh(&dir, "sha256sum --strict -c SHA256SUMS"), format!("{name}: OK\n{manual}: OK\n"));
    assert_eq!(sh(&dir, &format!("tar -xzOf {manual} man1/banger.1")), "of v1.2.3");
    let verify = "base64 -d SHA256SUMS.sig >der; openssl dgst -sha256 -verify ../../public.pem -signature der SHA256SUMS; rm der";
    assert_eq!(sh(&dir, verify), "Verified OK\n");
    assert_eq!(
        sh(&dir, &format!("tar --full-time --numeric-owner -tvzf {name} | tr -s ' '")).split(' ').next(),
        Some("-rwxr-xr-x")
    );
    sh(&dir, &format!("mkdir t; tar -C t -xzf {name}; cmp t/banger ../../program-v1.2.3; rm -r t"));
    let script = fs::read_to_string(out.join("install.sh")).expect("reads");
    assert!(script.contains(&publisher.keys()));
    assert!(script.contains(&format!("\nmanifest_url={}/manifest.json\n", publisher.server.url)));
    sh(&out, "bash -n install.sh");
}

#[test]
#[ignore = "needs bash and openssl"]
fn releases_follow_each_other_and_the_same_program_gives_the_same_tarball() {
    let (publisher, other) = (Publisher::new(), Publisher::new());
    let first = publisher.release("v1.2.3");
    publisher.release("v1.3.0");
    publisher.release("v1.4.0-rc.1");
    let manifest = publisher.manifest();
    let versions: Vec<&str> = manifest["releases"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| r["version"].as_str().expect("text"))
        .collect();
    assert_eq!(versions, ["v1.4.0-rc.1", "v1.3.0", "v1.2.3"]);
    assert_eq!(manifest["latest_stable"], "v1.3.0");
    assert_eq!(other.release("v1.2.3").sha256, first.sha256);
    // A directory of its own with the published manifest does as well as all that was ever released.
    let elsewhere = publisher.path("elsewhere");
    let program = publisher.path("program-v1.5.0");
    write_program(&program, "v1.5.0");
    let mut wish = publisher.wish(&program);
    wish.manifest = Some(publisher.out().join("manifest.json"));
    wish.out = elsewhere.clone();
    release(&wish, &publisher.keys()).expect("releases");
    assert_eq!(names_in(&elsewhere), ["install.sh", "manifest.json", "v1.5.0"]);
    assert!(
        fs::read_to_string(elsewhere.join("manifest.json")).expect("reads").contains("/v1.2.3/SHA256SUMS")
    );
}

#[test]
#[ignore = "needs bash and openssl"]
fn what_cannot_be_released_leaves_everything_as_it_was() {
    let publisher = Publisher::new();
    publisher.release("v1.2.3");
    let before = || {
        let list = "find . -type f | sort | xargs sha256sum";
        sh(&publisher.out(), list)
    };
    let was = before();
    let program = publisher.path("program-v1.3.0");
    write_program(&program, "v1.3.0");
    let wish = || publisher.wish(&program);
    let refused = |wish, keys: &str| release(&wish, keys).expect_err("refused");
    let keys = publisher.keys();

    let placeholder = "-----BEGIN PUBLIC KEY-----\nPLACEHOLDER\n-----END PUBLIC KEY-----\n";
    assert!(matches!(refused(wish(), placeholder), ReleaseError::Placeholder));
    assert!(matches!(refused(wish(), "none"), ReleaseError::Keys(_)));
    assert!(matches!(refused(wish(), &Publisher::new().keys()), ReleaseError::OtherKey(_)));

    let mut other = wish();
    other.version = "v1.4.0".parse().ok();
    assert!(matches!(refused(other, &keys), ReleaseError::Version { .. }));
    assert!(matches!(publisher.try_release("v1.2.3").expect_err("refused"), ReleaseError::Reused(_)));

    let mut unreadable = wish();
    unreadable.key = publisher.path("public.pem");
    assert!(matches!(refused(unreadable, &keys), ReleaseError::Private(..)));
    let mut missing = wish();
    missing.manifest = Some(publisher.path("nowhere.json"));
    assert!(matches!(refused(missing, &keys), ReleaseError::Io { .. }));
    let mut never = wish();
    never.expires = Some("soon".to_owned());
    assert!(matches!(refused(never, &keys), ReleaseError::Manifest(..)));

    for (text, silent) in
        [("#!/bin/sh\necho something v1.3.0\n", true), ("#!/bin/sh\nexit 1\n", false), ("", false)]
    {
        let broken = publisher.path("broken");
        write_executable(&broken, text);
        match refused(publisher.wish(&broken), &keys) {
            ReleaseError::Silent(_) => assert!(silent, "{text}"),
            ReleaseError::Binary(_) => assert!(!silent, "{text}"),
            other => panic!("{text}: {other}"),
        }
    }

    fs::create_dir(publisher.out().join("v1.3.0")).expect("makes a directory");
    assert!(matches!(refused(wish(), &keys), ReleaseError::Occupied(_)));
    fs::remove_dir(publisher.out().join("v1.3.0")).expect("it is as empty as it was");
    // The manifest cannot be replaced: the release that it does not name is taken away.
    let (manifest, kept) = (publisher.out().join("manifest.json"), publisher.path("kept.json"));
    fs::rename(&manifest, &kept).expect("moves");
    fs::create_dir_all(manifest.join("in the way")).expect("makes a directory");
    let mut stuck = wish();
    stuck.manifest = Some(kept.clone());
    assert!(matches!(refused(stuck, &keys), ReleaseError::Io { .. }));
    fs::remove_dir_all(&manifest).expect("removes");
    fs::rename(&kept, &manifest).expect("moves");
    assert_eq!(before(), was);
    assert_eq!(names_in(&publisher.out()), ["install.sh", "manifest.json", "v1.2.3"]);
}

#[test]
#[ignore = "needs bash and openssl"]
fn several_keys_are_known_while_one_replaces_another() {
    let (old, new) = (Publisher::new(), Publisher::new());
    let program = old.path("program");
    write_program(&program, "v2.0.0");
    let both = format!("until 2027:\n{}{}", old.keys(), new.keys());
    release(&old.wish(&program), &both).expect("the old key is known");
    release(&new.wish(&program), &both).expect("the new key is known");
}

/// The command itself; the program under test is built with the placeholder, unless somebody says otherwise.
#[test]
#[ignore = "needs bash and openssl"]
fn a_banger_with_a_placeholder_for_a_key_releases_nothing() {
    let publisher = Publisher::new();
    let program = publisher.path("program");
    write_program(&program, "v1.2.3");
    let run = |url: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_banger"));
        command.args(["internal", "release", "--base-url", url, "--binary"]).arg(&program);
        command.arg("--out").arg(publisher.out()).arg("--key").arg(publisher.path("key.pem"));
        let out = command.output().expect("runs");
        assert_eq!(out.status.code(), Some(1));
        String::from_utf8(out.stderr).expect("UTF-8")
    };
    let said = run("https://example.org/banger");
    assert!(said.starts_with("banger: this banger was built with a placeholder"), "{said}");
    let said = run("http://example.org/banger");
    assert!(
        said.starts_with("banger: --base-url: 'http://example.org/banger' is no place for releases"),
        "{said}"
    );
    assert_eq!(names_in(&publisher.out()), [""; 0]);
}
