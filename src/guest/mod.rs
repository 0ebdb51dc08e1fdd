//! The guest: our executable as the first process of every VM, and then as its agent.
//!
//! ```text
//! kernel -> /init (process 1)
//!             bring-up: modules, root, mounts, name, network         boot.rs
//!             |-- starts the agent, a process of its own             agent.rs: one vsock connection, one operation
//!             |     hello, configure, exec, read, write, connect, ports, stats, power_off
//!             '-- becomes the image's init, where it has one         handover.rs
//!                 or stays, reaps, and turns the machine off         reaper.rs
//! ```
//!
//! The agent is a process beside process 1, never within it: it waits for the commands that it started and nobody else takes
//! their status away; and what goes wrong in it, however badly, is not the kernel's "attempted to kill init".
//!
//! A connection is a thread that polls: what it may wait for (socket, pipes, the command's end) is a handful of descriptors,
//! a blocked thread costs a guest of 128 MiB a few pages, and nothing runs between the two of host and command.

mod agent;
mod boot;
mod clock;
mod console;
mod disk;
mod exec;
mod files;
mod forward;
mod handover;
mod identity;
mod modules;
mod mounts;
mod ports;
mod power;
mod reaper;
mod serve;
mod session;
mod spawn;
mod stats;
mod syscalls;
mod users;
pub mod wire;
pub mod workspace;

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// Process 1 brings the guest up and never returns; any other is the agent, with the words that process 1 gave it.
pub fn main(args: Vec<OsString>) -> ExitCode {
    if std::process::id() == 1 {
        // The kernel hands the words that it does not know to /init; ours are read from /proc/cmdline, all of them.
        boot::run()
    }
    match agent::Duty::parse(&args) {
        Some(duty) => agent::run(duty),
        None => {
            eprintln!(
                "banger-vsock: this is the agent inside a banger VM, started by its first process; run `banger` instead"
            );
            ExitCode::FAILURE
        }
    }
}

/// Something that the guest tried and its kernel refused. There is one kind: whatever it was, it ends as a sentence on the
/// console or in an answer to the host.
#[derive(Debug)]
struct Failed {
    tried: String,
    source: io::Error,
}

/// For `map_err`: cannot `tried`, because of the error.
fn failed<E: Into<io::Error>>(tried: impl Into<String>) -> impl FnOnce(E) -> Failed {
    move |source| Failed { tried: tried.into(), source: source.into() }
}

impl Failed {
    /// The whole chain in one sentence.
    fn sentence(&self) -> String {
        format!("{self}: {}", self.source)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.tried)
    }
}

impl Error for Failed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}
