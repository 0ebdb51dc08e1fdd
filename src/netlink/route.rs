//! Routes and addresses: who has which network already.

use std::io;
use std::net::Ipv4Addr;

use super::message::{Message, Verb, attribute, u32_at};
use super::{AF_INET, IFA_LOCAL, Netlink, RTA_OIF, RTM_NEWADDR, RTM_NEWROUTE, RTN_UNICAST};

const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;

/// Where packets for a network go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub network: Ipv4Addr,
    pub prefix: u8,
    /// The index of the link; None: through several.
    pub link: Option<u32>,
    /// To neighbours or by a gateway; others refuse or drop what they match, or are the host's own addresses.
    pub unicast: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub link: u32,
}

impl Netlink {
    /// The IPv4 routes of all tables.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut message = Message::new(RTM_GETROUTE, Verb::Dump);
        message.bytes(&[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut routes = vec![];
        self.socket.dump(message, |kind, body| {
            if kind == RTM_NEWROUTE {
                routes.extend(parse_route(body));
            }
        })?;
        Ok(routes)
    }

    /// The IPv4 addresses of all links.
    pub fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let mut message = Message::new(RTM_GETADDR, Verb::Dump);
        message.bytes(&[AF_INET, 0, 0, 0, 0, 0, 0, 0]);
        let mut addresses = vec![];
        self.socket.dump(message, |kind, body| {
            if kind == RTM_NEWADDR {
                addresses.extend(parse_address(body));
            }
        })?;
        Ok(addresses)
    }

    pub fn delete_address(&mut self, address: Address) -> io::Result<()> {
        let mut message = Message::new(RTM_DELADDR, Verb::Change);
        message.bytes(&[AF_INET, address.prefix, 0, 0]);
        message.u32(address.link);
        message.attribute(IFA_LOCAL, &address.address.octets());
        self.ask("remove an address from", message)
    }
}

/// rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type, flags.
fn parse_route(body: &[u8]) -> Option<Route> {
    let (header, rest) = (body.get(..12)?, body.get(12..)?);
    let prefix = *header.get(1)?;
    let network = match attribute(rest, RTA_DST) {
        Some(octets) => Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?),
        None => Ipv4Addr::UNSPECIFIED,
    };
    let link = attribute(rest, RTA_OIF).and_then(|value| u32_at(value, 0));
    (prefix <= 32).then_some(Route { network, prefix, link, unicast: header.get(7) == Some(&RTN_UNICAST) })
}

/// ifaddrmsg: family, prefix length, flags, scope, index.
fn parse_address(body: &[u8]) -> Option<Address> {
    let octets: [u8; 4] = attribute(body.get(8..)?, IFA_LOCAL)?.try_into().ok()?;
    let prefix = *body.get(1)?;
    (prefix <= 32).then_some(Address { address: octets.into(), prefix, link: u32_at(body, 4)? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_the_kernel_says_of_routes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(parse_route(&bytes).is_none_or(|route| route.prefix <= 32));
            prop_assert!(parse_address(&bytes).is_none_or(|address| address.prefix <= 32));
        }
    }
}
