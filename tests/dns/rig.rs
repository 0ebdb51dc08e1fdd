//! A server with two VMs, and dig.

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use banger::dns::names::Names;
use banger::dns::service::{DnsError, Face, Guests, Listening, Service, Upstream};
use banger::host::resolver::Config;
use banger::network::subnet;

/// From here guests ask.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 2);
/// And another one.
pub const OTHER: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 3);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 1);

pub struct Rig {
    pub names: Names,
    pub host: Listening,
    pub guests: Listening,
    _service: Service,
}

/// What dig saw of a reply.
#[derive(Debug, Default)]
pub struct Dug {
    pub text: String,
    pub status: String,
    pub flags: Vec<String>,
    /// Of each record of the answer the type and the value.
    pub answer: Vec<String>,
    pub authority: Vec<String>,
}

impl Rig {
    pub fn new(upstream: Upstream) -> Self {
        let names = Names::new(&"vm".parse().expect("a suffix"));
        names.set_subnet(subnet::DEFAULT);
        for (name, slot) in [("dev", 2), ("web", 3)] {
            let address = subnet::DEFAULT.address(slot).expect("an address");
            names.insert(&name.parse().expect("a name"), address);
        }
        let service = Service::start(names.clone(), upstream).expect("starts");
        let host = listen(&service, Ipv4Addr::LOCALHOST, Face::Host);
        let face = Face::Guests(Guests { bridge: subnet::DEFAULT, gateway: GATEWAY, prefix: 16 });
        let guests = listen(&service, GATEWAY, face);
        Self { names, host, guests, _service: service }
    }

    /// With these upstream servers, each asked twice.
    pub fn asking(servers: &[SocketAddr]) -> Self {
        let config = Config { servers: servers.to_vec(), attempts: 2, ..Config::parse("") };
        Self::new(Upstream::Fixed(config))
    }

    /// What dig, as a program on this machine, gets for these words.
    pub fn host_digs(&self, words: &str) -> Dug {
        dig(self.host.address(), Ipv4Addr::LOCALHOST, words)
    }

    pub fn guest_digs(&self, words: &str) -> Dug {
        dig(self.guests.address(), GUEST, words)
    }
}

/// On any port; the kernel's choice for UDP may be taken for TCP.
fn listen(service: &Service, address: Ipv4Addr, face: Face) -> Listening {
    for _ in 0..100 {
        match service.listen((address, 0).into(), face) {
            Ok(listening) => return listening,
            Err(DnsError::Busy(_)) => {}
            Err(e) => panic!("{e}"),
        }
    }
    panic!("no port is free for both");
}

pub fn dig(server: SocketAddr, from: Ipv4Addr, words: &str) -> Dug {
    let out = Command::new("dig")
        .args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "-b", &from.to_string()])
        .args([
            "+noall",
            "+comments",
            "+question",
            "+answer",
            "+authority",
            "+tries=1",
            "+time=10",
            "+nocookie",
        ])
        .args(words.split_whitespace())
        .output()
        .expect("dig runs (Debian: bind9-dnsutils)");
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    let mut dug = Dug::default();
    let mut section = "";
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("status: ") {
            dug.status = rest.split(',').next().unwrap_or_default().to_owned();
        } else if let Some(rest) = line.strip_prefix(";; flags: ") {
            let flags = rest.split(';').next().unwrap_or_default();
            dug.flags = flags.split(' ').map(str::to_owned).collect();
        } else if line.starts_with(";; ") {
            section = line;
        } else if !line.is_empty() && !line.starts_with(';') {
            let words: Vec<&str> = line.split_whitespace().collect();
            // Of what dig cannot read it says so in other words.
            let Some(record) = words.get(3..).map(|words| words.join(" ")) else { continue };
            match section {
                ";; ANSWER SECTION:" => dug.answer.push(record),
                ";; AUTHORITY SECTION:" => dug.authority.push(format!("{} {record}", words[0])),
                _ => {}
            }
        }
    }
    dug.text = text;
    dug
}

/// A question on the wire, for `name` and of type A.
pub fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// A socket of a guest's.
pub fn socket(from: Ipv4Addr, server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((from, 0)).expect("binds");
    socket.connect(server).expect("connects");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    socket
}

/// A connection of a guest's; the standard library binds none, so that it comes from where the kernel lets it.
pub fn connection(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

/// Waits until `done`.
pub fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
