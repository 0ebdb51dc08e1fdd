//! `banger system`: banger as a part of this machine, for the user whose VMs they are.
//!
//! What is done is in [`crate::system`]; here are the words for it, and what only the command line can ask: the two daemons.

mod daemons;
mod install;
mod refresh;
mod restart;
mod status;
mod uninstall;

use std::path::Path;

use argh::{ArgsInfo, FromArgs};
use rustix::process::geteuid;

use crate::build;
use crate::cli::complete;
use crate::cli::error::Error;
use crate::cli::help::man;
use crate::cli::tree::Banger;
use crate::host::install::Install;
use crate::system::files::Shared;
use crate::system::layout::Layout;
use crate::system::ready::Build;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Install banger on this machine, look at the installation, restart it, remove it.
#[argh(
    subcommand,
    name = "system",
    help_triggers("-h", "--help", "help"),
    example = "sudo ./banger system install     # for you; this one file is all it needs\n\
               banger system status\n\
               sudo banger system uninstall     # VMs and images stay"
)]
pub struct System {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Verb {
    Install(install::Install),
    Status(status::Status),
    Restart(restart::Restart),
    Uninstall(uninstall::Uninstall),
    Refresh(refresh::Refresh),
}

/// What an installation has for shells and man.
pub const SHARED: Shared = Shared {
    bash: complete::BASH,
    zsh: complete::ZSH,
    fish: complete::FISH,
    pages: || man::pages(&Banger::get_args_info(), build::VERSION),
};

impl System {
    pub fn run(&self) -> Result<(), Error> {
        let layout = Layout::from_env();
        match &self.verb {
            Verb::Install(install) => install.run(&layout),
            Verb::Status(status) => status.run(&layout),
            Verb::Restart(restart) => restart.run(&layout),
            Verb::Uninstall(uninstall) => uninstall.run(&layout),
            Verb::Refresh(refresh) => refresh.run(&layout),
        }
    }
}

/// Refuses whoever is not root; `command` is what to type instead.
fn need_root(command: &str) -> Result<(), Error> {
    match geteuid().is_root() {
        true => Ok(()),
        false => Err(Error::Refused(format!("this is root's to do; use `sudo banger system {command}`"))),
    }
}

/// The installation that is there.
fn installed(layout: &Layout) -> Result<Install, Error> {
    let install = Install::read(&layout.dirs.install_file()).map_err(Error::Install)?;
    install.ok_or_else(|| {
        Error::Refused(
            "banger is not installed on this machine; `sudo banger system install` installs it".to_owned(),
        )
    })
}

/// What this executable is.
fn here() -> Build {
    Build {
        version: build::VERSION.to_owned(),
        commit: build::COMMIT.to_owned(),
        built_at: build::BUILT.to_owned(),
    }
}

/// Those to whom root's files belong: root, and in a test's directory whoever made that.
fn roots() -> (u32, u32) {
    (geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
