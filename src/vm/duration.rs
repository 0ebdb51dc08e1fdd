//! Lengths of time as people write them: `10m`, `1h30m`, `500ms`, `1.5s`, `7d`, or a bare number of seconds.

use std::fmt;
use std::time::Duration;

/// The longest, in seconds: a hundred years.
const MOST: f64 = 100.0 * 365.0 * 86_400.0;

/// The text is no length of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadDuration(String);

/// Reads numbers with units `ms`, `s`, `m`, `h` and `d`, one after the other, or one number without a unit: seconds.
///
/// # Errors
/// [`BadDuration`], also of more than a hundred years.
pub fn parse(text: &str) -> Result<Duration, BadDuration> {
    let bad = || BadDuration(text.to_owned());
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = split(after, |c| c.is_ascii_alphabetic());
        let alone = number.len() == text.trim().len();
        let seconds_per = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "" if alone => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(bad()),
        };
        seconds += number.parse::<f64>().map_err(|_| bad())? * seconds_per;
        rest = after;
    }
    // A comparison that is false for what is no number.
    if (0.0..=MOST).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(bad()) }
}

fn split(text: &str, of: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !of(c)).unwrap_or(text.len()))
}

impl fmt::Display for BadDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no length of time; write it like 30s, 10m or 1h30m", self.0)
    }
}

impl std::error::Error for BadDuration {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_people_write_them() {
        let table = [
            ("90", 90_000),
            ("0", 0),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("500ms", 500),
            (" 2d ", 172_800_000),
        ];
        for (text, ms) in table {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_length_is_refused_with_an_example() {
        for text in ["", "m", "10 m", "-1s", "10x", "1h30", "1.2.3s", "inf", "nan", "999999d", "1e9"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let said = parse("soon").expect_err("no length").to_string();
        assert_eq!(said, "\"soon\" is no length of time; write it like 30s, 10m or 1h30m");
    }
}
