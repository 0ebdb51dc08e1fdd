//! What tests/bench/network.sh runs, in a network namespace of its own: a VM's tap, port and rules made in process and made by
//! `ip -batch` and `nft -f -`, in turns, and 50 taps removed at once and one by one. Medians, and their ratios.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use banger::netlink::Netlink;
use banger::network::guest::Guest;
use banger::network::names::{BRIDGE, TAP_GROUP, TapName};
use banger::network::ruleset::Ruleset;
use banger::network::subnet::{DEFAULT, Subnet};
use banger::root::{bridge, firewall, tap};
use banger::vm::id::VmId;
use rustix::process::Uid;

const ROUNDS: u16 = 101;
const MANY: u16 = 50;

fn main() {
    let links = Netlink::open().and_then(|mut netlink| netlink.links()).expect("asks for links");
    assert_eq!(links.len(), 1, "only lo is here: run it under unshare -n");
    let subnet: Subnet = DEFAULT;
    bridge::ensure(subnet, "banger:bench").expect("makes the bridge");
    // Among as many VMs as a busy host has.
    let guests: Vec<Guest> = (100..100 + MANY).map(|slot| guest(slot, subnet)).collect();
    firewall::load(&Ruleset { subnet, dns_port: 42069, guests: guests.clone() }).expect("loads");
    for guest in &guests {
        tap::create(guest, Uid::ROOT).expect("makes a tap");
    }
    let (mut ours, mut theirs, mut links, mut rules) = (vec![], vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let guest = guest(2 + round % 90, subnet);
        ours.push(timed(|| {
            tap::create(&guest, Uid::ROOT).expect("makes the tap");
            firewall::set(&guest).expect("lets it pass");
        }));
        firewall::remove(&guest).expect("removes");
        tap::delete(guest.tap).expect("deletes");
        let (by_ip, by_nft) = (timed(|| with_ip(&guest)), timed(|| with_nft(&guest)));
        links.push(by_ip);
        rules.push(by_nft);
        theirs.push(by_ip + by_nft);
        firewall::remove(&guest).expect("removes");
        feed("ip", &["link", "delete", &guest.tap.to_string()], "");
    }
    let all: BTreeSet<TapName> = guests.iter().map(|guest| guest.tap).collect();
    let (mut at_once, mut one_by_one) = (vec![], vec![]);
    for round in 0..7 {
        if round > 0 {
            guests.iter().for_each(|guest| tap::create(guest, Uid::ROOT).expect("makes a tap"));
        }
        at_once.push(timed(|| tap::delete_all(&all).expect("deletes")));
        assert!(tap::stamped().expect("lists").is_empty());
    }
    for _ in 0..3 {
        guests.iter().for_each(|guest| tap::create(guest, Uid::ROOT).expect("makes a tap"));
        one_by_one.push(timed(|| all.iter().for_each(|tap| tap::delete(*tap).expect("deletes"))));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("tap, port and rules of one VM, in process: {ours:.2?}");
    println!("  by ip -batch and nft -f -: {theirs:.2?} ({:.2?} and {:.2?})", median(links), median(rules));
    println!("  ratio: {:.3}", ours.as_secs_f64() / theirs.as_secs_f64());
    let (at_once, one_by_one) = (median(at_once), median(one_by_one));
    println!("{MANY} taps removed at once: {at_once:.2?}, one by one: {one_by_one:.2?}");
    println!("  ratio: {:.3}", at_once.as_secs_f64() / one_by_one.as_secs_f64());
    assert!(ours <= Duration::from_millis(2), "one VM takes longer than 2 ms");
    assert!(at_once <= Duration::from_millis(100), "{MANY} taps take longer than 100 ms");
}

fn guest(slot: u16, subnet: Subnet) -> Guest {
    let guest = Guest::new(VmId::from_random(slot.into()), slot, subnet).expect("a slot of the subnet");
    Guest { nat: true, lan: true, ..guest }
}

/// The same links as [`tap::create`] makes.
fn with_ip(guest: &Guest) {
    let Guest { tap, mac, .. } = guest;
    let lines = [
        format!("tuntap add {tap} mode tap vnet_hdr user 0"),
        format!("link set {tap} alias {} group {TAP_GROUP} addrgenmode none", tap.stamp()),
        format!("link set {tap} master {BRIDGE}"),
        format!(
            "link set {tap} up type bridge_slave isolated on learning off flood off hairpin off guard off"
        ),
    ];
    feed("ip", &["-batch", "-"], &lines.join("\n"));
    feed("bridge", &["fdb", "replace", &mac.to_string(), "dev", &tap.to_string(), "master", "static"], "");
}

/// The same elements as [`firewall::set`] adds.
fn with_nft(guest: &Guest) {
    let Guest { tap, mac, address, .. } = guest;
    let text = format!(
        "add element bridge banger guests {{ \"{tap}\" . {mac} . {address} }}\n\
         add element inet banger nat {{ {address} }}\nadd element inet banger lan {{ {address} }}\n"
    );
    feed("nft", &["-f", "-"], &text);
}

fn feed(program: &str, args: &[&str], input: &str) {
    let mut child = Command::new(program).args(args).stdin(Stdio::piped()).spawn().expect("starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("is fed");
    assert!(child.wait().expect("ends").success(), "{program} {args:?}: {input}");
}

fn timed(act: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    act();
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
