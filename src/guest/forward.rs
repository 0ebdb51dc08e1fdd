//! A connection of the host's to a port of this guest: bytes both ways, each direction with its own end.
//!
//! One thread polls both sides and blocks on neither. Backpressure: a side is read only while little waits for the other, so what
//! a slow reader does not take stays with who sent it. Of UDP nothing waits: a datagram too many is dropped, as on any network.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;

use super::ports::{self, Listening};
use super::wire::{BEAT, Filled, Wire, timespec};
use crate::proto::agent::{Answer, Code, Connect};
use crate::proto::frame::{BadFrame, Frame, Kind, MAX_PAYLOAD};
use crate::vm::publish::Protocol;

/// A side is read while less than this waits for the other.
const PATIENCE: usize = MAX_PAYLOAD;
/// How long a program that listens may leave a connection in its queue.
const CONNECT: Duration = Duration::from_secs(10);

/// Serves a Connect to its end.
pub fn run(mut wire: Wire, wanted: &Connect) -> io::Result<()> {
    let refused = |e: io::Error| {
        let code = if e.kind() == io::ErrorKind::ConnectionRefused { Code::NotFound } else { Code::Failed };
        (code, format!("cannot connect to {} port {} in the guest: {e}", wanted.protocol, wanted.port))
    };
    let opened = match wanted.protocol {
        Protocol::Tcp => tcp(wanted).and_then(|s| {
            // The host has gathered already what comes in pieces.
            s.set_nodelay(true)?;
            s.set_nonblocking(true).map(|()| Socket::Tcp(s))
        }),
        Protocol::Udp => udp(wanted).and_then(|s| s.set_nonblocking(true).map(|()| Socket::Udp(s))),
    };
    match opened.map_err(refused) {
        Ok(Socket::Tcp(socket)) => {
            wire.answer(&Answer::Done)?;
            Stream { wire, socket, waiting: vec![], host_ended: false, passed_on: false, guest_ended: false }
                .serve()
        }
        Ok(Socket::Udp(socket)) => {
            wire.answer(&Answer::Done)?;
            datagrams(wire, &socket)
        }
        Err((code, message)) => {
            wire.refuse(code, message)?;
            wire.finish()
        }
    }
}

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// Most programs listen on loopback or on all addresses; the others are looked for only when nobody answers there.
fn tcp(wanted: &Connect) -> io::Result<TcpStream> {
    let connect = |address| TcpStream::connect_timeout(&SocketAddr::new(address, wanted.port), CONNECT);
    let refused = match connect(wanted.host.unwrap_or(Ipv4Addr::LOCALHOST.into())) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && wanted.host.is_none() => e,
        other => return other,
    };
    let others = addresses(wanted, &ports::listening());
    others.into_iter().map(connect).find(Result::is_ok).unwrap_or(Err(refused))
}

/// Nobody answers that a datagram has arrived, so the table must say who waits for one.
fn udp(wanted: &Connect) -> io::Result<UdpSocket> {
    let found = || addresses(wanted, &ports::listening()).into_iter().next();
    let address = wanted.host.or_else(found).unwrap_or(Ipv4Addr::LOCALHOST.into());
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((address, wanted.port))?;
    Ok(socket)
}

/// Where somebody listens on the wanted port: loopback first, then the guest's other addresses.
fn addresses(wanted: &Connect, listening: &[Listening]) -> Vec<IpAddr> {
    let reached = |address: IpAddr| match address {
        IpAddr::V4(a) if a.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(a) if a.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    let fit = |l: &&Listening| l.port == wanted.port && l.protocol == wanted.protocol;
    let mut found: Vec<IpAddr> = listening.iter().filter(fit).map(|l| reached(l.address)).collect();
    found.sort_by_key(|address| (!address.is_loopback(), *address));
    found.dedup();
    found
}

struct Stream {
    wire: Wire,
    socket: TcpStream,
    /// From the host, on its way to the guest's program.
    waiting: Vec<u8>,
    /// The host will send no more.
    host_ended: bool,
    /// The program knows that.
    passed_on: bool,
    /// The program will send no more, and the host knows it.
    guest_ended: bool,
}

/// How a connection ended before its end.
enum Cut {
    /// The host hung up, or broke the protocol.
    Host,
    /// The program reset it.
    Guest(io::Error),
}

impl Stream {
    fn serve(mut self) -> io::Result<()> {
        let mut buffer = vec![0; MAX_PAYLOAD];
        while !(self.passed_on && self.guest_ended) {
            match self.step(&mut buffer) {
                Ok(()) => {}
                Err(Cut::Host) => return self.reset(),
                Err(Cut::Guest(e)) => {
                    self.wire.queue(Kind::Failed, e.to_string().as_bytes());
                    return self.wire.finish();
                }
            }
        }
        // The host hangs up when it has read this, and not before: nothing that it sent is lost on the way.
        self.wire.queue(Kind::Eof, &[]);
        self.wire.finish()
    }

    /// What is closed with a linger time of none is reset (socket(7), SO_LINGER; tcp: tcp_close).
    fn reset(self) -> io::Result<()> {
        Ok(set_socket_linger(&self.socket, Some(Duration::ZERO))?)
    }

    fn step(&mut self, buffer: &mut [u8]) -> Result<(), Cut> {
        let (host, guest) = self.wait().map_err(Cut::Guest)?;
        if host.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.hear().map_err(|_| Cut::Host)?;
        }
        if guest.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !self.guest_ended {
            match self.socket.read(buffer) {
                Ok(0) => {
                    self.guest_ended = true;
                    self.wire.queue(Kind::Eof, &[]);
                }
                Ok(n) => self.wire.queue(Kind::Data, &buffer[..n]),
                Err(e) if may_pass(&e) => {}
                Err(e) => return Err(Cut::Guest(e)),
            }
        }
        self.pass_on().map_err(Cut::Guest)?;
        self.wire.flush().map_err(|_| Cut::Host)
    }

    /// Waits until either side can be served, and returns what became of each.
    fn wait(&mut self) -> io::Result<(PollFlags, PollFlags)> {
        let flag = |wanted: bool, flag| if wanted { flag } else { PollFlags::empty() };
        // After its Eof nothing comes from the host but its end.
        let hear = flag(self.host_ended || self.waiting.len() < PATIENCE, PollFlags::IN);
        let host = hear | flag(self.wire.queued() > 0, PollFlags::OUT);
        let read = flag(!self.guest_ended && self.wire.queued() < PATIENCE, PollFlags::IN);
        let guest = read | flag(!self.waiting.is_empty(), PollFlags::OUT);
        // One that nothing is wanted of is not polled: its end would be reported again and again.
        let [host, guest] = poll_both(self.wire.socket(), host, self.socket.as_fd(), guest)?;
        if host.is_empty() && guest.is_empty() {
            self.wire.look_after_host();
        }
        Ok((host, guest))
    }

    /// Reads what the host sent.
    fn hear(&mut self) -> io::Result<()> {
        let filled = self.wire.fill()?;
        while let Some(Frame { kind, payload }) = self.wire.take()? {
            match kind {
                Kind::Data if !self.host_ended => self.waiting.extend(payload),
                Kind::Eof if !self.host_ended => self.host_ended = true,
                kind => return Err(BadFrame::Unexpected(kind).into()),
            }
        }
        if filled == Filled::End { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// Gives the program what it takes, and its end once all is given.
    fn pass_on(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match self.socket.write(&self.waiting) {
                Ok(n) => drop(self.waiting.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if may_pass(&e) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        if self.host_ended && !self.passed_on {
            self.passed_on = true;
            match self.socket.shutdown(std::net::Shutdown::Write) {
                // The program has closed its side in between.
                Err(e) if e.kind() == io::ErrorKind::NotConnected => {}
                other => other?,
            }
        }
        Ok(())
    }
}

/// Serves datagrams until the host has had enough.
fn datagrams(mut wire: Wire, socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        let out = if wire.queued() > 0 { PollFlags::OUT } else { PollFlags::empty() };
        let [host, guest] = poll_both(wire.socket(), PollFlags::IN | out, socket.as_fd(), PollFlags::IN)?;
        if host.is_empty() && guest.is_empty() {
            wire.look_after_host();
        }
        if host.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            let filled = wire.fill()?;
            while let Some(Frame { kind, payload }) = wire.take()? {
                match kind {
                    // Whether it arrives is nobody's promise.
                    Kind::Data => drop(socket.send(&payload)),
                    Kind::Eof => return wire.finish(),
                    kind => return Err(BadFrame::Unexpected(kind).into()),
                }
            }
            if filled == Filled::End {
                return Ok(());
            }
        }
        // An error is the answer to an earlier datagram: nobody waits for them just now (udp(7), ECONNREFUSED).
        if !guest.is_empty()
            && let Ok(n) = socket.recv(&mut buffer)
            && wire.queued() < PATIENCE
        {
            wire.queue(Kind::Data, &buffer[..n]);
        }
        wire.flush()?;
    }
}

/// Waits for `wanted` of each, at most for [`BEAT`]; one of which nothing is wanted is left out.
fn poll_both(
    one: BorrowedFd<'_>,
    of_one: PollFlags,
    other: BorrowedFd<'_>,
    of_other: PollFlags,
) -> io::Result<[PollFlags; 2]> {
    let both = [PollFd::from_borrowed_fd(one, of_one), PollFd::from_borrowed_fd(other, of_other)];
    let wanted = [!of_one.is_empty(), !of_other.is_empty()];
    let mut polled: Vec<PollFd<'_>> =
        both.into_iter().zip(wanted).filter(|(_, w)| *w).map(|(fd, _)| fd).collect();
    match poll(&mut polled, Some(&timespec(BEAT))) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let mut events = polled.iter().map(PollFd::revents);
    Ok(wanted
        .map(|wanted| if wanted { events.next().unwrap_or(PollFlags::empty()) } else { PollFlags::empty() }))
}

fn may_pass(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests;
