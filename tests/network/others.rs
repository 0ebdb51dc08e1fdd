//! Other firewalls on the same host, the real ones: VMs reach what they may, and no more, and nothing of ours is left in them.

use std::path::Path;
use std::time::Duration;

use banger::root::{bridge, firewall};

use crate::reach::{curl, host_with_firewall, internet, lan, ruleset, started};
use crate::rig::*;

const PROGRAMS: [&str; 2] = ["iptables-nft", "iptables-legacy"];
const PORT: u16 = 42069;

fn docker(program: &str, version: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/network/docker.sh");
    sh(&format!("{script} {program} {version}"));
}

fn names_server() -> Running {
    let server = Running::start(
        "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --pid-file= --user=root --port=42069 \
         --listen-address=172.16.0.1 --bind-interfaces --address=/dev.vm/172.16.0.9",
    );
    eventually("dnsmasq answers", || {
        sh_can(&format!("dig +short +tries=1 +timeout=1 -p {PORT} @172.16.0.1 dev.vm"))
    });
    server
}

/// All that VMs may do, and what they may not.
#[track_caller]
fn assert_all_is_well(with: &Vm, without: &Vm) {
    assert_eq!(with.space.sh(&curl("203.0.113.2")), "you are 203.0.113.1\n");
    assert!(!without.can(&curl("203.0.113.2")));
    for vm in [with, without] {
        for over in ["", "+tcp"] {
            assert!(vm.can(&format!(
                "dig +short +tries=1 +timeout=3 {over} @172.16.0.1 dev.vm | grep -q 172.16.0.9"
            )));
        }
        assert!(!vm.can(&curl("172.16.0.1:22")), "the host's own service");
    }
    assert!(!with.can(&curl("192.168.50.2")), "a private network");
    assert!(!with.can("ping -c1 -W1 172.16.0.3"), "another VM");
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn dockers_policy_keeps_no_vm_from_the_internet() {
    let combinations = PROGRAMS.map(|program| ["27", "28"].map(|version| (program, version)));
    let hosts = combinations.as_flattened().iter().copied().map(|(program, version)| {
        // A host for each: once used, a table of iptables stays.
        std::thread::spawn(move || {
            let _kept = host_with_firewall();
            let (_internet, _lan) = (internet(), lan());
            let _names = names_server();
            serve_here("0.0.0.0:22");
            let (with, without) = (started(2, true, false), started(3, false, false));
            let ruleset = ruleset(&[&with, &without]);
            assert_all_is_well(&with, &without);
            docker(program, version);
            assert!(!with.can(&curl("203.0.113.2")), "{program} {version}: Docker came later, and blocks");
            let before = sh(&format!("{program} -S; {program} -t nat -S"));
            firewall::mend(&ruleset).expect("mends");
            assert_all_is_well(&with, &without);
            let ours = sh(&format!("{program} -S FORWARD | grep banger:"));
            assert_eq!(ours.lines().count(), 2, "{ours}");
            // What is in place is left alone.
            let monitor = firewall::watch().expect("watches");
            firewall::mend(&ruleset).expect("mends");
            assert!(!monitor.wait(Some(Duration::from_millis(100)), Duration::ZERO).expect("waits"));
            docker(program, version);
            assert_all_is_well(&with, &without);
            firewall::load(&ruleset).expect("loads");
            assert_eq!(sh(&format!("{program} -S FORWARD | grep -c banger:")).trim(), "2");
            // The user's own word counts.
            sh(&format!("{program} -I DOCKER-USER -d 203.0.113.2 -j DROP"));
            assert!(!with.can(&curl("203.0.113.2")));
            sh(&format!("{program} -D DOCKER-USER -d 203.0.113.2 -j DROP"));
            firewall::delete().expect("deletes");
            assert_eq!(sh(&format!("{program} -S; {program} -t nat -S")), before, "as Docker made it");
        })
    });
    for host in hosts.collect::<Vec<_>>() {
        host.join().expect("no panic");
    }
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn docker_that_starts_later_is_noticed_and_a_flush_too() {
    let _kept = host_with_firewall();
    let _internet = internet();
    let vm = started(2, true, false);
    let whole = ruleset(&[&vm]);
    // It listens for as long as the test runs.
    let monitor = firewall::watch().expect("watches");
    std::thread::spawn(move || {
        while monitor.wait(None, Duration::from_millis(200)).expect("hears") {
            firewall::mend(&whole).expect("mends");
        }
    });
    // Until it does.
    std::thread::sleep(Duration::from_millis(500));
    for what in
        [concat!(env!("CARGO_MANIFEST_DIR"), "/tests/network/docker.sh iptables-nft 28"), "nft flush ruleset"]
    {
        sh(what);
        eventually(what, || vm.can(&curl("203.0.113.2")));
        assert!(sh("nft list tables").contains("bridge banger"));
    }
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn iptables_that_is_not_used_is_not_touched() {
    let _kept = host_with_firewall();
    firewall::mend(&ruleset(&[])).expect("mends");
    assert_eq!(sh("cat /proc/thread-self/net/ip_tables_names"), "");
    assert!(!sh("nft list tables").contains("filter"));
    for program in PROGRAMS {
        sh(&format!("{program} -A FORWARD -i eth7 -j DROP && {program} -A INPUT -p tcp --dport 1 -j DROP"));
        let before = sh(&format!("{program} -S"));
        firewall::load(&ruleset(&[])).expect("loads");
        assert_eq!(sh(&format!("{program} -S")), before, "{program}: it keeps nothing from a VM");
    }
}

/// A Debian with the firewalls in it, of which this thread sees nothing else from now on.
fn enter_debian() {
    let parts = std::env::var("BANGER_TEST_PARTS").expect("BANGER_TEST_PARTS is set by tests/run.sh");
    let tar = Path::new(&parts).join("firewalls.tar");
    sh("mount -t tmpfs none /mnt");
    sh(&format!("tar -xpf {} -C /mnt --exclude='./dev/*'", tar.display()));
    sh(
        "for d in proc sys dev; do mount --rbind /$d /mnt/$d; done; mkdir -p /mnt/run/dbus; cp $(command -v dnsmasq dig tcpdump 2>/dev/null) /mnt/tmp/ || true",
    );
    rustix::process::chroot("/mnt").expect("changes its root");
    std::env::set_current_dir("/").expect("goes there");
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn ufw_lets_vms_pass_and_keeps_its_users_word() {
    let _kept = host_with_firewall();
    let (_internet, _lan) = (internet(), lan());
    let _names = names_server();
    serve_here("0.0.0.0:22");
    let (with, without) = (started(2, true, false), started(3, false, false));
    let ruleset = ruleset(&[&with, &without]);
    enter_debian();
    for routed in ["deny", "reject"] {
        sh(&format!("ufw default deny incoming && ufw default {routed} routed && ufw --force enable"));
        assert!(
            sh("ufw status verbose")
                .contains(&format!("deny (incoming), allow (outgoing), {routed} (routed)"))
        );
        assert!(!with.can(&curl("203.0.113.2")), "ufw blocks");
        assert!(!with.can("dig +short +tries=1 +timeout=1 @172.16.0.1 dev.vm"), "and names too");
        firewall::mend(&ruleset).expect("mends");
        assert_all_is_well(&with, &without);
        sh("ufw reload");
        firewall::mend(&ruleset).expect("mends");
        assert_all_is_well(&with, &without);
        sh("ufw route deny from any to 203.0.113.2");
        firewall::mend(&ruleset).expect("mends");
        assert!(!with.can(&curl("203.0.113.2")), "its user's word counts");
        sh("ufw route delete deny from any to 203.0.113.2");
        assert_all_is_well(&with, &without);
        sh("ufw disable");
        firewall::mend(&ruleset).expect("mends");
        let rules = sh("iptables -S");
        assert!(!rules.contains("banger"), "nothing blocks, nothing of ours is needed: {rules}");
    }
    sh("ufw --force enable");
    firewall::load(&ruleset).expect("loads");
    assert!(sh("iptables -S").contains("banger"));
    firewall::delete().expect("deletes");
    assert!(!sh("iptables -S").contains("banger"));
    assert!(sh("ufw status").contains("active"));
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn firewalld_lets_vms_pass_also_after_its_reload_and_its_restart() {
    let _kept = host_with_firewall();
    let (_internet, _lan) = (internet(), lan());
    let _names = names_server();
    serve_here("0.0.0.0:22");
    let (with, without) = (started(2, true, false), started(3, false, false));
    let ruleset = ruleset(&[&with, &without]);
    enter_debian();
    let _bus = Running::start("dbus-daemon --system --nofork --nopidfile");
    eventually("the bus is there", || Path::new("/run/dbus/system_bus_socket").exists());
    let start = || {
        let firewalld = Running::start("firewalld --nofork --nopid");
        eventually("firewalld runs", || sh_can("firewall-cmd --state"));
        firewalld
    };
    let firewalld = start();
    // Of names it says nothing: what was redirected passes.
    assert!(!with.can(&curl("203.0.113.2")), "firewalld blocks");
    firewall::mend(&ruleset).expect("mends");
    assert_all_is_well(&with, &without);
    let monitor = firewall::watch().expect("watches");
    firewall::mend(&ruleset).expect("mends");
    assert!(
        !monitor.wait(Some(Duration::from_millis(100)), Duration::ZERO).expect("waits"),
        "it is left alone"
    );
    let noticed_and_mended = |what: &str| {
        let settle = Duration::from_millis(100);
        assert!(monitor.wait(Some(PATIENCE), settle).expect("waits"), "{what} is noticed");
        assert!(!with.can(&curl("203.0.113.2")), "it has forgotten");
        firewall::mend(&ruleset).expect("mends");
        assert_all_is_well(&with, &without);
        assert!(monitor.wait(Some(PATIENCE), settle).expect("waits"), "the mending is a change too");
        firewall::mend(&ruleset).expect("mends");
        assert!(!monitor.wait(Some(settle), settle).expect("waits"), "and then there is peace");
    };
    for reload in ["--reload", "--complete-reload"] {
        sh(&format!("firewall-cmd {reload}"));
        noticed_and_mended(reload);
    }
    drop(firewalld);
    sh("nft delete table inet firewalld");
    let _firewalld = start();
    noticed_and_mended("a restart");
    firewall::delete().expect("deletes");
    let zone = try_sh("firewall-cmd --get-zone-of-interface=br-banger");
    assert!(!zone.status.success(), "{zone:?}");
    // Whoever has chosen a zone for the bridge keeps it.
    sh("firewall-cmd --zone=internal --add-interface=br-banger");
    firewall::load(&ruleset).expect("loads");
    firewall::delete().expect("deletes");
    assert_eq!(sh("firewall-cmd --get-zone-of-interface=br-banger").trim(), "internal");
    bridge::delete(STAMP).expect("deletes");
}
