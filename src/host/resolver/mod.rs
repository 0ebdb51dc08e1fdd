//! Names to addresses, without libc: a static glibc binary has no getaddrinfo on another distribution, and none at all in
//! an empty root. /etc/hosts, then the servers of /etc/resolv.conf over UDP, over TCP where an answer is cut short.

mod config;
mod wire;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use config::Config;
use wire::{Answer, Question};

/// Why a name has no address.
#[derive(Debug)]
pub enum ResolveError {
    /// The text cannot be a host's name.
    BadName(String),
    /// The servers say that there is no such name, or that it has no address.
    NotFound(String),
    /// No server gave an answer; the last one failed so.
    NoAnswer { name: String, source: io::Error },
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName(name) => write!(f, "'{}' is no host name", name.escape_debug()),
            Self::NotFound(name) => write!(f, "no host is named {name}"),
            Self::NoAnswer { name, .. } => {
                write!(f, "no name server answers for {name}; see /etc/resolv.conf")
            }
        }
    }
}

impl std::error::Error for ResolveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoAnswer { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Looks up names with the two files as they are at the time.
#[derive(Debug, Clone)]
pub struct Resolver {
    hosts: PathBuf,
    resolv_conf: PathBuf,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { hosts: "/etc/hosts".into(), resolv_conf: "/etc/resolv.conf".into() }
    }
}

impl Resolver {
    /// Returns the addresses of `name`, those of IPv4 first: at least one. Ends by `deadline`.
    pub fn lookup(&self, name: &str, deadline: Instant) -> Result<Vec<IpAddr>, ResolveError> {
        if let Some(direct) = direct(name) {
            return Ok(direct);
        }
        // A file that is not there says nothing; one that cannot be read says no more.
        let hosts = std::fs::read(&self.hosts).unwrap_or_default();
        let found = config::hosts(&String::from_utf8_lossy(&hosts), name);
        if !found.is_empty() {
            return Ok(found);
        }
        let conf = std::fs::read(&self.resolv_conf).unwrap_or_default();
        ask(&Config::parse(&String::from_utf8_lossy(&conf)), name, deadline)
    }
}

/// What needs no looking up: addresses, and localhost (RFC 6761, 6.3).
fn direct(name: &str) -> Option<Vec<IpAddr>> {
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = bare.parse() {
        return Some(vec![address]);
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let local = name == "localhost" || name.ends_with(".localhost");
    local.then(|| vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

/// Asks the servers of `config` for `name`, and for it with the search domains as resolv.conf(5) wants them tried.
pub fn ask(config: &Config, name: &str, deadline: Instant) -> Result<Vec<IpAddr>, ResolveError> {
    let mut failed = None;
    for candidate in config.candidates(name) {
        let questions = match Question::both(&candidate) {
            Some(questions) => questions,
            None if candidate.trim_end_matches('.') == name.trim_end_matches('.') => {
                return Err(ResolveError::BadName(name.to_owned()));
            }
            // With the search domain it became too long.
            None => continue,
        };
        match ask_servers(config, &questions, deadline) {
            Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
            Ok(_) => {}
            Err(e) => failed = Some(e),
        }
    }
    match failed {
        Some(source) => Err(ResolveError::NoAnswer { name: name.to_owned(), source }),
        None => Err(ResolveError::NotFound(name.to_owned())),
    }
}

/// The answers of the first server that gives any; none: the name has no address.
fn ask_servers(
    config: &Config,
    questions: &[Question; 2],
    deadline: Instant,
) -> Result<Vec<IpAddr>, io::Error> {
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..config.attempts {
        for server in &config.servers {
            let until = deadline.min(Instant::now() + config.timeout);
            match ask_server(*server, questions, until) {
                Ok(addresses) => return Ok(addresses),
                Err(e) => last = e,
            }
            if Instant::now() >= deadline {
                return Err(last);
            }
        }
    }
    Err(last)
}

/// Puts both questions to one server and waits for both answers.
fn ask_server(
    server: SocketAddr,
    questions: &[Question; 2],
    until: Instant,
) -> Result<Vec<IpAddr>, io::Error> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    // A connected socket takes answers from this server only, and hears when nobody listens there.
    socket.connect(server)?;
    for question in questions {
        socket.send(&question.bytes)?;
    }
    let mut answers: [Option<Answer>; 2] = [None, None];
    let mut buffer = [0; 4096];
    while answers.iter().any(Option::is_none) {
        socket.set_read_timeout(Some(left(until)?))?;
        let n = match socket.recv(&mut buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(e) => return Err(e),
        };
        for (question, answer) in questions.iter().zip(&mut answers) {
            // What answers another question than this is not for us: late, or forged.
            if answer.is_none() {
                *answer = question.judge(&buffer[..n]);
            }
        }
    }
    let mut addresses = vec![];
    let mut refused = None;
    for (question, answer) in questions.iter().zip(answers) {
        let answer = match answer {
            Some(Answer::Truncated) => ask_over_tcp(server, question, until)?,
            Some(answer) => answer,
            None => continue,
        };
        match answer {
            Answer::Addresses(found) => addresses.extend(found),
            Answer::Failed(code) => refused = Some(code),
            Answer::Truncated => refused = Some("an answer cut short"),
        }
    }
    // One family is enough: some servers fail for AAAA alone.
    match refused {
        Some(code) if addresses.is_empty() => Err(io::Error::other(format!("{server} says: {code}"))),
        _ => Ok(addresses),
    }
}

/// The same question over TCP (RFC 1035, 4.2.2): each message has its length before it.
fn ask_over_tcp(server: SocketAddr, question: &Question, until: Instant) -> Result<Answer, io::Error> {
    let mut stream = TcpStream::connect_timeout(&server, left(until)?)?;
    let length = u16::try_from(question.bytes.len()).map_err(io::Error::other)?;
    stream.set_write_timeout(Some(left(until)?))?;
    stream.write_all(&[&length.to_be_bytes()[..], &question.bytes].concat())?;
    let mut read = |buffer: &mut [u8]| -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            stream.set_read_timeout(Some(left(until)?))?;
            match stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    };
    let mut length = [0; 2];
    read(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    read(&mut message)?;
    question.judge(&message).ok_or_else(|| io::Error::other(format!("{server} answers another question")))
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests;
