//! A client's TCP connection, carried to the guest in frames and back: each direction ends by itself, and whatever ends otherwise is
//! reset on both sides. A side is read only when the other has taken what was read before.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use smol::future;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::lock::{Semaphore, SemaphoreGuardArc};
use smol::{Async, Executor, Timer};

use super::Way;
use crate::daemon::dial::{dial, read, write_all};
use crate::daemon::fault::chain;
use crate::daemon::guest_text::harmless;
use crate::proto::agent::{Answer, Connect, Request};
use crate::proto::frame::{BadFrame, HEADER, Header, Kind};
use crate::vm::publish::Protocol;

/// What is read at once of either side. A connection has two of these.
const PIECE: usize = 32 * 1024;
/// How long the guest may take to open its side; longer than it waits itself.
const DIAL: Duration = Duration::from_secs(15);
/// Longer than this waits nobody for a descriptor to become free again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until it is dropped, and them with it.
pub async fn serve(listener: Async<std::net::TcpListener>, way: Arc<Way>, turns: Arc<Semaphore>) {
    let connections = Executor::new();
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((client, _)) => {
                    // One that has no turn yet waits here, and those behind it in the kernel's queue.
                    let turn = turns.acquire_arc().await;
                    // Detached: it belongs to this executor, which is dropped with the listener.
                    connections.spawn(one(client, Arc::clone(&way), turn)).detach();
                }
                Err(e) => {
                    log::warn!("vm {}: cannot accept a connection to {}: {e}", way.name, way.publish);
                    Timer::after(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    connections.run(accept).await
}

async fn one(client: Async<TcpStream>, way: Arc<Way>, _turn: SemaphoreGuardArc) {
    // What is closed with a linger time of none is reset (socket(7), SO_LINGER; tcp: tcp_close). So it is until its end, whoever
    // closes it before, be it the kernel after bangerd was killed: no client takes a part for the whole.
    let outcome = async {
        set_socket_linger(client.get_ref(), Some(Duration::ZERO))?;
        carry(&client, &way).await?;
        Ok::<_, io::Error>(set_socket_linger(client.get_ref(), None)?)
    };
    if let Err(e) = outcome.await {
        log::debug!("vm {}: a connection to {} was reset: {e}", way.name, way.publish);
    }
}

async fn carry(client: &Async<TcpStream>, way: &Way) -> io::Result<()> {
    client.get_ref().set_nodelay(true)?;
    // A client that vanished from the network would keep its turn for ever.
    rustix::net::sockopt::set_socket_keepalive(client.get_ref(), true)?;
    let connect = Connect { port: way.publish.guest, protocol: Protocol::Tcp, host: None };
    let guest = match dial(&way.channel, &Request::Connect(connect), DIAL).await {
        Ok((Answer::Done, guest)) => guest,
        Ok(_) => return Err(io::Error::other("an answer to something else")),
        Err(e) => return Err(io::Error::other(harmless(&chain(&e), 500))),
    };
    future::try_zip(up(client, &guest), down(&guest, client)).await.map(drop)
}

/// From the client to the guest, until the client's end.
async fn up(mut client: &Async<TcpStream>, guest: &Async<OwnedFd>) -> io::Result<()> {
    let mut frame = vec![0; HEADER + PIECE];
    loop {
        let length = client.read(&mut frame[HEADER..]).await?;
        let kind = if length == 0 { Kind::Eof } else { Kind::Data };
        frame[..HEADER].copy_from_slice(&Header { kind, length }.bytes());
        write_all(guest, &frame[..HEADER + length]).await?;
        if length == 0 {
            return Ok(());
        }
    }
}

/// From the guest to the client, until the guest has passed on everything of both.
async fn down(guest: &Async<OwnedFd>, mut client: &Async<TcpStream>) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut frames = Frames::default();
    loop {
        let length = read(guest, &mut buffer).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            match frames.next(&mut rest)? {
                None => {}
                Some(Piece::Data(bytes)) => client.write_all(bytes).await?,
                Some(Piece::Ended) => client.get_ref().shutdown(Shutdown::Write)?,
                Some(Piece::AllDone) => return Ok(()),
            }
        }
    }
}

/// The frames of a connection, in the pieces in which they arrive: no frame need be whole before it is passed on.
#[derive(Default)]
struct Frames {
    header: [u8; HEADER],
    /// How much of the header is there.
    filled: usize,
    /// How much of a Data frame is still to come.
    left: usize,
    ended: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Data(&'a [u8]),
    /// The guest's program will send no more.
    Ended,
    /// And all that was sent to it has reached it.
    AllDone,
}

impl Frames {
    /// Takes the next piece from the front of `rest`.
    ///
    /// # Errors
    /// Whatever a guest may not send; that it reset the connection is one.
    fn next<'a>(&mut self, rest: &mut &'a [u8]) -> io::Result<Option<Piece<'a>>> {
        if self.left > 0 {
            let (piece, behind) = rest.split_at(self.left.min(rest.len()));
            self.left -= piece.len();
            *rest = behind;
            return Ok(Some(Piece::Data(piece)));
        }
        let (part, behind) = rest.split_at((HEADER - self.filled).min(rest.len()));
        self.header[self.filled..self.filled + part.len()].copy_from_slice(part);
        self.filled += part.len();
        *rest = behind;
        if self.filled < HEADER {
            return Ok(None);
        }
        self.filled = 0;
        let header = Header::parse(self.header)?;
        match (header.kind, header.length) {
            (Kind::Data, length) if !self.ended => {
                self.left = length;
                Ok(None)
            }
            (Kind::Eof, 0) if !self.ended => {
                self.ended = true;
                Ok(Some(Piece::Ended))
            }
            (Kind::Eof, 0) => Ok(Some(Piece::AllDone)),
            (Kind::Failed, _) => Err(io::ErrorKind::ConnectionReset.into()),
            (kind, _) => Err(BadFrame::Unexpected(kind).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::frame::Frame;

    /// What the bytes come to, read in pieces of `step`.
    fn read_in(step: usize, bytes: &[u8]) -> io::Result<(Vec<u8>, usize)> {
        let mut frames = Frames::default();
        let (mut data, mut ends) = (vec![], 0);
        for mut rest in bytes.chunks(step) {
            while !rest.is_empty() {
                match frames.next(&mut rest)? {
                    None => {}
                    Some(Piece::Data(piece)) => data.extend_from_slice(piece),
                    Some(Piece::Ended | Piece::AllDone) => ends += 1,
                }
            }
        }
        Ok((data, ends))
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let bytes = [
            Frame::new(Kind::Data, "one ").bytes(),
            Frame::new(Kind::Data, "").bytes(),
            Frame::new(Kind::Data, "two").bytes(),
            Frame::new(Kind::Eof, "").bytes(),
            Frame::new(Kind::Eof, "").bytes(),
        ]
        .concat();
        for step in 1..=bytes.len() {
            assert_eq!(read_in(step, &bytes).expect("reads"), (b"one two".to_vec(), 2), "{step}");
        }
    }

    #[test]
    fn what_a_guest_may_not_send_ends_the_connection() {
        let eof = Frame::new(Kind::Eof, "").bytes();
        let table = [
            Frame::new(Kind::Failed, "no").bytes(),
            Frame::new(Kind::Exit, [0]).bytes(),
            Frame::new(Kind::Eof, "x").bytes(),
            [eof, Frame::new(Kind::Data, "late").bytes()].concat(),
            vec![7, 255, 255, 255, 255],
            vec![99, 0, 0, 0, 0],
        ];
        for bytes in table {
            for step in [1, bytes.len()] {
                read_in(step, &bytes).expect_err("refused");
            }
        }
    }
}
