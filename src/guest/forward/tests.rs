//! The agent's side of a connection, between a socket pair for the host and a program in a thread on loopback.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use super::*;

struct Host {
    stream: UnixStream,
    agent: JoinHandle<()>,
}

impl Host {
    fn connect(protocol: Protocol, port: u16) -> Self {
        let (stream, theirs) = UnixStream::pair().expect("a pair");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("sets a timeout");
        let wanted = Connect { port, protocol, host: None };
        let agent = std::thread::spawn(move || {
            // How a host that hung up is taken leave of is not what is tested.
            run(Wire::new(theirs.into()).expect("a wire"), &wanted).ok();
        });
        Self { stream, agent }
    }

    fn frame(&mut self) -> Option<Frame> {
        Frame::read(&mut self.stream).expect("reads a frame")
    }

    fn answer(&mut self) -> Answer {
        let frame = self.frame().expect("an answer");
        assert_eq!(frame.kind, Kind::Answer);
        serde_json::from_slice(&frame.payload).expect("an answer")
    }

    fn opened(protocol: Protocol, port: u16) -> Self {
        let mut host = Self::connect(protocol, port);
        assert_eq!(host.answer(), Answer::Done);
        host
    }

    fn send(&mut self, kind: Kind, payload: &[u8]) {
        Frame::new(kind, payload).write(&mut self.stream).expect("writes a frame");
    }

    fn hang_up(self) {
        drop(self.stream);
        self.agent.join().expect("the agent does not panic");
    }
}

fn program() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("has an address").port();
    (listener, port)
}

#[test]
fn each_direction_ends_by_itself() {
    let (listener, port) = program();
    let program = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("accepts");
        let mut asked = vec![];
        client.read_to_end(&mut asked).expect("reads to the client's end");
        client.write_all(&asked).expect("answers after it");
    });
    let mut host = Host::opened(Protocol::Tcp, port);
    host.send(Kind::Data, b"hello, ");
    host.send(Kind::Data, b"guest");
    host.send(Kind::Eof, b"");
    let mut said = vec![];
    let mut ends = 0;
    while ends < 2 {
        let frame = host.frame().expect("two ends");
        match frame.kind {
            Kind::Data => said.extend(frame.payload),
            Kind::Eof => ends += 1,
            kind => panic!("{kind:?}"),
        }
    }
    assert_eq!(said, b"hello, guest");
    program.join().expect("no panic");
    host.hang_up();
}

#[test]
fn what_a_slow_program_has_not_read_is_not_lost_when_it_ends_first() {
    let (listener, port) = program();
    let program = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("accepts");
        client.shutdown(std::net::Shutdown::Write).expect("ends its own");
        std::thread::sleep(Duration::from_millis(300));
        let mut all = vec![];
        client.read_to_end(&mut all).expect("reads").to_string()
    });
    let mut host = Host::opened(Protocol::Tcp, port);
    let mut writer = host.stream.try_clone().expect("clones");
    let feeder = std::thread::spawn(move || {
        for _ in 0..200 {
            Frame::new(Kind::Data, vec![7; 50_000]).write(&mut writer).expect("writes");
        }
        Frame::new(Kind::Eof, []).write(&mut writer).expect("writes");
    });
    assert_eq!(host.frame(), Some(Frame::new(Kind::Eof, [])), "the program's end");
    assert_eq!(host.frame(), Some(Frame::new(Kind::Eof, [])), "all is passed on");
    feeder.join().expect("no panic");
    host.hang_up();
    assert_eq!(program.join().expect("no panic"), "10000000");
}

#[test]
fn a_program_that_does_not_read_makes_the_host_wait() {
    let (listener, port) = program();
    let mut host = Host::opened(Protocol::Tcp, port);
    let (client, _) = listener.accept().expect("accepts");
    host.stream.set_write_timeout(Some(Duration::from_millis(500))).expect("sets a timeout");
    let mut sent = 0usize;
    let full = loop {
        match Frame::new(Kind::Data, vec![0; 60_000]).write(&mut host.stream) {
            Ok(()) => sent += 60_000,
            Err(e) => break e,
        }
        assert!(sent < 100_000_000, "somebody takes all of it");
    };
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    drop(client);
    host.hang_up();
}

#[test]
fn a_host_that_hangs_up_resets_the_program() {
    let (listener, port) = program();
    for ended in [false, true] {
        let mut host = Host::opened(Protocol::Tcp, port);
        let (mut client, _) = listener.accept().expect("accepts");
        host.send(Kind::Data, b"x");
        let mut byte = [0];
        client.read_exact(&mut byte).expect("reads");
        if ended {
            host.send(Kind::Eof, b"");
            assert_eq!(client.read(&mut byte).expect("the end"), 0);
        }
        host.hang_up();
        let reset = loop {
            match client.write_all(&[0; 1000]) {
                Ok(()) => std::thread::sleep(Duration::from_millis(1)),
                Err(e) => break e,
            }
        };
        assert!(
            matches!(reset.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
            "{reset}"
        );
    }
}

#[test]
fn a_program_that_resets_fails_the_host() {
    let (listener, port) = program();
    let mut host = Host::opened(Protocol::Tcp, port);
    let (client, _) = listener.accept().expect("accepts");
    set_socket_linger(&client, Some(Duration::ZERO)).expect("is set");
    drop(client);
    assert_eq!(host.frame().map(|frame| frame.kind), Some(Kind::Failed));
    host.hang_up();
}

#[test]
fn a_host_that_breaks_the_protocol_resets_the_program() {
    let (listener, port) = program();
    for bytes in [&[99, 0, 0, 0, 0][..], &[7, 255, 255, 255, 255], &[8, 0, 0, 0, 0, 7, 1, 0, 0, 0, 0]] {
        let mut host = Host::opened(Protocol::Tcp, port);
        let (mut client, _) = listener.accept().expect("accepts");
        host.stream.write_all(bytes).expect("writes");
        host.agent.join().expect("the agent does not panic");
        let reset = loop {
            match client.write_all(&[0; 1000]) {
                Ok(()) => std::thread::sleep(Duration::from_millis(1)),
                Err(e) => break e,
            }
        };
        assert!(
            matches!(reset.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
            "{reset}"
        );
        drop(host.stream);
    }
}

#[test]
fn a_port_on_which_nothing_listens_is_refused() {
    let (listener, port) = program();
    drop(listener);
    let mut host = Host::connect(Protocol::Tcp, port);
    let Answer::Refused(refusal) = host.answer() else { panic!("it is open") };
    assert_eq!(refusal.code, Code::NotFound);
    assert!(
        refusal.message.starts_with(&format!("cannot connect to tcp port {port} in the guest: ")),
        "{refusal:?}"
    );
    host.hang_up();
}

#[test]
fn a_program_on_another_address_than_127_0_0_1_is_found() {
    // All of 127.0.0.0/8 is this machine's.
    let listener = TcpListener::bind("127.7.7.7:0").expect("binds");
    let port = listener.local_addr().expect("has an address").port();
    let host = Host::opened(Protocol::Tcp, port);
    listener.accept().expect("accepts");
    host.hang_up();
}

#[test]
fn datagrams_keep_their_borders_both_ways() {
    let program = UdpSocket::bind("127.7.7.8:0").expect("binds");
    let mut host = Host::opened(Protocol::Udp, program.local_addr().expect("has an address").port());
    let long = vec![9; 40_000];
    for datagram in [&b"one"[..], b"", &long] {
        host.send(Kind::Data, datagram);
        let mut buffer = vec![0; 65_535];
        let (length, client) = program.recv_from(&mut buffer).expect("receives");
        assert_eq!(&buffer[..length], datagram);
        program.send_to(&buffer[..length], client).expect("answers");
        assert_eq!(host.frame(), Some(Frame::new(Kind::Data, datagram)));
    }
    host.send(Kind::Eof, b"");
    host.hang_up();
}

#[test]
fn a_datagram_that_nobody_waits_for_ends_nothing() {
    let program = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let address = program.local_addr().expect("has an address");
    drop(program);
    let mut host = Host::opened(Protocol::Udp, address.port());
    host.send(Kind::Data, b"lost");
    std::thread::sleep(Duration::from_millis(50));
    let program = UdpSocket::bind(address).expect("binds again");
    program.set_read_timeout(Some(Duration::from_secs(60))).expect("sets a timeout");
    host.send(Kind::Data, b"found");
    let mut buffer = [0; 100];
    let length = program.recv(&mut buffer).expect("receives");
    assert_eq!(&buffer[..length], b"found");
    host.hang_up();
}

#[test]
fn loopback_is_preferred_and_an_unspecified_address_is_loopback() {
    let listening = |text: &str| {
        let at: SocketAddr = text.parse().expect("an address");
        let line = match at.ip() {
            IpAddr::V4(a) => format!("{:08X}", u32::from_ne_bytes(a.octets())),
            IpAddr::V6(a) => {
                let words = a.octets();
                words
                    .chunks(4)
                    .map(|w| format!("{:08X}", u32::from_ne_bytes([w[0], w[1], w[2], w[3]])))
                    .collect()
            }
        };
        let line = format!("0: {line}:{:04X} 0:0 0A 0:0 0:0 0 0 0 1 1", at.port());
        ports::parse(&line, Protocol::Tcp).expect("it listens")
    };
    let found = |port: u16, texts: &[&str]| {
        let wanted = Connect { port, protocol: Protocol::Tcp, host: None };
        let all: Vec<Listening> = texts.iter().map(|text| listening(text)).collect();
        addresses(&wanted, &all).iter().map(IpAddr::to_string).collect::<Vec<_>>()
    };
    assert_eq!(found(80, &["10.0.0.2:80", "[::1]:80", "10.0.0.2:81"]), ["::1", "10.0.0.2"]);
    assert_eq!(found(80, &["[::]:80", "0.0.0.0:80"]), ["127.0.0.1", "::1"]);
    assert!(found(80, &["0.0.0.0:81"]).is_empty());
}
