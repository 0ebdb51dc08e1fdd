//! Our own terminal: its size, and raw mode, which is undone whatever happens.

use std::io;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::proto::agent::Tty;

/// The terminal's size; None if stdout is no terminal, or one that does not know it.
pub fn size() -> Option<Tty> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(Tty { rows: size.ws_row, columns: size.ws_col })
}

/// While it lives, stdin passes every byte on as it is typed. Dropping it, which a panic does too, restores the terminal.
pub struct Raw {
    before: Termios,
}

impl Raw {
    pub fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        let guard = Self { before };
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(guard)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone (EIO) needs no restoring, and there is nobody to tell anything else.
        tcsetattr(io::stdin(), OptionalActions::Now, &self.before).unwrap_or_default();
    }
}
