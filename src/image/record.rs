//! What the store keeps of an image.

use serde::{Deserialize, Serialize};

use crate::image::config::ImageConfig;

/// One image: an immutable ext4 file, images/<id>.ext4.
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
    /// Length of the file, in bytes; it is sparse.
    pub bytes: u64,
    /// Seconds since 1970.
    pub created_at: u64,
    pub config: ImageConfig,
    /// The name of the kernel that it wants; VMs that name none take it where it is to be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}
