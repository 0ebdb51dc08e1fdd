//! A patch on a terminal: coloured by us, and nothing in it that a terminal would act on.

use std::io::{self, Write};

use super::text::escape_line;

/// A line longer than this is shown in pieces, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// What is written to it is shown line by line.
pub struct PatchLines<W> {
    to: W,
    line: Vec<u8>,
}

impl<W: Write> PatchLines<W> {
    pub fn new(to: W) -> Self {
        Self { to, line: vec![] }
    }

    fn show(&mut self) -> io::Result<()> {
        let text = escape_line(&self.line);
        self.line.clear();
        match colour(&text) {
            Some(colour) => writeln!(self.to, "\x1b[{colour}m{text}\x1b[m"),
            None => writeln!(self.to, "{text}"),
        }
    }
}

/// As git colours it (git-config(1), color.diff).
fn colour(line: &str) -> Option<&'static str> {
    const META: [&str; 11] = [
        "diff --git ",
        "index ",
        "--- ",
        "+++ ",
        "old mode ",
        "new mode ",
        "new file mode ",
        "deleted file mode ",
        "GIT binary patch",
        "literal ",
        "delta ",
    ];
    match line.as_bytes().first() {
        _ if META.iter().any(|meta| line.starts_with(meta)) => Some("1"),
        Some(b'@') => Some("36"),
        Some(b'+') => Some("32"),
        Some(b'-') => Some("31"),
        _ => None,
    }
}

impl<W: Write> Write for PatchLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            for piece in part.chunks(MAX_LINE) {
                self.line.extend_from_slice(piece);
                let whole = self.line.last() == Some(&b'\n');
                if whole {
                    self.line.pop();
                }
                if whole || self.line.len() >= MAX_LINE {
                    self.show()?;
                }
            }
        }
        Ok(bytes.len())
    }

    /// What has no newline behind it is a line of its own then.
    fn flush(&mut self) -> io::Result<()> {
        if !self.line.is_empty() {
            self.show()?;
        }
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_patch_reaches_the_terminal_but_its_words_and_our_colours() {
        let mut lines = PatchLines::new(vec![]);
        for piece in [&b"diff --git a/x b/x\n@@ -1 +1 @@\n-\told\n+\x1b[2J"[..], b"\xff\r\n c\x9b\n\\ No"] {
            lines.write_all(piece).expect("writes");
        }
        lines.flush().expect("writes");
        let want = "\x1b[1mdiff --git a/x b/x\x1b[m\n\x1b[36m@@ -1 +1 @@\x1b[m\n\x1b[31m-\told\x1b[m\n\x1b[32m+\\x1b[2J\u{fffd}\\r\x1b[m\n c\u{fffd}\n\\ No\n";
        assert_eq!(String::from_utf8(lines.to).expect("UTF-8"), want);
    }

    #[test]
    fn a_line_without_an_end_does_not_fill_the_memory() {
        let mut lines = PatchLines::new(vec![]);
        for _ in 0..40 {
            lines.write_all(&[b'x'; 10_000]).expect("writes");
            assert!(lines.line.len() < MAX_LINE);
        }
        assert!(lines.to.len() > 300_000);
    }
}
