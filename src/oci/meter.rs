//! One bar for a pull, though its layers come and are unpacked at the same time: as long as something is on its way, it counts what
//! has come; then what is unpacked.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::host::progress::{Progress, Unit};
use crate::oci::fate::Fate;

pub struct Meter<'p> {
    progress: &'p dyn Progress,
    sum: Mutex<Sum>,
}

#[derive(Default)]
struct Sum {
    /// In bytes.
    come: u64,
    total: u64,
    /// What to say when all has come.
    then: Option<String>,
}

impl<'p> Meter<'p> {
    pub fn new(progress: &'p dyn Progress) -> Self {
        Self { progress, sum: Mutex::default() }
    }

    fn sum(&self) -> MutexGuard<'_, Sum> {
        self.sum.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many bytes are wanted, of which some are here.
    pub fn expect(&self, total: u64, here: u64) {
        let mut sum = self.sum();
        (sum.total, sum.come) = (sum.total + total, sum.come + here);
    }

    /// So many more have come.
    pub fn came(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let mut sum = self.sum();
        sum.come += bytes;
        self.progress.advance(sum.come, sum.total, Unit::Bytes);
        self.all_has_come(&mut sum);
    }

    /// Begins the stage `text`, now or when all has come.
    pub fn unpack(&self, text: &str) {
        let mut sum = self.sum();
        sum.then = Some(text.to_owned());
        self.all_has_come(&mut sum);
    }

    fn all_has_come(&self, sum: &mut Sum) {
        if sum.come >= sum.total
            && let Some(text) = sum.then.take()
        {
            self.progress.stage(&text);
        }
    }
}

/// What whoever unpacks tells: it is heard when nothing comes any more.
pub struct Unpacking<'a, 'p> {
    pub meter: &'a Meter<'p>,
    pub fate: &'a Fate,
}

impl Progress for Unpacking<'_, '_> {
    fn stage(&self, text: &str) {
        self.meter.progress.stage(text);
    }

    fn advance(&self, done: u64, total: u64, unit: Unit) {
        let sum = self.meter.sum();
        if sum.come >= sum.total {
            self.meter.progress.advance(done, total, unit);
        }
    }

    fn note(&self, text: &str) {
        self.meter.progress.note(text);
    }

    fn cancelled(&self) -> bool {
        self.fate.is_sealed() || self.meter.progress.cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Progress for Heard {
        fn stage(&self, text: &str) {
            self.0.lock().expect("not poisoned").push(text.to_owned());
        }
        fn advance(&self, done: u64, total: u64, _: Unit) {
            self.0.lock().expect("not poisoned").push(format!("{done}/{total}"));
        }
        fn note(&self, _: &str) {}
        fn cancelled(&self) -> bool {
            false
        }
    }

    #[test]
    fn what_comes_is_shown_first_and_then_what_is_unpacked() {
        let (heard, fate) = (Heard::default(), Fate::default());
        let meter = Meter::new(&heard);
        let unpacking = Unpacking { meter: &meter, fate: &fate };
        meter.expect(10, 4);
        meter.unpack("unpacking");
        meter.came(3);
        unpacking.advance(4, 10, Unit::Bytes);
        meter.came(3);
        unpacking.advance(8, 10, Unit::Bytes);
        unpacking.stage("writing");
        assert_eq!(*heard.0.lock().expect("not poisoned"), ["7/10", "10/10", "unpacking", "8/10", "writing"]);
        assert!(!unpacking.cancelled());
        fate.give_up();
        assert!(unpacking.cancelled());
    }

    #[test]
    fn with_everything_here_unpacking_begins_at_once() {
        let heard = Heard::default();
        let meter = Meter::new(&heard);
        meter.expect(10, 10);
        meter.unpack("unpacking");
        assert_eq!(*heard.0.lock().expect("not poisoned"), ["unpacking"]);
    }
}
