//! `banger vm workspace status`: what became of a work tree, a line for each path.

use argh::{ArgsInfo, FromArgs};

use super::export::Asked;
use super::prepare::guest_path_of;
use crate::cli::client::Attention;
use crate::cli::error::Error;
use crate::cli::render;
use crate::cli::workspace::export;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Tell which files of a work tree were added (A), changed (M, T) and deleted (D) in a VM since it was brought, committed or not.
#[argh(
    subcommand,
    name = "status",
    help_triggers("-h", "--help", "help"),
    example = "banger vm workspace status dev\n\
               banger vm workspace status dev --json"
)]
pub struct Status {
    /// the VM's name, its id, or the beginning of its id
    #[argh(positional)]
    vm: String,
    /// the work tree in the guest; the one that was brought last if not given
    #[argh(option, arg_name = "dir", from_str_fn(guest_path_of))]
    guest_path: Option<String>,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

impl Status {
    pub fn run(&self) -> Result<(), Error> {
        let mut asked = Asked::find(&self.vm, self.guest_path.as_deref())?;
        let origin = asked.origin()?;
        let guest = asked.open(false)?;
        let Asked { workspace, mut progress, mut signals, .. } = asked;
        let attention = &mut Attention { progress: &mut progress, signals: Some(&mut signals) };
        let (path, source) = (&workspace.guest_path, &workspace.source);
        let status = export::Status::of(path, source, &origin, guest, attention)?;
        progress.clear();
        for note in &status.notes {
            render::say(&format!("note: {note}"));
        }
        if self.json {
            return render::json(&status);
        }
        let lines = status.lines();
        if lines.is_empty() {
            render::say(&format!("{path} is as it was brought"));
        }
        lines.iter().try_for_each(|line| render::out_line(line))
    }
}
