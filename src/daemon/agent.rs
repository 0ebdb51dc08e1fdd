//! Talking to a guest's agent: the request, and exactly its answer (DESIGN D6). The guest is not trusted: every length is
//! capped, every wait ends, and not a byte behind the answer is taken, because the connection is handed on.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::daemon::fault::Fault;
use crate::proto::agent::{
    Answer, Code as Refused, Hello, MAX_READY, MAX_REQUEST, PORT, Ready, Refusal, Request,
};
use crate::proto::api::Code;
use crate::proto::frame::{HEADER, Header, Kind};
use crate::vmm::Channel;

/// How long a guest may take to answer. Under emulation, with all CPUs busy, starting a program takes seconds.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug)]
pub enum AgentError {
    Connect(io::Error),
    /// The request does not fit in a line.
    TooLong(usize),
    Io(io::Error),
    /// It hung up in the middle.
    Ended,
    Slow(Duration),
    /// It said something that is not the protocol.
    Garbage(String),
    /// It refused.
    Refused(Refusal),
}

/// Asks the agent behind `channel`; the connection that is returned stands just behind the answer, and blocks.
///
/// # Errors
/// See [`AgentError`]; an answer [`Answer::Refused`] is an error too.
pub fn ask(channel: &Channel, request: &Request, within: Duration) -> Result<(Answer, OwnedFd), AgentError> {
    let line = line_of(request)?;
    let deadline = Instant::now() + within;
    let fd = channel.connect(PORT, within).map_err(AgentError::Connect)?;
    let wire = Wire { fd: fd.as_fd(), deadline, within };
    rustix::io::ioctl_fionbio(wire.fd, true).map_err(|e| AgentError::Io(e.into()))?;
    wire.write_all(&line)?;
    let answer = wire.answer()?;
    rustix::io::ioctl_fionbio(wire.fd, false).map_err(|e| AgentError::Io(e.into()))?;
    match answer {
        Answer::Refused(refusal) => Err(AgentError::Refused(refusal)),
        answer => Ok((answer, fd)),
    }
}

/// Reads what a guest writes to the ready port, one line and nothing else.
pub fn ready(fd: BorrowedFd<'_>, within: Duration) -> Result<Hello, AgentError> {
    let wire = Wire { fd, deadline: Instant::now() + within, within };
    rustix::io::ioctl_fionbio(fd, true).map_err(|e| AgentError::Io(e.into()))?;
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        if line.len() == MAX_READY {
            return Err(AgentError::Garbage(format!("a first line of more than {MAX_READY} bytes")));
        }
        let mut byte = [0];
        wire.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    match serde_json::from_slice(&line) {
        Ok(Ready::Up(hello)) => Ok(hello),
        Ok(Ready::Broken { message }) => Err(AgentError::Refused(Refusal { code: Refused::Failed, message })),
        Err(e) => Err(AgentError::Garbage(format!("a first line that is no JSON of ours ({e})"))),
    }
}

/// The request as it is sent.
pub fn line_of(request: &Request) -> Result<Vec<u8>, AgentError> {
    let mut line = serde_json::to_vec(request).map_err(|e| AgentError::Io(e.into()))?;
    line.push(b'\n');
    if line.len() > MAX_REQUEST { Err(AgentError::TooLong(line.len())) } else { Ok(line) }
}

/// The length of the answer that begins with `header`.
pub fn answer_length(header: [u8; HEADER]) -> Result<usize, AgentError> {
    let header = Header::parse(header).map_err(|e| AgentError::Garbage(e.to_string()))?;
    match header.kind {
        Kind::Answer => Ok(header.length),
        kind => Err(AgentError::Garbage(format!("a frame {kind:?} in place of an answer"))),
    }
}

pub fn parse_answer(payload: &[u8]) -> Result<Answer, AgentError> {
    serde_json::from_slice(payload)
        .map_err(|e| AgentError::Garbage(format!("an answer that is no JSON of ours ({e})")))
}

struct Wire<'a> {
    fd: BorrowedFd<'a>,
    deadline: Instant,
    within: Duration,
}

impl Wire<'_> {
    fn answer(&self) -> Result<Answer, AgentError> {
        let mut header = [0; HEADER];
        self.read_exact(&mut header)?;
        let mut payload = vec![0; answer_length(header)?];
        self.read_exact(&mut payload)?;
        parse_answer(&payload)
    }

    fn read_exact(&self, mut buffer: &mut [u8]) -> Result<(), AgentError> {
        while !buffer.is_empty() {
            match rustix::io::read(self.fd, &mut *buffer) {
                Ok(0) => return Err(AgentError::Ended),
                Ok(n) => buffer = &mut buffer[n..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::IN)?,
                Err(Errno::CONNRESET | Errno::PIPE) => return Err(AgentError::Ended),
                Err(e) => return Err(AgentError::Io(e.into())),
            }
            self.check_deadline()?;
        }
        Ok(())
    }

    fn write_all(&self, mut bytes: &[u8]) -> Result<(), AgentError> {
        while !bytes.is_empty() {
            match rustix::net::send(self.fd, bytes, rustix::net::SendFlags::NOSIGNAL) {
                Ok(n) => bytes = &bytes[n..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(Errno::CONNRESET | Errno::PIPE) => return Err(AgentError::Ended),
                Err(e) => return Err(AgentError::Io(e.into())),
            }
            self.check_deadline()?;
        }
        Ok(())
    }

    /// A guest that sends a byte a second would never wait too long, only for ever.
    fn check_deadline(&self) -> Result<(), AgentError> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(AgentError::Slow(self.within)) }
    }

    fn wait(&self, flags: PollFlags) -> Result<(), AgentError> {
        self.check_deadline()?;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&self.fd, flags)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(AgentError::Io(e.into())),
        }
    }
}

impl AgentError {
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(Refusal { code, .. }) => match code {
                Refused::NoProgram => Code::NoProgram,
                Refused::NotExecutable => Code::NotExecutable,
                Refused::NotFound => Code::NotFound,
                Refused::BadRequest => Code::BadRequest,
                // There is nothing to execute: to a script it is as if the shell could not be.
                Refused::NoShell => Code::NotExecutable,
                Refused::NoUser | Refused::NoDirectory => Code::BadRequest,
                Refused::Failed => Code::Failed,
            },
            Self::TooLong(_) => Code::BadRequest,
            Self::Connect(_) | Self::Io(_) | Self::Ended | Self::Slow(_) | Self::Garbage(_) => Code::Failed,
        }
    }
}

impl From<AgentError> for Fault {
    fn from(e: AgentError) -> Self {
        Fault::new(e.code(), crate::daemon::fault::chain(&e))
    }
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(_) => f.write_str("cannot reach the guest's agent"),
            Self::TooLong(n) => {
                write!(f, "arguments and environment take {n} bytes; {MAX_REQUEST} are allowed")
            }
            Self::Io(_) => f.write_str("the connection to the guest's agent broke"),
            Self::Ended => f.write_str("the guest's agent hung up without an answer"),
            Self::Slow(d) => write!(f, "the guest's agent did not answer within {} s", d.as_secs_f64()),
            Self::Garbage(what) => write!(f, "the guest's agent does not speak banger's protocol: {what}"),
            Self::Refused(refusal) => f.write_str(&refusal.message),
        }
    }
}

impl std::error::Error for AgentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(e) | Self::Io(e) => Some(e),
            Self::TooLong(_) | Self::Ended | Self::Slow(_) | Self::Garbage(_) | Self::Refused(_) => None,
        }
    }
}
