//! An operation: one request on its way, from dispatch to answer. Its id is in every log line and error about it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, bounded};
use smol::future;

use crate::host::progress::{self, Progress};
use crate::proto::api::{Event, Unit};

/// Progress lines are for eyes: ten a second are enough.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Cheap to clone; all clones are the same operation. Shown as its id.
#[derive(Clone)]
pub struct Op(Arc<Inner>);

struct Inner {
    id: String,
    /// The process that asks, as the kernel knows it; None: the daemon itself.
    client: Option<u32>,
    events: Option<Sender<Event>>,
    cancelled: AtomicBool,
    /// Nothing is ever sent; it is closed when whoever asked has gone.
    presence: (Sender<()>, Receiver<()>),
    last_progress: Mutex<Option<Instant>>,
}

impl Op {
    /// An operation that process `client` asked for; what goes on meanwhile is sent to `events`.
    pub fn of_client(client: u32, events: Sender<Event>) -> Self {
        Self::new(Some(client), Some(events))
    }

    /// An operation that the daemon has decided upon by itself.
    pub fn own() -> Self {
        Self::new(None, None)
    }

    fn new(client: Option<u32>, events: Option<Sender<Event>>) -> Self {
        let id = format!("op-{:08x}", random() as u32);
        let (cancelled, last_progress) = (AtomicBool::new(false), Mutex::new(None));
        let presence = bounded(1);
        Self(Arc::new(Inner { id, client, events, cancelled, presence, last_progress }))
    }

    pub fn id(&self) -> &str {
        &self.0.id
    }

    pub fn client(&self) -> Option<u32> {
        self.0.client
    }

    /// Whoever asked has gone.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
        self.0.presence.0.close();
    }

    /// Returns when whoever asked has gone.
    pub async fn gone(&self) {
        if self.0.presence.1.recv().await.is_ok() {
            // Nobody sends.
            future::pending::<()>().await;
        }
    }

    /// Sends `event` as soon as the client takes it; false if nobody will.
    pub async fn tell(&self, event: Event) -> bool {
        match &self.0.events {
            Some(events) => events.send(event).await.is_ok(),
            None => false,
        }
    }

    /// A full queue means a client that does not read: it misses events, and the work goes on.
    fn send(&self, event: Event) {
        if let Some(events) = &self.0.events
            && events.try_send(event).is_err()
        {
            log::debug!("{self} an event was not taken");
        }
    }
}

/// 64 random bits, for ids and names.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    // The kernel's generator is seeded before any user runs us; a short or failed read of 8 bytes does not happen
    // (getrandom(2)), and ids need to differ, not to be secret.
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => u64::from_ne_bytes(bytes),
        Err(e) => {
            log::warn!("getrandom failed ({e}); the clock is used instead");
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(0, |d| d.as_nanos() as u64)
        }
    }
}

impl Progress for Op {
    fn stage(&self, text: &str) {
        *self.0.last_progress.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.send(Event::Stage { text: text.to_owned() });
    }

    fn advance(&self, done: u64, total: u64, unit: progress::Unit) {
        let mut last = self.0.last_progress.lock().unwrap_or_else(PoisonError::into_inner);
        // The last one is always said, so that a bar ends full.
        if done != total && last.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
            return;
        }
        *last = Some(Instant::now());
        drop(last);
        let unit = match unit {
            progress::Unit::Bytes => Unit::Bytes,
            progress::Unit::Items => Unit::Items,
        };
        self.send(Event::Progress { done, total, unit });
    }

    fn note(&self, text: &str) {
        self.send(Event::Note { text: text.to_owned() });
    }

    fn cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_thinned_out_and_its_end_is_not_lost() {
        let (tx, rx) = smol::channel::bounded(100);
        let op = Op::of_client(1, tx);
        op.stage("pulling x");
        for done in 0..=10_000 {
            op.advance(done, 10_000, progress::Unit::Bytes);
        }
        let events: Vec<Event> = std::iter::from_fn(|| rx.try_recv().ok()).collect();
        assert!(events.len() < 20, "{} events", events.len());
        assert_eq!(events.last(), Some(&Event::Progress { done: 10_000, total: 10_000, unit: Unit::Bytes }));
    }

    #[test]
    fn a_client_that_does_not_read_holds_nobody_up() {
        let (tx, rx) = smol::channel::bounded(1);
        let op = Op::of_client(1, tx);
        op.note("a");
        op.note("b");
        assert_eq!(rx.len(), 1);
        assert_ne!(Op::own().id(), op.id());
    }
}
