//! The VMs' network as data: who has which address, what links are called, which packets may pass. Pure.
//!
//! Everything of one VM follows from two numbers, its id and its [`Lease`](lease::Lease): the id names its tap ([`names`]), the lease's
//! slot gives its address, its MAC and, in the jail, its uid.

pub mod guest;
pub mod lease;
pub mod names;
pub mod reverse;
pub mod ruleset;
pub mod subnet;
pub mod suffix;
