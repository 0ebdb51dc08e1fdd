//! The oracle: what banger makes of an image, mounted by the kernel, is what umoci unpacks of it, entry by entry ([`tree`]).
//! The images are made by other people's tools (tests/images/oracle.sh), and by hand where no tool writes such layers.
//!
//! Where umoci (0.4.7, oci/layer/tar_extract.go) and containerd (archive/tar.go) disagree, or cannot be followed:
//!
//! | what | umoci | containerd | we follow |
//! |---|---|---|---|
//! | a whiteout after a member of that name, in one layer | hides only the layers below | deletes both | umoci, as the specification says |
//! | a whiteout of a directory that its layer also writes into | keeps it, and what is new in it | deletes it all | umoci |
//! | the root directory's own member | applied | left out | umoci: its mode, owner, time and attributes are the image's |
//! | a directory's member over that directory | its attributes replace those there | are added to them | umoci |
//! | a hard link's own mode and owner | left out | applied to the file | umoci: the file's own member says what it is |
//! | time of a directory that a layer changes without naming it | kept | the time of unpacking | umoci: the same bytes each time |
//! | the same, where a missing parent is made in it | the time of unpacking | the time of unpacking | neither: kept. Exempt: that time |
//! | the same, where a whiteout of it leaves it but not its old children | the time of unpacking | deletes it | neither: kept. Exempt: that time |
//! | time of a directory that no member names | the time of unpacking | the time of unpacking | neither: 1970. Exempt: that time |
//! | time of the root directory, if no member names it | the time of unpacking | the time of unpacking | neither: 1970. Exempt: that time |
//! | times before 1970 | kept | 1970 | umoci |
//! | times after 2262 | wrapped around | the epoch, or the latest there is | neither: kept up to 2310, the latest that e2fsck never doubts |
//! | `security.selinux` | left out | applied | containerd. Exempt: that attribute |
//! | GNU tar's own sparse members (type `S`) | refused | refused | neither: read, as GNU tar does. Compared with the same files, not sparse |
//! | zstd | refused | read | containerd. Compared with the same layers in gzip |
//! | a global PAX header | refused | left out | containerd. Compared with the same layer without it |
//! | names that climb out of the root | taken for the root | taken for the root | neither: refused, since no builder writes them |

mod fifty;
mod judges;
mod kernel;

mod same;
mod tree;

use std::path::Path;

use crate::made::*;
use judges::*;
use tar::EntryType;
use tree::{Field, Tree};

use crate::support::*;

const ROOTLESS: &str = "the root directory has no member";
const MADE: &str = "no member names it";
const EMPTIED: &str = "a whiteout of it left it, but not its old children";
const MADE_IN: &str = "a missing parent was made in it";

/// Imports what is at `path` and compares it with what umoci makes of `tag` in `layout`, but for the times named.
fn compare(bench: &Bench, path: &Path, layout: &Path, forgiven: &[(&str, &str)]) -> Tree {
    bench.import(path).unwrap_or_else(|e| panic!("{}: {}", path.display(), chain(&e)));
    assert_clean(&bench.out());
    let mut have = as_mounted(&bench.out());
    let mut want = as_unpacked(bench, layout, "t");
    for (path, _why) in forgiven {
        have.forget_field(path, Field::Mtime);
        want.forget_field(path, Field::Mtime);
    }
    let differences = have.differences(&want);
    assert!(differences.is_empty(), "{}:\n{}", path.display(), differences.join("\n"));
    have
}

#[test]
#[ignore = "needs root and tests/images/oracle.sh; run by tests/run.sh"]
fn debian_is_what_umoci_unpacks() {
    let bench = Bench::new();
    let tree = compare(&bench, &layout_named("debian"), &layout_named("debian"), &[]);
    assert!(tree.len() > 5000, "{}", tree.len());
    assert_eq!(tree.field("bin", Field::Target), Some("usr/bin"));
}

#[test]
#[ignore = "needs root and tests/images/oracle.sh; run by tests/run.sh"]
fn layers_that_write_through_a_usr_merged_roots_symlinks_are_what_umoci_unpacks() {
    let bench = Bench::new();
    let tree = compare(&bench, &layout_named("usr-merged"), &layout_named("usr-merged"), &[]);
    assert!(tree.field("usr/lib/systemd/system/tool.service", Field::Size).is_some());
    assert_eq!(tree.field("usr/bin/more", Field::Type), None);
    assert_eq!(tree.field("lib64", Field::Type), Some("directory"));
}

#[test]
#[ignore = "needs root and tests/images/oracle.sh; run by tests/run.sh"]
fn a_docker_archive_is_what_umoci_unpacks_of_the_layout() {
    let bench = Bench::new();
    compare(&bench, &layout_named("debian.docker.tar"), &layout_named("usr-merged"), &[]);
}

#[test]
#[ignore = "needs root and tests/images/oracle.sh; run by tests/run.sh"]
fn zstd_layers_are_what_umoci_unpacks_of_gzip_ones() {
    let bench = Bench::new();
    compare(&bench, &layout_named("usr-merged-zstd"), &layout_named("usr-merged"), &[]);
}

#[test]
#[ignore = "needs root and tests/images/oracle.sh; run by tests/run.sh"]
fn capabilities_set_id_bits_acls_and_attributes_are_what_umoci_unpacks() {
    let bench = Bench::new();
    let tree = compare(&bench, &layout_named("attributes"), &layout_named("attributes"), &[]);
    let holds = |path, what: &str| tree.field(path, Field::Xattrs).expect("is there").contains(what);
    assert!(holds("bin/low-port", "security.capability="), "{tree:?}");
    assert!(holds("srv/acl/none", "system.posix_acl_access="));
    assert!(holds("srv/deep", "system.posix_acl_default="));
    assert!(holds("srv/user", "trusted.thing=") && holds("srv/big3", "user.big=xxx"));
    assert!(holds("", "user.root=r") && tree.field("", Field::Mode) == Some("0751"));
    assert_eq!(tree.field("bin/lower", Field::LinkedTo), Some("bin/low-port"));
    assert_eq!(tree.field("bin/as-root", Field::Mode), Some("2755"));
}

#[test]
#[ignore = "needs root and tests/images/oracle.sh; run by tests/run.sh"]
fn sparse_files_of_all_pax_kinds_and_one_of_5_gib_are_what_umoci_unpacks() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    let made = [("", ROOTLESS), ("way-0.0", MADE), ("way-0.1", MADE), ("way-1.0", MADE)];
    let tree = compare(&bench, &layout_named("sparse"), &layout_named("sparse"), &made);
    assert_eq!(tree.field("five", Field::Size), Some("5368709243"));
    // The holes are holes: what has data is 5 times 12 MiB of comb, and little else.
    let taken = std::fs::metadata(bench.out()).expect("stats").blocks() * 512;
    assert!(taken < 112 << 20, "{taken} bytes on the disk");
}

#[test]
#[ignore = "needs root and tests/images/oracle.sh; run by tests/run.sh"]
fn gnu_sparse_files_are_what_umoci_unpacks_of_the_same_files_without_holes() {
    let bench = Bench::new();
    compare(
        &bench,
        &layout_named("sparse-gnu"),
        &layout_named("not-sparse"),
        &[("", ROOTLESS), ("way", MADE)],
    );
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn fifty_layers_of_changes_are_what_umoci_unpacks() {
    let mut entries = vec![];
    for seed in [1, 4711, 0xdead_beef] {
        let bench = Bench::new();
        let layout = layout_of(bench.path("l"), &fifty::layers(seed), Packing::Gzip(1));
        // Only some layers have a member for the root directory, but the first may be without.
        let tree = compare(&bench, &layout.dir, &layout.dir, &[]);
        entries.push(tree.len());
    }
    // What is left at the end is what the last layers did not delete.
    assert!(entries.iter().all(|n| *n > 10) && entries.iter().sum::<usize>() > 200, "{entries:?}");
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_hundred_thousand_small_files_are_what_umoci_unpacks() {
    let bench = Bench::new();
    let mut tar = Tar::default();
    tar.add(member_of(DIR, "./"));
    tar.add(member_of(DIR, "one"));
    for n in 0..60_000 {
        // Half of the names are as long as names are in a cache of checksums.
        let name =
            if n % 2 == 0 { format!("one/{n}") } else { format!("one/{:064x}", n * 2_654_435_761_u64) };
        tar.add(member_of(FILE, name).data(format!("{n}\n").as_bytes()));
    }
    for dir in 0..400 {
        tar.add(member_of(DIR, format!("{dir}")).time(format!("{dir}")));
        for n in 0..100 {
            let data = [b'x'; 300];
            tar.add(member_of(FILE, format!("{dir}/{n}")).data(&data[..n]).owner(dir, n as u64));
        }
    }
    let layout = layout_of(bench.path("l"), &[tar.finish()], Packing::Gzip(1));
    let tree = compare(&bench, &layout.dir, &layout.dir, &[]);
    assert_eq!(tree.len(), 1 + 1 + 60_000 + 400 + 40_000);
    let index = bench.debugfs("htree_dump /one");
    assert!(index.contains("Root node dump") && index.contains("Indirect levels: 1"), "{}", &index[..400]);
}

/// 40 names of one component that programs stumble over.
fn odd_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        "new\nline",
        "tab\t",
        "quo\"te",
        "apo'strophe",
        "back\\slash",
        "$(reboot)",
        "`reboot`",
        "-rf",
        "*",
        "?[a]",
        " leading",
        "trailing ",
        "...",
        "....",
        ".hidden",
        "wh.x",
        ".wh",
        "a.wh.b",
        "\u{1b}[2J",
        "\u{7f}",
        "\u{202e}txt.exe",
        "é",
        "e\u{301}",
        "日本語",
        "#",
        "%s%n",
        "con",
        "a:b",
        "a=b",
        "~",
        "!x",
        "{a,b}",
        "<>|&;",
        "\r",
        "\u{feff}bom",
        "lost+found.",
        "LOST+FOUND",
    ]
    .iter()
    .map(|name| name.as_bytes().to_owned())
    .collect();
    names.push(vec![0xff, 0xfe]);
    names.push(b"caf\xe9".to_vec());
    names.push((1..=255).filter(|b| *b != b'/').collect());
    names
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn odd_names_long_names_and_deep_ones_are_what_umoci_unpacks() {
    let bench = Bench::new();
    let mut tar = Tar::default();
    tar.add(member_of(DIR, "."));
    for name in odd_names() {
        tar.add(member_of(FILE, &name).data(&name));
        tar.add(member_of(DIR, [b"in-", &name[..name.len().min(250)]].concat()));
        tar.add(member_of(SYMLINK, [b"to-", &name[..name.len().min(250)]].concat()).target(&name));
    }
    for length in [1, 2, 59, 60, 61, 100, 101, 254, 255] {
        tar.add(member_of(FILE, "n".repeat(length)).data(b"n"));
        tar.add(member_of(SYMLINK, format!("s{length}")).target("t".repeat(length)));
    }
    for length in [1023, 2047, 4094, 4095] {
        tar.add(
            member_of(SYMLINK, format!("s{length}")).target("t/".repeat(length / 2 + 1).split_at(length).0),
        );
    }
    tar.add(member_of(SYMLINK, "bytes").target([0xff, b'/', 0xfe]));
    for depth in 1..=200 {
        tar.add(member_of(DIR, "deep/".repeat(depth)).time(depth.to_string()));
    }
    tar.add(member_of(FILE, format!("{}file", "deep/".repeat(200))).data(b"deep"));
    for depth in 1..=15 {
        tar.add(member_of(DIR, format!("{}/", "w".repeat(255)).repeat(depth)).time(depth.to_string()));
    }
    let wide = format!("{}file", format!("{}/", "w".repeat(255)).repeat(15));
    tar.add(member_of(FILE, &wide).data(b"wide"));
    tar.add(member_of(LINK, "link-to-wide").target(&wide));
    // The same by GNU tar's own long names and links.
    for (kind, name) in [(EntryType::GNULongName, "g".repeat(200)), (EntryType::GNULongLink, wide.clone())] {
        let name = [name.as_bytes(), b"\0"].concat();
        tar.add(member_of(kind, "././@LongLink").data(&name));
    }
    tar.add(member_of(LINK, "g").target("wrong"));
    let layout = layout_of(bench.path("l"), &[tar.finish()], Packing::Plain);
    let tree = compare(&bench, &layout.dir, &layout.dir, &[]);
    assert_eq!(tree.field(&"g".repeat(200), Field::LinkedTo), tree.field("link-to-wide", Field::LinkedTo));
    assert_eq!(tree.field(&format!("{}file", "deep/".repeat(200)), Field::Size), Some("4"));
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn times_owners_devices_and_modes_at_their_limits_are_what_umoci_unpacks() {
    let bench = Bench::new();
    let mut tar = Tar::default();
    tar.add(
        member_of(DIR, "./")
            .time("-86400.25")
            .owner(4_294_967_294, 65_536)
            .mode(0o1750)
            .xattr("user.root", b"yes"),
    );
    // ext4 keeps from 1901-12-13; what lies before is moved there, as the kernel does. umoci counts nanoseconds, until 2262.
    let times = [
        "-1",
        "-1.5",
        "-0.000000001",
        "-2147483648",
        "-2147483646.999999999",
        "-2147483649",
        "-9223372036",
        "0",
        "0.000000001",
        "1.123456789",
        "2147483647",
        "2147483648",
        "4294967295",
        "4294967296.5",
        "6442450943.999999999",
        "6442450944",
        "9223372036.5",
    ];
    for time in times {
        tar.add(member_of(FILE, format!("time{time}")).time(time));
        tar.add(member_of(DIR, format!("dir{time}")).time(time));
        tar.add(member_of(SYMLINK, format!("link{time}")).target("x").time(time));
    }
    for id in [1, 65_534, 65_535, 65_536, 2_097_151, 2_097_152, 2_147_483_647, 2_147_483_648, 4_294_967_294] {
        tar.add(member_of(FILE, format!("uid{id}")).owner(id, 0));
        tar.add(member_of(DIR, format!("gid{id}")).owner(0, id));
        tar.add(member_of(SYMLINK, format!("both{id}")).target("x").owner(id, id));
    }
    for (major, minor) in
        [(0, 0), (1, 3), (8, 255), (8, 256), (255, 255), (256, 1), (259, 300), (4095, 1_048_575)]
    {
        tar.add(member_of(CHAR, format!("char{major}-{minor}")).device(major, minor).mode(0o666));
        tar.add(
            member_of(BLOCK, format!("block{major}-{minor}")).device(major, minor).mode(0o660).owner(0, 6),
        );
    }
    tar.add(member_of(FIFO, "pipe").mode(0o622).owner(7, 7).time("5.5"));
    tar.add(member_of(LINK, "pipe-too").target("pipe"));
    tar.add(member_of(LINK, "device-too").target("char1-3"));
    tar.add(member_of(SYMLINK, "symlink").target("nowhere").xattr("trusted.on", b"a symlink"));
    tar.add(member_of(LINK, "symlink-too").target("symlink"));
    for mode in [0, 0o1, 0o777, 0o1000, 0o2000, 0o4000, 0o7777] {
        tar.add(member_of(FILE, format!("file{mode:o}")).mode(mode));
        tar.add(member_of(DIR, format!("dir{mode:o}")).mode(mode).owner(1, 2));
    }
    for size in [0, 1, 59, 60, 61, 155, 156, 160, 4095, 4096, 4097, 49_152, 49_153, 1 << 20] {
        tar.add(member_of(FILE, format!("size{size}")).data(&Noise(size as u64 + 1).bytes(size)));
    }
    for n in 0..300 {
        tar.add(member_of(LINK, format!("many{n}")).target("size4096"));
    }
    let (big, most) = ([b'v'; 3000], [b'w'; 3800]);
    tar.add(member_of(FILE, "big").xattr("user.a", &big).xattr("user.b", b"in the inode"));
    tar.add(member_of(FILE, "as-big").xattr("user.a", &big).xattr("user.b", b"in the inode"));
    tar.add(member_of(DIR, "biggest").xattr("trusted.a", &most).xattr("security.b", b"x"));
    tar.add(member_of(FILE, "label").xattr("security.selinux", b"system_u:object_r:etc_t:s0\0"));
    let layout = layout_of(bench.path("l"), &[tar.finish()], Packing::Gzip(6));

    bench.import(&layout.dir).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_clean(&bench.out());
    let (mut have, mut want) = (as_mounted(&bench.out()), as_unpacked(&bench, &layout.dir, "t"));
    assert_eq!(have.field("label", Field::Xattrs), Some(r"security.selinux=system_u:object_r:etc_t:s0\x00"));
    assert_eq!(want.field("label", Field::Xattrs), Some(""));
    have.forget_field("label", Field::Xattrs);
    want.forget_field("label", Field::Xattrs);
    let differences = have.differences(&want);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    // The reference did not lose what the test is about.
    assert_eq!(have.field("time-1.5", Field::Mtime), Some("-2.500000000"));
    assert_eq!(have.field("uid4294967294", Field::Owner), Some("4294967294:0"));
    assert_eq!(have.field("block4095-1048575", Field::Device), Some("4095:1048575"));
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn times_are_kept_as_far_as_ext4_can_keep_them() {
    let bench = Bench::new();
    // 34 bits of seconds from 1901-12-13 on reach to 2446; but from 2310 to 2378 they are the bits that old kernels gave to times
    // before 1970, and e2fsck offers to move them there (check_inode_extra_negative_epoch).
    let times = [
        ("15032385535", "15032385535"),
        ("12000000000.25", "10737418239.25"),
        ("15032385536", "15032385535"),
        ("99999999999", "15032385535"),
        ("-2147483648", "-2147483648"),
        ("-99999999999", "-2147483648"),
    ];
    let mut tar = Tar::default();
    for (time, _) in times {
        tar.add(member_of(FILE, time).time(time));
    }
    let layout = layout_of(bench.path("l"), &[tar.finish()], Packing::Gzip(6));
    bench.import(&layout.dir).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_clean(&bench.out());
    let tree = as_mounted(&bench.out());
    for (time, want) in times {
        let (seconds, rest) = want.split_once('.').unwrap_or((want, ""));
        assert_eq!(tree.field(time, Field::Mtime), Some(&*format!("{seconds}.{rest:0<9}")), "{time}");
    }
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn members_without_parents_and_members_twice_are_what_umoci_unpacks() {
    let bench = Bench::new();
    let first = tar_of([
        member_of(FILE, "a/b/c/file").data(b"no parents"),
        member_of(DIR, "a/b").mode(0o700).owner(3, 4).time("33.25"),
        member_of(FILE, "twice").data(b"one").mode(0o600),
        member_of(LINK, "once").target("twice").mode(0o777).owner(9, 9).time("9"),
        member_of(FILE, "twice").data(b"two, longer").mode(0o640),
        member_of(DIR, "changes"),
        member_of(FILE, "changes/gone").data(b"gone"),
        member_of(FILE, "changes").data(b"a file"),
        member_of(SYMLINK, "changes").target("/a"),
        member_of(DIR, "changes").mode(0o711).time("77"),
        member_of(SYMLINK, "to-twice").target("twice"),
        member_of(FILE, "to-twice").data(b"not through it"),
        member_of(SYMLINK, "to-a").target("/../../a/./"),
        member_of(FILE, "to-a/through").data(b"through"),
        member_of(LINK, "to-a/linked").target("to-a/b/c/file"),
        member_of(FILE, "/absolute").data(b"x"),
        member_of(FILE, "./dotted").data(b"x"),
        member_of(FILE, "a//b/../b/up").data(b"x"),
        member_of(DIR, "lower").xattr("user.x", b"lower").time("11"),
        member_of(FILE, "lower/old").data(b"old"),
        member_of(DIR, "hidden").mode(0o710).time("12"),
        member_of(FILE, "hidden/old"),
        member_of(DIR, "opaque").time("13"),
        member_of(DIR, "opaque/dir").time("14"),
        member_of(FILE, "opaque/dir/old"),
        member_of(FILE, "opaque/old"),
        member_of(FILE, "again").data(b"lower"),
    ]);
    let second = tar_of([
        member_of(FILE, "a/new/deep/file").data(b"new"),
        member_of(FILE, "lower/new").data(b"the directory keeps its time and attributes"),
        member_of(FILE, "hidden/new").data(b"new"),
        member_of(FILE, ".wh.hidden"),
        member_of(FILE, "opaque/new").data(b"new"),
        member_of(FILE, "opaque/.wh..wh..opq"),
        member_of(FILE, "opaque/later").data(b"later"),
        member_of(FILE, "again").data(b"upper"),
        member_of(FILE, ".wh.again"),
        member_of(FILE, ".wh.never-was"),
        member_of(FILE, "never/.wh.was"),
        member_of(FILE, "never/.wh..wh..opq"),
        member_of(FILE, ".wh.once"),
        member_of(FILE, "once").data(b"after its whiteout"),
    ]);
    // An old tar says by a slash that it is a directory (tar(5), "Old-Style Archive Format").
    let mut third = Tar::default();
    let mut old = [0_u8; 512];
    for (at, bytes) in
        [(0, &b"v7/"[..]), (100, b"0000750"), (108, b"0000001"), (116, b"0000002"), (124, b"00000000000")]
    {
        old[at..at + bytes.len()].copy_from_slice(bytes);
    }
    old[136..147].copy_from_slice(b"00000000777");
    third.raw(old);
    third.add(member_of(DIR, "lower").time("15"));
    let layout = layout_of(bench.path("l"), &[first, second, third.finish()], Packing::Gzip(9));
    let forgiven = [
        ("", ROOTLESS),
        ("a", MADE),
        ("a/b/c", MADE),
        ("a/new", MADE),
        ("a/new/deep", MADE),
        ("hidden", EMPTIED),
    ];
    let tree = compare(&bench, &layout.dir, &layout.dir, &forgiven);
    assert_eq!(tree.field("again", Field::Size), Some("5"));
    assert_eq!(tree.field("hidden/new", Field::Size), Some("3"));
    assert_eq!(tree.field("v7", Field::Type), Some("directory"));
    assert_eq!(tree.field("lower", Field::Xattrs), Some(""));
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_missing_parent_changes_no_time_of_the_directory_it_is_made_in() {
    let bench = Bench::new();
    let tars = [
        tar_of([member_of(DIR, "./").time("1"), member_of(DIR, "a").time("2.5")]),
        tar_of([member_of(FILE, "a/missing/file").data(b"x")]),
    ];
    let layout = layout_of(bench.path("l"), &tars, Packing::Gzip(1));
    let tree = compare(&bench, &layout.dir, &layout.dir, &[("a", MADE_IN), ("a/missing", MADE)]);
    assert_eq!(tree.field("", Field::Mtime), Some("1.000000000"));
    let ours = as_mounted(&bench.out());
    assert_eq!(ours.field("a", Field::Mtime), Some("2.500000000"));
    assert_eq!(ours.field("a/missing", Field::Mtime), Some("0.000000000"));
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn the_image_of_a_nested_index_and_of_dockers_media_types_is_what_umoci_unpacks() {
    let bench = Bench::new();
    let tars = fifty::layers(7)[..5].to_vec();
    let plain = layout_of(bench.path("plain"), &tars, Packing::Gzip(6));

    let nested = Layout::new(bench.path("nested"));
    let packed: Vec<Vec<u8>> = tars.iter().map(|tar| Packing::Gzip(6).pack(tar)).collect();
    let mine = image_of(&nested, &tars, &packed, LAYER, CONFIG, MANIFEST) + &platform(ARCH);
    let other = tar_of([member_of(FILE, "another architecture's")]);
    let theirs = nested.image(OTHER_ARCH, &[other], None) + &platform(OTHER_ARCH);
    let index = |entries: &str| {
        let text = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{entries}]}}"#);
        nested.blob(INDEX, text.as_bytes())
    };
    let inner = index(&format!("{theirs}}},{mine}}}"));
    let outer = index(&format!("{inner}}}"));
    nested.index(&[outer + &ref_name("t")]);

    let docker = Layout::new(bench.path("docker"));
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    let mine = image_of(
        &docker,
        &tars,
        &packed,
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ) + &platform(ARCH);
    let text = format!(r#"{{"schemaVersion":2,"mediaType":"{list}","manifests":[{mine}}}]}}"#);
    let inner = docker.blob(list, text.as_bytes());
    docker.index(&[inner + &ref_name("t")]);

    for layout in [&plain, &nested, &docker] {
        compare(&bench, &layout.dir, &plain.dir, &[]);
        discard(&bench.out());
    }
}

#[test]
#[ignore = "needs root and tests/run.sh's parts"]
fn what_busybox_tar_packs_is_what_umoci_unpacks() {
    let bench = Bench::new();
    let root = bench.path("root");
    let script = format!(
        "mkdir {root} && cd {root} && mkdir -p a/b dev && cp /bin/busybox a/ && ln a/busybox a/b/too && ln -s ../a a/s && mkfifo dev/p
         mknod dev/null c 1 3 && chmod 2750 a/b && chown -R 1000:1000 a && touch -d @1 a/b && chmod 1777 . && touch -d @2 .
         busybox tar -cf ../root.tar .",
        root = text(&root)
    );
    run("sh", &["-ec", &script]);
    let tar = std::fs::read(bench.path("root.tar")).expect("reads");
    let layout = layout_of(bench.path("l"), &[tar], Packing::Gzip(6));
    let tree = compare(&bench, &layout.dir, &layout.dir, &[]);
    assert_eq!(tree.field("a/busybox", Field::LinkedTo), Some("a/b/too"));
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn a_global_pax_header_changes_nothing() {
    let bench = Bench::new();
    // git archive writes one, with a comment (pax(1), typeflag g).
    let mut with = Tar::default();
    with.add(member_of(EntryType::XGlobalHeader, "pax_global_header").data(b"19 comment=0123456\n"));
    let plain = tar_of([member_of(DIR, "./"), member_of(FILE, "file").data(b"x")]);
    let with = [with.finish()[..1024].to_vec(), plain.clone()].concat();
    let with = layout_of(bench.path("with"), &[with], Packing::Gzip(6));
    let without = layout_of(bench.path("without"), &[plain], Packing::Gzip(6));
    compare(&bench, &with.dir, &without.dir, &[]);
}
