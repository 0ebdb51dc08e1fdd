//! The journal and its lock: one update at a time, and what is known of one that was cut off.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::host::files::{staged_name, try_lock};
use crate::host::process;
use crate::release::journal::{Journal, Phase};
use crate::release::version::Version;
use crate::system::layout::Layout;
use crate::updater::disk;
use crate::updater::error::{At, UpdateError};

/// Whoever has it is the one who updates. It lasts as long as this process.
#[derive(Debug)]
pub struct Held {
    _lock: File,
}

/// The longest journal, in bytes.
const MAX_JOURNAL: u64 = 1 << 20;

/// Takes the lock; None: somebody else updates, installs or removes.
pub fn hold(layout: &Layout) -> Result<Option<Held>, UpdateError> {
    let keep = &layout.keep;
    let made = DirBuilder::new().recursive(true).mode(0o755).create(keep);
    made.map_err(At::Prepare.io(format!("create {}", keep.display())))?;
    let path = layout.lock();
    let lock = try_lock(&path).map_err(At::Prepare.io(format!("lock {}", path.display())))?;
    Ok(lock.map(|lock| Held { _lock: lock }))
}

/// The journal; None: no update is under way, and none was cut off.
pub fn journal(layout: &Layout) -> Result<Option<Journal>, UpdateError> {
    let path = layout.journal();
    let bytes = match read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(At::Prepare.io(format!("read {}", path.display())))?,
    };
    Journal::parse(&bytes).map(Some).map_err(|e| {
        At::Prepare.said(format!(
            "an update was cut off, and its journal {} cannot be used: {e}; if {} works, remove the journal, else copy {} over it \
             first",
            path.display(),
            layout.binary().display(),
            layout.previous().display()
        ))
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    io::Read::read_to_end(&mut io::Read::take(File::open(path)?, MAX_JOURNAL), &mut bytes)?;
    Ok(bytes)
}

/// Writes the journal. Everybody may read it, so that a user can be told.
pub fn write(layout: &Layout, journal: &Journal) -> io::Result<()> {
    let bytes = serde_json::to_vec_pretty(journal).map_err(io::Error::other)?;
    disk::write(&layout.journal(), &bytes, 0o644)
}

/// Takes the journal to `phase`: on disk first, then here.
pub fn enter(layout: &Layout, journal: &mut Journal, phase: Phase) -> io::Result<()> {
    let next = Journal { phase, ..journal.clone() };
    write(layout, &next)?;
    *journal = next;
    Ok(())
}

/// Removes the journal, and one that was being written when it was cut off.
pub fn forget(layout: &Layout) -> io::Result<()> {
    disk::remove(&staged_name(&layout.journal()))?;
    disk::remove(&layout.journal())
}

/// Whether the process that wrote `journal` still works on it.
pub fn is_under_way(journal: &Journal) -> bool {
    let seen = process::observe(journal.updater.pid);
    // What cannot be seen is not said to be gone.
    seen.map_or(true, |seen| seen.is_some_and(|process| process.started == journal.updater.started))
}

/// Where copies of the files are that an update may change.
pub fn saved(layout: &Layout) -> PathBuf {
    layout.saved()
}

fn newest_file(layout: &Layout) -> PathBuf {
    layout.keep.join("newest")
}

/// The newest version that ever ran here; None: not known.
pub fn newest(layout: &Layout) -> Option<Version> {
    std::fs::read_to_string(newest_file(layout)).ok()?.trim().parse().ok()
}

/// Remembers `version`, if it is newer than all before.
pub fn remember(layout: &Layout, version: &Version) -> io::Result<()> {
    match newest(layout) {
        Some(newest) if newest >= *version => Ok(()),
        _ => disk::write(&newest_file(layout), format!("{version}\n").as_bytes(), 0o644),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::journal::{SCHEMA, Updater};

    #[test]
    fn one_updates_at_a_time_and_the_newest_version_only_grows() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::below(dir.path());
        let held = hold(&layout).expect("locks");
        assert!(held.is_some() && hold(&layout).expect("tries").is_none());
        drop(held);
        assert!(hold(&layout).expect("locks").is_some());
        assert_eq!(newest(&layout), None);
        for (version, want) in [("v0.2.0", "v0.2.0"), ("v0.1.0", "v0.2.0"), ("v0.3.0", "v0.3.0")] {
            remember(&layout, &version.parse().expect("a version")).expect("writes");
            assert_eq!(newest(&layout), want.parse().ok());
        }
    }

    #[test]
    fn a_journal_is_known_by_whether_its_process_lives() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::below(dir.path());
        drop(hold(&layout).expect("locks"));
        assert!(journal(&layout).expect("reads").is_none());
        let me = process::myself().expect("reads /proc");
        let mut written = Journal {
            schema: SCHEMA,
            phase: Phase::Saving,
            from: "v0.1.0".parse().expect("a version"),
            to: "v0.2.0".parse().expect("a version"),
            old: String::new(),
            new: String::new(),
            older: false,
            database: false,
            files: vec![],
            updater: Updater { pid: me.pid, started: me.started },
        };
        enter(&layout, &mut written, Phase::Swapping).expect("writes");
        let read = journal(&layout).expect("reads").expect("is there");
        assert_eq!(read, written);
        assert!(is_under_way(&read));
        let later = Updater { pid: me.pid, started: me.started + 1 };
        assert!(!is_under_way(&Journal { updater: later, ..read }));
        std::fs::write(layout.journal(), "{").expect("writes");
        let error = journal(&layout).expect_err("damaged").to_string();
        assert!(error.contains("banger.previous"), "{error}");
    }
}
