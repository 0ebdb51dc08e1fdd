//! The zone, as dig sees it.

use std::io::{Read, Write};
use std::net::Ipv4Addr;

use banger::dns::service::Upstream;
use banger::host::resolver::Config;

use crate::rig::{GUEST, Rig, connection, dig, question, socket};

/// No upstream server is there to be asked.
fn rig() -> Rig {
    Rig::new(Upstream::Fixed(Config { servers: vec![], ..Config::parse("") }))
}

#[test]
fn a_vm_is_found_by_its_name_and_by_its_address() {
    let rig = rig();
    for transport in ["+notcp", "+tcp"] {
        let dug = rig.host_digs(&format!("{transport} dev.vm"));
        assert_eq!(
            (dug.status.as_str(), dug.answer.as_slice()),
            ("NOERROR", &["A 172.16.0.2".to_owned()][..]),
            "{}",
            dug.text
        );
        assert!(
            dug.flags.contains(&"aa".to_owned()) && !dug.flags.contains(&"ra".to_owned()),
            "{:?}",
            dug.flags
        );
        assert_eq!(rig.host_digs(&format!("{transport} -x 172.16.0.3")).answer, ["PTR web.vm."]);
        assert_eq!(rig.host_digs(&format!("{transport} -x 172.16.0.1")).answer, ["PTR vm."]);
        let missing = rig.host_digs(&format!("{transport} nothing.vm"));
        assert_eq!(missing.status, "NXDOMAIN");
        assert_eq!(missing.authority.len(), 1);
        assert!(missing.authority[0].starts_with("vm. SOA vm. nobody.invalid. "), "{:?}", missing.authority);
        let no_data = rig.host_digs(&format!("{transport} AAAA dev.vm"));
        assert_eq!(
            (no_data.status.as_str(), no_data.answer.len(), no_data.authority.len()),
            ("NOERROR", 0, 1)
        );
        assert_eq!(rig.host_digs(&format!("{transport} ANY dev.vm")).answer, ["A 172.16.0.2"]);
        assert_eq!(rig.host_digs(&format!("{transport} NS vm")).answer, ["NS vm."]);
        assert_eq!(rig.host_digs(&format!("{transport} AXFR vm")).status, "REFUSED");
        assert_eq!(rig.host_digs(&format!("{transport} TYPE65280 dev.vm")).status, "NOERROR");
        assert_eq!(rig.host_digs(&format!("{transport} CH TXT version.bind")).status, "REFUSED");
    }
}

#[test]
fn a_name_is_right_from_the_moment_that_it_is_there() {
    let rig = rig();
    let name = "new".parse().expect("a name");
    for n in 10..60 {
        assert_eq!(rig.host_digs("new.vm").status, "NXDOMAIN");
        rig.names.insert(&name, Ipv4Addr::new(172, 16, 0, n));
        assert_eq!(rig.host_digs("new.vm").answer, [format!("A 172.16.0.{n}")]);
        rig.names.remove(&name);
    }
}

#[test]
fn edns_is_answered_as_it_was_asked() {
    let rig = rig();
    let with = rig.host_digs("+dnssec +bufsize=4096 dev.vm");
    assert!(with.text.contains("EDNS: version: 0, flags: do; udp: 1232"), "{}", with.text);
    let without = rig.host_digs("+noedns dev.vm");
    assert!(!without.text.contains("EDNS"), "{}", without.text);
    assert_eq!(without.answer, ["A 172.16.0.2"]);
    let later = rig.host_digs("+edns=7 +noednsneg dev.vm");
    assert_eq!((later.status.as_str(), later.answer.len()), ("BADVERS", 0), "{}", later.text);
    // What a server knows nothing of it leaves alone (RFC 6891, 6.1.2).
    let odd = rig.host_digs("+ednsopt=65001:abcd +ednsflags=0x40 +cookie +zflag dev.vm");
    assert_eq!((odd.status.as_str(), odd.answer.len()), ("NOERROR", 1), "{}", odd.text);
    assert_eq!(rig.host_digs("+opcode=status dev.vm").status, "NOTIMP");
    assert_eq!(rig.host_digs("+header-only").status, "FORMERR");
}

#[test]
fn the_host_is_told_of_the_zone_and_strangers_of_nothing() {
    let rig = rig();
    let other = rig.host_digs("example.com");
    assert_eq!((other.status.as_str(), other.answer.len()), ("REFUSED", 0));
    // Who is neither the host nor a guest.
    let stranger = socket(Ipv4Addr::new(127, 8, 0, 1), rig.guests.address());
    stranger.send(&question(1, "dev.vm")).expect("sends");
    stranger.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("a timeout");
    stranger.recv(&mut [0; 512]).expect_err("nothing comes");
    let dug = dig(rig.guests.address(), GUEST, "dev.vm");
    assert_eq!(dug.answer, ["A 172.16.0.2"], "{}", dug.text);
    assert!(dug.flags.contains(&"ra".to_owned()));
    // The gateway's address is the host's own: what it asked would come back by the host's resolver.
    let host = dig(rig.guests.address(), crate::rig::GATEWAY, "example.com");
    assert_eq!(host.status, "REFUSED");
    assert_eq!(dig(rig.guests.address(), crate::rig::GATEWAY, "dev.vm").answer, ["A 172.16.0.2"]);
}

#[test]
fn several_questions_on_one_connection_are_all_answered() {
    let rig = rig();
    let mut stream = connection(rig.host.address());
    let mut all = vec![];
    for id in 0..500u16 {
        let message = question(id, if id % 2 == 0 { "dev.vm" } else { "no.vm" });
        all.extend((message.len() as u16).to_be_bytes());
        all.extend(message);
    }
    // In pieces that are no messages.
    for piece in all.chunks(1000) {
        stream.write_all(piece).expect("writes");
    }
    for id in 0..500u16 {
        let mut length = [0; 2];
        stream.read_exact(&mut length).expect("a length");
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply).expect("a reply");
        assert_eq!(reply[..2], id.to_be_bytes());
        assert_eq!(reply[3] & 0xf, if id % 2 == 0 { 0 } else { 3 });
    }
}

#[test]
fn nothing_is_said_to_answers_and_to_what_has_no_header() {
    let rig = rig();
    let socket = socket(Ipv4Addr::LOCALHOST, rig.host.address());
    let mut answer = question(1, "dev.vm");
    answer[2] |= 0x80;
    for silent in [&answer[..], b"", b"x", &[0; 11]] {
        socket.send(silent).expect("sends");
    }
    socket.send(&question(2, "dev.vm")).expect("sends");
    let mut reply = [0; 512];
    socket.recv(&mut reply).expect("a reply");
    assert_eq!(reply[..2], [0, 2], "the first reply is to the only question");
}
