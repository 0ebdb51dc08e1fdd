//! Pulling from docker's registry, filled by skopeo.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use banger::oci::OciError;

use crate::support::*;

fn blobs(bench: &Bench) -> usize {
    fs::read_dir(bench.settings.blobs.directory()).expect("lists").count()
}

#[test]
fn an_image_from_a_registry_is_what_umoci_unpacks_in_every_format() {
    let bench = Bench::new();
    let layout = umoci_image(&bench);
    let want = umoci_listing(&bench, &layout);
    let registry = Registry::start(&bench);
    let from = format!("oci:{}:t", layout.display());
    for (name, options) in [
        ("app:oci", ["--format", "oci"].as_slice()),
        ("app:docker", &["--format", "v2s2"]),
        ("deep/er/app:zstd", &["--format", "oci", "--dest-compress-format", "zstd", "--dest-compress"]),
    ] {
        registry.push(&from, name, options);
        let reference = format!("{}/{name}", registry.address);
        let built = bench.pull(&reference).unwrap_or_else(|e| panic!("{name}: {}", chain(&e)));
        assert_eq!(bench.listing(), want, "{name}");
        assert_eq!(built.names, [reference.as_str()]);
        assert_eq!((built.source, built.arch.as_str()), (reference.clone(), ARCH));
        assert_eq!(built.config.cmd, ["sh"]);
        let digest = built.digest.expect("a digest");
        let resolved = bench.resolve(&reference);
        assert_eq!(resolved.expect("resolves"), digest);
        fs::remove_file(bench.out()).expect("removes");
        // By digest, with and without a tag.
        let untagged = reference.rsplit_once(':').expect("a tag").0;
        for reference in [format!("{untagged}@{digest}"), format!("{reference}@{digest}")] {
            assert_eq!(bench.pull(&reference).expect("pulls").names, [format!("{untagged}@{digest}")]);
            fs::remove_file(bench.out()).expect("removes");
        }
    }
    for blob in fs::read_dir(bench.settings.blobs.directory()).expect("lists") {
        let mode = blob.expect("lists").metadata().expect("stats").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn an_index_in_a_registry_gives_the_image_for_this_machine() {
    let bench = Bench::new();
    let layout = Layout::new(bench.path("l"));
    let mine = layout.image(ARCH, &[files(&[("mine", b"")])], None) + &platform(ARCH) + "}";
    let theirs = layout.image(OTHER_ARCH, &[files(&[("theirs", b"")])], None) + &platform(OTHER_ARCH) + "}";
    let index = |entries: &[&str]| {
        let text =
            format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, entries.join(","));
        layout.blob(INDEX, text.as_bytes())
    };
    let registry = Registry::start(&bench);
    let from = format!("oci:{}:t", text(&layout.dir));
    layout.index(&[index(&[&theirs, &mine]) + &ref_name("t")]);
    registry.push(&from, "app:both", &["--all"]);
    bench.pull(&format!("{}/app:both", registry.address)).expect("pulls");
    assert!(bench.listing().contains_key(Path::new("mine")));
    fs::remove_file(bench.out()).expect("removes");
    layout.index(&[index(&[&theirs]) + &ref_name("t")]);
    registry.push(&from, "app:theirs", &["--all"]);
    let error = bench.pull(&format!("{}/app:theirs", registry.address)).expect_err("refused").to_string();
    let want =
        format!("is for another architecture: this machine is linux/{ARCH}, it has linux/{OTHER_ARCH}");
    assert!(error.ends_with(&want), "{error}");
}

#[test]
fn a_blob_that_is_here_already_is_not_fetched_again_and_a_damaged_one_is() {
    let bench = Bench::new();
    let registry = Registry::start(&bench);
    let layout = Layout::of(bench.path("l"), &[files(&[("a", &[7; 9000])]), files(&[("b", b"b")])]);
    registry.push(&format!("oci:{}", text(&layout.dir)), "app:1", &[]);
    let reference = format!("{}/app:1", registry.address);
    bench.pull(&reference).expect("pulls");
    assert_eq!(blobs(&bench), 3, "a configuration and two layers");
    fs::remove_file(bench.out()).expect("removes");
    // A bit falls over in the store.
    for blob in fs::read_dir(bench.settings.blobs.directory()).expect("lists") {
        let path = blob.expect("lists").path();
        let before = fs::read(&path).expect("reads");
        let file = fs::File::options().write(true).open(&path).expect("opens");
        file.write_all_at(&[before[20] ^ 1], 20).expect("writes");
        let told = Told::default();
        bench.pull_with(&reference, &told).expect("pulls again");
        assert!(told.notes.lock().expect("not poisoned")[0].contains("is damaged in the cache"));
        assert_eq!(fs::read(&path).expect("reads"), before);
        fs::remove_file(bench.out()).expect("removes");
    }
    // The registry loses its blobs: what is here is enough.
    fs::remove_dir_all(registry.storage.join("docker/registry/v2/repositories/app/_layers"))
        .expect("removes");
    bench.pull(&reference).expect("pulls from the store");
    fs::remove_file(bench.out()).expect("removes");
    fs::remove_dir_all(bench.settings.blobs.directory()).expect("removes");
    let error = bench.pull(&reference).expect_err("the registry has no blobs");
    let want = "refuses (status 404: BLOB_UNKNOWN: blob unknown to registry)";
    assert!(chain(&error).starts_with("cannot fetch configuration sha256:"), "{}", chain(&error));
    assert!(chain(&error).ends_with(want), "{}", chain(&error));
}

#[test]
fn a_blob_that_a_registry_serves_damaged_is_refused_with_its_digest() {
    let bench = Bench::new();
    let registry = Registry::start(&bench);
    let data: Vec<u8> = (0..50_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let tar = files(&[("a", &data)]);
    let layout = Layout::of(bench.path("l"), std::slice::from_ref(&tar));
    registry.push(&format!("oci:{}", text(&layout.dir)), "app:1", &[]);
    let digest = sha256(&gzip(&tar));
    let hex = digest.trim_start_matches("sha256:");
    let path = registry.storage.join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
    let whole = fs::read(&path).expect("reads");
    let reference = format!("{}/app:1", registry.address);
    let mut bent = whole.clone();
    bent[5000] ^= 1;
    fs::write(&path, bent).expect("writes");
    let error = bench.pull(&reference).expect_err("refused").to_string();
    assert!(error.starts_with(&format!("layer {digest} is damaged: its content has the digest")), "{error}");
    fs::write(&path, &whole[..5000]).expect("writes");
    let error = bench.pull(&reference).expect_err("refused").to_string();
    assert!(error.starts_with(&format!("layer {digest} is damaged: it has 5000 bytes, not")), "{error}");
    fs::write(&path, whole).expect("writes");
    bench.pull(&reference).expect("pulls");
}

#[test]
fn a_registry_that_wants_a_login_gets_the_one_in_dockers_config() {
    let bench = Bench::new();
    // user:secret, by crypt(3) with bcrypt.
    let htpasswd =
        bench.write("htpasswd", b"user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n");
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", htpasswd.display());
    let registry = Registry::configured(&bench, "", &auth);
    let layout = Layout::of(bench.path("l"), &[files(&[("a", b"a")])]);
    registry.push(&format!("oci:{}", text(&layout.dir)), "app:1", &["--dest-creds", "user:secret"]);
    let reference = format!("{}/app:1", registry.address);
    let error = bench.pull(&reference).expect_err("refused");
    let text = error.to_string();
    assert!(matches!(error, OciError::Denied { anonymous: true, .. }), "{text}");
    assert!(text.contains("log in with 'docker login") && text.contains("UNAUTHORIZED"), "{text}");

    let mut bench = bench;
    // printf user:secret | base64; printf user:wrong | base64
    for (auth, good) in [("dXNlcjpzZWNyZXQ=", true), ("dXNlcjp3cm9uZw==", false)] {
        let config = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, registry.address);
        bench.settings.docker_config = Some(bench.write("config.json", config.as_bytes()));
        match bench.pull(&reference) {
            Ok(_) if good => fs::remove_file(bench.out()).expect("removes"),
            Err(OciError::Denied { anonymous: false, .. }) if !good => {}
            other => panic!("{auth}: {other:?}"),
        }
    }
    bench.settings.docker_config = Some(bench.write("config.json", b"nonsense"));
    let told = Told::default();
    bench.pull_with(&reference, &told).expect_err("refused");
    assert!(told.notes.lock().expect("not poisoned")[0].contains("going on anonymously"));
}

#[test]
fn an_image_that_is_not_there_and_a_registry_that_is_not_there_are_told_apart() {
    let bench = Bench::new();
    let registry = Registry::start(&bench);
    let error = bench.pull(&format!("{}/no/such:tag", registry.address)).expect_err("refused");
    assert!(matches!(error, OciError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("/no/such:tag; check the name and the tag"), "{error}");
    let address = registry.address.clone();
    drop(registry);
    let error = bench.pull(&format!("{address}/app")).expect_err("refused");
    assert!(matches!(error, OciError::Unreachable { .. }), "{error}");
    assert!(chain(&error).contains("Connection refused"), "{}", chain(&error));
}

#[test]
fn a_pull_that_nobody_waits_for_ends_and_leaves_nothing() {
    let bench = Bench::new();
    let registry = Registry::start(&bench);
    let data: Vec<u8> =
        (0..2_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let layout = Layout::of(bench.path("l"), &[files(&[("a", &data)])]);
    registry.push(&format!("oci:{}", text(&layout.dir)), "app:1", &[]);
    for cancel_at in [1, 100_000] {
        let told = Told { cancel_at, ..Told::default() };
        let error = bench.pull_with(&format!("{}/app:1", registry.address), &told).expect_err("cancelled");
        assert!(matches!(error, OciError::Cancelled), "{error}");
    }
}
