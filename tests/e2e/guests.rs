//! Every kind of image boots as it is: with systemd, without an init, with almost nothing.

use crate::rig::Rig;

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn debian_with_systemd_reaches_multi_user_with_no_failed_unit_and_no_waiting_job() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image systemd");
    is_up(&rig);
    assert_eq!(rig.ok("vm exec dev -- systemctl list-units --failed --plain --no-legend"), "");
    // A wait for a device that never comes (90 s, for a serial console without udev) would be a job here.
    assert_eq!(rig.ok("vm exec dev -- systemctl list-jobs").trim(), "No jobs running.");
    assert_eq!(rig.ok("vm exec dev -- cat /proc/1/comm"), "systemd\n");
    assert_eq!(rig.ok("vm exec dev -- hostname"), "dev\n");
    rig.sh("dev", "echo kept >/root/kept");
    rig.ok("vm stop dev");
    rig.ok("vm start dev");
    assert_eq!(rig.ok("vm exec dev -- cat /root/kept"), "kept\n");
    is_up(&rig);
}

/// A VM is ready when its commands can run, which is before its services are.
fn is_up(rig: &Rig) {
    rig.until("systemd can be asked", || {
        let state = rig.banger("vm exec dev -- systemctl is-system-running").stdout;
        !["", "offline\n", "initializing\n", "starting\n"].contains(&state.as_str())
    });
    assert_eq!(rig.ok("vm exec dev -- systemctl is-system-running"), "running\n");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn debian_without_an_init_is_run_by_our_own_first_process() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image minbase --disk-size 2G");
    assert!(rig.ok("vm exec dev -- cat /etc/os-release").contains("Debian"));
    let version = rig.ok("vm exec dev -- uname -r");
    // The kernel's modules are there, and can be loaded by the image's own tools or ours.
    assert_eq!(
        rig.sh("dev", "test -e /lib/modules/$(uname -r)/modules.dep && echo yes"),
        "yes\n",
        "{version}"
    );
    assert_eq!(rig.sh("dev", "cat /proc/mounts | awk '$2==\"/\" {print $3, $4}' | cut -c1-7"), "ext4 rw\n");
    // Orphans are reaped by process 1.
    rig.sh("dev", "(sleep 0.2 &) ; sleep 1; ! grep -l '^State:.Z' /proc/[0-9]*/status");
    assert_eq!(rig.sh("dev", "getent hosts dev localhost | wc -l"), "2\n");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_scratch_image_runs_its_one_program_and_says_that_it_has_no_shell() {
    let rig = Rig::new();
    let end = rig.banger("vm run -q --name dev --image scratch -- /hello with arguments");
    assert_eq!((end.status, end.stdout.as_str()), (42, "hello from scratch, uid 0\n"), "{end:#?}");
    assert_eq!(rig.ok("vm exec -u 1000 dev -- /hello"), "hello from scratch, uid 1000\n");
    let end = rig.banger("vm exec dev");
    assert_eq!(end.status, 126, "{end:#?}");
    assert!(end.stderr.contains("no shell"), "{end:#?}");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("f");
    std::fs::write(&file, "to and fro").expect("writes");
    rig.ok_args(&["vm", "cp", file.to_str().expect("UTF-8"), "dev:/f"]);
    rig.ok_args(&["vm", "cp", "dev:/f", dir.path().join("g").to_str().expect("UTF-8")]);
    assert_eq!(std::fs::read_to_string(dir.path().join("g")).expect("reads"), "to and fro");
    rig.ok("vm stop dev");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_guest_without_nat_has_only_loopback_and_one_with_nat_has_an_address() {
    let rig = Rig::new();
    let script = "ls /sys/class/net; cat /sys/class/net/lo/operstate; ip -4 addr show | grep -c 'inet '";
    let end = rig.args(&["vm", "run", "-q", "--rm", "--image", "busybox", "--", "sh", "-c", script]);
    assert_eq!(end.stdout, "lo\nunknown\n1\n", "{end:#?}");
    let script =
        "ip -4 addr show eth0 | grep -o 'inet [0-9./]*'; ip route | grep default; cat /etc/resolv.conf";
    let end = rig.args(&["vm", "run", "-q", "--rm", "--nat", "--image", "busybox", "--", "sh", "-c", script]);
    assert!(end.stdout.starts_with("inet 10.0.2.15/24\ndefault via 10.0.2.2 dev eth0"), "{end:#?}");
    assert!(end.stdout.contains("nameserver 10.0.2.3"), "{end:#?}");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn the_guests_clock_is_the_hosts() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    let guest = || rig.sh("dev", "date +%s").trim().parse::<i64>().expect("a number");
    let host = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        i64::try_from(now.as_secs()).expect("a time")
    };
    assert!((guest() - host()).abs() <= 2, "{} and {}", guest(), host());
    // And it runs at the same speed: a wrong TSC frequency would show after ten seconds.
    std::thread::sleep(std::time::Duration::from_secs(10));
    assert!((guest() - host()).abs() <= 2, "{} and {}", guest(), host());
}
