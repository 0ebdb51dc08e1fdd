//! What guests ask of others, and what hostile servers say to that.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use banger::dns::service::Upstream;

use crate::rig::{GUEST, OTHER, Rig, connection, dig, question, socket};
use crate::upstream::{Server, answer, coded, good};

/// A port where nobody listens.
fn nobody() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a port")
}

#[test]
fn a_guests_question_is_passed_on_and_its_answer_comes_back() {
    let server = Server::new(|q| vec![good(q)]);
    let rig = Rig::asking(&[server.address]);
    for transport in ["+notcp", "+tcp"] {
        let dug = rig.guest_digs(&format!("{transport} ExAmple.org"));
        assert_eq!(
            (dug.status.as_str(), dug.answer.as_slice()),
            ("NOERROR", &["A 192.0.2.1".to_owned()][..]),
            "{}",
            dug.text
        );
        assert!(dug.flags.contains(&"ra".to_owned()));
        assert!(dug.text.contains(";ExAmple.org."), "in the letters that it was asked in: {}", dug.text);
    }
    assert_eq!(server.tcp.load(Ordering::Relaxed), 1, "who comes by TCP is answered by TCP");
}

#[test]
fn names_of_vms_never_leave() {
    let server = Server::new(|q| vec![good(q)]);
    let rig = Rig::asking(&[server.address]);
    for words in [
        "no.vm",
        "a.b.vm",
        "MX vm",
        "DS vm",
        "-x 172.16.0.77",
        "AAAA dev.vm",
        "TYPE65280 no.vm",
        "localhost",
        "CH TXT a",
    ] {
        let dug = rig.guest_digs(words);
        assert_ne!(dug.answer, ["A 192.0.2.1"], "{words}: {}", dug.text);
    }
    assert_eq!(server.asked(), 0);
}

#[test]
fn each_question_goes_out_under_a_random_id_from_a_random_port() {
    let server = Server::new(|q| vec![good(q)]);
    let rig = Rig::asking(&[server.address]);
    let socket = socket(GUEST, rig.guests.address());
    for n in 0..64 {
        socket.send(&question(n, "example.org")).expect("sends");
        socket.recv(&mut [0; 512]).expect("a reply");
    }
    let heard = server.heard.lock().expect("not poisoned");
    let ids: std::collections::BTreeSet<_> = heard.iter().map(|(q, _)| [q[0], q[1]]).collect();
    let ports: std::collections::BTreeSet<_> = heard.iter().map(|(_, port)| port).collect();
    // Of 64 out of 65536 (28000 for ports) some may fall together.
    assert!(ids.len() > 55 && ports.len() > 50, "{} ids, {} ports", ids.len(), ports.len());
}

#[test]
fn the_guests_options_stay_here_and_its_size_is_kept_within_ours() {
    let server = Server::new(|q| vec![good(q)]);
    let rig = Rig::asking(&[server.address]);
    rig.guest_digs("+bufsize=4096 +dnssec +cookie=0123456789abcdef +subnet=10.0.0.0/8 example.org");
    let heard = server.heard.lock().expect("not poisoned");
    assert!(heard[0].0.ends_with(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0]), "{:?}", heard[0]);
}

#[test]
fn a_server_that_is_silent_gone_or_in_trouble_is_passed_over() {
    let silent = Server::new(|_| vec![]);
    let troubled = Server::new(|q| vec![coded(q, 2)]);
    let refusing = Server::new(|q| vec![coded(q, 5)]);
    let fine = Server::new(|q| vec![good(q)]);
    let rig = Rig::asking(&[nobody(), troubled.address, refusing.address, silent.address, fine.address]);
    for transport in ["+notcp", "+tcp"] {
        let began = Instant::now();
        let dug = rig.guest_digs(&format!("{transport} example.org"));
        assert_eq!(dug.answer, ["A 192.0.2.1"], "{}", dug.text);
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
}

#[test]
fn when_all_fail_the_guest_is_told_so() {
    let troubled = Server::new(|q| vec![coded(q, 2)]);
    assert_eq!(Rig::asking(&[nobody()]).guest_digs("example.org").status, "SERVFAIL");
    assert_eq!(Rig::asking(&[]).guest_digs("example.org").status, "SERVFAIL");
    let rig = Rig::asking(&[nobody(), troubled.address]);
    for transport in ["+notcp", "+tcp"] {
        assert_eq!(rig.guest_digs(&format!("{transport} example.org")).status, "SERVFAIL");
    }
    let refusing = Server::new(|q| vec![coded(q, 5)]);
    assert_eq!(Rig::asking(&[refusing.address]).guest_digs("example.org").status, "REFUSED");
    let silent = Server::new(|_| vec![]);
    let began = Instant::now();
    assert_eq!(Rig::asking(&[silent.address]).guest_digs("example.org").status, "SERVFAIL");
    assert!(began.elapsed() < Duration::from_secs(8));
    assert_eq!(silent.asked(), 2, "each server has two chances");
}

#[test]
fn forged_answers_are_passed_over_and_the_true_one_is_taken() {
    let server = Server::new(|q| {
        let bad = |change: fn(&mut Vec<u8>)| {
            let mut message = answer(q, &[(1, &[203, 0, 113, 66])]);
            change(&mut message);
            message
        };
        vec![
            bad(|m| m[0] ^= 1),
            bad(|m| m[13] ^= 2),
            bad(|m| m[2] &= 0x7f),
            bad(|m| m[5] = 2),
            bad(|m| m[2] |= 0x28),
            bad(|m| m.truncate(11)),
            b"garbage".to_vec(),
            vec![],
            vec![0xc0; 600],
            good(q),
        ]
    });
    let rig = Rig::asking(&[server.address]);
    let dug = rig.guest_digs("example.org");
    assert_eq!(dug.answer, ["A 192.0.2.1"], "{}", dug.text);
    let endless = Server::new(|q| vec![vec![q[0] ^ 1; 40]; 500]);
    assert_eq!(Rig::asking(&[endless.address]).guest_digs("example.org").status, "SERVFAIL");
}

#[test]
fn another_server_cannot_answer_in_its_place() {
    // It answers from a port that was not asked.
    let server = Server::new(|_| vec![]);
    let rig = Rig::asking(&[server.address]);
    let guest = socket(GUEST, rig.guests.address());
    guest.send(&question(9, "example.org")).expect("sends");
    crate::rig::until("the server is asked", || server.asked() > 0);
    let (asked, port) = server.heard.lock().expect("not poisoned")[0].clone();
    let forger = UdpSocket::bind("127.0.0.1:0").expect("binds");
    forger.send_to(&good(&asked), ("127.0.0.1", port)).expect("sends");
    let mut reply = [0; 512];
    guest.recv(&mut reply).expect("a reply");
    assert_eq!(reply[3] & 0xf, 2, "it failed in the end: the server itself said nothing");
}

#[test]
fn addresses_of_this_machine_are_not_told() {
    let loopback = Server::new(|q| vec![answer(q, &[(1, &[127, 0, 0, 1])])]);
    let bridge = Server::new(|q| vec![answer(q, &[(1, &[192, 0, 2, 1]), (1, &[172, 16, 0, 1])])]);
    let mapped =
        Server::new(|q| vec![answer(q, &[(28, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 127, 0, 0, 1])])]);
    let metadata = Server::new(|q| vec![answer(q, &[(1, &[169, 254, 169, 254])])]);
    for server in [&loopback, &bridge, &mapped, &metadata] {
        let rig = Rig::asking(&[server.address]);
        for transport in ["+notcp", "+tcp"] {
            let dug = rig.guest_digs(&format!("{transport} ANY rebind.example"));
            assert_eq!(
                (dug.status.as_str(), dug.answer.len(), dug.authority.len()),
                ("NOERROR", 0, 0),
                "{}",
                dug.text
            );
            assert!(dug.text.contains("EDE: 15 (Blocked)"), "{}", dug.text);
        }
    }
}

#[test]
fn what_is_malformed_does_not_reach_the_guest() {
    fn looped(q: &[u8]) -> Vec<Vec<u8>> {
        // A name that points to itself, and one that goes back and forth, as owners of records.
        let mut message = good(q);
        let at = message.len() as u16;
        message[7] = 3;
        let pointer = |to: u16| (0xc000 | to).to_be_bytes();
        message.extend(pointer(at));
        message.extend([0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 2]);
        message.extend([[1, b'x'], pointer(at)].concat());
        message.extend([0, 5, 0, 1, 0, 0, 0, 0, 0, 2]);
        message.extend(pointer(at));
        vec![message]
    }
    fn itself(q: &[u8]) -> Vec<Vec<u8>> {
        let mut message = answer(q, &[(5, b"\x01x\x00\x00")]);
        let body = message.len() - 4;
        message[body + 2..].copy_from_slice(&(0xc000 | body as u16).to_be_bytes());
        vec![message]
    }
    fn cut_record(q: &[u8]) -> Vec<Vec<u8>> {
        let mut message = good(q);
        message.pop();
        vec![message]
    }
    fn counts(q: &[u8]) -> Vec<Vec<u8>> {
        let mut message = good(q);
        message[6..12].fill(0xff);
        vec![message]
    }
    let fine = Server::new(|q| vec![good(q)]);
    for say in [cut_record, counts, looped, itself] {
        let server = Server::new(say);
        let rig = Rig::asking(&[server.address, fine.address]);
        assert_eq!(rig.guest_digs("+notcp example.org").answer, ["A 192.0.2.1"]);
        assert_eq!(rig.guest_digs("+tcp example.org").answer, ["A 192.0.2.1"]);
        assert_eq!(Rig::asking(&[server.address]).guest_digs("example.org").status, "SERVFAIL");
    }
}

/// 65535 bytes.
fn huge(q: &[u8]) -> Vec<u8> {
    let text = [&[255][..], &[b'x'; 255]].concat();
    let mut message = answer(q, &[]);
    let mut count = 0u16;
    while message.len() + 268 <= 65535 {
        message.extend([0xc0, 0x0c, 0, 16, 0, 1, 0, 0, 0, 60, 1, 0]);
        message.extend(&text);
        count += 1;
    }
    let rest = 65535 - message.len();
    assert!(rest > 13);
    message.extend([0xc0, 0x0c, 0, 16, 0, 1, 0, 0, 0, 60]);
    message.extend(((rest - 12) as u16).to_be_bytes());
    message.push((rest - 13) as u8);
    message.extend(vec![b'y'; rest - 13]);
    message[6..8].copy_from_slice(&(count + 1).to_be_bytes());
    assert_eq!(message.len(), 65535);
    message
}

#[test]
fn what_does_not_fit_comes_by_tcp() {
    let cut = |q: &[u8]| {
        let mut message = answer(q, &[]);
        message[2] |= 2;
        vec![message]
    };
    let server = Server::both(cut, |q| vec![huge(q)]);
    let rig = Rig::asking(&[server.address]);
    let dug = rig.guest_digs("+ignore +notcp TXT huge.example");
    assert!(dug.flags.contains(&"tc".to_owned()) && dug.answer.is_empty(), "{}", dug.text);
    // dig comes again by TCP, as it is told to.
    let dug = rig.guest_digs("+notcp TXT huge.example");
    assert!(dug.text.contains("ANSWER: 245,"), "{}", &dug.text[..400.min(dug.text.len())]);
    assert_eq!(dug.answer.len(), 245);
    // A server that sends over UDP more than anybody asked for.
    let rude = Server::both(
        |q| {
            let body = [vec![255], vec![b'x'; 255]].concat();
            vec![answer(q, &[(16, body.as_slice()); 5])]
        },
        |q| vec![good(q)],
    );
    let rig = Rig::asking(&[rude.address]);
    assert!(
        rig.guest_digs("+ignore +notcp +bufsize=4096 TXT a.example").flags.contains(&"tc".to_owned()),
        "1232 is the most"
    );
    assert!(rig.guest_digs("+ignore +notcp +noedns TXT a.example").flags.contains(&"tc".to_owned()));
    let ruder = Server::new(|q| vec![huge(q)[..60000].to_vec()]);
    let rig = Rig::asking(&[ruder.address]);
    assert!(rig.guest_digs("+ignore +notcp TXT a.example").flags.contains(&"tc".to_owned()));
}

#[test]
fn types_that_nobody_here_knows_pass_through() {
    let server = Server::new(|q| vec![answer(q, &[(52, b"\x03\x01\x01digest")])]);
    let rig = Rig::asking(&[server.address]);
    let dug = rig.guest_digs("TLSA _443._tcp.example.org");
    assert_eq!(dug.answer.len(), 1, "{}", dug.text);
}

#[test]
fn pipelined_questions_wait_for_each_other_no_longer_than_for_their_own_answers() {
    let server = Server::new(|_| vec![]);
    let rig = Rig::asking(&[server.address]);
    let mut stream = connection(rig.guests.address());
    // It comes from 127.0.0.1, which is no guest; a guest's connection is bound by dig alone.
    stream.write_all(&[0, 0]).unwrap_or_default();
    assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)), "it is closed");
    let waiting = {
        let address = rig.guests.address();
        std::thread::spawn(move || dig(address, GUEST, "+tcp example.org").status)
    };
    assert_eq!(dig(rig.guests.address(), OTHER, "+tcp +keepopen dev.vm web.vm").answer.len(), 2);
    assert_eq!(waiting.join().expect("ends"), "SERVFAIL");
}

#[test]
fn a_server_on_the_bridge_would_ask_us_and_is_not_asked() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("resolv.conf");
    let rig = Rig::new(Upstream::File(file.clone()));
    // In the bridge's network, so that it would be a guest who asks us.
    std::fs::write(&file, "nameserver 172.16.0.1\nnameserver 172.16.0.9\n").expect("writes");
    let began = Instant::now();
    assert_eq!(rig.guest_digs("example.org").status, "SERVFAIL");
    assert!(began.elapsed() < Duration::from_secs(1), "nobody was asked");
}
