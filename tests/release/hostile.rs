//! install.sh with servers, and publishers, that do not mean well, or cannot do better: one sentence, and nothing is left or run.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use crate::rig::{Home, Publisher, Ran, sh, tarball_name, write_program};
use crate::server::Page;

const VERSION: &str = "v1.2.3";

/// A release, and somebody who installs it below a prefix.
struct Scene {
    publisher: Publisher,
    home: Home,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { publisher: Publisher::new(), home: Home::new() };
        scene.publisher.release(VERSION);
        scene
    }

    fn run(&self) -> Ran {
        let url = format!("{}/manifest.json", self.publisher.server.url);
        let key = self.publisher.path("public.pem");
        let key = key.to_str().expect("UTF-8");
        self.home.run(&["--yes", "--prefix", &self.home.text("p"), "--manifest-url", &url, "--pubkey", key])
    }

    /// It is refused, nothing of it is installed, and nothing of it has been run.
    fn refused(&self, what: &str, why: &str) {
        let said = self.home.sentence(self.run());
        assert!(said.contains(why), "{what}: {said}");
        assert!(!self.home.path("p").exists(), "{what}: something was installed");
        assert_eq!(self.home.log(), "", "{what}: something was run");
    }

    fn goes_well(&self, what: &str) {
        let ran = self.run();
        assert!(ran.code == Some(0) && self.home.path("p/bin/banger").exists(), "{what}: {ran:#?}");
        fs::remove_dir_all(self.home.path("p")).expect("removes");
    }

    /// With what `page` makes of a file, on the server alone.
    fn with_page(&self, path: &str, page: Page, why: &str) {
        let file = self.file(path);
        self.publisher.server.put(path, page.clone());
        self.refused(&format!("{path} {page:?}"), why);
        self.publisher.server.put(path, Page::Body(file));
    }

    fn file(&self, path: &str) -> Vec<u8> {
        fs::read(self.publisher.out().join(path.trim_start_matches('/'))).expect("reads")
    }

    fn manifest_with(&self, field: &str, value: serde_json::Value, why: &str) {
        let mut manifest = self.publisher.manifest();
        match manifest.get(field) {
            Some(_) => manifest[field] = value,
            None => manifest["releases"][0][field] = value,
        }
        self.with_page("/manifest.json", Page::Body(manifest.to_string().into_bytes()), why);
    }
}

fn path_of(name: &str) -> String {
    format!("/{VERSION}/{name}")
}

#[test]
#[ignore = "needs bash, curl and openssl"]
fn servers_that_fail_stall_cut_off_or_never_end() {
    let scene = {
        let mut scene = Scene::new();
        scene.home.env.insert("BANGER_INSTALL_PATIENCE".to_owned(), "1".to_owned());
        scene
    };
    let (manifest, sums, signature, tarball) =
        ("/manifest.json", path_of("SHA256SUMS"), path_of("SHA256SUMS.sig"), path_of(&tarball_name(VERSION)));
    for path in [manifest, &sums, &signature, &tarball] {
        scene.with_page(path, Page::Status(404), "404");
        scene.with_page(path, Page::Status(500), "500");
        scene.with_page(path, Page::Cut(5), "cannot download");
        scene.with_page(path, Page::Silent, "cannot download");
        scene.with_page(path, Page::Redirect("http://127.0.0.1:9/x".to_owned()), "cannot download");
        scene.with_page(path, Page::Redirect("file:///etc/passwd".to_owned()), "cannot download");
        scene.with_page(path, Page::Redirect("https://127.0.0.1:9/x".to_owned()), "cannot download");
    }
    for (path, most) in [(manifest, 1_048_576), (&sums, 16_384), (&signature, 1_024)] {
        let why = format!("it is larger than the {most} bytes");
        scene.with_page(path, Page::Endless, &why);
        scene.with_page(path, Page::Liar, &why);
        scene.with_page(path, Page::Body(vec![b' '; most + 1]), &why);
    }
    scene.goes_well("after all of that");
}

#[test]
#[ignore = "needs bash, curl and openssl; receives 256 MiB"]
fn a_tarball_that_never_ends_is_ended() {
    let scene = Scene::new();
    scene.with_page(&path_of(&tarball_name(VERSION)), Page::Endless, "it is larger than the 268435456 bytes");
}

#[test]
#[ignore = "needs bash, curl and openssl"]
fn manifests_that_are_none_or_lead_astray() {
    let scene = Scene::new();
    for (text, why) in [
        ("", "it is empty"),
        ("<html>not here</html>", "it is no JSON object"),
        ("{\"schema_version\": 1", "it is no JSON"),
        ("{\"schema_version\": 1} {}", "something follows its JSON"),
        ("{\"schema_version\": 2, \"latest\": 7}", "its schema_version is 2, and this script knows 1"),
        ("{\"releases\": []}", "it does not say its schema_version"),
        (
            "{\"schema_version\": 1, \"latest_stable\": \"v1.2.3\", \"releases\": []}",
            "it has no release v1.2.3; it has none",
        ),
        (
            "{\"schema_version\": 1, \"latest_stable\": \"v1.2.3\", \"latest_stable\": \"v1.2.3\", \"releases\": []}",
            "something twice",
        ),
        (
            "{\"schema_version\": 1, \"latest_stable\": \"v1\\u001b[2J\", \"releases\": [{\"version\": \"v1\\u001b[2J\"}]}",
            "does not say where",
        ),
    ] {
        scene.with_page("/manifest.json", Page::Body(text.as_bytes().to_vec()), why);
    }
    let url = |path: &str| format!("{}{path}", scene.publisher.server.url);
    for (field, value, why) in [
        ("latest_stable", "../../x".into(), "it has no release ../../x"),
        // What a terminal would take for an order (CSI, DEL) is not shown to it.
        ("latest_stable", "v1\u{9b}2J\u{7f}".into(), "it has no release v12J"),
        ("latest_stable", 3.into(), "which release is the latest_stable"),
        ("releases", "none".into(), "it has no list of releases"),
        ("sha256sums_sig_url", "".into(), "where the signature of v1.2.3 is"),
        ("sha256sums_sig_url", serde_json::Value::Null, "where the signature of v1.2.3 is"),
        ("sha256sums_url", "http://example.org/SHA256SUMS".into(), "which is no https URL"),
        ("sha256sums_url", "file:///etc/passwd".into(), "which is no https URL"),
        ("sha256sums_url", "SHA256SUMS".into(), "which is no https URL"),
        ("sha256sums_url", "-o/etc/passwd".into(), "which is no https URL"),
        ("sha256sums_url", "https://user:secret@example.org/x".into(), "which is no https URL"),
        ("sha256sums_url", "https://example.org/$(touch x)".into(), "which is no https URL"),
        ("sha256sums_url", "https://example.org/a\nb".into(), "which is no https URL"),
        ("tarball_url", url("/v1.2.3/other.tar.gz").into(), "is not in a file called"),
        ("tarball_url", url("/v1.1.0/banger-v1.1.0-x86_64-linux.tar.gz").into(), "is not in a file called"),
        ("expires", "soon".into(), "which is no time"),
        ("min_version", "old".into(), "min_version is 'old'"),
        ("min_version", 1.into(), "what v1.2.3 can follow"),
    ] {
        scene.manifest_with(field, value, why);
    }
    // What a later publisher adds is passed over, and JSON may look as it likes.
    let mut manifest = scene.publisher.manifest();
    manifest["notes"] = serde_json::json!({"deep": [[1.5e3, -2, true, null], {"a\\\"b": "\t\u{1f600}"}]});
    manifest["releases"][0]["schema_version"] = 7.into();
    let text = manifest.to_string().replace("https:", "https:\\/").replace("/v1.2.3", "\\/v1.2.3");
    scene.publisher.server.put("/manifest.json", Page::Body(text.into_bytes()));
    scene.goes_well("with more in it");
    // A list from elsewhere must not send this machine to its own services.
    let mut command = scene.home.command(
        "/bin/bash",
        &[
            "-c",
            "eval \"$(sed '$s/.*/}/' \"$0\")\"; where_is http://127.0.0.1/; where_is https://e.org/x; \
        where_is https://localhost/; where_is http://127.0.0.1.example.org/; where_is http://e.org/",
            crate::rig::INSTALLER,
        ],
    );
    assert_eq!(String::from_utf8(command.output().expect("runs").stdout).expect("UTF-8"), "hereremotehere");
}

#[test]
#[ignore = "needs bash, curl and openssl"]
fn digests_and_signatures_that_do_not_fit() {
    let (scene, other) = (Scene::new(), Publisher::new());
    other.release(VERSION);
    let (sums, signature, tarball) =
        (path_of("SHA256SUMS"), path_of("SHA256SUMS.sig"), path_of(&tarball_name(VERSION)));
    // Another content, with its old length and its old digest.
    let mut changed = scene.file(&tarball);
    changed[40] ^= 1;
    scene.with_page(&tarball, Page::Body(changed), "is not the one that SHA256SUMS has for it");
    let forged = String::from_utf8(scene.file(&sums)).expect("UTF-8").replacen(
        |c: char| c.is_ascii_hexdigit(),
        "0",
        3,
    );
    for (path, body) in [
        (&sums, forged.into_bytes()),
        (&sums, b"\n".to_vec()),
        // Somebody else's, for exactly this.
        (&signature, fs::read(other.out().join(VERSION).join("SHA256SUMS.sig")).expect("reads")),
        (&signature, b"".to_vec()),
        (&signature, b"no base64!".to_vec()),
        (&signature, b"AAAA".to_vec()),
        (&signature, vec![0; 100]),
    ] {
        scene.with_page(path, Page::Body(body), "is not by banger's key");
    }
    // Signed, and yet not this file: another release's digests, two digests for a name, none.
    let digest = "0".repeat(64);
    let dir = scene.publisher.out().join(VERSION);
    let honest = fs::read_to_string(dir.join("SHA256SUMS")).expect("reads");
    let name = tarball_name(VERSION);
    for (text, why) in [
        (honest.replace(VERSION, "v1.2.2"), "SHA256SUMS has no line for"),
        (format!("{honest}{digest}  {name}\n"), "SHA256SUMS has no line for"),
        (format!("{digest}  {name}\n"), "is not the one that SHA256SUMS has for it"),
        (format!("{}  {name}\n", &digest[1..]), "SHA256SUMS has no line for"),
        (String::new(), "SHA256SUMS has no line for"),
    ] {
        fs::write(dir.join("SHA256SUMS"), &text).expect("writes");
        scene.publisher.sign(VERSION);
        let bodies = ["SHA256SUMS", "SHA256SUMS.sig"]
            .map(|name| (path_of(name), fs::read(dir.join(name)).expect("reads")));
        for (path, body) in bodies {
            scene.publisher.server.put(&path, Page::Body(body));
        }
        scene.refused(&text, why);
    }
    let asked = scene.publisher.server.seen();
    assert!(asked.contains(&tarball), "the tarball was asked for, once its name was vouched for: {asked:?}");
}

#[test]
#[ignore = "needs bash, curl and openssl"]
fn what_nobody_vouches_for_is_not_downloaded() {
    let scene = Scene::new();
    scene.with_page(&path_of("SHA256SUMS.sig"), Page::Body(b"AAAA".to_vec()), "is not by banger's key");
    let asked = scene.publisher.server.seen();
    assert_eq!(asked, ["/manifest.json".to_owned(), path_of("SHA256SUMS"), path_of("SHA256SUMS.sig")]);
}

/// A tar of these members: name, kind, content.
fn tarball(members: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(GzEncoder::new(vec![], Compression::fast()));
    for (name, kind, content) in members {
        let mut header = Header::new_ustar();
        header.set_entry_type(*kind);
        // As it is: set_path refuses the names that are of interest here.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o4755);
        let data: &[u8] = if *kind == EntryType::Regular { content } else { b"" };
        header.set_size(data.len() as u64);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name_literal(content).expect("fits");
        }
        header.set_cksum();
        builder.append(&header, data).expect("appends");
    }
    builder.into_inner().expect("ends").finish().expect("ends")
}

#[test]
#[ignore = "needs bash, curl, openssl and tar"]
fn tarballs_that_hold_something_else_than_the_program() {
    let scene = Scene::new();
    let program = fs::read(scene.publisher.path("program-v1.2.3")).expect("reads");
    let regular = EntryType::Regular;
    let good = ("banger", regular, program.as_slice());
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a second file", tarball(&[good, ("extra", regular, b"x")]), "something else than one file banger"),
        ("a second banger", tarball(&[good, good]), "something else than one file banger"),
        ("another name", tarball(&[("bangers", regular, &program)]), "something else than one file banger"),
        (
            "a name with a space",
            tarball(&[("x banger", regular, &program)]),
            "something else than one file banger",
        ),
        (
            "a name with a newline",
            tarball(&[("banger\nbanger", regular, &program)]),
            "something else than one file banger",
        ),
        (
            "a directory",
            tarball(&[("banger/", EntryType::Directory, b"")]),
            "something else than one file banger",
        ),
        (
            "a file in a directory",
            tarball(&[("./banger", regular, &program)]),
            "something else than one file banger",
        ),
        ("a way out", tarball(&[("../banger", regular, &program)]), "something else than one file banger"),
        (
            "an absolute path",
            tarball(&[("/banger", regular, &program)]),
            "something else than one file banger",
        ),
        ("nothing", tarball(&[]), "something else than one file banger"),
        ("a symlink", tarball(&[("banger", EntryType::Symlink, b"/bin/sh")]), "is no regular file"),
        ("a hard link", tarball(&[("banger", EntryType::Link, b"/bin/sh")]), "is no regular file"),
        ("a device", tarball(&[("banger", EntryType::Char, b"")]), "is no regular file"),
        ("a pipe", tarball(&[("banger", EntryType::Fifo, b"")]), "is no regular file"),
        ("no tarball", b"hello".to_vec(), "is no whole tarball"),
        ("an empty file", vec![], "is no whole tarball"),
        ("a program that is cut off", tarball(&[good])[..80].to_vec(), "is no whole tarball"),
        ("no program", tarball(&[("banger", regular, b"\0\0")]), "does not run here, or is no banger"),
        ("an empty program", tarball(&[("banger", regular, b"")]), "does not run here, or is no banger"),
        (
            "another program",
            tarball(&[("banger", regular, b"#!/bin/sh\necho banger\n")]),
            "does not run here, or is no banger",
        ),
    ];
    for (what, bytes, why) in cases {
        scene.publisher.replace_tarball(VERSION, &bytes);
        scene.refused(what, why);
    }
    write_program(&scene.publisher.path("other"), "v1.2.2");
    let other = fs::read(scene.publisher.path("other")).expect("reads");
    scene.publisher.replace_tarball(VERSION, &tarball(&[("banger", regular, &other)]));
    scene.refused("another version", "is v1.2.2, not v1.2.3");
    scene.publisher.replace_tarball(VERSION, &tarball(&[good]));
    scene.goes_well("the program alone");
}

#[test]
#[ignore = "needs bash, curl, openssl and tar; unpacks 512 MiB"]
fn a_tarball_that_unpacks_to_more_than_a_release_may_have() {
    let scene = Scene::new();
    let size = (512_u64 << 20) + 1;
    let mut header = Header::new_ustar();
    header.set_path("banger").expect("fits");
    header.set_mode(0o755);
    header.set_size(size);
    header.set_cksum();
    let mut builder = Builder::new(GzEncoder::new(vec![], Compression::fast()));
    builder.append(&header, std::io::Read::take(std::io::repeat(0), size)).expect("appends");
    let mut packed = builder.into_inner().expect("ends").finish().expect("ends");
    packed.flush().expect("flushes");
    scene.publisher.replace_tarball(VERSION, &packed);
    scene.refused("a bomb", "holds more than a release may (512 MiB)");
}

#[test]
#[ignore = "needs bash, curl and openssl"]
fn machines_that_banger_does_not_run_on() {
    let scene = Scene::new();
    for (kernel, machine, why) in [
        ("Linux", "aarch64", "this machine is aarch64; banger runs on x86_64 so far"),
        ("Darwin", "x86_64", "this machine runs Darwin; banger runs on Linux"),
    ] {
        let text = format!("#!/bin/sh\n[ \"$1\" = -s ] && echo {kernel} || echo {machine}\n");
        crate::rig::write_executable(&scene.home.path("stubs/uname"), &text);
        scene.refused(machine, why);
    }
    assert_eq!(scene.publisher.server.seen(), [""; 0]);
    sh(&scene.home.path("stubs"), "rm uname sudo; ln -s /usr/bin/false sudo");
}
