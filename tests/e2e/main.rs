//! The lane on real parts: the release binary, a real kernel, real root file systems, VMs that boot.
//!
//! tests/run.sh makes the parts and runs this lane; by hand, `tests/run.sh e2e [NAME]`. Every test is ignored by
//! default for that reason, and has a BANGER_ROOT and a daemon of its own.

mod bad_input;
mod bundles;
mod catalog;
mod changing;
mod crash;
mod disk;
mod doctor;
mod export;
mod failpoints;
mod files;
mod golden;
mod guests;
mod helper;
mod host_git;
mod images;
mod lifecycle;
mod network;
mod odd;
mod offline;
mod publish;
mod rig;
mod run;
mod set;
mod ssh;
mod terminal;
mod watch;
mod workspace;
mod world;
