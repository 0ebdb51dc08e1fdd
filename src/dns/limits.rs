//! How much of the server one asker, and all together, may take.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Turns, of which there are `most` in all and `most_each` for one address.
#[derive(Debug)]
pub struct Turns {
    most: usize,
    most_each: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One turn, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    who: IpAddr,
}

impl Turns {
    pub fn new(most: usize, most_each: usize) -> Arc<Self> {
        Arc::new(Self { most, most_each, taken: Mutex::default() })
    }

    /// A turn for `who`; None: it has, or all together have, as many as there are.
    pub fn take(self: &Arc<Self>, who: IpAddr) -> Option<Turn> {
        let mut taken = self.taken();
        let all: usize = taken.values().sum();
        let own = taken.entry(who).or_default();
        if all >= self.most || *own >= self.most_each {
            if *own == 0 {
                taken.remove(&who);
            }
            return None;
        }
        *own += 1;
        Some(Turn { turns: Arc::clone(self), who })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = self.turns.taken();
        if let Some(own) = taken.get_mut(&self.who) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.who);
            }
        }
    }
}

/// Says whether a thing that others cause may be logged: once in a while.
#[derive(Debug, Default)]
pub struct Sparingly(Mutex<Option<Instant>>);

impl Sparingly {
    const PAUSE: Duration = Duration::from_secs(60);

    pub fn now(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= Self::PAUSE);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_asker_does_not_take_the_turns_of_all() {
        let turns = Turns::new(5, 3);
        let [a, b] = ["10.0.0.2", "10.0.0.3"].map(|text| text.parse::<IpAddr>().expect("an address"));
        let take = |who, count: usize| (0..count).filter_map(|_| turns.take(who)).collect::<Vec<_>>();
        let of_a = take(a, 9);
        let of_b = take(b, 9);
        assert_eq!((of_a.len(), of_b.len()), (3, 2));
        drop(of_a);
        assert_eq!(take(b, 9).len(), 1);
        drop(of_b);
        assert!(turns.taken().is_empty(), "nothing is remembered of who has gone");
    }

    #[test]
    fn what_others_cause_is_logged_once_in_a_while() {
        let sparingly = Sparingly::default();
        assert_eq!((0..100).filter(|_| sparingly.now()).count(), 1);
    }
}
