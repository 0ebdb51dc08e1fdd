//! Rates from two looks at counters. A counter that went back (the guest was started anew), or a clock that stood still, gives none.

use serde::Serialize;

use crate::proto::api::StatsView;

/// Of the time between two looks. CPU: 100 is one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Rates {
    pub cpu_percent: Option<f64>,
    pub disk_read_bytes_per_s: Option<u64>,
    pub disk_written_bytes_per_s: Option<u64>,
    pub net_received_bytes_per_s: Option<u64>,
    pub net_sent_bytes_per_s: Option<u64>,
    pub vmm_cpu_percent: Option<f64>,
}

pub fn between(before: &StatsView, after: &StatsView) -> Rates {
    let mut rates = Rates::default();
    if let (Some(before), Some(after)) = (&before.guest, &after.guest) {
        let ms = after.at_ms.checked_sub(before.at_ms).filter(|ms| *ms > 0);
        let per_second = |before, after| Some(scale(advance(before, after)?, ms?));
        rates.cpu_percent = share(before.cpu_busy_ms, after.cpu_busy_ms, ms);
        rates.disk_read_bytes_per_s = per_second(before.disk_read_bytes, after.disk_read_bytes);
        rates.disk_written_bytes_per_s = per_second(before.disk_written_bytes, after.disk_written_bytes);
        rates.net_received_bytes_per_s = per_second(before.net_received_bytes, after.net_received_bytes);
        rates.net_sent_bytes_per_s = per_second(before.net_sent_bytes, after.net_sent_bytes);
    }
    if let (Some(before), Some(after)) = (&before.vmm, &after.vmm)
        && before.pid == after.pid
    {
        let ms = after.at_ms.checked_sub(before.at_ms).filter(|ms| *ms > 0);
        rates.vmm_cpu_percent = share(before.cpu_ms, after.cpu_ms, ms);
    }
    rates
}

fn advance(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    after?.checked_sub(before?)
}

fn scale(advance: u64, ms: u64) -> u64 {
    u64::try_from(u128::from(advance) * 1_000 / u128::from(ms)).unwrap_or(u64::MAX)
}

fn share(before: Option<u64>, after: Option<u64>, ms: Option<u64>) -> Option<f64> {
    let percent = advance(before, after)? as f64 * 100.0 / ms? as f64;
    // Two decimals are all that counters of 10 ms can tell.
    Some((percent * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::stats::{GuestStats, VmmStats};

    fn view(at_ms: u64, counter: u64, pid: u32) -> StatsView {
        let some = Some(counter);
        let guest = GuestStats {
            at_ms,
            cpu_busy_ms: some,
            disk_read_bytes: some,
            net_sent_bytes: some,
            ..GuestStats::default()
        };
        let vmm = VmmStats { at_ms, pid, cpu_ms: some, ..VmmStats::default() };
        StatsView { guest: Some(guest), vmm: Some(vmm), problem: None }
    }

    #[test]
    fn rates_are_what_was_added_in_the_time_between() {
        let rates = between(&view(1_000, 500, 1), &view(3_000, 1_500, 1));
        assert_eq!((rates.cpu_percent, rates.vmm_cpu_percent), (Some(50.0), Some(50.0)));
        assert_eq!((rates.disk_read_bytes_per_s, rates.net_sent_bytes_per_s), (Some(500), Some(500)));
        assert_eq!(rates.disk_written_bytes_per_s, None, "the kernel does not tell");
    }

    #[test]
    fn what_makes_no_sense_gives_no_rate() {
        let table = [
            ("a counter that went back", view(1_000, 500, 1), view(2_000, 10, 1)),
            ("a clock that stood still", view(1_000, 500, 1), view(1_000, 600, 1)),
            ("a clock that went back", view(1_000, 500, 1), view(10, 600, 1)),
            ("nothing of the guest", StatsView { guest: None, vmm: None, problem: None }, view(1, 1, 1)),
        ];
        for (what, before, after) in table {
            assert_eq!(between(&before, &after), Rates::default(), "{what}");
        }
        let other = between(&view(1_000, 500, 1), &view(2_000, 600, 2));
        assert_eq!((other.cpu_percent, other.vmm_cpu_percent), (Some(10.0), None), "another process");
        let wild = between(&view(1, 0, 1), &view(2, u64::MAX, 1));
        assert_eq!(wild.disk_read_bytes_per_s, Some(u64::MAX));
    }
}
