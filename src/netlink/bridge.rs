//! Bridges and their ports (linux/if_link.h, IFLA_BR and IFLA_BRPORT).

use crate::network::names::Mac;

use super::link::{
    IFLA_GROUP, IFLA_IFALIAS, IFLA_INFO_KIND, IFLA_LINKINFO, changed, header, without_ipv6_address,
};
use super::message::{Message, Verb};
use super::socket::Refused;
use super::{IFF_UP, Netlink, RTM_NEWLINK};

const RTM_NEWNEIGH: u16 = 28;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_GUARD: u16 = 5;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const AF_BRIDGE: u8 = 7;
const NUD_NOARP: u16 = 0x40;
const NTF_MASTER: u8 = 4;
const NDA_LLADDR: u16 = 2;

/// A link as a port of a bridge.
#[derive(Debug, Clone, Copy)]
pub struct Port<'a> {
    /// The port's index, and the bridge's.
    pub link: u32,
    pub bridge: u32,
    pub alias: &'a str,
    pub group: u32,
    /// Who is behind it.
    pub mac: Mac,
}

impl Netlink {
    /// Makes a bridge with that alias; it is down and has no address. It must not exist.
    pub fn create_bridge(&mut self, name: &str, mac: Mac, alias: &str) -> Result<(), Refused> {
        let mut create = Message::new(RTM_NEWLINK, Verb::Create);
        create.bytes(&header(0, 0, 0));
        create.text(IFLA_IFNAME, name);
        create.attribute(IFLA_ADDRESS, &mac.0);
        create.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge");
            info.nested(IFLA_INFO_DATA, bridge_data);
        });
        // A link takes no alias while it is made (rtnl_newlink_create); by its name it can be found in the same send.
        let mut stamp = changed(0, 0, 0);
        stamp.text(IFLA_IFNAME, name);
        stamp.attribute(IFLA_IFALIAS, alias.as_bytes());
        self.socket.ask(vec![("create", create), ("stamp", stamp)])
    }

    /// Makes a bridge that exists what [`Netlink::create_bridge`] would have made, and sets it up. `mac`: that which it is to get.
    pub fn mend_bridge(&mut self, index: u32, mac: Option<Mac>) -> Result<(), Refused> {
        // With STP there is no forward delay of 0, so that STP goes first (ERANGE, br_set_forward_delay).
        let mut stp = changed(index, 0, 0);
        stp.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge");
            info.nested(IFLA_INFO_DATA, |data| data.attribute(IFLA_BR_STP_STATE, &0u32.to_ne_bytes()));
        });
        let mut message = changed(index, IFF_UP, IFF_UP);
        if let Some(mac) = mac {
            message.attribute(IFLA_ADDRESS, &mac.0);
        }
        message.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge");
            info.nested(IFLA_INFO_DATA, bridge_data);
        });
        without_ipv6_address(&mut message);
        self.socket.ask(vec![("switch STP off on", stp), ("set up", message)])
    }

    /// Makes a link an isolated port, with everything that a port must have before its first packet, and sets it up.
    pub fn join(&mut self, port: &Port<'_>) -> Result<(), Refused> {
        let mut stamp = changed(port.link, 0, 0);
        stamp.attribute(IFLA_IFALIAS, port.alias.as_bytes());
        stamp.attribute(IFLA_GROUP, &port.group.to_ne_bytes());
        without_ipv6_address(&mut stamp);
        let mut master = changed(port.link, 0, 0);
        master.attribute(IFLA_MASTER, &port.bridge.to_ne_bytes());
        // What a port is like can be said only once it is one.
        let mut up = changed(port.link, IFF_UP, IFF_UP);
        up.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_SLAVE_KIND, "bridge");
            info.nested(IFLA_INFO_SLAVE_DATA, port_data);
        });
        self.socket.ask(vec![
            ("stamp", stamp),
            ("attach", master),
            ("set up", up),
            ("tell the bridge who is behind", whereabouts(port)),
        ])
    }
}

fn bridge_data(data: &mut Message) {
    // A port forwards as soon as it is up.
    data.attribute(IFLA_BR_FORWARD_DELAY, &0u32.to_ne_bytes());
    data.attribute(IFLA_BR_STP_STATE, &0u32.to_ne_bytes());
    // Snooping would hold multicast back until a querier has been heard, and here is none.
    data.attribute(IFLA_BR_MCAST_SNOOPING, &[0]);
}

/// Isolated ports exchange nothing with each other. Nor does one hear what is meant for another when the bridge does not know where
/// that one is: it is told once ([`whereabouts`]), learns nothing, and forgets nothing.
fn port_data(data: &mut Message) {
    data.attribute(IFLA_BRPORT_ISOLATED, &[1]);
    data.attribute(IFLA_BRPORT_LEARNING, &[0]);
    data.attribute(IFLA_BRPORT_UNICAST_FLOOD, &[0]);
    data.attribute(IFLA_BRPORT_MODE, &[0]);
    data.attribute(IFLA_BRPORT_GUARD, &[0]);
}

/// A static entry of the bridge's table: it stays when the port has no carrier (br_fdb_delete_by_port), and goes with the port.
fn whereabouts(port: &Port<'_>) -> Message {
    let mut message = Message::new(RTM_NEWNEIGH, Verb::Ensure);
    // ndmsg: family, padding, index, state, flags, type.
    message.bytes(&[AF_BRIDGE, 0, 0, 0]);
    message.u32(port.link);
    message.bytes(&NUD_NOARP.to_ne_bytes());
    message.bytes(&[NTF_MASTER, 0]);
    message.attribute(NDA_LLADDR, &port.mac.0);
    message
}
