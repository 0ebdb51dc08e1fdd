//! An update that has migrated the database and is not settled. If it is cut off, or taken back, so is the database, and whatever was
//! made since would be lost with its record: so nothing is made until it is settled.

use std::path::Path;

use crate::daemon::fault::Fault;
use crate::proto::api::{Code, Request};
use crate::release::journal::{Journal, Recovery};

/// Refuses what changes records while the update whose journal is at `journal` may put the database back.
pub fn refuse(journal: Option<&Path>, request: &Request) -> Result<(), Fault> {
    let Some(path) = journal.filter(|_| makes_records(request)) else { return Ok(()) };
    match std::fs::read(path) {
        Ok(bytes) if may_go_back(&bytes) => {
            let text = "an update is under way, or was cut off, and may put the database back as it was, so nothing is changed now; \
                        `sudo banger update` mends one that was cut off";
            Err(Fault::new(Code::Conflict, text))
        }
        // Without a journal there is no update; root alone could have hidden one.
        _ => Ok(()),
    }
}

/// To stop a VM makes nothing, and may be urgent.
fn makes_records(request: &Request) -> bool {
    !matches!(request, Request::VmStop(_)) && super::operations::subject(request).is_some()
}

fn may_go_back(journal: &[u8]) -> bool {
    let recovery = Journal::parse(journal).map(|journal| journal.recovery());
    matches!(recovery, Ok(Recovery::Undo(undo)) if undo.database)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::api::{VmDelete, VmList, VmStop};
    use crate::release::journal::{Phase, SCHEMA, Updater};

    fn journal(phase: Phase, database: bool) -> Vec<u8> {
        let version = |text: &str| text.parse().expect("a version");
        let journal = Journal {
            schema: SCHEMA,
            phase,
            from: version("v0.1.0"),
            to: version("v0.2.0"),
            old: "a".to_owned(),
            new: "b".to_owned(),
            older: false,
            database,
            files: vec![],
            updater: Updater { pid: 1, started: 1 },
        };
        serde_json::to_vec(&journal).expect("JSON")
    }

    #[test]
    fn nothing_is_made_while_it_could_be_lost_with_the_database() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("update.json");
        let delete = Request::VmDelete(VmDelete { vm: "dev".to_owned(), only_if_ended: false });
        refuse(Some(&path), &delete).expect("no update");
        for phase in Phase::ALL {
            for database in [false, true] {
                std::fs::write(&path, journal(phase, database)).expect("writes");
                let refused = refuse(Some(&path), &delete).is_err();
                assert_eq!(refused, database && phase == Phase::Restarting, "{phase:?} {database}");
            }
        }
        std::fs::write(&path, journal(Phase::Restarting, true)).expect("writes");
        let error = refuse(Some(&path), &delete).expect_err("refused").message;
        assert!(error.contains("`sudo banger update`"), "{error}");
        refuse(Some(&path), &Request::VmList(VmList {})).expect("it only looks");
        refuse(Some(&path), &Request::VmStop(VmStop { vm: "dev".to_owned(), force: true }))
            .expect("it makes nothing");
        refuse(None, &delete).expect("no installation");
        std::fs::write(&path, "{}").expect("writes");
        refuse(Some(&path), &delete).expect("another banger's journal");
    }
}
