//! bangerd-root: the narrow helper. It does what is on the list of [`crate::proto::root`], for the owner alone, and decides nothing.
//!
//! It is all of banger that runs as root on an installed machine, and may use only what tests/arrows.rs lets it: that list is the
//! audit surface.

pub mod install;
pub mod settings;
mod trusted;
pub mod bridge;
pub mod firewall;
pub mod forwarding;
pub mod links;
pub mod others;
pub mod tap;
pub mod resolver;
pub mod launch;

use std::path::PathBuf;

use rustix::process::{Gid, Uid};

use crate::host::dirs::Dirs;

/// Whose helper it is and where it works; fixed at start.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Whom it serves, besides root.
    pub owner: Uid,
    pub group: Gid,
    pub dirs: Dirs,
}

impl Ground {
    /// The chroots of VMMs; every component of it must be root's.
    pub fn jail(&self) -> PathBuf {
        self.dirs.state.join("jail")
    }

    /// What was made, written before it is made: `<vm>.json` for each VM.
    pub fn records(&self) -> PathBuf {
        self.dirs.root_runtime.join("vms")
    }
}
