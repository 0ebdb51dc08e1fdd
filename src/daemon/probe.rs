//! Which of a guest's ports are web servers: each is asked, through the guest's agent, so that no network is needed. First with the
//! greeting of TLS, which a plain web server answers in HTTP, mostly; a server that answers neither is asked in HTTP. Of what it
//! says a few bytes are looked at, and it may take its time for as long as nobody waits: there are deadlines.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use smol::{Async, Timer, future};

use crate::daemon::Shared;
use crate::daemon::dial::{dial, read, write_all};
use crate::proto::agent::{Answer, Connect, Port, Request};
use crate::proto::api::Scheme;
use crate::proto::frame::{Frame, HEADER, Header, Kind};
use crate::vm::publish::Protocol;
use crate::vmm::Channel;

/// How long a server may take for the first bytes of an answer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How many are asked at a time, and how many at all.
const AT_ONCE: usize = 8;
const MOST: usize = 64;
/// How much of an answer is looked at.
const LOOK: usize = 6;

/// Where a port is asked: None: on the guest's loopback.
type Place = (Option<IpAddr>, u16);

/// What each of `ports` speaks; those that speak neither are left out.
pub async fn schemes(d: &Shared, channel: &Channel, ports: &[Port]) -> BTreeMap<Place, Scheme> {
    let mut places: Vec<Place> =
        ports.iter().filter(|port| port.protocol == Protocol::Tcp).map(place).collect();
    places.sort_unstable();
    places.dedup();
    places.truncate(MOST);
    let (found, results) = smol::channel::unbounded();
    let mut asking = vec![];
    for worker in 0..AT_ONCE {
        let mine: Vec<Place> = places.iter().copied().skip(worker).step_by(AT_ONCE).collect();
        let (channel, found) = (channel.clone(), found.clone());
        asking.extend(d.spawn(async move {
            for place in mine {
                if let Some(scheme) = scheme(&channel, place).await
                    && found.try_send((place, scheme)).is_err()
                {
                    return;
                }
            }
        }));
    }
    drop(found);
    for task in asking {
        task.await;
    }
    std::iter::from_fn(|| results.try_recv().ok()).collect()
}

/// A server on all addresses is asked on the loopback, as is one that listens there.
pub fn place(port: &Port) -> Place {
    let own = !port.address.is_loopback() && !port.address.is_unspecified();
    (own.then_some(port.address), port.port)
}

async fn scheme(channel: &Channel, place: Place) -> Option<Scheme> {
    match judge(&answer(channel, place, &client_hello()).await) {
        Some(scheme) => Some(scheme),
        // A server of HTTP says so in its first words, whatever it thinks of the question.
        None => {
            judge(&answer(channel, place, b"HEAD / HTTP/1.0\r\n\r\n").await).filter(|s| *s == Scheme::Http)
        }
    }
}

/// What an answer begins with, by RFC 8446 (5.1: handshake or alert, 4: ServerHello) and RFC 9112 (4).
fn judge(answer: &[u8]) -> Option<Scheme> {
    match answer {
        // Whoever sends back what it gets sends a ClientHello.
        [0x16, 3, _, _, _, 2, ..] => Some(Scheme::Https),
        [0x15, 3, _, 0, 2, ..] => Some(Scheme::Https),
        [b'H', b'T', b'T', b'P', b'/', ..] => Some(Scheme::Http),
        _ => None,
    }
}

/// The first bytes of what the server says to `question`; what there is of them when it hangs up, fails, or takes too long.
async fn answer(channel: &Channel, (host, port): Place, question: &[u8]) -> Vec<u8> {
    let request = Request::Connect(Connect { port, protocol: Protocol::Tcp, host });
    let asked = async {
        let (Answer::Done, fd) = dial(channel, &request, PATIENCE).await.ok()? else { return None };
        write_all(&fd, &Frame::new(Kind::Data, question).bytes()).await.ok()?;
        Some(beginning(&fd).await)
    };
    let late = async {
        Timer::after(PATIENCE).await;
        None
    };
    future::or(asked, late).await.unwrap_or_default()
}

async fn beginning(fd: &Async<OwnedFd>) -> Vec<u8> {
    let mut seen = vec![];
    while seen.len() < LOOK {
        let Some(header) = exactly(fd, HEADER).await else { break };
        let header = <[u8; HEADER]>::try_from(header).ok().and_then(|header| Header::parse(header).ok());
        let Some(Header { kind: Kind::Data, length }) = header else { break };
        let wanted = length.min(LOOK - seen.len());
        let Some(piece) = exactly(fd, wanted).await else { break };
        seen.extend(piece);
        // What is behind would have to be read to find the next frame: what there is is enough.
        if wanted < length {
            break;
        }
    }
    seen
}

/// So many bytes; None if they do not come.
async fn exactly(fd: &Async<OwnedFd>, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match read(fd, &mut bytes[filled..]).await.ok()? {
            0 => return None,
            n => filled += n,
        }
    }
    Some(bytes)
}

/// A greeting that every server of TLS 1.2 or 1.3 can answer, by a ServerHello or by an alert (RFC 8446, 4.1.2; RFC 5246, 7.4.1.2).
fn client_hello() -> Vec<u8> {
    // server_name: localhost.
    let name = b"localhost";
    let mut extensions = vec![0, 0];
    extensions.extend(counted(&counted(&[&[0], &counted(name)[..]].concat())));
    for (kind, content) in [
        // supported_groups: secp256r1, secp384r1. Without a key share, a server of 1.3 asks for one, which is an answer too.
        (10u16, &[0, 4, 0, 0x17, 0, 0x18][..]),
        // ec_point_formats: uncompressed.
        (11, &[1, 0]),
        // signature_algorithms: ECDSA and RSA with SHA-256, RSA-PSS with SHA-256, Ed25519.
        (13, &[0, 8, 4, 3, 4, 1, 8, 4, 8, 7]),
    ] {
        extensions.extend(kind.to_be_bytes());
        extensions.extend(counted(content));
    }
    // ECDHE with AES-GCM or ChaCha20, ECDSA or RSA, and RSA alone for old ones.
    const SUITES: [u16; 8] = [0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0x009c, 0x002f];
    let suites: Vec<u8> = SUITES.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    let mut hello = vec![3, 3];
    // The random part keeps no secret here.
    hello.extend([0x5a; 32]);
    hello.push(0);
    hello.extend(counted(&suites));
    hello.extend([1, 0]);
    hello.extend(counted(&extensions));
    let mut handshake = vec![1, 0];
    handshake.extend(counted(&hello));
    let mut record = vec![0x16, 3, 1];
    record.extend(counted(&handshake));
    record
}

/// `bytes` behind their length in two bytes.
fn counted(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), bytes].concat()
}
