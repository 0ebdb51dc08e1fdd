//! The bridge and taps, as ip shows them.

use std::collections::BTreeSet;
use std::time::Instant;

use banger::network::subnet::Subnet;
use banger::root::links::LinkError;
use banger::root::{bridge, tap};
use rustix::process::Uid;
use serde_json::{Value, json};

use crate::rig::*;

/// TUNSETIFF with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR.
const OPEN_TAP: &str = "/usr/bin/python3 -c \"import fcntl, os, struct
fcntl.ioctl(os.open('/mnt/tun', os.O_RDWR), 0x400454ca, struct.pack('16sH22x', b'bgr000000000002', 0x5002))\"";

fn link(name: &str) -> Value {
    json(&format!("ip -j -d link show {name}"))[0].clone()
}

fn names() -> BTreeSet<String> {
    let links = json("ip -j link");
    links
        .as_array()
        .expect("a list")
        .iter()
        .map(|l| l["ifname"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn the_bridge_is_made_once_and_mended_after_that() {
    own_host();
    bridge();
    let check = || {
        let link = link("br-banger");
        let data = &link["linkinfo"]["info_data"];
        assert_eq!(link["address"], "06:ba:9e:00:00:01");
        assert_eq!(link["ifalias"], STAMP);
        assert_eq!(
            (&data["stp_state"], &data["forward_delay"], &data["mcast_snooping"]),
            (&json!(0), &json!(0), &json!(0))
        );
        assert_eq!(data["group_fwd_mask"], "0");
        assert!(link["flags"].as_array().expect("flags").contains(&json!("UP")));
        let addresses = &json("ip -j addr show br-banger")[0]["addr_info"];
        assert_eq!(addresses.as_array().map(Vec::len), Some(1), "no address of IPv6: {addresses}");
        assert_eq!((&addresses[0]["local"], &addresses[0]["prefixlen"]), (&json!("172.16.0.1"), &json!(24)));
        assert_eq!(addresses[0]["broadcast"], "172.16.0.255");
        for (setting, value) in
            [("ipv4/conf/br-banger/rp_filter", "1"), ("ipv6/conf/br-banger/disable_ipv6", "1")]
        {
            assert_eq!(sh(&format!("cat /proc/sys/net/{setting}")).trim(), value, "{setting}");
        }
    };
    check();
    let index = link("br-banger")["ifindex"].clone();
    sh(
        "ip link set br-banger down && ip addr flush dev br-banger && ip link set br-banger type bridge stp_state 1 forward_delay 1500 mcast_snooping 1",
    );
    sh(
        "ip link set br-banger address 02:00:00:00:00:07 && sysctl -qw net.ipv4.conf.br-banger.rp_filter=0 net.ipv6.conf.br-banger.disable_ipv6=0",
    );
    bridge();
    check();
    assert_eq!(link("br-banger")["ifindex"], index, "it is the same bridge");
    bridge::delete(STAMP).expect("deletes");
    bridge::delete(STAMP).expect("there is none");
    assert_eq!(names(), ["lo".to_owned()].into());
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn a_bridge_of_somebody_else_is_left_alone() {
    own_host();
    for others in ["", "alias other", "alias banger:test2"] {
        sh("ip link add br-banger type bridge");
        if !others.is_empty() {
            sh(&format!("ip link set br-banger {others}"));
        }
        let before = sh("ip -o link; ip addr");
        let error = bridge::ensure(SUBNET, STAMP).expect_err("refuses");
        assert!(matches!(error, LinkError::Foreign { .. }), "{error}");
        assert_eq!(
            error.to_string(),
            "br-banger exists and is not this banger's; remove it (ip link delete br-banger)"
        );
        bridge::delete(STAMP).expect_err("refuses");
        assert_eq!(sh("ip -o link; ip addr"), before);
        sh("ip link delete br-banger");
    }
    sh("ip tuntap add br-banger mode tap && ip link set br-banger alias banger:test");
    bridge::ensure(SUBNET, STAMP).expect_err("it is no bridge");
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn a_network_that_somebody_has_is_named_and_nothing_is_made() {
    own_host();
    let mut internet = Space::connected("eth0", "172.16.0.77/16", "172.16.0.78/16");
    let refused = || bridge::ensure(SUBNET, STAMP).expect_err("refuses").to_string();
    assert_eq!(
        refused(),
        "172.16.0.0/16 is already routed to eth0; choose another network by bridge_address in config.toml"
    );
    assert!(!names().contains("br-banger"));
    drop(internet);
    // The kernel takes a namespace's links away when it gets to it.
    eventually("eth0 is gone", || !names().contains("eth0"));
    internet = Space::connected("eth1", "10.0.0.2/24", "10.0.0.1/24");
    // The ways of a VPN for everything, and of one for a network far away.
    sh(
        "ip route add 0.0.0.0/1 via 10.0.0.1 && ip route add 128.0.0.0/1 via 10.0.0.1 && ip route add default via 10.0.0.1",
    );
    sh("ip route add blackhole 172.16.0.0/12");
    sh("ip route add 172.16.0.128/25 via 10.0.0.1 table 52");
    assert!(refused().starts_with("172.16.0.128/25 is already routed to eth1;"), "{}", refused());
    sh("ip route flush table 52");
    bridge();
    // What comes later is not the fault of a bridge that is there.
    sh("ip route add 172.16.0.128/25 via 10.0.0.1 metric 9 table 52");
    bridge();
    drop(internet);
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn the_network_changes_while_no_vm_is_there() {
    own_host();
    bridge();
    let other: Subnet = "10.200.0.1/20".parse().expect("a subnet");
    tap::create(&guest(2), Uid::ROOT).expect("makes a tap");
    let error = bridge::ensure(other, STAMP).expect_err("a VM is there");
    assert!(matches!(error, LinkError::InUse { .. }), "{error}");
    tap::delete(guest(2).tap).expect("deletes");
    bridge::ensure(other, STAMP).expect("changes");
    let addresses = &json("ip -j addr show br-banger")[0]["addr_info"];
    assert_eq!(addresses.as_array().map(Vec::len), Some(1), "{addresses}");
    assert_eq!((&addresses[0]["local"], &addresses[0]["prefixlen"]), (&json!("10.200.0.1"), &json!(20)));
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn a_tap_is_a_stamped_isolated_port_that_its_owner_may_open() {
    own_host();
    let guest = guest(2);
    let error = tap::create(&guest, Uid::ROOT).expect_err("no bridge yet");
    assert!(matches!(error, LinkError::NoBridge), "{error}");
    assert_eq!(names(), ["lo".to_owned()].into());
    bridge();
    let owner = Uid::from_raw(4242);
    for _ in 0..2 {
        tap::create(&guest, owner).expect("makes the tap, and again");
        let link = link("bgr000000000002");
        let data = &link["linkinfo"]["info_data"];
        let port = &link["linkinfo"]["info_slave_data"];
        assert_eq!((&link["ifalias"], &link["master"]), (&json!("banger:000000000002"), &json!("br-banger")));
        assert!(link["flags"].as_array().expect("flags").contains(&json!("UP")));
        assert_eq!(
            (&data["type"], &data["persist"], &data["user"]),
            (&json!("tap"), &json!(true), &json!(4242))
        );
        assert_eq!(
            (&data["pi"], &data["vnet_hdr"], &data["multi_queue"]),
            (&json!(false), &json!(true), &json!(false))
        );
        assert_eq!(
            (&port["isolated"], &port["learning"], &port["hairpin"]),
            (&json!(true), &json!(false), &json!(false))
        );
        assert_eq!(port["flood"], false);
        assert_eq!(link["inet6_addr_gen_mode"], "none");
        let table = json("bridge -j fdb show dev bgr000000000002");
        let mine = |entry: &&Value| entry["mac"] == guest.mac.to_string() && entry["state"] == "static";
        assert!(table.as_array().expect("a list").iter().any(|entry| mine(&entry)), "{table}");
    }
    assert_eq!(tap::stamped().expect("lists"), [guest.tap].into());
    let held = tap::open(guest.tap).expect("opens");
    let error = tap::open(guest.tap).expect_err("one VMM is behind it");
    assert_eq!(error.to_string(), "cannot open bgr000000000002");
    tap::create(&guest, owner).expect("mends it while a VMM is behind it");
    drop(held);
    // As Firecracker does, over a device that its jailer makes: by its name, as the one that it was given to.
    sh("mount -t tmpfs none /mnt && mknod -m 666 /mnt/tun c 10 200");
    let opens = |uid: u32| try_sh(&format!("setpriv --reuid {uid} --regid {uid} --clear-groups {OPEN_TAP}"));
    let own = opens(4242);
    assert!(own.status.success(), "{own:?}");
    let others = String::from_utf8(opens(4243).stderr).expect("UTF-8");
    assert!(others.contains("Operation not permitted"), "{others}");
    tap::delete(guest.tap).expect("deletes");
    tap::delete(guest.tap).expect("there is none");
    assert_eq!(names(), ["lo".to_owned(), "br-banger".to_owned()].into());
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn a_tap_of_somebody_else_is_left_alone() {
    own_host();
    bridge();
    for others in ["", "banger:000000000003", "mine"] {
        sh("ip tuntap add bgr000000000002 mode tap");
        if !others.is_empty() {
            sh(&format!("ip link set bgr000000000002 alias {others}"));
        }
        let before = sh("ip -d link show bgr000000000002");
        for error in [
            tap::create(&guest(2), Uid::ROOT).expect_err("refuses"),
            tap::delete(guest(2).tap).expect_err("refuses"),
            tap::open(guest(2).tap).expect_err("refuses"),
        ] {
            assert!(matches!(error, LinkError::Foreign { .. }), "{error}");
        }
        tap::delete_all(&[guest(2).tap].into()).expect("has nothing to delete");
        assert_eq!(tap::stamped().expect("lists"), [].into());
        assert_eq!(sh("ip -d link show bgr000000000002"), before);
        sh("ip link delete bgr000000000002");
    }
}

#[test]
#[ignore = "needs its own network namespace: unshare -n"]
fn fifty_taps_come_and_go_and_leave_nothing() {
    own_host();
    bridge();
    // Somebody's link in the group that ours had, and one with a name like ours.
    sh("ip link add other type bridge && ip link set other group 47774 && ip tuntap add bgr0 mode tap");
    let before = sh("ip -o link; bridge fdb; nft list ruleset");
    let guests: Vec<_> = (2..52).map(guest).collect();
    for guest in &guests {
        tap::create(guest, Uid::ROOT).expect("makes a tap");
    }
    let taps: BTreeSet<_> = guests.iter().map(|guest| guest.tap).collect();
    assert_eq!(tap::stamped().expect("lists"), taps);
    assert_eq!(names().len(), 54);
    let begun = Instant::now();
    tap::delete_all(&taps).expect("deletes");
    println!("50 taps deleted in {:?}", begun.elapsed());
    assert_eq!(tap::stamped().expect("lists"), [].into());
    // The bridge's carrier goes a moment later.
    eventually("all is as before", || sh("ip -o link; bridge fdb; nft list ruleset") == before);
}
