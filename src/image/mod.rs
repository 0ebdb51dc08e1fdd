//! An image as an idea: references, digests, manifests, the configuration that its processes start with.

pub mod config;
pub mod record;
