//! Launches in jails, by the helper's own code and as root: what a VMM sees there, what it may do, and that nothing is left of it.

mod guests;
mod rig;
mod stages;
mod tap;
mod tricks;
mod view;
