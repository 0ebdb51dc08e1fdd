//! The only place that prints for people. Results go to stdout; progress, notes and errors go to stderr.
//!
//! Text that a guest, an image or a registry chose is made harmless here ([`text::escape`]), a command's output if it goes to a terminal that
//! is not its own ([`Plain`]); the bytes of that elsewhere, of a log on a pipe, and of a tar stream are not text and do not come through here.

mod patch;
mod plain;
mod progress;
pub mod screen;
mod table;
mod text;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

pub use self::patch::PatchLines;
pub use self::plain::Plain;
pub use self::progress::Progress;
pub use self::table::{fields, rows, table};
pub use self::text::{age, bytes, escape, log_line, span};
use crate::cli::error::Error;
pub use crate::host::causes::chain;
use crate::proto::api::{Failure, OfferState};

/// Writes `text`, which ends with a newline, to stdout.
///
/// # Errors
/// [`Error::Stdout`]; a reader that went away (`banger vm list | head -1`) is one too, and is not complained about.
pub fn out(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Error::Stdout)
}

/// Writes one line to stdout, made harmless.
pub fn out_line(line: &str) -> Result<(), Error> {
    out(&format!("{}\n", escape(line)))
}

/// Writes `value` to stdout as JSON for programs, indented.
pub fn json(value: &impl Serialize) -> Result<(), Error> {
    // The views hold nothing that JSON cannot; a map with keys that are no strings would be the only way to fail.
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Stdout(e.into()))?;
    out(&format!("{}\n", text::escape_json(&text)))
}

/// Writes `value` to stdout as JSON on a line of its own.
pub fn json_line(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string(value).map_err(|e| Error::Stdout(e.into()))?;
    out(&format!("{}\n", text::escape_json(&text)))
}

/// Writes `text` to stdout in place of what was there: on a terminal at its top, elsewhere behind an empty line.
pub fn anew(text: &str) -> Result<(), Error> {
    let before = if io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "\n" };
    out(&format!("{before}{text}"))
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Seconds since 1970, for ages.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

pub fn offer_state(state: OfferState) -> &'static str {
    match state {
        OfferState::Pulled => "pulled",
        OfferState::Available => "available",
    }
}

/// Says on stderr why it was not done, and returns the exit status.
pub fn error(error: &Error) -> ExitCode {
    if let Some(text) = error_text(error) {
        // Nobody can be told that stderr is gone.
        io::stderr().lock().write_all(text.as_bytes()).unwrap_or_default();
    }
    ExitCode::from(error.status())
}

/// A sentence on stderr, not an error: what is left after giving up, or a reminder.
pub fn say(text: &str) {
    writeln!(io::stderr().lock(), "{}", escape(text)).unwrap_or_default();
}

/// The lines for an error: the chain in one, then what helps to understand it. None: there is nothing to say.
fn error_text(error: &Error) -> Option<String> {
    if error.is_said() {
        return None;
    }
    let mut text = format!("banger: {}", escape(&chain(error)));
    if let Some(Failure { op, details, .. }) = error.failure() {
        if !op.is_empty() {
            text.push_str(&format!(" ({})", escape(op)));
        }
        for line in details {
            text.push_str(&format!("\n  | {}", log_line(line.as_bytes())));
        }
    }
    text.push('\n');
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::ClientError;
    use crate::proto::api::Code;

    #[test]
    fn a_daemons_failure_is_shown_with_its_id_and_harmless_details() {
        let failure = Failure {
            code: Code::NotReady,
            message: "cannot start VM dev: the guest said \x1b[2Jhello".to_owned(),
            op: "op-4f1c2b3a".to_owned(),
            details: vec!["\x1b[1mpanic\x1b[0m\x07".to_owned()],
        };
        let error = Error::Client(ClientError::Failed(failure));
        assert_eq!(
            error_text(&error).as_deref(),
            Some("banger: cannot start VM dev: the guest said \\x1b[2Jhello (op-4f1c2b3a)\n  | panic\\x07\n")
        );
    }

    #[test]
    fn a_reader_that_went_away_is_not_complained_about() {
        let error = Error::Stdout(io::ErrorKind::BrokenPipe.into());
        assert_eq!((error_text(&error), error.status()), (None, 141));
    }
}
