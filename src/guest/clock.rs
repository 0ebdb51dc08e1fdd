//! The guest's clock follows the host's, where it is far off: emulated ones start with whole seconds, and none ticks while
//! the machine is suspended.

use std::io;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

const NS: u64 = 1_000_000_000;
/// How far ahead of a message's time is as good as right: the message took that time to arrive.
const AHEAD_NS: u64 = NS / 2;
/// How far behind is. What is behind a time that has passed already is wrong for certain, and files copied into the guest
/// would come from its future, which make(1) complains about.
const BEHIND_NS: u64 = NS / 100;

/// Sets the clock to `host_ns` since 1970 if it is off by more than can be expected.
pub fn follow(host_ns: u64) -> io::Result<()> {
    let now = clock_gettime(ClockId::Realtime);
    let now_ns = u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(NS) + now.tv_nsec.unsigned_abs();
    if is_off(now_ns, host_ns) {
        let time = Timespec { tv_sec: (host_ns / NS).cast_signed(), tv_nsec: (host_ns % NS).cast_signed() };
        clock_settime(ClockId::Realtime, time)?;
    }
    Ok(())
}

fn is_off(now_ns: u64, host_ns: u64) -> bool {
    now_ns.saturating_sub(host_ns) > AHEAD_NS || host_ns.saturating_sub(now_ns) > BEHIND_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_behind_is_set_sooner_than_one_that_is_ahead() {
        let host = 1_700_000_000 * NS;
        let table = [
            (host, false),
            (host + AHEAD_NS, false),
            (host + AHEAD_NS + 1, true),
            (host - BEHIND_NS, false),
            (host - BEHIND_NS - 1, true),
            (0, true),
        ];
        for (now, want) in table {
            assert_eq!(is_off(now, host), want, "{now}");
        }
    }
}
