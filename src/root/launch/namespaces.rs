//! Leaving the host's namespaces.
//!
//! This module may use `unsafe` for what rustix has no safe word for.
#![allow(unsafe_code)]

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// A namespace that a process can have for itself.
#[derive(Debug, Clone, Copy)]
pub enum Namespace {
    Mounts,
    /// That of the children to come; the first of them is its process 1.
    ChildrensPids,
    Network,
    Ipc,
    Uts,
    Cgroups,
}

/// Gives this process namespaces of its own.
pub fn leave(namespaces: &[Namespace]) -> io::Result<()> {
    let flags = namespaces.iter().map(|namespace| match namespace {
        Namespace::Mounts => UnshareFlags::NEWNS,
        Namespace::ChildrensPids => UnshareFlags::NEWPID,
        Namespace::Network => UnshareFlags::NEWNET,
        Namespace::Ipc => UnshareFlags::NEWIPC,
        Namespace::Uts => UnshareFlags::NEWUTS,
        Namespace::Cgroups => UnshareFlags::NEWCGROUP,
    });
    // SAFETY: it is unsafe for UnshareFlags::FILES alone, after which a descriptor of one thread is none of another's; that flag
    // is not among the above.
    Ok(unsafe { unshare_unsafe(flags.collect()) }?)
}
