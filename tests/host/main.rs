//! Install, update, roll back, uninstall: on a machine with systemd that banger itself boots, with a VM in it that has to live through
//! all of it. Three builds that differ in their version alone are what it is installed from, updated to, and taken back to.
//!
//! tests/run.sh makes the parts and runs this lane; by hand, `tests/run.sh host [NAME]`. Each test has a machine of its own and is a list
//! of cases, one after the other; each prints a line, and most look at the whole installation when they are done ([`host::Host::assert_is`]).

mod faults;
mod host;
mod life;
mod machine;
mod refusals;
mod releases;
mod tree;
