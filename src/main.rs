//! One executable, four names: argv[0] chooses the personality (lib.rs is the map).

use std::process::ExitCode;

fn main() -> ExitCode {
    banger::personality::main(std::env::args_os().collect())
}
