//! An image as an idea: references, digests, manifests, the configuration that its processes start with.

pub mod config;
pub mod digest;
pub mod manifest;
pub mod platform;
pub mod record;
pub mod reference;
pub mod whiteout;
