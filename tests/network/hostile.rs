//! Guests that lie: about who they are, about who others are, and about what the network is.
//!
//! Every frame that must not pass is sent beside one like it that must, so that none is missed because nothing was seen at all.

use std::net::{Ipv4Addr, Ipv6Addr};

use banger::netlink::tun::Tap;
use banger::network::names::{BRIDGE_MAC, Mac};
use banger::root::firewall;

use crate::reach::{curl, host_with_firewall, started};
use crate::rig::*;

const BROADCAST: Mac = Mac([0xff; 6]);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);

fn frame(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [to.0, from.0].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// RFC 826. `operation`: 1 asks, 2 answers.
fn arp(operation: u16, from: (Mac, Ipv4Addr), about: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    for (mac, address) in [from, about] {
        packet.extend(mac.0);
        packet.extend(address.octets());
    }
    packet
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// RFC 4861, 4.2: a router for all nodes, for half an hour, with a prefix for them to choose addresses from.
fn router_advertisement() -> Vec<u8> {
    let from: Ipv6Addr = "fe80::bad".parse().expect("an address");
    let prefix: Ipv6Addr = "fd00:bad::".parse().expect("an address");
    let mut said = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 64, 0xc0];
    said.extend([0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    said.extend(prefix.octets());
    let to: Ipv6Addr = "ff02::1".parse().expect("an address");
    let ends = [from.octets(), to.octets()].concat();
    let sum = checksum(&[&ends[..], &[0, 0, 0, said.len() as u8, 0, 0, 0, 58], &said].concat());
    said[2..4].copy_from_slice(&sum.to_be_bytes());
    [&[0x60, 0, 0, 0, 0, said.len() as u8, 58, 255][..], &ends, &said].concat()
}

/// RFC 791 and RFC 768, with the header's checksum and none of the datagram's.
fn udp(from: Ipv4Addr, to: Ipv4Addr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend((20 + length).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend([from.octets(), to.octets()].concat());
    let checksum = checksum(&packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    for number in [ports.0, ports.1, length, 0] {
        packet.extend(number.to_be_bytes());
    }
    packet.extend(payload);
    packet
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn guests_do_not_reach_each_other() {
    let _kept = host_with_firewall();
    let (a, b) = (started(2, true, true), started(3, true, true));
    b.space.serve("0.0.0.0:80");
    let to_b = Capture::inside(&b.space, "eth0", "src 172.16.0.2 or arp src 172.16.0.2");
    let back = Capture::here("bgr000000000003", "src 172.16.0.2");
    assert!(!a.can(&curl("172.16.0.3")));
    assert!(!a.can("ping -c1 -W1 172.16.0.3"));
    // As the neighbour that it is, with its MAC, without asking.
    a.space.sh(&format!("ip neigh replace 172.16.0.3 lladdr {} dev eth0", b.guest.mac));
    assert!(!a.can("ping -c1 -W1 172.16.0.3"));
    // By way of the gateway.
    a.space.sh("ip neigh flush dev eth0; ip route add 172.16.0.3 via 172.16.0.1");
    assert!(!a.can("ping -c1 -W1 172.16.0.3"));
    assert!(!a.can(&curl("172.16.0.3")));
    assert!(!a.can("ping -b -c1 -W1 172.16.0.255"));
    for capture in [to_b, back] {
        assert_eq!(capture.end(), [""; 0]);
    }
    assert!(sh_can(&curl("172.16.0.3")), "the host reaches it");
    // Without rules the ports are isolated all the same, and only by that.
    sh("nft flush ruleset");
    a.space.sh("ip route delete 172.16.0.3");
    assert!(!a.can("ping -c1 -W1 172.16.0.3"));
    sh("bridge link set dev bgr000000000002 isolated off");
    a.space.sh("ip neigh flush dev eth0");
    assert!(a.can("ping -c1 -W2 172.16.0.3"));
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn a_guest_does_not_hear_what_is_meant_for_another() {
    let _kept = host_with_firewall();
    let (a, b) = (started(2, true, true), started(3, true, true));
    let heard = Capture::inside(&b.space, "eth0", "ip");
    assert!(sh_can("ping -c1 -W2 172.16.0.2"));
    // A bridge forgets where a link is that has said nothing for long, and then sends to all.
    sh("bridge fdb flush dev br-banger dynamic 2>/dev/null; ip link set br-banger type bridge fdb_flush");
    assert!(sh_can("ping -c1 -W2 172.16.0.2"));
    assert_eq!(heard.end(), [""; 0]);
    drop(a);
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn a_false_address_or_mac_does_not_pass() {
    let _kept = host_with_firewall();
    let vm = started(2, true, true);
    let other = started(3, true, true);
    assert!(vm.can("ping -c1 -W2 172.16.0.1"));
    let seen = Capture::here(
        "br-banger",
        "ip src 172.16.0.77 or ip src 172.16.0.3 or ip src 203.0.113.9 or ether src 06:ba:ac:10:00:03 or ether src 06:ba:ac:10:00:4d",
    );
    for (mac, address) in [
        (vm.guest.mac, Ipv4Addr::new(172, 16, 0, 77)),
        (vm.guest.mac, other.guest.address),
        (other.guest.mac, vm.guest.address),
        (other.guest.mac, other.guest.address),
        (Mac([6, 0xba, 172, 16, 0, 0x4d]), vm.guest.address),
        (vm.guest.mac, Ipv4Addr::new(203, 0, 113, 9)),
        (vm.guest.mac, GATEWAY),
    ] {
        vm.send(&frame(BRIDGE_MAC, mac, 0x0800, &udp(address, GATEWAY, (9, 9), b"x")));
        if address != GATEWAY {
            vm.take_address(&mac.to_string(), address.into());
            assert!(!vm.can("ping -c1 -W1 172.16.0.1"), "{mac} {address}");
        }
    }
    let seen = seen.end();
    assert_eq!(seen, [""; 0]);
    // The one that it has.
    let seen = Capture::here("br-banger", "udp");
    vm.send(&frame(BRIDGE_MAC, vm.guest.mac, 0x0800, &udp(GATEWAY, GATEWAY, (9, 9), b"x")));
    vm.send(&frame(BRIDGE_MAC, vm.guest.mac, 0x0800, &udp(vm.guest.address, GATEWAY, (9, 9), b"x")));
    assert_eq!(seen.end().len(), 1);
    assert!(other.can("ping -c1 -W2 172.16.0.1"), "whom it played is not disturbed");
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn arp_for_others_and_as_the_gateway_is_dropped() {
    let _kept = host_with_firewall();
    let (vm, other) = (started(2, true, true), started(3, true, true));
    assert!(sh_can("ping -c1 -W2 172.16.0.3"));
    let own = (vm.guest.mac, vm.guest.address);
    let gateway = (BRIDGE_MAC, GATEWAY);
    // It says nothing of itself meanwhile.
    vm.space.sh("ip link set eth0 down");
    let at_host = Capture::here("br-banger", "arp and not ether src 06:ba:9e:00:00:01");
    let at_other = Capture::inside(&other.space, "eth0", "arp and ether src 06:ba:ac:10:00:02");
    for (ether, from, about) in [
        // It is the other, or the gateway, to the host and to the other.
        (own.0, (own.0, other.guest.address), gateway),
        (own.0, (own.0, GATEWAY), (other.guest.mac, other.guest.address)),
        (own.0, (own.0, GATEWAY), (BROADCAST, GATEWAY)),
        (other.guest.mac, (other.guest.mac, other.guest.address), gateway),
        // The frame is its own, what is said in it is not, and the other way round.
        (own.0, (other.guest.mac, own.1), gateway),
        (other.guest.mac, own, gateway),
        // About others.
        (own.0, own, (other.guest.mac, other.guest.address)),
        (own.0, own, (Mac([0; 6]), other.guest.address)),
    ] {
        for operation in [1, 2] {
            for to in [BROADCAST, BRIDGE_MAC, other.guest.mac] {
                vm.send(&frame(to, ether, 0x0806, &arp(operation, from, about)));
            }
        }
    }
    assert_eq!(at_host.end(), [""; 0]);
    assert_eq!(at_other.end(), [""; 0]);
    let neighbours = json("ip -j neigh show dev br-banger");
    let mac = |address: &str| {
        let found = neighbours.as_array().expect("a list").iter().find(|n| n["dst"] == address);
        found.map(|n| n["lladdr"].as_str().expect("a MAC").to_owned())
    };
    assert_eq!(mac("172.16.0.3"), Some(other.guest.mac.to_string()));
    // The one question that it may ask.
    let seen = Capture::here("br-banger", "arp");
    vm.send(&frame(BROADCAST, own.0, 0x0806, &arp(1, own, (Mac([0; 6]), GATEWAY))));
    let seen = seen.end();
    assert!(seen.iter().any(|line| line.contains("Request who-has 172.16.0.1 tell 172.16.0.2")), "{seen:?}");
    assert!(seen.iter().any(|line| line.contains("Reply 172.16.0.1 is-at 06:ba:9e:00:00:01")), "{seen:?}");
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn router_advertisements_and_offers_of_addresses_go_nowhere() {
    let _kept = host_with_firewall();
    let (vm, other) = (started(2, true, true), started(3, true, true));
    for space in [&vm.space, &other.space] {
        space.sh("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0 net.ipv6.conf.eth0.accept_ra=2");
    }
    let all_nodes = Mac([0x33, 0x33, 0, 0, 0, 1]);
    let advertisement = frame(all_nodes, vm.guest.mac, 0x86dd, &router_advertisement());
    // Whom no banger keeps from it believes it.
    let believer = Space::new();
    let cable = believer.inside(|| Tap::create("eth0").expect("makes an interface").into());
    believer.sh("sysctl -qw net.ipv6.conf.eth0.accept_ra=2 && ip link set eth0 up");
    eventually("a router is believed", || {
        send_over(&cable, &advertisement);
        believer.sh("ip -6 route show default").contains("fe80::bad")
    });
    let heard = [
        Capture::inside(
            &other.space,
            "eth0",
            "ip6 and ether src 06:ba:ac:10:00:02 or udp port 67 or udp port 68",
        ),
        Capture::here("br-banger", "ip6 or udp port 67 or udp port 68"),
    ];
    vm.send(&advertisement);
    vm.space.sh("ping -6 -c2 -W1 -I eth0 ff02::1 >/dev/null 2>&1; true");
    let mut offer = vec![2, 1, 6, 0];
    offer.resize(240, 0);
    offer.extend([53, 1, 2, 255]);
    vm.send(&frame(BROADCAST, vm.guest.mac, 0x0800, &udp(GATEWAY, Ipv4Addr::BROADCAST, (67, 68), &offer)));
    other.send(&frame(
        BROADCAST,
        other.guest.mac,
        0x0800,
        &udp(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, (68, 67), &offer),
    ));
    let vlan = [&[0, 5, 8, 0][..], &udp(vm.guest.address, GATEWAY, (9, 9), b"x")].concat();
    let tagged = Capture::here("br-banger", "vlan");
    vm.send(&frame(BRIDGE_MAC, vm.guest.mac, 0x8100, &vlan));
    vm.send(&frame(BROADCAST, vm.guest.mac, 0x88a8, &vlan));
    for capture in heard {
        assert_eq!(capture.end(), [""; 0]);
    }
    assert_eq!(tagged.end(), [""; 0]);
    let addresses = other.space.sh("ip -6 addr show scope global; ip -6 route show default")
        + &sh("ip -6 addr show dev br-banger");
    assert_eq!(addresses, "");
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn a_tap_that_the_firewall_does_not_know_yet_says_nothing() {
    let _kept = host_with_firewall();
    let vm = Vm::start(guest(2));
    assert!(!vm.can("ping -c1 -W1 172.16.0.1"));
    firewall::set(&vm.guest).expect("lets it pass");
    assert!(vm.can("ping -c1 -W2 172.16.0.1"));
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn links_of_others_pass_frames_as_before() {
    let _kept = host_with_firewall();
    let (a, b) = (Space::new(), Space::new());
    sh("ip link add others type bridge && ip link set others up");
    for (name, space, address) in [("bgr1", &a, "10.9.0.1/24"), ("bgr2", &b, "10.9.0.2/24")] {
        sh(&format!(
            "ip link add {name} type veth peer name eth0 netns {} && ip link set {name} master others up",
            space.pid()
        ));
        space.sh(&format!("ip addr add {address} dev eth0 && ip link set eth0 up"));
    }
    assert!(a.can("ping -c1 -W2 10.9.0.2"));
}
