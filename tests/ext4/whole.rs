//! What holds for a file system as a whole.

use std::os::unix::fs::MetadataExt;

use banger::ext4::WriteError;
use banger::ext4::tree::{Inode, InodeId, Kind};

use crate::support::{Disk, directory, meta};

#[test]
fn an_empty_one_of_8_gib_takes_less_than_8_mib() {
    let made = Disk::new().try_finish(8 << 30).expect("fits");
    made.check();
    let stat = std::fs::metadata(&made.path).expect("stats");
    assert_eq!(stat.len(), 8 << 30);
    assert!(stat.blocks() * 512 < 8 << 20, "{} bytes", stat.blocks() * 512);
}

#[test]
fn it_may_have_any_length_up_to_its_largest() {
    for mib in [1, 100, 128, 129, 256, 385, 1000, 128 * 25 + 1, 128 * 127 * 64] {
        let made = Disk::new().try_finish(mib << 20).expect("fits");
        made.check();
        assert!(std::fs::metadata(&made.path).expect("stats").len() >= mib << 20);
    }
    let error = Disk::new().try_finish((128 * 127 * 64 + 1) << 20).err().expect("too large");
    assert!(matches!(error, WriteError::TooLarge), "{error}");
}

#[test]
fn contents_journal_and_tables_may_lie_on_both_sides_of_a_copy_of_the_superblock() {
    // The second group begins with a copy, 128 MiB from the first.
    for mib in [110, 120, 127, 128, 140] {
        let mut disk = Disk::new();
        let block = vec![0x5a; 1 << 20];
        let data: Vec<(u64, &[u8])> = (0..mib).map(|n| (n << 20, block.as_slice())).collect();
        disk.file("large", mib << 20, &data);
        disk.finish();
    }
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    let make = || {
        let mut disk = Disk::new();
        let parent = disk.add(InodeId::ROOT, "d", directory());
        for n in 0..500 {
            let content = disk.content(n * 100, &[(0, &vec![n as u8; n as usize * 100])]);
            disk.add(parent, &format!("f{n}"), Inode { meta: meta(), kind: Kind::File(content) });
        }
        for n in (0..500).step_by(3) {
            disk.tree.remove(parent, format!("f{n}").as_bytes());
            disk.image.release(disk.tree.take_freed());
        }
        disk.file("last", 1_000_000, &[(0, &vec![9; 1_000_000])]);
        std::fs::read(&disk.finish().path).expect("reads")
    };
    assert!(make() == make());
}

#[test]
fn a_lost_and_found_of_the_image_is_kept() {
    let mut disk = Disk::new();
    disk.add(InodeId::ROOT, "lost+found", directory());
    let made = disk.finish();
    assert!(made.debugfs("stat /lost+found").contains("User:  1000"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn any_history_leaves_a_sound_file_system(
        steps in proptest::collection::vec((0u8..6, 0usize..40, 0u64..300_000), 0..120)
    ) {
        let mut disk = Disk::new();
        let mut directories = vec![InodeId::ROOT];
        for (op, n, size) in steps {
            let parent = directories[n % directories.len()];
            let name = format!("n{n}");
            match op {
                0 => directories.push(disk.add(InodeId::ROOT, &format!("d{}", directories.len()), directory())),
                1 => drop(disk.add(parent, &name, Inode { meta: meta(), kind: Kind::Symlink(vec![b'l'; 1 + n * 100]) })),
                2 => disk.tree.remove(parent, name.as_bytes()),
                _ => {
                    let gap = size * n as u64;
                    let content = disk.content(gap + size, &[(gap, &vec![op; size as usize])]);
                    disk.add(parent, &name, Inode { meta: meta(), kind: Kind::File(content) });
                }
            }
            disk.image.release(disk.tree.take_freed());
        }
        disk.finish();
    }
}
