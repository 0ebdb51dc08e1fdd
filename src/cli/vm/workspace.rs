//! `banger vm workspace`: work trees in a VM.

pub mod dry;
pub mod prepare;

use argh::{ArgsInfo, FromArgs};

use crate::cli::error::Error;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Bring git work trees and plain directories into a running VM.
#[argh(
    subcommand,
    name = "workspace",
    help_triggers("-h", "--help", "help"),
    example = "banger vm workspace prepare dev ./repo    # the git tree, as it is now, at /root/repo\n\
               banger vm workspace prepare dev           # and again, what has changed since"
)]
pub struct WorkspaceGroup {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Verb {
    Prepare(prepare::PrepareTree),
}

impl WorkspaceGroup {
    pub fn run(&self) -> Result<(), Error> {
        match &self.verb {
            Verb::Prepare(prepare) => prepare.run(),
        }
    }
}
