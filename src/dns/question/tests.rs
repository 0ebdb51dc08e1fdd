use proptest::collection::vec;
use proptest::prelude::*;
use simple_dns::{OPCODE, PacketFlag};

use super::*;

/// A question for `name` (on the wire), with what follows it.
pub fn message(name: &[u8], kind: u16, counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xab, 0xcd, 0x01, 0x00];
    counts.iter().for_each(|count| bytes.extend(count.to_be_bytes()));
    bytes.extend(name);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    bytes.extend(rest);
    bytes
}

const DEV: &[u8] = b"\x03DeV\x02vm\x00";
const OPT_RECORD: &[u8] = b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00";
const A_RECORD: &[u8] = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x0a\x00\x00\x02";

fn malformed(message: &[u8]) -> bool {
    matches!(read(message), Err(Unread::Refused { code: Rcode::FormatError, id: 0xabcd, .. }))
}

#[test]
fn a_question_is_read_as_it_was_asked() {
    let bytes = message(DEV, kind::A, [1, 0, 0, 0], b"");
    let question = read(&bytes).expect("a question");
    assert_eq!((question.id, question.kind, question.class), (0xabcd, kind::A, CLASS_IN));
    assert_eq!(question.name(), b"\x03dev\x02vm\x00");
    assert_eq!(question.asked, &bytes[HEADER..], "in the letters that it came in");
    assert_eq!(question.edns, None);
}

#[test]
fn edns_is_read_wherever_it_is_in_its_section() {
    let want = Some(Edns { size: 1232, version: 0, dnssec: true });
    let alone = message(DEV, kind::A, [1, 0, 0, 1], OPT_RECORD);
    assert_eq!(read(&alone).expect("a question").edns, want);
    let second = message(DEV, kind::A, [1, 0, 0, 2], &[A_RECORD, OPT_RECORD].concat());
    assert_eq!(read(&second).expect("a question").edns, want);
    let none = message(DEV, kind::A, [1, 0, 0, 1], A_RECORD);
    assert_eq!(read(&none).expect("a question").edns, None);
}

#[test]
fn what_may_have_no_answer_gets_none() {
    for length in 0..HEADER {
        assert_eq!(read(&vec![0; length]).err(), Some(Unread::Silence), "{length}");
    }
    let mut answer = message(DEV, kind::A, [1, 0, 0, 0], b"");
    answer[2] |= 0x80;
    assert_eq!(read(&answer).err(), Some(Unread::Silence), "or two servers would talk for ever");
}

#[test]
fn what_is_malformed_is_refused_as_that() {
    let two_opts = [OPT_RECORD, OPT_RECORD].concat();
    let named_opt = [b"\x01x".as_slice(), OPT_RECORD].concat();
    let named_second = [A_RECORD, &named_opt].concat();
    let long_name = [[1, b'x'].repeat(127), vec![0, 1, b'x', 0]].concat();
    let long_label = [vec![64], vec![b'x'; 64], vec![0]].concat();
    for (what, bytes) in [
        ("no question", message(b"", 0, [0, 0, 0, 0], b"")),
        ("two questions", message(DEV, 1, [2, 0, 0, 0], &message(DEV, 1, [0; 4], b"")[HEADER..])),
        ("a name without an end", message(b"\x03dev", 1, [1, 0, 0, 0], b"")[..HEADER + 4].to_vec()),
        ("a pointer", message(b"\xc0\x0c", 1, [1, 0, 0, 0], b"")),
        ("a pointer into the header", message(b"\x03dev\xc0\x00", 1, [1, 0, 0, 0], b"")),
        ("a label of 64 bytes", message(&long_label, 1, [1, 0, 0, 0], b"")),
        ("a name of 256 bytes", message(&long_name[1..], 1, [1, 0, 0, 0], b"")),
        ("no type", message(DEV, 1, [1, 0, 0, 0], b"")[..HEADER + DEV.len()].to_vec()),
        ("a record that is not there", message(DEV, 1, [1, 0, 0, 1], b"")),
        ("65535 records that are not there", message(DEV, 1, [1, 0xffff, 0xffff, 0xffff], b"")),
        ("half of an OPT", message(DEV, 1, [1, 0, 0, 1], &OPT_RECORD[..9])),
        (
            "an option that is cut off",
            message(DEV, 1, [1, 0, 0, 1], b"\0\0\x29\x04\xd0\0\0\0\0\0\x05\0\x0a\0\x09x"),
        ),
        ("two OPTs", message(DEV, 1, [1, 0, 0, 2], &two_opts)),
        ("an OPT among the answers", message(DEV, 1, [1, 1, 0, 0], OPT_RECORD)),
        ("an OPT with a name", message(DEV, 1, [1, 0, 0, 1], &named_opt)),
        ("an OPT with a name, not the first record", message(DEV, 1, [1, 0, 0, 2], &named_second)),
    ] {
        assert!(malformed(&bytes), "{what}: {:?}", read(&bytes));
    }
}

#[test]
fn only_questions_are_implemented() {
    for opcode in 1..16u8 {
        let mut bytes = message(DEV, kind::A, [1, 0, 0, 0], b"");
        bytes[2] |= opcode << 3;
        assert!(matches!(read(&bytes), Err(Unread::Refused { code: Rcode::NotImplemented, .. })), "{opcode}");
    }
}

type Read = (u16, Vec<u8>, u16, u16, Option<u16>);

/// What simple-dns makes of a question: id, name in lower case, type, class, and the size that EDNS gives. None: it cannot read it.
pub fn library(message: &[u8]) -> Option<Read> {
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
    let edns = packet.opt().map(|opt| opt.udp_packet_size);
    Some((packet.id(), name, u16::from(asked.qtype), class, edns))
}

fn label() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![any::<u8>(), b'a'..=b'z', b'A'..=b'Z'], 1..=63)
}

fn a_name() -> impl Strategy<Value = Vec<u8>> {
    vec(label(), 0..8).prop_map(|labels| {
        let mut name = vec![];
        for label in labels {
            name.push(label.len() as u8);
            name.extend(label);
        }
        name.push(0);
        name
    })
}

proptest! {
    #[test]
    fn a_question_is_read_as_the_library_reads_it(
        name in a_name(), kind in 0u16..70, edns in any::<bool>(), size in any::<u16>(), version in any::<u8>(),
        options in vec((any::<u16>(), vec(any::<u8>(), 0..9)), 0..3), cut in 0usize..30, counts in any::<bool>(),
    ) {
        let mut rest = vec![];
        if edns {
            rest.extend([0, 0, kind::OPT as u8]);
            rest.extend(size.to_be_bytes());
            rest.extend([0, version, 0, 0]);
            let body: Vec<u8> = options.iter().flat_map(|(code, data)| {
                [&code.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
            }).collect();
            rest.extend((body.len() as u16).to_be_bytes());
            rest.extend(body);
        }
        let mut bytes = message(&name, kind, [1, 0, 0, u16::from(edns) + u16::from(counts)], &rest);
        if cut < 10 {
            bytes.truncate(bytes.len() - cut);
        }
        agree(&bytes);
    }

    #[test]
    fn a_damaged_question_is_read_as_the_library_reads_it(at in 0usize..60, byte in any::<u8>(), records in 0usize..3) {
        let rest = [A_RECORD, OPT_RECORD, A_RECORD][..records].concat();
        let mut bytes = message(DEV, kind::A, [1, 0, 0, records as u16], &rest);
        if let Some(b) = bytes.get_mut(at) {
            *b = byte;
        }
        agree(&bytes);
    }

    #[test]
    fn any_bytes_are_read(bytes in vec(any::<u8>(), 0..300)) {
        agree(&bytes);
        let mut question = bytes;
        if question.len() > HEADER {
            question[2..HEADER].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
            agree(&question);
        }
    }
}

/// Whatever we read, the library reads alike, if it knows the type and class; and whatever it reads is read.
fn agree(bytes: &[u8]) {
    let theirs = library(bytes);
    match read(bytes) {
        Ok(ours) => {
            if let Some(theirs) = theirs {
                let edns = ours.edns.map(|edns| edns.size);
                assert_eq!((ours.id, ours.name().to_vec(), ours.kind, ours.class, edns), theirs, "{bytes:?}");
            }
        }
        // It follows pointers into the header, and takes an OPT wherever it is, whatever its name.
        Err(_) => {
            if let Some((_, name, ..)) = theirs {
                let pointer =
                    bytes.get(HEADER..HEADER + name.len()).map(<[u8]>::to_ascii_lowercase) != Some(name);
                let opt = bytes.windows(2).any(|two| two == [0, kind::OPT as u8]);
                assert!(pointer || opt, "{bytes:?}");
            }
        }
    }
}
