//! What listens in this guest: the kernel's tables of sockets (proc_net_tcp: Documentation/networking/proc_net_tcp.rst), and whose
//! they are. An image need not have `ss`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::proto::agent::{MAX_PORTS, Port};
use crate::vm::publish::Protocol;

/// A socket that waits for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listening {
    pub port: u16,
    pub protocol: Protocol,
    pub address: IpAddr,
    inode: u64,
}

const TABLES: [(&str, Protocol); 4] = [
    ("/proc/net/tcp", Protocol::Tcp),
    ("/proc/net/tcp6", Protocol::Tcp),
    ("/proc/net/udp", Protocol::Udp),
    ("/proc/net/udp6", Protocol::Udp),
];
/// net/tcp_states.h. A socket of UDP that is not connected says TCP_CLOSE.
const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";
const CLOSE: &str = "07";

/// All that listens, by port; at most [`MAX_PORTS`]. Several sockets of one address, which share it, are one.
pub fn ports() -> Vec<Port> {
    let mut sockets = listening();
    sockets.sort();
    sockets.dedup_by_key(|s| (s.port, s.protocol, s.address));
    sockets.truncate(MAX_PORTS);
    let holders = holders(&sockets.iter().map(|s| s.inode).collect());
    let port = |socket: &Listening| {
        let pid = holders.get(&socket.inode).copied();
        Port {
            protocol: socket.protocol,
            address: socket.address,
            port: socket.port,
            pid,
            program: pid.and_then(name_of),
        }
    };
    sockets.iter().map(port).collect()
}

/// All that listens, in no order. A table that is not there (a kernel without IPv6) is an empty one.
pub fn listening() -> Vec<Listening> {
    let mut all = vec![];
    for (path, protocol) in TABLES {
        let Ok(file) = File::open(path) else { continue };
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        all.extend(lines.filter_map(|line| parse(&line, protocol)));
    }
    all
}

/// How many connections of TCP there are with others than this guest itself.
pub fn connections() -> u32 {
    let mut count = 0;
    for (path, protocol) in TABLES {
        let (Protocol::Tcp, Ok(file)) = (protocol, File::open(path)) else { continue };
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        count += lines.filter(|line| is_connection(line)).count() as u32;
    }
    count
}

/// Whether a line of a table is a connection with somebody else.
fn is_connection(line: &str) -> bool {
    let mut fields = line.split_ascii_whitespace().skip(2);
    let (peer, state) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
    let address = peer.split_once(':').and_then(|(address, _)| parse_address(address));
    state == ESTABLISHED && address.is_some_and(|address| !address.is_loopback())
}

/// A line of a table: `0: 0100007F:1F90 00000000:0000 0A ... uid timeout inode ...`. None for a socket that does not wait.
pub fn parse(line: &str, protocol: Protocol) -> Option<Listening> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _peer, state) = (fields.next()?, fields.next()?, fields.next()?);
    let waits = match protocol {
        Protocol::Tcp => LISTEN,
        Protocol::Udp => CLOSE,
    };
    if state != waits {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok().filter(|port| *port != 0)?;
    // tx_queue:rx_queue, tr:tm->when, retrnsmt, uid and timeout are in between.
    Some(Listening { port, protocol, address: parse_address(address)?, inode: fields.nth(5)?.parse().ok()? })
}

/// Words of 32 bits, each as the processor reads it from memory where the address lies in network order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (n, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(n * 8)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// Which process has each of these sockets open: the one with the lowest number, which started the others.
fn holders(inodes: &BTreeSet<u64>) -> BTreeMap<u64, u32> {
    let mut found = BTreeMap::new();
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .map(|entries| entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
        .unwrap_or_default();
    pids.sort_unstable();
    for pid in pids {
        // It may end at any moment.
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for link in entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()) {
            let inode =
                link.to_str().and_then(|l| l.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                found.entry(inode).or_insert(pid);
            }
        }
    }
    found
}

fn name_of(pid: u32) -> Option<String> {
    let comm = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(comm.trim_ascii_end()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_as_the_kernel_writes_them() {
        let tcp = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0";
        let read = parse(tcp, Protocol::Tcp).expect("it listens");
        assert_eq!((read.address, read.port, read.inode), (Ipv4Addr::LOCALHOST.into(), 8080, 4711));
        let v6 = "   1: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12 2 0 0";
        let read = parse(v6, Protocol::Udp).expect("it waits");
        assert_eq!((read.address, read.port, read.inode), (Ipv6Addr::LOCALHOST.into(), 53, 12));
        let mapped = "2: 0000000000000000FFFF00000100000A:0016 0:0 0A 0:0 0:0 0 0 0 9 1";
        assert_eq!(parse(mapped, Protocol::Tcp).expect("it listens").address, IpAddr::from([10, 0, 0, 1]));
    }

    #[test]
    fn a_connection_is_one_with_somebody_else() {
        let connection = |peer: &str, state: &str| {
            is_connection(&format!("3: 0100000A:1F90 {peer} {state} 0:0 0:0 0 0 0 9 1"))
        };
        assert!(connection("0200000A:C000", "01"));
        assert!(!connection("0100007F:C000", "01"), "with itself");
        assert!(!connection("0200000A:C000", "06"), "it has ended");
        assert!(!is_connection("  sl  local_address rem_address   st"));
    }

    #[test]
    fn what_does_not_listen_and_what_is_no_line_is_left_out() {
        let connected = "0: 0100007F:1F90 0100007F:C000 01 0:0 0:0 0 0 0 9 1";
        for line in [
            "",
            "  sl  local_address rem_address   st tx_queue",
            connected,
            "0: 7F:1 0:0 0A 0 0 0 0 0 9",
            "0: 0100007F:1F90",
        ] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                assert_eq!(parse(line, protocol), None, "{line:?}");
            }
        }
    }

    #[test]
    fn a_socket_of_this_process_is_found_with_its_program() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
        let ports = ports();
        for (protocol, address) in [
            (Protocol::Tcp, tcp.local_addr().expect("has an address")),
            (Protocol::Udp, udp.local_addr().expect("has an address")),
        ] {
            let mine = ports.iter().find(|p| (p.protocol, p.port) == (protocol, address.port()));
            let mine = mine.expect("it is listed");
            assert_eq!((mine.address, mine.pid), (address.ip(), Some(std::process::id())));
            let comm = fs::read_to_string("/proc/self/comm").expect("reads");
            assert_eq!(mine.program.as_deref(), Some(comm.trim_end()));
        }
    }
}
