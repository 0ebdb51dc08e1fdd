//! banger: one-command development sandboxes on microVMs.
//!
//! One static executable with four personalities, chosen by the name it is called by:
//!
//! | name | runs as | code |
//! |---|---|---|
//! | `banger` | the user | [`cli`]: parses, asks the daemon, prints |
//! | `bangerd` | the owner | [`daemon`]: state and orchestration; every decision |
//! | `bangerd-root` | root | [`root`]: links, firewall, resolver, jailed launches; decides nothing, and does only what is on its list |
//! | `banger-vsock`, `init` | root in the guest | [`guest`]: first process of every VM, then its agent |
//!
//! Beside them [`publish`]: `banger internal`, for those who publish images, kernels and banger itself.
//!
//! Domain, pure, without I/O, clock or log: [`vm`], [`image`], [`network`], [`kernel::record`], [`release`], [`git`] (its formats), [`proto`].
//! [`config`]: what a user may set, for the daemon and the command line alike.
//! Mechanisms, one foreign thing per folder: [`host`], [`netlink`], [`ext4`], [`oci`], [`catalog`], [`kernel`],
//! [`vmm`], [`dns`], [`store`], [`system`], [`updater`], and [`copy`], which speaks proto.
//!
//! Personalities use mechanisms, proto and domain; mechanisms use domain and host, and never each other,
//! except `oci` -> `ext4`; proto uses domain. tests/arrows.rs holds us to it.
#![deny(unsafe_code, unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

pub mod build;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod copy;
pub mod daemon;
pub mod dns;
pub mod ext4;
pub mod git;
pub mod guest;
pub mod host;
pub mod image;
pub mod kernel;
pub mod netlink;
pub mod network;
pub mod oci;
pub mod personality;
pub mod proto;
pub mod publish;
pub mod release;
pub mod root;
pub mod store;
pub mod system;
pub mod updater;
pub mod vm;
pub mod vmm;
