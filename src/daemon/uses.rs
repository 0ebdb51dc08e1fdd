//! Who is about to use a guest: a VM that nobody uses is stopped, and a command that is started at that very moment must either run or be
//! told, but never be cut off as soon as it runs (FAULTS F11).
//!
//! A use is announced before the guest is asked, and counts as recent from then on. The stop looks at the guest first, and then closes
//! the VM only if nobody has announced a use since; from there on whoever comes is refused.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::daemon::Shared;
use crate::vm::id::VmId;

#[derive(Default)]
pub struct Uses(Mutex<BTreeMap<VmId, Use>>);

#[derive(Default)]
struct Use {
    /// How many are on their way to the guest.
    beginning: usize,
    last: Option<Instant>,
    closed: bool,
}

/// A use that is on its way to the guest.
#[must_use = "dropping it says that the guest knows of it"]
pub struct Using {
    d: Shared,
    id: VmId,
}

impl Uses {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, Use>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns false, and changes nothing, for a VM that is closed.
    fn begin(&self, id: VmId) -> bool {
        let mut uses = self.lock();
        let entry = uses.entry(id).or_default();
        if !entry.closed {
            entry.beginning += 1;
        }
        !entry.closed
    }

    fn end(&self, id: VmId) {
        if let Some(entry) = self.lock().get_mut(&id) {
            entry.beginning -= 1;
            entry.last = Some(Instant::now());
        }
    }

    /// When the last one reached the guest, as far as this daemon knows.
    pub fn last(&self, id: VmId) -> Option<Instant> {
        self.lock().get(&id)?.last
    }

    /// Lets nobody in from now on, unless somebody is on the way, or came after `since`.
    pub fn close(&self, id: VmId, since: Instant) -> bool {
        let mut uses = self.lock();
        let entry = uses.entry(id).or_default();
        let free = entry.beginning == 0 && entry.last.is_none_or(|last| last <= since);
        entry.closed |= free;
        free
    }

    pub fn open(&self, id: VmId) {
        if let Some(entry) = self.lock().get_mut(&id) {
            entry.closed = false;
        }
    }

    /// The VM is gone.
    pub fn forget(&self, id: VmId) {
        let mut uses = self.lock();
        if uses.get(&id).is_some_and(|entry| entry.beginning == 0) {
            uses.remove(&id);
        }
    }
}

/// Announces a use of the VM; None: it is being stopped since there was none.
pub fn begin(d: &Shared, id: VmId) -> Option<Using> {
    d.uses.begin(id).then(|| Using { d: d.clone(), id })
}

impl Drop for Using {
    fn drop(&mut self) {
        self.d.uses.end(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_cut_off_and_nobody_is_let_into_what_is_closed() {
        let uses = Uses::default();
        let id = VmId::from_random(1);
        let looked = Instant::now();
        assert!(uses.begin(id));
        assert!(!uses.close(id, looked), "somebody is on the way");
        uses.end(id);
        assert!(!uses.close(id, looked), "somebody came after the look");
        assert!(uses.last(id).is_some_and(|last| last >= looked));
        assert!(uses.close(id, Instant::now()));
        assert!(!uses.begin(id), "it is closed");
        uses.open(id);
        assert!(uses.begin(id), "it was stopped, and may have been started again");
        uses.forget(id);
        uses.end(id);
        uses.forget(id);
        assert!(uses.last(id).is_none());
    }
}
