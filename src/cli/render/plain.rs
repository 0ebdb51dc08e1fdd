//! A command's output on a terminal that is not its own: it comes in pieces, is shown at once, and nothing in it is acted on.

use super::text::{colour, push};

/// The longest colour that is waited for, in bytes; ones that people use are a third of it.
const MAX_COLOUR: usize = 64;

/// One stream of it.
#[derive(Debug, Default)]
pub struct Plain {
    /// The beginning of something that ends in the next piece: of a character, a colour, or a line's end.
    held: Vec<u8>,
}

impl Plain {
    /// What to write for the next piece. Newlines and tabs stay, colours are left out; a carriage return ends a line, for it would let the next one
    /// be written over it; everything else that a terminal acts on is escaped.
    pub fn take(&mut self, piece: &[u8]) -> String {
        self.held.extend_from_slice(piece);
        let whole = self.held.len() - unfinished(&self.held);
        let rest = self.held.split_off(whole);
        let text = std::mem::replace(&mut self.held, rest);
        shown(&text)
    }

    /// What to write at the end.
    pub fn end(&mut self) -> String {
        shown(&std::mem::take(&mut self.held))
    }
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(c) = rest.chars().next() {
        if let Some(length) = colour(rest) {
            rest = &rest[length..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '\n' | '\t' => out.push(c),
            '\r' if rest.starts_with('\n') => {}
            '\r' => out.push('\n'),
            c => push(&mut out, c),
        }
    }
    out
}

/// How many bytes at the end of a piece are to wait for the next one.
fn unfinished(bytes: &[u8]) -> usize {
    if bytes.last() == Some(&b'\r') {
        return 1;
    }
    let tail = &bytes[bytes.len().saturating_sub(MAX_COLOUR)..];
    if let Some(at) = tail.iter().rposition(|b| *b == 0x1b) {
        let body = &tail[at + 1..];
        if body.is_empty() || body[0] == b'[' && body[1..].iter().all(|b| b.is_ascii_digit() || *b == b';') {
            return tail.len() - at;
        }
    }
    // A character has at most four bytes, and only its first one is so large.
    let starts = (1..=bytes.len().min(3)).find(|n| bytes[bytes.len() - n] >= 0xc0);
    let cut =
        |n: &usize| std::str::from_utf8(&bytes[bytes.len() - n..]).is_err_and(|e| e.error_len().is_none());
    starts.filter(cut).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_shown_and_not_acted_on_however_it_is_cut() {
        let table: [(&[u8], &str); 10] = [
            (b"plain\n\ttext\r\n", "plain\n\ttext\n"),
            ("ümläut 日本 🦀".as_bytes(), "ümläut 日本 🦀"),
            (b"\x1b[1;31mred\x1b[m", "red"),
            (b"\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
            (b"10%\r20%\r", "10%\n20%\n"),
            (b"back\x08space\x7f", r"back\x08space\x7f"),
            ("\u{9b}31m\u{202e}".as_bytes(), r"\x9b31m\u{202e}"),
            (b"\xff\xfeA\xf0\x9f", "\u{fffd}\u{fffd}A\u{fffd}"),
            (b"\x1b[31", r"\x1b[31"),
            (b"\x1b", r"\x1b"),
        ];
        for (bytes, want) in table {
            for size in 1..=bytes.len() {
                let mut plain = Plain::default();
                let mut out: String = bytes.chunks(size).map(|piece| plain.take(piece)).collect();
                out += &plain.end();
                assert_eq!(out, want, "{size}");
            }
        }
    }

    #[test]
    fn what_is_not_unfinished_is_shown_at_once() {
        let mut plain = Plain::default();
        assert_eq!(plain.take(b"password: "), "password: ");
        assert_eq!(plain.take(&[0x80; 5]), "\u{fffd}".repeat(5));
        let endless = [b"\x1b[".as_slice(), &[b'1'; 200]].concat();
        assert!(plain.take(&endless).starts_with(r"\x1b[1"));
        assert!(plain.held.is_empty());
    }
}
