//! Archives and layouts, as people have them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use banger::host::progress::Silent;
use banger::oci::{self, Input};
use tar::{Builder, EntryType};

use crate::support::*;

#[test]
fn an_oci_layout_becomes_what_umoci_unpacks() {
    let bench = Bench::new();
    let layout = umoci_image(&bench);
    let built = bench.import(&layout).expect("imports");
    assert_eq!(bench.listing(), umoci_listing(&bench, &layout));
    assert_eq!((built.names.as_slice(), built.arch.as_str()), (["t".to_owned()].as_slice(), ARCH));
    assert_eq!(built.config.cmd, ["sh"]);
    assert!(built.config.env.contains(&"A=1".to_owned()), "{:?}", built.config.env);
    assert!(built.digest.is_some());
    // What a dump does not show.
    let stat = bench.debugfs("stat /null");
    assert!(stat.contains("Type: character special") && stat.contains("01:03"), "{stat}");
    assert!(bench.debugfs("stat /pipe").contains("Type: FIFO"));
    assert!(bench.debugfs("stat /bin/busybox").contains("Mode:  04755"));
    let (one, two) = (bench.debugfs("stat /usr/lib/big"), bench.debugfs("stat /usr/lib/big2"));
    assert!(one.contains("Links: 2"), "{one}");
    assert_eq!(one.lines().next(), two.lines().next(), "the same inode");
    let hole = bench.debugfs("stat /usr/lib/hole");
    assert!(hole.contains("Size: 3145728") && hole.contains("Blockcount: 0"), "{hole}");
}

#[test]
fn the_file_system_has_room_to_grow_online() {
    let bench = Bench::new();
    let layout = Layout::of(bench.path("l"), &[files(&[("a", b"a")])]);
    bench.import(&layout.dir).expect("imports");
    let features = run("dumpe2fs", &["-h", text(&bench.out())]);
    for feature in ["metadata_csum", "64bit", "resize_inode", "has_journal", "extent"] {
        assert!(features.contains(feature), "{feature}: {features}");
    }
    let size = fs::metadata(bench.out()).expect("stats").len();
    assert!((64 << 20..256 << 20).contains(&size), "{size}");
    // resize2fs prepares offline what the kernel does online, with the same reserved descriptors.
    File::options().write(true).open(bench.out()).and_then(|f| f.set_len(20 << 30)).expect("extends");
    run("resize2fs", &[text(&bench.out())]);
    run("e2fsck", &["-fn", text(&bench.out())]);
}

#[test]
fn capabilities_and_attributes_are_kept_though_they_hold_newlines() {
    let bench = Bench::new();
    let mut tar = Builder::new(vec![]);
    // struct vfs_cap_data, revision 2 (linux/capability.h): bit 10 is CAP_NET_BIND_SERVICE, and a newline in this encoding.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0];
    tar.append_pax_extensions([("SCHILY.xattr.security.capability", capability.as_slice())])
        .expect("appends");
    member(&mut tar, EntryType::Regular, "ping", "", b"x");
    let layout = Layout::of(bench.path("l"), &[tar.into_inner().expect("finishes")]);
    bench.import(&layout.dir).expect("imports");
    let bytes = run(
        "sh",
        &[
            "-c",
            &format!(
                "debugfs -R 'ea_get -f /dev/stdout /ping security.capability' {} | od -An -v -tu1",
                text(&bench.out())
            ),
        ],
    );
    let found: Vec<u8> = bytes.split_whitespace().map(|w| w.parse().expect("a byte")).collect();
    assert_eq!(found, capability);
}

#[test]
fn archives_of_every_kind_are_recognised_by_their_content() {
    let bench = Bench::new();
    let layout = umoci_image(&bench);
    let want = umoci_listing(&bench, &layout);
    let oci = format!("oci:{}:t", layout.display());
    let (docker, archive) = (bench.path("docker.tar"), bench.path("archive.tar"));
    run(
        "skopeo",
        &["copy", "--insecure-policy", &oci, &format!("docker-archive:{}:me/app:1", text(&docker))],
    );
    run("skopeo", &["copy", "--insecure-policy", &oci, &format!("oci-archive:{}:me/app:1", text(&archive))]);
    // A newer `docker save` writes a layout, and manifest.json beside it.
    let both = bench.path("both");
    run("skopeo", &["copy", "--insecure-policy", &oci, &format!("oci:{}:1", text(&both))]);
    fs::write(both.join("manifest.json"), docker_manifest(&both, "docker.io/me/app:1")).expect("writes");
    for (name, dir) in [("layout.tar", &layout), ("both.tar", &both)] {
        run("tar", &["-C", text(dir), "-cf", text(&bench.path(name)), "."]);
    }
    for (name, tool) in [("layout.tar", "gzip"), ("docker.tar", "zstd"), ("layout.tar", "xz")] {
        let (from, to) = (bench.path(name), bench.path(&format!("{name}.{tool}")));
        let packer = if tool == "zstd" { zstd_file } else { shell_file };
        packer(tool, &from, &to);
    }
    let table = [
        ("docker.tar", "me/app:1"),
        ("archive.tar", "me/app:1"),
        ("both.tar", "me/app:1"),
        ("layout.tar", "t"),
        ("layout.tar.gzip", "t"),
        ("docker.tar.zstd", "me/app:1"),
        ("layout.tar.xz", "t"),
    ];
    for (file, name) in table {
        // Names say nothing: the content does.
        let path = bench.path("input");
        fs::rename(bench.path(file), &path).expect("renames");
        let built = bench.import(&path).unwrap_or_else(|e| panic!("{file}: {}", chain(&e)));
        assert_eq!(built.names, [name], "{file}");
        assert_eq!(
            (built.config.cmd.as_slice(), built.source.as_str()),
            (["sh".to_owned()].as_slice(), text(&path))
        );
        assert_eq!(bench.listing(), want, "{file}");
        fs::remove_file(bench.out()).expect("removes");
        fs::rename(&path, bench.path(file)).expect("renames");
    }
}

fn shell_file(tool: &str, from: &Path, to: &Path) {
    run("sh", &["-ec", &format!("{tool} -c <{} >{}", from.display(), to.display())]);
}

fn zstd_file(_: &str, from: &Path, to: &Path) {
    let packed = zstd::stream::encode_all(File::open(from).expect("opens"), 1).expect("packs");
    fs::write(to, packed).expect("writes");
}

/// What docker writes beside a layout.
fn docker_manifest(layout: &Path, tag: &str) -> String {
    let index = fs::read_to_string(layout.join("index.json")).expect("reads");
    let index: serde_json::Value = serde_json::from_str(&index).expect("parses");
    let path =
        |digest: &serde_json::Value| digest.as_str().expect("a digest").replace("sha256:", "blobs/sha256/");
    let manifest = fs::read_to_string(layout.join(path(&index["manifests"][0]["digest"]))).expect("reads");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("parses");
    let layers: Vec<String> =
        manifest["layers"].as_array().expect("layers").iter().map(|l| path(&l["digest"])).collect();
    serde_json::json!([{"Config": path(&manifest["config"]["digest"]), "RepoTags": [tag], "Layers": layers}])
        .to_string()
}

#[test]
fn a_root_file_system_is_imported_from_a_file_and_from_a_pipe() {
    let bench = Bench::new();
    let root = bench.path("root");
    run(
        "sh",
        &[
            "-ec",
            &format!(
                "mkdir -p {0}/bin {0}/etc && cp /bin/busybox {0}/bin/busybox && ln -s busybox {0}/bin/sh && echo x >{0}/etc/.wh.kept",
                text(&root)
            ),
        ],
    );
    let want = listing(&root);
    let tar = bench.path("root.tar");
    run("busybox", &["tar", "-C", text(&root), "-cf", text(&tar), "."]);
    let built = bench.import(&tar).expect("imports");
    assert_eq!(bench.listing(), want);
    assert_eq!((built.names.len(), built.arch.as_str(), built.digest), (0, ARCH, None));
    for command in [
        Command::new("busybox").args(["tar", "-C", text(&root), "-cf", "-", "."]),
        Command::new("busybox").args(["tar", "-C", text(&root), "-czf", "-", "."]),
    ] {
        fs::remove_file(bench.out()).expect("removes");
        let (mut child, pipe) = piped(command);
        let built = bench.finish(oci::import(Input::Stream(pipe), &bench.settings, &bench.out(), &Silent));
        assert_eq!(built.expect("imports").source, "-");
        assert!(child.wait().expect("reaps").success());
        assert_eq!(bench.listing(), want);
    }
    // A shell's `<root.tar`, from somewhere in the middle of a file.
    fs::remove_file(bench.out()).expect("removes");
    let shifted = bench.write("shifted", &[vec![b'#'; 100], fs::read(&tar).expect("reads")].concat());
    let mut file = File::open(shifted).expect("opens");
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(100)).expect("seeks");
    bench.finish(oci::import(Input::Stream(file), &bench.settings, &bench.out(), &Silent)).expect("imports");
    assert_eq!(bench.listing(), want);
}

#[test]
fn what_is_no_image_is_refused_in_one_sentence() {
    let bench = Bench::new();
    let dir = bench.path("dir");
    fs::create_dir(&dir).expect("makes a directory");
    let good = files(&[("a", &[7; 3000])]);
    let huge_index = Layout::of(bench.path("huge"), std::slice::from_ref(&good));
    fs::write(huge_index.dir.join("index.json"), vec![b' '; 5 << 20]).expect("writes");
    let garbage = Layout::of(bench.path("garbage"), std::slice::from_ref(&good));
    fs::write(garbage.dir.join("index.json"), b"{").expect("writes");
    let empty = Layout::new(bench.path("empty-layout"));
    empty.index(&[]);
    let table = [
        (bench.write("empty", b""), "is no image: it is empty"),
        (bench.write("text", b"hello"), "is no image: it is neither a tar archive nor"),
        (bench.write("noise", &[b'x'; 5000]), "is no image: it is neither a tar archive nor"),
        (bench.write("zeros", &[0; 10240]), "is no image: it is an archive of nothing"),
        (bench.write("cut", &good[..2000]), "is no image: the tar archive ends in the middle"),
        (bench.write("cut.gz", &gzip(&good)[..40]), "is no image: its gzip data is damaged or cut off"),
        (bench.write("text.gz", &gzip(b"hello")), "is no image: it is neither a tar archive nor"),
        (bench.write("x.bz2", b"BZh91AY&SY"), "packed with bzip2"),
        (dir, "is no image: it is a directory, but no OCI layout"),
        (bench.path("missing"), "cannot read"),
        (huge_index.dir, "larger than 4 MiB"),
        (garbage.dir, "the manifest is malformed"),
        (empty.dir, "it has none at all"),
    ];
    for (path, want) in table {
        let error = chain(&bench.import(&path).expect_err(want));
        assert!(error.contains(want), "{}: {error}", path.display());
        assert!(error.starts_with(text(&path)) || error.starts_with("cannot"), "{error}");
    }
}

#[test]
fn a_layer_that_is_damaged_is_refused_with_its_digest() {
    let bench = Bench::new();
    let data: Vec<u8> = (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let tar = files(&[("data", &data)]);
    let digest = sha256(&gzip(&tar));
    for at in [0, 5, 400, 300_000] {
        let layout = Layout::of(bench.path(&format!("flip{at}")), std::slice::from_ref(&tar));
        let blob = File::options().read(true).write(true).open(layout.blob_path(&digest)).expect("opens");
        let mut byte = [0];
        blob.read_exact_at(&mut byte, at).expect("reads");
        blob.write_all_at(&[byte[0] ^ 4], at).expect("writes");
        let error = bench.import(&layout.dir).expect_err("refused").to_string();
        assert!(
            error.starts_with(&format!("layer {digest} is damaged: its content has the digest sha256:")),
            "{error}"
        );
    }
    let layout = Layout::of(bench.path("cut"), std::slice::from_ref(&tar));
    File::options().write(true).open(layout.blob_path(&digest)).and_then(|f| f.set_len(1000)).expect("cuts");
    let error = bench.import(&layout.dir).expect_err("refused").to_string();
    assert!(error.starts_with(&format!("layer {digest} is damaged: it has 1000 bytes, not ")), "{error}");
    fs::remove_file(layout.blob_path(&digest)).expect("removes");
    let error = bench.import(&layout.dir).expect_err("refused").to_string();
    assert!(error.contains(&format!("the layer {digest} is missing")), "{error}");

    // Made wrong rather than damaged: the digests are right, but what is in it is cut off.
    let layout = Layout::new(bench.path("made-wrong"));
    let cut = gzip(&tar[..tar.len() / 2]);
    let manifest = layout.image(ARCH, &[tar[..tar.len() / 2].to_vec()], None);
    layout.index(&[manifest]);
    let error = chain(&bench.import(&layout.dir).expect_err("refused"));
    let why = "the tar archive ends in the middle of its member 'data'";
    assert_eq!(error, format!("cannot unpack layer {}: {why}", sha256(&cut)));
}

#[test]
fn a_layer_that_is_not_the_one_the_configuration_means_is_refused() {
    let bench = Bench::new();
    let (tar, other) = (files(&[("a", b"a")]), files(&[("b", b"b")]));
    let layout = Layout::new(bench.path("l"));
    let manifest = layout.image(ARCH, std::slice::from_ref(&tar), Some(&[sha256(&other)]));
    layout.index(&[manifest]);
    let error = bench.import(&layout.dir).expect_err("refused").to_string();
    let (found, want) = (sha256(&tar), sha256(&other));
    assert!(error.contains(&format!("it unpacks to {found}, not to {want}")), "{error}");
    for ids in [vec![], vec![found.clone(), found]] {
        let manifest = layout.image(ARCH, std::slice::from_ref(&tar), Some(&ids));
        layout.index(&[manifest]);
        let error = chain(&bench.import(&layout.dir).expect_err("refused"));
        assert!(error.contains("it has 1 layers, but its configuration has"), "{error}");
    }
}

#[test]
fn configurations_and_manifests_that_are_damaged_are_refused() {
    let bench = Bench::new();
    let layout = Layout::of(bench.path("l"), &[files(&[("a", b"a")])]);
    for blob in fs::read_dir(layout.dir.join("blobs/sha256")).expect("lists") {
        let path = blob.expect("lists").path();
        let whole = fs::read(&path).expect("reads");
        let mut bent = whole.clone();
        let last = bent.len() - 2;
        bent[last] ^= 1;
        fs::write(&path, bent).expect("writes");
        let error = bench.import(&layout.dir).expect_err("refused").to_string();
        let digest = path.file_name().and_then(|n| n.to_str()).expect("hexadecimal");
        assert!(error.contains(&format!("sha256:{digest} is damaged")), "{error}");
        fs::write(&path, whole).expect("writes");
    }
    bench.import(&layout.dir).expect("imports");
}

#[test]
fn the_image_for_this_machine_is_chosen_or_what_there_is_is_listed() {
    let bench = Bench::new();
    let tar = |name: &str| vec![files(&[(name, b"")])];
    let layout = Layout::new(bench.path("l"));
    let mine = layout.image(ARCH, &tar("mine"), None);
    let theirs = layout.image(OTHER_ARCH, &tar("theirs"), None);
    let second = layout.image(ARCH, &tar("second"), None);
    let attestation = layout.image(ARCH, &tar("attestation"), None)
        + r#","platform":{"os":"unknown","architecture":"unknown"},"annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#;
    let told = |open: &str, arch: &str| format!("{open}{}", platform(arch));
    let index = |open: &[String]| {
        let entries: Vec<String> = open.iter().map(|d| format!("{d}}}")).collect();
        let text =
            format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, entries.join(","));
        layout.blob(INDEX, text.as_bytes())
    };
    let nested = |depth: usize| {
        (0..depth)
            .fold(index(&[told(&theirs, OTHER_ARCH), told(&mine, ARCH), attestation.clone()]), |inner, _| {
                index(&[inner])
            })
    };
    let table: [(&str, Vec<String>, Result<&str, &str>); 10] = [
        ("one", vec![mine.clone()], Ok("mine")),
        ("two, told", vec![told(&theirs, OTHER_ARCH), told(&mine, ARCH)], Ok("mine")),
        ("two, untold", vec![theirs.clone(), mine.clone()], Ok("mine")),
        ("with an attestation", vec![attestation.clone(), mine.clone()], Ok("mine")),
        ("an index in it", vec![nested(0)], Ok("mine")),
        ("indexes in indexes", vec![nested(2)], Ok("mine")),
        ("too many of them", vec![nested(6)], Err("nests indexes more than 4 deep")),
        (
            "another architecture",
            vec![theirs.clone()],
            Err("is for another architecture: this machine is linux/"),
        ),
        ("it lies about its platform", vec![told(&theirs, ARCH)], Err("is for another architecture")),
        (
            "two that fit",
            vec![mine.clone() + &ref_name("one"), second + &ref_name("two")],
            Err("several images and nothing says which: one, two"),
        ),
    ];
    for (what, entries, want) in table {
        layout.index(&entries);
        match (bench.import(&layout.dir), want) {
            (Ok(_), Ok(name)) => {
                assert!(bench.listing().contains_key(Path::new(name)), "{what}");
                fs::remove_file(bench.out()).expect("removes");
            }
            (Err(e), Err(want)) => assert!(chain(&e).contains(want), "{what}: {}", chain(&e)),
            (got, want) => panic!("{what}: {got:?}, not {want:?}"),
        }
    }
}

#[test]
fn a_root_file_system_of_another_architecture_is_refused() {
    let bench = Bench::new();
    let mut elf = fs::read("/bin/busybox").expect("reads");
    elf.truncate(4096);
    let machine = if ARCH == "amd64" { 183 } else { 62 };
    elf[18] = machine;
    let mut tar = Builder::new(vec![]);
    member(&mut tar, EntryType::Symlink, "bin", "usr/bin", b"");
    member(&mut tar, EntryType::Regular, "usr/bin/dash", "", &elf);
    member(&mut tar, EntryType::Symlink, "usr/bin/sh", "/bin/dash", b"");
    let path = bench.write("root.tar", &tar.into_inner().expect("finishes"));
    let error = bench.import(&path).expect_err("refused").to_string();
    assert!(
        error.contains(&format!("this machine is linux/{ARCH}, it has programs for {OTHER_ARCH}")),
        "{error}"
    );
}

#[test]
fn an_import_that_nobody_waits_for_ends_and_leaves_nothing() {
    let bench = Bench::new();
    let data = vec![7; 4 << 20];
    let tar = bench.write("root.tar", &files(&[("a", &data), ("b", &data)]));
    let layout = Layout::of(bench.path("l"), &[files(&[("a", &data)]), files(&[("b", &data)])]);
    for path in [tar, layout.dir] {
        for cancel_at in [1, 3000] {
            let told = Told { cancel_at, ..Told::default() };
            let result = oci::import(Input::Path(path.clone()), &bench.settings, &bench.out(), &told);
            assert!(matches!(bench.finish(result), Err(oci::OciError::Cancelled)), "{}", path.display());
        }
    }
}

#[test]
#[ignore = "needs a mount namespace of its own; as root: cargo test --test oci -- --ignored"]
fn an_import_on_a_full_disk_leaves_nothing_half_made() {
    if let Some([scratch, layout]) = child_words() {
        return on_a_full_disk(Path::new(&scratch), Path::new(&layout));
    }
    let bench = Bench::new();
    let noise: Vec<u8> =
        (0..6_000_000_u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let layout = Layout::of(bench.path("l"), &[files(&[("noise", &noise)])]);
    // From too little for anything to too little for the tables.
    for mib in [1, 3, 5, 6] {
        let scratch = text(&bench.settings.scratch);
        let mount = format!("mount -t tmpfs -o size={mib}m tmpfs {scratch} && exec \"$0\" \"$@\"");
        let mut unshare = Command::new("unshare");
        unshare.args(["-m", "sh", "-ec", &mount]);
        let me = std::env::current_exe().expect("a path");
        let name = "import::an_import_on_a_full_disk_leaves_nothing_half_made";
        run_child(unshare.arg(me).arg("--ignored"), name, &[scratch, text(&layout.dir)]);
    }
}

fn on_a_full_disk(scratch: &Path, layout: &Path) {
    let bench = Bench::new();
    let settings = oci::Settings { scratch: scratch.to_owned(), ..bench.settings.clone() };
    let input = Input::Path(layout.to_owned());
    let error = oci::import(input, &settings, &scratch.join("out.ext4"), &Silent).expect_err("no room");
    assert!(chain(&error).contains("No space left on device"), "{}", chain(&error));
    assert_eq!(fs::read_dir(scratch).expect("lists").count(), 0, "after: {}", chain(&error));
}
