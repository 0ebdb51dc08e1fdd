//! The same layers give the same bytes: in another directory, at another time, packed another way, from a registry.

use std::path::Path;
use std::time::Duration;

use crate::made::*;
use crate::oracle::fifty;
use crate::oracle::judges::layout_named;
use crate::support::*;

/// The hash of what becomes of an image; the file is removed.
fn imported(bench: &Bench, path: &Path) -> blake3::Hash {
    bench.import(path).unwrap_or_else(|e| panic!("{}: {}", path.display(), chain(&e)));
    taken(bench)
}

fn taken(bench: &Bench) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut file = std::fs::File::open(bench.out()).expect("opens");
    hasher.update_reader(&mut file).expect("reads");
    discard(&bench.out());
    hasher.finalize()
}

/// Layers with everything in them that has an order or a time.
fn tars() -> Vec<Vec<u8>> {
    let mut tars = fifty::layers(99);
    let mut many = Tar::default();
    for n in 0..3000 {
        many.add(member_of(DIR, format!("many/{n}")));
        many.add(
            member_of(FILE, format!("many/{n}/file")).data(b"x").xattr("user.b", b"2").xattr("user.a", b"1"),
        );
    }
    tars.push(many.finish());
    tars
}

#[test]
fn the_same_layers_give_the_same_bytes_however_they_are_packed_and_wherever_and_whenever() {
    let tars = tars();
    let first = {
        let bench = Bench::new();
        let layout = layout_of(bench.path("l"), &tars, Packing::Gzip(6));
        imported(&bench, &layout.dir)
    };
    // Times in an ext4 file have seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let bench = Bench::new();
    let packings = [
        Packing::Gzip(6),
        Packing::Gzip(1),
        Packing::Gzip(9),
        Packing::GzipMembers,
        Packing::Plain,
        Packing::Zstd(1),
        Packing::Zstd(12),
    ];
    for (n, packing) in packings.into_iter().enumerate() {
        let layout = layout_of(bench.path(&format!("another directory {n}")), &tars, packing);
        assert_eq!(imported(&bench, &layout.dir), first, "{packing:?}");
    }
}

#[test]
fn other_layers_give_another_file_system() {
    let bench = Bench::new();
    let uuid = |name: &str, data: &'static [u8]| {
        let tar = tar_of([member_of(DIR, "./"), member_of(FILE, "file").data(data)]);
        let layout = layout_of(bench.path(name), &[tar], Packing::Gzip(6));
        bench.import(&layout.dir).expect("imports");
        let said = run("dumpe2fs", &["-h", text(&bench.out())]);
        discard(&bench.out());
        let line = |key: &str| said.lines().find(|line| line.starts_with(key)).expect(key).to_owned();
        (line("Filesystem UUID:"), line("Directory Hash Seed:"))
    };
    let (one, two) = (uuid("one", b"1"), uuid("two", b"2"));
    assert!(one.0 != two.0 && one.1 != two.1, "{one:?} {two:?}");
}

#[test]
#[ignore = "needs tests/images/oracle.sh; run by tests/run.sh"]
fn debian_from_a_layout_an_archive_and_zstd_layers_is_the_same_file() {
    let bench = Bench::new();
    let first = imported(&bench, &layout_named("usr-merged"));
    for other in ["usr-merged", "debian.docker.tar", "usr-merged-zstd"] {
        assert_eq!(imported(&bench, &layout_named(other)), first, "{other}");
    }
}

#[test]
#[ignore = "needs docker-registry and skopeo; run by tests/run.sh"]
fn an_image_is_the_same_file_from_a_registry_and_from_a_layout() {
    let bench = Bench::new();
    let layout = layout_of(bench.path("l"), &tars(), Packing::Gzip(6));
    let first = imported(&bench, &layout.dir);
    let registry = Registry::start(&bench);
    registry.push(&format!("oci:{}:t", layout.dir.display()), "fifty:1", &[]);
    // The second time, all blobs are here already.
    for _ in 0..2 {
        bench.pull(&format!("{}/fifty:1", registry.address)).unwrap_or_else(|e| panic!("{}", chain(&e)));
        assert_eq!(taken(&bench), first);
    }
}
