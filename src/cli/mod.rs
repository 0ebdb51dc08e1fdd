//! `banger`: parses, asks the daemon, prints.
//!
//! ```text
//! argv -> words (order, suggestions) -> tree (argh) -> one file per noun -> client -> bangerd
//!                                                        |                    `-> session, copy: a descriptor to the guest
//!                                                        `-> render, the only place that prints
//! ```
//!
//! One thread, no runtime: a command asks one thing and waits for it. Only several VMs at once get a thread each.

mod bundle;
mod client;
mod complete;
mod config;
mod daemon;
mod doctor;
mod error;
mod events;
mod files;
mod help;
mod image;
mod internal;
mod kernel;
mod moment;
mod recovery;
mod render;
mod session;
mod shown;
mod signals;
mod ssh;
mod system;
mod top;
mod tree;
mod update;
mod usage;
mod version;
mod vm;
mod words;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use argh::ArgsInfo;

use self::error::Error;
use self::tree::{Banger, Meaning, Noun};
#[cfg(fuzzing)]
pub use self::workspace::export::what_a_guest_says_of_its_work_tree;

/// Does what `args` (without the program's name) say, and returns the exit status: 0, or 1 for any error; `vm run` and
/// `vm exec` return the command's.
pub fn main(args: Vec<OsString>) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => render::error(&e),
    }
}

fn run(args: Vec<OsString>) -> Result<(), Error> {
    let args = tree::text_of(args)?;
    if let [help, "examples"] = *args.iter().map(String::as_str).collect::<Vec<_>>()
        && words::is_help(help)
    {
        return render::out(help::EXAMPLES);
    }
    let words = words::order(&Banger::get_args_info(), &args)?;
    let noun = match tree::read(&words)? {
        Meaning::Help(text) => return render::out(&text),
        Meaning::Do(noun) => *noun,
    };
    if noun.mends() {
        recovery::before_command();
    }
    match noun {
        Noun::Vm(vm) => vm.run(words.command),
        Noun::Ps(ps) => ps.run(),
        Noun::Top(top) => top.run(),
        Noun::Events(events) => events.run(),
        Noun::Image(image) => image.run(),
        Noun::Kernel(kernel) => kernel.run(),
        Noun::Bundle(bundle) => bundle.run(),
        Noun::System(system) => system.run(),
        Noun::Update(update) => update.run(),
        Noun::SshConfig(config) => config.run(),
        Noun::Config(config) => config.run(),
        Noun::Daemon(daemon) => daemon.run(),
        Noun::Doctor(doctor) => doctor.run(),
        Noun::Version(version) => version.run(),
        Noun::Completion(completion) => completion.run(),
        Noun::Internal(internal) => internal.run(),
        Noun::Complete(complete) => complete.run(&words.command.unwrap_or_default()),
    }
}
