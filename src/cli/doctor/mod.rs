//! `banger doctor`: what this host has of what banger needs, what is missing, and what to do about it.
//!
//! Rows are made where the knowledge is: here of whoever calls ([`caller`]), of the installation's files and services, and of the
//! daemon's answer ([`daemon`]); by the daemon of the rest. So there is something to say when it does not answer. Each file judges
//! facts, which it gathers itself, in pure functions. Nothing is changed without --fix.

mod caller;
mod config;
mod daemon;
mod fix;
mod installation;
mod probe;
mod services;

use argh::{ArgsInfo, FromArgs};

use crate::cli::client::{Client, ClientError};
use crate::cli::error::Error;
use crate::cli::render;
use crate::cli::system::SHARED;
use crate::host::install::Install;
use crate::proto::api::{DaemonDoctor, DaemonStatus};
use crate::proto::finding::{Finding, Verdict};
use crate::system::layout::Layout;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Look at all that banger needs of this host, and say what to do about what is missing. Changes nothing without --fix. Exits with 1 if something fails.
#[argh(
    subcommand,
    name = "doctor",
    help_triggers("-h", "--help", "help"),
    example = "banger doctor\n\
               banger doctor --probe                  # boots a small VM, and tells how long that took\n\
               sudo banger doctor --fix\n\
               banger doctor --json | jq -r '.[] | select(.verdict != \"pass\") | .advice'",
    note = "Fields of --json: subject, verdict (pass, warn: it works, with less than there could be, fail), found, advice, fix (what --fix does about it).\n\
            --fix makes the bridge, the firewall and the resolver's settings again; of an installation, as root, it starts services, mends owners and modes of directories, and removes stale sockets. It never deletes what is yours."
)]
pub struct Doctor {
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// mend what can be mended safely, say what was done, and look again
    #[argh(switch)]
    fix: bool,
    /// boot a small VM, run a command in it, reach it by its address and its name, and delete it
    #[argh(switch)]
    probe: bool,
}

impl Doctor {
    pub fn run(&self) -> Result<(), Error> {
        // Without one there is still something to look at.
        let client = Client::from_env();
        if self.fix {
            for done in fix::mend(&client, &examine(&client)) {
                render::say(&done);
            }
        }
        let findings = match (&client, self.probe) {
            (Ok(reached), true) => probe::run(reached, self.json, || examine(&client))?,
            (Ok(_) | Err(_), _) => examine(&client),
        };
        if self.json {
            render::json(&findings)?;
        } else {
            render::out(&text(&findings))?;
        }
        match findings.iter().any(|finding| finding.verdict == Verdict::Fail) {
            true => Err(Error::Said(1)),
            false => Ok(()),
        }
    }
}

/// Looks at everything. What cannot be asked for has a row that says so.
fn examine(client: &Result<Client, ClientError>) -> Vec<Finding> {
    let layout = Layout::from_env();
    let mut findings = caller::rows();
    let install = Install::read(&layout.dirs.install_file());
    let is_hosts = layout == Layout::host();
    match &install {
        Ok(None) => {}
        Ok(Some(install)) => {
            findings.extend(installation::rows(&layout, install, &SHARED));
            // systemd runs none that lies elsewhere.
            if is_hosts {
                findings.extend(services::rows(&layout, &install.owner));
            }
        }
        Err(e) => findings.push(installation::untrusted(e)),
    }
    let installed = is_hosts && matches!(install, Ok(Some(_)));
    let client = match client {
        Ok(client) => client,
        Err(e) => {
            findings.push(daemon::absent(e));
            return findings;
        }
    };
    match client.ask(DaemonStatus {}) {
        Ok(view) => {
            findings.push(config::row(client, Some(&view.config)));
            findings.push(daemon::row(&view, installed));
            match client.ask(DaemonDoctor {}) {
                Ok(rows) => findings.extend(rows),
                Err(e) => findings.push(daemon::silent(&e)),
            }
        }
        Err(e) => {
            findings.push(config::row(client, None));
            findings.push(daemon::absent(&e));
        }
    }
    findings
}

/// A line for each finding, its advice below it.
fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|f| f.subject.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { subject, verdict, found, advice, fix: _ } in findings {
        let verdict = match verdict {
            Verdict::Pass => "PASS",
            Verdict::Warn => "WARN",
            Verdict::Fail => "FAIL",
        };
        text += &format!("{verdict}  {:<width$}  {}\n", render::escape(subject), render::escape(found));
        if let Some(advice) = advice {
            text += &format!("{:width$}        {}\n", "", render::escape(advice));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_lines_with_their_advice_below() {
        let findings = [Finding::pass("kvm", "usable"), Finding::fail("bridge", "\u{1b}[2Jgone", "Make it.")];
        assert_eq!(
            text(&findings),
            "PASS  kvm     usable\nFAIL  bridge  \\x1b[2Jgone\n              Make it.\n"
        );
    }
}
