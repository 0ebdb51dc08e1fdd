//! nf_tables over nfnetlink (linux/netfilter/nf_tables.h): elements of sets, which tables and base chains there are and how many
//! rules, and a word when something of it changes. Rules are text for nft; this is what must be quick or in time.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use crate::network::names::Mac;

use super::message::{Message, Said, Verb, answers, attribute, text};
use super::socket::{Refused, Socket};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = SUBSYSTEM;
const GETTABLE: u16 = SUBSYSTEM | 1;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const GETCHAIN: u16 = SUBSYSTEM | 4;
const NEWRULE: u16 = SUBSYSTEM | 6;
const GETRULE: u16 = SUBSYSTEM | 7;
const DELRULE: u16 = SUBSYSTEM | 8;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const DELSETELEM: u16 = SUBSYSTEM | 14;
const TABLE_NAME: u16 = 1;
const RULE_TABLE: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;
/// NFNLGRP_NFTABLES as bind(2) takes it.
const CHANGES: u32 = 1 << (7 - 1);

/// A table's family (linux/netfilter.h, NFPROTO).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Inet = 1,
    Ipv4 = 2,
    Bridge = 7,
}

/// Where a set is.
#[derive(Debug, Clone, Copy)]
pub struct Set<'a> {
    pub family: Family,
    pub table: &'a str,
    pub name: &'a str,
}

/// A set's element, as the kernel has it: what is concatenated is padded to four bytes each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    pub fn address(address: Ipv4Addr) -> Self {
        Self(address.octets().to_vec())
    }

    /// Of the type `ifname . ether_addr . ipv4_addr`.
    pub fn port(link: &str, mac: Mac, address: Ipv4Addr) -> Self {
        let mut bytes = link.as_bytes().to_vec();
        bytes.resize(16, 0);
        bytes.extend(mac.0);
        bytes.extend([0; 2]);
        bytes.extend(address.octets());
        Self(bytes)
    }
}

/// One change of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Add,
    /// Whether it is there or not.
    Remove,
}

/// A chain that sees packets, by its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    pub family: u8,
    pub table: String,
    pub name: String,
}

/// Makes all of `changes` in one transaction: all of them or none.
///
/// # Errors
/// ENOENT: a set is not there.
pub fn change_elements(changes: &[(Change, Set<'_>, Key)]) -> Result<(), Refused> {
    let open = |error| Refused { op: "speak to nf_tables to change", error };
    let mut socket = Socket::open(Some(NETFILTER)).map_err(open)?;
    let mut requests = vec![("change", bracket(BATCH_BEGIN))];
    for (change, set, key) in changes {
        requests.push(("change", elements(NEWSETELEM, Verb::Ensure, *set, key)));
        // What is not there cannot be removed, and would take the whole transaction with it; so it is added first, which where it is
        // there is nothing (nft_add_set_elem without NLM_F_EXCL).
        if *change == Change::Remove {
            requests.push(("change", elements(DELSETELEM, Verb::Change, *set, key)));
        }
    }
    requests.push(("change", bracket(BATCH_END)));
    socket.ask(requests)
}

/// Whether there is such a table.
pub fn has_table(family: Family, name: &str) -> io::Result<bool> {
    let mut message = Message::new(GETTABLE, Verb::Change);
    message.bytes(&[family as u8, 0, 0, 0]);
    message.text(TABLE_NAME, name);
    match Socket::open(Some(NETFILTER))?.ask(vec![("find", message)]) {
        Ok(()) => Ok(true),
        Err(refused) if refused.error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(refused) => Err(refused.error),
    }
}

/// The chains of all families that see packets.
pub fn base_chains() -> io::Result<Vec<BaseChain>> {
    let mut message = Message::new(GETCHAIN, Verb::Dump);
    message.bytes(&[0; 4]);
    let mut chains = vec![];
    Socket::open(Some(NETFILTER))?.dump(message, |kind, body| {
        if kind == NEWCHAIN {
            chains.extend(parse_chain(body));
        }
    })?;
    Ok(chains)
}

/// How many rules a table has; 0 where there is no such table.
pub fn count_rules(family: Family, table: &str) -> io::Result<usize> {
    let mut message = Message::new(GETRULE, Verb::Dump);
    message.bytes(&[family as u8, 0, 0, 0]);
    message.text(RULE_TABLE, table);
    let mut count = 0;
    Socket::open(Some(NETFILTER))?.dump(message, |kind, body| {
        // An older kernel tells of all tables.
        count += usize::from(kind == NEWRULE && is_of(body, family, table));
    })?;
    Ok(count)
}

/// Hears of changes of tables, chains and rules, of this network namespace.
pub struct Monitor(OwnedFd);

impl Monitor {
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
        bind(&socket, &SocketAddrNetlink::new(0, CHANGES))?;
        Ok(Self(socket))
    }

    /// Waits for a change; false: there was none for so long. Changes that follow within `settle` are part of it, since a firewall that
    /// is reloaded makes hundreds.
    pub fn wait(&self, timeout: Option<Duration>, settle: Duration) -> io::Result<bool> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if !self.readable(left)? {
                return Ok(false);
            }
            if self.take()? {
                break;
            }
        }
        // It ends even where changes do not.
        let enough = Instant::now() + 20 * settle;
        while Instant::now() < enough && self.readable(Some(settle))? {
            self.take()?;
        }
        Ok(true)
    }

    fn readable(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = timeout.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether what has come is a change of more than elements.
    fn take(&self) -> io::Result<bool> {
        let mut buffer = vec![0; 64 << 10];
        match recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((length, _)) => Ok(is_change(&buffer[..length])),
            // There was more than the socket could hold.
            Err(Errno::NOBUFS) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

fn is_change(datagram: &[u8]) -> bool {
    answers(datagram).any(|answer| match answer.said {
        // Tables, chains and rules come first in the list.
        Said::Tells(kind, _) => (NEWTABLE..=DELRULE).contains(&kind),
        Said::Verdict(_) | Said::Done(_) => false,
    })
}

/// nfgenmsg: family, version, and in a bracket whose transaction it is, in network order.
fn bracket(kind: u16) -> Message {
    let mut message = Message::new(kind, Verb::Bracket);
    message.bytes(&[0, 0]);
    message.bytes(&(SUBSYSTEM >> 8).to_be_bytes());
    message
}

fn elements(kind: u16, verb: Verb, set: Set<'_>, key: &Key) -> Message {
    let mut message = Message::new(kind, verb);
    message.bytes(&[set.family as u8, 0, 0, 0]);
    message.text(ELEMENTS_TABLE, set.table);
    message.text(ELEMENTS_SET, set.name);
    message.nested(ELEMENTS, |list| {
        list.nested(LIST_ELEMENT, |element| {
            element.nested(ELEMENT_KEY, |data| data.attribute(DATA_VALUE, &key.0));
        });
    });
    message
}

fn is_of(rule: &[u8], family: Family, table: &str) -> bool {
    let named = || attribute(rule.get(4..)?, RULE_TABLE).map(text);
    rule.first() == Some(&(family as u8)) && named().is_some_and(|name| name == table)
}

/// None: it sees no packets by itself, or is no chain.
fn parse_chain(body: &[u8]) -> Option<BaseChain> {
    let rest = body.get(4..)?;
    attribute(rest, CHAIN_HOOK)?;
    Some(BaseChain {
        family: *body.first()?,
        table: text(attribute(rest, CHAIN_TABLE)?),
        name: text(attribute(rest, CHAIN_NAME)?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_padded_as_nft_pads_it() {
        let key = Key::port("bgr000000000001", Mac([6, 0xba, 172, 16, 0, 2]), Ipv4Addr::new(172, 16, 0, 2));
        assert_eq!(key.0.len(), 28);
        assert_eq!(&key.0[..16], b"bgr000000000001\0");
        assert_eq!(key.0[16..], [6, 0xba, 172, 16, 0, 2, 0, 0, 172, 16, 0, 2]);
    }

    #[test]
    fn elements_that_come_and_go_are_no_change() {
        let message = |kind| Message::new(kind, Verb::Change).finish(0);
        assert!(is_change(&message(NEWTABLE)));
        assert!(is_change(&message(NEWCHAIN)));
        assert!(is_change(&[message(NEWSETELEM), message(DELRULE)].concat()));
        assert!(!is_change(&message(NEWSETELEM)));
        assert!(!is_change(&message(DELSETELEM)));
        assert!(!is_change(b"short"));
    }

    proptest! {
        #[test]
        fn whatever_the_kernel_says_of_chains_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            is_change(&bytes);
            is_of(&bytes, Family::Inet, "banger");
            prop_assert!(parse_chain(&bytes).is_none_or(|chain| chain.name.len() <= 3 * bytes.len()));
        }
    }
}
