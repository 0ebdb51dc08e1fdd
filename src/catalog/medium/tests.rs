//! Media made and read again, and those that nobody honest has made.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;
use tar::{EntryType, Header};

use super::*;
use crate::catalog::bundle::BundleError;
use crate::host::progress::{Cancelled, Silent};
use crate::image::config::ImageConfig;

const CAPS: Caps = Caps { part_bytes: 1 << 30, ratio: 2000, free: 64 << 20 };

/// The parts' contents, in the manifest's order: an executable, a kernel with modules, an image of mostly holes.
fn contents() -> Vec<Vec<u8>> {
    let mut image = vec![0; 3 << 20];
    image[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xef]);
    image[(2 << 20)..(2 << 20) + 5].copy_from_slice(b"hello");
    let small = ["me", "fire", "jail", "elf", "early", "all"].map(|text| text.as_bytes().to_vec());
    small.into_iter().chain([image]).collect()
}

fn content(bytes: &[u8]) -> Content {
    Content { size: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string() }
}

fn manifest() -> Manifest {
    let text = |text: &str| text.to_owned();
    let c: Vec<Content> = contents().iter().map(|bytes| content(bytes)).collect();
    let program =
        |name, at: usize| Program { name: text(name), version: text("1.15.0"), content: c[at].clone() };
    Manifest {
        arch: text("amd64"),
        banger: Own { version: text("0.1.0"), commit: text("abc"), content: c[0].clone() },
        programs: vec![program("firecracker", 1), program("jailer", 2)],
        kernels: vec![Kernel {
            name: text("6.1"),
            version: text("6.1.0-57"),
            source: text("linux.deb"),
            snapshot: true,
            bundle: Some("ab".repeat(32)),
            vmlinux: c[3].clone(),
            modules_cpio: c[4].clone(),
            modules: Some(c[5].clone()),
        }],
        images: vec![Image {
            names: vec![text("debian:12"), text("base")],
            digest: Some(format!("sha256:{}", "cd".repeat(32))),
            source: text("docker.io/library/debian:12"),
            arch: text("amd64"),
            variant: Some(text("v3")),
            config: ImageConfig { env: vec![text("A=1")], ..ImageConfig::default() },
            kernel: Some(text("6.1")),
            content: c[6].clone(),
        }],
    }
}

fn files(contents: &[Vec<u8>]) -> Vec<File> {
    let open = |bytes: &Vec<u8>| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        fs::write(&path, bytes).expect("writes");
        File::open(&path).expect("opens")
    };
    contents.iter().map(open).collect()
}

fn packed() -> Vec<u8> {
    let mut out = vec![];
    let made = pack(&manifest(), &files(&contents()), &mut out, &Silent).expect("packs");
    assert_eq!(made.size, out.len() as u64);
    let digest = ring::digest::digest(&ring::digest::SHA256, &out);
    let digest: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(made.sha256, digest);
    out
}

/// Reads all of it, and writes nothing.
fn read(bytes: &[u8]) -> Result<Manifest, BundleError> {
    read_with(bytes, CAPS)
}

fn read_with(bytes: &[u8], caps: Caps) -> Result<Manifest, BundleError> {
    let (mut reader, manifest) = Reader::open(bytes, caps, &Silent)?;
    for _ in manifest.parts() {
        reader.part(None)?;
    }
    reader.finish()?;
    Ok(manifest)
}

/// What a person is told.
fn why(bytes: &[u8]) -> String {
    let error = read(bytes).expect_err("refused");
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn header(kind: EntryType, path: &str, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o777);
    header.set_size(size);
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    header
}

fn member(kind: EntryType, path: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = [header(kind, path, data.len() as u64).as_bytes().as_slice(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// The members of the good medium.
fn members() -> Vec<Vec<u8>> {
    let manifest = manifest();
    let parts = manifest.parts();
    let head = member(EntryType::Regular, MANIFEST, &manifest.to_bytes().expect("writes"));
    let rest = parts.iter().zip(contents()).map(|(p, bytes)| member(EntryType::Regular, &p.name, &bytes));
    std::iter::once(head).chain(rest).collect()
}

fn medium(members: &[Vec<u8>]) -> Vec<u8> {
    zstd::encode_all([members.concat(), vec![0; 1024]].concat().as_slice(), 3).expect("packs")
}

#[test]
fn what_is_made_is_read_again_and_holes_are_holes() {
    let bytes = packed();
    assert_eq!(packed(), bytes, "the same content gives the same bytes");
    assert!(bytes.len() < 4096, "{} bytes: zeros take no room", bytes.len());
    let (mut reader, found) = Reader::open(bytes.as_slice(), CAPS, &Silent).expect("opens");
    assert_eq!(found, manifest());
    let dir = tempfile::tempdir().expect("a directory");
    for (n, want) in contents().iter().enumerate() {
        let path = dir.path().join(n.to_string());
        let file = File::create_new(&path).expect("creates");
        reader.part(Some(&file)).expect("reads it");
        assert!(fs::read(&path).expect("reads") == *want, "part {n}");
        assert!(file.metadata().expect("stats").blocks() * 512 < 1 << 20, "zeros take no room");
    }
    reader.finish().expect("ends");
    // What the test makes by hand is the same archive.
    assert_eq!(read(&medium(&members())).expect("reads"), manifest());
}

#[test]
fn tar_takes_it_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("b"), packed()).expect("writes");
    let mut unpacked = vec![];
    zstd::stream::copy_decode(File::open(dir.path().join("b")).expect("opens"), &mut unpacked)
        .expect("unpacks");
    let mut archive = tar::Archive::new(unpacked.as_slice());
    let names: Vec<(String, u32)> = archive
        .entries()
        .expect("lists")
        .map(|entry| {
            let entry = entry.expect("an entry");
            let mode = entry.header().mode().expect("a mode");
            (entry.path().expect("a path").display().to_string(), mode)
        })
        .collect();
    let image = format!("images/{}.ext4", manifest().images[0].content.blake3);
    let want = [
        ("manifest.json", 0o644),
        ("banger", 0o755),
        ("programs/firecracker", 0o755),
        ("programs/jailer", 0o755),
        ("kernels/6.1/vmlinux", 0o644),
        ("kernels/6.1/modules.cpio", 0o644),
        ("kernels/6.1/modules.ext4", 0o644),
        (image.as_str(), 0o644),
    ];
    assert_eq!(names, want.map(|(name, mode)| (name.to_owned(), mode)));
}

#[test]
fn the_longest_names_fit() {
    let mut long = manifest();
    long.kernels[0].name = "k".repeat(100);
    let mut out = vec![];
    pack(&long, &files(&contents()), &mut out, &Silent).expect("packs");
    assert_eq!(read(&out).expect("reads"), long);
}

#[test]
fn a_file_that_is_not_what_the_manifest_says_is_not_packed() {
    for other in ["other", "mE", "m", ""] {
        let mut contents = contents();
        contents[0] = other.as_bytes().to_vec();
        let error = pack(&manifest(), &files(&contents), io_sink(), &Silent).expect_err(other).to_string();
        assert!(error.contains("banger") && error.contains("changed while it was read"), "{error}");
    }
    let cancelled = pack(&manifest(), &files(&contents()), io_sink(), &Cancelled);
    assert!(matches!(cancelled, Err(BundleError::Cancelled)));
}

fn io_sink() -> impl Write {
    std::io::sink()
}

#[test]
fn a_medium_that_ends_early_is_refused_wherever_it_ends() {
    let bytes = packed();
    for length in (0..bytes.len()).step_by(7).chain(bytes.len() - 9..bytes.len()) {
        let error = read(&bytes[..length]).expect_err("cut");
        assert!(matches!(error, BundleError::Truncated), "{length} of {}: {error:?}", bytes.len());
    }
    // Whole members are missing.
    for missing in 1..members().len() {
        let rest = &members()[..missing];
        assert!(matches!(read(&medium(rest)), Err(BundleError::Truncated)), "{missing}");
    }
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_is() {
    let bytes = packed();
    let mut noticed = 0;
    for at in (0..bytes.len()).step_by(3) {
        let mut bent = bytes.clone();
        bent[at] ^= 1 << (at % 8);
        // A few bits mean nothing, where the same can be packed in two ways: then all is as it was.
        match read(&bent) {
            Ok(found) => assert_eq!(found, manifest(), "byte {at}"),
            Err(_) => noticed += 1,
        }
    }
    assert!(noticed > bytes.len() / 3 * 9 / 10, "{noticed} of {}", bytes.len());
}

#[test]
fn what_follows_is_refused() {
    let bytes = packed();
    let image = medium(&[members(), vec![member(EntryType::Regular, "more", b"x")]].concat());
    assert!(why(&image).contains("'more' is not the one that its manifest has there"));
    for more in [b"x".to_vec(), bytes.clone(), vec![0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]] {
        let error = read(&[bytes.clone(), more].concat()).expect_err("goes on");
        assert!(matches!(error, BundleError::Trailing), "{error:?}");
    }
}

#[test]
fn a_member_that_is_not_the_next_one_is_refused_whatever_it_is() {
    let with = |at: usize, other: Vec<u8>| {
        let mut all = members();
        all[at] = other;
        why(&medium(&all))
    };
    let swapped = {
        let mut all = members();
        all.swap(4, 5);
        why(&medium(&all))
    };
    assert!(swapped.contains("'kernels/6.1/modules.cpio' is not the one"), "{swapped}");
    for (kind, path, data, want) in [
        (EntryType::Regular, "../../etc/passwd", "x", "plain names"),
        (EntryType::Regular, "/etc/passwd", "x", "plain names"),
        (EntryType::Regular, "kernels/6.1/../../x", "x", "plain names"),
        (EntryType::Regular, "kernels/6.1/vmlinux2", "elf", "is not the one"),
        (EntryType::Regular, "manifest.json", "{}", "is not the one"),
        (EntryType::Regular, "kernels/6.1/vmlinux", "elfs", "another size"),
        (EntryType::Regular, "kernels/6.1/vmlinux", "elg", "is damaged"),
        (EntryType::Directory, "kernels/6.1/vmlinux", "", "is no file"),
        (EntryType::Link, "kernels/6.1/vmlinux", "", "neither a file"),
        (EntryType::Char, "kernels/6.1/vmlinux", "", "neither a file"),
        (EntryType::GNUSparse, "kernels/6.1/vmlinux", "", "neither a file"),
        (EntryType::XHeader, "kernels/6.1/vmlinux", "", "extension of tar"),
    ] {
        let error = with(4, member(kind, path, data.as_bytes()));
        assert!(error.contains(want), "{kind:?} {path}: {error}");
    }
    let mut link = header(EntryType::Symlink, "kernels/6.1/vmlinux", 0);
    link.as_mut_bytes()[157..164].copy_from_slice(b"modules");
    link.set_cksum();
    let error = with(4, link.as_bytes().to_vec());
    assert!(error.contains("is no file"), "{error}");
}

#[test]
fn what_does_not_begin_with_a_manifest_is_refused() {
    assert!(why(b"hello, this is no bundle at all").contains("cannot be unpacked"));
    for (members, want) in [
        (vec![], "no manifest.json at its beginning"),
        (members()[1..].to_vec(), "no manifest.json at its beginning"),
        (vec![member(EntryType::Directory, MANIFEST, b"")], "'manifest.json' is no file"),
        (vec![header(EntryType::Regular, MANIFEST, 2 << 20).as_bytes().to_vec()], "more than 1 MiB"),
    ] {
        let error = why(&medium(&members));
        assert!(error.contains(want), "{error}");
    }
    assert!(matches!(read(b""), Err(BundleError::Truncated)));
}

#[test]
fn what_is_larger_than_it_can_honestly_be_is_refused() {
    // A page that is repeated packs far better than anything that people have.
    let bomb = b"bomb!".repeat(2 << 20);
    let mut contents = contents();
    contents[6] = bomb;
    let mut manifest = manifest();
    manifest.images[0].content = content(&contents[6]);
    let mut bytes = vec![];
    pack(&manifest, &files(&contents), &mut bytes, &Silent).expect("packs");
    read(&bytes).expect("it is small enough");
    let strict = Caps { ratio: 100, free: 1 << 20, ..CAPS };
    assert!(matches!(read_with(&bytes, strict), Err(BundleError::TooMuch(_))));
    let short = Caps { part_bytes: 1 << 20, ..CAPS };
    let error = read_with(&bytes, short).expect_err("too long").to_string();
    assert!(error.contains("image_limits.layer_size"), "{error}");
    // Zeros are free.
    read_with(&packed(), strict).expect("mostly zeros");
}

#[test]
fn whoever_asked_and_has_gone_waits_for_nothing() {
    let bytes = packed();
    let (mut reader, _) = Reader::open(bytes.as_slice(), CAPS, &Cancelled).expect("opens");
    assert!(matches!(reader.part(None), Err(BundleError::Cancelled)));
}

#[test]
fn a_manifest_that_is_none_is_refused_with_the_reason() {
    let good = String::from_utf8(manifest().to_bytes().expect("writes")).expect("text");
    assert_eq!(Manifest::parse(good.as_bytes()).expect("reads"), manifest());
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    let id = &manifest().images[0].content.blake3;
    let twice = vec![manifest().images[0].clone(); 2];
    let twice = Manifest { images: twice, ..manifest() }.to_bytes().expect("writes");
    let twice = String::from_utf8(twice).expect("text");
    for (text, want) in [
        ("", "not JSON"),
        ("{}", "of schema 1"),
        ("[]", "not JSON"),
        (r#"{"version":1,"image":{}}"#, "of schema 1"),
        (r#"{"schema_version":2,"images":"new"}"#, "the banger that is in it"),
        (
            &with("\"schema_version\": 1", "\"schema_version\": 18446744073709551615"),
            "the banger that is in it",
        ),
        (&with("\"schema_version\": 1", "\"schema_version\": 0"), "of schema 1"),
        (&with("\"amd64\"", "\"../x\""), "its arch"),
        (&with("\"6.1\"", "\"..\""), "cannot name a kernel"),
        (&with("kernels/6.1/vmlinux", "kernels/6.2/vmlinux"), "kernels/6.1/vmlinux is called"),
        (&with("kernels/6.1/modules.ext4", "/etc/shadow"), "is called"),
        (&with("programs/jailer", "programs/firecracker"), "is called"),
        (&with("\"name\": \"jailer\"", "\"name\": \"sudo\""), "no program that banger runs"),
        (&with("\"name\": \"banger\"", "\"name\": \"bangerd\""), "is called"),
        (&with(&format!("\"{id}\""), "\"../../x\""), "no digest"),
        (
            &with(&format!("\"blake3\": \"{id}\""), &format!("\"blake3\": \"{}\"", "0".repeat(64))),
            "is called",
        ),
        (&with("\"debian:12\"", "\"Debian 12\""), "cannot name an image"),
        (&with("\"debian:12\"", "\"base\""), "the image's name base is there twice"),
        (&with("\"size\": 3,", "\"size\": -3,"), "not JSON"),
        (&with("\"size\": 3145728", "\"size\": 18446744073709551615"), "longer than any file"),
        (&with("linux.deb", "linux\\u001b[2J.deb"), "no line of text"),
        (&twice, "is there twice"),
    ] {
        let error = Manifest::parse(text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(want), "{want}: {error}");
        assert!(!error.contains('\u{1b}'), "{error}");
    }
    let many = vec![manifest().kernels[0].clone(); 1001];
    let many = Manifest { kernels: many, ..manifest() }.to_bytes().expect("writes");
    assert!(Manifest::parse(&many).expect_err("many").to_string().contains("more than 1000"));
}

proptest! {
    #[test]
    fn any_bytes_are_a_medium_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
        let _ = read(&medium(std::slice::from_ref(&bytes)));
        let _ = Manifest::parse(&bytes);
    }

    #[test]
    fn a_manifest_with_a_byte_changed_is_read_or_refused(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = manifest().to_bytes().expect("writes");
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(found) = Manifest::parse(&bytes) {
            // What has been read can be written, and is the same again.
            let again = found.to_bytes().expect("writes");
            prop_assert_eq!(Manifest::parse(&again).expect("reads"), found);
        }
    }
}
