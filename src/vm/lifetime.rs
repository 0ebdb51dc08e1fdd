//! When a VM's time is over: that of its --ttl, after which it is deleted, and that of a VM that nobody uses, after which it is stopped.
//!
//! The end of a --ttl is a time of day: whoever says two hours at noon means two o'clock, also where the host slept from one to three,
//! and it must mean the same to the next daemon. How long nobody has used a VM is time that the host was awake: one that wakes up
//! after a night must not find its VMs stopped for it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::vm::duration;
use crate::vm::record::VmRecord;
use crate::vm::state::State;

/// How long a VM is to exist, as `vm set --ttl` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ttl {
    /// Until somebody deletes it.
    Off,
    /// From now on.
    Seconds(u64),
}

impl Ttl {
    /// The end of it, in seconds since 1970 like `now`.
    pub fn end(self, now: u64) -> Option<u64> {
        match self {
            Self::Off => None,
            Self::Seconds(seconds) => Some(now.saturating_add(seconds)),
        }
    }
}

impl std::str::FromStr for Ttl {
    type Err = BadTtl;
    fn from_str(s: &str) -> Result<Self, BadTtl> {
        if s == "off" {
            return Ok(Self::Off);
        }
        match duration::parse(s).map_err(BadTtl::NoTime)?.as_secs() {
            0 => Err(BadTtl::Nothing),
            seconds => Ok(Self::Seconds(seconds)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadTtl {
    NoTime(duration::BadDuration),
    Nothing,
}

impl fmt::Display for BadTtl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTime(e) => e.fmt(f),
            Self::Nothing => {
                f.write_str("a VM that is to exist for less than a second is none; write it like 30m or 2h")
            }
        }
    }
}

impl std::error::Error for BadTtl {}

/// What is to be done with a VM now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Nothing,
    /// Look again after this.
    Wait(Duration),
    /// It is to be deleted.
    Expired,
    /// It is to be stopped, if its guest knows of no use either.
    Unused,
}

/// The time of day may be set, so that the end of a --ttl is looked for this often.
const LOOK: Duration = Duration::from_secs(60);

/// Judges `record` at `now`, in seconds since 1970. `unused`: how long nobody is known to have used it.
pub fn due(record: &VmRecord, stale_after: Option<Duration>, now: u64, unused: Duration) -> Due {
    let expiry = match (&record.state, record.expires_at) {
        (State::Deleting, _) | (_, None) => None,
        (_, Some(end)) if end <= now => return Due::Expired,
        (_, Some(end)) => Some(Duration::from_secs(end - now).min(LOOK)),
    };
    let stale = match (&record.state, stale_after) {
        (State::Running { .. }, Some(after)) if unused >= after => return Due::Unused,
        (State::Running { .. }, Some(after)) => Some(after - unused),
        _ => None,
    };
    expiry.into_iter().chain(stale).min().map_or(Due::Nothing, Due::Wait)
}

/// What a guest knows of its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// Commands, copies and connections that are open.
    pub open: u32,
    /// How long none has been.
    pub quiet_ms: u64,
}

impl Activity {
    /// How long nobody has used the VM, by this and by what is known of it without asking.
    pub fn unused(self, known: Duration) -> Duration {
        match self.open {
            0 => Duration::from_millis(self.quiet_ms).min(known),
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::state::{Process, Processes};

    fn vm(state: State, expires_at: Option<u64>) -> VmRecord {
        let json = serde_json::json!({
            "id": "000000000001", "name": "dev", "image": "i", "image_name": "i",
            "spec": { "vcpu": 1, "memory_mib": 512, "disk_mib": 8192, "vmm": "auto", "accel": "auto", "nat": false },
            "state": "stopped", "created_at": 0,
        });
        let record: VmRecord = serde_json::from_value(json).expect("a record");
        VmRecord { state, expires_at, ..record }
    }

    #[test]
    fn every_state_has_its_time() {
        let running =
            || State::Running { processes: Processes { vmm: Process { pid: 1, started: 1 }, vsock: None } };
        let failed = || State::Failed { reason: "x".to_owned() };
        let s = Duration::from_secs;
        let hour = Some(s(3600));
        let table = [
            (vm(State::Stopped, None), hour, 0, Due::Nothing),
            (vm(running(), None), None, 9999, Due::Nothing),
            (vm(running(), None), hour, 0, Due::Wait(s(3600))),
            (vm(running(), None), hour, 3599, Due::Wait(s(1))),
            (vm(running(), None), hour, 3600, Due::Unused),
            (vm(failed(), None), hour, 9999, Due::Nothing),
            (vm(State::Stopped, Some(1030)), hour, 9999, Due::Wait(s(30))),
            (vm(State::Stopped, Some(5000)), None, 0, Due::Wait(s(60))),
            (vm(State::Stopped, Some(1000)), None, 0, Due::Expired),
            (vm(failed(), Some(1)), None, 0, Due::Expired),
            (vm(running(), Some(999)), hour, 9999, Due::Expired),
            (vm(running(), Some(1001)), hour, 3600, Due::Unused),
            (vm(running(), Some(1040)), hour, 3590, Due::Wait(s(10))),
            (vm(State::Deleting, Some(1)), None, 0, Due::Nothing),
        ];
        for (record, stale_after, unused, want) in table {
            let got = due(&record, stale_after, 1000, s(unused));
            assert_eq!(
                got,
                want,
                "{} until {:?}, unused for {unused} s",
                record.state.label(),
                record.expires_at
            );
        }
    }

    #[test]
    fn what_the_guest_says_can_only_lengthen_its_life() {
        let s = Duration::from_secs;
        for (open, quiet_ms, known, want) in [(0, 5000, 60, 5), (0, 90_000, 60, 60), (1, 90_000, 60, 0)] {
            assert_eq!(Activity { open, quiet_ms }.unused(s(known)), s(want));
        }
    }

    #[test]
    fn a_ttl_is_a_time_or_off() {
        assert_eq!("2h".parse(), Ok(Ttl::Seconds(7200)));
        assert_eq!("off".parse(), Ok(Ttl::Off));
        assert_eq!((Ttl::Off.end(10), Ttl::Seconds(5).end(10)), (None, Some(15)));
        for bad in ["0", "10ms", "soon", ""] {
            assert!(bad.parse::<Ttl>().is_err(), "{bad}");
        }
    }
}
