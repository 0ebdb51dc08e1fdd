//! The sockets of published ports, and why one cannot be had.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use smol::Async;

use crate::daemon::fault::Fault;
use crate::proto::api::Code;
use crate::vm::publish::{Protocol, Publish};

/// Connections that may wait to be accepted; the kernel's own limit is lower on some hosts (listen(2), somaxconn).
const BACKLOG: i32 = 1024;

/// A socket on which something is published.
#[derive(Debug)]
pub enum Socket {
    Tcp(Async<TcpListener>),
    Udp(Async<UdpSocket>),
}

impl Socket {
    /// Takes the port. A connection that arrives before it is accepted waits.
    pub fn bind(publish: &Publish) -> io::Result<Self> {
        let at = SocketAddr::new(publish.address, publish.host);
        match publish.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(at)?;
                rustix::net::listen(&listener, BACKLOG)?;
                Ok(Self::Tcp(Async::new(listener)?))
            }
            Protocol::Udp => Ok(Self::Udp(Async::new(UdpSocket::bind(at)?)?)),
        }
    }

    /// The port that it has, where any was asked for.
    pub fn port(&self) -> io::Result<u16> {
        Ok(match self {
            Self::Tcp(listener) => listener.get_ref().local_addr()?.port(),
            Self::Udp(socket) => socket.get_ref().local_addr()?.port(),
        })
    }
}

/// Why `publish` cannot be published, as a person can act on it.
pub fn fault(publish: &Publish, e: &io::Error) -> Fault {
    let floor = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let floor = floor.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
    let (code, text) = sentence(publish, e, floor);
    Fault::new(code, text)
}

/// `floor`: from where on ports are everybody's (ip(7), ip_unprivileged_port_start).
fn sentence(publish: &Publish, e: &io::Error, floor: u32) -> (Code, String) {
    let place = publish.place();
    match e.kind() {
        io::ErrorKind::AddrInUse => {
            let flags = if publish.protocol == Protocol::Tcp { "-ltnp" } else { "-lunp" };
            let text = format!(
                "port {place} is taken by another program (`ss {flags}` shows which); publish another one"
            );
            (Code::Conflict, text)
        }
        io::ErrorKind::PermissionDenied => {
            let text = format!(
                "port {place} is root's; publish one from {floor} on, or let everybody have it: \
                 `sudo sysctl net.ipv4.ip_unprivileged_port_start={}`",
                publish.host
            );
            (Code::BadRequest, text)
        }
        io::ErrorKind::AddrNotAvailable => {
            let text = format!(
                "cannot publish port {place}: this host has no such address (`ip address` shows those that it has)"
            );
            (Code::BadRequest, text)
        }
        _ => (Code::Failed, format!("cannot publish port {place}: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_of_the_kernel_says_what_to_do() {
        let table = [
            (
                "8080:80",
                98,
                Code::Conflict,
                "port 127.0.0.1:8080 is taken by another program (`ss -ltnp` shows which); publish another one",
            ),
            (
                "5353:53/udp",
                98,
                Code::Conflict,
                "port 127.0.0.1:5353/udp is taken by another program (`ss -lunp` shows which); publish another one",
            ),
            (
                "80:80",
                13,
                Code::BadRequest,
                "port 127.0.0.1:80 is root's; publish one from 1024 on, or let everybody have it: `sudo sysctl net.ipv4.ip_unprivileged_port_start=80`",
            ),
            (
                "192.0.2.1:8080:80",
                99,
                Code::BadRequest,
                "cannot publish port 192.0.2.1:8080: this host has no such address (`ip address` shows those that it has)",
            ),
            (
                "8080:80",
                24,
                Code::Failed,
                "cannot publish port 127.0.0.1:8080: Too many open files (os error 24)",
            ),
        ];
        for (text, errno, code, want) in table {
            let publish = text.parse().expect("a port");
            let got = sentence(&publish, &io::Error::from_raw_os_error(errno), 1024);
            assert_eq!(got, (code, want.to_owned()));
        }
    }

    #[test]
    fn a_port_is_taken_once_and_any_is_found() {
        for text in ["0:80", "0:80/udp"] {
            let any: Publish = text.parse().expect("a port");
            let socket = Socket::bind(&any).expect("binds");
            let port = socket.port().expect("has a port");
            assert_ne!(port, 0);
            let error = Socket::bind(&Publish { host: port, ..any }).expect_err("it is taken");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }
}
