//! `banger doctor --fix`: what is safe to mend is mended, and each thing that was done is said.

use std::collections::BTreeSet;

use crate::cli::client::Client;
use crate::cli::render;
use crate::proto::api::DaemonMend;
use crate::proto::finding::{Finding, Fix, Verdict};

/// Mends what `findings` say can be; a sentence for each.
pub fn mend(client: &Client, findings: &[Finding]) -> Vec<String> {
    let wanted = wanted(findings);
    if wanted.is_empty() {
        return vec!["there is nothing here that --fix mends".to_owned()];
    }
    wanted.into_iter().map(|fix| carry_out(client, fix)).collect()
}

/// What is to be done, in an order in which what comes later can work: each once.
fn wanted(findings: &[Finding]) -> BTreeSet<Fix> {
    let ill = findings.iter().filter(|finding| finding.verdict != Verdict::Pass);
    ill.filter_map(|finding| finding.fix).collect()
}

fn carry_out(client: &Client, fix: Fix) -> String {
    match fix {
        Fix::Network => said(
            "the bridge, its firewall and the forwarding were made again",
            "the network was not mended",
            client.ask(DaemonMend { fix }),
        ),
        Fix::Resolver => said(
            "the host's resolver was told where names of VMs are",
            "the host's resolver was not told where names of VMs are",
            client.ask(DaemonMend { fix }),
        ),
        Fix::Directories | Fix::Sockets | Fix::Services => "there is no installation here to mend".to_owned(),
    }
}

fn said<E: std::error::Error>(done: &str, not: &str, result: Result<(), E>) -> String {
    match result {
        Ok(()) => format!("fixed: {done}"),
        Err(e) => format!("not fixed: {not}: {}", render::chain(&e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_well_is_left_alone_and_the_rest_is_mended_once_in_order() {
        let findings = [
            Finding::fail("resolver", "x", "y").mended_by(Fix::Resolver),
            Finding::fail("firewall", "x", "y").mended_by(Fix::Network),
            Finding::warn("bridge", "x", "y").mended_by(Fix::Network),
            Finding::pass("sockets", "x").mended_by(Fix::Sockets),
            Finding::fail("store", "x", "y"),
        ];
        assert_eq!(wanted(&findings).into_iter().collect::<Vec<_>>(), [Fix::Network, Fix::Resolver]);
    }
}
