//! The host's time stamp counter. Under TCG a guest's `rdtsc` returns the host's count (QEMU: cpus_get_elapsed_ticks), so a
//! guest that is told the host's rate need not measure it at boot, and one that is told a wrong rate has a wrong clock.
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// Returns the rate in kHz, measured once over 20 ms; None where the counter is not constant, or not there.
pub fn khz() -> Option<u32> {
    static KHZ: OnceLock<Option<u32>> = OnceLock::new();
    *KHZ.get_or_init(measure)
}

#[cfg(not(target_arch = "x86_64"))]
fn measure() -> Option<u32> {
    None
}

#[cfg(target_arch = "x86_64")]
fn measure() -> Option<u32> {
    use std::time::Duration;

    if !is_constant() {
        return None;
    }
    let (ticks, nanos) = sample();
    std::thread::sleep(Duration::from_millis(20));
    let (later_ticks, later_nanos) = sample();
    rate(later_ticks.checked_sub(ticks)?, later_nanos.checked_sub(nanos)?)
}

/// `ticks` in `nanos`, as kHz.
fn rate(ticks: u64, nanos: u64) -> Option<u32> {
    let khz = u128::from(ticks) * 1_000_000 / u128::from(nanos.max(1));
    u32::try_from(khz).ok().filter(|khz| *khz > 0)
}

/// Whether the counter runs at one rate whatever the processor does: the invariant TSC bit (AMD APM vol. 3, Intel SDM
/// vol. 2A, CPUID 8000_0007h EDX bit 8).
#[cfg(target_arch = "x86_64")]
fn is_constant() -> bool {
    use std::arch::x86_64::__cpuid;
    __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0
}

/// The counter and the clock at one moment: of a few tries, the one that the scheduler disturbed least.
#[cfg(target_arch = "x86_64")]
fn sample() -> (u64, u64) {
    let tries = (0..8).map(|_| {
        let before = ticks();
        // Not slewed by NTP: the guest's kernel corrects its own clock, and the counter is not slewed either.
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicRaw);
        let after = ticks();
        let nanos = clock.tv_sec as u64 * 1_000_000_000 + clock.tv_nsec as u64;
        (after.wrapping_sub(before), before.wrapping_add(after.wrapping_sub(before) / 2), nanos)
    });
    let (_, ticks, nanos) = tries.min().unwrap_or_default();
    (ticks, nanos)
}

#[cfg(target_arch = "x86_64")]
fn ticks() -> u64 {
    // SAFETY: RDTSC reads a register and has no other effect; every x86_64 processor has it, and Linux allows it to user
    // space unless a process gives it up itself (prctl(2), PR_SET_TSC).
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_ticks_per_millisecond() {
        assert_eq!(rate(52_000_000, 20_000_000), Some(2_600_000));
        assert_eq!(rate(0, 20_000_000), None);
        assert_eq!(rate(u64::MAX, 1), None);
    }

    #[test]
    fn the_hosts_rate_is_the_same_whenever_it_is_asked_for() {
        assert_eq!(khz(), khz());
        assert!(khz().is_none_or(|khz| (100_000..20_000_000).contains(&khz)), "{:?}", khz());
    }
}
