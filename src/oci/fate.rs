//! Whether a pull goes on. All of its threads look at this: it ends for all of them at once, for the first reason that there is.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::host::progress::Progress;
use crate::image::digest::Digest;
use crate::oci::error::OciError;

/// How often somebody looks whether anybody still waits for a pull.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub struct Fate {
    end: Mutex<Option<End>>,
    bell: Condvar,
}

#[derive(Debug, Clone)]
enum End {
    Done,
    /// Whoever did it knows why.
    GivenUp,
    Failed(Failure),
}

/// Why a blob did not come. It is told to everyone who waits for one, so it can be told more than once.
#[derive(Debug, Clone)]
pub enum Failure {
    Cancelled,
    Damaged { what: &'static str, digest: String, why: String },
    Other { what: &'static str, digest: String, source: Arc<OciError> },
}

impl Failure {
    /// The failure to get the blob `digest`, which `error` prevents.
    pub fn of(what: &'static str, digest: &Digest, error: OciError) -> Self {
        match error {
            OciError::Cancelled => Self::Cancelled,
            OciError::Damaged { what, digest, why } => Self::Damaged { what, digest, why },
            error => Self::Other { what, digest: digest.to_string(), source: Arc::new(error) },
        }
    }
}

impl From<Failure> for OciError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Cancelled => Self::Cancelled,
            Failure::Damaged { what, digest, why } => Self::Damaged { what, digest, why },
            Failure::Other { what, digest, source } => Self::Blob { what, digest, source },
        }
    }
}

impl Fate {
    pub fn fail(&self, failure: Failure) {
        self.seal(End::Failed(failure));
    }

    pub fn give_up(&self) {
        self.seal(End::GivenUp);
    }

    fn seal(&self, end: End) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(end);
        self.bell.notify_all();
    }

    pub fn is_sealed(&self) -> bool {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What it failed of, if it did.
    pub fn failure(&self) -> Option<OciError> {
        match &*self.end.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(End::Failed(failure)) => Some(failure.clone().into()),
            Some(End::Done | End::GivenUp) | None => None,
        }
    }

    /// Waits for `time`, or until it ends. Returns whether it has ended.
    pub fn rest(&self, time: Duration) -> bool {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.bell.wait_timeout_while(end, time, |end| end.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    fn is_done(&self) -> bool {
        matches!(*self.end.lock().unwrap_or_else(PoisonError::into_inner), Some(End::Done))
    }

    /// A guard that gives up when it is dropped, so that a thread that panics leaves nobody waiting.
    pub fn unless_finished(&self) -> Unfinished<'_> {
        Unfinished(Some(self))
    }
}

pub struct Unfinished<'f>(Option<&'f Fate>);

impl Unfinished<'_> {
    pub fn finished(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(fate) = self.0 {
            fate.give_up();
        }
    }
}

/// Does `work`, whose fate ends with it, or before: when it is given up or has failed, or when nobody waits for it any more. Then
/// `stop` ends what cannot look at a fate, such as a read from a socket.
pub fn attended<T>(
    fate: &Fate,
    progress: &dyn Progress,
    stop: impl FnOnce() + Send,
    work: impl FnOnce() -> T,
) -> T {
    thread::scope(|scope| {
        scope.spawn(|| {
            while !fate.rest(LOOK) {
                if progress.cancelled() {
                    fate.fail(Failure::Cancelled);
                }
            }
            if !fate.is_done() {
                stop();
            }
        });
        let unfinished = fate.unless_finished();
        let outcome = work();
        unfinished.finished();
        fate.seal(End::Done);
        outcome
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Instant;

    use super::*;
    use crate::host::progress::Cancelled;

    #[test]
    fn the_first_reason_counts() {
        let fate = Fate::default();
        assert!(!fate.rest(Duration::ZERO));
        fate.fail(Failure::Cancelled);
        fate.give_up();
        assert!(fate.is_sealed() && fate.rest(Duration::from_secs(600)));
        assert!(matches!(fate.failure(), Some(OciError::Cancelled)));
    }

    #[test]
    fn when_nobody_waits_the_work_is_told_at_once() {
        let (fate, begun) = (Fate::default(), Instant::now());
        let ended = attended(&fate, &Cancelled, || (), || fate.rest(Duration::from_secs(600)));
        assert!(ended && begun.elapsed() < Duration::from_secs(60));
        assert!(matches!(fate.failure(), Some(OciError::Cancelled)));
    }

    #[test]
    fn work_that_is_done_stops_nothing() {
        let (fate, silent) = (Fate::default(), &crate::host::progress::Silent);
        assert_eq!(attended(&fate, silent, || panic!("it is done"), || 5), 5);
        assert!(fate.is_sealed() && fate.failure().is_none());
    }

    #[test]
    fn work_that_panics_ends_its_fate() {
        let (fate, stopped) = (Fate::default(), Mutex::new(false));
        let stop = || *stopped.lock().expect("not poisoned") = true;
        let silent = &crate::host::progress::Silent;
        let caught =
            catch_unwind(AssertUnwindSafe(|| attended(&fate, silent, stop, || -> () { panic!("no") })));
        assert!(caught.is_err() && fate.is_sealed() && *stopped.lock().expect("not poisoned"));
    }
}
