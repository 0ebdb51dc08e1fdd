//! Names of VMs: whether bangerd's DNS server answers, and whether this host asks it. Both are tried, not looked up (FAULTS F12).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use crate::network::suffix::Suffix;
use crate::proto::finding::{Finding, Fix};

const PATIENCE: Duration = Duration::from_secs(2);
/// Nobody else's: whoever answers with another one answers another question.
const ID: [u8; 2] = [0xba, 0x9e];

/// `vms`: how many are on the bridge.
pub fn rows(port: u16, suffix: &Suffix, vms: usize) -> Vec<Finding> {
    let own = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let mut rows = vec![server(&ask(own, suffix), own, vms)];
    let servers =
        std::fs::read_to_string("/etc/resolv.conf").map(|text| nameservers(&text)).unwrap_or_default();
    // Its own directory, which goes with it.
    let is_resolved = Path::new("/run/systemd/resolve").exists();
    let (asked, server) = match servers.first() {
        Some(server) => (ask(SocketAddr::new(*server, 53), suffix), *server),
        None => (Err(io::ErrorKind::NotFound.into()), Ipv4Addr::LOCALHOST.into()),
    };
    rows.push(resolver(&asked, server, suffix, vms, is_resolved));
    rows
}

/// What an answer says in its header (RFC 1035, section 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reply {
    authoritative: bool,
    code: u8,
    answers: u16,
}

/// Asks `server` who is the authority for the zone of VMs.
fn ask(server: SocketAddr, suffix: &Suffix) -> io::Result<Reply> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&query(suffix))?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    parse(&answer[..length]).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A question for the SOA record of the zone (RFC 1035, sections 4.1.1 and 4.1.2).
fn query(suffix: &Suffix) -> Vec<u8> {
    const RECURSION_DESIRED: [u8; 2] = [1, 0];
    const ONE_QUESTION: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];
    const SOA_IN: [u8; 4] = [0, 6, 0, 1];
    let mut query = [&ID[..], &RECURSION_DESIRED, &ONE_QUESTION].concat();
    for label in suffix.as_str().split('.') {
        // A label has at most 63 bytes.
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(SOA_IN);
    query
}

fn parse(answer: &[u8]) -> Option<Reply> {
    let header: &[u8; 12] = answer.first_chunk()?;
    let is_answer = header[..2] == ID && header[2] & 0x80 != 0;
    is_answer.then(|| Reply {
        authoritative: header[2] & 0x04 != 0,
        code: header[3] & 0x0f,
        answers: u16::from_be_bytes([header[6], header[7]]),
    })
}

/// The servers that resolv.conf(5) names.
fn nameservers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
    };
    text.lines().filter_map(server).collect()
}

fn server(asked: &io::Result<Reply>, at: SocketAddr, vms: usize) -> Finding {
    let subject = "dns";
    match asked {
        Ok(reply) if reply.authoritative && reply.code == 0 => {
            Finding::pass(subject, format!("answers at {at}"))
        }
        Ok(_) => Finding::warn(
            subject,
            format!("another program answers at {at}"),
            "Set `dns_port` in config.toml to a port that is free, then `banger daemon stop`.",
        ),
        // It listens once there is a bridge (daemon/dns.rs).
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && vms == 0 => {
            Finding::pass(subject, "not listening yet; the first VM with a network starts it")
        }
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Finding::warn(
            subject,
            format!("nothing answers at {at}"),
            "The daemon's log says why it does not listen there; `banger daemon stop`, and it tries again.",
        ),
        Err(e) => Finding::warn(
            subject,
            format!("no answer at {at}: {e}"),
            "If another program has that port, set `dns_port` in config.toml to one that is free, then `banger daemon stop`.",
        ),
    }
}

/// `is_resolved`: systemd-resolved runs here.
fn resolver(
    asked: &io::Result<Reply>,
    at: IpAddr,
    suffix: &Suffix,
    vms: usize,
    is_resolved: bool,
) -> Finding {
    let subject = "resolver";
    match asked {
        Ok(reply) if reply.code == 0 && reply.answers > 0 => {
            Finding::pass(subject, format!("{at} knows names below .{suffix}"))
        }
        // systemd-resolved asks nobody on a link without a carrier, and a bridge has none without a port (resolvectl status, with 252).
        Ok(_) | Err(_) if vms == 0 => Finding::pass(
            subject,
            format!("names below .{suffix} are asked for once a VM runs; look again then"),
        ),
        Ok(_) | Err(_) => {
            let row = Finding::warn(
                subject,
                format!("this host's resolver, {at}, does not know names below .{suffix}"),
                "The README says, under Names, how systemd-resolved, dnsmasq and NetworkManager are told; until then use addresses.",
            );
            // Others are told by hand.
            if is_resolved { row.mended_by(Fix::Resolver) } else { row }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(authoritative: bool, code: u8, answers: u16) -> io::Result<Reply> {
        Ok(Reply { authoritative, code, answers })
    }

    #[test]
    fn the_server_is_judged_by_its_answer() {
        let at: SocketAddr = "127.0.0.1:42069".parse().expect("an address");
        let shown = |asked: io::Result<Reply>| server(&asked, at, 1).line();
        assert_eq!(shown(reply(true, 0, 1)), "Pass dns: answers at 127.0.0.1:42069");
        assert!(
            shown(reply(false, 0, 1))
                .starts_with("Warn dns: another program answers at 127.0.0.1:42069 => Set `dns_port`")
        );
        assert!(shown(reply(true, 5, 0)).starts_with("Warn dns: another program"));
        assert!(
            shown(Err(io::ErrorKind::ConnectionRefused.into()))
                .starts_with("Warn dns: nothing answers at 127.0.0.1:42069")
        );
        let refused = Err(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(
            server(&refused, at, 0).line(),
            "Pass dns: not listening yet; the first VM with a network starts it"
        );
        assert!(
            shown(Err(io::ErrorKind::TimedOut.into()))
                .starts_with("Warn dns: no answer at 127.0.0.1:42069: timed out")
        );
    }

    #[test]
    fn the_resolver_is_judged_by_what_it_knows() {
        let at: IpAddr = "127.0.0.53".parse().expect("an address");
        let shown = |asked: io::Result<Reply>| resolver(&asked, at, &Suffix::default(), 1, true).line();
        assert_eq!(shown(reply(false, 0, 1)), "Pass resolver: 127.0.0.53 knows names below .vm");
        for asked in [reply(false, 3, 0), reply(true, 0, 0), Err(io::ErrorKind::TimedOut.into())] {
            assert!(shown(asked).starts_with(
                "Warn resolver: this host's resolver, 127.0.0.53, does not know names below .vm"
            ));
        }
        for (code, want) in
            [(0, "127.0.0.53 knows names below .vm"), (3, "names below .vm are asked for once")]
        {
            let shown = resolver(&reply(false, code, 1), at, &Suffix::default(), 0, true).line();
            assert!(shown.starts_with(&format!("Pass resolver: {want}")), "{shown}");
        }
    }

    #[test]
    fn a_question_is_asked_and_its_answer_read_over_a_socket() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let at = server.local_addr().expect("has an address");
        let suffix: Suffix = "dev.internal".parse().expect("a suffix");
        let answering = std::thread::spawn(move || {
            let mut question = [0; 512];
            let (length, client) = server.recv_from(&mut question).expect("a question");
            let packet = simple_dns::Packet::parse(&question[..length]).expect("that others can read");
            assert_eq!(packet.questions[0].qname.to_string(), "dev.internal");
            assert_eq!(packet.questions[0].qtype, simple_dns::QTYPE::TYPE(simple_dns::TYPE::SOA));
            let mut answer = question[..length].to_vec();
            answer[2] |= 0x84;
            answer[7] = 1;
            server.send_to(&answer, client).expect("answers");
        });
        assert_eq!(ask(at, &suffix).expect("an answer"), Reply { authoritative: true, code: 0, answers: 1 });
        answering.join().expect("answers");
        assert_eq!(ask(at, &suffix).expect_err("it has gone").kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn what_is_no_answer_is_none() {
        assert_eq!(parse(b"short"), None);
        assert_eq!(parse(&query(&Suffix::default())), None, "a question");
        assert_eq!(parse(&[0; 12]), None, "another's");
    }

    #[test]
    fn servers_are_read_as_the_c_library_reads_them() {
        let text = "# nameserver 1.1.1.1\nsearch x\nnameserver 127.0.0.53\n nameserver\t::1\nnameserver x\n";
        let want: [IpAddr; 2] = [[127, 0, 0, 53].into(), std::net::Ipv6Addr::LOCALHOST.into()];
        assert_eq!(nameservers(text), want);
    }
}
