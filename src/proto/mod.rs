//! What banger's parts say to each other. Types and their bytes, nothing that acts.

pub mod agent;
pub mod api;
pub mod calls;
pub mod finding;
pub mod frame;
pub mod root;
pub mod stats;
pub mod symlink;
pub mod watch;
pub mod workspace;
