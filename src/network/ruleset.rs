//! The firewall as nft text: two tables of banger's own, replaced as a whole, in which only elements of sets differ from VM to VM.
//!
//! `bridge banger` sees every frame of a guest and passes its own alone: IPv4 and ARP from the address and the MAC that the tap's VM
//! has. `inet banger` sees what these say to the host and to the rest of the world. A drop there is the last word whatever other
//! tables accept; an accept is not, see `root::others`.
//!
//! A tap is known by the group of links ([`TAP_GROUP`]), not by a name, which may be anybody's. No rule names the uplink,
//! which may change.

use std::fmt;
use std::net::Ipv4Addr;

use crate::network::guest::Guest;
use crate::network::names::{BRIDGE, TAP_GROUP};
use crate::network::subnet::Subnet;

/// Both tables' name.
pub const TABLE: &str = "banger";
/// In `bridge banger`, `ifname . ether_addr . ipv4_addr`: who is behind which tap.
pub const GUESTS: &str = "guests";
/// In `inet banger`, addresses: whose packets go to the internet, and whose to private networks too.
pub const NAT: &str = "nat";
pub const LAN: &str = "lan";

/// No guest's business, whatever it may do: this host, this link, everybody, nobody, and those who tell a cloud's machine its secrets
/// (169.254.169.254; 100.100.100.200 at Alibaba, 168.63.129.16 at Azure, 192.0.0.192 at Oracle).
const NEVER: &str =
    "0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 192.0.0.0/24, 224.0.0.0/3, 100.100.100.200, 168.63.129.16";
/// RFC 1918, RFC 6598, RFC 2544: somebody's own networks.
const PRIVATE: &str = "10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16, 198.18.0.0/15";

/// All that the tables are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    pub subnet: Subnet,
    /// Where, at the bridge's address, the DNS server listens to which guests speak at port 53.
    pub dns_port: u16,
    pub guests: Vec<Guest>,
}

/// What `nft -f -` takes: the tables as they were go, and these come, in one transaction.
impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = |guest: &Guest| format!("\"{}\" . {} . {}", guest.tap, guest.mac, guest.address);
        let addresses = |member: fn(&Guest) -> bool| {
            let members = self.guests.iter().filter(|guest| member(guest));
            elements(members.map(|guest| guest.address.to_string()))
        };
        f.write_str(&absent())?;
        let gateway = self.subnet.gateway();
        bridge_table(f, self.subnet, &elements(self.guests.iter().map(port)))?;
        inet_table(f, gateway, self.dns_port, self.subnet, &addresses(|guest| guest.nat), &addresses(in_lan))
    }
}

impl Ruleset {
    /// How many rules `bridge banger` and `inet banger` have.
    pub fn rules(&self) -> [usize; 2] {
        let text = Self { guests: vec![], ..*self }.to_string();
        let tables = text.split_once("\n\ntable inet").unwrap_or((&text, ""));
        [tables.0, tables.1].map(|table| table.lines().filter(|line| is_rule(line)).count())
    }
}

/// A rule is what a table's text has two deep, other than what a set or a chain says of itself.
fn is_rule(line: &str) -> bool {
    line.strip_prefix("\t\t")
        .is_some_and(|rest| !["type ", "flags ", "elements "].iter().any(|own| rest.starts_with(own)))
}

/// What `nft -f -` takes to have none of it. A table is made if need be, so that it can be deleted whether it was there or not.
pub fn absent() -> String {
    ["bridge", "inet"]
        .map(|family| format!("table {family} {TABLE}\ndelete table {family} {TABLE}\n"))
        .concat()
}

/// To private networks, which means nothing without the internet.
pub fn in_lan(guest: &Guest) -> bool {
    guest.nat && guest.lan
}

fn elements(members: impl Iterator<Item = String>) -> String {
    let members: Vec<_> = members.collect();
    // Empty braces are no list.
    if members.is_empty() {
        String::new()
    } else {
        format!("\n\t\telements = {{ {} }}", members.join(",\n\t\t\t"))
    }
}

fn bridge_table(f: &mut fmt::Formatter<'_>, subnet: Subnet, guests: &str) -> fmt::Result {
    let gateway = subnet.gateway();
    write!(
        f,
        r#"
table bridge {TABLE} {{
	set {GUESTS} {{
		type ifname . ether_addr . ipv4_addr{guests}
	}}
	chain prerouting {{
		type filter hook prerouting priority -200; policy accept;
		iifgroup {TAP_GROUP} goto from_guest
	}}
	# IPv6, VLANs and all else have no rule, and end here.
	chain from_guest {{
		ether type ip iifname . ether saddr . ip saddr @{GUESTS} goto packet
		ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 iifname . ether saddr . arp saddr ip @{GUESTS} goto neighbour
		drop
	}}
	# By way of the gateway another VM is no nearer.
	chain packet {{
		ip daddr {gateway} accept
		ip daddr {network}/{prefix} drop
		accept
	}}
	# About itself, to the gateway.
	chain neighbour {{
		iifname . arp saddr ether . arp saddr ip @{GUESTS} arp daddr ip {gateway} accept
		drop
	}}
	chain forward {{
		type filter hook forward priority -200; policy accept;
		iifgroup {TAP_GROUP} drop
		oifgroup {TAP_GROUP} drop
	}}
}}
"#,
        network = subnet.network(),
        prefix = subnet.prefix(),
    )
}

fn inet_table(
    f: &mut fmt::Formatter<'_>,
    gateway: Ipv4Addr,
    dns_port: u16,
    subnet: Subnet,
    nat: &str,
    lan: &str,
) -> fmt::Result {
    write!(
        f,
        r#"
table inet {TABLE} {{
	set {NAT} {{
		type ipv4_addr{nat}
	}}
	set {LAN} {{
		type ipv4_addr{lan}
	}}
	set never {{
		type ipv4_addr
		flags interval
		elements = {{ {NEVER} }}
	}}
	set private {{
		type ipv4_addr
		flags interval
		elements = {{ {PRIVATE} }}
	}}
	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		iifname "{BRIDGE}" ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {gateway}:{dns_port}
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr @{NAT} oifname != "{BRIDGE}" masquerade
	}}
	# The bridge's address is there for guests and the host itself, not for whoever takes the host for a router.
	chain input {{
		type filter hook input priority filter; policy accept;
		iifname "{BRIDGE}" goto to_host
		iifname != "lo" ip daddr {network}/{prefix} drop
	}}
	chain to_host {{
		ct direction reply ct state established,related accept
		ip daddr {gateway} ct status dnat meta l4proto {{ tcp, udp }} th dport {dns_port} accept
		ip daddr {gateway} icmp type echo-request accept
		goto refuse
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifname "{BRIDGE}" goto from_guest
		oifname "{BRIDGE}" goto to_guest
	}}
	# Who may no longer do what it has begun is refused in the middle of it: no rule here asks what is established.
	chain from_guest {{
		meta nfproto != ipv4 drop
		oifname "{BRIDGE}" drop
		ip daddr @never goto refuse
		ip saddr != @{NAT} goto refuse
		ip daddr @private ip saddr != @{LAN} goto refuse
		accept
	}}
	# A router in a private network may say that a packet was too big for the way to the internet.
	chain to_guest {{
		ip daddr != @{NAT} drop
		ct state related accept
		ip saddr @private ip daddr != @{LAN} drop
		ct direction reply ct state established accept
		drop
	}}
	chain refuse {{
		meta l4proto tcp reject with tcp reset
		reject with icmpx admin-prohibited
	}}
}}
"#,
        network = subnet.network(),
        prefix = subnet.prefix(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::subnet;
    use crate::vm::id::VmId;

    fn guest(slot: u16, nat: bool, lan: bool) -> Guest {
        let guest = Guest::new(VmId::from_random(0xa0 + u64::from(slot)), slot, subnet::DEFAULT);
        Guest { nat, lan, ..guest.expect("a slot") }
    }

    fn ruleset(guests: Vec<Guest>) -> String {
        Ruleset { subnet: subnet::DEFAULT, dns_port: 42069, guests }.to_string()
    }

    #[test]
    fn nobody_yet_is_the_whole_ruleset_with_empty_sets() {
        assert_eq!(ruleset(vec![]), include_str!("ruleset/empty.nft"));
    }

    #[test]
    fn guests_are_elements_of_sets_and_nothing_else() {
        let text = ruleset(vec![
            guest(2, false, false),
            guest(3, true, false),
            guest(4, true, true),
            guest(5, false, true),
        ]);
        let before = include_str!("ruleset/empty.nft");
        let new: Vec<&str> = text.lines().filter(|line| !before.lines().any(|l| l == *line)).collect();
        assert_eq!(
            new,
            [
                "\t\telements = { \"bgr0000000000a2\" . 06:ba:ac:10:00:02 . 172.16.0.2,",
                "\t\t\t\"bgr0000000000a3\" . 06:ba:ac:10:00:03 . 172.16.0.3,",
                "\t\t\t\"bgr0000000000a4\" . 06:ba:ac:10:00:04 . 172.16.0.4,",
                "\t\t\t\"bgr0000000000a5\" . 06:ba:ac:10:00:05 . 172.16.0.5 }",
                "\t\telements = { 172.16.0.3,",
                "\t\t\t172.16.0.4 }",
                "\t\telements = { 172.16.0.4 }",
            ],
            "lan without nat means nothing"
        );
    }

    #[test]
    fn rules_are_counted_and_sets_are_not() {
        let guests = vec![guest(2, true, true), guest(3, true, true)];
        let rules = Ruleset { subnet: subnet::DEFAULT, dns_port: 42069, guests }.rules();
        assert_eq!(rules, [11, 23]);
    }

    #[test]
    fn another_network_is_in_every_rule_that_names_one() {
        let subnet = "10.7.0.1/20".parse().expect("a subnet");
        let text = Ruleset { subnet, dns_port: 5300, guests: vec![] }.to_string();
        let same = include_str!("ruleset/empty.nft")
            .replace("172.16.0.1", "10.7.0.1")
            .replace("172.16.0.0/24", "10.7.0.0/20")
            .replace("42069", "5300");
        assert_eq!(text, same);
    }
}
