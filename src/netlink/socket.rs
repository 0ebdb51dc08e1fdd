//! A conversation with the kernel: requests in one send, their acknowledgements, and dumps.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

use super::message::{Message, Said, answers};

/// A datagram of a dump has at most 32 KiB (netlink_dump in the kernel's af_netlink.c).
const LARGEST_DATAGRAM: usize = 64 << 10;

pub struct Socket {
    socket: OwnedFd,
    sequence: u32,
}

/// The kernel refused one of the requests.
#[derive(Debug)]
pub struct Refused {
    /// What it was to do, as in "cannot set the alias of".
    pub op: &'static str,
    pub error: io::Error,
}

impl Socket {
    /// `protocol`: None is NETLINK_ROUTE, whose number is 0.
    pub fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends all of `requests` at once, each with what it does, and returns the first refusal. What precedes and what follows a
    /// refused one has been done all the same, unless they make one transaction of nfnetlink.
    pub fn ask(&mut self, requests: Vec<(&'static str, Message)>) -> Result<(), Refused> {
        let sent = |error: Errno| Refused { op: "ask the kernel to change", error: error.into() };
        let first = self.sequence + 1;
        let (ops, mut datagram) = (requests.iter().map(|(op, _)| *op).collect::<Vec<_>>(), vec![]);
        for (_, message) in requests {
            self.sequence += 1;
            datagram.extend(message.finish(self.sequence));
        }
        sendto(&self.socket, &datagram, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).map_err(sent)?;
        self.verdicts(first, &ops)
    }

    /// The kernel has done the work within the send, so that all it has to say is here: nothing is waited for.
    fn verdicts(&mut self, first: u32, ops: &[&'static str]) -> Result<(), Refused> {
        let mut buffer = vec![0; LARGEST_DATAGRAM];
        let (mut refused, mut heard) = (None, false);
        loop {
            let length = match recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => break,
                Err(e) => return Err(Refused { op: "hear of", error: e.into() }),
            };
            for answer in answers(&buffer[..length]) {
                // What was said to an earlier request is not about these.
                let Some(op) = answer.sequence.checked_sub(first).and_then(|at| ops.get(at as usize)) else {
                    continue;
                };
                let Said::Verdict(errno) = answer.said else { continue };
                heard = true;
                if errno != 0 && refused.is_none() {
                    refused = Some(Refused { op, error: io::Error::from_raw_os_error(errno) });
                }
            }
        }
        match refused {
            Some(refused) => Err(refused),
            None if heard => Ok(()),
            None => Err(Refused { op: "hear of", error: silent() }),
        }
    }

    /// Asks one question and hands each message of the answer to `each`: its kind, and its body.
    pub fn dump(&mut self, question: Message, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.sequence += 1;
        let datagram = question.finish(self.sequence);
        sendto(&self.socket, &datagram, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut buffer = vec![0; LARGEST_DATAGRAM];
        loop {
            // More of a dump is made by asking for it, so that here, too, nothing is waited for.
            let (length, _) =
                recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT).map_err(|e| match e {
                    Errno::AGAIN => silent(),
                    e => e.into(),
                })?;
            for answer in answers(&buffer[..length]).filter(|a| a.sequence == self.sequence) {
                match answer.said {
                    Said::Tells(kind, body) => each(kind, body),
                    Said::Done(0) | Said::Verdict(0) => return Ok(()),
                    Said::Done(errno) | Said::Verdict(errno) => {
                        return Err(io::Error::from_raw_os_error(errno));
                    }
                }
            }
        }
    }
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel did not answer")
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.op, self.error)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
