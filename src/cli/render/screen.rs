//! The whole terminal, for as long as something is drawn on it again and again (`banger top`).

use std::io::{self, Write};
use std::panic;
use std::sync::{Mutex, Once, PoisonError};
use std::thread::{self, ThreadId};

use crate::cli::error::Error;
use crate::cli::session::Raw;

/// The alternate screen (xterm, "Alternate Screen Buffer"), without a cursor, and without lines that go on in the next one: what is
/// too wide is cut off by the terminal.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// While it lives, the terminal is raw and shows what is drawn. Dropping it, which a panic does too, gives it back as it was.
pub struct Screen {
    _raw: Raw,
    _shown: Shown,
}

struct Shown;

/// Who draws.
static DRAWS: Mutex<Option<ThreadId>> = Mutex::new(None);

fn draws(thread: Option<ThreadId>) {
    *DRAWS.lock().unwrap_or_else(PoisonError::into_inner) = thread;
}

/// A panic is told of before the stack unwinds: on the screen that stays, not on the one that goes.
fn leave_before_panics_are_told() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |why| {
            let drawing = *DRAWS.lock().unwrap_or_else(PoisonError::into_inner);
            if drawing == Some(thread::current().id()) {
                write(LEAVE).unwrap_or_default();
            }
            tell(why);
        }));
    });
}

impl Screen {
    pub fn enter() -> Result<Self, Error> {
        let raw =
            Raw::enter().map_err(|source| Error::Host { what: "set up the terminal".to_owned(), source })?;
        leave_before_panics_are_told();
        draws(Some(thread::current().id()));
        let screen = Self { _raw: raw, _shown: Shown };
        write(ENTER).map_err(Error::Stdout)?;
        Ok(screen)
    }

    /// Shows `lines`, which are harmless, and nothing else.
    pub fn draw(&self, lines: &[String]) -> Result<(), Error> {
        let mut text = String::from("\x1b[H");
        for (n, line) in lines.iter().enumerate() {
            if n > 0 {
                text.push_str("\r\n");
            }
            text.push_str(line);
            text.push_str("\x1b[0m\x1b[K");
        }
        text.push_str("\x1b[J");
        write(&text).map_err(Error::Stdout)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        draws(None);
        // A terminal that is gone needs nothing, and there is nobody to tell anything else.
        write(LEAVE).unwrap_or_default();
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
