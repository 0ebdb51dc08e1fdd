//! Against a name server of our own, in a thread, that answers badly on purpose.

use std::net::TcpListener;

use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

use super::*;

/// What the server says for a name.
fn reply(message: &[u8], over_tcp: bool) -> Vec<Vec<u8>> {
    let asked = Packet::parse(message).expect("a question");
    let question = asked.questions[0].clone();
    let name = question.qname.to_string().to_ascii_lowercase();
    let mut packet = Packet::new_reply(asked.id());
    packet.questions.push(question.clone());
    let v4 = question.qtype == QTYPE::TYPE(TYPE::A);
    let text = |s: &'static str| Name::new(s).expect("a name");
    let mut add = |owner: Name<'static>, data: RData<'static>| {
        packet.answers.push(ResourceRecord::new(owner, CLASS::IN, 60, data));
    };
    let address = |n: u8| RData::A(A { address: u32::from_be_bytes([192, 0, 2, n]) });
    match name.as_str() {
        "plain.example" if v4 => add(text("plain.example"), address(1)),
        "plain.example" => add(text("plain.example"), RData::AAAA(AAAA { address: 0x2001_0db8 << 96 | 1 })),
        // The alias comes after what it leads to.
        "alias.example" if v4 => {
            add(text("b.example"), address(2));
            add(text("A.example"), RData::CNAME(CNAME(text("b.example"))));
            add(text("alias.example"), RData::CNAME(CNAME(text("a.EXAMPLE"))));
        }
        "loop.example" if v4 => {
            add(text("loop.example"), RData::CNAME(CNAME(text("pool.example"))));
            add(text("pool.example"), RData::CNAME(CNAME(text("loop.example"))));
        }
        "stranger.example" if v4 => add(text("other.example"), address(66)),
        "long.example" if v4 && over_tcp => (1..=20).for_each(|n| add(text("long.example"), address(n))),
        "forged.example" if v4 => add(text("forged.example"), address(3)),
        "box.search.example" if v4 => add(text("box.search.example"), address(4)),
        "six.example" if !v4 => {
            add(text("six.example"), RData::AAAA(AAAA { address: 0x2001_0db8 << 96 | 6 }))
        }
        _ => {}
    }
    match name.as_str() {
        "long.example" if !over_tcp => packet.set_flags(PacketFlag::TRUNCATION),
        "broken.example" => *packet.rcode_mut() = RCODE::ServerFailure,
        "six.example" if v4 => *packet.rcode_mut() = RCODE::ServerFailure,
        _ if packet.answers.is_empty() => *packet.rcode_mut() = RCODE::NameError,
        _ => {}
    }
    let good = packet.build_bytes_vec().expect("builds");
    if name != "forged.example" {
        return vec![good];
    }
    // Before the true answer: one with another id, one to another question, one that is noise.
    let mut id = good.clone();
    id[0] ^= 0x55;
    let mut other = Packet::new_reply(asked.id());
    let mut question = question.clone();
    question.qname = text("evil.example");
    other.questions.push(question);
    vec![id, other.build_bytes_vec().expect("builds"), vec![0xff; 40], good]
}

/// A server on UDP and TCP; its threads end with the test's process.
fn serve() -> SocketAddr {
    let udp = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let address = udp.local_addr().expect("bound");
    let tcp = TcpListener::bind(address).expect("binds the same port");
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((n, peer)) = udp.recv_from(&mut buffer) {
            for answer in reply(&buffer[..n], false) {
                udp.send_to(&answer, peer).expect("sends");
            }
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.expect("accepts");
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("reads");
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut message).expect("reads");
            let answer = reply(&message, true).pop().expect("an answer");
            let length = u16::try_from(answer.len()).expect("short");
            stream.write_all(&length.to_be_bytes()).expect("writes");
            stream.write_all(&answer).expect("writes");
        }
    });
    address
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn config(servers: Vec<SocketAddr>) -> Config {
    Config { servers, ..Config::parse("search search.example\noptions timeout:2 attempts:1") }
}

#[test]
fn names_are_looked_up_whatever_tricks_the_answer_plays() {
    let config = config(vec![serve()]);
    let table = [
        ("plain.example", "192.0.2.1 2001:db8::1"),
        ("PLAIN.example.", "192.0.2.1 2001:db8::1"),
        ("alias.example", "192.0.2.2"),
        ("forged.example", "192.0.2.3"),
        ("box", "192.0.2.4"),
        ("six.example", "2001:db8::6"),
        ("long.example", "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 192.0.2.6 192.0.2.7 192.0.2.8"),
    ];
    for (name, want) in table {
        let found = ask(&config, name, soon()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let found: Vec<String> = found.iter().map(IpAddr::to_string).collect();
        assert_eq!(found.join(" "), want, "{name}");
    }
    for name in ["missing.example", "loop.example", "stranger.example"] {
        assert!(matches!(ask(&config, name, soon()), Err(ResolveError::NotFound(_))), "{name}");
    }
    assert!(matches!(ask(&config, "broken.example", soon()), Err(ResolveError::NoAnswer { .. })));
    assert!(matches!(ask(&config, "a b", soon()), Err(ResolveError::BadName(_))));
}

#[test]
fn a_server_that_is_not_there_is_passed_over() {
    let nobody = UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a free port");
    let found = ask(&config(vec![nobody, serve()]), "plain.example", soon()).expect("the second one answers");
    assert_eq!(found.len(), 2);
}

#[test]
fn a_silent_server_is_an_error_by_the_deadline() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let config = config(vec![silent.local_addr().expect("bound")]);
    let deadline = Instant::now() + Duration::from_millis(50);
    assert!(matches!(ask(&config, "plain.example", deadline), Err(ResolveError::NoAnswer { .. })));
}

#[test]
fn addresses_and_localhost_need_no_server_and_no_files() {
    let nowhere = Resolver { hosts: "/nonexistent".into(), resolv_conf: "/nonexistent".into() };
    let table = [
        ("192.0.2.1", "192.0.2.1"),
        ("[::1]", "::1"),
        ("localhost", "127.0.0.1 ::1"),
        ("A.LocalHost.", "127.0.0.1 ::1"),
    ];
    for (name, want) in table {
        let found: Vec<String> =
            nowhere.lookup(name, soon()).expect(name).iter().map(IpAddr::to_string).collect();
        assert_eq!(found.join(" "), want);
    }
}
