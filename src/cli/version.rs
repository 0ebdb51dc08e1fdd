//! `banger version`.

use argh::{ArgsInfo, FromArgs};

use crate::build;
use crate::cli::error::Error;
use crate::cli::render;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Show the version, the commit and the time of the build.
#[argh(
    subcommand,
    name = "version",
    help_triggers("-h", "--help", "help"),
    example = "banger version\nbanger --version              # the same in one line"
)]
pub struct Version {}

impl Version {
    pub fn run(&self) -> Result<(), Error> {
        render::out(&format!(
            "version:  v{}\ncommit:   {}\nbuilt_at: {}\ntarget:   {}\n",
            build::VERSION,
            build::COMMIT,
            build::BUILT,
            build::TARGET
        ))
    }
}
