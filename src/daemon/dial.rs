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
        while answer.len() < LONGEST_ANSWER {
            let mut byte = [0];
            if read(&fd, &mut byte).await? == 0 {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            if byte == *b"\n" {
                break;
            }
            answer.extend(byte);
        }
        welcomes(&answer)
    };
    match welcomed.await {
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
