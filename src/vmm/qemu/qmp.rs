//! QMP: QEMU's control socket, one JSON object per line (QEMU: interop/qmp-spec). Few verbs, blocking, each with a deadline.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::vmm::deadline::DeadlineStream;

/// Longer than any answer to our verbs, and than any event.
const LONGEST_LINE: u64 = 64 * 1024;

/// A connection to one QEMU; QEMU serves one at a time.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<DeadlineStream>,
    timeout: Duration,
}

/// Why QEMU could not be asked.
#[derive(Debug)]
pub enum QmpError {
    Connect(io::Error),
    Io {
        verb: &'static str,
        source: io::Error,
    },
    /// QEMU understood and declined.
    Refused {
        verb: &'static str,
        reason: String,
    },
    /// What came is not QMP.
    Garbage {
        verb: &'static str,
    },
}

/// A message from QEMU: the greeting, an event, or the answer to a command.
#[derive(Debug, Deserialize)]
struct Message {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    event: Option<String>,
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    desc: String,
}

impl Qmp {
    /// Connects to the socket at `path`; each verb, like connecting itself, takes at most `timeout`.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, QmpError> {
        let stream = DeadlineStream::connect(path, timeout).map_err(QmpError::Connect)?;
        let mut qmp = Self { stream: BufReader::new(stream), timeout };
        if qmp.read("greeting")?.greeting.is_none() {
            return Err(QmpError::Garbage { verb: "greeting" });
        }
        qmp.execute("qmp_capabilities")?;
        Ok(qmp)
    }

    /// Ends QEMU at once; the guest is not asked.
    pub fn quit(mut self) -> Result<(), QmpError> {
        match self.execute("quit") {
            // QEMU may be gone before its answer is.
            Err(QmpError::Io { source, .. }) if has_gone(&source) => Ok(()),
            other => other.map(drop),
        }
    }

    /// What the machine does, in QEMU's words (`RunState`): `running`, `paused`, `prelaunch`, `shutdown`, ...
    pub fn status(&mut self) -> Result<String, QmpError> {
        let answer = self.execute("query-status")?;
        let status = answer.get("status").and_then(Value::as_str);
        status.map(str::to_owned).ok_or(QmpError::Garbage { verb: "query-status" })
    }

    /// Presses the power button; what the guest makes of it is its own affair.
    pub fn power_button(&mut self) -> Result<(), QmpError> {
        self.execute("system_powerdown").map(drop)
    }

    fn execute(&mut self, verb: &'static str) -> Result<Value, QmpError> {
        let failed = |source| QmpError::Io { verb, source };
        self.stream.get_mut().restart(self.timeout);
        self.stream
            .get_mut()
            .write_all(format!("{}\n", json!({"execute": verb})).as_bytes())
            .map_err(failed)?;
        loop {
            // Events come whenever they happen, before the answer too; the deadline bounds how many.
            match self.read(verb)? {
                Message { error: Some(refusal), .. } => {
                    return Err(QmpError::Refused { verb, reason: refusal.desc });
                }
                Message { answer: Some(value), .. } => return Ok(value),
                Message { event: Some(_), .. } => {}
                _ => return Err(QmpError::Garbage { verb }),
            }
        }
    }

    fn read(&mut self, verb: &'static str) -> Result<Message, QmpError> {
        let failed = |source| QmpError::Io { verb, source };
        let mut line = Vec::new();
        (&mut self.stream).take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(failed)?;
        if line.is_empty() {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_slice(&line).map_err(|_| QmpError::Garbage { verb })
    }
}

fn has_gone(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

impl fmt::Display for QmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(_) => f.write_str("cannot reach QEMU's control socket"),
            Self::Io { verb, .. } => write!(f, "cannot ask QEMU for {verb}"),
            Self::Refused { verb, reason } => write!(f, "QEMU refuses {verb}: {}", reason.escape_default()),
            Self::Garbage { verb } => write!(f, "QEMU's answer to {verb} is no QMP"),
        }
    }
}

impl std::error::Error for QmpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(source) | Self::Io { source, .. } => Some(source),
            Self::Refused { .. } | Self::Garbage { .. } => None,
        }
    }
}
