//! UDP: each client, that is each address which sends, has a session with a socket of its own in the guest, so that answers find
//! their way back. A session ends when nothing has passed for a while.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, bounded};
use smol::lock::{Semaphore, SemaphoreGuardArc};
use smol::{Async, Executor, Timer, future};

use super::Way;
use crate::daemon::dial::{dial, read, write_all};
use crate::daemon::fault::chain;
use crate::daemon::guest_text::harmless;
use crate::proto::agent::{Answer, Connect, Request};
use crate::proto::frame::{BadFrame, Frame, HEADER, Header, Kind};
use crate::vm::publish::Protocol;

/// How long a session may be silent; a little more than a resolver or a game keeps its port.
const IDLE: Duration = Duration::from_secs(90);
/// Datagrams of one client that wait for its session. More are dropped, as on any network.
const WAITING: usize = 32;
const DIAL: Duration = Duration::from_secs(15);
/// The longest datagram (RFC 768: 65535 with its own header and IP's).
const LONGEST: usize = 65_535;
const RECEIVE_PAUSE: Duration = Duration::from_millis(100);

/// The clients that have a session, and where their datagrams go.
#[derive(Default)]
struct Sessions(Mutex<HashMap<SocketAddr, Sender<Vec<u8>>>>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Sender<Vec<u8>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes datagrams on until it is dropped, and the sessions with it.
pub async fn serve(socket: Async<UdpSocket>, way: Arc<Way>, turns: Arc<Semaphore>) {
    let (socket, sessions) = (Arc::new(socket), Arc::new(Sessions::default()));
    let executor = Executor::new();
    let receive = async {
        let mut buffer = vec![0; LONGEST];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(e) => {
                    log::debug!("vm {}: {}: {e}", way.name, way.publish);
                    Timer::after(RECEIVE_PAUSE).await;
                    continue;
                }
            };
            let known = sessions.lock().get(&client).cloned();
            let session = match known {
                Some(session) => session,
                None => {
                    // Addresses can be forged: sessions have an end.
                    let Some(turn) = turns.try_acquire_arc() else { continue };
                    let (sender, datagrams) = bounded(WAITING);
                    sessions.lock().insert(client, sender.clone());
                    let session = Session {
                        socket: Arc::clone(&socket),
                        sessions: Arc::clone(&sessions),
                        way: Arc::clone(&way),
                        client,
                        last: Mutex::new(Instant::now()),
                        _turn: turn,
                    };
                    // Detached: it belongs to this executor, which is dropped with the socket.
                    executor.spawn(session.run(datagrams)).detach();
                    sender
                }
            };
            if session.try_send(buffer[..length].to_vec()).is_err() {
                log::debug!("vm {}: {}: a datagram was dropped", way.name, way.publish);
            }
        }
    };
    executor.run(receive).await
}

struct Session {
    socket: Arc<Async<UdpSocket>>,
    sessions: Arc<Sessions>,
    way: Arc<Way>,
    client: SocketAddr,
    /// When something passed last.
    last: Mutex<Instant>,
    _turn: SemaphoreGuardArc,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.client);
    }
}

impl Session {
    async fn run(self, datagrams: Receiver<Vec<u8>>) {
        let connect = Connect { port: self.way.publish.guest, protocol: Protocol::Udp, host: None };
        let outcome = match dial(&self.way.channel, &Request::Connect(connect), DIAL).await {
            Ok((Answer::Done, guest)) => {
                let passing = future::or(self.up(&datagrams, &guest), self.down(&guest));
                future::or(passing, self.idle()).await
            }
            Ok(_) => Err(io::Error::other("an answer to something else")),
            Err(e) => Err(io::Error::other(harmless(&chain(&e), 500))),
        };
        if let Err(e) = outcome {
            log::debug!("vm {}: a session of {} ended: {e}", self.way.name, self.way.publish);
        }
    }

    async fn up(&self, datagrams: &Receiver<Vec<u8>>, guest: &Async<OwnedFd>) -> io::Result<()> {
        while let Ok(datagram) = datagrams.recv().await {
            self.passed();
            write_all(guest, &Frame::new(Kind::Data, datagram).bytes()).await?;
        }
        Ok(())
    }

    async fn down(&self, guest: &Async<OwnedFd>) -> io::Result<()> {
        let mut frames = Frames { guest, buffer: vec![0; LONGEST], filled: 0 };
        loop {
            let datagram = frames.next().await?;
            self.passed();
            // A client that does not listen any more is told nothing, and neither is the guest.
            if let Err(e) = self.socket.send_to(&datagram, self.client).await {
                log::debug!("vm {}: {}: {e}", self.way.name, self.way.publish);
            }
        }
    }

    fn passed(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    async fn idle(&self) -> io::Result<()> {
        loop {
            let end = *self.last.lock().unwrap_or_else(PoisonError::into_inner) + IDLE;
            if Instant::now() >= end {
                return Ok(());
            }
            Timer::at(end).await;
        }
    }
}

/// Whole frames from the guest, each a datagram.
struct Frames<'a> {
    guest: &'a Async<OwnedFd>,
    buffer: Vec<u8>,
    filled: usize,
}

impl Frames<'_> {
    async fn next(&mut self) -> io::Result<Vec<u8>> {
        self.fill(HEADER).await?;
        let mut header = [0; HEADER];
        header.copy_from_slice(&self.buffer[..HEADER]);
        let header = Header::parse(header)?;
        if header.kind != Kind::Data {
            return Err(BadFrame::Unexpected(header.kind).into());
        }
        let whole = HEADER + header.length;
        self.buffer.resize(self.buffer.len().max(whole), 0);
        self.fill(whole).await?;
        let datagram = self.buffer[HEADER..whole].to_vec();
        self.buffer.copy_within(whole..self.filled, 0);
        self.filled -= whole;
        Ok(datagram)
    }

    /// Reads until `length` bytes are there.
    async fn fill(&mut self, length: usize) -> io::Result<()> {
        while self.filled < length {
            match read(self.guest, &mut self.buffer[self.filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.filled += n,
            }
        }
        Ok(())
    }
}
