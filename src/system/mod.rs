//! An installation on a host: where its files are, the services that run it, and what makes, looks at and removes it.
//!
//! One file is the whole program (DESIGN, D10); the rest of an installation is what tells the host of it: three symlinks, systemd's
//! units, install.toml.

pub mod accounts;
pub mod apply;
pub mod check;
pub mod error;
pub mod files;
pub mod hold;
pub mod install;
pub mod layout;
pub mod plan;
pub mod ready;
pub mod refresh;
pub mod remove;
pub mod services;
pub mod status;
pub mod units;
