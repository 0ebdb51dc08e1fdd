//! The imported file system in use: the kernel writes to it until it is full and empties it again; resize2fs grows it; and
//! e2fsprogs reads it. That it grows online is seen in a guest (tests/e2e/disk.rs): it takes CAP_SYS_RESOURCE, which root may
//! lack where tests run.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::made::*;
use crate::oracle::fifty;
use crate::oracle::judges::*;
use crate::oracle::tree::{Field, Tree};
use crate::support::*;

/// An image with a bit of everything, imported.
fn image(bench: &Bench) -> PathBuf {
    let mut tars = fifty::layers(5)[..20].to_vec();
    let mut many = Tar::default();
    for n in 0..5000 {
        many.add(member_of(FILE, format!("many/{n}")).data(&[b'x'; 5000][..n]));
    }
    tars.push(many.finish());
    let layout = layout_of(bench.path("l"), &tars, Packing::Gzip(1));
    bench.import(&layout.dir).unwrap_or_else(|e| panic!("{}", chain(&e)));
    bench.out()
}

/// Makes something in a directory, the next of its kind.
type Make = Box<dyn Fn(&Path, usize) -> std::io::Result<()>>;

/// Calls `make` with 0, 1, ... until the disk is full; returns how often it succeeded.
fn until_full(make: impl Fn(usize) -> std::io::Result<()>) -> usize {
    let full = |n: &usize| match make(*n) {
        Ok(()) => false,
        Err(e) if e.kind() == ErrorKind::StorageFull => true,
        Err(e) => panic!("number {n}: {e}"),
    };
    (0..).find(full).expect("ends")
}

#[test]
#[ignore = "needs root, for a loop device; run by tests/run.sh"]
fn it_can_be_filled_to_the_last_inode_and_block_and_emptied_again() {
    let bench = Bench::new();
    let file = image(&bench);
    let before = as_mounted(&file);
    let rounds: [(&str, Make); 4] = [
        ("empty files", Box::new(|dir, n| File::create(dir.join(format!("f{n}"))).map(drop))),
        ("directories", Box::new(|dir, n| fs::create_dir(dir.join(format!("d{n}"))))),
        (
            "one large file",
            Box::new(|dir, _| {
                File::options().append(true).create(true).open(dir.join("large"))?.write_all(&[7; 65_536])
            }),
        ),
        (
            "files of all sizes in directories",
            Box::new(|dir, n| {
                let dir = dir.join(format!("{}", n / 50));
                fs::create_dir_all(&dir)?;
                fs::write(dir.join(format!("{n:0200}")), vec![1; n * 997 % 60_000])
            }),
        ),
    ];
    for (what, make) in rounds {
        let mounted = Mounted::new(&file, "rw");
        let dir = mounted.path().join("fill");
        fs::create_dir(&dir).expect("makes a directory");
        let made = until_full(|n| make(&dir, n));
        assert!(made > 10, "{what}: only {made}");
        drop(mounted);
        assert_clean(&file);

        let mounted = Mounted::new(&file, "rw");
        fs::remove_dir_all(mounted.path().join("fill")).expect("removes");
        drop(mounted);
        assert_clean(&file);
        let mut after = as_mounted(&file);
        let mut before = Tree::clone(&before);
        for tree in [&mut after, &mut before] {
            tree.forget_field("", Field::Mtime);
        }
        assert_eq!(after.differences(&before), [""; 0], "{what}");
    }
}

#[test]
#[ignore = "needs root, for a loop device; run by tests/run.sh"]
fn resize2fs_grows_it_to_4_gib_and_nothing_is_lost() {
    let bench = Bench::new();
    let file = image(&bench);
    let before = as_mounted(&file);
    File::options().write(true).open(&file).and_then(|f| f.set_len(4 << 30)).expect("extends");
    run("resize2fs", &[text(&file)]);
    assert_clean(&file);
    assert_eq!(as_mounted(&file).differences(&before), [""; 0]);
    assert!(run("dumpe2fs", &["-h", text(&file)]).contains("Block count:              1048576\n"));
}

#[test]
#[ignore = "needs root; run by tests/run.sh"]
fn e2fsprogs_reads_it_without_a_complaint() {
    use std::process::Command;
    let bench = Bench::new();
    let file = image(&bench);
    // Both print their version, and only that, to stderr.
    let quiet = |program: &str, args: &[&str]| {
        let out = Command::new(format!("/sbin/{program}")).args(args).arg(&file).output().expect("runs");
        let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        let lines: Vec<&str> = stderr.lines().filter(|line| !line.is_empty()).collect();
        assert!(
            out.status.success() && lines.len() == 1 && lines[0].starts_with(program),
            "{program}: {stderr}"
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let head = quiet("dumpe2fs", &["-h"]);
    let line = |key: &str| {
        let found = head.lines().find_map(|line| line.strip_prefix(key));
        found.unwrap_or_else(|| panic!("{key} is not in: {head}")).trim()
    };
    let features: Vec<&str> = line("Filesystem features:").split(' ').collect();
    for feature in [
        "has_journal",
        "ext_attr",
        "dir_index",
        "filetype",
        "extent",
        "64bit",
        "flex_bg",
        "sparse_super",
        "large_file",
        "huge_file",
        "dir_nlink",
        "extra_isize",
        "metadata_csum",
    ] {
        assert!(features.contains(&feature), "{feature} is not in {features:?}");
    }
    assert!(!features.contains(&"needs_recovery"), "{features:?}");
    assert_eq!(line("Filesystem state:"), "clean");
    assert_eq!((line("Block size:"), line("Inode size:")), ("4096", "256"));
    assert_eq!(line("Filesystem OS type:"), "Linux");
    assert_eq!(line("Errors behavior:"), "Continue");
    assert_eq!((line("Mount count:"), line("Journal inode:")), ("0", "8"));
    let uuid = line("Filesystem UUID:");
    assert!(uuid.len() == 36 && uuid.as_bytes()[14] != b'0' && !uuid.starts_with("00000000-"), "{uuid}");
    assert_eq!(
        line("Reserved block count:").parse::<u64>().expect("a number"),
        0,
        "root needs no reserve in a sandbox"
    );
    let groups = quiet("dumpe2fs", &[]);
    assert!(!groups.contains("rror") || groups.contains("Errors behavior"), "{groups}");
    let found = quiet("debugfs", &["-R", "ls -l /lost+found"]);
    assert!(found.contains(" 40700 "), "{found}");
    assert!(quiet("debugfs", &["-R", "stat <8>"]).contains("Type: regular"));
    assert!(quiet("debugfs", &["-R", "htree_dump /many"]).contains("Root node dump"));
    assert!(quiet("debugfs", &["-R", "logdump -S"]).contains("Journal"));
}
