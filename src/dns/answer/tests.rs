use proptest::collection::vec;
use proptest::prelude::*;
use simple_dns::Packet;
use simple_dns::rdata::RData;

use super::*;
use crate::dns::question::{self, CLASS_IN};
use crate::network::subnet;

const FORBIDDEN: Forbidden = Forbidden { bridge: subnet::DEFAULT };
const NAME: &[u8] = b"\x03wWw\x07example\x00";

fn query(kind: u16) -> Query {
    let mut message = vec![0x11, 0x22, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(NAME);
    message.extend(kind.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    Query::of(&question::read(&message).expect("a question"))
}

/// An answer to `query` under the id 7, with so many records in its first section.
fn answer(query: &Query, records: &[Vec<u8>]) -> Vec<u8> {
    let mut message = query.message(7);
    message[2] |= 0x80;
    message[7] = records.len() as u8;
    message.extend(records.concat());
    message
}

fn record(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc0, 0x0c];
    record.extend(kind.to_be_bytes());
    record.extend([0, 1, 0, 0, 0, 60]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

#[test]
fn an_answer_goes_to_the_asker_under_its_own_id_in_its_own_letters() {
    let query = query(kind::A);
    let mut message = answer(&query, &[record(kind::A, &[192, 0, 2, 1])]);
    let end = HEADER + NAME.len();
    message[HEADER..end].make_ascii_lowercase();
    message.extend(b"something behind it");
    let Some(Heard::Answer(told)) = hear(&query, 7, &message, FORBIDDEN) else { panic!("an answer") };
    assert_eq!(told[..2], [0x11, 0x22]);
    assert_eq!(&told[HEADER..end], NAME);
    assert_eq!(told.len(), message.len() - "something behind it".len());
    assert_ne!(told[3] & flag::RECURSION_AVAILABLE as u8, 0);
}

#[test]
fn only_an_answer_to_the_question_is_one() {
    let query = query(kind::A);
    let good = answer(&query, &[]);
    assert!(hear(&query, 7, &good, FORBIDDEN).is_some());
    assert_eq!(hear(&query, 8, &good, FORBIDDEN), None, "another id");
    assert_eq!(hear(&query, 7, &query.message(7), FORBIDDEN), None, "a question");
    let type_at = HEADER + NAME.len() + 1;
    for (at, what) in
        [(13, "another name"), (type_at, "another type"), (type_at + 2, "another class"), (2, "an opcode")]
    {
        let mut other = good.clone();
        other[at] ^= 0x08;
        assert_eq!(hear(&query, 7, &other, FORBIDDEN), None, "{what}");
    }
    for length in 0..good.len() {
        assert_eq!(hear(&query, 7, &good[..length], FORBIDDEN), None, "cut to {length} bytes");
    }
}

#[test]
fn an_address_of_this_machine_is_told_in_no_disguise() {
    let hints = |key: u8, address: &[u8]| {
        [&[0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2', 0, key, 0, address.len() as u8], address].concat()
    };
    let mapped: std::net::Ipv6Addr = "::ffff:127.0.0.1".parse().expect("an address");
    for (kind_asked, records) in [
        (kind::A, vec![record(kind::A, &[127, 0, 0, 1])]),
        (kind::A, vec![record(kind::A, &[192, 0, 2, 1]), record(kind::A, &[172, 16, 0, 9])]),
        (kind::AAAA, vec![record(kind::AAAA, &mapped.octets())]),
        (kind::HTTPS, vec![record(kind::HTTPS, &hints(4, &[169, 254, 169, 254]))]),
        (kind::HTTPS, vec![record(kind::HTTPS, &hints(6, &std::net::Ipv6Addr::LOCALHOST.octets()))]),
        (16, vec![record(16, b"\x02hi"), record(kind::A, &[0, 0, 0, 0])]),
    ] {
        let query = query(kind_asked);
        let message = answer(&query, &records);
        assert!(matches!(hear(&query, 7, &message, FORBIDDEN), Some(Heard::Rebinds(_))), "{records:?}");
        // It is the same in the other sections.
        for count_at in [9, 11] {
            let mut moved = message.clone();
            moved.swap(7, count_at);
            assert!(matches!(hear(&query, 7, &moved, FORBIDDEN), Some(Heard::Rebinds(_))), "{count_at}");
        }
    }
    let query = query(kind::HTTPS);
    let fine = answer(&query, &[record(kind::HTTPS, &hints(4, &[192, 0, 2, 1]))]);
    assert!(matches!(hear(&query, 7, &fine, FORBIDDEN), Some(Heard::Answer(_))));
}

#[test]
fn types_that_nobody_here_knows_pass() {
    for kind in [44, 52, 39, 50, 65280] {
        let query = query(kind);
        let message = answer(&query, &[record(kind, b"anything")]);
        assert!(matches!(hear(&query, 7, &message, FORBIDDEN), Some(Heard::Answer(_))), "{kind}");
    }
}

#[test]
fn what_a_server_cannot_say_is_told_from_what_is_not_there() {
    let query = query(kind::A);
    let with_code = |code: u8| {
        let mut message = answer(&query, &[]);
        message[3] |= code;
        hear(&query, 7, &message, FORBIDDEN)
    };
    for code in [2, 4, 5] {
        assert!(matches!(with_code(code), Some(Heard::Trouble(_))), "{code}");
    }
    for code in [0, 3] {
        assert!(matches!(with_code(code), Some(Heard::Answer(_))), "{code}");
    }
    let header_only = [0, 7, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(matches!(hear(&query, 7, &header_only, FORBIDDEN), Some(Heard::Trouble(_))));
    let mut cut = answer(&query, &[]);
    cut[2] |= 2;
    cut[7] = 9;
    assert_eq!(hear(&query, 7, &cut, FORBIDDEN), Some(Heard::CutShort));
}

#[test]
fn a_record_that_is_none_is_not_passed_on() {
    let query = query(kind::A);
    for records in [
        vec![record(kind::A, &[127, 0, 0])],
        vec![record(kind::A, &[127, 0, 0, 1, 0])],
        vec![record(kind::AAAA, &[0; 15])],
        vec![record(kind::HTTPS, &[0, 1, 0, 0, 4, 0, 9, 127])],
        vec![record(kind::HTTPS, &[0])],
        vec![vec![0xc0]],
        // A name that points to itself, to what follows it, and back and forth.
        vec![[vec![0xc0, 0x1d], record(kind::A, &[192, 0, 2, 1])[2..].to_vec()].concat()],
        vec![[vec![0xc0, 0x1e], record(kind::A, &[192, 0, 2, 1])[2..].to_vec()].concat()],
        vec![[vec![1, b'x', 0xc0, 0x1d], record(kind::A, &[192, 0, 2, 1])[2..].to_vec()].concat()],
        vec![record(kind::CNAME, &[1, b'x', 0xc0, 0x29])],
        vec![record(kind::CNAME, &[1, b'x'])],
        vec![record(kind::CNAME, &[1, b'x', 0, 0])],
        vec![record(kind::MX, &[0])],
        vec![record(kind::SOA, &[0, 0, 1, 2, 3, 4])],
        vec![vec![0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]],
        vec![record(kind::A, &[192, 0, 2, 1])[..15].to_vec()],
    ] {
        let message = answer(&query, &records);
        assert_eq!(hear(&query, 7, &message, FORBIDDEN), Some(Heard::Malformed), "{records:?}");
    }
}

/// The addresses that simple-dns finds; None: it cannot read the message.
pub fn library(message: &[u8]) -> Option<Vec<IpAddr>> {
    let packet = Packet::parse(message).ok()?;
    let records = packet.answers.iter().chain(&packet.name_servers).chain(&packet.additional_records);
    Some(
        records
            .filter_map(|record| match &record.rdata {
                RData::A(a) => Some(Ipv4Addr::from(a.address).into()),
                RData::AAAA(a) => Some(Ipv6Addr::from(a.address).into()),
                _ => None,
            })
            .collect(),
    )
}

proptest! {
    #[test]
    fn no_address_that_the_library_finds_is_overlooked(
        records in vec((prop_oneof![Just(1u16), Just(1), Just(28), Just(65), Just(41), 0u16..70], vec(any::<u8>(), 0..20)), 0..6),
        forbidden in any::<bool>(), damage in vec((any::<u16>(), any::<u8>()), 0..3),
    ) {
        let query = query(kind::A);
        let records: Vec<_> = records.into_iter().map(|(kind, mut body)| {
            match kind {
                kind::A => body = if forbidden { vec![127, 0, 0, 1] } else { vec![192, 0, 2, 1] },
                kind::AAAA => body = vec![0x20; 16],
                _ => {}
            }
            record(kind, &body)
        }).collect();
        let mut message = answer(&query, &records);
        for (at, byte) in damage {
            let at = usize::from(at) % message.len();
            message[at] = byte;
        }
        if let Some(Heard::Answer(told) | Heard::Trouble(told)) = hear(&query, 7, &message, FORBIDDEN) {
            for address in library(&told).unwrap_or_default() {
                assert!(!FORBIDDEN.has(address), "{message:?}");
            }
        }
    }

    #[test]
    fn any_bytes_are_heard(tail in vec(any::<u8>(), 0..400), counts in any::<[u8; 3]>()) {
        let query = query(kind::A);
        let mut message = answer(&query, &[]);
        [message[7], message[9], message[11]] = counts;
        message.extend(tail);
        if let Some(Heard::Answer(told)) = hear(&query, 7, &message, FORBIDDEN) {
            for address in library(&told).unwrap_or_default() {
                assert!(!FORBIDDEN.has(address), "{message:?}");
            }
        }
    }
}
