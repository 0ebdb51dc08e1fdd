//! Firecracker's API: HTTP/1.1 over a unix socket, described in its firecracker.yaml. One request for each connection,
//! blocking, with a deadline for all of it.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::vmm::deadline::DeadlineStream;

/// All that is asked of a running Firecracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Describe,
    Version,
    InstanceStart,
    FlushMetrics,
    SendCtrlAltDel,
    Pause,
    Resume,
}

/// What Firecracker says about itself (`InstanceInfo`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct InstanceInfo {
    pub app_name: String,
    pub id: String,
    pub state: InstanceState,
    pub vmm_version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum InstanceState {
    #[serde(rename = "Not started")]
    NotStarted,
    Running,
    Paused,
}

/// Why Firecracker could not be asked.
#[derive(Debug)]
pub enum ApiError {
    Connect(io::Error),
    Io {
        request: Request,
        source: io::Error,
    },
    /// Firecracker understood and declined; `fault` is its `fault_message`.
    Refused {
        request: Request,
        status: u16,
        fault: String,
    },
    /// What came is not the HTTP that firecracker.yaml describes.
    Garbage {
        request: Request,
    },
}

/// Longer than any answer's head, and than any body that Firecracker sends us.
const LONGEST_HEAD: usize = 8 * 1024;
const LONGEST_BODY: usize = 64 * 1024;

impl Request {
    pub const ALL: [Self; 7] = [
        Self::Describe,
        Self::Version,
        Self::InstanceStart,
        Self::FlushMetrics,
        Self::SendCtrlAltDel,
        Self::Pause,
        Self::Resume,
    ];

    pub fn method(self) -> &'static str {
        match self {
            Self::Describe | Self::Version => "GET",
            Self::InstanceStart | Self::FlushMetrics | Self::SendCtrlAltDel => "PUT",
            Self::Pause | Self::Resume => "PATCH",
        }
    }

    pub fn path(self) -> &'static str {
        match self {
            Self::Describe => "/",
            Self::Version => "/version",
            Self::InstanceStart | Self::FlushMetrics | Self::SendCtrlAltDel => "/actions",
            Self::Pause | Self::Resume => "/vm",
        }
    }

    pub fn body(self) -> Option<Value> {
        match self {
            Self::Describe | Self::Version => None,
            Self::InstanceStart => Some(json!({"action_type": "InstanceStart"})),
            Self::FlushMetrics => Some(json!({"action_type": "FlushMetrics"})),
            Self::SendCtrlAltDel => Some(json!({"action_type": "SendCtrlAltDel"})),
            Self::Pause => Some(json!({"state": "Paused"})),
            Self::Resume => Some(json!({"state": "Resumed"})),
        }
    }

    fn bytes(self) -> Vec<u8> {
        let (method, path) = (self.method(), self.path());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n");
        let tail = match self.body() {
            None => "\r\n".to_owned(),
            Some(body) => {
                let body = body.to_string();
                format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            }
        };
        (head + &tail).into_bytes()
    }
}

/// Asks the Firecracker behind `socket` for its state.
pub fn describe(socket: &Path, timeout: Duration) -> Result<InstanceInfo, ApiError> {
    parse(Request::Describe, &send(socket, Request::Describe, timeout)?)
}

/// Asks it for its version, e.g. `1.7.0`.
pub fn version(socket: &Path, timeout: Duration) -> Result<String, ApiError> {
    #[derive(Deserialize)]
    struct FirecrackerVersion {
        firecracker_version: String,
    }
    let body = send(socket, Request::Version, timeout)?;
    parse::<FirecrackerVersion>(Request::Version, &body).map(|answer| answer.firecracker_version)
}

/// Sends `request` and returns the answer's body.
///
/// # Errors
/// [`ApiError`]; a status other than 2xx is [`ApiError::Refused`].
pub fn send(socket: &Path, request: Request, timeout: Duration) -> Result<Vec<u8>, ApiError> {
    let mut stream = DeadlineStream::connect(socket, timeout).map_err(ApiError::Connect)?;
    let (status, body) = exchange(&mut stream, request)
        .map_err(|source| ApiError::Io { request, source })?
        .ok_or(ApiError::Garbage { request })?;
    match status {
        200..=299 => Ok(body),
        _ => Err(ApiError::Refused { request, status, fault: fault(&body) }),
    }
}

/// Status and body of the answer; None if it is no HTTP, or longer than anything that is expected.
fn exchange(stream: &mut DeadlineStream, request: Request) -> io::Result<Option<(u16, Vec<u8>)>> {
    stream.write_all(&request.bytes())?;
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if bytes.len() > LONGEST_HEAD {
            return Ok(None);
        }
        read_some(stream, &mut bytes)?;
    };
    let Some((status, length)) = parse_head(&bytes[..head_end]) else { return Ok(None) };
    let mut body = bytes.split_off(head_end);
    while body.len() < length {
        read_some(stream, &mut body)?;
    }
    body.truncate(length);
    Ok(Some((status, body)))
}

fn read_some(stream: &mut DeadlineStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 4096];
    match stream.read(&mut piece)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => {
            bytes.extend_from_slice(&piece[..n]);
            Ok(())
        }
    }
}

/// The status and the body's length of an answer's head.
fn parse_head(head: &[u8]) -> Option<(u16, usize)> {
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let mut length = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok().filter(|n| *n <= LONGEST_BODY)?;
        }
    }
    Some((status, length))
}

/// Firecracker's reason, or what it said instead of one.
fn fault(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|json| json.get("fault_message")).and_then(Value::as_str);
    message.map_or_else(|| body.escape_ascii().to_string(), |text| text.escape_debug().to_string())
}

fn parse<'a, T: Deserialize<'a>>(request: Request, body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|_| ApiError::Garbage { request })
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method(), self.path())?;
        self.body().map_or(Ok(()), |body| write!(f, " {body}"))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(_) => f.write_str("cannot reach Firecracker's API socket"),
            Self::Io { request, .. } => write!(f, "cannot ask Firecracker for {request}"),
            Self::Refused { request, status, fault } => {
                write!(f, "Firecracker refuses {request} with {status}: {fault}")
            }
            Self::Garbage { request } => {
                write!(f, "Firecracker's answer to {request} is none that it documents")
            }
        }
    }
}

impl std::error::Error for ApiError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(source) | Self::Io { source, .. } => Some(source),
            Self::Refused { .. } | Self::Garbage { .. } => None,
        }
    }
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
