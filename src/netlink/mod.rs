//! rtnetlink, our few verbs: links, bridges and their ports, addresses, routes (rtnetlink(7)); taps ([`tun`]); and elements of nf_tables'
//! sets ([`nftables`]).
//!
//! Over a blocking socket, in the network namespace of the thread that opened it. What exists already as it was asked for is no
//! error.

use std::io;
use std::net::Ipv4Addr;

mod bridge;
mod link;
mod message;
pub mod nftables;
mod route;
mod socket;
#[allow(unsafe_code)]
pub mod tun;

pub use bridge::Port;
pub use link::Link;
pub use route::{Address, Route};
pub use socket::Refused;

use message::{Message, Verb};
use socket::Socket;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFA_LOCAL: u16 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_BROADCAST: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_OIF: u16 = 4;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// A conversation with the kernel about links, in this thread's network namespace.
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(None)? })
    }

    /// Sets a link up.
    pub fn set_up(&mut self, link: &str) -> io::Result<()> {
        let message = link::changed(self.index(link)?, IFF_UP, IFF_UP);
        self.ask("set up", message)
    }

    pub fn add_address(&mut self, link: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWADDR, Verb::Create);
        // ifaddrmsg: family, prefix length, flags, scope, index.
        message.bytes(&[AF_INET, prefix, 0, 0]);
        message.u32(self.index(link)?);
        message.attribute(IFA_LOCAL, &address.octets());
        message.attribute(IFA_ADDRESS, &address.octets());
        let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        message.attribute(IFA_BROADCAST, &(address.to_bits() | host_bits).to_be_bytes());
        self.ask("add an address to", message)
    }

    pub fn add_default_route(&mut self, link: &str, gateway: Ipv4Addr) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWROUTE, Verb::Create);
        // rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type, flags.
        message.bytes(&[AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST]);
        message.u32(0);
        message.attribute(RTA_GATEWAY, &gateway.octets());
        message.attribute(RTA_OIF, &self.index(link)?.to_ne_bytes());
        self.ask("add a route to", message)
    }

    /// The index of the link of that name.
    ///
    /// # Errors
    /// ENODEV: there is none.
    pub fn index(&self, link: &str) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(&self.socket, link)?)
    }

    fn ask(&mut self, op: &'static str, message: Message) -> io::Result<()> {
        match self.socket.ask(vec![(op, message)]) {
            Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map_err(|refused| refused.error),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    #[ignore = "needs its own network namespace: unshare -Urn"]
    fn a_link_comes_up_with_an_address_and_a_route() {
        let ip = |args: &str| {
            let out = std::process::Command::new("ip").args(args.split(' ')).output().expect("runs ip");
            String::from_utf8_lossy(&out.stdout).into_owned()
        };
        assert_eq!(ip("-o link show").lines().count(), 1, "only lo: a namespace of its own");
        let mut netlink = Netlink::open().expect("opens");
        netlink.set_up("lo").expect("sets lo up");
        assert!(ip("link show lo").contains("LOOPBACK,UP"));
        for _ in 0..2 {
            netlink.add_address("lo", Ipv4Addr::new(10, 9, 8, 7), 24).expect("adds, and again");
            netlink.add_default_route("lo", Ipv4Addr::new(10, 9, 8, 1)).expect("adds, and again");
        }
        assert!(ip("addr show lo").contains("inet 10.9.8.7/24 brd 10.9.8.255"));
        assert!(ip("route show").contains("default via 10.9.8.1 dev lo"));
        let error = netlink.add_default_route("lo", Ipv4Addr::new(1, 2, 3, 4)).expect_err("no way there");
        assert_eq!(error.raw_os_error(), Some(Errno::NETUNREACH.raw_os_error()));
        netlink.set_up("none").expect_err("no such link");
    }
}
