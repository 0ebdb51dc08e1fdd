//! Undo: what was done to the host, and how to take it back.

use std::io;

type Revert = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// A stack of things to take back. Every mutation of the host is followed, on the next line, by its [`Undo::push`].
#[derive(Default)]
#[must_use = "dropping it undoes everything recorded"]
pub struct Undo(Vec<(String, Revert)>);

impl Undo {
    /// Records how to take back `what`, a phrase such as `file /x`.
    pub fn push(&mut self, what: impl Into<String>, undo: impl FnOnce() -> io::Result<()> + Send + 'static) {
        self.0.push((what.into(), Box::new(undo)));
    }

    /// Everything succeeded: nothing is taken back.
    pub fn commit(mut self) {
        self.0.clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        while let Some((what, undo)) = self.0.pop() {
            // One step that fails must not strand the steps below it.
            if let Err(e) = undo() {
                log::error!("cannot undo {what}: {e}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn steps_are_undone_last_first_and_past_a_failing_one() {
        let seen = Arc::new(Mutex::new(vec![]));
        let step = |n: u8| {
            let seen = Arc::clone(&seen);
            move || {
                seen.lock().expect("not poisoned").push(n);
                if n == 2 { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
            }
        };
        let mut undo = Undo::default();
        for n in 1..=3 {
            undo.push(format!("step {n}"), step(n));
        }
        drop(undo);
        assert_eq!(*seen.lock().expect("not poisoned"), [3, 2, 1]);
        let mut undo = Undo::default();
        undo.push("step 4", step(4));
        undo.commit();
        assert_eq!(seen.lock().expect("not poisoned").len(), 3);
    }
}
