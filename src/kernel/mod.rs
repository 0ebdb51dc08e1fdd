//! Kernels: found, not shipped (DESIGN D5).
//!
//! ```text
//!  a .deb, a directory, /boot --> import --+-- vmlinux (bzimage, elf): the ELF kernel
//!                                          |-- gather (packed, modinfo) --> tree: every module, unpacked
//!                                          |     catalog --> depmod (index): the tables for modprobe
//!                                          `-- modules: what /init loads --> slim --> initramfs
//! ```
//!
//! Everything that reads foreign bytes is pure and takes `&[u8]` or `&str`; only `import`, `deb` and `tree` touch files.

mod bzimage;
mod catalog;
mod deb;
mod depmod;
mod elf;
pub mod error;
mod gather;
pub mod import;
mod index;
pub mod initramfs;
mod modinfo;
pub mod modules;
mod packed;
pub mod record;
mod slim;
pub mod tree;
pub mod vmlinux;
