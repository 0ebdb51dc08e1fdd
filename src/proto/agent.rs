//! Host to guest: one vsock connection is one operation (DESIGN D6).
//!
//! The host connects to [`PORT`] and writes one line of JSON, a [`Request`]. The guest answers with a frame
//! [`Kind::Answer`](crate::proto::frame::Kind::Answer) holding an [`Answer`]; further frames depend on the operation:
//!
//! | op | host sends | guest sends |
//! |---|---|---|
//! | hello, configure, hostname, activity, power_off | | |
//! | exec | Stdin, Eof, Resize, Signal | Stdout, Stderr, Window, then Exit |
//! | read | | Data, then Eof or Failed |
//! | write | Data, then Eof | Eof when all of it is on disk, or Failed |
//! | connect | Data, then Eof, or Failed | Data, then Eof, or Failed |
//! | prepare, changes | see [`crate::proto::workspace`] | |
//! | ports, stats | | |
//!
//! When the host hangs up during exec, the command gets SIGHUP, as on a lost terminal.
//!
//! During connect, Eof closes one direction and leaves the other open; Failed resets the connection, and so does hanging up
//! before both have ended. Of UDP, each Data frame is a datagram.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::proto::stats::GuestStats;
use crate::proto::workspace::{Changes, Held, Prepare};
use crate::vm::lifetime::Activity;
use crate::vm::name::VmName;
use crate::vm::publish::Protocol;

/// The vsock port on which the agent listens.
pub const PORT: u32 = 1000;
/// The longest request line, in bytes, its newline included: an argv and an environment of the kernel's own limits fit.
pub const MAX_REQUEST: usize = 4 << 20;
/// The vsock port of the host to which a guest connects when it is ready, where a VM has its own number space.
pub const READY_PORT: u32 = 1001;
/// What the guest writes to the ready port, a line of JSON, at most this long.
pub const MAX_READY: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Who are you? Answered by [`Answer::Hello`].
    Hello,
    Exec(Exec),
    /// Sets what the guest cannot know by itself.
    Configure(Configure),
    /// Gives the guest another name, now and in its files.
    Hostname(Hostname),
    /// Is anybody using you? Answered by [`Answer::Activity`].
    Activity,
    /// Sends what is at `path` as a tar stream: owners by number, modes, times and symlinks as they are.
    Read(Read),
    /// Unpacks a tar stream.
    Write(Write),
    /// Connects to a port in the guest. Answered [`Answer::Done`] once that is open.
    Connect(Connect),
    /// Brings a work tree. Answered by [`Answer::Held`].
    Prepare(Prepare),
    /// Tells how a work tree differs from what was brought. Answered by [`Answer::Held`].
    Changes(Changes),
    /// What listens? Answered by [`Answer::Ports`].
    Ports,
    /// What is used? Answered by [`Answer::Stats`].
    Stats,
    /// Sync, stop everything, and turn the machine off. Answered before it begins.
    PowerOff,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exec {
    /// Empty: the user's shell.
    pub argv: Vec<String>,
    /// `NAME=value`. HOME, USER, LOGNAME, SHELL and, with a terminal, TERM are added where absent.
    pub env: Vec<String>,
    pub cwd: String,
    /// Whether a missing `cwd` is made (docker does so for WorkingDir), or an error.
    #[serde(default)]
    pub make_cwd: bool,
    /// `name`, `name:group`, `uid`, `uid:gid`.
    pub user: String,
    /// A pseudo-terminal of this size; None: three pipes.
    #[serde(default)]
    pub tty: Option<Tty>,
    /// Whether Stdin frames will come; if not, the command reads /dev/null.
    #[serde(default)]
    pub stdin: bool,
    /// Run it with what a login shell sets up, as far as the guest has one, and with what mise does, where that is there.
    #[serde(default)]
    pub login: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tty {
    pub rows: u16,
    pub columns: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Configure {
    /// The host's clock in nanoseconds since 1970; the guest follows when it is off by more than half a second.
    pub clock_ns: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hostname {
    pub name: VmName,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Absolute, in the guest. Its last component is the name of the first tar entry.
    pub path: String,
    /// Whether a symlink at the end of `path` is followed.
    #[serde(default)]
    pub follow: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Absolute, in the guest.
    pub path: String,
    /// What `path` is.
    pub target: Target,
    /// None: owners as in the stream; else everything belongs to these numbers.
    #[serde(default)]
    pub owner: Option<(u32, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A directory that must exist; entries go below it.
    Into,
    /// An existing directory to unpack below, or a name for the stream's one top entry (what `cp` does).
    Place,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    pub port: u16,
    pub protocol: Protocol,
    /// None: 127.0.0.1, or the guest's own address that somebody listens on where nobody does there.
    #[serde(default)]
    pub host: Option<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The operation is done, or its frames follow.
    Done,
    Hello(Hello),
    /// Exec: the command has been started.
    Started {
        pid: u32,
    },
    Ports {
        ports: Vec<Port>,
    },
    Activity(Activity),
    Stats(Box<GuestStats>),
    /// What there is of a work tree; segments follow.
    Held(Box<Held>),
    Refused(Refusal),
}

/// A socket that waits for others in the guest: one that listens, or of UDP one that is not connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    /// The process that has it open; one of them if there are several. None: the kernel, or one that has just gone.
    #[serde(default)]
    pub pid: Option<u32>,
    /// What the process calls itself (proc(5), /proc/pid/comm). From the guest, as everything is.
    #[serde(default)]
    pub program: Option<String>,
}

/// The most ports that an answer names.
pub const MAX_PORTS: usize = 250;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// banger's version in the guest.
    pub version: String,
    /// `uname -r`.
    pub kernel: String,
    /// The init that the image was handed over to; None: the agent is process 1.
    #[serde(default)]
    pub init: Option<String>,
}

/// Why the guest did not do it. `message` is a sentence for people; it comes from the guest, so it is made harmless before
/// it reaches a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// There is no such program (exit status 127).
    NoProgram,
    /// It cannot be executed (exit status 126).
    NotExecutable,
    NoShell,
    NoUser,
    NoDirectory,
    NotFound,
    BadRequest,
    /// Anything else that the guest's kernel refused.
    Failed,
}

/// What the guest writes, as one line, to the host's ready port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ready", rename_all = "snake_case")]
pub enum Ready {
    /// The agent accepts connections.
    Up(Hello),
    /// The guest cannot come up; a sentence.
    Broken { message: String },
}
