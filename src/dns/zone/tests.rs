use proptest::collection::vec;
use proptest::prelude::*;
use simple_dns::rdata::RData;
use simple_dns::{Packet, PacketFlag, RCODE};

use super::*;
use crate::dns::question::HEADER;

fn zone(suffix: &str, subnet: &str) -> Zone {
    let mut zone = Zone::new(&suffix.parse().expect("a suffix"));
    let subnet: Subnet = subnet.parse().expect("a subnet");
    zone.set_subnet(subnet);
    for (name, slot) in [("dev", 2), ("web-1", 3)] {
        zone.insert(&name.parse().expect("a name"), subnet.address(slot).expect("an address"));
    }
    zone
}

fn ask(name: &str, kind: u16, class: u16) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 1, 0x10, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|l| !l.is_empty()) {
        message.extend(labelled(label.as_bytes()));
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend(class.to_be_bytes());
    message
}

/// The library reads no type and no class of a question that it does not know.
fn with_known_type(reply: &[u8]) -> Vec<u8> {
    let mut known = reply.to_vec();
    if reply[5] == 1 {
        let end = HEADER + labels(&reply[HEADER..]).last().expect("a root") + 1;
        known[end..end + 4].copy_from_slice(&[0, 1, 0, 1]);
    }
    known
}

/// What is said, in short: the code, what the answer holds, and of which zone there is an SOA beside it. As simple-dns reads it.
fn said(zone: &Zone, asker: Asker, message: &[u8]) -> String {
    let mut out = vec![9; 99];
    match zone.answer(asker, message, &mut out) {
        Verdict::Silence => return "silence".to_owned(),
        Verdict::Forward(_) => return "forward".to_owned(),
        Verdict::Reply => {}
    }
    assert!(out.len() <= 512, "it fits everybody");
    let known = with_known_type(&out);
    let packet = Packet::parse(&known).expect("the library reads it");
    assert!(packet.has_flags(PacketFlag::RESPONSE));
    assert_eq!(out[..2], message[..2]);
    let mut text = match packet.rcode() {
        RCODE::NoError => "ok".to_owned(),
        RCODE::NameError => "nxdomain".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    for record in &packet.answers {
        match &record.rdata {
            RData::A(a) => text += &format!(" {} {}", Ipv4Addr::from(a.address), record.ttl),
            RData::AAAA(a) => text += &format!(" {}", Ipv6Addr::from(a.address)),
            RData::PTR(name) => text += &format!(" {}", name.0),
            RData::SOA(soa) => text += &format!(" soa {}", soa.mname),
            RData::NS(name) => text += &format!(" ns {}", name.0),
            other => panic!("{other:?}"),
        }
        assert_eq!(record.name, packet.questions[0].qname, "in the letters that were asked for");
    }
    for record in &packet.name_servers {
        let RData::SOA(soa) = &record.rdata else { panic!("{record:?}") };
        assert_eq!((record.ttl, soa.minimum), (0, 0));
        text += &format!(" | {}", record.name);
    }
    if packet.has_flags(PacketFlag::AUTHORITATIVE_ANSWER) {
        text += " aa";
    }
    text
}

#[test]
fn names_of_vms_and_of_addresses_are_answered_and_nothing_of_the_zone_goes_elsewhere() {
    let zone = zone("vm", "172.16.0.1/24");
    let table = [
        ("dev.vm", kind::A, "ok 172.16.0.2 5 aa"),
        ("DeV.vM", kind::A, "ok 172.16.0.2 5 aa"),
        ("web-1.vm", kind::A, "ok 172.16.0.3 5 aa"),
        ("dev.vm", kind::ANY, "ok 172.16.0.2 5 aa"),
        ("dev.vm", kind::AAAA, "ok | vm aa"),
        ("dev.vm", 16, "ok | vm aa"),
        ("dev.vm", 43, "ok | vm aa"),
        ("DEV.Vm", kind::AAAA, "ok | Vm aa"),
        ("no.vm", kind::A, "nxdomain | vm aa"),
        ("no.vm", 65280, "nxdomain | vm aa"),
        ("a.dev.vm", kind::A, "nxdomain | vm aa"),
        ("a.b.c.vm", kind::ANY, "nxdomain | vm aa"),
        ("localhost.vm", kind::A, "nxdomain | vm aa"),
        ("_tcp.dev.vm", 33, "nxdomain | vm aa"),
        ("vm", kind::A, "ok 172.16.0.1 5 aa"),
        ("vm", kind::AAAA, "ok | vm aa"),
        ("vm", kind::SOA, "ok soa vm aa"),
        ("vm", kind::NS, "ok ns vm aa"),
        ("vm", 43, "ok | vm aa"),
        ("vm", kind::ANY, "ok 172.16.0.1 5 soa vm ns vm aa"),
        ("2.0.16.172.in-addr.arpa", kind::PTR, "ok dev.vm aa"),
        ("2.0.16.172.IN-ADDR.arpa", kind::ANY, "ok dev.vm aa"),
        ("3.0.16.172.in-addr.arpa", kind::PTR, "ok web-1.vm aa"),
        ("1.0.16.172.in-addr.arpa", kind::PTR, "ok vm aa"),
        ("2.0.16.172.in-addr.arpa", kind::A, "ok | 0.16.172.in-addr.arpa aa"),
        ("9.0.16.172.in-addr.arpa", kind::PTR, "nxdomain | 0.16.172.in-addr.arpa aa"),
        ("02.0.16.172.in-addr.arpa", kind::PTR, "nxdomain | 0.16.172.in-addr.arpa aa"),
        ("256.0.16.172.in-addr.arpa", kind::PTR, "nxdomain | 0.16.172.in-addr.arpa aa"),
        ("x.2.0.16.172.in-addr.arpa", kind::PTR, "nxdomain | 0.16.172.in-addr.arpa aa"),
        ("x.0.16.172.in-addr.arpa", kind::PTR, "nxdomain | 0.16.172.in-addr.arpa aa"),
        ("0.16.172.in-addr.arpa", kind::SOA, "ok soa 0.16.172.in-addr.arpa aa"),
        ("0.16.172.in-addr.arpa", kind::NS, "ok ns 0.16.172.in-addr.arpa aa"),
        ("0.16.172.in-addr.arpa", kind::PTR, "ok | 0.16.172.in-addr.arpa aa"),
    ];
    for (name, kind, want) in table {
        for asker in [Asker::Host, Asker::Guest] {
            assert_eq!(said(&zone, asker, &ask(name, kind, CLASS_IN)), want, "{name} {kind}");
        }
    }
}

#[test]
fn what_is_not_of_the_zone_is_forwarded_for_guests_and_refused_to_the_host() {
    let zone = zone("vm", "172.16.0.1/24");
    for name in [
        "example.com",
        "",
        "xvm",
        "vm.example",
        "dev.vmx",
        "16.172.in-addr.arpa",
        "2.1.16.172.in-addr.arpa",
        "in-addr.arpa",
        "1.ip6.arpa",
    ] {
        assert_eq!(said(&zone, Asker::Guest, &ask(name, kind::A, CLASS_IN)), "forward", "{name}");
        assert_eq!(said(&zone, Asker::Host, &ask(name, kind::A, CLASS_IN)), "refused", "{name}");
    }
    // One label that ends like the suffix on the wire.
    let mut message = ask("", kind::A, CLASS_IN);
    message.splice(HEADER..=HEADER, *b"\x09xx\x03dev\x02vm\x00");
    assert_eq!(said(&zone, Asker::Guest, &message), "forward");
}

#[test]
fn localhost_is_whoever_asks_and_no_other_server_is_asked() {
    let zone = zone("vm", "172.16.0.1/24");
    for (name, kind, want) in [
        ("localhost", kind::A, "ok 127.0.0.1 5"),
        ("a.LocalHost", kind::A, "ok 127.0.0.1 5"),
        ("localhost", kind::AAAA, "ok ::1"),
        ("localhost", 16, "ok"),
        ("xlocalhost", kind::A, "forward"),
    ] {
        assert_eq!(said(&zone, Asker::Guest, &ask(name, kind, CLASS_IN)), want, "{name}");
    }
    assert_eq!(said(&zone, Asker::Host, &ask("localhost", kind::A, CLASS_IN)), "refused");
}

#[test]
fn what_is_no_plain_question_is_refused_and_never_forwarded() {
    let zone = zone("vm", "172.16.0.1/24");
    for (kind, class, want) in [
        (kind::A, 3, "refused"),
        (kind::A, 255, "refused"),
        (kind::A, 0x8001, "refused"),
        (kind::AXFR, 1, "refused"),
        (kind::IXFR, 1, "refused"),
        (kind::OPT, 1, "formaterror"),
        (kind::TSIG, 1, "notimplemented"),
        (kind::TKEY, 1, "notimplemented"),
    ] {
        for name in ["dev.vm", "example.com"] {
            let mut out = vec![];
            assert!(matches!(zone.answer(Asker::Guest, &ask(name, kind, class), &mut out), Verdict::Reply));
            let code = match out[3] & 0xf {
                1 => "formaterror",
                4 => "notimplemented",
                5 => "refused",
                other => panic!("{other}"),
            };
            assert_eq!(code, want, "{name} {kind} {class}");
        }
    }
}

#[test]
fn flags_of_the_question_are_kept_as_far_as_they_concern_the_answer() {
    let zone = zone("vm", "172.16.0.1/24");
    let mut message = ask("dev.vm", kind::A, CLASS_IN);
    message[3] = 0x70;
    let mut out = vec![];
    for (asker, recursion) in [(Asker::Host, 0), (Asker::Guest, 0x80)] {
        assert!(matches!(zone.answer(asker, &message, &mut out), Verdict::Reply));
        assert_eq!(out[2], 0x85, "response, authoritative, recursion desired");
        assert_eq!(out[3], 0x10 | recursion, "checking disabled; neither reserved nor authentic");
    }
}

#[test]
fn edns_is_answered_with_edns() {
    let zone = zone("vm", "172.16.0.1/24");
    let with_opt = |version: u8, flags: u8| {
        let mut message = ask("dev.vm", kind::A, CLASS_IN);
        message[11] = 1;
        message
            .extend([0, 0, 41, 0xff, 0xff, 0, version, flags, 0, 0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
        message
    };
    let mut out = vec![];
    zone.answer(Asker::Host, &with_opt(0, 0x80), &mut out);
    assert!(
        out.ends_with(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0]),
        "1232, version 0, DO, no option: {out:?}"
    );
    zone.answer(Asker::Host, &with_opt(1, 0), &mut out);
    assert_eq!(out[3] & 0xf, 0);
    assert!(
        out.ends_with(&[0, 0, 41, 0x04, 0xd0, 1, 0, 0, 0, 0, 0]),
        "BADVERS is 16, its upper bits are in OPT: {out:?}"
    );
    assert_eq!(out[7], 0, "and no answer");
    zone.answer(Asker::Host, &ask("dev.vm", kind::A, CLASS_IN), &mut out);
    assert_eq!(out[11], 0, "without being asked none is added");
}

#[test]
fn names_come_and_go() {
    let mut zone = zone("dev.internal", "10.0.0.1/16");
    let name = |text: &str| text.parse::<VmName>().expect("a name");
    let a = |zone: &Zone, name: &str| said(zone, Asker::Host, &ask(name, kind::A, CLASS_IN));
    let ptr = |zone: &Zone, name: &str| said(zone, Asker::Host, &ask(name, kind::PTR, CLASS_IN));
    assert_eq!(a(&zone, "dev.dev.internal"), "ok 10.0.0.2 5 aa");
    assert_eq!(a(&zone, "dev.internal"), "ok 10.0.0.1 5 aa");
    assert_eq!(a(&zone, "internal"), "refused");
    zone.insert(&name("dev"), Ipv4Addr::new(10, 0, 7, 7));
    assert_eq!(a(&zone, "dev.dev.internal"), "ok 10.0.7.7 5 aa");
    assert_eq!(ptr(&zone, "2.0.0.10.in-addr.arpa"), "nxdomain | 0.10.in-addr.arpa aa");
    assert_eq!(ptr(&zone, "7.7.0.10.in-addr.arpa"), "ok dev.dev.internal aa");
    assert_eq!(ptr(&zone, "7.0.10.in-addr.arpa"), "ok | 0.10.in-addr.arpa aa", "there are names below");
    // An address that has gone over to another VM stays that one's.
    zone.insert(&name("new"), Ipv4Addr::new(10, 0, 7, 7));
    zone.remove(&name("dev"));
    assert_eq!(a(&zone, "dev.dev.internal"), "nxdomain | dev.internal aa");
    assert_eq!(ptr(&zone, "7.7.0.10.in-addr.arpa"), "ok new.dev.internal aa");
    zone.remove(&name("new"));
    zone.remove(&name("new"));
    assert_eq!(ptr(&zone, "7.7.0.10.in-addr.arpa"), "nxdomain | 0.10.in-addr.arpa aa");
}

#[test]
fn of_a_network_that_shares_its_last_byte_only_its_own_addresses_are_ours() {
    let zone = zone("vm", "192.168.7.129/29");
    let ptr = |name: &str| said(&zone, Asker::Guest, &ask(name, kind::PTR, CLASS_IN));
    assert_eq!(ptr("130.7.168.192.in-addr.arpa"), "ok dev.vm aa");
    assert_eq!(ptr("129.7.168.192.in-addr.arpa"), "ok vm aa");
    assert_eq!(ptr("134.7.168.192.in-addr.arpa"), "nxdomain | 7.168.192.in-addr.arpa aa");
    assert_eq!(ptr("137.7.168.192.in-addr.arpa"), "forward");
    assert_eq!(ptr("7.168.192.in-addr.arpa"), "forward");
    let wide = super::Zone::clone(&self::zone("vm", "10.9.6.1/23"));
    let ptr = |name: &str| said(&wide, Asker::Guest, &ask(name, kind::PTR, CLASS_IN));
    assert_eq!(ptr("2.6.9.10.in-addr.arpa"), "ok dev.vm aa");
    assert_eq!(ptr("2.7.9.10.in-addr.arpa"), "nxdomain | 7.9.10.in-addr.arpa aa");
    assert_eq!(ptr("2.8.9.10.in-addr.arpa"), "forward");
    assert_eq!(ptr("9.10.in-addr.arpa"), "forward");
}

#[test]
fn before_there_is_a_bridge_only_names_are_known() {
    let zone = Zone::new(&Suffix::default());
    assert_eq!(said(&zone, Asker::Host, &ask("vm", kind::A, CLASS_IN)), "ok | vm aa");
    assert_eq!(said(&zone, Asker::Host, &ask("dev.vm", kind::A, CLASS_IN)), "nxdomain | vm aa");
    assert_eq!(said(&zone, Asker::Host, &ask("2.0.16.172.in-addr.arpa", kind::PTR, CLASS_IN)), "refused");
}

proptest! {
    #[test]
    fn any_bytes_have_a_reply_that_the_library_reads_or_none(bytes in vec(any::<u8>(), 0..300), guest in any::<bool>()) {
        let zone = zone("vm", "172.16.0.1/24");
        let asker = if guest { Asker::Guest } else { Asker::Host };
        let mut question = bytes.clone();
        if question.len() > HEADER {
            question[2..HEADER].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
        for message in [bytes, question] {
            let mut out = vec![];
            if matches!(zone.answer(asker, &message, &mut out), Verdict::Reply) {
                prop_assert!(out.len() <= 512);
                prop_assert_eq!(&out[..2], &message[..2]);
                prop_assert!(out[2] & 0x80 != 0);
                prop_assert!(Packet::parse(&with_known_type(&out)).is_ok(), "{:?}", out);
            }
        }
    }

    #[test]
    fn names_below_the_zone_never_leave(prefix in vec("[a-zA-Z0-9_-]{1,20}", 0..5), kind in 0u16..300) {
        let zone = zone("vm", "172.16.0.1/24");
        for suffix in ["vm", "VM", "0.16.172.in-addr.arpa"] {
            let name = prefix.iter().map(String::as_str).chain([suffix]).collect::<Vec<_>>().join(".");
            let mut out = vec![];
            let message = ask(&name, kind, CLASS_IN);
            let verdict = zone.answer(Asker::Guest, &message, &mut out);
            prop_assert!(matches!(verdict, Verdict::Reply), "{}", name);
        }
    }
}
