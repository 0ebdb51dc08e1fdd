//! Kernels: found, not shipped (DESIGN D5).

pub mod record;
