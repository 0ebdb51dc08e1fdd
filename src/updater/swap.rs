//! The executable and the way back beside it: swapped, and swapped back, from whatever a crash has left.
//!
//! ```text
//!                 banger   banger.previous   .staged-banger   .staged-banger.older
//!  before         old      older             -                -
//!  Copy           old      older             new              -
//!  LinkOlder      old      older             new              older
//!  LinkPrevious   old      old               new              older
//!  Rename         new      old               -                older
//!  Clean          new      old               -                -
//! ```

use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::host::files::staged_name;
use crate::release::journal::Journal;
use crate::system::layout::Layout;
use crate::updater::{disk, verify};

/// The new executable, on the file system of the old one.
pub fn staged(layout: &Layout) -> PathBuf {
    staged_name(&layout.binary())
}

/// What was the way back until now.
pub fn older(layout: &Layout) -> PathBuf {
    layout.older()
}

/// SHA-256 of the file at `path`; None where there is none.
pub fn digest(path: &std::path::Path) -> io::Result<Option<String>> {
    match File::open(path) {
        Ok(mut file) => verify::digest(&mut file).map(|digest| Some(digest.to_string())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Puts what is read from `new` beside the old executable, and checks that it is the same there.
pub fn copy(layout: &Layout, new: &mut File, digest_of_new: &str) -> io::Result<()> {
    verify::digest(new)?;
    disk::copy(new, &staged(layout), 0o755)?;
    match digest(&staged(layout))?.as_deref() == Some(digest_of_new) {
        true => Ok(()),
        false => Err(io::Error::other("it is another one after it was copied")),
    }
}

pub fn link_older(layout: &Layout) -> io::Result<()> {
    disk::link(&layout.previous(), &older(layout))
}

pub fn link_previous(layout: &Layout) -> io::Result<()> {
    disk::link(&layout.binary(), &layout.previous())
}

pub fn rename(layout: &Layout) -> io::Result<()> {
    disk::rename(&staged(layout), &layout.binary())
}

/// Makes the executable the one that `journal` calls old, and the way back what it was.
pub fn back(layout: &Layout, journal: &Journal) -> io::Result<()> {
    let (binary, previous, older) = (layout.binary(), layout.previous(), older(layout));
    let found = digest(&binary)?;
    if found.as_deref() != Some(&journal.old) {
        // Somebody has installed a third one since: it is not this update's to take away.
        if found.as_deref().is_some_and(|found| found != journal.new) {
            return Err(io::Error::other(format!(
                "{} is neither the executable of before the update nor the one of after it; if it works, remove {}",
                binary.display(),
                layout.journal().display()
            )));
        }
        // It is at hand, or was never replaced.
        if digest(&previous)?.as_deref() != Some(&journal.old) {
            return Err(io::Error::other(format!(
                "neither {} nor {} is the executable that was there before (sha256 {})",
                binary.display(),
                previous.display(),
                journal.old
            )));
        }
        disk::rename(&previous, &binary)?;
    }
    match (older.try_exists()?, journal.older) {
        (true, _) => {
            disk::rename(&older, &previous)?;
            // Of two names of one file rename(2) keeps both.
            disk::remove(&older)?;
        }
        // It was put back already, or was not touched.
        (false, true) => {}
        (false, false) => disk::remove(&previous)?,
    }
    disk::remove(&staged(layout))?;
    // Names that a link in the making has.
    for path in [&previous, &older] {
        disk::remove(&staged_name(path))?;
    }
    Ok(())
}

/// Nothing but the executable and the way back is left beside each other.
pub fn forget_older(layout: &Layout) -> io::Result<()> {
    disk::remove(&older(layout))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::journal::{Phase, SCHEMA, Updater};

    fn sha(text: &str) -> String {
        let mut file = tempfile::tempfile().expect("a file");
        io::Write::write_all(&mut file, text.as_bytes()).expect("writes");
        verify::digest(&mut file).expect("reads").to_string()
    }

    fn journal(older: bool) -> Journal {
        Journal {
            schema: SCHEMA,
            phase: Phase::Swapping,
            from: "v0.1.0".parse().expect("a version"),
            to: "v0.2.0".parse().expect("a version"),
            old: sha("old"),
            new: sha("new"),
            older,
            database: false,
            files: vec![],
            updater: Updater { pid: 1, started: 1 },
        }
    }

    /// What has which content, after so many of the steps.
    fn after(steps: usize, had_older: bool) -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::below(dir.path());
        std::fs::create_dir_all(&layout.bin).expect("makes a directory");
        std::fs::write(layout.binary(), "old").expect("writes");
        if had_older {
            std::fs::write(layout.previous(), "older").expect("writes");
        }
        let staged_file = dir.path().join("staged");
        std::fs::write(&staged_file, "new").expect("writes");
        for step in 0..steps {
            let taken = match step {
                0 => copy(&layout, &mut File::open(&staged_file).expect("opens"), &sha("new")),
                1 if had_older => link_older(&layout),
                1 => Ok(()),
                2 => link_previous(&layout),
                _ => rename(&layout),
            };
            taken.expect("a step");
        }
        (dir, layout)
    }

    fn read(path: PathBuf) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }

    #[test]
    fn from_every_step_the_old_one_comes_back_with_its_way_back() {
        for had_older in [false, true] {
            for steps in 0..=4 {
                let (_dir, layout) = after(steps, had_older);
                let want = if steps == 4 { "new" } else { "old" };
                assert_eq!(read(layout.binary()).as_deref(), Some(want));
                for _ in 0..2 {
                    back(&layout, &journal(had_older)).expect("goes back");
                    assert_eq!(read(layout.binary()).as_deref(), Some("old"), "{steps}");
                    assert_eq!(read(layout.previous()).is_some(), had_older, "{steps}");
                    let names = std::fs::read_dir(&layout.bin).expect("lists").count();
                    assert_eq!(names, 1 + usize::from(had_older), "{steps}");
                }
                if had_older {
                    assert_eq!(read(layout.previous()).as_deref(), Some("older"), "{steps}");
                }
            }
        }
    }

    #[test]
    fn after_the_swap_the_way_back_is_the_old_one() {
        let (_dir, layout) = after(4, true);
        forget_older(&layout).expect("removes");
        assert_eq!(read(layout.binary()).as_deref(), Some("new"));
        assert_eq!(read(layout.previous()).as_deref(), Some("old"));
        assert_eq!(std::fs::read_dir(&layout.bin).expect("lists").count(), 2);
    }

    #[test]
    fn without_the_old_one_nothing_is_done() {
        let (_dir, layout) = after(4, true);
        std::fs::write(layout.previous(), "somebody else's").expect("writes");
        let error = back(&layout, &journal(true)).expect_err("gone").to_string();
        assert!(error.contains("is the executable that was there before"), "{error}");
        assert_eq!(read(layout.binary()).as_deref(), Some("new"));
    }
}
