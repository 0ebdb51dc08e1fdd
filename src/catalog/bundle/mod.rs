//! Bundles: one image or one kernel in one file, a `.tar.zst`.
//!
//! ```text
//! an image     rootfs.ext4, manifest.json
//! a kernel     vmlinux or bzImage, modules/... as in /lib/modules/<version> where it has any, manifest.json
//! ```
//!
//! What is opened here has been hashed before, and is what a catalog means; that makes it no friend. It is taken apart by
//! rules that leave no choice: these names, plain files, each once, no more than there may be.

pub mod make;
mod manifest;
pub(super) mod members;
#[cfg(test)]
mod tests;
mod unpack;

use std::error::Error;
use std::fmt;
use std::io;

pub use self::manifest::Manifest;
pub use self::unpack::{image, kernel};

pub const MANIFEST: &str = "manifest.json";
pub const ROOTFS: &str = "rootfs.ext4";
pub const VMLINUX: &str = "vmlinux";
pub const BZIMAGE: &str = "bzImage";
pub const MODULES: &str = "modules";

/// Why a bundle cannot be used, or made.
#[derive(Debug)]
pub enum BundleError {
    Cancelled,
    /// It is no zstd stream, or a damaged one, or cannot be read.
    Read(io::Error),
    Truncated,
    /// A block that should be a header is none.
    Damaged,
    /// Something follows where the archive ends.
    Trailing,
    Member {
        path: String,
        why: &'static str,
    },
    /// It has more of something than there may be.
    TooMuch(&'static str),
    /// A member that must be there is not.
    Missing(&'static str),
    Manifest(String),
    /// It calls itself something else than the catalog does.
    Other {
        field: &'static str,
        wanted: String,
        found: String,
    },
    NoExt4,
    /// This machine's disk.
    Io {
        op: String,
        source: io::Error,
    },
}

impl BundleError {
    pub(super) fn io(op: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let op = op.into();
        move |source| Self::Io { op, source }
    }
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Read(_) => f.write_str("the bundle cannot be unpacked"),
            Self::Truncated => f.write_str("the bundle ends in the middle"),
            Self::Damaged => f.write_str("the bundle is damaged: a header's checksum is wrong"),
            Self::Trailing => f.write_str("the bundle goes on where it should end"),
            Self::Member { path, why } => write!(f, "the bundle's member '{path}' {why}"),
            Self::TooMuch(what) => write!(f, "the bundle has {what}"),
            Self::Missing(what) => write!(f, "the bundle has no {what}"),
            Self::Manifest(why) => write!(f, "the bundle's manifest is not as it should be: {why}"),
            Self::Other { field, wanted, found } => {
                write!(
                    f,
                    "the bundle is another than the catalog means: its {field} is {found}, not {wanted}"
                )
            }
            Self::NoExt4 => f.write_str("the bundle's rootfs.ext4 is no ext4 file system"),
            Self::Io { op, .. } => write!(f, "cannot {op}"),
        }
    }
}

impl Error for BundleError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Read(source) | Self::Io { source, .. } => Some(source),
            Self::Cancelled
            | Self::Truncated
            | Self::Damaged
            | Self::Trailing
            | Self::Member { .. }
            | Self::TooMuch(_)
            | Self::Missing(_)
            | Self::Manifest(_)
            | Self::Other { .. }
            | Self::NoExt4 => None,
        }
    }
}
