//! When a log grew: what a console or a VMM writes has no times. Beside each log lies a file of marks, a line `MS LENGTH` for each
//! time that the log was looked at and had grown: it had that length when it was last written to, then.
//!
//! So what lies between two marks was written no later than the second one says, and, as a log that grows is looked at every second,
//! no more than about a second earlier. What was written while no bangerd ran is only known to be no later than the log's own time
//! of change. A mark that is left out makes what is before it count as later, never as earlier: `--since` shows too much rather
//! than too little.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// More marks than this are thinned out, the older half first.
const MOST: usize = 4096;

/// How far the time of a file's change may be behind the clock: the kernel takes that of its last tick, 100 a second at least.
const TICK_MS: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// Milliseconds since 1970.
    at_ms: u64,
    length: u64,
}

/// The marks of one log.
pub struct Times {
    log: PathBuf,
    marks: Vec<Mark>,
}

/// The file of marks of `log`.
pub fn beside(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".times");
    name.into()
}

impl Times {
    /// What is known of `log`; nothing where there are no marks, or none that can be read.
    pub fn open(log: &Path) -> Self {
        let text = std::fs::read(beside(log)).unwrap_or_default();
        Self { log: log.to_owned(), marks: parse(&String::from_utf8_lossy(&text)) }
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Notes how long the log is.
    pub fn note(&mut self, meta: &Metadata) -> io::Result<()> {
        let last = self.marks.last().map_or(0, |mark| mark.length);
        if meta.len() == last {
            return Ok(());
        }
        let mark = Mark { at_ms: changed_ms(meta), length: meta.len() };
        if meta.len() < last {
            // Somebody else has cut it.
            self.marks = vec![mark];
            return self.write();
        }
        self.marks.push(mark);
        if self.marks.len() > MOST {
            thin(&mut self.marks);
            return self.write();
        }
        self.file(false)?.write_all(mark.line().as_bytes())
    }

    /// The first `gone` bytes of the log were taken away, and `put_before` put in their place.
    pub fn cut(&mut self, gone: u64, put_before: u64) -> io::Result<()> {
        shift(&mut self.marks, gone, put_before);
        self.write()
    }

    /// Where in the log that begins which was written at `since_ms` or later.
    pub fn start(&self, since_ms: u64, meta: &Metadata) -> u64 {
        start(
            &self.marks,
            since_ms.saturating_sub(TICK_MS),
            Mark { at_ms: changed_ms(meta), length: meta.len() },
        )
    }

    fn write(&self) -> io::Result<()> {
        let text: String = self.marks.iter().map(|mark| mark.line()).collect();
        self.file(true)?.write_all(text.as_bytes())
    }

    fn file(&self, anew: bool) -> io::Result<std::fs::File> {
        let mut options = OpenOptions::new();
        options.create(true).mode(0o600);
        if anew { options.write(true).truncate(true) } else { options.append(true) }.open(beside(&self.log))
    }
}

impl Mark {
    fn line(self) -> String {
        format!("{} {}\n", self.at_ms, self.length)
    }
}

fn changed_ms(meta: &Metadata) -> u64 {
    let ms = meta.mtime().saturating_mul(1_000).saturating_add(meta.mtime_nsec() / 1_000_000);
    u64::try_from(ms).unwrap_or(0)
}

/// Reads as many marks as make sense: a crash may have left half a line.
fn parse(text: &str) -> Vec<Mark> {
    let mut marks: Vec<Mark> = vec![];
    for line in text.split_inclusive('\n') {
        let words = line.strip_suffix('\n').and_then(|line| line.split_once(' '));
        let Some((Ok(at_ms), Ok(length))) = words.map(|(at, length)| (at.parse(), length.parse())) else {
            break;
        };
        if marks.last().is_some_and(|last| last.length >= length) {
            break;
        }
        marks.push(Mark { at_ms, length });
    }
    marks
}

/// Leaves out every other one of the older half.
fn thin(marks: &mut Vec<Mark>) {
    let old = marks.len() / 2;
    let mut n = 0;
    marks.retain(|_| {
        n += 1;
        n > old || n % 2 == 0
    });
}

fn shift(marks: &mut Vec<Mark>, gone: u64, put_before: u64) {
    let before = marks.iter().rposition(|mark| mark.length <= gone);
    let first = before.map(|at| Mark { at_ms: marks[at].at_ms, length: put_before });
    let left = marks.drain(..).filter(|mark| mark.length > gone);
    *marks = first
        .into_iter()
        .chain(left.map(|mark| Mark { length: mark.length - gone + put_before, ..mark }))
        .collect();
}

/// `now`: the log's length and time of change, which is the mark that will be made next.
fn start(marks: &[Mark], since_ms: u64, now: Mark) -> u64 {
    let mut start = 0;
    // The host's clock may have been set back: it counts what lies in the file's order.
    for mark in marks.iter().filter(|mark| mark.length <= now.length).chain([&now]) {
        if mark.at_ms >= since_ms {
            return start;
        }
        start = mark.length;
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(pairs: &[(u64, u64)]) -> Vec<Mark> {
        pairs.iter().map(|(at_ms, length)| Mark { at_ms: *at_ms, length: *length }).collect()
    }

    #[test]
    fn what_was_written_since_a_time_begins_behind_what_is_certainly_older() {
        let known = marks(&[(1000, 10), (2000, 20), (5000, 30)]);
        let now = Mark { at_ms: 7000, length: 40 };
        let table =
            [(0, 0), (1000, 0), (1001, 10), (2000, 10), (2001, 20), (5001, 30), (7000, 30), (7001, 40)];
        for (since, want) in table {
            assert_eq!(start(&known, since, now), want, "{since}");
        }
        assert_eq!(start(&[], 5, now), 0, "nothing is known");
        assert_eq!(start(&known, 3000, Mark { at_ms: 9000, length: 15 }), 10, "it was cut a moment ago");
    }

    #[test]
    fn a_log_that_is_cut_keeps_its_times() {
        let mut known = marks(&[(1000, 10), (2000, 20), (5000, 30)]);
        shift(&mut known, 15, 4);
        assert_eq!(known, marks(&[(1000, 4), (2000, 9), (5000, 19)]));
        let mut known = marks(&[(1000, 10)]);
        shift(&mut known, 5, 4);
        assert_eq!(known, marks(&[(1000, 9)]));
    }

    #[test]
    fn marks_stay_few_and_the_youngest_all_there() {
        let mut many: Vec<Mark> = (1..=100).map(|n| Mark { at_ms: n, length: n }).collect();
        thin(&mut many);
        assert_eq!(many.len(), 75);
        assert_eq!(many[..2], marks(&[(2, 2), (4, 4)]));
        assert_eq!(many[25..], marks(&(51..=100).map(|n| (n, n)).collect::<Vec<_>>()));
    }

    #[test]
    fn half_a_line_and_nonsense_end_what_is_known() {
        for (text, want) in
            [("1 2\n3 4", 1), ("1 2\nx\n3 4\n", 1), ("1 2\n3 1\n", 1), ("", 0), ("\u{fffd}", 0)]
        {
            assert_eq!(parse(text).len(), want, "{text:?}");
        }
    }

    #[test]
    fn a_log_is_followed_as_it_grows_is_cut_and_read_by_another_daemon() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("console.log");
        let meta = || std::fs::metadata(&log).expect("stats");
        let age = |seconds: u64| {
            let file = OpenOptions::new().append(true).open(&log).expect("opens");
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            file.set_times(std::fs::FileTimes::new().set_modified(at)).expect("sets the time");
        };
        let mut times = Times::open(&log);
        for (text, seconds) in [("one\n", 100), ("one\ntwo\n", 200)] {
            std::fs::write(&log, text).expect("writes");
            age(seconds);
            times.note(&meta()).expect("notes");
            times.note(&meta()).expect("has nothing to note");
        }
        let mut times = Times::open(&log);
        assert_eq!(times.marks, marks(&[(100_000, 4), (200_000, 8)]));
        assert_eq!(times.start(150_000, &meta()), 4);
        times.cut(4, 0).expect("cuts");
        assert_eq!(Times::open(&log).marks, marks(&[(100_000, 0), (200_000, 4)]));
        std::fs::write(&log, "x").expect("writes");
        age(300);
        times.note(&meta()).expect("notes");
        assert_eq!(Times::open(&log).marks, marks(&[(300_000, 1)]));
    }
}
