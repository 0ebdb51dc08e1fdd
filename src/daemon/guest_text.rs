//! Text that a guest, a registry or an archive has made, before a person sees it (FAULTS A19).

use crate::host::terminal::acts_on;

/// `text` with all that a terminal acts on escaped, cut after `max` characters.
pub fn harmless(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for (n, c) in text.chars().enumerate() {
        if n == max {
            out.push_str("...");
            break;
        }
        match c {
            c if acts_on(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// The last `count` lines of the end of a console log, without the carriage returns of a serial line.
pub fn last_lines(tail: &[u8], count: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(tail);
    let lines: Vec<&str> = text.lines().map(|l| l.trim_end_matches('\r')).filter(|l| !l.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|l| (*l).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_direction_characters_are_shown_not_obeyed() {
        assert_eq!(harmless("a\u{1b}[31mb\tc\u{202e}d", 100), "a\\u{1b}[31mb\\tc\\u{202e}d");
        assert_eq!(harmless("naïve 日本", 100), "naïve 日本");
        assert_eq!(harmless("abcdef", 3), "abc...");
    }

    #[test]
    fn the_end_of_a_console_is_its_last_lines() {
        assert_eq!(last_lines(b"one\r\n\r\ntwo\r\nthree", 2), ["two", "three"]);
        assert_eq!(last_lines(b"\xff\xfe", 2), ["\u{fffd}\u{fffd}"]);
        assert!(last_lines(b"", 2).is_empty());
    }
}
