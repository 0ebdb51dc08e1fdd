//! bangerd itself, as a process on a real socket: who may ask, what it survives, what it leaves behind. What takes a real guest is
//! in tests/e2e; the guests here are threads of the test that speak as one does, or as a hostile one would.

mod doctor;
mod guests;
mod images;
mod launch;
mod life;
mod lifetime;
mod publish;
mod rig;
mod set;
mod socket;
mod start;
mod watch;
