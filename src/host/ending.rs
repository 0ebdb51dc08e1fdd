//! That somebody has asked this process to end: known to whoever waits for something, for as long as it takes them to look.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::{SigId, flag, low_level};

/// The signal that asked to end. Unlike those of a queue it stays, for all who have a copy: its descriptor is readable from then on.
#[derive(Debug, Clone)]
pub struct Ending(Arc<Caught>);

#[derive(Debug)]
struct Caught {
    /// 0: none has come.
    signal: Arc<AtomicUsize>,
    woken: UnixStream,
    registered: Vec<SigId>,
}

impl Ending {
    /// Catches `signals` from now on, until the last copy is dropped. They have no other effect then.
    pub fn catch(signals: impl IntoIterator<Item = i32>) -> io::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        let (woken, wake) = UnixStream::pair()?;
        let mut caught = Caught { signal: Arc::clone(&signal), woken, registered: vec![] };
        for number in signals {
            let value = usize::try_from(number).map_err(io::Error::other)?;
            // In this order: whoever is woken finds the number.
            caught.registered.push(flag::register_usize(number, Arc::clone(&signal), value)?);
            caught.registered.push(low_level::pipe::register(number, wake.try_clone()?)?);
        }
        Ok(Self(Arc::new(caught)))
    }

    /// The signal that has come.
    pub fn asked(&self) -> Option<i32> {
        i32::try_from(self.0.signal.load(Ordering::SeqCst)).ok().filter(|signal| *signal != 0)
    }
}

impl AsFd for Ending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.woken.as_fd()
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            low_level::unregister(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use signal_hook::consts::SIGUSR1;

    use super::*;

    #[test]
    fn a_signal_that_has_come_stays_for_all_who_wait() {
        let ending = Ending::catch([SIGUSR1]).expect("catches");
        let other = ending.clone();
        let readable = |ending: &Ending| {
            let mut fds = [PollFd::new(ending, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec::default())).expect("polls") > 0
        };
        assert!(ending.asked().is_none() && !readable(&ending));
        low_level::raise(SIGUSR1).expect("raises");
        for ending in [&ending, &other, &ending] {
            assert!(ending.asked() == Some(SIGUSR1) && readable(ending));
        }
    }
}
