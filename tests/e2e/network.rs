//! VMs on the bridge: what they reach and what not, with real guests and a small world around the host.

use serde_json::Value;

use crate::rig::{Rig, signal};
use crate::world::{INTERNET, LAN, METADATA, World};

/// What a web server at `address:port` says to a guest; it has some seconds for that.
pub fn asks(rig: &Rig, vm: &str, address: &str, port: u16) -> String {
    // Debian's busybox has a wget that breaks where there is no libc.
    let script =
        format!("(printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 2) | timeout 4 nc -w 3 {address} {port}");
    rig.args(&["vm", "exec", vm, "--", "sh", "-c", &script]).stdout
}

fn reaches(rig: &Rig, vm: &str, address: &str) -> bool {
    asks(rig, vm, address, 80).contains("hello from outside")
}

fn address(rig: &Rig, vm: &str) -> String {
    let shown = rig.json(&format!("vm show --json {vm}"));
    shown["address"].as_str().expect("has an address").to_owned()
}

fn pings(rig: &Rig, vm: &str, address: &str) -> bool {
    rig.args(&["vm", "exec", vm, "--", "ping", "-c", "1", "-W", "2", address]).status == 0
}

fn links(world: &World) -> Vec<String> {
    let links: Value = serde_json::from_str(&world.run("h", "ip -j link")).expect("JSON");
    let names = links.as_array().expect("a list").iter();
    names.map(|link| link["ifname"].as_str().expect("a name").to_owned()).collect()
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_vm_reaches_the_internet_with_nat_alone_and_private_networks_never() {
    let mut world = World::new();
    let rig = Rig::on_a_bridge(&world.host());
    rig.ok("vm run -d --name dev --image busybox");
    world.serve("h", "0.0.0.0:80", "hello from outside");
    let own = "172.16.0.1";
    assert!(
        world.run("h", "curl -s http://172.16.0.1:80/").contains("hello"),
        "the host has a service there"
    );
    assert!(!reaches(&rig, "dev", INTERNET), "without --nat");
    rig.ok("vm set dev --nat on");
    assert!(reaches(&rig, "dev", INTERNET), "with --nat");
    for (place, what) in [(LAN, "the LAN"), (METADATA, "the cloud's metadata"), (own, "the host's services")]
    {
        assert!(!reaches(&rig, "dev", place), "{what}");
    }
    rig.ok("vm set dev --lan on");
    assert!(reaches(&rig, "dev", LAN), "with --lan");
    assert!(!reaches(&rig, "dev", METADATA), "never");
    assert!(!reaches(&rig, "dev", own), "never");
    rig.ok("vm set dev --nat off --lan off");
    assert!(!reaches(&rig, "dev", INTERNET), "no more");
    // What was set is kept.
    rig.ok("vm set dev --nat on");
    rig.ok("vm restart dev");
    assert!(reaches(&rig, "dev", INTERNET), "after a restart");
    let seen = asks(&rig, "dev", INTERNET, 80);
    assert!(seen.ends_with("198.51.100.1"), "the host's address is what others see: {seen}");
    rig.ok("vm delete dev");
    rig.assert_no_vm_is_left();
    assert!(!links(&world).iter().any(|name| name.starts_with("bgr")), "{:?}", links(&world));
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn vms_do_not_see_each_other_and_cannot_pretend_to_be_another() {
    let world = World::new();
    let rig = Rig::on_a_bridge(&world.host());
    rig.ok("vm run -d --name one --image busybox --nat");
    rig.ok("vm run -d --name two --image busybox --nat");
    let (one, two) = (address(&rig, "one"), address(&rig, "two"));
    assert_ne!(one, two);
    assert!(pings(&rig, "one", "172.16.0.1"), "the gateway answers");
    assert!(!pings(&rig, "one", &two));
    assert!(!pings(&rig, "two", &one));
    // Through the gateway neither.
    rig.sh("one", &format!("ip route add {two}/32 via 172.16.0.1"));
    assert!(!pings(&rig, "one", &two));
    // The host reaches both.
    world.run("h", &format!("ping -c 1 -W 5 {one}"));
    world.run("h", &format!("ping -c 1 -W 5 {two}"));

    // With another's address nothing goes out, and the other keeps what is his.
    rig.sh("one", &format!("ip addr add {two}/24 dev eth0"));
    let pretend = ["vm", "exec", "one", "--", "ping", "-c", "1", "-W", "2", "-I", &two, "172.16.0.1"];
    assert_ne!(rig.args(&pretend).status, 0);
    rig.args(&["vm", "exec", "one", "--", "arping", "-U", "-c", "3", "-I", "eth0", &two]);
    world.run("h", &format!("ping -c 1 -W 5 {two}"));
    let known = world.run("h", &format!("ip neigh show {two}"));
    let [.., c, d] = two.split('.').map(|n| n.parse::<u8>().expect("a number")).collect::<Vec<_>>()[..]
    else {
        unreachable!("an address has four numbers")
    };
    assert!(known.contains(&format!("06:ba:ac:10:{c:02x}:{d:02x}")), "{known}");
    // As the gateway neither.
    rig.args(&["vm", "exec", "one", "--", "ip", "addr", "add", "172.16.0.1/32", "dev", "eth0"]);
    rig.args(&["vm", "exec", "one", "--", "arping", "-U", "-c", "3", "-I", "eth0", "172.16.0.1"]);
    assert!(pings(&rig, "two", "172.16.0.1"));
    assert!(reaches(&rig, "two", INTERNET));

    // With another MAC nothing goes out at all.
    rig.sh("one", &format!("ip addr del {two}/24 dev eth0; ip addr del 172.16.0.1/32 dev eth0; ip link set eth0 down; ip link set eth0 address 06:ba:00:00:00:99; ip link set eth0 up"));
    assert!(!pings(&rig, "one", "172.16.0.1"));
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn names_resolve_on_the_host_and_in_guests() {
    let world = World::new();
    let rig = Rig::on_a_bridge(&world.host());
    rig.ok("vm run -d --name one --image busybox");
    rig.ok("vm run -d --name two --image busybox");
    let (one, two) = (address(&rig, "one"), address(&rig, "two"));
    let dig = |question: &str| world.run("h", &format!("dig @127.0.0.1 -p 42069 +short {question}"));
    assert_eq!(dig("one.vm"), format!("{one}\n"));
    assert_eq!(dig(&format!("-x {two}")), "two.vm.\n");
    let answer = world.run("h", "dig @127.0.0.1 -p 42069 none.vm");
    assert!(answer.contains("status: NXDOMAIN") && answer.contains("SOA"), "{answer}");
    let asked = rig.sh("one", "nslookup two.vm 172.16.0.1");
    assert!(asked.contains(&two), "{asked}");
    let asked = rig.sh("one", "nslookup two.vm");
    assert!(asked.contains(&two), "by its own resolv.conf: {asked}");
    rig.ok("vm stop two");
    assert!(world.run("h", "dig @127.0.0.1 -p 42069 two.vm").contains("NXDOMAIN"));
    // The same VM keeps its address, and the daemon's death takes no name away.
    rig.ok("vm start two");
    assert_eq!(address(&rig, "two"), two);
    signal(rig.daemon_pid(), "KILL");
    rig.ok("vm list");
    assert_eq!(dig("one.vm") + &dig("two.vm"), format!("{one}\n{two}\n"));
    // A name that is changed leads there at once, and the old one nowhere.
    rig.ok("vm set two --name second");
    assert_eq!(dig("second.vm") + &dig("two.vm"), format!("{two}\n"));
    assert_eq!(dig(&format!("-x {two}")), "second.vm.\n");
    assert_eq!(rig.sh("second", "hostname"), "second\n");
    assert!(rig.sh("second", "tail -n 2 /etc/hosts").contains(&format!("{two} second")));
    rig.ok("vm set one --name two");
    assert_eq!(dig("two.vm"), format!("{one}\n"));
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_vmm_runs_as_a_user_of_its_own_and_leaves_nothing() {
    let world = World::new();
    let rig = Rig::on_a_bridge(&world.host());
    rig.ok("vm run -d --name one --image busybox");
    rig.ok("vm run -d --name two --image busybox");
    let uid = |vm: &str| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", rig.vmm_pid(vm))).expect("lives");
        let line = status.lines().find(|l| l.starts_with("Uid:")).expect("has a uid").to_owned();
        line.split_whitespace().nth(1).expect("a number").parse::<u32>().expect("a number")
    };
    let (one, two) = (uid("one"), uid("two"));
    assert!(one >= 1_900_000_000 && two >= 1_900_000_000 && one != two, "{one} {two}");
    let daemon = rig.daemon_pid();
    signal(daemon, "KILL");
    assert_eq!(rig.ok("vm exec one -- echo still here"), "still here\n");
    rig.ok("vm delete one two");
    rig.assert_no_vm_is_left();
    for dir in ["run-root/jail", "run-root/jails", "run-root/vms"] {
        let left: Vec<_> =
            std::fs::read_dir(rig.path().join(dir)).map(|d| d.flatten().collect()).unwrap_or_default();
        assert!(left.is_empty(), "{left:?}");
    }
    assert_eq!(links(&world).iter().filter(|name| name.starts_with("bgr")).count(), 0);
}
