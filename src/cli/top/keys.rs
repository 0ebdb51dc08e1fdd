//! Keys: from bytes to keys, and what each does.

use super::state::{Act, State, View};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Up,
    Down,
    Home,
    End,
    Enter,
    Escape,
    /// Ctrl-C.
    Interrupt,
    Char(char),
}

/// What is to be done beyond what is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Nothing,
    Quit,
    Shell { id: String },
    OpenLogs { id: String },
    CloseLogs,
    Do { act: Act, id: String },
}

/// The keys in what was read at once. An escape sequence comes in one piece, as terminals send it; one that means nothing here is
/// passed over.
pub fn keys(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = vec![];
    while let Some((first, rest)) = bytes.split_first() {
        bytes = rest;
        match first {
            0x1b => {
                let (key, length) = escape(rest);
                keys.extend(key);
                bytes = &rest[length..];
            }
            b'\r' | b'\n' => keys.push(Key::Enter),
            3 => keys.push(Key::Interrupt),
            0x20..0x7f => keys.push(Key::Char(char::from(*first))),
            _ => {}
        }
    }
    keys
}

/// What follows an ESC: CSI (ECMA-48, 5.4) or SS3 with a letter.
fn escape(rest: &[u8]) -> (Option<Key>, usize) {
    let [b'[' | b'O', sequence @ ..] = rest else { return (Some(Key::Escape), 0) };
    let Some(end) = sequence.iter().position(|b| (0x40..0x7f).contains(b)) else { return (None, rest.len()) };
    let key = match &sequence[..=end] {
        [b'A'] => Some(Key::Up),
        [b'B'] => Some(Key::Down),
        [b'H'] | b"1~" => Some(Key::Home),
        [b'F'] | b"4~" => Some(Key::End),
        _ => None,
    };
    (key, end + 2)
}

pub fn press(state: &mut State, key: Key) -> Action {
    state.note = None;
    if key == Key::Interrupt {
        return Action::Quit;
    }
    match &state.view {
        View::Help => {
            state.view = View::Table;
            Action::Nothing
        }
        View::Logs { .. } => match key {
            Key::Char('q') | Key::Escape => {
                state.view = View::Table;
                Action::CloseLogs
            }
            _ => Action::Nothing,
        },
        View::Ask { act, id, .. } => {
            let action = match key {
                Key::Char('y' | 'Y') => Action::Do { act: *act, id: id.clone() },
                _ => Action::Nothing,
            };
            state.view = View::Table;
            action
        }
        View::Table => in_table(state, key),
    }
}

fn in_table(state: &mut State, key: Key) -> Action {
    match key {
        Key::Up | Key::Char('k') => state.select(-1),
        Key::Down | Key::Char('j') => state.select(1),
        Key::Home | Key::Char('g') => state.select(isize::MIN),
        Key::End | Key::Char('G') => state.select(isize::MAX),
        Key::Char('?' | 'h') => state.view = View::Help,
        Key::Char('q') => return Action::Quit,
        Key::Char('s') => state.ask(Act::Stop),
        Key::Char('d') => state.ask(Act::Delete),
        Key::Enter | Key::Char('e') => match state.selected() {
            Some(row) if row.runs => return Action::Shell { id: row.id.clone() },
            Some(row) => state.note = Some(format!("{} does not run", row.name)),
            None => {}
        },
        Key::Char('l') => {
            if let Some(row) = state.selected() {
                return Action::OpenLogs { id: row.id.clone() };
            }
        }
        Key::Escape | Key::Interrupt | Key::Char(_) => {}
    }
    Action::Nothing
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::{rows, state};
    use super::*;

    #[test]
    fn bytes_become_keys() {
        let table: [(&[u8], &[Key]); 9] = [
            (b"j\x1b[A\x1b[B", &[Key::Char('j'), Key::Up, Key::Down]),
            (b"\x1bOA\x1bOB", &[Key::Up, Key::Down]),
            (b"\x1b", &[Key::Escape]),
            (b"\x1b[1~\x1b[F", &[Key::Home, Key::End]),
            (b"\x1b[1;5Cq", &[Key::Char('q')]),
            (b"\x1b[", &[]),
            (b"\r\n\x03", &[Key::Enter, Key::Enter, Key::Interrupt]),
            (b"\x00\x7f\xff", &[]),
            (b"\x1bx", &[Key::Escape, Key::Char('x')]),
        ];
        for (bytes, want) in table {
            assert_eq!(keys(bytes), want, "{bytes:?}");
        }
    }

    /// Presses one key after the other, and returns what came of each but nothing.
    fn pressed(state: &mut State, typed: &[u8]) -> Vec<Action> {
        let actions = keys(typed).into_iter().map(|key| press(state, key));
        actions.filter(|action| *action != Action::Nothing).collect()
    }

    #[test]
    fn the_selection_moves_and_stops_at_both_ends() {
        let mut state = state(3);
        for (typed, want) in
            [(&b"jj"[..], "2"), (b"j", "2"), (b"k", "1"), (b"\x1b[A\x1b[A", "0"), (b"G", "2"), (b"g", "0")]
        {
            pressed(&mut state, typed);
            assert_eq!(state.selected().map(|row| row.id.as_str()), Some(want), "{typed:?}");
        }
    }

    #[test]
    fn nothing_is_stopped_or_deleted_without_a_yes() {
        let done = |act| vec![Action::Do { act, id: "0".to_owned() }];
        let table: [(&[u8], Vec<Action>); 7] = [
            (b"s", vec![]),
            (b"sn", vec![]),
            (b"s\r", vec![]),
            (b"sy", done(Act::Stop)),
            (b"dY", done(Act::Delete)),
            (b"d\x1by", vec![]),
            (b"s\x03", vec![Action::Quit]),
        ];
        for (typed, want) in table {
            assert_eq!(pressed(&mut state(3), typed), want, "{typed:?}");
        }
    }

    #[test]
    fn a_yes_is_about_the_vm_that_was_asked_about() {
        let mut state = state(3);
        pressed(&mut state, b"s");
        let mut left = rows(3);
        left.remove(0);
        state.show(left);
        assert_eq!(pressed(&mut state, b"y"), [Action::Do { act: Act::Stop, id: "0".to_owned() }]);
    }

    #[test]
    fn shells_and_logs_are_opened_of_the_selected_vm() {
        let mut state = state(3);
        assert_eq!(pressed(&mut state, b"e\r"), vec![Action::Shell { id: "0".to_owned() }; 2]);
        assert_eq!(pressed(&mut state, b"jl"), [Action::OpenLogs { id: "1".to_owned() }]);
        let mut stopped = rows(1);
        stopped[0].runs = false;
        state.show(stopped);
        assert_eq!(pressed(&mut state, b"\r"), []);
        assert_eq!(state.note.as_deref(), Some("vm0 does not run"));
        state.show(vec![]);
        assert_eq!(pressed(&mut state, b"\rlsdyjkG"), [], "there is no VM");
        assert_eq!(pressed(&mut state, b"?q"), [], "help is left by any key");
        assert_eq!(pressed(&mut state, b"q"), [Action::Quit]);
    }

    #[test]
    fn logs_are_left_by_q() {
        let mut state = state(1);
        state.view = View::Logs { name: "vm0".to_owned(), lines: Default::default() };
        assert_eq!(pressed(&mut state, b"sdj"), []);
        assert_eq!(pressed(&mut state, b"q"), [Action::CloseLogs]);
        assert_eq!(state.view, View::Table);
    }
}
