//! Writing replies: a header, the question as it came, records, and EDNS where it was asked with it (RFC 1035, 4.1; RFC 6891).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::dns::question::{CLASS_IN, Edns, HEADER, Question, flag, kind};

/// The largest datagram that crosses every link whole (DNS flag day 2020); as much is offered, and no more is sent over UDP.
pub const UDP_MOST: usize = 1232;
/// What everybody takes, whatever it says (RFC 1035, 2.3.4; RFC 6891, 6.2.3).
const UDP_LEAST: usize = 512;
/// Of addresses, in seconds: a name that has moved to another VM is wrong no longer than this.
const TTL: u32 = 5;
/// Of SOA, and so of what does not exist (RFC 2308, 5): a VM is found as soon as it is there, whoever has looked before.
const TTL_OF_NOTHING: u32 = 0;
/// Who answers for the zone: nobody by mail (RFC 6303, 3).
const NOBODY: &[u8] = b"\x06nobody\x07invalid\x00";
/// Where the question's name is in every reply, as a pointer (RFC 1035, 4.1.4).
const ASKED_NAME: [u8; 2] = [0xc0, HEADER as u8];
const DNSSEC_OK: u8 = 0x80;
/// An EDNS option that says why (RFC 8914), and its code 15: blocked.
const EXTENDED_ERROR: u16 = 15;
const BLOCKED: u16 = 15;

/// How it went (RFC 1035, 4.1.1; RFC 6891, 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rcode {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NoName = 3,
    NotImplemented = 4,
    Refused = 5,
    BadVersion = 16,
}

/// How many bytes may go to an asker over UDP.
pub fn udp_limit(edns: Option<Edns>) -> usize {
    edns.map_or(UDP_LEAST, |edns| usize::from(edns.size).clamp(UDP_LEAST, UDP_MOST))
}

/// Replaces what is in `out` by a header without a question, for what could not be read.
pub fn bare(out: &mut Vec<u8>, id: u16, flags: u16, code: Rcode) {
    out.clear();
    out.extend(id.to_be_bytes());
    let kept = flags & (flag::OPCODE | flag::RECURSION_DESIRED | flag::CHECKING_DISABLED);
    out.extend((flag::RESPONSE | kept | (code as u16 & 0xf)).to_be_bytes());
    out.extend([0; 8]);
}

/// A reply that is being written.
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
    code: Rcode,
    edns: Option<Edns>,
}

impl<'a> Reply<'a> {
    /// Begins the reply to `question` in place of what is in `out`; `extra` are flags.
    pub fn to(out: &'a mut Vec<u8>, question: &Question<'_>, code: Rcode, extra: u16) -> Self {
        Self::begin(out, question.id, question.flags, question.asked, question.edns, code, extra)
    }

    pub fn begin(
        out: &'a mut Vec<u8>,
        id: u16,
        flags: u16,
        asked: &[u8],
        edns: Option<Edns>,
        code: Rcode,
        extra: u16,
    ) -> Self {
        bare(out, id, flags | extra, code);
        let flags = u16::from_be_bytes([out[2], out[3]]) | extra;
        out[2..4].copy_from_slice(&flags.to_be_bytes());
        out[5] = 1;
        out.extend(asked);
        Self { out, code, edns }
    }

    /// Adds an A record of the asked name.
    pub fn address(&mut self, address: Ipv4Addr) {
        self.answer(kind::A, &address.octets());
    }

    /// Adds an AAAA record of the asked name.
    pub fn address6(&mut self, address: Ipv6Addr) {
        self.answer(kind::AAAA, &address.octets());
    }

    /// Adds a record of the asked name whose body is another name, given in two parts.
    pub fn name(&mut self, kind: u16, first: &[u8], rest: &[u8]) {
        self.record(Section::Answer, &ASKED_NAME, kind, TTL, |out| {
            out.extend(first);
            out.extend(rest);
        });
    }

    fn answer(&mut self, kind: u16, body: &[u8]) {
        self.record(Section::Answer, &ASKED_NAME, kind, TTL, |out| out.extend(body));
    }

    /// Adds NS of the zone that is the asked name: itself (RFC 6303, 3).
    pub fn ns(&mut self) {
        self.answer(kind::NS, &ASKED_NAME);
    }

    /// Adds SOA of the zone that is the asked name.
    pub fn soa(&mut self, serial: u32) {
        self.soa_record(Section::Answer, 0, serial);
    }

    /// Adds SOA of the zone whose name is the asked one from byte `at` on: there is nothing else to say (RFC 2308).
    pub fn nothing(&mut self, at: usize, serial: u32) {
        self.soa_record(Section::Authority, at, serial);
    }

    fn soa_record(&mut self, section: Section, at: usize, serial: u32) {
        // The question's name begins behind the header and has 255 bytes at most, which a pointer reaches.
        let zone = (0xc000 | (HEADER + at) as u16).to_be_bytes();
        self.record(section, &zone, kind::SOA, TTL_OF_NOTHING, |out| {
            out.extend(zone);
            out.extend(NOBODY);
            // Refresh, retry and expire are for secondary servers; there are none.
            for number in [serial, 3600, 1200, 604_800, TTL_OF_NOTHING] {
                out.extend(number.to_be_bytes());
            }
        });
    }

    fn record(
        &mut self,
        section: Section,
        owner: &[u8],
        kind: u16,
        ttl: u32,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        self.out.extend(owner);
        self.out.extend(kind.to_be_bytes());
        self.out.extend(CLASS_IN.to_be_bytes());
        self.out.extend(ttl.to_be_bytes());
        let at = self.out.len();
        self.out.extend([0, 0]);
        body(self.out);
        let length = (self.out.len() - at - 2) as u16;
        self.out[at..at + 2].copy_from_slice(&length.to_be_bytes());
        self.count(section);
    }

    /// Of no section there are ever more than a handful.
    fn count(&mut self, section: Section) {
        self.out[section as usize + 1] += 1;
    }

    /// Ends the reply.
    pub fn end(self) {
        self.end_with(|_| {});
    }

    /// Ends the reply, and tells who can read it that something was kept back.
    pub fn end_blocked(self, why: &str) {
        self.end_with(|out| {
            out.extend(EXTENDED_ERROR.to_be_bytes());
            out.extend((2 + why.len() as u16).to_be_bytes());
            out.extend(BLOCKED.to_be_bytes());
            out.extend(why.as_bytes());
        });
    }

    fn end_with(mut self, options: impl FnOnce(&mut Vec<u8>)) {
        let Some(edns) = self.edns else { return };
        self.out.extend([0, 0, kind::OPT as u8]);
        self.out.extend((UDP_MOST as u16).to_be_bytes());
        let dnssec = if edns.dnssec { DNSSEC_OK } else { 0 };
        self.out.extend([(self.code as u16 >> 4) as u8, 0, dnssec, 0]);
        let at = self.out.len();
        self.out.extend([0, 0]);
        options(self.out);
        let length = (self.out.len() - at - 2) as u16;
        self.out[at..at + 2].copy_from_slice(&length.to_be_bytes());
        self.count(Section::Additional);
    }
}

/// Where a section's count is in the header.
#[derive(Clone, Copy)]
enum Section {
    Answer = 6,
    Authority = 8,
    Additional = 10,
}
