//! Asking the host's own resolvers for a guest: one after the other, over UDP, or over TCP for a guest that came by TCP.
//!
//! Each attempt has a socket of its own, and so a port that the kernel picks at random (linux: net/ipv4/udp.c, udp_lib_get_port),
//! connected, so that only that server is heard, and a random id: whoever forges an answer has to guess both.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use smol::future::FutureExt;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::{Async, Timer};

use crate::dns::answer::{Heard, hear};
use crate::dns::query::Query;
use crate::dns::rebind::Forbidden;
use crate::host::resolver::Config;

/// A server that says nothing for so long is passed over; the next one may answer before the guest gives up, after 5 seconds as a
/// rule (resolv.conf(5)).
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long all of it may take.
const DEADLINE: Duration = Duration::from_secs(8);
/// More than we ever offer to take.
const DATAGRAM: usize = 4096;
/// So many wrong answers are read before a server is passed over.
const FORGERIES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What the servers say.
#[derive(Debug)]
pub enum Outcome {
    /// For the asker.
    Answer(Vec<u8>),
    /// None of them has an answer; what the last one said to that, if it said anything.
    Nothing(Option<Vec<u8>>),
    CutShort,
    Rebinds(IpAddr),
}

/// The servers that the file `resolv_conf` names at this moment, without those that are us.
pub fn servers(resolv_conf: &Path, ours: &[SocketAddr], forbidden: Forbidden) -> Config {
    // A file that is not there says nothing (resolv.conf(5)).
    let text = std::fs::read(resolv_conf).unwrap_or_default();
    without(Config::parse(&String::from_utf8_lossy(&text)), ours, forbidden)
}

/// `config` without servers that are us, or a guest, who would ask us: the question would come back.
pub fn without(mut config: Config, ours: &[SocketAddr], forbidden: Forbidden) -> Config {
    config.servers.retain(|server| {
        let on_the_bridge = matches!(server, SocketAddr::V4(v4) if forbidden.bridge.contains(*v4.ip()));
        !on_the_bridge && !ours.contains(server)
    });
    config
}

/// Asks until one has an answer.
pub async fn ask(query: &Query, config: &Config, transport: Transport, forbidden: Forbidden) -> Outcome {
    let mut said = None;
    let all = async {
        for _ in 0..config.attempts {
            for server in &config.servers {
                match attempt(query, *server, transport, forbidden).await {
                    Ok(Heard::Answer(answer)) => return Some(Outcome::Answer(answer)),
                    Ok(Heard::CutShort) => return Some(Outcome::CutShort),
                    Ok(Heard::Rebinds(address)) => return Some(Outcome::Rebinds(address)),
                    Ok(Heard::Trouble(answer)) => said = Some(answer),
                    Ok(Heard::Malformed) => log::debug!("the name server {server} sent something malformed"),
                    Err(e) => log::debug!("the name server {server} did not answer: {e}"),
                }
            }
            // A server that has spoken will say the same again.
            if said.is_some() {
                break;
            }
        }
        None
    };
    let enough = async {
        Timer::after(DEADLINE).await;
        None
    };
    let outcome = all.or(enough).await;
    outcome.unwrap_or(Outcome::Nothing(said))
}

async fn attempt(
    query: &Query,
    server: SocketAddr,
    transport: Transport,
    forbidden: Forbidden,
) -> io::Result<Heard> {
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    let id = u16::from_ne_bytes(id);
    let work = async {
        match transport {
            Transport::Udp => over_udp(query, id, server, forbidden).await,
            Transport::Tcp => over_tcp(query, id, server, forbidden).await,
        }
    };
    let silence = async {
        Timer::after(PATIENCE).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    work.or(silence).await
}

async fn over_udp(query: &Query, id: u16, server: SocketAddr, forbidden: Forbidden) -> io::Result<Heard> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = Async::new(UdpSocket::bind(any)?)?;
    socket.get_ref().connect(server)?;
    socket.send(&query.message(id)).await?;
    let mut datagram = [0; DATAGRAM];
    for _ in 0..FORGERIES {
        let length = socket.recv(&mut datagram).await?;
        match hear(query, id, &datagram[..length], forbidden) {
            None => {}
            // It has been cut off here.
            Some(_) if length == DATAGRAM => return Ok(Heard::CutShort),
            Some(heard) => return Ok(heard),
        }
    }
    Err(io::Error::other("it sends answers to other questions"))
}

async fn over_tcp(query: &Query, id: u16, server: SocketAddr, forbidden: Forbidden) -> io::Result<Heard> {
    let mut stream = Async::<TcpStream>::connect(server).await?;
    stream.write_all(&framed(&query.message(id))?).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).await?;
    match hear(query, id, &message, forbidden) {
        Some(Heard::CutShort) | None => Err(io::ErrorKind::InvalidData.into()),
        Some(heard) => Ok(heard),
    }
}

/// `message` with its length before it (RFC 1035, 4.2.2).
pub fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut bytes = Vec::with_capacity(2 + message.len());
    bytes.extend(length.to_be_bytes());
    bytes.extend(message);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::subnet;

    #[test]
    fn whoever_would_ask_us_in_turn_is_not_asked() {
        let servers = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().expect("an address")).collect()
        };
        let config = Config {
            servers: servers(&[
                "127.0.0.1:42069",
                "127.0.0.53:53",
                "172.16.0.1:53",
                "172.16.0.9:53",
                "[::1]:53",
            ]),
            ..Config::parse("")
        };
        let ours = servers(&["127.0.0.1:42069", "172.16.0.1:42069"]);
        let kept = without(config, &ours, Forbidden { bridge: subnet::DEFAULT });
        assert_eq!(kept.servers, servers(&["127.0.0.53:53", "[::1]:53"]));
    }
}
