//! Releases: what a publisher says of them, which one to take, and the phases of an update. Pure: no I/O, and the time is a parameter.
//!
//! ```text
//!  manifest.json --> manifest --> choice --> a release --> sums --> journal (the steps, and what a crash between them means)
//!                                   ^ version: which is newer
//! ```

pub mod choice;
pub mod journal;
pub mod manifest;
pub mod sums;
pub mod version;
