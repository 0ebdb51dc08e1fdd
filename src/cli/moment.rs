//! Points in time as people write and read them: RFC 3339, or how long ago.

use crate::vm::duration;

const DAY_MS: u64 = 86_400_000;

/// The time that is meant by a length of time before `now_ms`, or by an RFC 3339 time; milliseconds since 1970.
///
/// # Errors
/// A sentence.
pub fn since(text: &str, now_ms: u64) -> Result<u64, String> {
    if let Ok(ago) = duration::parse(text) {
        return Ok(now_ms.saturating_sub(ago.as_millis() as u64));
    }
    parse(text).ok_or_else(|| {
        format!("{text:?} is no time; write how long ago, like 10m, or a time like {}", format(now_ms))
    })
}

/// `2026-11-30T02:00:00Z`, with a fraction of the second and another offset where there is one. Its zone must be said.
fn parse(text: &str) -> Option<u64> {
    let (date, rest) = (text.get(..10)?, text.get(10..)?);
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, zone) = match rest.find(['Z', 'z', '+', '-']) {
        Some(at) => rest.split_at(at),
        None => return None,
    };
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    let mut fields = whole.split(':').map(|field| digits(field).filter(|_| field.len() == 2));
    let (hour, minute, second) = (fields.next()??, fields.next()??, fields.next()??);
    if fields.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    digits(fraction)?;
    let ms = format!("0.{fraction}").parse::<f64>().ok()? * 1_000.0;
    let local = days(date)? * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1_000 + ms as u64;
    let (ahead, offset) = match zone.strip_prefix('+') {
        Some(offset) => (true, offset),
        None => match zone.strip_prefix('-') {
            Some(offset) => (false, offset),
            None if matches!(zone, "Z" | "z") => return Some(local),
            None => return None,
        },
    };
    let (hours, minutes) = offset.split_once(':')?;
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    let offset = (hours.checked_mul(60)? + minutes).checked_mul(60_000)?;
    if ahead { local.checked_sub(offset) } else { local.checked_add(offset) }
}

/// In UTC, to the second: `2026-11-30T02:00:00Z`.
pub fn format(ms: u64) -> String {
    let (year, month, day) = civil(ms / DAY_MS);
    let seconds = ms % DAY_MS / 1_000;
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// How many days after 1970 `text`, which begins like `2026-11-23`, is. None before, and for what is no day.
pub fn days(text: &str) -> Option<u64> {
    let mut numbers = text.get(..10)?.split('-').map(str::parse::<u64>);
    let (year, month, day) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days from the civil calendar (Howard Hinnant, "chrono-compatible low-level date algorithms", days_from_civil).
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(719_468)
}

/// Year, month and day of so many days after 1970 (ibid., civil_from_days).
pub fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_counts_them() {
        for (text, count) in
            [("1970-01-01", 0), ("2000-02-29", 11_016), ("2026-11-29", 20_786), ("2100-03-01", 47_541)]
        {
            assert_eq!(days(text), Some(count), "{text}");
            let (year, month, day) = civil(count);
            assert_eq!(format!("{year:04}-{month:02}-{day:02}"), text);
        }
        for bad in ["", "unknown", "1960-01-01", "2026-11", "2026-13-01", "2026-00-10", "2026-01-32"] {
            assert_eq!(days(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_are_read_with_their_zones_and_written_without_one() {
        const AT: u64 = 1_796_004_000_000;
        for (text, ms) in [
            ("2026-11-30T02:00:00Z", 0),
            ("2026-11-30t02:00:00.5z", 500),
            ("2026-11-30 03:00:00+01:00", 0),
            ("2026-11-29T20:30:00-05:30", 0),
        ] {
            assert_eq!(since(text, 0), Ok(AT + ms), "{text}");
        }
        assert_eq!(format(AT + 999), "2026-11-30T02:00:00Z");
        assert_eq!(since("10m", AT), Ok(AT - 600_000));
        assert_eq!(since("9999d", 5), Ok(0));
    }

    #[test]
    fn what_is_no_time_is_refused_with_an_example() {
        let bad = [
            "",
            "yesterday",
            "2026-11-30",
            "2026-11-30T02:00:00",
            "2026-11-30T2:00:00Z",
            "2026-11-30T24:00:00Z",
            "2026-11-30T02:00Z",
            "2026-11-30T02:00:00+1",
            "2026-11-30T02:00:00.xZ",
            "2026-11-3\u{20ac}T02:00:00Z",
        ];
        for text in bad {
            let said = since(text, 0).expect_err(text);
            assert!(
                said.ends_with(
                    "is no time; write how long ago, like 10m, or a time like 1970-01-01T00:00:00Z"
                )
            );
        }
    }
}
