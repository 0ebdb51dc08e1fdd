//! What the store keeps of a kernel.

use serde::{Deserialize, Serialize};

/// One imported kernel. Its files are kernels/<name>/vmlinux, modules.cpio and, with a module tree, modules.ext4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelRecord {
    pub name: String,
    /// `uname -r` of it.
    pub version: String,
    /// As in [`crate::image::platform`]: `amd64`, `arm64`.
    pub arch: String,
    /// blake3 of the ELF vmlinux, in hexadecimal.
    pub blake3: String,
    /// Where it came from, for people: the package's file name, the directory, `host`.
    pub source: String,
    /// Whether its guests can build a device-mapper snapshot; if not, each VM gets a copy of its image (DESIGN D2).
    pub snapshot: bool,
    /// Whether there is a module tree to mount at /lib/modules/<version>.
    pub modules: bool,
    /// Seconds since 1970.
    pub imported_at: u64,
}
