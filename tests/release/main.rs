//! Releases of banger itself, made by `banger internal release`, and install.sh, which installs them: from servers on 127.0.0.1 that
//! mean well and that do not, without a network, with and without a terminal. What is installed is mostly a script that says that
//! it is banger; `banger system install` itself is tried in tests/host.

mod asking;
mod cut;
mod hostile;
mod install;
mod made;
mod offline;
mod rig;
mod server;
