//! What the store keeps of an image.

use serde::{Deserialize, Serialize};

use crate::image::config::ImageConfig;

/// One image: an immutable ext4 file, images/<id>.ext4, or a registered one, which lies elsewhere and is somebody else's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// blake3 of the file, in hexadecimal: the same layers give the same id on any machine.
    pub id: String,
    /// What people call it; a name stands for one image at a time, an image may have several, or none.
    pub names: Vec<String>,
    /// `sha256:...` of the manifest or the bundle it was made from, where it had one.
    #[serde(default)]
    pub digest: Option<String>,
    /// The reference it was pulled by, or the file it was imported from; for people.
    pub source: String,
    /// `amd64`, `arm64`.
    pub arch: String,
    /// The variant of it that was asked for, such as `v3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Length of the file, in bytes; it is sparse.
    pub bytes: u64,
    /// Seconds since 1970.
    pub created_at: u64,
    pub config: ImageConfig,
    /// The name of the kernel that it wants; VMs that name none take it where it is to be had.
    #[serde(default)]
    pub kernel: Option<String>,
    /// Where the file of a registered image is: an absolute path without symlinks. None: banger has its own.
    #[serde(default)]
    pub path: Option<String>,
    /// What a registered file looked like when it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
}

/// What a file looks like without reading it. While it looks the same, it is: the time of its last change is the kernel's, and
/// nobody can set it back (inode(7), ctime).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub inode: u64,
    pub bytes: u64,
    /// In nanoseconds since 1970.
    pub modified_ns: i64,
    pub changed_ns: i64,
}
