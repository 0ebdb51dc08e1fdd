//! `banger doctor`: what this host has of what banger needs, what is missing, and what to do about it. Nothing is changed.
//!
//! A row is a function from what was observed to a [`Finding`]; each file has the rows of one subject, and looks for itself.

mod dns;
mod guests;
mod helper;
mod mend;
mod network;
mod room;
mod store;
mod vmm;

use crate::daemon::fault::Fault;
use crate::daemon::{Shared, blocking, programs, vms};
use crate::proto::finding::Finding;
use crate::vmm::choose::Starter;

pub use self::mend::mend;

/// Looks at everything.
pub async fn examine(d: &Shared) -> Result<Vec<Finding>, Fault> {
    let views = vms::list(d)?;
    let mut findings = blocking(d, |d| {
        let config = &d.config;
        let helper = helper::observe(&d.root, d.dirs.install_file().exists());
        let starter = if helper.has_network() && config.jailer { Starter::Root } else { Starter::Ourselves };
        let firecracker = programs::firecracker(d, starter == Starter::Root);
        let mut findings = vmm::rows(firecracker.as_deref(), starter);
        findings.extend(helper::rows(&helper, config.network.subnet));
        // In a user-mode network nobody reaches a VM by its name.
        if helper.has_network() {
            findings.extend(dns::rows(config.network.dns_port, &config.network.suffix, helper.ports()));
        }
        findings.extend(store::rows(d));
        findings.extend(room::rows(d));
        findings
    })
    .await;
    findings.extend(guests::rows(&views));
    Ok(findings)
}
