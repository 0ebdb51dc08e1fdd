//! The bridge's network: `172.16.0.1/24` is the gateway's address, and how many bits of it all VMs share.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What the bridge has where nobody says anything else.
pub const DEFAULT: Subnet = Subnet { gateway: Ipv4Addr::new(172, 16, 0, 1), prefix: 24 };
/// The widest and the narrowest network: 65533 VMs, and one.
const WIDEST: u8 = 16;
const NARROWEST: u8 = 30;

/// A private IPv4 network and the bridge's own address in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    gateway: Ipv4Addr,
    prefix: u8,
}

/// The text is no network that VMs may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadSubnet {
    Malformed(String),
    Size(u8),
    /// It is not of RFC 1918 or RFC 6598, so packets for others would end here.
    Public(Ipv4Addr),
    /// It is the network's own or its broadcast address.
    NoHost(Ipv4Addr),
}

impl Subnet {
    /// The network in which the bridge has the address `gateway`, and all share the first `prefix` bits.
    ///
    /// # Errors
    /// [`BadSubnet`] for one that is not private, too wide or narrow, or in which `gateway` is no host.
    pub fn new(gateway: Ipv4Addr, prefix: u8) -> Result<Self, BadSubnet> {
        let subnet = Self { gateway, prefix };
        if !(WIDEST..=NARROWEST).contains(&prefix) {
            return Err(BadSubnet::Size(prefix));
        }
        if !is_private(subnet.network(), prefix) {
            return Err(BadSubnet::Public(gateway));
        }
        if gateway == subnet.network() || gateway == subnet.broadcast() {
            return Err(BadSubnet::NoHost(gateway));
        }
        Ok(subnet)
    }

    /// The bridge's address, which is the guests' gateway and DNS server.
    pub fn gateway(self) -> Ipv4Addr {
        self.gateway
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The address of the network itself, all host bits zero.
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.gateway.to_bits() & mask(self.prefix))
    }

    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.gateway.to_bits() | !mask(self.prefix))
    }

    /// The last slot; slots begin with 1, and the gateway's own is nobody's.
    pub fn last_slot(self) -> u16 {
        // At most 2^16 - 2, since the prefix has 16 bits or more.
        ((1u32 << (32 - self.prefix)) - 2) as u16
    }

    /// The address of slot `slot`; None for the gateway's, and outside of the network.
    pub fn address(self, slot: u16) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from_bits(self.network().to_bits() + u32::from(slot));
        (slot != 0 && slot <= self.last_slot() && address != self.gateway).then_some(address)
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network().to_bits()
    }

    /// Whether some address is both in this network and in `network`/`prefix`.
    pub fn overlaps(self, network: Ipv4Addr, prefix: u8) -> bool {
        let common = mask(self.prefix.min(prefix));
        self.network().to_bits() & common == network.to_bits() & common
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// RFC 1918, section 3, and RFC 6598 (shared address space); all of `network`/`prefix` must lie within one of them.
fn is_private(network: Ipv4Addr, prefix: u8) -> bool {
    const PRIVATE: [(Ipv4Addr, u8); 4] = [
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
    ];
    PRIVATE.iter().any(|(base, bits)| prefix >= *bits && network.to_bits() & mask(*bits) == base.to_bits())
}

impl FromStr for Subnet {
    type Err = BadSubnet;
    fn from_str(s: &str) -> Result<Self, BadSubnet> {
        let malformed = || BadSubnet::Malformed(s.to_owned());
        let (address, prefix) = s.split_once('/').ok_or_else(malformed)?;
        let gateway = address.parse().map_err(|_| malformed())?;
        Self::new(gateway, prefix.parse().map_err(|_| malformed())?)
    }
}

impl TryFrom<String> for Subnet {
    type Error = BadSubnet;
    fn try_from(s: String) -> Result<Self, BadSubnet> {
        s.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

/// `172.16.0.1/24`.
impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.gateway, self.prefix)
    }
}

impl fmt::Display for BadSubnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text) => {
                write!(f, "{text:?} is no bridge address; write it like {DEFAULT}")
            }
            Self::Size(prefix) => {
                write!(f, "a network of /{prefix} does not fit; choose /{WIDEST} to /{NARROWEST}")
            }
            Self::Public(address) => write!(
                f,
                "{address} is not in a private network; choose one in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10"
            ),
            Self::NoHost(address) => write!(f, "{address} is no host's address in its network"),
        }
    }
}

impl std::error::Error for BadSubnet {}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a subnet")
    }

    #[test]
    fn slots_are_the_addresses_that_guests_may_have() {
        let default = DEFAULT;
        assert_eq!(subnet("172.16.0.1/24"), default);
        assert_eq!(default.last_slot(), 254);
        let address = |slot| default.address(slot).map(|a| a.to_string());
        assert_eq!(address(0), None, "the network itself");
        assert_eq!(address(1), None, "the gateway's");
        assert_eq!(address(2).as_deref(), Some("172.16.0.2"));
        assert_eq!(address(254).as_deref(), Some("172.16.0.254"));
        assert_eq!(address(255), None, "broadcast");
        let last = subnet("10.1.255.254/16");
        assert_eq!((last.last_slot(), last.address(65534), last.address(65535)), (65534, None, None));
        assert_eq!(subnet("10.0.0.1/30").address(2), Some(Ipv4Addr::new(10, 0, 0, 2)));
    }

    #[test]
    fn a_network_that_vms_may_not_have_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<Subnet>().expect_err(text).to_string();
        assert!(refused("172.16.0.1").contains("write it like 172.16.0.1/24"));
        assert!(refused("8.8.8.8/24").contains("not in a private network"));
        assert!(refused("172.32.0.1/24").contains("not in a private network"));
        assert!(refused("10.0.0.1/8").contains("choose /16 to /30"));
        assert!(refused("10.0.0.1/31").contains("choose /16 to /30"));
        assert!(refused("10.0.0.0/24").contains("no host's address"));
        assert!(refused("10.0.0.255/24").contains("no host's address"));
    }

    #[test]
    fn overlaps_are_seen_both_ways() {
        let net = |text: &str| {
            let (address, prefix) = text.split_once('/').expect("a slash");
            (address.parse::<Ipv4Addr>().expect("an address"), prefix.parse::<u8>().expect("bits"))
        };
        let ours = DEFAULT;
        for (other, want) in [
            ("172.16.0.0/24", true),
            ("172.16.0.128/25", true),
            ("172.16.0.0/12", true),
            ("172.16.0.7/32", true),
            ("0.0.0.0/0", true),
            ("172.16.1.0/24", false),
            ("172.17.0.0/16", false),
        ] {
            let (network, prefix) = net(other);
            assert_eq!(ours.overlaps(network, prefix), want, "{other}");
        }
    }
}
