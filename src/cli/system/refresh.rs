//! `banger system refresh`: what an update runs, as the new executable, so that units, symlinks, completions and manual
//! pages are those of its version.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use crate::cli::error::Error;
use crate::cli::render;
use crate::cli::system::{SHARED, installed, need_root, roots, shown};
use crate::system::layout::Layout;
use crate::system::plan::{Change, Step};
use crate::system::refresh;
use crate::system::services::Manager;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Bring the files of the installation up to what this executable wants. Restarts nothing.
#[argh(
    subcommand,
    name = "refresh",
    help_triggers("-h", "--help", "help"),
    example = "banger system refresh --dry-run --json",
    note = "Fields of --json: path, change (create, replace, remove or keep)."
)]
pub struct Refresh {
    /// say what would change, and change nothing
    #[argh(switch)]
    dry_run: bool,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line {
    path: String,
    change: Change,
}

impl Refresh {
    pub fn run(&self, layout: &Layout) -> Result<(), Error> {
        let install = installed(layout)?;
        let steps = refresh::plan(layout, &install, &SHARED, roots()).map_err(Error::System)?;
        if !self.dry_run {
            need_root("refresh")?;
            refresh::apply(layout, &steps, roots(), &Manager::of(layout)).map_err(Error::System)?;
        }
        if self.json {
            return render::json(&steps.iter().map(line).collect::<Vec<_>>());
        }
        let lines: String = steps
            .iter()
            .map(|step| format!("{:<8} {}\n", step.change().to_string(), step.path().display()))
            .collect();
        render::out(&lines)
    }
}

fn line(step: &Step) -> Line {
    Line { path: shown(step.path()), change: step.change() }
}
