//! Keeps the firewall: others flush what is not theirs (`nft flush ruleset`, `systemctl restart nftables`; FAULTS A23), and until it
//! is loaded again no VM is held to anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::netlink::nftables::Monitor;
use crate::root::error::{RootError, chain};
use crate::root::firewall;
use crate::root::perform::Root;

/// Who flushes a ruleset usually loads his own next; ours comes after it.
const SETTLE: Duration = Duration::from_millis(50);
/// So many times in [`WINDOW`] it is loaded at once; whoever flushes more often than that is at war with us, and is given way to
/// for a while each time, lest both do nothing else.
const AT_ONCE: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
const LONGER: Duration = Duration::from_secs(1);

/// When the firewall was loaded again.
#[derive(Debug, Default)]
struct Loads(Vec<Instant>);

impl Loads {
    /// How long to wait before it is loaded again.
    fn pause(&mut self, now: Instant) -> Duration {
        self.0.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        if self.0.len() < AT_ONCE { Duration::ZERO } else { LONGER }
    }
}

/// Starts the thread that watches.
///
/// # Errors
/// A kernel without nf_tables.
pub fn start(root: &Arc<Root>) -> Result<(), RootError> {
    let root = Arc::clone(root);
    let monitor = firewall::watch().map_err(RootError::effect("watch the firewall"))?;
    let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || watch(&root, &monitor));
    thread.map(|_| ()).map_err(RootError::effect("watch the firewall"))
}

fn watch(root: &Root, monitor: &Monitor) {
    let mut loads = Loads::default();
    loop {
        if let Err(e) = monitor.wait(None, SETTLE) {
            log::error!("cannot hear of changes of the firewall: {e}");
            std::thread::sleep(LONGER);
        }
        std::thread::sleep(loads.pause(Instant::now()));
        match root.mend_firewall() {
            Ok(true) => {
                loads.0.push(Instant::now());
                log::warn!("somebody has flushed the firewall; it is loaded again");
            }
            Ok(false) => {}
            Err(e) => log::error!("{}", chain(&e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_flushes_again_and_again_is_given_way_to() {
        let start = Instant::now();
        let mut loads = Loads::default();
        for n in 0..AT_ONCE {
            assert_eq!(loads.pause(start), Duration::ZERO, "{n}");
            loads.0.push(start);
        }
        assert_eq!(loads.pause(start), LONGER);
        assert_eq!(loads.pause(start + WINDOW), Duration::ZERO, "a minute later it is an accident again");
    }
}
