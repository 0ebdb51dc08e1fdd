//! Imports that end in the middle (A7, F2): the layer is cut off, the disk is full, nobody waits. At every place the outcome
//! is the same: an error that says where, no image, and nothing left ([`Bench::finish`]).

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use banger::host::progress::{Progress, Silent, Unit};
use banger::image::reference::Reference;
use banger::oci::{self, Blobs, Input, OciError, Settings};

use crate::made::*;
use crate::support::*;

/// A member of the layer that is cut: its name, where its header begins and where its content ends.
struct Place {
    name: String,
    begins: usize,
    ends: usize,
}

/// A small layer of everything, that packs badly, and where its members lie.
fn small() -> (Vec<u8>, Vec<Place>) {
    let mut noise = Noise(2026);
    let mut whole = vec![];
    let mut places = vec![];
    let long = "long/".repeat(40);
    let data: Vec<Vec<u8>> = [0, 1, 511, 512, 513, 4096, 9000].map(|n| noise.bytes(n)).into();
    let mut members = vec![
        member_of(DIR, "etc"),
        member_of(SYMLINK, "etc/link").target("nowhere"),
        member_of(DIR, &long).xattr("user.x", &data[2]),
        member_of(FIFO, "etc/pipe"),
    ];
    for (n, data) in data.iter().enumerate() {
        members.push(member_of(FILE, format!("etc/file{n}")).data(data));
        members.push(member_of(LINK, format!("etc/link{n}")).target(format!("etc/file{n}")));
    }
    for member in members {
        let mut tar = Tar::default();
        let name = String::from_utf8_lossy(member.path()).into_owned();
        tar.add(member);
        let mut bytes = tar.finish();
        bytes.truncate(bytes.len() - 1024);
        places.push(Place { name, begins: whole.len(), ends: whole.len() + bytes.len() });
        whole.extend(bytes);
    }
    whole.extend([0; 1024]);
    (whole, places)
}

/// An image whose layer is `packed`, and has the digest of that, but the diff ID of `meant`.
fn claims(bench: &Bench, packed: &[u8], meant: &[u8], packing: Packing) -> (Layout, String) {
    let layout = Layout::new(bench.path("l"));
    let manifest =
        image_of(&layout, &[meant.to_owned()], &[packed.to_owned()], packing.media_type(), CONFIG, MANIFEST);
    layout.index(&[manifest]);
    (layout, sha256(packed))
}

fn refused(bench: &Bench, layout: &Layout, what: &str) -> String {
    let error = chain(&bench.import(&layout.dir).expect_err(what));
    std::fs::remove_dir_all(&layout.dir).expect("removes");
    error
}

#[test]
fn a_layer_cut_at_any_block_is_refused_by_its_name() {
    let bench = Bench::new();
    let (whole, _) = small();
    for packing in [Packing::Plain, Packing::Gzip(6), Packing::Zstd(3)] {
        let packed = packing.pack(&whole);
        assert!(packed.len() > 12_000, "{packing:?}: {}", packed.len());
        for at in (0..packed.len()).step_by(512) {
            let what = format!("{packing:?} cut at {at} of {}", packed.len());
            // What has the digest of the whole layer is damaged.
            let (layout, digest) = claims(&bench, &packed, &whole, packing);
            let blob = std::fs::File::options().write(true).open(layout.blob_path(&digest)).expect("opens");
            blob.set_len(at as u64).expect("cuts");
            let error = refused(&bench, &layout, &what);
            assert!(error.contains(&format!("layer {digest} is damaged")), "{what}: {error}");
            // What was published like that, with its own digest, still has the diff ID of the whole.
            let (layout, digest) = claims(&bench, &packed[..at], &whole, packing);
            let error = refused(&bench, &layout, &what);
            assert!(error.contains(&digest), "{what}: {error}");
        }
    }
}

#[test]
fn a_tar_cut_within_a_member_is_refused_by_the_members_name() {
    let bench = Bench::new();
    let (whole, places) = small();
    for at in (512..whole.len() - 1024).step_by(512) {
        let what = format!("cut at {at}");
        let place = places.iter().rev().find(|place| place.begins < at).expect("the first begins at 0");
        let cut = &whole[..at];
        let (layout, digest) = claims(&bench, cut, cut, Packing::Plain);
        if place.ends == at {
            // Go's reader and GNU tar take an end between two members for the archive's, as we may; nothing is lost.
            if bench.import(&layout.dir).is_ok() {
                assert!(bench.debugfs("ls -l /").contains(" etc"), "{what}");
                discard(&bench.out());
            }
            std::fs::remove_dir_all(&layout.dir).expect("removes");
            continue;
        }
        let error = refused(&bench, &layout, &what);
        assert!(error.contains(&digest) && error.contains("ends in the middle"), "{what}: {error}");
        // A name in an extended header is known only with the header after that.
        let extended = place.name.starts_with("long/");
        assert!(extended || error.contains(&place.name), "{what}, in {}: {error}", place.name);
    }
}

/// Is cancelled when it has been asked so many times.
struct Impatient {
    asked: AtomicU64,
    patience: u64,
}

impl Progress for Impatient {
    fn stage(&self, _: &str) {}
    fn advance(&self, _: u64, _: u64, _: Unit) {}
    fn note(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) >= self.patience
    }
}

#[test]
fn an_import_can_be_cancelled_at_any_time_and_leaves_nothing() {
    let bench = Bench::new();
    let mut noise = Noise(1);
    let tars: Vec<Vec<u8>> = (0..4)
        .map(|layer| {
            let mut tar = Tar::default();
            for n in 0..40 {
                let data = noise.bytes(if n == 20 { 2 << 20 } else { 3000 });
                tar.add(member_of(FILE, format!("{layer}/{n}")).data(&data));
            }
            tar.finish()
        })
        .collect();
    let layout = layout_of(bench.path("l"), &tars, Packing::Gzip(1));
    let (mut patience, mut cancelled) = (0, 0);
    loop {
        let progress = Impatient { asked: AtomicU64::new(0), patience };
        let input = Input::Path(layout.dir.clone());
        match bench.finish(oci::import(input, &bench.settings, &bench.out(), &progress)) {
            Ok(_) => break,
            Err(OciError::Cancelled) => cancelled += 1,
            Err(other) => panic!("after {patience} questions: {}", chain(&other)),
        }
        patience += 1 + patience / 8;
    }
    assert!(cancelled >= 8, "{cancelled}");
}

/// Runs the test `name` of this file again in a mount namespace of its own, with a small disk at `words[0]`.
fn on_a_small_disk(name: &str, words: &[&str]) {
    let mount = format!("mount -t tmpfs -o size=64k tmpfs {} && exec \"$0\" \"$@\"", words[0]);
    let mut unshare = Command::new("unshare");
    unshare.args(["-m", "sh", "-ec", &mount]).arg(std::env::current_exe().expect("a path")).arg("--ignored");
    run_child(&mut unshare, &format!("cut::{name}"), words);
}

/// Tries on a disk that grows until `attempt` succeeds; returns how often it was too small.
fn grow_until(disk: &Path, attempt: impl Fn() -> Result<(), String>) -> usize {
    let mut kib = 64_u64;
    for failed in 0.. {
        run("mount", &["-o", &format!("remount,size={kib}k"), text(disk)]);
        match attempt() {
            Ok(()) => return failed,
            Err(error) => assert!(error.contains("No space left on device"), "{kib} KiB: {error}"),
        }
        kib += (kib / 12).next_multiple_of(4).max(64);
        assert!(kib < 1 << 20, "it does not even fit into {kib} KiB");
    }
    unreachable!()
}

fn noisy_layers() -> Vec<Vec<u8>> {
    let mut noise = Noise(7);
    (0..3)
        .map(|layer| {
            let mut tar = Tar::default();
            for n in 0..200 {
                let data = noise.bytes(n * 25);
                tar.add(member_of(DIR, format!("{layer}/{n}")));
                tar.add(
                    member_of(FILE, format!("{layer}/{n}/file")).data(&data).xattr("user.x", &[b'x'; 200]),
                );
            }
            tar.add(member_of(FILE, format!("large{layer}")).data(&noise.bytes(1 << 20)));
            tar.finish()
        })
        .collect()
}

#[test]
#[ignore = "needs a mount namespace of its own, as root; run by tests/run.sh"]
fn an_import_on_a_disk_full_at_any_time_leaves_nothing() {
    if let Some([scratch, layout]) = child_words() {
        let scratch = Path::new(&scratch);
        let settings = Settings { scratch: scratch.to_owned(), ..Bench::new().settings.clone() };
        let out = scratch.join("out.ext4");
        let tries = grow_until(scratch, || {
            let result = oci::import(Input::Path(layout.clone().into()), &settings, &out, &Silent);
            let left = std::fs::read_dir(scratch).expect("lists").count();
            assert_eq!(left, usize::from(result.is_ok()), "files are left");
            result.map(drop).map_err(|e| chain(&e))
        });
        assert!(tries > 15, "{tries}");
        run("e2fsck", &["-fn", text(&out)]);
        return;
    }
    let bench = Bench::new();
    let layout = layout_of(bench.path("l"), &noisy_layers(), Packing::Gzip(1));
    let name = "an_import_on_a_disk_full_at_any_time_leaves_nothing";
    on_a_small_disk(name, &[text(&bench.settings.scratch), text(&layout.dir)]);
}

#[test]
#[ignore = "needs a mount namespace of its own, as root, and docker-registry; run by tests/run.sh"]
fn a_pull_on_a_disk_full_at_any_time_leaves_whole_blobs_and_nothing_else() {
    if let Some([disk, reference]) = child_words() {
        let disk = Path::new(&disk);
        let (blobs, scratch) = (disk.join("blobs/sha256"), disk.join("scratch"));
        std::fs::create_dir(&scratch).expect("makes a directory");
        let settings = Settings {
            blobs: Blobs::at(blobs.clone()),
            scratch: scratch.clone(),
            ..Bench::new().settings.clone()
        };
        let reference: Reference = reference.parse().expect("a reference");
        let out = scratch.join("out.ext4");
        let tries = grow_until(disk, || {
            let result = oci::Pull::new(&reference, &settings, &Silent).fetch(&out);
            let left = std::fs::read_dir(&scratch).expect("lists").count();
            assert_eq!(left, usize::from(result.is_ok()), "files are left");
            for blob in std::fs::read_dir(&blobs).into_iter().flatten() {
                let path = blob.expect("lists").path();
                let digest = sha256(&std::fs::read(&path).expect("reads"));
                assert!(
                    digest.ends_with(path.file_name().and_then(|n| n.to_str()).expect("a name")),
                    "{path:?}"
                );
            }
            // Each try begins anew, so that what the store holds does not make the next one easier.
            std::fs::remove_dir_all(disk.join("blobs")).unwrap_or_default();
            result.map(drop).map_err(|e| chain(&e))
        });
        assert!(tries > 15, "{tries}");
        return;
    }
    let bench = Bench::new();
    let layout = layout_of(bench.path("l"), &noisy_layers(), Packing::Gzip(1));
    let registry = Registry::start(&bench);
    registry.push(&format!("oci:{}:t", layout.dir.display()), "noise:1", &[]);
    let disk = bench.path("disk");
    std::fs::create_dir(&disk).expect("makes a directory");
    let name = "a_pull_on_a_disk_full_at_any_time_leaves_whole_blobs_and_nothing_else";
    on_a_small_disk(name, &[text(&disk), &format!("{}/noise:1", registry.address)]);
}
