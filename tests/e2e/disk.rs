//! What is written is there again, as far as it was promised.

use std::path::PathBuf;
use std::process::Command;

use crate::rig::Rig;

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn synced_data_survives_kill_and_all_data_survives_stop() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    rig.sh("dev", "echo synced >/a && sync -d /a && sync");
    rig.ok("vm kill dev");
    rig.ok("vm start dev");
    assert_eq!(rig.sh("dev", "cat /a"), "synced\n");
    rig.sh("dev", "head -c 20000000 /dev/urandom >/b; sha256sum /b >/b.sum");
    rig.ok("vm stop dev");
    rig.ok("vm start dev");
    assert_eq!(rig.sh("dev", "sha256sum -c /b.sum"), "/b: OK\n");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn the_disk_has_the_size_that_was_asked_for_and_can_be_filled() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox --disk-size 600M");
    let blocks: u64 = rig.sh("dev", "df -k / | awk 'NR==2 {print $2}'").trim().parse().expect("a number");
    // Metadata takes its part; but far more than the image's own size must be there.
    assert!((520_000..=614_400).contains(&blocks), "{blocks} KiB");
    let end = rig.args(&["vm", "exec", "dev", "--", "sh", "-c", "cat /dev/zero >/full"]);
    assert_ne!(end.status, 0);
    assert!(end.stderr.contains("No space left"), "{end:#?}");
    rig.sh("dev", "rm /full; echo still fine >/x; sync");
    rig.ok("vm restart dev");
    assert_eq!(rig.sh("dev", "cat /x"), "still fine\n");
    let console = rig.ok("vm logs dev");
    assert!(!console.contains("EXT4-fs error") && !console.contains("snapshots: Invalidating"), "{console}");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn two_vms_of_one_image_do_not_see_each_others_writes() {
    let rig = Rig::new();
    rig.ok("vm run -d --name one --image busybox");
    rig.ok("vm run -d --name two --image busybox");
    rig.sh("one", "echo one >/mine");
    assert_ne!(rig.args(&["vm", "exec", "two", "--", "test", "-e", "/mine"]).status, 0);
    rig.ok("vm delete one two");
    rig.ok("vm run -q --rm --image busybox -- test ! -e /mine");
}

/// A file system of 2 TiB in memory, over the directory in which a rig's VMs have their disks.
struct Vast(PathBuf);

impl Vast {
    fn over(directory: PathBuf) -> Self {
        std::fs::create_dir_all(&directory).expect("makes the directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2T,mode=700", "tmpfs"])
            .arg(&directory)
            .status()
            .expect("runs mount");
        assert!(mounted.success(), "cannot mount a tmpfs");
        Self(directory)
    }
}

impl Drop for Vast {
    fn drop(&mut self) {
        // It is busy until the rig's VMs have ended; lazily, it goes with them.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn an_image_grows_to_a_tebibyte_in_the_guest_and_stays_sound() {
    let rig = Rig::new();
    let _vast = Vast::over(rig.state("vms"));
    rig.ok("vm run -d --name dev --image minbase --disk-size 1T");
    let blocks =
        || -> u64 { rig.sh("dev", "df -k / | awk 'NR==2 {print $2}'").trim().parse().expect("a number") };
    assert!((1_040_000_000..=1 << 30).contains(&blocks()), "{} KiB", blocks());
    rig.sh("dev", "head -c 30000000 /dev/urandom >/b; sha256sum /b >/b.sum; sync");
    rig.ok("vm restart dev");
    assert_eq!(rig.sh("dev", "sha256sum -c /b.sum"), "/b: OK\n");
    assert!((1_040_000_000..=1 << 30).contains(&blocks()));
    let console = rig.ok("vm logs dev");
    assert!(!console.contains("EXT4-fs error") && !console.contains("EXT4-fs warning"), "{console}");
    // With everything written and nothing writing any more, the guest's own e2fsck judges.
    let script = "sync; echo u >/proc/sysrq-trigger
        while ! grep -q ' / ext4 ro' /proc/mounts; do sleep 0.1; done
        e2fsck -fn \"$(findmnt -no SOURCE /)\"";
    let judged = rig.sh("dev", script);
    assert!(
        judged.lines().all(|line| line.starts_with("Pass ") || line.contains("non-contiguous")),
        "{judged}"
    );
    rig.ok("vm delete dev");
}
