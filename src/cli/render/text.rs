//! Text for people: made harmless, ages, sizes.

use std::borrow::Cow;
use std::fmt::Write;

use crate::host::terminal::acts_on;

/// Returns `text` without anything that a terminal would act on: control characters of both ranges, DEL, and the Unicode
/// characters that reorder or break lines, each written as an escape. Guests, images and registries choose such text (A19).
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts_on) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push(&mut out, c);
    }
    Cow::Owned(out)
}

/// Adds `c` as [`escape`] writes it.
pub fn push(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        c if acts_on(c) && u32::from(c) < 0x100 => {
            // Writing to a String does not fail.
            write!(out, "\\x{:02x}", u32::from(c)).unwrap_or_default();
        }
        c if acts_on(c) => write!(out, "\\u{{{:x}}}", u32::from(c)).unwrap_or_default(),
        c => out.push(c),
    }
}

/// Returns a line of a log for a terminal: colours are left out, tabs kept, a final carriage return dropped, and everything
/// else that a terminal would act on escaped. `line` may be any bytes.
pub fn log_line(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\r');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(len) = colour(rest) {
            rest = &rest[len..];
            continue;
        }
        match c {
            '\t' => out.push('\t'),
            c => push(&mut out, c),
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// Returns a line of a file for a terminal: tabs kept, everything else that a terminal would act on escaped.
pub fn escape_line(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push('\t'),
            c => push(&mut out, c),
        }
    }
    out
}

/// The length of the SGR sequence (ECMA-48, 8.3.117) that `text` begins with.
pub fn colour(text: &str) -> Option<usize> {
    let body = text.strip_prefix("\x1b[")?;
    let end = body.find(|c: char| !(c.is_ascii_digit() || c == ';'))?;
    body[end..].starts_with('m').then_some(2 + end + 1)
}

/// JSON that is safe on a terminal too: what [`escape`] would write differently becomes `\uXXXX`, which is the same JSON.
pub fn escape_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        // The newlines are the layout; within strings serde_json has escaped the C0 range already.
        if c == '\n' || !acts_on(c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").unwrap_or_default();
            }
        }
    }
    out
}

/// A length of time in its largest unit: `3 minutes`.
pub fn span(secs: u64) -> String {
    let (count, unit) = match secs {
        0..60 => (secs, "second"),
        60..3_600 => (secs / 60, "minute"),
        3_600..86_400 => (secs / 3_600, "hour"),
        86_400..604_800 => (secs / 86_400, "day"),
        604_800..2_592_000 => (secs / 604_800, "week"),
        2_592_000..31_536_000 => (secs / 2_592_000, "month"),
        _ => (secs / 31_536_000, "year"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// How long ago `then` was, in seconds since 1970 like `now`: `3 minutes ago`.
pub fn age(now: u64, then: u64) -> String {
    match now.saturating_sub(then) {
        0..5 => "just now".to_owned(),
        secs => format!("{} ago", span(secs)),
    }
}

/// A number of bytes in the largest unit that keeps it above one: `1.2 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        // What would be rounded to 1024.0 belongs to the next unit.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_gets_through() {
        let table = [
            ("plain text, ümläut, 日本", "plain text, ümläut, 日本"),
            ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
            ("a\nb\tc\rd", r"a\nb\tc\rd"),
            ("\u{9b}31m\u{7f}\u{0}", r"\x9b31m\x7f\x00"),
            ("user\u{202e}txt.exe", r"user\u{202e}txt.exe"),
            ("a\u{2028}b\u{2066}c\u{feff}", r"a\u{2028}b\u{2066}c\u{feff}"),
            ("\u{e0041}", r"\u{e0041}"),
        ];
        for (text, want) in table {
            assert_eq!(escape(text), want);
        }
    }

    #[test]
    fn a_log_line_loses_its_colours_and_keeps_its_words() {
        let table: [(&[u8], &str); 6] = [
            (b"[\x1b[0;32m  OK  \x1b[0m] Started.\r", "[  OK  ] Started."),
            (b"a\tb", "a\tb"),
            (b"\x1b[2Jgone", r"\x1b[2Jgone"),
            (b"\x1b[31", r"\x1b[31"),
            (b"\x1b", r"\x1b"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
        ];
        for (line, want) in table {
            assert_eq!(log_line(line), want);
        }
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({ "name": "a\u{9b}2J\u{202e}\u{e0041}b\n" });
        let json = escape_json(&serde_json::to_string_pretty(&value).expect("serialises"));
        assert!(json.chars().all(|c| c == '\n' || !acts_on(c)), "{json}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).expect("parses"), value);
    }

    #[test]
    fn ages_are_said_as_people_say_them() {
        let table = [
            (0, "just now"),
            (59, "59 seconds ago"),
            (60, "1 minute ago"),
            (7_199, "1 hour ago"),
            (172_800, "2 days ago"),
            (2_000_000, "3 weeks ago"),
            (70_000_000, "2 years ago"),
        ];
        for (secs, want) in table {
            assert_eq!(age(100_000_000, 100_000_000 - secs), want);
        }
        assert_eq!(age(5, 10), "just now", "a clock that went back");
    }

    #[test]
    fn bytes_are_shown_with_one_decimal() {
        for (n, want) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1_288_490_188, "1.2 GiB"),
        ] {
            assert_eq!(bytes(n), want);
        }
    }
}
