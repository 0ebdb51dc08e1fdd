//! Files in and out of the guest, as tar streams in Data frames.
//!
//! The kernel resolves the paths, as for any process of the guest: this is the guest's own file system, and the host asks as
//! its root. What comes in may name nothing by `..` or an absolute name, so that a stream stays below the place it was sent to
//! unless the guest's own symlinks lead out of it.

pub mod receive;
pub mod send;
pub mod stream;

#[cfg(test)]
mod tests;
