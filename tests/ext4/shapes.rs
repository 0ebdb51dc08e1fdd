//! Every kind of inode, and files and directories of every shape.

use std::collections::BTreeMap;

use banger::ext4::tree::{Inode, InodeId, Kind, Meta, Time};

use crate::support::{Disk, directory, meta};

#[test]
fn every_kind_of_inode_is_as_it_was_meant() {
    let mut disk = Disk::new();
    disk.put("null", Kind::CharDevice { major: 1, minor: 3 });
    disk.put("disk", Kind::BlockDevice { major: 259, minor: 70_000 });
    disk.put("pipe", Kind::Fifo);
    disk.put("socket", Kind::Socket);
    disk.put("short", Kind::Symlink(vec![b'a'; 59]));
    disk.put("long", Kind::Symlink(vec![b'b'; 60]));
    disk.put("longest", Kind::Symlink(vec![b'c'; 4095]));
    let file = disk.file("file", 5, &[(0, b"hello")]);
    disk.tree.link(InodeId::ROOT, b"link", file, 0);
    *disk.tree.meta_mut(file) = Meta { mode: 0o6755, uid: 4_000_000_000, gid: 70_000, ..meta() };
    let made = disk.finish();
    let stat = |name: &str| made.debugfs(&format!("stat /{name}"));
    assert!(
        stat("null").contains("Type: character special") && stat("null").contains("01:03"),
        "{}",
        stat("null")
    );
    assert!(
        stat("disk").contains("Type: block special") && stat("disk").contains("259:70000"),
        "{}",
        stat("disk")
    );
    assert!(stat("pipe").contains("Type: FIFO") && stat("socket").contains("Type: socket"));
    assert!(stat("short").contains(&format!("Fast link dest: \"{}\"", "a".repeat(59))), "{}", stat("short"));
    assert!(stat("long").contains("Size: 60") && stat("long").contains("EXTENTS"), "{}", stat("long"));
    assert_eq!(made.cat("longest"), vec![b'c'; 4095]);
    // debugfs prints owners as if they had a sign.
    let file = stat("link");
    for part in ["Mode:  06755", "Links: 2", "User: -294967296", "Group: 70000", "mtime: 0x6553f100:00000014"]
    {
        assert!(file.contains(part), "{part}: {file}");
    }
    assert_eq!(made.cat("link"), b"hello");
}

#[test]
fn files_of_every_shape_read_as_they_were_written() {
    let mut disk = Disk::new();
    let bytes: Vec<u8> = (0..600_000_u32).map(|n| (n % 251) as u8 + 1).collect();
    let sizes = [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 600_000];
    for size in sizes {
        disk.file(&format!("f{size}"), size as u64, &[(0, &bytes[..size])]);
    }
    // A tree of extents in the inode, in one block, in several, and in two levels.
    for pieces in [4, 5, 340, 341, 1400, 3000] {
        let data: Vec<(u64, &[u8])> = (0..pieces).map(|n| (n * 8192, b"x".as_slice())).collect();
        disk.file(&format!("holes{pieces}"), pieces * 8192, &data);
    }
    disk.file("huge", 5 << 30, &[(0, b"first"), ((5 << 30) - 4, b"last")]);
    disk.file("zeros", 1 << 20, &[(0, &vec![0; 1 << 20])]);
    let made = disk.finish();
    for size in sizes {
        assert!(made.cat(&format!("f{size}")) == bytes[..size], "{size}");
    }
    let holes = made.cat("holes1400");
    assert_eq!(holes.len(), 1400 * 8192);
    assert!(holes.iter().enumerate().all(|(at, byte)| *byte == if at % 8192 == 0 { b'x' } else { 0 }));
    assert!(made.debugfs("stat /huge").contains("Size: 5368709120"));
    assert!(made.debugfs("stat /zeros").contains("Blockcount: 0"), "zeros take no room");
    assert!(made.cat("zeros") == vec![0; 1 << 20]);
}

#[test]
fn directories_of_every_size_are_sound_and_complete() {
    let mut disk = Disk::new();
    // One block; an index over a few, over many, and one of two levels.
    for (name, entries, length) in
        [("empty", 0, 0), ("one", 100, 12), ("few", 1000, 12), ("many", 60_000, 6), ("deep", 9000, 250)]
    {
        let id = disk.add(InodeId::ROOT, name, directory());
        for n in 0..entries {
            let name = format!("{n:06}{}", "x".repeat(usize::max(length, 6) - 6));
            disk.add(id, &name, Inode { meta: meta(), kind: Kind::Fifo });
        }
    }
    let made = disk.finish();
    let flags = |name: &str| made.debugfs(&format!("stat /{name}"));
    assert!(flags("one").contains("Flags: 0x80000") && flags("few").contains("Flags: 0x81000"));
    let index = made.debugfs("htree_dump /deep");
    assert!(index.contains("Indirect levels: 1"), "{}", &index[..300]);
    assert!(made.debugfs("htree_dump /many").contains("Indirect levels: 0"));
    // Looked up through the index.
    assert!(made.debugfs("stat /many/059999").contains("Type: FIFO"));
    let names = made.debugfs("ls -p /many");
    assert_eq!(names.lines().filter(|l| l.starts_with('/')).count(), 60_002);
}

#[test]
fn a_directory_may_have_more_subdirectories_than_a_link_count_can_say() {
    let mut disk = Disk::new();
    let parent = disk.add(InodeId::ROOT, "parent", directory());
    for n in 0..65_001 {
        disk.add(parent, &n.to_string(), directory());
    }
    let made = disk.finish();
    assert!(made.debugfs("stat /parent").contains("Links: 1 "), "{}", made.debugfs("stat /parent"));
}

#[test]
fn extended_attributes_lie_in_the_inode_and_in_a_block() {
    let table: &[(&str, &[(&str, usize)])] = &[
        ("inode", &[("user.small", 10)]),
        ("block", &[("user.large", 1000), ("user.larger", 2000)]),
        (
            "both",
            &[("security.capability", 20), ("trusted.overlay.opaque", 1), ("user.x", 300), ("user.empty", 0)],
        ),
    ];
    let mut disk = Disk::new();
    for (name, list) in table {
        let id = disk.put(name, Kind::Fifo);
        disk.tree.meta_mut(id).xattrs =
            list.iter().map(|(name, len)| (name.as_bytes().to_vec(), vec![b'v'; *len])).collect();
    }
    let acl = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\
                \x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
    let id = disk.add(InodeId::ROOT, "acl", directory());
    disk.tree.meta_mut(id).xattrs = BTreeMap::from([
        (b"system.posix_acl_access".to_vec(), acl.to_vec()),
        (b"system.posix_acl_default".to_vec(), acl.to_vec()),
    ]);
    let made = disk.finish();
    for (name, list) in table {
        let listed = made.debugfs(&format!("ea_list /{name}"));
        for (attribute, len) in *list {
            assert!(listed.contains(&format!("{attribute} ({len})")), "{attribute}: {listed}");
        }
        assert_eq!(listed.matches('(').count(), list.len(), "{listed}");
    }
    // In the form that ext4 keeps, in which debugfs shows it.
    let listed = made.debugfs("ea_list /acl");
    assert!(
        listed.contains("system.posix_acl_access (28)") && listed.contains("system.posix_acl_default (28)"),
        "{listed}"
    );
}

#[test]
fn times_from_1901_to_2446_are_kept_but_those_that_e2fsck_misreads() {
    let times = [
        i64::MIN,
        -(1 << 31),
        -1,
        0,
        (1 << 31) - 1,
        1 << 31,
        1 << 32,
        12_000_000_000,
        15_032_385_535,
        i64::MAX,
    ];
    let mut disk = Disk::new();
    for (n, seconds) in times.into_iter().enumerate() {
        let id = disk.put(&n.to_string(), Kind::Fifo);
        disk.tree.meta_mut(id).mtime = Time { seconds, nanoseconds: 999_999_999 };
    }
    let made = disk.finish();
    let mtime = |n: usize| {
        let stat = made.debugfs(&format!("stat /{n}"));
        let line = stat.lines().find(|l| l.contains("mtime")).expect("has one").to_owned();
        line.split(" -- ").next().expect("a number").trim().to_owned()
    };
    let want = [
        "80000000:ee6b27fc",
        "80000000:ee6b27fc",
        "ffffffff:ee6b27fc",
        "00000000:ee6b27fc",
        "7fffffff:ee6b27fc",
        "80000000:ee6b27fd",
        "00000000:ee6b27fd",
        "7fffffff:ee6b27fe",
        "7fffffff:ee6b27ff",
        "7fffffff:ee6b27ff",
    ];
    for (n, want) in want.iter().enumerate() {
        assert_eq!(mtime(n), format!("mtime: 0x{want}"), "{}", times[n]);
    }
}
