//! Signals as something to poll for, beside sockets and terminals.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::host::cmd::git::Patience;
use crate::host::ending::Ending;

/// Catches signals from its making on; a descriptor becomes readable when there are some.
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    ending: Ending,
}

impl Signals {
    /// Catches the signals that ask a command to end, and the terminal's new size. Those that this process was told to
    /// ignore stay ignored: `nohup` means SIGHUP, and a shell's `&` without job control means SIGINT.
    pub fn catch() -> io::Result<Self> {
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status")?);
        let caught = |signal: &i32| ignored & (1 << (signal - 1)) == 0;
        let ends = [SIGINT, SIGQUIT, SIGTERM, SIGHUP].into_iter().filter(caught);
        let ending = Ending::catch(ends.clone())?;
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(
            read,
            write,
            SignalOnly,
            ends.chain([SIGWINCH].into_iter().filter(caught)),
        )?;
        Ok(Self { delivery, ending })
    }

    /// For waiting for git, until one of those that ask to end arrives.
    pub fn patience(&self) -> Patience {
        Patience { ending: Some(self.ending.clone()), ..Patience::default() }
    }

    /// What has arrived since the last call.
    pub fn pending(&mut self) -> Vec<i32> {
        self.delivery.pending().collect()
    }

    /// The first of the signals that have arrived that asks to end.
    pub fn asked_to_end(&mut self) -> Option<i32> {
        self.pending().into_iter().find(|signal| *signal != SIGWINCH)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

/// The mask of ignored signals, bit n-1 for signal n (proc(5), /proc/pid/status, SigIgn).
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"), 0x1001);
        assert_eq!(ignored(""), 0);
    }

    #[test]
    fn a_signal_makes_the_descriptor_readable_and_is_told() {
        let mut signals = Signals::catch().expect("catches");
        signal_hook::low_level::raise(SIGHUP).expect("raises");
        let mut poll = [rustix::event::PollFd::new(&signals, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut poll, None).expect("polls");
        assert_eq!(signals.asked_to_end(), Some(SIGHUP));
        assert_eq!(signals.asked_to_end(), None);
    }
}
