//! The steps of an update, and what a crash between two of them means.
//!
//! ```text
//!  Saving -> [Halting] -> Swapping -> Restarting -> Accepted -> (no journal)
//!     |          |           |            |            `-- finished: the new one has passed
//!     '----------'-----------'------------'--> Undone --> (no journal)
//!                 taken back: the old one is put back      only services are left to restart
//! ```
//!
//! The phase is on disk before the first step of it. So whoever finds a journal knows what may have been done, and each
//! step back may be taken twice.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::release::version::Version;

/// Of the journal; another one is another banger's.
pub const SCHEMA: u32 = 1;

/// update.json: an update that is under way, or was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    pub schema: u32,
    pub phase: Phase,
    pub from: Version,
    pub to: Version,
    /// SHA-256 of the executable before and after.
    pub old: String,
    pub new: String,
    /// Whether there was a way back before this, which this puts away.
    pub older: bool,
    /// Whether the new one will migrate the database, so that a copy of it is kept.
    pub database: bool,
    /// What else may be changed, and how it was.
    pub files: Vec<Saved>,
    pub updater: Updater,
}

/// The process that does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Updater {
    pub pid: u32,
    /// In clock ticks since boot, which tells it from a later process of that number.
    pub started: u64,
}

/// A file as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    pub path: PathBuf,
    pub was: Was,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Was {
    Absent,
    Link {
        target: PathBuf,
    },
    /// A copy of this name is among the saved ones.
    File {
        copy: String,
        mode: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Copies are being made. Nothing has changed.
    Saving,
    /// The daemon is stopped, for a copy of the database. Nothing else has changed.
    Halting,
    /// The executable and the other files may be the old or the new ones.
    Swapping,
    /// Services may run the new executable, and may have migrated the database.
    Restarting,
    /// The new executable has passed: there is no way but on.
    Accepted,
    /// All files are the old ones again.
    Undone,
}

/// What whoever finds a journal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Write down what is installed now, and clear away.
    Finish,
    /// Put the old things back.
    Undo(Undo),
    /// All that is left of having put the old things back.
    Restart,
}

/// What is to be put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undo {
    /// The executable, and the other files.
    pub files: bool,
    pub database: bool,
    /// Services are not as they were.
    pub restart: bool,
}

impl Phase {
    pub const ALL: [Self; 6] =
        [Self::Saving, Self::Halting, Self::Swapping, Self::Restarting, Self::Accepted, Self::Undone];

    /// What a journal of this phase asks for. `database`: a copy of it is made, for which the daemon is stopped.
    pub fn recovery(self, database: bool) -> Recovery {
        match self {
            Self::Saving => Recovery::Undo(Undo { files: false, database: false, restart: false }),
            Self::Halting => Recovery::Undo(Undo { files: false, database: false, restart: true }),
            // The database has not been touched yet, and its copy may be half a one.
            Self::Swapping => Recovery::Undo(Undo { files: true, database: false, restart: database }),
            Self::Restarting => Recovery::Undo(Undo { files: true, database, restart: true }),
            Self::Accepted => Recovery::Finish,
            Self::Undone => Recovery::Restart,
        }
    }
}

/// What an update does once a release has been found good, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Write the journal.
    Begin,
    /// Copy the files that may be changed.
    Save,
    /// Stop the daemon, if the database is to be copied.
    Halt,
    SaveDatabase,
    /// Put the new executable beside the old one.
    Copy,
    /// From here on the executable may be the new one.
    Commit,
    /// Keep what the way back was until now.
    LinkOlder,
    /// Make the old executable the way back.
    LinkPrevious,
    /// The new executable takes the old one's place.
    Rename,
    /// Units, links, completions and manual pages become what the new executable wants.
    Refresh,
    /// From here on services may run the new executable.
    Release,
    RestartHelper,
    RestartDaemon,
    /// Wait until both answer with the new version.
    Answer,
    /// Look at everything with the new executable.
    Doctor,
    /// From here on there is no way but on.
    Accept,
    /// Write down what is installed.
    Record,
    /// Remove copies and staging.
    Clean,
    /// Remove the journal.
    End,
}

impl Step {
    pub const ALL: [Self; 19] = [
        Self::Begin,
        Self::Save,
        Self::Halt,
        Self::SaveDatabase,
        Self::Copy,
        Self::Commit,
        Self::LinkOlder,
        Self::LinkPrevious,
        Self::Rename,
        Self::Refresh,
        Self::Release,
        Self::RestartHelper,
        Self::RestartDaemon,
        Self::Answer,
        Self::Doctor,
        Self::Accept,
        Self::Record,
        Self::Clean,
        Self::End,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Save => "save files",
            Self::Halt => "stop the daemon",
            Self::SaveDatabase => "save the database",
            Self::Copy => "copy the executable",
            Self::Commit => "commit to the swap",
            Self::LinkOlder => "keep the older one",
            Self::LinkPrevious => "link the previous one",
            Self::Rename => "swap",
            Self::Refresh => "refresh units and links",
            Self::Release => "commit to the restart",
            Self::RestartHelper => "restart bangerd-root",
            Self::RestartDaemon => "restart bangerd",
            Self::Answer => "wait for an answer",
            Self::Doctor => "doctor",
            Self::Accept => "accept",
            Self::Record => "record",
            Self::Clean => "clean up",
            Self::End => "end",
        }
    }

    /// The phase of the journal while this step is taken; None: there may be no journal yet, or none any more.
    pub fn phase(self, database: bool) -> Option<Phase> {
        match self {
            Self::Begin => None,
            Self::Save => Some(Phase::Saving),
            Self::Halt | Self::SaveDatabase | Self::Copy | Self::Commit if database => Some(Phase::Halting),
            Self::Halt | Self::SaveDatabase | Self::Copy | Self::Commit => Some(Phase::Saving),
            Self::LinkOlder | Self::LinkPrevious | Self::Rename | Self::Refresh | Self::Release => {
                Some(Phase::Swapping)
            }
            Self::RestartHelper | Self::RestartDaemon | Self::Answer | Self::Doctor | Self::Accept => {
                Some(Phase::Restarting)
            }
            Self::Record | Self::Clean | Self::End => Some(Phase::Accepted),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a journal says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadJournal {
    Schema(u32),
    NotJson(String),
}

impl Journal {
    pub fn parse(bytes: &[u8]) -> Result<Self, BadJournal> {
        #[derive(Deserialize)]
        struct Schema {
            schema: u32,
        }
        let not_json = |e: serde_json::Error| BadJournal::NotJson(e.to_string());
        let Schema { schema } = serde_json::from_slice(bytes).map_err(not_json)?;
        if schema != SCHEMA {
            return Err(BadJournal::Schema(schema));
        }
        serde_json::from_slice(bytes).map_err(not_json)
    }

    pub fn recovery(&self) -> Recovery {
        self.phase.recovery(self.database)
    }
}

impl fmt::Display for BadJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schema(found) => {
                write!(f, "it has schema {found}, another banger's; this one knows schema {SCHEMA}")
            }
            Self::NotJson(why) => write!(f, "it is damaged: {why}"),
        }
    }
}

impl std::error::Error for BadJournal {}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(phase: Phase) -> Journal {
        let version = |text: &str| text.parse().expect("a version");
        Journal {
            schema: SCHEMA,
            phase,
            from: version("v0.1.0"),
            to: version("v0.2.0"),
            old: "aa".to_owned(),
            new: "bb".to_owned(),
            older: true,
            database: false,
            files: vec![
                Saved { path: "/a".into(), was: Was::Absent },
                Saved { path: "/b".into(), was: Was::Link { target: "banger".into() } },
                Saved { path: "/c".into(), was: Was::File { copy: "0".to_owned(), mode: 0o644 } },
            ],
            updater: Updater { pid: 7, started: 9 },
        }
    }

    #[test]
    fn before_the_swap_nothing_is_put_back_until_doctor_passed_all_and_after_it_none() {
        let undo = |files, database, restart| Recovery::Undo(Undo { files, database, restart });
        let table = [
            (Phase::Saving, undo(false, false, false), undo(false, false, false)),
            (Phase::Halting, undo(false, false, true), undo(false, false, true)),
            (Phase::Swapping, undo(true, false, false), undo(true, false, true)),
            (Phase::Restarting, undo(true, false, true), undo(true, true, true)),
            (Phase::Accepted, Recovery::Finish, Recovery::Finish),
            (Phase::Undone, Recovery::Restart, Recovery::Restart),
        ];
        assert_eq!(table.map(|(phase, ..)| phase), Phase::ALL);
        for (phase, plain, with_database) in table {
            assert_eq!(phase.recovery(false), plain, "{phase:?}");
            assert_eq!(phase.recovery(true), with_database, "{phase:?}");
        }
    }

    #[test]
    fn the_phases_of_the_steps_only_go_on() {
        for database in [false, true] {
            let phases: Vec<usize> = Step::ALL
                .iter()
                .filter_map(|step| step.phase(database))
                .map(|phase| Phase::ALL.iter().position(|p| *p == phase).expect("is one"))
                .collect();
            assert!(phases.is_sorted(), "{phases:?}");
        }
        let names: std::collections::HashSet<_> = Step::ALL.iter().map(|step| step.name()).collect();
        assert_eq!(names.len(), Step::ALL.len());
    }

    #[test]
    fn a_journal_is_read_as_it_was_written_and_another_bangers_is_refused() {
        for phase in Phase::ALL {
            let bytes = serde_json::to_vec(&journal(phase)).expect("JSON");
            assert_eq!(Journal::parse(&bytes), Ok(journal(phase)));
        }
        assert_eq!(Journal::parse(br#"{"schema": 2, "phase": "elsewhere"}"#), Err(BadJournal::Schema(2)));
        assert!(matches!(Journal::parse(br#"{"schema": 1}"#), Err(BadJournal::NotJson(_))));
        assert!(matches!(Journal::parse(b""), Err(BadJournal::NotJson(_))));
    }
}
