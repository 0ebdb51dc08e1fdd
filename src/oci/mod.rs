//! oci
pub mod tar;
