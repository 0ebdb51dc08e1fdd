//! Links: what there is, and removing it.

use std::collections::BTreeSet;
use std::io;

use crate::network::names::Mac;

use super::message::{Message, Verb, attribute, text, u32_at};
use super::socket::Refused;
use super::{IFF_UP, Netlink, RTM_NEWLINK};

const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_IFALIAS: u16 = 20;
pub(super) const IFLA_AF_SPEC: u16 = 26;
pub(super) const IFLA_GROUP: u16 = 27;
pub(super) const IFLA_INFO_KIND: u16 = 1;
const AF_INET6: u16 = 10;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
/// As many answers fit into a socket's default buffer (net.core.rmem_default) several times over.
const BATCH: usize = 64;

/// A link as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub alias: Option<String>,
    /// `bridge`, `tun` (of taps too), `veth`; None for hardware.
    pub kind: Option<String>,
    /// The index of the bridge that it is a port of.
    pub master: Option<u32>,
    pub mac: Option<Mac>,
    pub group: u32,
    pub up: bool,
}

impl Netlink {
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut message = Message::new(RTM_GETLINK, Verb::Dump);
        message.bytes(&[0; 16]);
        let mut links = vec![];
        self.socket.dump(message, |kind, body| {
            if kind == RTM_NEWLINK {
                links.extend(parse(body));
            }
        })?;
        Ok(links)
    }

    /// The link of that name, if there is one.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = Message::new(RTM_GETLINK, Verb::Change);
        message.bytes(&[0; 16]);
        message.text(IFLA_IFNAME, name);
        let mut link = None;
        // It is answered by one message, then acknowledged.
        match self.socket.dump(message, |_, body| link = parse(body)) {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(None),
            other => other.map(|()| link),
        }
    }

    /// Removes links. All of them together take about as long as one: the kernel waits for each group once until nobody uses its
    /// members any more, 20 ms or so (unregister_netdevice_many).
    ///
    /// `group`: a number that no other link has.
    pub fn delete_links(&mut self, links: &BTreeSet<u32>, group: u32) -> Result<(), Refused> {
        let links: Vec<u32> = links.iter().copied().collect();
        if let [one] = links[..] {
            let mut message = Message::new(RTM_DELLINK, Verb::Change);
            message.bytes(&header(one, 0, 0));
            return self.socket.ask(vec![("delete", message)]);
        }
        for batch in links.chunks(BATCH) {
            let mut requests: Vec<_> = batch
                .iter()
                .map(|index| {
                    // Down first: a tap that leaves the group of taps leaves the firewall's rules for them.
                    let mut message = changed(*index, 0, IFF_UP);
                    message.attribute(IFLA_GROUP, &group.to_ne_bytes());
                    ("set down", message)
                })
                .collect();
            let mut message = Message::new(RTM_DELLINK, Verb::Change);
            message.bytes(&[0; 16]);
            message.attribute(IFLA_GROUP, &group.to_ne_bytes());
            requests.push(("delete", message));
            self.socket.ask(requests)?;
        }
        Ok(())
    }
}

/// ifinfomsg: family, padding, type, index, flags, which of them to change.
pub(super) fn header(index: u32, flags: u32, mask: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&mask.to_ne_bytes());
    bytes
}

/// The beginning of a request that changes the link of that index.
pub(super) fn changed(index: u32, flags: u32, mask: u32) -> Message {
    let mut message = Message::new(RTM_NEWLINK, Verb::Change);
    message.bytes(&header(index, flags, mask));
    message
}

/// No IPv6 address of its own, and so nothing that it would say about one when it comes up.
pub(super) fn without_ipv6_address(message: &mut Message) {
    message.nested(IFLA_AF_SPEC, |families| {
        families.nested(AF_INET6, |ipv6| {
            ipv6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
        });
    });
}

fn parse(body: &[u8]) -> Option<Link> {
    let rest = body.get(16..)?;
    let number = |kind| attribute(rest, kind).and_then(|value| u32_at(value, 0));
    Some(Link {
        index: u32_at(body, 4)?,
        name: text(attribute(rest, IFLA_IFNAME)?),
        alias: attribute(rest, IFLA_IFALIAS).map(text),
        kind: attribute(rest, IFLA_LINKINFO).and_then(|info| attribute(info, IFLA_INFO_KIND)).map(text),
        master: number(IFLA_MASTER),
        mac: attribute(rest, IFLA_ADDRESS).and_then(|value| value.try_into().ok()).map(Mac),
        group: number(IFLA_GROUP).unwrap_or(0),
        up: u32_at(body, 8)? & IFF_UP != 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_the_kernel_says_of_a_link_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(link) = parse(&bytes) {
                prop_assert!(bytes.len() >= 16 && link.index == u32_at(&bytes, 4).expect("an index"));
            }
        }
    }

    #[test]
    fn a_link_is_read_as_it_was_written() {
        let mut message = changed(7, IFF_UP, 0);
        message.text(IFLA_IFNAME, "br0");
        message.text(IFLA_IFALIAS, "banger");
        message.attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]);
        message.attribute(IFLA_MASTER, &3u32.to_ne_bytes());
        message.nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
        let bytes = message.finish(1);
        assert_eq!(
            parse(&bytes[16..]),
            Some(Link {
                index: 7,
                name: "br0".to_owned(),
                alias: Some("banger".to_owned()),
                kind: Some("bridge".to_owned()),
                master: Some(3),
                mac: Some(Mac([2, 0, 0, 0, 0, 1])),
                group: 0,
                up: true,
            })
        );
        assert_eq!(parse(&bytes[16..34]), None, "without a name it is none");
    }
}
