//! The copy of the database that an update makes before a new executable migrates it. The state is the owner's, so its owner makes it.

use std::path::PathBuf;

use crate::host::causes::chain;
use crate::system::apply::{self, Ids};
use crate::system::files;
use crate::updater::Updater;
use crate::updater::error::{At, UpdateError};
use crate::updater::program::{As, Program, last_words};

impl Updater<'_> {
    /// Where the copy is. It is kept until the next update that makes one.
    pub fn database_copy(&self) -> PathBuf {
        self.layout.dirs.state.join("banger.redb.before-update")
    }

    /// Copies the database. The daemon must not be running: what it wrote afterwards would be lost when the copy is put back.
    pub(super) fn save_database(&self) -> Result<(), UpdateError> {
        self.bangerd(At::Swap, "--save-database")
    }

    /// Puts the copy back.
    pub(super) fn restore_database(&self) -> Result<(), UpdateError> {
        // The daemon's lock lies there, and at boot nothing of /run has been made yet.
        let (layout, install) = (self.layout, self.install);
        let ids = Ids { root: (0, 0), owner: (install.uid, install.gid) };
        let made = apply::directory(&files::runtime(layout), layout, ids);
        made.map_err(|e| At::RollBack.said(chain(&e)))?;
        self.bangerd(At::RollBack, "--restore-database")
    }

    fn bangerd(&self, at: At, what: &str) -> Result<(), UpdateError> {
        let program = Program::at(&self.layout.binary(), self.install, self.patience.program);
        let copy = self.database_copy().display().to_string();
        let output = program.run(As::Owner, "bangerd", &["--system", what, &copy]).map_err(at.program())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(at.said(format!("bangerd {what} {copy} failed: {}", last_words(&output)))),
        }
    }
}
