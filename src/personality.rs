//! argv[0] chooses who we are: `banger`, `bangerd`, `bangerd-root`, `banger-vsock`, or the guest's `init`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::{build, cli, daemon, guest, root};

/// Runs the personality that the first of `args` names; an unknown name is `banger`, so that a renamed copy works.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let name =
        args.first().map(Path::new).and_then(Path::file_name).and_then(|n| n.to_str()).unwrap_or("banger");
    let name = name.trim_start_matches('@').to_owned();
    let args = args.into_iter().skip(1).collect::<Vec<_>>();
    if args.len() == 1 && (args[0] == "--version" || args[0] == "-V") {
        println!("{}", build::version_line());
        return ExitCode::SUCCESS;
    }
    match name.as_str() {
        "bangerd" => daemon::main(args),
        "bangerd-root" => root::main(args),
        "banger-vsock" | "init" => guest::main(args),
        _ => cli::main(args),
    }
}
