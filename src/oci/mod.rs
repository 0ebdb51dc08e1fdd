//! oci
mod error;
mod flatten;
mod hash;
mod inflate;
mod layer;
mod path;
mod region;
mod tar;

pub use error::{LayerError, OciError};
