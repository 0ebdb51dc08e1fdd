//! The guest's clock follows the host's, where it is far off: emulated ones start with whole seconds, and none ticks while
//! the machine is suspended.

use std::io;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

const NS: u64 = 1_000_000_000;
/// Less than this is as good as what a message takes to arrive.
const TOLERANCE_NS: u64 = NS / 2;

/// Sets the clock to `host_ns` since 1970 if it is off by more than half a second.
pub fn follow(host_ns: u64) -> io::Result<()> {
    let now = clock_gettime(ClockId::Realtime);
    let now_ns = u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(NS) + now.tv_nsec.unsigned_abs();
    if now_ns.abs_diff(host_ns) > TOLERANCE_NS {
        let time = Timespec { tv_sec: (host_ns / NS).cast_signed(), tv_nsec: (host_ns % NS).cast_signed() };
        clock_settime(ClockId::Realtime, time)?;
    }
    Ok(())
}
