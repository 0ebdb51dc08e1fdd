//! Addresses that no name outside of the zone may have for a guest: whoever owns a name could lead it, and a browser's idea of what
//! is one site, to the guest's own or to the host's services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::network::subnet::Subnet;

/// What is refused besides what is the same for all: the bridge's network.
#[derive(Debug, Clone, Copy)]
pub struct Forbidden {
    pub bridge: Subnet,
}

impl Forbidden {
    pub fn has(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.has4(address),
            IpAddr::V6(address) => {
                address.is_loopback()
                    || address.is_unspecified()
                    || address.is_unicast_link_local()
                    || embedded(address).is_some_and(|address| self.has4(address))
            }
        }
    }

    fn has4(self, address: Ipv4Addr) -> bool {
        address.is_loopback()
            // 0.0.0.0 reaches this machine on Linux; the rest of its network is of no use either (RFC 1122, 3.2.1.3).
            || address.octets()[0] == 0
            || address.is_link_local()
            || self.bridge.contains(address)
    }
}

/// The IPv4 address in an IPv4-mapped or -compatible one (RFC 4291, 2.5.5), or in one for NAT64 (RFC 6052, 2.1).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            let [.., a, b, c, d] = address.octets();
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::subnet;

    #[test]
    fn a_name_leads_neither_to_loopback_nor_to_the_bridge() {
        let forbidden = Forbidden { bridge: subnet::DEFAULT };
        for (address, want) in [
            ("127.0.0.1", true),
            ("127.255.0.9", true),
            ("0.0.0.0", true),
            ("0.1.2.3", true),
            ("169.254.169.254", true),
            ("172.16.0.1", true),
            ("172.16.0.77", true),
            ("172.16.1.1", false),
            ("10.0.0.1", false),
            ("192.0.2.1", false),
            ("::1", true),
            ("::", true),
            ("fe80::1", true),
            ("febf::1", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:172.16.0.2", true),
            ("::127.0.0.1", true),
            ("64:ff9b::127.0.0.1", true),
            ("::ffff:192.0.2.1", false),
            ("fec0::1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(forbidden.has(address.parse().expect(address)), want, "{address}");
        }
    }
}
