//! A connection to a guest's agent as [`agent::ask`] makes it, without a thread that waits: for connections that come in crowds.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::SendFlags;
use smol::{Async, Timer, future};

use crate::daemon::agent::{self, AgentError};
use crate::proto::agent::{Answer, PORT, Request};
use crate::proto::frame::HEADER;
use crate::vmm::Channel;
use crate::vmm::channel::{LONGEST_ANSWER, connected, welcomes};

/// How soon it is tried again where too many wait already.
const AGAIN: Duration = Duration::from_millis(5);

/// Asks the agent behind `channel`; the connection that is returned stands just behind the answer, and does not block.
///
/// # Errors
/// As [`agent::ask`].
pub async fn dial(
    channel: &Channel,
    request: &Request,
    within: Duration,
) -> Result<(Answer, Async<OwnedFd>), AgentError> {
    let asked = async {
        let line = agent::line_of(request)?;
        let fd = connect(channel).await.map_err(AgentError::Connect)?;
        write_all(&fd, &line).await.map_err(AgentError::Io)?;
        let mut header = [0; HEADER];
        read_exact(&fd, &mut header).await?;
        let mut payload = vec![0; agent::answer_length(header)?];
        read_exact(&fd, &mut payload).await?;
        match agent::parse_answer(&payload)? {
            Answer::Refused(refusal) => Err(AgentError::Refused(refusal)),
            answer => Ok((answer, fd)),
        }
    };
    let late = async {
        Timer::after(within).await;
        Err(AgentError::Slow(within))
    };
    future::or(asked, late).await
}

async fn connect(channel: &Channel) -> io::Result<Async<OwnedFd>> {
    let fd = loop {
        match channel.begin(PORT) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => drop(Timer::after(AGAIN).await),
            begun => break Async::new_nonblocking(begun?)?,
        }
    };
    fd.writable().await?;
    connected(fd.as_fd())?;
    let Some(greeting) = channel.greeting(PORT) else { return Ok(fd) };
    let welcomed = async {
        write_all(&fd, greeting.as_bytes()).await?;
        let mut answer = vec![];
        while answer.len() < LONGEST_ANSWER && answer.last() != Some(&b'\n') {
            let mut byte = [0];
            if read(&fd, &mut byte).await? == 0 {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            answer.extend(byte);
        }
        welcomes(&answer)
    };
    let outcome = {
        let waiting = channel.unanswered(fd.as_fd());
        let outcome = welcomed.await;
        if let Some(waiting) = waiting {
            waiting.answered();
        }
        outcome
    };
    match outcome {
        // What a refusal looks like when the device hangs up on the unread greeting.
        Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            Err(io::ErrorKind::ConnectionRefused.into())
        }
        other => other.map(|()| fd),
    }
}

/// Reads what is there, waiting for some; 0 at the end.
pub async fn read(fd: &Async<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    fd.read_with(|fd| Ok(rustix::io::read(fd, &mut *buffer)?)).await
}

pub async fn write_all(fd: &Async<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = fd.write_with(|fd| Ok(rustix::net::send(fd, bytes, SendFlags::NOSIGNAL)?)).await?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

async fn read_exact(fd: &Async<OwnedFd>, mut buffer: &mut [u8]) -> Result<(), AgentError> {
    while !buffer.is_empty() {
        match read(fd, buffer).await {
            Ok(0) => return Err(AgentError::Ended),
            Ok(n) => buffer = &mut buffer[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Err(AgentError::Ended),
            Err(e) => return Err(AgentError::Io(e)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::proto::agent::{Code, Refusal};
    use crate::proto::frame::{Frame, Kind};

    const LONG: Duration = Duration::from_secs(20);

    fn answer(answer: &Answer) -> Vec<u8> {
        Frame::new(Kind::Answer, serde_json::to_vec(answer).expect("serialises")).bytes()
    }

    /// What comes of dialing a device that accepts, reads a greeting, says `welcome`, reads a line, and says `answer`, then `rest`.
    fn dialed(welcome: &[u8], answer: &[u8], within: Duration) -> Result<(Answer, String), AgentError> {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("v");
        let listener = UnixListener::bind(&socket).expect("binds");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut peer, _) = listener.accept().expect("accepts");
                let mut greeting = [0; 64];
                let length = peer.read(&mut greeting).expect("reads");
                assert_eq!(&greeting[..length], b"CONNECT 1000\n", "in one piece");
                peer.write_all(welcome).expect("writes");
                let mut line = vec![];
                while line.last() != Some(&b'\n') {
                    let mut byte = [0];
                    // It hangs up on what is no welcome.
                    if peer.read(&mut byte).unwrap_or(0) == 0 {
                        return;
                    }
                    line.extend(byte);
                }
                assert_eq!(line, b"{\"op\":\"ports\"}\n");
                // The other side may have had enough.
                if answer.chunks(3).try_for_each(|piece| peer.write_all(piece)).is_err() {
                    return;
                }
                if within < LONG {
                    std::thread::sleep(2 * within);
                }
            });
            let channel = Channel::Hybrid { socket: socket.clone() };
            smol::block_on(async {
                let (answer, fd) = dial(&channel, &Request::Ports, within).await?;
                let mut rest = [0; 64];
                let length = read(&fd, &mut rest).await.expect("reads what is behind it");
                Ok((answer, String::from_utf8_lossy(&rest[..length]).into_owned()))
            })
        })
    }

    #[test]
    fn an_answer_is_read_and_nothing_behind_it() {
        let said = [answer(&Answer::Done), b"xyz".to_vec()].concat();
        let (got, rest) = dialed(b"OK 7\n", &said, LONG).expect("an answer");
        assert_eq!(got, Answer::Done);
        assert!(!rest.is_empty() && "xyz".starts_with(&rest), "{rest}");
    }

    #[test]
    fn what_is_no_answer_is_an_error_that_says_so() {
        let refusal = Refusal { code: Code::NotFound, message: "no".to_owned() };
        let refused = answer(&Answer::Refused(refusal.clone()));
        assert!(matches!(dialed(b"OK 7\n", &refused, LONG), Err(AgentError::Refused(r)) if r == refusal));
        assert!(matches!(dialed(b"OK 7\n", b"", LONG), Err(AgentError::Ended)));
        assert!(matches!(dialed(b"OK 7\n", b"HTTP/1.1 200", LONG), Err(AgentError::Garbage(_))));
        let connect = |welcome: &[u8]| match dialed(welcome, b"", LONG) {
            Err(AgentError::Connect(e)) => e.kind(),
            other => panic!("{other:?}"),
        };
        assert_eq!(connect(b"NO\n"), io::ErrorKind::InvalidData);
        assert_eq!(connect(b"OK 123456789012345\n"), io::ErrorKind::InvalidData);
        let short = Duration::from_millis(50);
        assert!(matches!(dialed(b"OK 7\n", b"\x00", short), Err(AgentError::Slow(_))));
    }

    #[test]
    fn a_device_that_has_gone_is_a_refusal() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("v");
        drop(UnixListener::bind(&socket).expect("binds"));
        let channel = Channel::Hybrid { socket };
        let error = smol::block_on(dial(&channel, &Request::Ports, LONG)).expect_err("nobody listens");
        assert!(matches!(error, AgentError::Connect(e) if e.kind() == io::ErrorKind::ConnectionRefused));
    }

    #[test]
    fn a_device_that_is_a_link_to_another_vms_is_not_dialed() {
        let dir = tempfile::tempdir().expect("a directory");
        let _another = UnixListener::bind(dir.path().join("another")).expect("binds");
        let socket = dir.path().join("v");
        std::os::unix::fs::symlink("another", &socket).expect("links");
        let channel = Channel::Hybrid { socket };
        let error = smol::block_on(dial(&channel, &Request::Ports, LONG)).expect_err("a link");
        assert!(matches!(error, AgentError::Connect(e) if e.kind() == io::ErrorKind::ConnectionRefused));
    }

    #[test]
    fn a_crowd_before_a_device_that_accepts_slowly_is_served_at_last() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("v");
        let listener = UnixListener::bind(&socket).expect("binds");
        // Few may wait; the kernel says EAGAIN to the others (unix(7), connect).
        rustix::net::listen(&listener, 2).expect("listens");
        let channel = Channel::Hybrid { socket };
        let begun: Vec<_> = std::iter::from_fn(|| channel.begin(PORT).ok()).take(50).collect();
        assert!(begun.len() < 50, "the queue is full");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                for _ in begun {
                    listener.accept().expect("accepts");
                }
                let (mut peer, _) = listener.accept().expect("accepts the last");
                let mut greeting = [0; 13];
                peer.read_exact(&mut greeting).expect("reads");
                peer.write_all(&[b"OK 1\n".to_vec(), answer(&Answer::Done)].concat()).expect("writes");
                peer.read_to_end(&mut vec![]).expect("ends");
            });
            let (answer, _) = smol::block_on(dial(&channel, &Request::Ports, LONG)).expect("is served");
            assert_eq!(answer, Answer::Done);
        });
    }

    #[test]
    #[ignore = "needs the kernel module vsock_loopback"]
    fn the_kernels_vsock_is_dialed_without_blocking() {
        // With the loopback device this very machine is CID 1.
        let listener = vsock::VsockListener::bind_with_cid_port(vsock::VMADDR_CID_ANY, PORT).expect("binds");
        let agent = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("accepts");
            let mut line = [0; 15];
            peer.read_exact(&mut line).expect("reads");
            assert_eq!(&line, b"{\"op\":\"ports\"}\n");
            peer.write_all(&answer(&Answer::Done)).expect("answers");
        });
        let channel = Channel::Vhost { cid: 1 };
        let (answer, _) = smol::block_on(dial(&channel, &Request::Ports, LONG)).expect("is answered");
        assert_eq!(answer, Answer::Done);
        agent.join().expect("no panic");
        let error = smol::block_on(dial(&channel, &Request::Ports, LONG)).expect_err("nobody listens");
        assert!(matches!(error, AgentError::Connect(e) if e.kind() == io::ErrorKind::ConnectionRefused));
    }
}
