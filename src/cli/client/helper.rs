//! The root helper as seen from the command line: what it says of itself, and nothing else.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::proto::root::{Answer, MAX_ANSWER, Request, Status};

/// How long it may take to say it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the helper at `socket` for its status.
///
/// # Errors
/// The socket's; a sentence as the error where the helper refused.
pub fn status(socket: &Path) -> io::Result<Status> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(&Request::Status)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_ANSWER as u64)).read_line(&mut answer)?;
    if !answer.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match serde_json::from_str(&answer)? {
        Answer::Status(status) => Ok(status),
        Answer::Refused { message, .. } => Err(io::Error::other(message)),
        Answer::Done | Answer::Launched { .. } => Err(io::Error::other("it answered something else")),
    }
}
