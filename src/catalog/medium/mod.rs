//! A medium: all that a machine without a network needs, in one file that `banger bundle` makes and installs.
//!
//! It is a tar packed with zstd (one frame, with its checksum), so that nothing but `tar --zstd -xf FILE banger` is needed to begin:
//!
//! ```text
//! manifest.json                              what there is: the schema, and each part's name, size and blake3
//! banger                                     the executable that made it
//! programs/firecracker, programs/jailer      where they were asked for
//! kernels/<name>/vmlinux, modules.cpio, modules.ext4
//! images/<blake3>.ext4
//! ```
//!
//! The manifest comes first and says of every other member which it is, how long it is, and what its content must be. They follow in
//! exactly the manifest's order, under names that follow from the names and ids in it, and there is nothing else. So whoever reads it has
//! no choice to make: a member that is not the next one is refused, whatever it is. A bundle of a catalog ([`super::bundle`]) is a tar by the
//! same rules; it holds one thing as it was published, and its digest is known before.
//!
//! Holes of a file are zeros in the tar, which zstd makes nothing of, and holes again where it is installed. The same content
//! gives the same bytes: members have no time and no owner, the order is fixed, and so is the level of compression.
//!
//! The digests protect from damage, on the way or on the medium, not from whoever made it: with its programs and kernels it is to be
//! trusted as much as the person who hands it over.

mod manifest;
mod pack;
#[cfg(test)]
mod tests;
mod unpack;

pub use self::manifest::{Content, Image, Kernel, Manifest, Own, PROGRAMS, Part, Program};
pub use self::pack::{Made, pack};
pub use self::unpack::{Caps, Reader};

/// The name of the manifest, the first member.
pub const MANIFEST: &str = "manifest.json";
