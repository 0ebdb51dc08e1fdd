//! ext4, written from nothing: a root file system in memory, its contents in the image file already, and how the two become
//! a file system. No mkfs, no mount, no root.
//!
//! ```text
//!  layers ---> tree::Tree     names, inodes, attributes: what layers are applied to
//!         `--> image::Image   contents, at once in their blocks (space: which ones)
//!                   |
//!                finish       numbers inodes, makes directories, trees of extents, attributes
//!                   |
//!                tables       bitmaps, inodes, descriptors, superblocks
//! ```
//!
//! Nothing in a tree has a path on the host, so nothing in it can lead out. What ext4 wants is said by the kernel's
//! Documentation/filesystems/ext4; e2fsck, and a kernel that mounts it, are the judges (tests/ext4, tests/oci/oracle).

mod acl;
mod block;
mod checksum;
mod directory;
mod extent;
mod finish;
mod geometry;
mod hash;
mod image;
mod inode;
mod journal;
pub mod probe;
mod resize;
mod space;
mod superblock;
mod tables;
pub mod tree;
mod xattr;

pub use finish::{Seed, WriteError, finish};
pub use image::{FileWriter, Image};
pub use xattr::{BadXattr, Xattrs, is_known};
