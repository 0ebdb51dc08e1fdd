//! Work in this very process, shown as it goes on, and told when somebody asks it to end.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cli::error::Error;
use crate::cli::render::Progress;
use crate::cli::signals::Signals;
use crate::host::progress;
use crate::proto::api::{Event, Unit};

/// Progress of work in this very process, and Ctrl-C for it: what is half made is to be removed.
pub struct Shown {
    progress: Mutex<Progress>,
    signals: Mutex<Signals>,
}

impl Shown {
    pub fn new(quiet: bool) -> Result<Self, Error> {
        let signals =
            Signals::catch().map_err(|source| Error::Host { what: "catch signals".to_owned(), source })?;
        Ok(Self { progress: Mutex::new(Progress::new(quiet)), signals: Mutex::new(signals) })
    }

    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl progress::Progress for Shown {
    fn stage(&self, text: &str) {
        self.progress().event(&Event::Stage { text: text.to_owned() });
    }

    fn advance(&self, done: u64, total: u64, unit: progress::Unit) {
        let unit = match unit {
            progress::Unit::Bytes => Unit::Bytes,
            progress::Unit::Items => Unit::Items,
        };
        self.progress().event(&Event::Progress { done, total, unit });
    }

    fn note(&self, text: &str) {
        self.progress().event(&Event::Note { text: text.to_owned() });
    }

    fn cancelled(&self) -> bool {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        signals.asked_to_end().is_some()
    }
}
