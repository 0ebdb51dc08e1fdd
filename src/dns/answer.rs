//! What an upstream server sent: whether it answers the question, and may be told to a guest.
//!
//! It passes through as it came, so that types which nobody here knows do too. simple-dns cannot read those (it refuses the types of
//! questions that it does not know, and classes of records), so that the frames of records, which are all that matters, are read
//! here; the property below and tests/fuzz compare with it whatever it can read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dns::query::Query;
use crate::dns::question::{HEADER, LONGEST_NAME, flag, kind};
use crate::dns::rebind::Forbidden;

/// Keys of SVCB that hold addresses (RFC 9460, 7.3).
const HINT4: u16 = 4;
const HINT6: u16 = 6;

/// What a server says to a query.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// For the asker, under its own id.
    Answer(Vec<u8>),
    /// The server cannot or will not say; the next one may. For the asker, if none does.
    Trouble(Vec<u8>),
    /// There is more than fits.
    CutShort,
    /// It names this address, which no outsider may.
    Rebinds(IpAddr),
    /// It is no message.
    Malformed,
}

/// What `message`, from the server that was sent `query` under `id`, says to it. None: it is no answer to it, but perhaps a forged one,
/// and the true one may follow.
pub fn hear(query: &Query, id: u16, message: &[u8], forbidden: Forbidden) -> Option<Heard> {
    let header: &[u8; HEADER] = message.first_chunk()?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let flags = word(2);
    if word(0) != id || flags & flag::RESPONSE == 0 || flags & flag::OPCODE != 0 {
        return None;
    }
    let code = flags & 0xf;
    // A server that cannot read a question may leave it out.
    if word(4) == 0 && code != 0 {
        return Some(Heard::Trouble(query.failed()));
    }
    let end = HEADER + query.asked().len();
    if word(4) != 1 || !same_question(message.get(HEADER..end)?, query.asked()) {
        return None;
    }
    if flags & flag::TRUNCATED != 0 {
        return Some(Heard::CutShort);
    }
    let records = u32::from(word(6)) + u32::from(word(8)) + u32::from(word(10));
    let mut at = end;
    for _ in 0..records {
        let Some(record) = Record::read(message, at) else { return Some(Heard::Malformed) };
        let Some(addresses) = record.addresses() else { return Some(Heard::Malformed) };
        if let Some(address) = addresses.into_iter().find(|address| forbidden.has(*address)) {
            return Some(Heard::Rebinds(address));
        }
        at = record.end;
    }
    let mut answer = message[..at].to_vec();
    answer[..2].copy_from_slice(&query.id().to_be_bytes());
    let flags = (flags | flag::RECURSION_AVAILABLE) & !flag::Z;
    answer[2..4].copy_from_slice(&flags.to_be_bytes());
    // In the letters that it was asked in: the asker may tell forged answers by them.
    answer[HEADER..end].copy_from_slice(query.asked());
    const TROUBLE: [u16; 3] = [2, 4, 5];
    Some(if TROUBLE.contains(&code) { Heard::Trouble(answer) } else { Heard::Answer(answer) })
}

/// Letters of a name mean the same in both cases; type and class are numbers.
fn same_question(a: &[u8], b: &[u8]) -> bool {
    let split = b.len().saturating_sub(4);
    a.len() == b.len() && a[..split].eq_ignore_ascii_case(&b[..split]) && a[split..] == b[split..]
}

/// One record in its frame (RFC 1035, 4.1.3).
pub struct Record<'m> {
    message: &'m [u8],
    pub kind: u16,
    /// Where its body begins.
    begin: usize,
    /// Where the next one begins.
    pub end: usize,
}

impl<'m> Record<'m> {
    /// The record at `at` of `message`.
    pub fn read(message: &'m [u8], at: usize) -> Option<Self> {
        let at = after_name(message, at)?;
        let [k0, k1, _, _, _, _, _, _, l0, l1] = *message.get(at..)?.first_chunk()?;
        let begin = at + 10;
        let end = begin + usize::from(u16::from_be_bytes([l0, l1]));
        (end <= message.len()).then_some(Self { message, kind: u16::from_be_bytes([k0, k1]), begin, end })
    }

    fn body(&self) -> &'m [u8] {
        &self.message[self.begin..self.end]
    }

    /// The addresses that it gives to its name, whatever its class; None where its body is none of its type.
    fn addresses(&self) -> Option<Vec<IpAddr>> {
        let body = self.body();
        match self.kind {
            // An empty one gives nothing (RFC 2136, 2.4.1).
            _ if body.is_empty() => Some(vec![]),
            kind::A if body.len() == 4 => four(body),
            kind::AAAA if body.len() == 16 => sixteen(body),
            kind::A | kind::AAAA => None,
            kind::SVCB | kind::HTTPS => hints(body),
            kind::NS | kind::CNAME | kind::PTR => self.names(0, 1, 0),
            kind::SOA => self.names(0, 2, 20),
            kind::MX => self.names(2, 1, 0),
            kind::SRV => self.names(6, 1, 0),
            _ => Some(vec![]),
        }
    }

    /// No addresses; None unless the body is so many bytes, names and bytes. Not every program that asks is as careful with them.
    fn names(&self, before: usize, names: usize, after: usize) -> Option<Vec<IpAddr>> {
        let end = (0..names).try_fold(self.begin + before, |at, _| after_name(self.message, at))?;
        (end + after == self.end).then_some(vec![])
    }
}

/// Where the name at `at` ends: with the root, or a pointer (RFC 1035, 4.1.4). None for one that is too long, or points to anything but
/// what is before it, so that it might have no end.
fn after_name(message: &[u8], at: usize) -> Option<usize> {
    let (mut at, mut before, mut length, mut end) = (at, at, 1, None);
    loop {
        match *message.get(at)? {
            0 => return Some(end.unwrap_or(at + 1)),
            label if label < 64 => {
                length += 1 + usize::from(label);
                if length > LONGEST_NAME {
                    return None;
                }
                at += 1 + usize::from(label);
            }
            high if high >= 0xc0 => {
                let to = usize::from(u16::from_be_bytes([high & 0x3f, *message.get(at + 1)?]));
                if to >= before {
                    return None;
                }
                end.get_or_insert(at + 2);
                (at, before) = (to, to);
            }
            _ => return None,
        }
    }
}

fn four(bytes: &[u8]) -> Option<Vec<IpAddr>> {
    let (addresses, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| addresses.iter().map(|octets| Ipv4Addr::from(*octets).into()).collect())
}

fn sixteen(bytes: &[u8]) -> Option<Vec<IpAddr>> {
    let (addresses, rest) = bytes.as_chunks::<16>();
    rest.is_empty().then(|| addresses.iter().map(|octets| Ipv6Addr::from(*octets).into()).collect())
}

/// The addresses that a service is said to have: priority, target, and parameters, each a key, a length and a value (RFC 9460, 2.2).
fn hints(body: &[u8]) -> Option<Vec<IpAddr>> {
    let mut rest = body.get(after_name(body, 2)?..)?;
    let mut found = vec![];
    while !rest.is_empty() {
        let [k0, k1, l0, l1] = *rest.first_chunk()?;
        let end = 4 + usize::from(u16::from_be_bytes([l0, l1]));
        let value = rest.get(4..end)?;
        match u16::from_be_bytes([k0, k1]) {
            HINT4 => found.extend(four(value)?),
            HINT6 => found.extend(sixteen(value)?),
            _ => {}
        }
        rest = &rest[end..];
    }
    Some(found)
}

#[cfg(test)]
mod tests;
