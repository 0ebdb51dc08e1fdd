//! From what is to be shown to lines for a terminal of a size. Pure: nothing here knows a terminal.

use super::state::{Act, Row, State, View};
use crate::cli::render::escape;
use crate::proto::agent::Tty;

const HELP: [&str; 9] = [
    "up, k    the VM above",
    "down, j  the VM below",
    "g, G     the first, the last VM",
    "enter, e open a shell in it; back when that ends",
    "l        show its console; q goes back",
    "s        stop it",
    "d        delete it, with its disk",
    "q        quit; VMs run on",
    "any key goes back",
];

const HEADER: [&str; 8] =
    ["NAME", "STATE", "CPU", "MEMORY", "UPTIME", "NET IN/OUT PER S", "DISK", "WORKSPACE"];

/// How a line is made to stand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Plain,
    /// With SGR sequences (ECMA-48, 8.3.117).
    Marked,
}

impl Style {
    fn with(self, code: &str, line: String) -> String {
        match self {
            Self::Plain => line,
            Self::Marked => format!("\x1b[{code}m{line}"),
        }
    }
}

/// At most as many lines as the terminal has, each at most as wide as it is, as far as characters are one column wide.
pub fn frame(state: &State, size: Tty, style: Style) -> Vec<String> {
    let (rows, columns) = (usize::from(size.rows), usize::from(size.columns));
    // The last line is for what is said; a terminal of one line has only that.
    let room = rows.saturating_sub(1);
    let mut lines = match &state.view {
        View::Help => HELP.iter().map(|line| clip(line, columns)).take(room).collect(),
        View::Logs { lines, .. } => {
            lines.iter().skip(lines.len().saturating_sub(room)).map(|line| clip(line, columns)).collect()
        }
        View::Table | View::Ask { .. } => table(state, room, columns, style),
    };
    lines.resize(room, String::new());
    lines.push(style.with("1", clip(&bottom(state), columns)));
    lines
}

fn bottom(state: &State) -> String {
    match (&state.view, &state.note, &state.trouble) {
        (View::Ask { act: Act::Stop, name, .. }, _, _) => format!("Stop {name}? y or n"),
        (View::Ask { act: Act::Delete, name, .. }, _, _) => {
            format!("Delete {name} and its disk? There is no way back. y or n")
        }
        (_, Some(note), _) => note.clone(),
        (_, None, Some(trouble)) => trouble.clone(),
        (View::Logs { name, .. }, None, None) => format!("console of {name}; q goes back"),
        (View::Table | View::Help, None, None) => {
            "q quit  ? help  enter shell  l logs  s stop  d delete".to_owned()
        }
    }
}

fn table(state: &State, room: usize, columns: usize, style: Style) -> Vec<String> {
    let cells: Vec<[String; 8]> = state.rows.iter().map(cells).collect();
    let width = |column: usize| {
        let cells = cells.iter().map(|cells| cells[column].chars().count());
        cells.chain([HEADER[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    // As many columns as fit whole; the first always, and the last, which may be cut.
    let mut taken = 2;
    let mut shown = 0;
    for (n, width) in widths.iter().enumerate() {
        if n > 0 && taken + if n == 7 { HEADER[7].len() } else { *width } > columns {
            break;
        }
        taken += width + 2;
        shown = n + 1;
    }
    let line = |mark: &str, cells: &[&str]| {
        let padded = cells.iter().zip(widths).take(shown);
        let padded = padded.map(|(cell, width)| format!("{cell:<width$}  ")).collect::<String>();
        clip(&format!("{mark} {}", padded.trim_end()), columns)
    };
    let below = room.saturating_sub(1);
    let first = first_shown(state.place(), state.rows.len(), below);
    let mut lines = vec![];
    if room > 0 {
        lines.push(style.with("1", line(" ", &HEADER)));
    }
    for (n, cells) in cells.iter().enumerate().skip(first).take(below) {
        let cells = cells.each_ref().map(String::as_str);
        lines.push(match n == state.place() {
            true => style.with("7", line(">", &cells)),
            false => line(" ", &cells),
        });
    }
    if state.rows.is_empty() && below > 0 && state.trouble.is_none() {
        lines.push(clip("  there is no VM; `banger vm run` makes one", columns));
    }
    lines
}

/// The first VM that is shown, so that the selected one is, in the middle where there are more on both sides.
fn first_shown(place: usize, count: usize, room: usize) -> usize {
    place.saturating_sub(room / 2).min(count.saturating_sub(room))
}

fn cells(row: &Row) -> [String; 8] {
    let cells =
        [&row.name, &row.state, &row.cpu, &row.memory, &row.uptime, &row.net, &row.disk, &row.workspace];
    cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { escape(cell).into_owned() })
}

fn clip(text: &str, columns: usize) -> String {
    escape(text).chars().take(columns).collect()
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::{rows, state};
    use super::*;

    fn drawn(state: &State, rows: u16, columns: u16) -> Vec<String> {
        frame(state, Tty { rows, columns }, Style::Plain)
    }

    #[test]
    fn a_wide_terminal_shows_all_there_is() {
        let lines = drawn(&state(2), 5, 130);
        assert_eq!(
            lines,
            [
                "  NAME  STATE    CPU  MEMORY                 UPTIME     NET IN/OUT PER S  DISK               WORKSPACE",
                "> vm0   running  7 %  100.0 MiB / 488.0 MiB  3 minutes  0 B / 0 B         1.0 GiB / 8.0 GiB  /root/repo",
                "  vm1   running  7 %  100.0 MiB / 488.0 MiB  3 minutes  0 B / 0 B         1.0 GiB / 8.0 GiB  /root/repo",
                "",
                "q quit  ? help  enter shell  l logs  s stop  d delete",
            ]
        );
    }

    #[test]
    fn a_narrow_terminal_has_fewer_columns_and_none_of_them_cut() {
        let lines = drawn(&state(1), 3, 30);
        assert_eq!(lines[..2], ["  NAME  STATE    CPU", "> vm0   running  7 %"]);
        assert_eq!(lines[2], "q quit  ? help  enter shell  l");
    }

    #[test]
    fn no_size_is_too_small_and_no_line_too_long() {
        let mut states = vec![state(0), state(1), state(50)];
        for view in [View::Help, View::Logs { name: "x".to_owned(), lines: ["a".repeat(500)].into() }] {
            let mut state = state(3);
            state.view = view;
            states.push(state);
        }
        let mut asking = state(3);
        asking.ask(Act::Delete);
        states.push(asking);
        for state in &states {
            for rows in 1..12 {
                for columns in (1..150).step_by(7) {
                    let lines = drawn(state, rows, columns);
                    assert_eq!(lines.len(), usize::from(rows));
                    assert!(
                        lines.iter().all(|line| line.chars().count() <= usize::from(columns)),
                        "{lines:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_selected_vm_is_always_seen() {
        let mut state = state(50);
        for place in 0..50 {
            let lines = drawn(&state, 10, 80);
            let marked: Vec<&String> = lines.iter().filter(|line| line.starts_with('>')).collect();
            assert!(matches!(marked[..], [one] if one.contains(&format!("vm{place} "))), "{lines:?}");
            state.select(1);
        }
    }

    #[test]
    fn text_of_others_is_made_harmless_and_only_our_own_marks_are_sequences() {
        let hostile = "\x1b[2J\u{9b}31m\u{202e}x".to_owned();
        let row = Row { workspace: hostile.clone(), state: hostile.clone(), ..rows(1).remove(0) };
        let mut state = state(1);
        state.show(vec![row]);
        state.note = Some(hostile.clone());
        for view in [View::Table, View::Help, View::Logs { name: "x".to_owned(), lines: [hostile].into() }] {
            state.view = view;
            let all = drawn(&state, 10, 200).concat();
            assert!(all.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{all:?}");
        }
        let marked = frame(&state, Tty { rows: 3, columns: 20 }, Style::Marked);
        assert!(marked.last().is_some_and(|line| line.starts_with("\x1b[1m")), "{marked:?}");
    }

    #[test]
    fn what_is_wrong_and_what_is_asked_is_at_the_bottom() {
        let mut state = state(1);
        state.trouble = Some("bangerd does not run".to_owned());
        assert_eq!(drawn(&state, 2, 80)[1], "bangerd does not run");
        state.note = Some("cannot stop vm0".to_owned());
        assert_eq!(drawn(&state, 2, 80)[1], "cannot stop vm0");
        state.ask(Act::Stop);
        assert_eq!(drawn(&state, 2, 80)[1], "Stop vm0? y or n");
    }

    #[test]
    fn of_a_console_the_end_is_shown() {
        let lines = (0..20).map(|n| n.to_string()).collect();
        let mut state = state(1);
        state.view = View::Logs { name: "dev".to_owned(), lines };
        assert_eq!(drawn(&state, 4, 80), ["17", "18", "19", "console of dev; q goes back"]);
    }
}
