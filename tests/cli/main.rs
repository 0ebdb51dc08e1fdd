//! The command line, as people and scripts use it: the built program against a daemon that says what a test wants.

mod bundle;
mod changing;
mod complete;
mod config;
mod copy;
mod doctor;
mod fake;
mod hostile;
mod session;
mod system;
mod terminal;
mod top;
mod watch;
mod words;
mod workspace;
