//! Answers over TCP (RFC 7766): several questions on one connection, answered as the answers come.

use std::io;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use smol::future::FutureExt;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::lock::Mutex;
use smol::{Async, Timer};

use crate::dns::limits::Turn;
use crate::dns::service::{Face, Inside, Job, Return, Tasks};
use crate::dns::upstream::framed;
use crate::dns::zone::Verdict;

/// A question may be so long, in bytes. It is one name and some options.
const LONGEST: usize = 4096;
/// A connection on which no whole question comes for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// As is one whose other end does not read.
const UNREAD: Duration = Duration::from_secs(5);
/// So long nobody is let in when there are no descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that answers go to.
#[derive(Debug)]
pub struct Connection {
    stream: Async<TcpStream>,
    from: IpAddr,
    /// Held while one answer is written.
    writing: Mutex<()>,
}

/// Takes connections until it is dropped.
pub async fn serve(listener: Async<TcpListener>, face: Face, inside: Arc<Inside>, tasks: Tasks) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let from = from.ip();
                if face.asker(from).is_none() {
                    continue;
                }
                let Some(turn) = inside.connections.take(from) else {
                    inside.busy(from);
                    continue;
                };
                let connection = Arc::new(Connection { stream, from, writing: Mutex::new(()) });
                tasks.spawn(converse(connection, face, Arc::clone(&inside), turn));
            }
            Err(e) => {
                log::debug!("cannot accept a DNS connection: {e}");
                Timer::after(PAUSE).await;
            }
        }
    }
}

/// Answers until the other end has gone, says nothing, or says what is no question.
async fn converse(connection: Arc<Connection>, face: Face, inside: Arc<Inside>, turn: Turn) {
    let mut message = vec![];
    let mut reply = vec![];
    loop {
        if let Err(e) = connection.read(&mut message).await {
            log::debug!("a DNS connection from {} ends: {e}", connection.from);
            break;
        }
        if !answer(&connection, face, &inside, &message, &mut reply).await {
            break;
        }
    }
    drop(turn);
}

/// Answers one question; false: the connection is of no more use.
async fn answer(
    connection: &Arc<Connection>,
    face: Face,
    inside: &Inside,
    message: &[u8],
    reply: &mut Vec<u8>,
) -> bool {
    let Some(asker) = face.asker(connection.from) else { return false };
    let verdict = inside.names.read().answer(asker, message, reply);
    match (verdict, face) {
        (Verdict::Reply, _) => connection.write(reply).await,
        (Verdict::Forward(query), Face::Guests(guests)) => {
            let Some(turn) = inside.turns.take(connection.from) else {
                inside.busy(connection.from);
                return connection.write(&query.failed()).await;
            };
            let back = Return::Tcp(Arc::clone(connection));
            inside.forward(Job { query, back, bridge: guests.bridge, turn });
            true
        }
        // Nothing of what follows can be trusted to be a question.
        (Verdict::Silence, _) | (Verdict::Forward(_), Face::Host) => false,
    }
}

impl Connection {
    /// Reads one question, with its length before it (RFC 1035, 4.2.2).
    async fn read(&self, message: &mut Vec<u8>) -> io::Result<()> {
        let read = async {
            let mut stream = &self.stream;
            let mut length = [0; 2];
            stream.read_exact(&mut length).await?;
            let length = usize::from(u16::from_be_bytes(length));
            if length > LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            message.resize(length, 0);
            stream.read_exact(message).await
        };
        within(IDLE, read).await
    }

    /// Writes one answer; false: it could not be written whole, and nothing can be written any more.
    pub async fn write(&self, reply: &[u8]) -> bool {
        let write = async {
            let _writing = self.writing.lock().await;
            (&self.stream).write_all(&framed(reply)?).await
        };
        match within(UNREAD, write).await {
            Ok(()) => true,
            Err(e) => {
                log::debug!("cannot answer a DNS connection from {}: {e}", self.from);
                if let Err(e) = self.stream.get_ref().shutdown(std::net::Shutdown::Both) {
                    log::debug!("it had been closed: {e}");
                }
                false
            }
        }
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = async {
        Timer::after(limit).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    work.or(late).await
}
