//! What is on the screen.

use std::collections::VecDeque;

/// A VM, in words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    pub id: String,
    pub name: String,
    pub state: String,
    /// It has a guest that a shell can be opened in.
    pub runs: bool,
    pub cpu: String,
    pub memory: String,
    pub disk: String,
    pub net: String,
    pub uptime: String,
    pub workspace: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Stop,
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    Table,
    Help,
    /// A question about one VM.
    Ask {
        act: Act,
        id: String,
        name: String,
    },
    /// The end of a VM's console.
    Logs {
        name: String,
        lines: VecDeque<String>,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub struct State {
    pub rows: Vec<Row>,
    /// By id, so that it stays the same VM when others come and go.
    selected: Option<String>,
    /// Where it was in the list, for when it goes.
    place: usize,
    pub view: View,
    /// What went wrong, or goes on.
    pub note: Option<String>,
    /// Why what is shown is old.
    pub trouble: Option<String>,
}

impl State {
    pub fn new() -> Self {
        Self { rows: vec![], selected: None, place: 0, view: View::Table, note: None, trouble: None }
    }

    /// Shows these VMs from now on. The selected one stays selected; if it has gone, the one in its place is.
    pub fn show(&mut self, rows: Vec<Row>) {
        self.rows = rows;
        let there = self.rows.iter().position(|row| Some(&row.id) == self.selected.as_ref());
        self.go(there.unwrap_or(self.place));
    }

    pub fn selected(&self) -> Option<&Row> {
        self.rows.get(self.place)
    }

    /// Where the selected VM is in the list.
    pub fn place(&self) -> usize {
        self.place
    }

    /// Selects the VM so many places further on.
    pub fn select(&mut self, by: isize) {
        self.go(self.place.saturating_add_signed(by));
    }

    fn go(&mut self, place: usize) {
        self.place = place.min(self.rows.len().saturating_sub(1));
        self.selected = self.selected().map(|row| row.id.clone());
    }

    pub fn ask(&mut self, act: Act) {
        if let Some(Row { id, name, .. }) = self.selected() {
            self.view = View::Ask { act, id: id.clone(), name: name.clone() };
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn rows(count: usize) -> Vec<Row> {
        let row = |n: usize| Row {
            id: n.to_string(),
            name: format!("vm{n}"),
            state: "running".to_owned(),
            runs: true,
            cpu: "7 %".to_owned(),
            memory: "100.0 MiB / 488.0 MiB".to_owned(),
            disk: "1.0 GiB / 8.0 GiB".to_owned(),
            net: "0 B / 0 B".to_owned(),
            uptime: "3 minutes".to_owned(),
            workspace: "/root/repo".to_owned(),
        };
        (0..count).map(row).collect()
    }

    pub fn state(count: usize) -> State {
        let mut state = State::new();
        state.show(rows(count));
        state
    }

    #[test]
    fn the_selected_vm_stays_selected_and_the_next_one_is_when_it_goes() {
        let mut state = state(4);
        state.select(2);
        let mut left = rows(4);
        left.remove(0);
        state.show(left.clone());
        assert_eq!(state.selected().map(|row| row.id.as_str()), Some("2"));
        left.remove(1);
        state.show(left);
        assert_eq!(state.selected().map(|row| row.id.as_str()), Some("3"));
        state.show(vec![]);
        assert_eq!(state.selected(), None);
        state.show(rows(2));
        assert!(state.selected().is_some());
    }
}
