//! `banger doctor --fix`: what is safe to mend is mended, and each thing that was done is said.

use std::collections::BTreeSet;
use std::error::Error;
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use rustix::process::geteuid;

use super::installation;
use crate::cli::client::{Client, ClientError};
use crate::cli::render;
use crate::host::endpoint;
use crate::host::install::Install;
use crate::proto::api::{DaemonMend, DaemonStatus};
use crate::proto::finding::{Finding, Fix, Verdict};
use crate::system::apply::{self, Ids};
use crate::system::layout::Layout;
use crate::system::ready;
use crate::system::services::{Services, Systemd};

/// How long a daemon that was started may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Mends what `findings` say can be; a sentence for each.
pub fn mend(client: &Result<Client, ClientError>, findings: &[Finding]) -> Vec<String> {
    let wanted = wanted(findings);
    if wanted.is_empty() {
        return vec!["there is nothing here that --fix mends".to_owned()];
    }
    wanted.into_iter().flat_map(|fix| carry_out(client, fix)).collect()
}

/// What is to be done, in an order in which what comes later can work: each once.
fn wanted(findings: &[Finding]) -> BTreeSet<Fix> {
    let ill = findings.iter().filter(|finding| finding.verdict != Verdict::Pass);
    let mut wanted: BTreeSet<Fix> = ill.filter_map(|finding| finding.fix).collect();
    // Whose sockets are removed must make them anew.
    if wanted.contains(&Fix::Sockets) {
        wanted.insert(Fix::Services);
    }
    wanted
}

fn carry_out(client: &Result<Client, ClientError>, fix: Fix) -> Vec<String> {
    let mended = |what: &str| match client {
        Ok(client) => vec![said(what, client.ask(DaemonMend { fix }))],
        Err(e) => vec![format!("not fixed: {what}: {}", render::chain(e))],
    };
    match fix {
        Fix::Network => mended("the bridge, its firewall and the forwarding are made again"),
        Fix::Resolver => mended("the host's resolver is told where names of VMs are"),
        Fix::Directories | Fix::Sockets | Fix::Services if !geteuid().is_root() => {
            vec![format!("not fixed: {} are root's to mend; run `sudo banger doctor --fix`", noun(fix))]
        }
        Fix::Directories | Fix::Sockets | Fix::Services => {
            let layout = Layout::from_env();
            match Install::read(&layout.dirs.install_file()) {
                Ok(Some(install)) => of_installation(client, fix, &layout, &install),
                Ok(None) => vec![format!("not fixed: {}: there is no installation here", noun(fix))],
                Err(e) => vec![format!("not fixed: {}: {}", noun(fix), render::chain(&e))],
            }
        }
    }
}

fn noun(fix: Fix) -> &'static str {
    match fix {
        Fix::Directories => "directories",
        Fix::Sockets => "sockets",
        Fix::Services => "services",
        Fix::Network => "the network",
        Fix::Resolver => "the resolver",
    }
}

fn of_installation(
    client: &Result<Client, ClientError>,
    fix: Fix,
    layout: &Layout,
    install: &Install,
) -> Vec<String> {
    match fix {
        Fix::Directories => directories(layout, install),
        Fix::Sockets => sockets(layout),
        Fix::Services => run(client, layout),
        Fix::Network | Fix::Resolver => vec![],
    }
}

/// Nothing below them is touched, and no symlink in their place is followed.
fn directories(layout: &Layout, install: &Install) -> Vec<String> {
    let ids = Ids { root: (0, 0), owner: (install.uid, install.gid) };
    let ill = installation::own_directories(layout)
        .into_iter()
        .filter(|(directory, modes)| installation::directory_problem(install, directory, modes).is_some());
    ill.map(|(directory, _)| {
        let what = format!("{} has its owner and its mode", directory.path.display());
        said(&what, apply::directory(&directory, layout, ids))
    })
    .collect()
}

/// Removes sockets that nobody listens at.
fn sockets(layout: &Layout) -> Vec<String> {
    let Ok(table) = std::fs::read_to_string("/proc/net/unix") else { return vec![] };
    let stale = [layout.dirs.socket(), layout.dirs.root_socket()].into_iter().filter(|path| {
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
        is_socket && !endpoint::listens(&table, path)
    });
    stale
        .map(|path| {
            said(&format!("the stale socket {} is removed", path.display()), std::fs::remove_file(&path))
        })
        .collect()
}

/// Has systemd read its units again and restarts them, which no VM minds; waits until the daemon answers.
fn run(client: &Result<Client, ClientError>, layout: &Layout) -> Vec<String> {
    if *layout != Layout::host() {
        return vec![
            "not fixed: services: systemd runs none of this installation, which is below BANGER_ROOT"
                .to_owned(),
        ];
    }
    let restarted = Systemd.reload().and_then(|()| ready::restart(&Systemd));
    let deadline = Instant::now() + PATIENCE;
    while client.as_ref().is_ok_and(|client| client.ask(DaemonStatus {}).is_err())
        && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(100));
    }
    vec![said("the services are restarted", restarted)]
}

fn said<T, E: Error + 'static>(what: &str, result: Result<T, E>) -> String {
    match result {
        Ok(_) => format!("fixed: {what}"),
        Err(e) => format!("not fixed: {what}: {}", render::chain(&e)),
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
        let stale = [Finding::fail("sockets", "x", "y").mended_by(Fix::Sockets)];
        assert_eq!(wanted(&stale).into_iter().collect::<Vec<_>>(), [Fix::Sockets, Fix::Services]);
    }
}
