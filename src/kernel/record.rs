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
    /// sha256 of the bundle that it was pulled in, in hexadecimal; None: it came another way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// Seconds since 1970.
    pub imported_at: u64,
}

/// Whether a text can name a kernel, and with it a directory: up to 100 letters, digits and `. _ + ~ -`, not beginning with a
/// mark. What `uname -r` says is such a text too.
pub fn is_kernel_name(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+~-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_name_cannot_leave_its_directory() {
        for good in ["6.1.0-56-cloud-amd64", "mine", "6.12~rc1+x_y"] {
            assert!(is_kernel_name(good), "{good}");
        }
        for bad in ["", ".", "..", ".x", "a/b", "-x", "a b", &"x".repeat(101)] {
            assert!(!is_kernel_name(bad), "{bad}");
        }
    }
}
