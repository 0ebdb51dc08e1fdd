//! What goes on meanwhile: a bar on a terminal, plain lines on a pipe, nothing with -q.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::text::{bytes, escape};
use crate::proto::api::{Event, Unit};

/// Shows the events of one operation on stderr.
pub struct Progress {
    how: How,
}

enum How {
    Nothing,
    Notes,
    /// `quarters`: how many of the stage's quarters have had their line.
    Lines {
        stage: String,
        quarters: u64,
    },
    Bar(ProgressBar),
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        let how = match () {
            () if quiet => How::Nothing,
            () if std::io::stderr().is_terminal() => How::Bar(spinner()),
            () => How::Lines { stage: String::new(), quarters: 0 },
        };
        Self { how }
    }

    /// Shows nothing: for calls whose progress is nobody's business.
    pub fn silent() -> Self {
        Self { how: How::Nothing }
    }

    /// Shows what is worth a line, and not how far it is: for several at once.
    pub fn notes() -> Self {
        Self { how: How::Notes }
    }

    /// Whether [`Progress::tick`] does anything; if not, nobody needs to wake for it.
    pub fn moves(&self) -> bool {
        matches!(self.how, How::Bar(_))
    }

    pub fn tick(&self) {
        if let How::Bar(bar) = &self.how {
            bar.tick();
        }
    }

    pub fn event(&mut self, event: &Event) {
        match (&mut self.how, event) {
            (How::Nothing, _)
            | (_, Event::Happened(_))
            | (How::Notes, Event::Stage { .. } | Event::Progress { .. }) => {}
            (How::Lines { stage, quarters }, Event::Stage { text }) => {
                *stage = escape(text).into_owned();
                *quarters = 0;
                line(stage);
            }
            (How::Lines { stage, quarters }, Event::Progress { done, total, unit }) => {
                if let Some(now) = next_quarter(*quarters, *done, *total) {
                    *quarters = now;
                    line(&format!("{stage}: {}", amount(*done, *total, *unit)));
                }
            }
            (How::Lines { .. } | How::Notes, Event::Note { text }) => {
                line(&format!("note: {}", escape(text)))
            }
            (How::Bar(bar), Event::Stage { text }) => {
                bar.set_style(plain_style());
                bar.set_message(escape(text).into_owned());
                bar.tick();
            }
            (How::Bar(bar), Event::Progress { done, total, unit }) => {
                if *total > 0 && bar.length() != Some(*total) {
                    bar.set_style(bar_style());
                }
                bar.set_length(*total);
                bar.set_position(*done);
                bar.set_prefix(amount(*done, *total, *unit));
            }
            (How::Bar(bar), Event::Note { text }) => {
                bar.suspend(|| line(&format!("note: {}", escape(text))));
            }
        }
    }

    /// A line of banger's own among the progress, made harmless; nothing with -q.
    pub fn say(&self, text: &str) {
        match &self.how {
            How::Nothing | How::Notes => {}
            How::Lines { .. } => line(&escape(text)),
            How::Bar(bar) => bar.suspend(|| line(&escape(text))),
        }
    }

    /// Takes the bar off the terminal, before something else writes there.
    pub fn clear(&self) {
        if let How::Bar(bar) = &self.how {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn spinner() -> ProgressBar {
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(plain_style())
}

fn plain_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg} [{bar:24}] {prefix} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn line(text: &str) {
    // Nobody can be told that stderr is gone.
    writeln!(std::io::stderr().lock(), "{text}").unwrap_or_default();
}

/// The quarter that `done` of `total` has reached, if it is one that has had no line yet. Small amounts have none.
fn next_quarter(shown: u64, done: u64, total: u64) -> Option<u64> {
    const WORTH_A_LINE: u64 = 8 << 20;
    if total < WORTH_A_LINE {
        return None;
    }
    let now = done.min(total).saturating_mul(4) / total;
    (now > shown).then_some(now)
}

fn amount(done: u64, total: u64, unit: Unit) -> String {
    match (unit, total) {
        (Unit::Bytes, 0) => bytes(done),
        (Unit::Bytes, _) => format!("{} of {}", bytes(done), bytes(total)),
        (Unit::Items, 0) => done.to_string(),
        (Unit::Items, _) => format!("{done} of {total}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_pipe_a_long_stage_has_at_most_four_more_lines() {
        let total = 64 << 20;
        let mut shown = 0;
        let mut lines = 0;
        for done in (0..=total).step_by(1 << 20) {
            if let Some(now) = next_quarter(shown, done, total) {
                shown = now;
                lines += 1;
            }
        }
        assert_eq!(lines, 4);
        assert_eq!(next_quarter(0, 100, 100), None, "a small one has none");
        assert_eq!(next_quarter(0, u64::MAX, 0), None, "nor one of unknown size");
        assert_eq!(next_quarter(4, u64::MAX, total), None, "a total that is passed is not shown again");
    }

    #[test]
    fn amounts_are_shown_with_what_is_known() {
        assert_eq!(amount(1 << 20, 2 << 20, Unit::Bytes), "1.0 MiB of 2.0 MiB");
        assert_eq!(amount(7, 0, Unit::Items), "7");
    }
}
