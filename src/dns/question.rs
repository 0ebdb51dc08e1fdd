//! Reading a question: the header, one name with type and class, and perhaps EDNS (RFC 1035, 4.1; RFC 6891).
//!
//! The usual shape, one question and at most an OPT record, is read here without an allocation; every other one is judged by
//! simple-dns. The properties below and tests/fuzz hold the two to the same words.

use simple_dns::{Packet, TYPE};

use crate::dns::answer::Record;
use crate::dns::reply::Rcode;

pub const HEADER: usize = 12;
/// The longest name, in bytes on the wire (RFC 1035, 2.3.4).
pub const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: u8 = 63;
/// The shortest record: the root's name, type, class, TTL, and an empty body.
const SHORTEST_RECORD: usize = 11;

pub const CLASS_IN: u16 = 1;

pub mod flag {
    pub const RESPONSE: u16 = 0x8000;
    pub const OPCODE: u16 = 0x7800;
    pub const AUTHORITATIVE: u16 = 0x0400;
    pub const TRUNCATED: u16 = 0x0200;
    pub const RECURSION_DESIRED: u16 = 0x0100;
    pub const RECURSION_AVAILABLE: u16 = 0x0080;
    /// Reserved, and to be ignored (RFC 1035, 4.1.1).
    pub const Z: u16 = 0x0040;
    pub const AUTHENTIC_DATA: u16 = 0x0020;
    pub const CHECKING_DISABLED: u16 = 0x0010;
}

pub mod kind {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const MX: u16 = 15;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const SVCB: u16 = 64;
    pub const HTTPS: u16 = 65;
    pub const TKEY: u16 = 249;
    pub const TSIG: u16 = 250;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
}

/// One question, as asked and as it compares.
#[derive(Debug, Clone)]
pub struct Question<'m> {
    pub id: u16,
    pub flags: u16,
    /// Name, type and class, as they came.
    pub asked: &'m [u8],
    pub kind: u16,
    pub class: u16,
    pub edns: Option<Edns>,
    lower: [u8; LONGEST_NAME],
    name_len: usize,
}

/// What an OPT record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// The longest datagram that the asker takes, in bytes.
    pub size: u16,
    pub version: u8,
    /// It wants DNSSEC's records (RFC 3225).
    pub dnssec: bool,
}

/// Why there is no question to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// Nothing may be said: it is an answer, which would make a loop, or has no header to answer to.
    Silence,
    /// It is answered by a header with this code.
    Refused { id: u16, flags: u16, code: Rcode },
}

impl Question<'_> {
    /// The name on the wire in lower case, the root's zero included.
    pub fn name(&self) -> &[u8] {
        &self.lower[..self.name_len]
    }
}

/// Reads `message` as a question.
///
/// # Errors
/// [`Unread`], where it is none that has an answer.
pub fn read(message: &[u8]) -> Result<Question<'_>, Unread> {
    let header: &[u8; HEADER] = message.first_chunk().ok_or(Unread::Silence)?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (id, flags) = (word(0), word(2));
    if flags & flag::RESPONSE != 0 {
        return Err(Unread::Silence);
    }
    let refused = |code| Unread::Refused { id, flags, code };
    if flags & flag::OPCODE != 0 {
        return Err(refused(Rcode::NotImplemented));
    }
    let malformed = refused(Rcode::FormatError);
    // More than one has no meaning (RFC 9619), and none asks nothing.
    if word(4) != 1 {
        return Err(malformed);
    }
    let (lower, name_len) = name(&message[HEADER..]).ok_or(malformed)?;
    let end = HEADER + name_len + 4;
    let [k0, k1, c0, c1] = *message.get(end - 4..end).and_then(<[u8]>::first_chunk).ok_or(malformed)?;
    let edns = match (word(6), word(8), word(10)) {
        (0, 0, 0) => None,
        (0, 0, 1) if message[end..].starts_with(&[0, 0, kind::OPT as u8]) => {
            Some(opt(&message[end..]).ok_or(malformed)?)
        }
        counts => by_library(message, end, counts).ok_or(malformed)?,
    };
    Ok(Question {
        id,
        flags,
        asked: &message[HEADER..end],
        kind: u16::from_be_bytes([k0, k1]),
        class: u16::from_be_bytes([c0, c1]),
        edns,
        lower,
        name_len,
    })
}

/// The name at the beginning of `bytes` in lower case, and its length. The first name of a message has nothing to point to.
fn name(bytes: &[u8]) -> Option<([u8; LONGEST_NAME], usize)> {
    let mut at = 0;
    loop {
        let length = *bytes.get(at)?;
        at += 1;
        if length == 0 {
            break;
        }
        if length > LONGEST_LABEL {
            return None;
        }
        at += usize::from(length);
        if at >= LONGEST_NAME {
            return None;
        }
    }
    let mut lower = [0; LONGEST_NAME];
    // A length is below the letters, so that it stays as it is.
    for (to, from) in lower.iter_mut().zip(&bytes[..at]) {
        *to = from.to_ascii_lowercase();
    }
    Some((lower, at))
}

/// Reads the OPT record at the beginning of `record`: the root's name, the type, then size, version and flags in place of class
/// and TTL (RFC 6891, 6.1.3), and options, which nobody here has a use for.
fn opt(record: &[u8]) -> Option<Edns> {
    let [_, _, _, s0, s1, _, version, f0, _, l0, l1] = *record.first_chunk::<SHORTEST_RECORD>()?;
    let body = record.get(SHORTEST_RECORD..SHORTEST_RECORD + usize::from(u16::from_be_bytes([l0, l1])))?;
    let mut rest = body;
    while !rest.is_empty() {
        let [_, _, n0, n1] = *rest.first_chunk()?;
        rest = rest.get(4 + usize::from(u16::from_be_bytes([n0, n1]))..)?;
    }
    Some(Edns { size: u16::from_be_bytes([s0, s1]), version, dnssec: f0 & 0x80 != 0 })
}

/// Judges a message of another shape, its question ending at `end`. None: it is malformed.
fn by_library(message: &[u8], end: usize, counts: (u16, u16, u16)) -> Option<Option<Edns>> {
    let records = usize::from(counts.0) + usize::from(counts.1) + usize::from(counts.2);
    // simple-dns makes room for as many as the header says, before it looks for them.
    if records * SHORTEST_RECORD > message.len() - end {
        return None;
    }
    let mut known = message.to_vec();
    // It knows only some types and classes of questions, and refuses a reserved flag; this one has been read already.
    known[3] &= !(flag::Z as u8);
    known[end - 4..end].copy_from_slice(&[0, kind::A as u8, 0, CLASS_IN as u8]);
    let packet = Packet::parse(&known).ok()?;
    // It takes the first OPT record out of the last section; a second one, or one elsewhere, is an error (RFC 6891, 6.1.1).
    let sections = [&packet.answers, &packet.name_servers, &packet.additional_records];
    if sections.iter().any(|s| s.iter().any(|r| r.rdata.type_code() == TYPE::OPT)) {
        return None;
    }
    match packet.opt() {
        None => Some(None),
        // Of what it says the library keeps too little: not its name, and the version from among the flags (as of 0.13.0).
        Some(_) => Some(Some(opt_among(&known, end, records)?)),
    }
}

/// What the OPT record among the `records` records from `at` on says; None where its name is not the root's.
fn opt_among(message: &[u8], mut at: usize, records: usize) -> Option<Edns> {
    for _ in 0..records {
        let record = Record::read(message, at)?;
        if record.kind == kind::OPT {
            return opt(&message[at..]).filter(|_| message[at] == 0);
        }
        at = record.end;
    }
    None
}

#[cfg(test)]
mod tests;
