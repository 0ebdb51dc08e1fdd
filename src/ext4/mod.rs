//! A root file system in memory, and how it becomes an ext4 file.
//!
//! [`tree::Tree`] is what layers are applied to; nothing in it has a path on the host, so nothing in it can lead out.
//! [`write`] turns the finished tree into a file that a guest mounts.

mod mke2fs;
pub mod probe;
pub mod spool;
pub mod tree;

pub use mke2fs::{WriteError, write};
