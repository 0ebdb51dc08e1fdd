//! Copying between this host and a guest, as tar streams over frames.
//!
//! | file | idea |
//! |---|---|
//! | stream.rs | Data frames as bytes, both ways, with the other side's refusal heard in time |
//! | place.rs | what the two paths of a copy mean on this host, as `docker cp` has it |
//! | pack.rs | a tree of this host becomes a tar stream |
//! | entries.rs | a hostile tar stream becomes entries whose names are known to be harmless |
//! | unpack.rs | entries become files below one directory, and nowhere else (A25) |

mod entries;
mod pack;
mod place;
mod stream;
mod unpack;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use self::entries::{Broken, Entry, Kind, each};
pub use self::pack::{How, Part, pack, pack_all};
pub use self::place::{Destination, Source};
pub use self::stream::{Incoming, Outgoing};
pub use self::unpack::unpack;
use crate::proto::frame::BadFrame;

/// Why a copy did not succeed.
#[derive(Debug)]
pub enum CopyError {
    /// The guest said why it cannot.
    Guest {
        message: String,
    },
    /// The connection ended before the copy did.
    Lost,
    Protocol(BadFrame),
    Connection(io::Error),
    /// The stream is no tar, or holds what a guest may not make us do.
    Stream {
        why: String,
    },
    /// A path of this host; `what` is a phrase such as `create`.
    Here {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The paths do not fit together; a sentence.
    Refused(String),
}

impl CopyError {
    fn here(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Here { what, path, source }
    }
}

/// What was left out, and is worth a word.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    pub devices: usize,
    pub sockets: usize,
    pub setuid: usize,
    pub symlinks: usize,
}

impl Skipped {
    /// A sentence; None if nothing was left out.
    pub fn sentence(&self) -> Option<String> {
        let some = |n: usize, one: &str, many: &str| match n {
            0 => None,
            1 => Some(format!("1 {one}")),
            n => Some(format!("{n} {many}")),
        };
        let left_out = [
            some(self.symlinks, "symlink", "symlinks"),
            some(self.devices, "device", "devices"),
            some(self.sockets, "socket", "sockets"),
        ];
        let left_out: Vec<String> = left_out.into_iter().flatten().collect();
        let left_out = (!left_out.is_empty()).then(|| format!("left out {}", left_out.join(" and ")));
        let lost =
            some(self.setuid, "file lost its setuid or setgid bit", "files lost their setuid or setgid bits");
        let parts: Vec<String> = left_out.into_iter().chain(lost).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest { message } => write!(f, "the guest says: {message}"),
            Self::Lost => f.write_str("the connection to the guest ended before the copy did"),
            Self::Protocol(_) => f.write_str("the guest sent what is no answer"),
            Self::Connection(_) => f.write_str("cannot talk to the guest"),
            Self::Stream { why } => write!(f, "the guest's tar stream is not accepted: {why}"),
            Self::Here { what, path, .. } => write!(f, "cannot {what} {}", path.display()),
            Self::Refused(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for CopyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Protocol(bad) => Some(bad),
            Self::Connection(source) | Self::Here { source, .. } => Some(source),
            Self::Guest { .. } | Self::Lost | Self::Stream { .. } | Self::Refused(_) => None,
        }
    }
}

impl From<BadFrame> for CopyError {
    fn from(bad: BadFrame) -> Self {
        Self::Protocol(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_said_in_one_sentence() {
        assert_eq!(Skipped::default().sentence(), None);
        let skipped = Skipped { devices: 2, sockets: 1, setuid: 1, symlinks: 0 };
        assert_eq!(
            skipped.sentence().as_deref(),
            Some("left out 2 devices and 1 socket; 1 file lost its setuid or setgid bit")
        );
    }
}
