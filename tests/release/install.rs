//! install.sh with a server that means well.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use banger::publish::release::release;

use crate::rig::{Home, INSTALLER, Publisher, names_in, sh, write_executable, write_program};
use crate::server::Page;

/// `--yes`, where the manifest is, and by which key it is judged.
fn from(publisher: &Publisher, more: &[&str]) -> Vec<String> {
    let mut args = vec![
        "--yes".to_owned(),
        "--manifest-url".to_owned(),
        format!("{}/manifest.json", publisher.server.url),
    ];
    args.extend(["--pubkey".to_owned(), publisher.path("public.pem").display().to_string()]);
    args.extend(more.iter().map(|word| (*word).to_owned()));
    args
}

fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn version_in(prefix: &Path) -> String {
    sh(prefix, "bin/banger --version | cut -d' ' -f2").trim().to_owned()
}

#[test]
#[ignore = "needs bash, curl and openssl"]
fn the_script_of_a_release_piped_into_bash_installs_it_below_a_prefix() {
    let (publisher, home) = (Publisher::new(), Home::new());
    publisher.release("v1.2.3");
    // It needs neither a key nor a place: they came with it.
    let script = fs::read(publisher.out().join("install.sh")).expect("reads");
    let prefix = home.path("pre fix");
    let ran = home.piped(&script, &["--prefix", prefix.to_str().expect("UTF-8"), "--yes"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:#?}");
    assert!(ran.out.contains("put banger v1.2.3 into") && ran.out.contains("export PATH="), "{ran:#?}");
    assert_eq!(names_in(&prefix.join("bin")), ["banger", "banger-vsock", "bangerd", "bangerd-root"]);
    sh(
        &prefix,
        "cmp bin/banger bin/bangerd; [ \"$(readlink bin/bangerd-root)\" = banger ]; [ \"$(stat -c %a bin/banger)\" = 755 ]",
    );
    sh(&prefix, &format!("cmp bin/banger {}", publisher.path("program-v1.2.3").display()));
    assert_eq!(home.log(), "", "nothing was run as root");
    // And what it has installed it takes away again.
    let ran = home.piped(&script, &["--uninstall", "--prefix", prefix.to_str().expect("UTF-8"), "--yes"]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(!prefix.exists());
}

#[test]
#[ignore = "needs bash, curl and openssl; unpacks the real program"]
fn the_real_program_is_released_and_installed() {
    let (publisher, home) = (Publisher::new(), Home::new());
    let binary = Path::new(env!("CARGO_BIN_EXE_banger"));
    let made = release(&publisher.wish(binary), &publisher.keys()).expect("releases");
    home.ok(&words(&from(&publisher, &["--prefix", &home.text("p")])));
    assert_eq!(version_in(&home.path("p")), made.version.to_string());
    sh(&home.path("p"), &format!("cmp bin/banger {}; bin/bangerd --version >/dev/null", binary.display()));
}

#[test]
#[ignore = "needs bash, curl and openssl"]
fn another_version_replaces_the_one_that_is_there_but_not_by_accident_an_older_one() {
    let (publisher, home) = (Publisher::new(), Home::new());
    for version in ["v1.2.3", "v1.10.0", "v2.0.0-rc.1"] {
        publisher.release(version);
    }
    let prefix = home.text("p");
    let run =
        |more: &[&str]| home.run(&words(&from(&publisher, &[&["--prefix", prefix.as_str()], more].concat())));
    let installed = || version_in(&home.path("p"));
    assert_eq!(run(&["--version", "v1.2.3"]).code, Some(0));
    assert_eq!(installed(), "v1.2.3");
    let ran = run(&[]);
    assert!(ran.out.contains("v1.2.3 is installed; v1.10.0 will replace it"), "{ran:#?}");
    assert_eq!(installed(), "v1.10.0");
    let ran = run(&[]);
    assert!(ran.code == Some(0) && ran.out.contains("v1.10.0 is installed already"), "{ran:#?}");
    // Whoever answers cannot bring an old one back.
    publisher.server.put(
        "/manifest.json",
        Page::Body({
            let mut manifest = publisher.manifest();
            manifest["latest_stable"] = "v1.2.3".into();
            manifest.to_string().into_bytes()
        }),
    );
    let said = home.sentence(run(&[]));
    assert!(said.contains("v1.10.0 is installed, which is newer than v1.2.3"), "{said}");
    assert_eq!(installed(), "v1.10.0");
    assert_eq!(run(&["--version", "v1.2.3"]).code, Some(0));
    assert_eq!(installed(), "v1.2.3");
    assert_eq!(run(&["--version", "v2.0.0-rc.1"]).code, Some(0));
    assert_eq!(installed(), "v2.0.0-rc.1");
    let said = home.sentence(run(&["--version", "v9.9.9"]));
    assert!(said.ends_with("it has no release v9.9.9; it has v2.0.0-rc.1 v1.10.0 v1.2.3"), "{said}");
}

#[test]
#[ignore = "needs bash, curl and openssl"]
fn what_is_not_bangers_is_neither_replaced_nor_removed() {
    let (publisher, home) = (Publisher::new(), Home::new());
    publisher.release("v1.2.3");
    let bin = home.path("p/bin");
    fs::create_dir_all(&bin).expect("makes directories");
    let install = from(&publisher, &["--prefix", &home.text("p")]);
    write_executable(&bin.join("banger"), "#!/bin/sh\necho mine\n");
    let said = home.refused(&words(&install));
    assert!(said.contains("bin/banger is something else than banger"), "{said}");
    let said = home.refused(&["--yes", "--uninstall", "--prefix", &home.text("p")]);
    assert!(said.contains("is something else than banger, and stays"), "{said}");
    fs::remove_file(bin.join("banger")).expect("removes");
    fs::write(bin.join("bangerd"), "mine").expect("writes");
    symlink("elsewhere", bin.join("other")).expect("links");
    let said = home.refused(&words(&install));
    assert!(said.contains("bin/bangerd is something else than banger's"), "{said}");
    assert_eq!(names_in(&bin), ["bangerd", "other"]);
    fs::remove_file(bin.join("bangerd")).expect("removes");
    home.ok(&words(&install));
    // What is beside it stays.
    home.ok(&["--yes", "--uninstall", "--prefix", &home.text("p")]);
    assert_eq!(names_in(&bin), ["other"]);
    let said = home.refused(&["--yes", "--uninstall", "--prefix", &home.text("p")]);
    assert!(said.contains("there is no") && said.ends_with("to uninstall"), "{said}");
}

#[test]
#[ignore = "needs bash, curl and openssl"]
fn services_are_installed_by_the_new_program_as_root_for_whoever_asks() {
    let (publisher, mut home) = (Publisher::new(), Home::new());
    publisher.release("v1.2.3");
    let run = |home: &Home, more: &[&str]| home.run(&words(&from(&publisher, more)));
    let ran = run(&home, &[]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(home.log(), "sudo\nbanger system install --owner me\n");
    // What it will do comes before it does it.
    let (why, done) = (
        ran.out.find("Root is needed to").expect("says why"),
        ran.out.find("running as root").expect("does it"),
    );
    assert!(
        why < done && ran.out.contains("run as root, through sudo: banger system install --owner me"),
        "{ran:#?}"
    );

    fs::remove_file(home.path("log")).expect("removes");
    home.uid = 0;
    let said = home.sentence(run(&home, &[]));
    assert!(said.contains("whose VMs will these be? say it with --owner USER"), "{said}");
    let said = home.sentence(run(&home, &["--owner", "nobody-of-this-name"]));
    assert_eq!(said, "there is no user nobody-of-this-name");
    assert_eq!(run(&home, &["--owner", "nobody"]).code, Some(0));
    home.env.insert("SUDO_USER".to_owned(), "me".to_owned());
    assert_eq!(run(&home, &[]).code, Some(0));
    home.env.insert("SUDO_USER".to_owned(), "root".to_owned());
    home.sentence(run(&home, &[]));
    assert_eq!(home.log(), "banger system install --owner nobody\nbanger system install --owner me\n");

    fs::write(home.path("log.fail"), "").expect("writes");
    let said = home.sentence(run(&home, &["--owner", "me"]));
    assert!(said.starts_with("banger system install failed"), "{said}");
}

#[test]
#[ignore = "needs bash, curl and openssl"]
fn an_installation_is_named_before_it_is_replaced_and_uninstalls_itself() {
    let (publisher, home) = (Publisher::new(), Home::new());
    publisher.release("v1.2.3");
    let said = home.refused(&["--uninstall", "--yes"]);
    assert!(said.contains("to uninstall"), "{said}");
    fs::create_dir_all(home.path("root/bin")).expect("makes directories");
    write_program(&home.path("root/bin/banger"), "v1.1.0");
    let ran = home.ok(&words(&from(&publisher, &[])));
    assert!(
        ran.out.contains("v1.1.0 is installed; v1.2.3 will replace it")
            && ran.out.contains("sudo banger update"),
        "{ran:#?}"
    );
    home.ok(&["--uninstall", "--yes"]);
    assert_eq!(home.log(), "sudo\nbanger system install --owner me\nsudo\nbanger system uninstall\n");
    // A newer one goes only for a version that was named, and `banger system install` is told so.
    fs::remove_file(home.path("log")).expect("removes");
    write_program(&home.path("root/bin/banger"), "v1.3.0");
    let said = home.sentence(home.run(&words(&from(&publisher, &[]))));
    assert!(said.contains("v1.3.0 is installed, which is newer than v1.2.3"), "{said}");
    home.ok(&words(&from(&publisher, &["--version", "v1.2.3"])));
    assert_eq!(home.log(), "sudo\nbanger system install --owner me --force\n");
}

#[test]
#[ignore = "needs bash, curl and openssl"]
fn a_release_that_cannot_follow_what_is_installed_and_one_that_has_expired_are_told() {
    let (publisher, home) = (Publisher::new(), Home::new());
    let program = publisher.path("program");
    write_program(&program, "v2.0.0");
    let mut wish = publisher.wish(&program);
    wish.min_version = "v1.5.0".parse().ok();
    wish.expires = Some("2020-01-01T00:00:00Z".to_owned());
    release(&wish, &publisher.keys()).expect("releases");
    fs::create_dir_all(home.path("p/bin")).expect("makes directories");
    write_program(&home.path("p/bin/banger"), "v1.4.9");
    let args = from(&publisher, &["--prefix", &home.text("p")]);
    let ran = home.run(&words(&args));
    assert!(ran.out.contains("was meant to be used until 2020-01-01T00:00:00Z"), "{ran:#?}");
    let said = home.sentence(ran);
    assert!(said.contains("v1.4.9 is installed, and v2.0.0 can only follow v1.5.0"), "{said}");
    write_program(&home.path("p/bin/banger"), "v1.5.0");
    home.ok(&words(&args));
    assert_eq!(version_in(&home.path("p")), "v2.0.0");
}

#[test]
#[ignore = "needs bash, curl and openssl"]
fn several_keys_judge_while_one_replaces_another_and_a_placeholder_trusts_nobody() {
    let (publisher, other, home) = (Publisher::new(), Publisher::new(), Home::new());
    publisher.release("v1.2.3");
    let placeholder = "-----BEGIN PUBLIC KEY-----\nPLACEHOLDER\n-----END PUBLIC KEY-----\n";
    let run = |keys: String| {
        fs::write(home.path("keys"), keys).expect("writes");
        let url = format!("{}/manifest.json", publisher.server.url);
        home.run(&[
            "--yes",
            "--prefix",
            &home.text("p"),
            "--manifest-url",
            &url,
            "--pubkey",
            &home.text("keys"),
        ])
    };
    let said = home.sentence(run(other.keys()));
    assert!(said.contains("is not by banger's key"), "{said}");
    let said = home.sentence(run(placeholder.to_owned()));
    assert!(said.contains("has no key to judge releases by"), "{said}");
    let private = fs::read_to_string(publisher.path("key.pem")).expect("reads");
    let said = home.sentence(run(private));
    assert!(said.contains("is a private key"), "{said}");
    assert!(!home.path("p").exists());
    assert_eq!(run(format!("{}{placeholder}until 2027\n{}", other.keys(), publisher.keys())).code, Some(0));
    assert!(home.path("p/bin/banger").exists());
}

#[test]
#[ignore = "needs bash"]
fn the_scripts_own_key_is_still_a_placeholder_and_it_says_what_else_can_be_done() {
    let home = Home::new();
    let said = home.refused(&["--yes", "--prefix", &home.text("p")]);
    let script = fs::read_to_string(INSTALLER).expect("reads");
    assert!(script.contains("\nPLACEHOLDER\n"), "with a real key, this test has to go");
    assert!(said.contains("has no key to judge releases by") && said.contains("--try"), "{said}");
}

#[test]
#[ignore = "needs bash, wget, busybox and openssl"]
fn wget_and_busyboxs_awk_do_as_well() {
    const TOOLS: [&str; 25] = [
        "bash", "basename", "cat", "chmod", "cut", "date", "dirname", "grep", "gzip", "head", "ln", "mkdir",
        "mktemp", "mv", "openssl", "readlink", "rm", "sed", "tail", "tar", "timeout", "tr", "uname", "wc",
        "wget",
    ];
    let (publisher, mut home) = (Publisher::new(), Home::new());
    publisher.release("v1.2.3");
    let tools = home.only_tools(&TOOLS);
    symlink("/bin/busybox", tools.join("awk")).expect("links");
    let args = from(&publisher, &["--prefix", &home.text("p")]);
    let tarball = format!("/v1.2.3/{}", crate::rig::tarball_name("v1.2.3"));
    for (path, page, why) in [
        ("/manifest.json", Page::Status(404), "404"),
        ("/manifest.json", Page::Endless, "it is larger than the 1048576 bytes"),
        ("/manifest.json", Page::Redirect(format!("{}/other", publisher.server.url)), "only curl is sent"),
        ("/v1.2.3/SHA256SUMS", Page::Liar, "it is larger than the 16384 bytes"),
        (tarball.as_str(), Page::Cut(100), "cannot download"),
    ] {
        let kept = fs::read(publisher.out().join(&path[1..])).expect("reads");
        publisher.server.put(path, page.clone());
        let said = home.refused(&words(&args));
        assert!(said.contains(why), "{path} {page:?}: {said}");
        assert!(!home.path("p").exists());
        publisher.server.put(path, Page::Body(kept));
    }
    home.ok(&words(&args));
    assert_eq!(version_in(&home.path("p")), "v1.2.3");
    fs::remove_file(tools.join("wget")).expect("removes");
    let said = home.refused(&words(&args));
    assert_eq!(said, "curl is missing; install it, then run this again");
    fs::remove_file(tools.join("openssl")).expect("removes");
    let said = home.refused(&words(&args));
    assert!(said.starts_with("openssl is missing"), "{said}");
}
