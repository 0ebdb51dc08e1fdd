//! What VMs use: two looks at each, from which rates come. `vm stats` and `top` show it.

pub mod rates;

use std::time::Duration;

use self::rates::{Rates, between};
use crate::cli::client::{Client, ClientError};
use crate::cli::render;
use crate::proto::api::{StatsView, VmStats};
use crate::proto::stats::{GuestStats, VmmStats};

/// How far apart two looks are, where there is no earlier one.
pub const APART: Duration = Duration::from_millis(200);

/// The last look at a VM, and what it tells together with the one before.
#[derive(Debug, Clone)]
pub struct Usage {
    pub view: StatsView,
    pub rates: Rates,
}

/// Looks at a VM, whose guest may take this long to answer. Without an earlier look it looks twice.
pub fn look(
    client: &Client,
    id: &str,
    before: Option<StatsView>,
    within: Duration,
) -> Result<Usage, ClientError> {
    let ask =
        || client.ask_running(VmStats { vm: id.to_owned(), within_ms: Some(within.as_millis() as u64) });
    let before = match before {
        Some(before) => before,
        None => {
            let first = ask()?;
            // One that does not answer is not asked to do so twice.
            if first.guest.is_none() {
                return Ok(Usage { view: first, rates: Rates::default() });
            }
            std::thread::sleep(APART);
            first
        }
    };
    let view = ask()?;
    let rates = between(&before, &view);
    Ok(Usage { view, rates })
}

/// A number of percent, of one CPU: `7 %`.
pub fn percent(value: Option<f64>) -> String {
    value.map(|value| format!("{value:.0} %")).unwrap_or_default()
}

/// `120.1 MiB / 488.2 MiB`.
pub fn part(used: Option<u64>, all: Option<u64>) -> String {
    match (used, all) {
        (Some(used), Some(all)) => format!("{} / {}", render::bytes(used), render::bytes(all)),
        _ => String::new(),
    }
}

/// Two rates: `1.0 KiB / 0 B`.
pub fn pair(one: Option<u64>, other: Option<u64>) -> String {
    part(one, other)
}

pub fn memory(guest: Option<&GuestStats>) -> String {
    let used = |g: &GuestStats| Some(g.memory_bytes?.saturating_sub(g.memory_available_bytes?));
    part(guest.and_then(used), guest.and_then(|g| g.memory_bytes))
}

pub fn disk(guest: Option<&GuestStats>) -> String {
    let used = |g: &GuestStats| Some(g.disk_bytes?.saturating_sub(g.disk_free_bytes?));
    part(guest.and_then(used), guest.and_then(|g| g.disk_bytes))
}

pub fn load(guest: Option<&GuestStats>) -> String {
    let load = guest.and_then(|guest| guest.load_hundredths);
    load.map(|[one, ..]| format!("{}.{:02}", one / 100, one % 100)).unwrap_or_default()
}

pub fn processes(guest: Option<&GuestStats>) -> String {
    guest.and_then(|guest| guest.processes).map(|count| count.to_string()).unwrap_or_default()
}

pub fn size(vmm: Option<&VmmStats>, of: impl Fn(&VmmStats) -> Option<u64>) -> String {
    vmm.and_then(of).map(render::bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_left_empty_and_what_is_known_has_units() {
        assert_eq!(memory(None) + &disk(None) + &load(None) + &processes(None) + &percent(None), "");
        let guest = GuestStats {
            memory_bytes: Some(512 << 20),
            memory_available_bytes: Some(384 << 20),
            disk_bytes: Some(1 << 30),
            // A guest may say anything.
            disk_free_bytes: Some(u64::MAX),
            load_hundredths: Some([153, 7, 0]),
            ..GuestStats::default()
        };
        assert_eq!(memory(Some(&guest)), "128.0 MiB / 512.0 MiB");
        assert_eq!(disk(Some(&guest)), "0 B / 1.0 GiB");
        assert_eq!(load(Some(&guest)), "1.53");
        assert_eq!(percent(Some(12.6)), "13 %");
        assert_eq!(pair(Some(1024), Some(0)), "1.0 KiB / 0 B");
    }
}
