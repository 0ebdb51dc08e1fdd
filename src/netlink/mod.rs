//! rtnetlink, our few verbs: a link up, an address, a default route (rtnetlink(7)).
//!
//! One request, one answer, over a blocking socket. What exists already as it was asked for is no error.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

mod message;

use message::Message;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFA_LOCAL: u16 = 2;
const IFA_ADDRESS: u16 = 1;
const RTA_GATEWAY: u16 = 5;
const RTA_OIF: u16 = 4;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// A conversation with the kernel about links, in this process's network namespace.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub fn open() -> io::Result<Self> {
        // No protocol, 0, is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sets a link up.
    pub fn set_up(&mut self, link: &str) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, false);
        // ifinfomsg: family, padding, type, index, flags, which of them to change.
        message.bytes(&[0; 4]);
        message.u32(index(self, link)?);
        message.u32(IFF_UP);
        message.u32(IFF_UP);
        self.ask(message)
    }

    pub fn add_address(&mut self, link: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWADDR, true);
        // ifaddrmsg: family, prefix length, flags, scope, index.
        message.bytes(&[AF_INET, prefix, 0, 0]);
        message.u32(index(self, link)?);
        message.attribute(IFA_LOCAL, &address.octets());
        message.attribute(IFA_ADDRESS, &address.octets());
        self.ask(message)
    }

    pub fn add_default_route(&mut self, link: &str, gateway: Ipv4Addr) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWROUTE, true);
        // rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type, flags.
        message.bytes(&[AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST]);
        message.u32(0);
        message.attribute(RTA_GATEWAY, &gateway.octets());
        message.attribute(RTA_OIF, &index(self, link)?.to_ne_bytes());
        self.ask(message)
    }

    fn ask(&mut self, message: Message) -> io::Result<()> {
        self.sequence += 1;
        let bytes = message.finish(self.sequence);
        sendto(&self.socket, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = vec![0; 4096];
        let (length, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        match message::verdict(&answer[..length]) {
            Some(0) => Ok(()),
            Some(errno) if errno == Errno::EXIST.raw_os_error() => Ok(()),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel answered with something else"))
            }
        }
    }
}

fn index(netlink: &Netlink, link: &str) -> io::Result<u32> {
    Ok(rustix::net::netdevice::name_to_index(&netlink.socket, link)?)
}

#[cfg(test)]
mod tests {
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
        assert!(ip("addr show lo").contains("inet 10.9.8.7/24"));
        assert!(ip("route show").contains("default via 10.9.8.1 dev lo"));
        let error = netlink.add_default_route("lo", Ipv4Addr::new(1, 2, 3, 4)).expect_err("no way there");
        assert_eq!(error.raw_os_error(), Some(Errno::NETUNREACH.raw_os_error()));
        netlink.set_up("none").expect_err("no such link");
    }
}
