//! An update: an installation that replaces itself by a release, and can always go back (DESIGN, D10).
//!
//! ```text
//!  discover: manifest -> which release
//!  stage:    SHA256SUMS, its signature -> the tarball, its digest -> its one file -> what that says of itself
//!  install:  journal, copies, swap, restart, doctor    (the steps are release::journal's)
//!                 `-- what fails, and what is cut off: recover, by the journal
//! ```

pub mod answers;
pub mod candidate;
pub mod database;
mod disk;
pub mod doctor;
pub mod error;
pub mod fetch;
pub mod held;
pub mod install;
pub mod program;
pub mod recover;
mod saved;
pub mod settings;
pub mod stage;
mod staging;
mod swap;
pub mod tarball;
pub mod unmanaged;
pub mod verify;

use crate::host::install::Install;
use crate::host::progress::Progress;
use crate::system::layout::Layout;
use crate::system::services::Units;
use crate::updater::fetch::Patience;

/// What an update works on, and with.
pub struct Updater<'a> {
    pub layout: &'a Layout,
    pub install: &'a Install,
    pub services: &'a dyn Units,
    /// Whether a root helper runs as a service of its own.
    pub helper: bool,
    pub progress: &'a dyn Progress,
    pub patience: Patience,
}
