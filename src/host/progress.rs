//! How long work tells what it is doing, and learns that nobody waits for it any more.

/// What `advance` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Items,
}

/// The receiver of progress. Calls are cheap; the receiver thins them out.
pub trait Progress: Sync {
    /// A stage begins: a phrase such as `pulling debian:12`.
    fn stage(&self, text: &str);
    /// The stage is this far. `total` 0: not known.
    fn advance(&self, done: u64, total: u64, unit: Unit);
    /// Something worth a line, such as a warning.
    fn note(&self, text: &str);
    /// Whether to stop: whoever asked has gone. Long loops look at this and end with an error.
    fn cancelled(&self) -> bool;
}

/// Tells nobody, and is never cancelled.
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _: &str) {}
    fn advance(&self, _: u64, _: u64, _: Unit) {}
    fn note(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// Tells nobody, who has gone already.
#[cfg(test)]
pub struct Cancelled;

#[cfg(test)]
impl Progress for Cancelled {
    fn stage(&self, _: &str) {}
    fn advance(&self, _: u64, _: u64, _: Unit) {}
    fn note(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        true
    }
}
