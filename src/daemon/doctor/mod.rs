//! `banger doctor`: what this host has of what banger needs, what is missing, and what to do about it. Nothing is changed.
//!
//! A row is a function from what was observed to a [`Finding`]; each file has the rows of one subject, and looks for itself.

mod dns;
mod guests;
mod helper;
mod vmm;

use crate::daemon::fault::Fault;
use crate::daemon::{Shared, blocking, programs, vms};
use crate::proto::api::{Finding, Verdict};
use crate::vmm::choose::Starter;

/// Looks at everything.
pub async fn examine(d: &Shared) -> Result<Vec<Finding>, Fault> {
    let views = vms::list(d)?;
    let mut findings = blocking(d, |d| {
        let config = &d.config;
        let helper = helper::observe(&d.root);
        let starter = if helper.has_network() && config.jailer { Starter::Root } else { Starter::Ourselves };
        let firecracker = programs::firecracker(d, starter == Starter::Root);
        let mut findings = vmm::rows(firecracker.as_deref(), starter);
        findings.extend(helper::rows(&helper, config.network.subnet));
        // In a user-mode network nobody reaches a VM by its name.
        if helper.has_network() {
            findings.extend(dns::rows(config.network.dns_port, &config.network.suffix, helper.ports()));
        }
        findings
    })
    .await;
    findings.extend(guests::rows(&views));
    Ok(findings)
}

fn pass(subject: &str, found: impl Into<String>) -> Finding {
    Finding { subject: subject.to_owned(), verdict: Verdict::Pass, found: found.into(), advice: None }
}

fn warn(subject: &str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    let advice = Some(advice.into());
    Finding { subject: subject.to_owned(), verdict: Verdict::Warn, found: found.into(), advice }
}

fn fail(subject: &str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Fail, ..warn(subject, found, advice) }
}

/// The row in one line, for tables of tests.
#[cfg(test)]
fn line(finding: &Finding) -> String {
    let advice = finding.advice.as_ref().map(|advice| format!(" => {advice}")).unwrap_or_default();
    format!("{:?} {}: {}{advice}", finding.verdict, finding.subject, finding.found)
}
