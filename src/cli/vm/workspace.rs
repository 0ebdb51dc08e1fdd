//! `banger vm workspace`: work trees in a VM.

mod branch;
pub mod dry;
mod export;
mod file;
pub mod prepare;
mod status;

use argh::{ArgsInfo, FromArgs};

use crate::cli::error::Error;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Bring git work trees and plain directories into a running VM, and what became of them back.
#[argh(
    subcommand,
    name = "workspace",
    help_triggers("-h", "--help", "help"),
    example = "banger vm workspace prepare dev ./repo    # the git tree, as it is now, at /root/repo\n\
               banger vm workspace prepare dev           # and again, what has changed since\n\
               banger vm workspace diff dev              # what became of it\n\
               banger vm workspace export dev | git apply"
)]
pub struct WorkspaceGroup {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Verb {
    Prepare(prepare::PrepareTree),
    Status(status::Status),
    Diff(export::Diff),
    Export(export::Export),
}

impl WorkspaceGroup {
    pub fn run(&self) -> Result<(), Error> {
        match &self.verb {
            Verb::Prepare(prepare) => prepare.run(),
            Verb::Status(status) => status.run(),
            Verb::Diff(diff) => diff.run(),
            Verb::Export(export) => export.run(),
        }
    }
}
