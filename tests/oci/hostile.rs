//! Layers made to do harm (A1 to A7, A10). Each is in an image whose digests are all right.

use std::fs;
use std::path::Path;

use tar::{Builder, EntryType, Header};

use banger::oci;

use crate::support::*;

const CANARY: &str = "canary";

/// A file outside that no layer may touch.
fn canary(bench: &Bench) -> String {
    let path = bench.write(CANARY, b"alive");
    text(&path).to_owned()
}

fn tar(build: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = Builder::new(vec![]);
    build(&mut tar);
    tar.into_inner().expect("finishes")
}

#[test]
fn symlinks_lead_into_the_image_and_never_to_the_host() {
    let bench = Bench::new();
    let path = canary(&bench);
    let dir = text(path.as_str().as_ref()).rsplit_once('/').expect("a directory").0.to_owned();
    let (f, s, h) = (EntryType::Regular, EntryType::Symlink, EntryType::Link);
    let attacks: [(&str, Vec<Vec<u8>>); 6] = [
        (
            "a file through an absolute symlink",
            vec![tar(|t| {
                member(t, s, "etc", &dir, b"");
                member(t, f, "etc/canary", "", b"dead");
            })],
        ),
        (
            "through one of a lower layer",
            vec![tar(|t| member(t, s, "etc", &dir, b"")), tar(|t| member(t, f, "etc/canary", "", b"dead"))],
        ),
        (
            "through one that climbs",
            vec![tar(|t| {
                member(t, s, "etc", &format!("../../../../../../../..{dir}"), b"");
                member(t, f, "etc/canary", "", b"dead");
            })],
        ),
        (
            "a whiteout through a symlink",
            vec![tar(|t| member(t, s, "etc", &dir, b"")), tar(|t| member(t, f, "etc/.wh.canary", "", b""))],
        ),
        (
            "an opaque whiteout through a symlink",
            vec![tar(|t| member(t, s, "etc", &dir, b"")), tar(|t| member(t, f, "etc/.wh..wh..opq", "", b""))],
        ),
        (
            "a file over a symlink to it",
            vec![tar(|t| {
                member(t, s, "x", &path, b"");
                member(t, f, "x", "", b"dead");
            })],
        ),
    ];
    for (what, layers) in attacks {
        let layout = Layout::of(bench.path("l"), &layers);
        bench.import(&layout.dir).unwrap_or_else(|e| panic!("{what}: {}", chain(&e)));
        assert_eq!(fs::read(&path).expect("the canary is there"), b"alive", "{what}");
        fs::remove_file(bench.out()).expect("removes");
        fs::remove_dir_all(&layout.dir).expect("removes");
    }
    let refused: [(&str, Vec<u8>, &str); 4] = [
        (
            "a hard link to a file of the host",
            tar(|t| {
                member(t, s, "etc", &dir, b"");
                member(t, h, "x", "etc/canary", b"");
                member(t, f, "x", "", b"dead");
            }),
            "hard link to nothing",
        ),
        (
            "a path that climbs",
            tar(|t| member(t, f, "../../../../tmp/x", "", b"dead")),
            "leads out of the image",
        ),
        (
            "a symlink in the place of the root",
            tar(|t| {
                member(t, s, ".", &dir, b"");
                member(t, f, "canary", "", b"dead");
            }),
            "root directory",
        ),
        ("an empty name", tar(|t| member(t, s, "", &dir, b"")), "root directory"),
    ];
    for (what, layer, why) in refused {
        let layout = Layout::of(bench.path("l"), &[layer]);
        let error = chain(&bench.import(&layout.dir).expect_err(what));
        assert!(error.contains(why), "{what}: {error}");
        assert_eq!(fs::read(&path).expect("the canary is there"), b"alive", "{what}");
        fs::remove_dir_all(&layout.dir).expect("removes");
    }
}

/// Refused, with an error that names the layer and the member, and that no terminal obeys.
fn refused(bench: &Bench, what: &str, layer: &[u8], member: &str, why: &str) {
    let layout = Layout::of(bench.path("l"), &[layer.to_owned()]);
    let error = chain(&bench.import(&layout.dir).expect_err(what));
    let digest = sha256(&gzip(layer));
    for part in [&digest, member, why] {
        assert!(error.contains(part), "{what}: '{part}' is not in: {error}");
    }
    assert!(!error.contains(|c: char| c.is_control()), "{what}: {error:?}");
    fs::remove_dir_all(&layout.dir).expect("removes");
}

#[test]
fn what_leads_out_of_the_image_or_nowhere_is_refused_by_its_name() {
    let bench = Bench::new();
    let (f, s, h, d) = (EntryType::Regular, EntryType::Symlink, EntryType::Link, EntryType::Directory);
    let deep = format!("{}x", "a/".repeat(300));
    let mut table: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        (
            "a hard link up",
            tar(|t| member(t, h, "x", "../../../etc/passwd", b"")),
            "'x'",
            "hard link out of the image",
        ),
        (
            "an absolute hard link",
            tar(|t| member(t, h, "x", "/etc/passwd", b"")),
            "'x'",
            "hard link to nothing",
        ),
        ("a hard link to the root", tar(|t| member(t, h, "x", "/", b"")), "'x'", "hard link to the root"),
        ("a hard link to itself", tar(|t| member(t, h, "x", "x", b"")), "'x'", "hard link to nothing"),
        (
            "a hard link to a directory",
            tar(|t| {
                member(t, d, "d", "", b"");
                member(t, h, "x", "d", b"");
            }),
            "'x'",
            "hard link to a directory",
        ),
        (
            "a hard link up through a symlink",
            tar(|t| {
                member(t, s, "up", "../../..", b"");
                member(t, h, "x", "up/etc/passwd", b"");
            }),
            "'x'",
            "hard link to nothing",
        ),
        (
            "a loop of symlinks",
            tar(|t| {
                member(t, s, "a", "b", b"");
                member(t, s, "b", "a", b"");
                member(t, f, "a/x", "", b"");
            }),
            "'a/x'",
            "too many symlinks",
        ),
        (
            "a symlink to itself",
            tar(|t| {
                member(t, s, "a", "a/a", b"");
                member(t, f, "a/x", "", b"");
            }),
            "'a/x'",
            "too many symlinks",
        ),
        (
            "below a file",
            tar(|t| {
                member(t, f, "a", "", b"");
                member(t, f, "a/x", "", b"");
            }),
            "'a/x'",
            "no directory",
        ),
        ("up", tar(|t| member(t, f, "a/../../x", "", b"")), "'a/../../x'", "leads out of the image"),
        ("up from the root", tar(|t| member(t, f, "/../x", "", b"")), "'/../x'", "leads out of the image"),
        ("the root as a file", tar(|t| member(t, f, "./", "", b"")), "'./'", "root directory"),
        ("the root as a hard link", tar(|t| member(t, h, "/", "x", b"")), "'/'", "root directory"),
        (
            "a whiteout of nothing",
            tar(|t| member(t, f, "a/.wh.", "", b"")),
            "'a/.wh.'",
            "whiteout of nothing",
        ),
        ("a whiteout of .", tar(|t| member(t, f, "a/.wh..", "", b"")), "'a/.wh..'", "whiteout of nothing"),
        ("a whiteout of ..", tar(|t| member(t, f, "a/.wh...", "", b"")), "'a/.wh...'", "whiteout of nothing"),
        ("a symlink to nothing", tar(|t| member(t, s, "x", "", b"")), "'x'", "symlink to nothing"),
    ];
    let pax = |records: &[(&str, &[u8])]| {
        tar(|t| {
            t.append_pax_extensions(records.iter().copied()).expect("appends");
            member(t, f, "x", "", b"");
        })
    };
    table.extend([
        ("a NUL in a name", pax(&[("path", b"a\0b")]), "'x'", "PAX record"),
        ("deep", pax(&[("path", deep.as_bytes())]), "a/a/a", "deeper than 256"),
        ("a name that a terminal obeys", pax(&[("path", b"\x1b]0;x\x07/../../x")]), "..", "leads out"),
        ("a name of no UTF-8", pax(&[("path", b"\xff/../../x")]), "..", "leads out"),
    ]);
    for (what, layer, name, why) in table {
        refused(&bench, what, &layer, name, why);
    }
}

#[test]
fn sizes_that_differ_are_refused_whichever_is_larger() {
    // A5: readers that take the one see other members than those that take the other.
    let bench = Bench::new();
    let inner = files(&[("smuggled", b"x")]);
    let with = |sizes: &[&str], header: u64| {
        let mut layer = tar(|t| {
            t.append_pax_extensions(sizes.iter().map(|size| ("size", size.as_bytes()))).expect("appends");
        });
        layer.truncate(layer.len() - 1024);
        let mut block = Header::new_ustar();
        block.set_path("outer").expect("a path");
        block.set_mode(0o644);
        block.set_uid(0);
        block.set_gid(0);
        block.set_mtime(0);
        block.set_size(header);
        block.set_cksum();
        [&layer, &block.as_bytes()[..], &inner].concat()
    };
    let len = inner.len() as u64;
    for (what, layer) in [
        ("the header's is larger", with(&["0"], len)),
        ("the header's is smaller", with(&[&len.to_string()], 512)),
        ("two in the extended header", with(&["0", &len.to_string()], 0)),
        ("no number", with(&["-1"], 0)),
        ("a number and more", with(&["512 "], 512)),
        ("larger than any", with(&["18446744073709551616"], 0)),
    ] {
        let layout = Layout::of(bench.path("l"), std::slice::from_ref(&layer));
        match bench.import(&layout.dir) {
            Err(e) => {
                let error = chain(&e);
                assert!(
                    error.contains(&sha256(&gzip(&layer))) && error.contains("'outer'"),
                    "{what}: {error}"
                );
            }
            Ok(_) => panic!("{what}: {:?} were imported", bench.listing().keys()),
        }
        fs::remove_dir_all(&layout.dir).expect("removes");
    }
}

#[test]
fn documents_that_are_something_else_than_they_are_called_are_refused() {
    // A7: what one reader takes for an index is a manifest to another (CVE-2021-41190).
    let bench = Bench::new();
    let layer = files(&[("a", b"a")]);
    let make = |change: &dyn Fn(&Layout, String, String) -> String| {
        let layout = Layout::new(bench.path("l"));
        let packed = layout.blob(LAYER, &gzip(&layer)) + "}";
        let config = format!(
            r#"{{"architecture":"{ARCH}","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            sha256(&layer)
        );
        let config = layout.blob(CONFIG, config.as_bytes()) + "}";
        let entry = change(&layout, config, packed);
        layout.index(&[entry]);
        layout
    };
    let manifest = |layout: &Layout,
                    called: &str,
                    calls_itself: &str,
                    config: &str,
                    layers: &str,
                    more: &str| {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{calls_itself}","config":{config},"layers":[{layers}]{more}}}"#
        );
        layout.blob(called, text.as_bytes())
    };
    let good = make(&|l, config, layer| manifest(l, MANIFEST, MANIFEST, &config, &layer, ""));
    bench.import(&good.dir).expect("imports");
    fs::remove_file(bench.out()).expect("removes");
    fs::remove_dir_all(&good.dir).expect("removes");
    type Change<'a> = &'a dyn Fn(&Layout, String, String) -> String;
    let table: [(&str, Change<'_>); 8] = [
        ("a manifest called an index", &|l, c, y| manifest(l, INDEX, MANIFEST, &c, &y, "")),
        ("a manifest that calls itself an index", &|l, c, y| manifest(l, MANIFEST, INDEX, &c, &y, "")),
        ("a manifest and an index", &|l, c, y| manifest(l, MANIFEST, MANIFEST, &c, &y, r#","manifests":[]"#)),
        ("a layer for a configuration", &|l, _, y| manifest(l, MANIFEST, MANIFEST, &y, &y, "")),
        ("a configuration for a layer", &|l, c, _| manifest(l, MANIFEST, MANIFEST, &c, &c, "")),
        ("no layer at all", &|l, c, _| manifest(l, MANIFEST, MANIFEST, &c, "", "")),
        ("schema 1", &|l, _, _| {
            let called = "application/vnd.docker.distribution.manifest.v1+prettyjws";
            l.blob(called, br#"{"schemaVersion":1,"fsLayers":[],"history":[],"signatures":[]}"#)
        }),
        ("an encrypted layer", &|l, c, y| {
            let encrypted = y.replace("tar+gzip", "tar+gzip+encrypted");
            manifest(l, MANIFEST, MANIFEST, &c, &encrypted, "")
        }),
    ];
    for (what, change) in table {
        let layout = make(change);
        assert!(bench.import(&layout.dir).is_err(), "{what} was imported");
        fs::remove_dir_all(&layout.dir).expect("removes");
    }
}

#[test]
fn a_directory_entry_over_a_symlink_does_not_change_what_it_leads_to() {
    // A4: tar before 0.4.45 changed the mode of the symlink's target.
    let bench = Bench::new();
    let victim = bench.path("victim");
    fs::create_dir(&victim).expect("makes a directory");
    let before = fs::metadata(&victim).expect("stats").permissions();
    let layer = tar(|t| {
        member(t, EntryType::Symlink, "x", text(&victim), b"");
        member(t, EntryType::Directory, "x", "", b"");
    });
    let layout = Layout::of(bench.path("l"), &[layer]);
    bench.import(&layout.dir).expect("imports");
    assert_eq!(fs::metadata(&victim).expect("stats").permissions(), before);
    assert!(bench.listing()[Path::new("x")].ends_with("directory"));
}

#[test]
fn a_member_with_two_sizes_smuggles_nothing() {
    // A5
    let bench = Bench::new();
    let inner = files(&[("smuggled", b"x")]);
    let layer = tar(|t| {
        t.append_pax_extensions([("size", inner.len().to_string().as_bytes())]).expect("appends");
        let mut header = Header::new_ustar();
        header.set_path("outer").expect("a path");
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_cksum();
        t.append(&header, [].as_slice()).expect("appends");
        member(t, EntryType::Regular, "smuggled", "", b"x");
    });
    let layout = Layout::of(bench.path("l"), &[layer]);
    let error = chain(&bench.import(&layout.dir).expect_err("refused"));
    assert!(error.contains("its member 'outer' has two sizes that differ"), "{error}");
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    // A6
    let bench = Bench::new();
    let file_of = |size: u64| {
        let mut header = Header::new_gnu();
        header.set_path("big").expect("a path");
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let sparse = {
        let mut header = Header::new_gnu();
        header.set_path("sparse").expect("a path");
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_entry_type(EntryType::GNUSparse);
        header.as_gnu_mut().expect("GNU").set_real_size(1 << 50);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let pax = |key: &str, length: usize| {
        tar(|t| {
            t.append_pax_extensions([(key, vec![b'x'; length].as_slice())]).expect("appends");
            member(t, EntryType::Regular, "a", "", b"");
        })
    };
    let attacks: [(&str, Vec<u8>, &str); 7] = [
        ("a file of two terabytes", file_of(2 << 40), "larger than 1 TiB"),
        ("a hole of a petabyte", sparse, "larger than 1 TiB"),
        ("a path of 8,000 bytes", pax("path", 8000), "longer than 4096 bytes"),
        ("a name of 300 bytes", pax("path", 300), "longer than 255 bytes"),
        (
            "deep directories",
            tar(|t| {
                t.append_pax_extensions([("path", "d/".repeat(1000).as_bytes())]).expect("appends");
                member(t, EntryType::Directory, "a", "", b"");
            }),
            "deeper than 256",
        ),
        ("attributes of 100 KiB", pax("SCHILY.xattr.user.x", 100_000), "64 KiB of extended attributes"),
        ("an extended header of 2 MiB", pax("comment", 2 << 20), "larger than 1 MiB"),
    ];
    for (what, layer, why) in attacks {
        let layout = Layout::of(bench.path("l"), &[layer]);
        let error = chain(&bench.import(&layout.dir).expect_err(what));
        assert!(error.contains(why), "{what}: {error}");
        fs::remove_dir_all(&layout.dir).expect("removes");
    }
    // Zeros pack a thousandfold; they take no room unpacked either.
    let zeros = Layout::of(bench.path("l"), &[files(&[("zeros", &vec![0; 256 << 20])])]);
    bench.import(&zeros.dir).expect("imports");
    let stat = bench.debugfs("stat /zeros");
    assert!(stat.contains("Size: 268435456") && stat.contains("Blockcount: 0"), "{stat}");
}

#[test]
fn names_that_programs_stumble_over_arrive_as_they_are() {
    // A10
    let bench = Bench::new();
    let names = [
        "new\nline",
        "quo\"te",
        "apo'strophe",
        "sp ace",
        "$(touch x)",
        "-rf",
        "back\\slash",
        "tab\t",
        "*",
        "\x1b[2J",
    ];
    let layer = files(&names.map(|n| (n, n.as_bytes())));
    let mut with_bytes = Builder::new(vec![]);
    with_bytes.append_pax_extensions([("path", b"\xff\xfe".as_slice())]).expect("appends");
    member(&mut with_bytes, EntryType::Regular, "a", "", b"bytes");
    let layout = Layout::of(bench.path("l"), &[layer, with_bytes.into_inner().expect("finishes")]);
    bench.import(&layout.dir).expect("imports");
    let found = bench.listing();
    for name in names {
        assert!(found.contains_key(Path::new(name)), "{name:?}: {found:?}");
    }
    assert_eq!(found.len(), names.len() + 1);
}

#[test]
fn a_name_from_an_archive_is_a_reference_or_is_dropped() {
    // A8
    let bench = Bench::new();
    let table: [(&str, &[&str]); 6] = [
        ("debian:12", &["debian:12"]),
        ("docker.io/library/debian:latest", &["debian"]),
        ("latest", &[]),
        ("../../etc/passwd", &[]),
        ("a b\\u001b[2J", &[]),
        ("--privileged", &[]),
    ];
    for (name, want) in table {
        let layout = Layout::new(bench.path("l"));
        let manifest = layout.image(ARCH, &[files(&[("a", b"")])], None) + &ref_name(name);
        layout.index(&[manifest]);
        assert_eq!(bench.import(&layout.dir).expect("imports").names, want, "{name}");
        fs::remove_file(bench.out()).expect("removes");
        fs::remove_dir_all(&layout.dir).expect("removes");
    }
}

#[test]
fn links_inside_an_archive_do_not_read_files_of_the_host() {
    let bench = Bench::new();
    let path = canary(&bench);
    let layout = Layout::of(bench.path("l"), &[files(&[("a", b"a")])]);
    fs::remove_file(layout.dir.join("index.json")).expect("removes");
    let mut archive = Builder::new(vec![]);
    archive.append_dir_all(".", &layout.dir).expect("appends");
    member(&mut archive, EntryType::Symlink, "index.json", &path, b"");
    let archive = bench.write("archive.tar", &archive.into_inner().expect("finishes"));
    // Without the index it is no layout, so it is what else a tar can be; the link is one inside it.
    bench.import(&archive).expect("imports as a root file system");
    assert!(
        bench.debugfs("stat /index.json").contains(&format!("Fast link dest: \"{path}\"")) || path.len() > 59
    );
}

#[test]
fn what_exceeds_a_limit_is_refused_with_the_settings_name() {
    let mut bench = Bench::new();
    let layout = Layout::of(bench.path("l"), &[files(&[("zeros", &[0; 2 << 20]), ("a", b"a"), ("b", b"b")])]);
    for (limits, key) in [
        (oci::Limits { layer_bytes: 1 << 20, ..oci::Limits::default() }, "image_limits.layer_size"),
        (oci::Limits { entries: 2, ..oci::Limits::default() }, "image_limits.entries"),
        (oci::Limits { metadata_bytes: 300, ..oci::Limits::default() }, "image_limits.metadata_size"),
    ] {
        bench.settings.limits = limits;
        let error = chain(&bench.import(&layout.dir).expect_err("refused"));
        assert!(error.starts_with("cannot unpack layer sha256:") && error.contains(key), "{error}");
    }
    bench.settings.limits = oci::Limits::default();
    bench.import(&layout.dir).expect("is within the limits");
}
