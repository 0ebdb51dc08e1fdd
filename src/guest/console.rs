//! What the guest has to say before, and outside of, a conversation with the host: lines on its console.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;

/// Writes a line to /dev/console. A console that cannot be written leaves nobody to tell.
pub fn say(line: impl fmt::Display) {
    let line = format!("banger: {line}\n");
    let console = OpenOptions::new().write(true).open("/dev/console");
    if console.and_then(|mut console| console.write_all(line.as_bytes())).is_err() {
        eprint!("{line}");
    }
}
