//! What a guest reaches and what it does not: the internet, private networks, the host, other guests.

use std::net::UdpSocket;
use std::time::Duration;

use banger::network::guest::Guest;
use banger::network::ruleset::Ruleset;
use banger::root::{firewall, forwarding};

use crate::rig::*;

/// Long enough for what passes, and not too long for what does not.
const BRIEF: Duration = Duration::from_secs(2);

pub fn ruleset(guests: &[&Vm]) -> Ruleset {
    Ruleset { subnet: SUBNET, dns_port: 42069, guests: guests.iter().map(|vm| vm.guest).collect() }
}

/// The bridge, the firewall without guests, and forwarding as it is switched on.
pub fn host_with_firewall() -> tempfile::TempDir {
    own_host();
    bridge();
    firewall::load(&ruleset(&[])).expect("loads");
    let kept = tempfile::tempdir().expect("a directory");
    forwarding::enable(kept.path()).expect("enables");
    kept
}

/// The internet, with a server at 203.0.113.2 and at the address of a cloud's metadata.
pub fn internet() -> Space {
    let internet = Space::connected("eth0", "203.0.113.1/24", "203.0.113.2/24");
    internet.sh("ip addr add 169.254.169.254/32 dev lo && ip addr add 168.63.129.16/32 dev lo");
    sh("ip route add default via 203.0.113.2");
    internet.serve("0.0.0.0:80");
    internet
}

/// A private network beside the host, with a server at 192.168.50.2.
pub fn lan() -> Space {
    let lan = Space::connected("eth1", "192.168.50.1/24", "192.168.50.2/24");
    lan.serve("0.0.0.0:80");
    lan
}

pub fn started(number: u16, nat: bool, lan: bool) -> Vm {
    let vm = Vm::start(Guest { nat, lan, ..guest(number) });
    firewall::set(&vm.guest).expect("lets it pass");
    vm
}

pub fn curl(address: &str) -> String {
    format!("curl -sS --max-time 3 http://{address}/")
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn the_internet_is_reached_with_nat_and_not_without() {
    let _kept = host_with_firewall();
    let internet = internet();
    let (with, without) = (started(2, true, false), started(3, false, false));
    assert_eq!(with.space.sh(&curl("203.0.113.2")), "you are 203.0.113.1\n", "it comes from the host");
    assert!(with.can("ping -c1 -W2 203.0.113.2"));
    let seen = Capture::inside(&internet, "eth0", "src 172.16.0.3 or icmp");
    let refused = without.space.try_sh(&curl("203.0.113.2"));
    assert_eq!(refused.status.code(), Some(7), "it is refused at once: {refused:?}");
    assert!(!without.can("ping -c1 -W1 203.0.113.2"));
    assert_eq!(seen.end(), [""; 0], "nothing of it gets out");
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn nat_is_switched_while_a_connection_is_open() {
    let _kept = host_with_firewall();
    let internet = internet();
    internet.serve("0.0.0.0:7");
    let mut vm = started(2, true, false);
    let mut talk = Talk::begin(&vm.space, "203.0.113.2:7");
    assert!(talk.goes_on(BRIEF));
    vm.guest.nat = false;
    firewall::set(&vm.guest).expect("switches off");
    let seen = Capture::inside(&internet, "eth0", "src 203.0.113.1");
    assert!(!talk.goes_on(BRIEF), "what was open is cut");
    assert!(!vm.can(&curl("203.0.113.2")));
    assert_eq!(seen.end(), [""; 0], "nothing of it gets out");
    vm.guest.nat = true;
    firewall::set(&vm.guest).expect("switches on");
    assert!(Talk::begin(&vm.space, "203.0.113.2:7").goes_on(BRIEF));
    firewall::remove(&vm.guest).expect("removes");
    firewall::remove(&vm.guest).expect("removes what is not there");
    assert!(!vm.can("ping -c1 -W1 172.16.0.1"), "nothing of it passes any more");
    for set in ["bridge banger guests", "inet banger nat", "inet banger lan"] {
        assert!(!sh(&format!("nft list set {set}")).contains("elements"), "{set}");
    }
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn private_networks_are_reached_only_when_asked_for() {
    let _kept = host_with_firewall();
    let (_internet, lan) = (internet(), lan());
    lan.serve("0.0.0.0:7");
    // Another bridge of this host, as Docker's, whose ports are published on all addresses of the host.
    let container = Space::new();
    sh(&format!(
        "ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up && ip link add veth1 type veth peer name eth0 netns {} && ip link set veth1 master docker0 up",
        container.pid()
    ));
    container.sh(
        "ip addr add 172.17.0.2/16 dev eth0 && ip link set eth0 up && ip route add default via 172.17.0.1",
    );
    container.serve("0.0.0.0:80");
    sh(
        "nft add table ip docker '{ chain p { type nat hook prerouting priority dstnat; fib daddr type local tcp dport 8080 dnat to 172.17.0.2:80; }; }'",
    );
    let targets = ["192.168.50.2", "172.17.0.2", "192.168.50.1:8080", "172.16.0.1:8080"];
    let (none, mut nat, both) = (started(2, false, true), started(3, true, false), started(4, true, true));
    for target in targets {
        assert!(both.can(&curl(target)), "{target}");
    }
    let seen = [&lan, &container].map(|space| Capture::inside(space, "eth0", "tcp"));
    for target in targets {
        assert!(!nat.can(&curl(target)), "{target}");
        assert!(!none.can(&curl(target)), "{target}: lan means nothing without nat");
    }
    for capture in seen {
        assert_eq!(capture.end(), [""; 0], "nothing of it gets there");
    }
    assert!(nat.can(&curl("203.0.113.2")));
    nat.guest.lan = true;
    firewall::set(&nat.guest).expect("switches on");
    let mut talk = Talk::begin(&nat.space, "192.168.50.2:7");
    assert!(talk.goes_on(BRIEF));
    nat.guest.lan = false;
    firewall::set(&nat.guest).expect("switches off");
    let seen = Capture::inside(&lan, "eth0", "tcp and src 192.168.50.1");
    assert!(!talk.goes_on(BRIEF));
    assert_eq!(seen.end(), [""; 0]);
    assert!(nat.can(&curl("203.0.113.2")), "the internet stays");
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn a_clouds_metadata_is_reached_by_nobody() {
    let _kept = host_with_firewall();
    let internet = internet();
    for address in ["169.254.169.254", "168.63.129.16"] {
        assert!(try_sh(&curl(address)).status.success(), "the host reaches it");
    }
    let vms = [started(2, false, false), started(3, true, false), started(4, true, true)];
    let seen = Capture::inside(&internet, "eth0", "dst 169.254.169.254 or dst 168.63.129.16");
    for vm in &vms {
        for address in ["169.254.169.254", "168.63.129.16", "169.254.0.1"] {
            assert!(!vm.can(&curl(address)), "{address} by {:?}", vm.guest);
        }
        // On the link itself, as it is configured by cloud-init where it finds no route.
        vm.space.sh("ip route add 169.254.169.254 dev eth0");
        assert!(!vm.can(&curl("169.254.169.254")));
    }
    assert_eq!(seen.end(), [""; 0]);
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn of_the_host_a_guest_reaches_names_and_echo_alone() {
    let _kept = host_with_firewall();
    let _lan = lan();
    let vm = started(2, true, true);
    let other = started(3, false, false);
    let services = ["172.16.0.1:22", "192.168.50.1:22"];
    for port in ["22", "42069"] {
        serve_here(&format!("0.0.0.0:{port}"));
    }
    for service in services {
        assert!(try_sh(&curl(service)).status.success(), "the host reaches it");
        assert!(!vm.can(&curl(service)), "{service}");
    }
    assert!(!vm.can(&curl("172.16.0.1:42069")), "names are asked for at port 53");
    assert!(vm.can("ping -c1 -W2 172.16.0.1"));
    assert!(!vm.can("ping -c1 -W1 192.168.50.1"), "echo is the gateway's");
    // A datagram from the port of names is not an answer to anything.
    let host = UdpSocket::bind("0.0.0.0:5353").expect("binds");
    host.set_read_timeout(Some(BRIEF)).expect("sets");
    let said =
        vm.space.inside(|| UdpSocket::bind("172.16.0.2:53").and_then(|s| s.send_to(b"x", "172.16.0.1:5353")));
    said.expect("the guest sends it");
    host.recv(&mut [0; 9]).expect_err("nothing comes");
    for vm in [&vm, &other] {
        vm.space.serve("0.0.0.0:80");
        let answer = sh(&curl(&vm.guest.address.to_string()));
        assert_eq!(answer, "you are 172.16.0.1\n", "the host reaches its guests");
    }
    assert!(try_sh("ping -c1 -W2 172.16.0.2").status.success());
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn names_are_answered_at_port_53_from_an_unprivileged_one() {
    let _kept = host_with_firewall();
    let lan = lan();
    let _dns = Running::start(
        "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --pid-file= --user=root --port=42069 \
         --listen-address=172.16.0.1 --bind-interfaces --address=/dev.vm/172.16.0.9",
    );
    eventually("dnsmasq answers", || sh_can("dig +short +tries=1 +timeout=1 -p 42069 @172.16.0.1 dev.vm"));
    let vms = [started(2, false, false), started(3, true, true)];
    for vm in &vms {
        for over in ["", "+tcp"] {
            let answer = vm.space.sh(&format!("dig +short +tries=1 +timeout=3 {over} @172.16.0.1 dev.vm"));
            assert_eq!(answer.trim(), "172.16.0.9", "{over}");
        }
        assert!(!vm.can("dig +short +tries=1 +timeout=1 -p 42069 @172.16.0.1 dev.vm"));
    }
    // Whoever takes this host for a router.
    lan.sh("ip route add 172.16.0.0/24 via 192.168.50.1");
    for port in [53, 42069] {
        assert!(!lan.can(&format!("dig +short +tries=1 +timeout=1 -p {port} @172.16.0.1 dev.vm")), "{port}");
    }
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn nobody_outside_reaches_a_guest() {
    let _kept = host_with_firewall();
    let (internet, lan) = (internet(), lan());
    for outside in [&internet, &lan] {
        let via = if std::ptr::eq(outside, &internet) { "203.0.113.1" } else { "192.168.50.1" };
        outside.sh(&format!("ip route add 172.16.0.0/24 via {via}"));
        for vm in [started(2, false, false), started(3, true, true)] {
            vm.space.serve("0.0.0.0:80");
            assert!(!outside.can(&curl(&vm.guest.address.to_string())));
            assert!(!outside.can(&format!("ping -c1 -W1 {}", vm.guest.address)));
            vm.delete();
        }
    }
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn a_reload_under_traffic_keeps_connections() {
    let _kept = host_with_firewall();
    let internet = internet();
    internet.serve("0.0.0.0:7");
    let vm = started(2, true, false);
    let mut talk = Talk::begin(&vm.space, "203.0.113.2:7");
    for _ in 0..50 {
        firewall::load(&ruleset(&[&vm])).expect("loads");
        assert!(talk.goes_on(PATIENCE));
    }
    assert_eq!(vm.space.sh(&curl("203.0.113.2")), "you are 203.0.113.1\n");
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn tables_that_somebody_removed_are_missed_and_loaded_again() {
    let _kept = host_with_firewall();
    let _internet = internet();
    let vm = started(2, true, false);
    let monitor = firewall::watch().expect("watches");
    let settle = Duration::from_millis(50);
    assert!(!monitor.wait(Some(settle), settle).expect("waits"), "nothing has changed yet");
    firewall::set(&vm.guest).expect("sets");
    assert!(!monitor.wait(Some(settle), settle).expect("waits"), "elements are no news");
    for gone in [
        "flush ruleset",
        "delete table inet banger",
        "delete table bridge banger",
        "flush table inet banger",
        "flush chain bridge banger from_guest",
    ] {
        sh(&format!("nft {gone}"));
        assert!(monitor.wait(Some(PATIENCE), settle).expect("waits"), "{gone}");
        if !gone.starts_with("flush table") && !gone.starts_with("flush chain") {
            let error = firewall::set(&vm.guest).expect_err("the sets are gone");
            assert!(matches!(error, firewall::FirewallError::Gone), "{error}");
        }
        assert!(firewall::mend(&ruleset(&[&vm])).expect("mends"), "{gone}");
        assert!(vm.can(&curl("203.0.113.2")), "{gone}");
        assert!(monitor.wait(Some(PATIENCE), settle).expect("waits"), "the mending is a change too");
        assert!(!firewall::mend(&ruleset(&[&vm])).expect("mends"), "{gone}");
        assert!(!monitor.wait(Some(settle), settle).expect("waits"), "and then there is peace");
    }
    firewall::delete().expect("deletes");
    firewall::delete().expect("there is none");
    assert_eq!(sh("nft list ruleset"), "");
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn forwarding_is_remembered_and_put_back() {
    own_host();
    let kept = tempfile::tempdir().expect("a directory");
    let state = kept.path().join("state");
    let is = || sh("sysctl -n net.ipv4.ip_forward").trim().to_owned();
    sh("sysctl -qw net.ipv4.ip_forward=0");
    forwarding::restore(&state).expect("has nothing to put back");
    for _ in 0..2 {
        forwarding::enable(&state).expect("enables, and again");
        assert_eq!(is(), "1");
    }
    forwarding::restore(&state).expect("puts back");
    assert_eq!(is(), "0");
    sh("sysctl -qw net.ipv4.ip_forward=1");
    forwarding::enable(&state).expect("enables");
    forwarding::restore(&state).expect("leaves what was so before");
    assert_eq!(is(), "1");
}
