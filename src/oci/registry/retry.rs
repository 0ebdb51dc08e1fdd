//! When to try again, and after what time: pure, but for the dice.

use std::time::{Duration, SystemTime};

use crate::host::https::STALLED;
use crate::oci::error::OciError;

/// So much must have come between two failures for the second not to count as another one in a row, in bytes.
const PROGRESS: u64 = 1 << 20;
/// A host that goes silent twice in a row is not waited for again.
const SILENCES: u32 = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// Failures in a row before one gives up.
    pub tries: u32,
    /// The pause after the first failure; each further one is twice as long.
    pub first: Duration,
    /// The longest pause. A registry that wants a longer one is not waited for.
    pub longest: Duration,
    /// How long a transfer may stand still.
    pub stalled: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { tries: 5, first: Duration::from_secs(1), longest: Duration::from_secs(60), stalled: STALLED }
    }
}

/// The failures of one request in a row.
#[derive(Debug)]
pub struct Tries<'p> {
    patience: &'p Patience,
    failed: u32,
    silences: u32,
}

impl<'p> Tries<'p> {
    pub fn new(patience: &'p Patience) -> Self {
        Self { patience, failed: 0, silences: 0 }
    }

    /// The pause before the next try, after `error`. `answered`: the host has given an answer before, so it is there. `brought`:
    /// bytes that came since the last failure. `dice` is between 0 and 1, so that clients do not all come back at once.
    ///
    /// # Errors
    /// `error`, when no further try is due.
    pub fn again(
        &mut self,
        error: OciError,
        answered: bool,
        brought: u64,
        dice: f64,
    ) -> Result<Duration, OciError> {
        if brought >= PROGRESS {
            (self.failed, self.silences) = (0, 0);
        }
        self.failed += 1;
        self.silences += u32::from(matches!(error, OciError::TimedOut { .. }));
        let told = match wait(&error, answered) {
            Some(told) if self.failed < self.patience.tries && self.silences < SILENCES => told,
            _ => return Err(error),
        };
        match told {
            Some(told) if told > self.patience.longest => Err(error),
            Some(told) => Ok(told),
            None => {
                let doubled = self.patience.first.saturating_mul(1 << (self.failed - 1).min(16));
                Ok(doubled.min(self.patience.longest).mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0))
            }
        }
    }
}

/// None: trying again is of no use. Else how long the host wants to be left alone, if it says so.
#[allow(clippy::option_option)]
fn wait(error: &OciError, answered: bool) -> Option<Option<Duration>> {
    match error {
        OciError::Throttled { wait, .. } => Some(*wait),
        OciError::Refused { status: 500 | 502 | 503 | 504, wait, .. } => Some(*wait),
        OciError::Broken { .. } => Some(None),
        // Who was there a moment ago may come back; who never answered is probably misspelt.
        OciError::Unreachable { .. } | OciError::TimedOut { .. } if answered => Some(None),
        _ => None,
    }
}

/// What to say of an error that is not the end: without the advice that is for the end.
pub fn short(error: &OciError) -> String {
    match error {
        OciError::Throttled { registry, .. } => format!("{registry} wants fewer requests"),
        OciError::Refused { registry, status, .. } => format!("{registry} is in trouble (status {status})"),
        other => other.to_string(),
    }
}

/// Retry-After (RFC 9110, 10.2.3): seconds, or a date.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit is as long as it gets.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Between 0 and 1.
pub fn dice() -> f64 {
    let mut bytes = [0; 2];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => f64::from(u16::from_ne_bytes(bytes)) / f64::from(u16::MAX),
        Err(e) => {
            log::debug!("getrandom failed ({e}); pauses are not spread");
            1.0
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn throttled(wait: Option<u64>) -> OciError {
        let wait = wait.map(Duration::from_secs);
        OciError::Throttled { registry: "r".to_owned(), said: String::new(), wait }
    }

    fn refused(status: u16) -> OciError {
        OciError::Refused { registry: "r".to_owned(), status, said: String::new(), wait: None }
    }

    fn broken() -> OciError {
        OciError::Broken {
            host: "r".to_owned(),
            source: Box::new(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }

    fn silent() -> OciError {
        OciError::TimedOut { host: "r".to_owned(), during: "the transfer" }
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_end() {
        let patience = Patience { tries: 9, longest: Duration::from_secs(20), ..Patience::default() };
        let mut tries = Tries::new(&patience);
        let mut pauses = vec![];
        while let Ok(pause) = tries.again(refused(503), true, 0, 1.0) {
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 20, 20, 20]);
        let half = Tries::new(&patience).again(broken(), true, 0, 0.0).expect("once more");
        assert_eq!(half, Duration::from_millis(500));
    }

    #[test]
    fn what_the_registry_asks_for_is_waited_up_to_a_limit() {
        let patience = Patience::default();
        let pause = |wait| Tries::new(&patience).again(throttled(wait), false, 0, 0.0).map(|p| p.as_secs());
        assert_eq!(pause(Some(7)).expect("waits"), 7);
        assert_eq!(pause(Some(60)).expect("waits"), 60);
        let error = pause(Some(3600)).expect_err("too long").to_string();
        assert_eq!(error, "r wants fewer requests; wait for 1h, or log in");
    }

    #[test]
    fn progress_begins_the_count_anew() {
        let patience = Patience { tries: 3, ..Patience::default() };
        let mut tries = Tries::new(&patience);
        for _ in 0..100 {
            tries.again(broken(), true, PROGRESS, 0.0).expect("it goes on");
        }
        tries.again(broken(), true, PROGRESS - 1, 0.0).expect("two in a row");
        tries.again(broken(), true, PROGRESS - 1, 0.0).expect_err("three in a row");
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let patience = Patience::default();
        let again = |error, answered| Tries::new(&patience).again(error, answered, 0, 0.0).is_ok();
        assert!(again(silent(), true) && !again(silent(), false));
        for status in [400, 401, 404, 416, 501, 505] {
            assert!(!again(refused(status), true), "{status}");
        }
        assert!(!again(OciError::Cancelled, true));
        let mut tries = Tries::new(&patience);
        tries.again(silent(), true, 0, 0.0).expect("once more");
        tries.again(silent(), true, 0, 0.0).expect_err("silent twice");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:00 GMT").expect("a date");
        let table = [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(37)),
            ("Sun Nov  6 08:49:37 1994", Some(37)),
            ("Sun, 06 Nov 1994 08:48:00 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ];
        for (value, want) in table {
            assert_eq!(retry_after(value, now).map(|d| d.as_secs()), want, "{value:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_time_comes_back_and_any_text_is_read(seconds: u32, text in "\\PC{0,40}|[A-Za-z0-9,: -]{0,40}") {
            let now = SystemTime::UNIX_EPOCH;
            let wait = Duration::from_secs(seconds.into());
            proptest::prop_assert_eq!(retry_after(&seconds.to_string(), now), Some(wait));
            proptest::prop_assert_eq!(retry_after(&httpdate::fmt_http_date(now + wait), now), Some(wait));
            retry_after(&text, now);
        }

        #[test]
        fn a_pause_is_never_longer_than_the_longest(dice in 0.0..=1.0, failures in 1_u32..40, told: Option<u64>) {
            let patience = Patience { tries: u32::MAX, ..Patience::default() };
            let mut tries = Tries::new(&patience);
            for _ in 0..failures {
                if let Ok(pause) = tries.again(throttled(told), true, 0, dice) {
                    proptest::prop_assert!(pause <= patience.longest);
                }
            }
        }
    }
}
