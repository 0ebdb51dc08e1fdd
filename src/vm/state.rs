//! The life of a VM.
//!
//! ```text
//!            Spawned            Ready            Stop             Exited
//!  Stopped ----------> Starting -------> Running ------> Stopping -------> Stopped
//!     ^                   |  \                              |
//!     |                   |   `--- Exited, GaveUp -----.    |
//!     |                   `------- Stop -------------> (Stopping)
//!     |                                                |
//!     `--- Spawned is allowed from Failed too --- Failed { reason }
//!
//!  any ---- Delete ----> Deleting   (then the record is gone)
//! ```
//!
//! A state owns what is true only then: the processes exist in Starting, Running and Stopping and nowhere else.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for a later one with the same number: its pid, and when it started in clock ticks
/// since boot (proc(5), /proc/pid/stat field 22).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    pub started: u64,
}

/// The processes that are one running VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    pub vmm: Process,
    /// The vhost-user vsock device, where the VMM needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<Process>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    Stopped,
    /// The processes exist; the guest has not said that it is ready.
    Starting {
        processes: Processes,
    },
    Running {
        processes: Processes,
    },
    Stopping {
        processes: Processes,
    },
    /// The last start or run ended badly. No process is left.
    Failed {
        reason: String,
    },
    /// Its files are being removed; a crash in between is finished at the next start of the daemon.
    Deleting,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Spawned(Processes),
    Ready,
    Stop,
    /// The VMM's process ended, by whatever cause.
    Exited,
    /// The guest did not come up, and the processes were ended.
    GaveUp(String),
    Delete,
}

/// Why an event cannot happen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub &'static str);

impl State {
    /// Returns the state after `event`, or why it cannot happen now. Stop, Exited and Delete may be repeated.
    pub fn on(&self, event: Event) -> Result<State, Refused> {
        use Event as E;
        use State as S;
        Ok(match (self, event) {
            (S::Stopped | S::Failed { .. }, E::Spawned(processes)) => S::Starting { processes },
            (S::Starting { .. } | S::Running { .. } | S::Stopping { .. }, E::Spawned(_)) => {
                return Err(Refused("it is already running"));
            }
            (S::Starting { processes } | S::Running { processes }, E::Ready) => {
                S::Running { processes: *processes }
            }
            (S::Stopped | S::Failed { .. } | S::Stopping { .. }, E::Ready) => {
                return Err(Refused("it is not starting"));
            }
            (S::Starting { processes } | S::Running { processes } | S::Stopping { processes }, E::Stop) => {
                S::Stopping { processes: *processes }
            }
            (S::Stopped | S::Failed { .. }, E::Stop) => self.clone(),
            (S::Starting { .. }, E::Exited) => {
                S::Failed { reason: "the VMM ended before the guest was ready".to_owned() }
            }
            (S::Running { .. } | S::Stopping { .. } | S::Stopped, E::Exited) => S::Stopped,
            (S::Failed { .. }, E::Exited) => self.clone(),
            (S::Starting { .. } | S::Stopped | S::Failed { .. }, E::GaveUp(reason)) => S::Failed { reason },
            (S::Running { .. } | S::Stopping { .. }, E::GaveUp(_)) => {
                return Err(Refused("it is not starting"));
            }
            (S::Stopped | S::Failed { .. } | S::Deleting, E::Delete) => S::Deleting,
            (S::Starting { .. } | S::Running { .. } | S::Stopping { .. }, E::Delete) => {
                return Err(Refused("its processes have not ended"));
            }
            (S::Deleting, E::Spawned(_) | E::Ready | E::Stop | E::Exited | E::GaveUp(_)) => {
                return Err(Refused("it is being deleted"));
            }
        })
    }

    /// The processes of this VM, in the states that have any.
    pub fn processes(&self) -> Option<Processes> {
        match self {
            Self::Starting { processes } | Self::Running { processes } | Self::Stopping { processes } => {
                Some(*processes)
            }
            Self::Stopped | Self::Failed { .. } | Self::Deleting => None,
        }
    }

    pub fn label(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Stopping { .. } => "stopping",
            Self::Failed { .. } => "failed",
            Self::Deleting => "deleting",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Processes = Processes { vmm: Process { pid: 7, started: 99 }, vsock: None };

    fn states() -> [State; 6] {
        [
            State::Stopped,
            State::Starting { processes: P },
            State::Running { processes: P },
            State::Stopping { processes: P },
            State::Failed { reason: "x".to_owned() },
            State::Deleting,
        ]
    }

    #[test]
    fn every_event_in_every_state_has_its_outcome() {
        let table: [(Event, [&str; 6]); 6] = [
            (Event::Spawned(P), ["starting", "-", "-", "-", "starting", "-"]),
            (Event::Ready, ["-", "running", "running", "-", "-", "-"]),
            (Event::Stop, ["stopped", "stopping", "stopping", "stopping", "failed", "-"]),
            (Event::Exited, ["stopped", "failed", "stopped", "stopped", "failed", "-"]),
            (Event::GaveUp("x".to_owned()), ["failed", "failed", "-", "-", "failed", "-"]),
            (Event::Delete, ["deleting", "-", "-", "-", "deleting", "deleting"]),
        ];
        for (event, outcomes) in table {
            for (state, want) in states().iter().zip(outcomes) {
                let got = state.on(event.clone()).map_or("-", |s| s.label());
                assert_eq!(got, want, "{} on {event:?}", state.label());
            }
        }
    }

    #[test]
    fn a_state_survives_being_stored() {
        for state in states() {
            let text = serde_json::to_string(&state).expect("serialises");
            assert_eq!(serde_json::from_str::<State>(&text).expect("parses"), state, "{text}");
        }
    }
}
