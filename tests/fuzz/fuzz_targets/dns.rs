//! Any bytes, as a question to the DNS server and as the answer of an upstream server, against simple-dns.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use banger::dns::answer::{Heard, hear};
use banger::dns::names::Names;
use banger::dns::query::Query;
use banger::dns::question::{self, HEADER};
use banger::dns::rebind::Forbidden;
use banger::dns::zone::{Asker, Verdict};
use banger::network::subnet;
use simple_dns::rdata::RData;
use simple_dns::{OPCODE, Packet, PacketFlag};

const FORBIDDEN: Forbidden = Forbidden { bridge: subnet::DEFAULT };

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let names = Names::new(&"vm".parse().expect("a suffix"));
    names.set_subnet(subnet::DEFAULT);
    names.insert(&"dev".parse().expect("a name"), Ipv4Addr::new(172, 16, 0, 2));
    names
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    asked(bytes);
    heard(bytes);
});

fn asked(message: &[u8]) {
    let theirs = library(message);
    if let Ok(ours) = question::read(message) {
        if let Some((id, name, kind, class, size)) = theirs {
            assert_eq!((ours.id, ours.name(), ours.kind, ours.class), (id, &name[..], kind, class));
            assert_eq!(ours.edns.map(|edns| edns.size), size);
        }
    } else if let Some((_, name, ..)) = theirs {
        // The library follows pointers into the header, and takes an OPT wherever it is, whatever its name.
        let plain = message.get(HEADER..HEADER + name.len()).map(<[u8]>::to_ascii_lowercase).as_ref() == Some(&name);
        // And a record's name may lead into the question's type and class, which are not the sender's when the library reads it for us.
        let end = HEADER + name.len() + 4;
        let into_it = |two: &[u8]| {
            let to = usize::from(u16::from_be_bytes([two[0] & 0x3f, two[1]]));
            two[0] >= 0xc0 && to != HEADER && to < end
        };
        assert!(!plain || message.windows(2).any(|two| two == [0, 41] || into_it(two)));
    }
    for asker in [Asker::Host, Asker::Guest] {
        let mut reply = vec![];
        match NAMES.read().answer(asker, message, &mut reply) {
            Verdict::Reply => {
                assert!(reply.len() <= 512 && reply[..2] == message[..2] && reply[2] & 0x80 != 0);
                // Nobody answers an answer.
                let mut again = vec![];
                assert!(matches!(NAMES.read().answer(asker, &reply, &mut again), Verdict::Silence));
            }
            Verdict::Silence => {}
            Verdict::Forward(query) => {
                assert_eq!(asker, Asker::Guest);
                let out = query.message(7);
                let sent = question::read(&out).expect("what is passed on is a question");
                assert_eq!(sent.asked, query.asked());
                assert!(sent.name() != b"\x02vm\x00");
                for reply in [query.failed(), query.truncated(), query.blocked()] {
                    assert!(reply.len() <= query.udp_limit() && reply[..2] == message[..2]);
                }
            }
        }
    }
}

/// As an answer to a fixed question: the counts, then what follows the question. And as it is.
fn heard(bytes: &[u8]) {
    let asked = b"\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03wWw\x07example\x00\x00\x01\x00\x01";
    let query = Query::of(&question::read(asked).expect("a question"));
    let told = |message: &[u8]| {
        if let Some(Heard::Answer(told) | Heard::Trouble(told)) = hear(&query, 7, message, FORBIDDEN) {
            assert_eq!(told[..2], [0xab, 0xcd]);
            for address in addresses(&told) {
                assert!(!FORBIDDEN.has(address), "{address}");
            }
        }
    };
    told(bytes);
    if let [flags, answers, authority, additional, tail @ ..] = bytes {
        let mut message = query.message(7);
        message[2] |= 0x80;
        message[3] = *flags;
        [message[7], message[9], message[11]] = [*answers % 8, *authority % 8, *additional % 8];
        message.extend(tail);
        told(&message);
    }
}

type Read = (u16, Vec<u8>, u16, u16, Option<u16>);

fn library(message: &[u8]) -> Option<Read> {
    // It makes room for as many records as the header says.
    if message.len() < HEADER || message[6..12].iter().step_by(2).any(|high| *high != 0) {
        return None;
    }
    let packet = Packet::parse(message).ok()?;
    let [asked] = packet.questions.as_slice() else { return None };
    if packet.has_flags(PacketFlag::RESPONSE) || packet.opcode() != OPCODE::StandardQuery {
        return None;
    }
    let mut name = vec![];
    for label in asked.qname.as_bytes() {
        name.push(label.len() as u8);
        name.extend(label.to_ascii_lowercase());
    }
    name.push(0);
    let class = u16::from(asked.qclass) | if asked.unicast_response { 0x8000 } else { 0 };
    Some((packet.id(), name, u16::from(asked.qtype), class, packet.opt().map(|opt| opt.udp_packet_size)))
}

fn addresses(message: &[u8]) -> Vec<IpAddr> {
    let Ok(packet) = Packet::parse(message) else { return vec![] };
    let records = packet.answers.iter().chain(&packet.name_servers).chain(&packet.additional_records);
    records
        .filter_map(|record| match &record.rdata {
            RData::A(a) => Some(Ipv4Addr::from(a.address).into()),
            RData::AAAA(a) => Some(Ipv6Addr::from(a.address).into()),
            _ => None,
        })
        .collect()
}
