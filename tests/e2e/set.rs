//! `vm set`, as the guest sees it.

use crate::rig::Rig;

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn the_guest_sees_its_new_cpus_memory_and_disk_after_a_restart() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image minbase --vcpu 1 --memory 512M --disk-size 1G");
    let number = |script: &str| -> u64 { rig.sh("dev", script).trim().parse().expect("a number") };
    let (cpus, memory, disk) =
        ("nproc", "awk '/MemTotal/ {print $2}' /proc/meminfo", "df -k / | awk 'NR==2 {print $2}'");
    assert_eq!(number(cpus), 1);
    assert!((400_000..524_288).contains(&number(memory)), "{}", number(memory));
    rig.sh("dev", "head -c 30000000 /dev/urandom >/b; sha256sum /b >/b.sum");
    let end = rig.banger("vm set dev --vcpu 2 --memory 1G --disk-size 3G");
    assert_eq!((end.status, end.stdout.as_str()), (0, "dev\n"), "{end:#?}");
    let note = "note: the number of CPUs, the memory and the size of the disk of dev change when it is started the next time";
    assert_eq!(end.stderr.trim_end(), note);
    assert_eq!(number(cpus), 1, "the machine that runs is as it was");
    rig.ok("vm restart dev");
    assert_eq!(number(cpus), 2);
    assert!((900_000..1_048_576).contains(&number(memory)), "{}", number(memory));
    assert!((2_900_000..=3_145_728).contains(&number(disk)), "{}", number(disk));
    assert_eq!(rig.sh("dev", "sha256sum -c /b.sum"), "/b: OK\n");
    // It can be filled to its new end.
    rig.sh("dev", "head -c 1200000000 /dev/zero >/full; rm /full");
    let console = rig.ok("vm logs dev");
    assert!(!console.contains("EXT4-fs error") && !console.contains("Invalidating"), "{console}");
    // Of one that is stopped nothing is said, and less than before can be asked for, but not of the disk.
    rig.ok("vm stop dev");
    let end = rig.banger("vm set dev --vcpu 1");
    assert_eq!((end.status, end.stderr.as_str()), (0, ""));
    let said = rig.refused("vm set dev --disk-size 2G");
    assert!(said.contains("the disk has 3 GiB and cannot shrink to 2 GiB; a disk only grows"), "{said}");
    rig.ok("vm start dev");
    assert_eq!(number(cpus), 1);
    assert_eq!(rig.sh("dev", "sha256sum -c /b.sum"), "/b: OK\n");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_user_mode_network_is_given_and_taken_from_start_to_start() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    let links = || rig.sh("dev", "ls /sys/class/net | wc -l").trim().to_owned();
    assert_eq!(links(), "1", "loopback alone");
    rig.ok("vm set dev --nat on");
    rig.ok("vm restart dev");
    assert_eq!(links(), "2");
    rig.ok("vm set dev --lan on");
    assert_eq!(rig.json("vm show dev --json")["spec"]["lan"], true);
    rig.ok("vm set dev --nat off");
    assert_eq!(rig.json("vm show dev --json")["spec"]["lan"], false, "it goes with nat");
    rig.ok("vm restart dev");
    assert_eq!(links(), "1");
    let said = rig.refused("vm set dev --lan on");
    assert!(
        said.contains("--lan opens private networks on the way out that --nat gives; ask for --nat too"),
        "{said}"
    );
    assert!(rig.refused("vm run --image busybox --lan -- true").contains("ask for --nat too"));
}
