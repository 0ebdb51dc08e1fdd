//! The zone: names of VMs, and of addresses on the bridge, as they are at this moment. Pure.
//!
//! `dev.vm` has the address of VM dev; `vm` itself has the bridge's, where banger answers. What begins with anything else, such as
//! `a.dev.vm`, does not exist, nor does `localhost.vm`, since no VM may be called so. An address on the bridge's network has the name of
//! its VM, the bridge's own has the suffix.
//!
//! Whatever lies in the zone is answered here and goes to nobody else, so that names of VMs never leave the host.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::dns::query::Query;
use crate::dns::question::{self, CLASS_IN, LONGEST_NAME, Unread, flag, kind};
use crate::dns::reply::{self, Rcode, Reply};
use crate::network::reverse;
use crate::network::subnet::Subnet;
use crate::network::suffix::Suffix;
use crate::vm::name::VmName;

const ARPA: &[u8] = b"\x07in-addr\x04arpa\x00";

/// All that is known.
#[derive(Debug, Clone)]
pub struct Zone {
    /// The suffix on the wire.
    apex: Vec<u8>,
    subnet: Option<Subnet>,
    hosts: HashMap<Box<[u8]>, Ipv4Addr>,
    /// To the VM's label, with its length.
    names: HashMap<Ipv4Addr, Box<[u8]>>,
    /// Of SOA: it grows with every change.
    serial: u32,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A program on this machine: it is told of the zone alone, since it has resolvers of its own, and they may be asking.
    Host,
    /// A guest: what is not in the zone is asked for it.
    Guest,
}

/// What becomes of a message.
#[derive(Debug)]
pub enum Verdict {
    /// The reply has been written.
    Reply,
    Silence,
    /// Upstream servers know.
    Forward(Query),
}

/// What there is at a name of ours, and where in the name its zone's begins.
#[derive(Debug, PartialEq, Eq)]
struct Place<'z> {
    zone: usize,
    node: Node<'z>,
}

#[derive(Debug, PartialEq, Eq)]
enum Node<'z> {
    /// The zone's own name; the forward one has the bridge's address.
    Apex(Option<Ipv4Addr>),
    Host(Ipv4Addr),
    /// An address, and the label that is before the suffix in its name.
    Pointer(&'z [u8]),
    /// Nothing, but there are names below.
    Between,
    Missing,
}

impl Zone {
    pub fn new(suffix: &Suffix) -> Self {
        let mut apex = vec![];
        for label in suffix.as_str().split('.') {
            apex.extend(labelled(label.as_bytes()));
        }
        apex.push(0);
        Self { apex, subnet: None, hosts: HashMap::new(), names: HashMap::new(), serial: 1 }
    }

    /// From now on the bridge has this network.
    pub fn set_subnet(&mut self, subnet: Subnet) {
        self.subnet = Some(subnet);
        self.serial = self.serial.wrapping_add(1);
    }

    pub fn insert(&mut self, name: &VmName, address: Ipv4Addr) {
        self.remove(name);
        self.hosts.insert(name.as_str().as_bytes().into(), address);
        self.names.insert(address, labelled(name.as_str().as_bytes()).into());
    }

    pub fn remove(&mut self, name: &VmName) {
        self.serial = self.serial.wrapping_add(1);
        if let Some(address) = self.hosts.remove(name.as_str().as_bytes()) {
            // By now the address may have another VM's name.
            let label = labelled(name.as_str().as_bytes());
            if self.names.get(&address).is_some_and(|n| **n == *label) {
                self.names.remove(&address);
            }
        }
    }

    pub fn address(&self, name: &VmName) -> Option<Ipv4Addr> {
        self.hosts.get(name.as_str().as_bytes()).copied()
    }

    /// Judges `message`, and where there is something to reply writes it in place of what is in `out`.
    pub fn answer(&self, asker: Asker, message: &[u8], out: &mut Vec<u8>) -> Verdict {
        let question = match question::read(message) {
            Ok(question) => question,
            Err(Unread::Silence) => return Verdict::Silence,
            Err(Unread::Refused { id, flags, code }) => {
                reply::bare(out, id, flags, code);
                return Verdict::Reply;
            }
        };
        let recursion = match asker {
            Asker::Host => 0,
            Asker::Guest => flag::RECURSION_AVAILABLE,
        };
        let mut refuse = |code| {
            Reply::to(out, &question, code, recursion).end();
            Verdict::Reply
        };
        if question.edns.is_some_and(|edns| edns.version != 0) {
            return refuse(Rcode::BadVersion);
        }
        match question.kind {
            kind::OPT => return refuse(Rcode::FormatError),
            kind::TKEY | kind::TSIG => return refuse(Rcode::NotImplemented),
            kind::IXFR | kind::AXFR => return refuse(Rcode::Refused),
            _ if question.class != CLASS_IN => return refuse(Rcode::Refused),
            _ => {}
        }
        match self.place(question.name()) {
            Some(place) => {
                let code = if place.node == Node::Missing { Rcode::NoName } else { Rcode::NoError };
                let reply = Reply::to(out, &question, code, recursion | flag::AUTHORITATIVE);
                self.say(&place, question.kind, reply);
                Verdict::Reply
            }
            None if asker == Asker::Guest && is_localhost(question.name()) => {
                let mut reply = Reply::to(out, &question, Rcode::NoError, recursion);
                match question.kind {
                    kind::A => reply.address(Ipv4Addr::LOCALHOST),
                    kind::AAAA => reply.address6(Ipv6Addr::LOCALHOST),
                    _ => {}
                }
                reply.end();
                Verdict::Reply
            }
            None if asker == Asker::Guest => Verdict::Forward(Query::of(&question)),
            None => refuse(Rcode::Refused),
        }
    }

    /// Writes what there is of `kind` at `place`. ANY is told everything, which is not much (RFC 8482).
    fn say(&self, place: &Place<'_>, kind: u16, mut reply: Reply<'_>) {
        let wants = |k| kind == k || kind == kind::ANY;
        let mut said = false;
        match place.node {
            Node::Host(address) | Node::Apex(Some(address)) if wants(kind::A) => {
                reply.address(address);
                said = true;
            }
            Node::Pointer(label) if wants(kind::PTR) => {
                reply.name(kind::PTR, label, &self.apex);
                said = true;
            }
            _ => {}
        }
        if matches!(place.node, Node::Apex(_)) {
            if wants(kind::SOA) {
                reply.soa(self.serial);
                said = true;
            }
            if wants(kind::NS) {
                reply.ns();
                said = true;
            }
        }
        if !said {
            reply.nothing(place.zone, self.serial);
        }
        reply.end();
    }

    /// Where `name`, in lower case on the wire, lies; None: outside of the zone and its reverse.
    fn place(&self, name: &[u8]) -> Option<Place<'_>> {
        let Some(zone) = name.len().checked_sub(self.apex.len()).filter(|at| name[*at..] == self.apex) else {
            return self.reverse_place(name);
        };
        let gateway = self.subnet.map(Subnet::gateway);
        let node = match name.get(..zone)? {
            [] => Node::Apex(gateway),
            [length, label @ ..] if usize::from(*length) == label.len() => {
                self.hosts.get(label).map_or(Node::Missing, |address| Node::Host(*address))
            }
            // Deeper, if the suffix begins where a label does; `x\3foo\2vm` may be one label.
            _ if labels(name).any(|at| at == zone) => Node::Missing,
            _ => return None,
        };
        Some(Place { zone, node })
    }

    fn reverse_place(&self, name: &[u8]) -> Option<Place<'_>> {
        let subnet = self.subnet?;
        let end = name.len().checked_sub(ARPA.len()).filter(|at| name[*at..] == *ARPA)?;
        let mut starts = [0; LONGEST_NAME];
        let mut count = 0;
        for at in labels(name).take_while(|at| *at < end) {
            starts[count] = at;
            count += 1;
        }
        if !labels(name).any(|at| at == end) {
            return None;
        }
        // The bytes of the address, from its first on: the labels from the last one back.
        let mut address = [0; 4];
        let mut bytes = 0;
        for at in starts[..count].iter().rev().take(4) {
            let length = usize::from(name[*at]);
            let Some(byte) = byte(&name[at + 1..at + 1 + length]) else { break };
            address[bytes] = byte;
            bytes += 1;
        }
        let of_zone = reverse::bytes_of_zone(subnet);
        // Of a network that is less than a zone only whole addresses are ours.
        let needed = if subnet.prefix() > 24 { 4 } else { of_zone };
        let address = Ipv4Addr::from(address);
        if bytes < needed || !subnet.contains(address) {
            return None;
        }
        let zone = starts[count - of_zone];
        let node = match (count, bytes) {
            (_, 4) if count == 4 && address == subnet.gateway() => Node::Pointer(&[]),
            (_, 4) if count == 4 => {
                self.names.get(&address).map_or(Node::Missing, |label| Node::Pointer(label))
            }
            _ if count == of_zone => Node::Apex(None),
            _ if count == bytes => Node::Between,
            _ => Node::Missing,
        };
        Some(Place { zone, node })
    }
}

/// Whether it means whoever asks: such names go to no other server (RFC 6761, 6.3).
fn is_localhost(name: &[u8]) -> bool {
    const LOCALHOST: &[u8] = b"\x09localhost\x00";
    name.ends_with(LOCALHOST) && labels(name).any(|at| at + LOCALHOST.len() == name.len())
}

/// Where each label of `name` begins, the root's included.
fn labels(name: &[u8]) -> impl Iterator<Item = usize> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let at = next?;
        let length = usize::from(*name.get(at)?);
        next = (length != 0).then_some(at + 1 + length);
        Some(at)
    })
}

fn labelled(label: &[u8]) -> Vec<u8> {
    // A label of a name or a suffix has 63 bytes at most.
    let mut bytes = vec![label.len() as u8];
    bytes.extend(label);
    bytes
}

/// A byte in decimal, as names of addresses have it: without zeros before it.
fn byte(text: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse().ok().filter(|byte: &u8| byte.to_string() == text)
}

#[cfg(test)]
mod tests;
