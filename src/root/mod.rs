//! bangerd-root: the narrow helper. It does what is on the list of [`crate::proto::root`], for the owner alone, and decides nothing.
//!
//! It is all of banger that runs as root on an installed machine, and may use only what tests/arrows.rs lets it: that list is the
//! audit surface.
//!
//! ```text
//!  socket (who asks) -> asked (one line) -> policy (may they?) -> perform -> network (links, firewall, resolver)
//!                                                  records <------'   `---> chores -> launcher, a process apart (jails)
//! ```

mod activation;
mod asked;
pub mod bridge;
mod chores;
mod clear;
mod error;
pub mod firewall;
pub mod forwarding;
mod harden;
pub mod install;
pub mod launch;
mod launcher;
pub mod links;
mod machines;
mod network;
pub mod others;
mod perform;
mod policy;
mod reconcile;
mod records;
pub mod resolver;
mod restore;
mod seccomp;
mod serve;
pub mod settings;
mod start;
pub mod tap;
mod watch;
mod wires;

use std::path::PathBuf;

use rustix::process::{Gid, Uid};

use crate::host::dirs::Dirs;

pub use error::RootError;
pub use perform::Root;
pub use settings::Settings;
pub use start::main;
pub use watch::start as keep_firewall;

/// Whose helper it is and where it works; fixed at start.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Whom it serves, besides root.
    pub owner: Uid,
    pub group: Gid,
    pub dirs: Dirs,
}

impl Ground {
    /// Where the jails of VMMs are mounted; every component of it must be root's, which those of the state are not. What is mounted
    /// there lies in memory, so that it need not outlive a reboot either.
    pub fn jail(&self) -> PathBuf {
        self.dirs.root_runtime.join("jail")
    }

    /// What was made, written before it is made: `<vm>.json` for each VM.
    pub fn records(&self) -> PathBuf {
        self.dirs.root_runtime.join("vms")
    }
}
