//! install.sh --from: a machine without a network, with what was copied to it.

use std::fs;

use crate::rig::{Home, Publisher, names_in, sh, tarball_name};

const VERSION: &str = "v1.2.3";

/// A publisher, somebody else's home, and what was copied there.
fn copied() -> (Publisher, Home, String) {
    let (publisher, mut home) = (Publisher::new(), Home::new());
    publisher.release(VERSION);
    sh(&publisher.out(), &format!("cp {VERSION}/* {}", home.text("home")));
    // Whoever asks a network fails.
    for name in ["curl", "wget"] {
        crate::rig::write_executable(
            &home.path(&format!("stubs/{name}")),
            "#!/bin/sh\necho network >>\"$BANGER_TEST_LOG\"\nexit 1\n",
        );
    }
    home.env.insert("BANGER_INSTALL_NONINTERACTIVE".to_owned(), "1".to_owned());
    let key = publisher.path("public.pem").display().to_string();
    (publisher, home, key)
}

#[test]
#[ignore = "needs bash and openssl"]
fn what_was_copied_is_verified_and_installed_without_a_network() {
    let (_publisher, home, key) = copied();
    let name = tarball_name(VERSION);
    let ran = home.ok(&["--from", &name, "--pubkey", &key, "--prefix", "here"]);
    assert!(ran.out.contains("put banger v1.2.3 into"), "{ran:#?}");
    assert_eq!(names_in(&home.path("home/here/bin")), ["banger", "banger-vsock", "bangerd", "bangerd-root"]);
    // As root it is the same.
    home.ok(&["--from", &home.text(&format!("home/{name}")), "--pubkey", &key]);
    assert_eq!(home.log(), "sudo\nbanger system install --owner me\n");
    let said = home.refused(&["--from", &name, "--pubkey", &key, "--version", "v1.2.4"]);
    assert!(said.contains("is v1.2.3, not v1.2.4"), "{said}");
}

#[test]
#[ignore = "needs bash and openssl"]
fn what_nobody_vouches_for_is_installed_only_when_that_is_said() {
    let (_publisher, home, key) = copied();
    let name = tarball_name(VERSION);
    sh(&home.path("home"), "rm SHA256SUMS.sig");
    let said = home.refused(&["--from", &name, "--pubkey", &key, "--prefix", "here"]);
    assert!(
        said.contains("nothing vouches for it; copy them too, or take it as it is with --unverified"),
        "{said}"
    );
    assert!(!home.path("home/here").exists());
    let ran = home.ok(&["--from", &name, "--unverified", "--prefix", "here"]);
    assert!(ran.out.contains("warning: SHA256SUMS and SHA256SUMS.sig are not beside"), "{ran:#?}");
    assert!(home.path("home/here/bin/banger").exists());
    assert_eq!(home.log(), "");
}

#[test]
#[ignore = "needs bash and openssl"]
fn what_is_there_to_vouch_for_it_and_does_not_is_refused_whatever_is_said() {
    let (publisher, home, key) = copied();
    let (dir, name) = (home.path("home"), tarball_name(VERSION));
    let refused = |file: &str, why: &str| {
        let said = home.refused(&["--from", file, "--pubkey", &key, "--unverified", "--prefix", "here"]);
        assert!(said.contains(why), "{said}");
        assert!(!home.path("home/here").exists());
    };
    sh(&dir, &format!("cp {name} renamed.tar.gz"));
    refused("renamed.tar.gz", "SHA256SUMS has no line for renamed.tar.gz");
    refused("missing.tar.gz", "there is no file missing.tar.gz");
    refused("tmp", "there is no file tmp");
    let kept = fs::read(dir.join(&name)).expect("reads");
    sh(&dir, &format!("printf x >>{name}"));
    refused(&name, "is not the one that SHA256SUMS has for it");
    fs::write(dir.join(&name), kept).expect("writes");
    sh(&dir, "echo '# more' >>SHA256SUMS");
    refused(&name, "is not by banger's key");
    sh(&dir, &format!("cp {}/SHA256SUMS .", publisher.out().join(VERSION).display()));
    // The key of install.sh itself is a placeholder, and judges nothing.
    let said = home.refused(&["--from", &name, "--unverified", "--prefix", "here"]);
    assert!(said.contains("has no key to judge releases by"), "{said}");
    home.ok(&["--from", &name, "--pubkey", &key, "--prefix", "here"]);
}
