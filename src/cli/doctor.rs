//! `banger doctor`: what this host has of what banger needs.

use argh::{ArgsInfo, FromArgs};

use crate::build;
use crate::cli::client::{Client, ClientError};
use crate::cli::error::Error;
use crate::cli::render;
use crate::proto::api::{DaemonDoctor, DaemonStatus, DaemonView, Finding, Verdict};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Look at all that banger needs of this host, and say what to do about what is missing. Changes nothing. Exits with 1 if something fails.
#[argh(
    subcommand,
    name = "doctor",
    help_triggers("-h", "--help", "help"),
    example = "banger doctor\nbanger doctor --json | jq -r '.[] | select(.verdict != \"pass\") | .advice'",
    note = "Fields of --json: subject, verdict (pass, warn: it works, with less than there could be, fail), found, advice."
)]
pub struct Doctor {
    /// print JSON
    #[argh(switch)]
    json: bool,
}

impl Doctor {
    pub fn run(&self) -> Result<(), Error> {
        let client = Client::from_env()?;
        let status = client.ask(DaemonStatus {});
        let mut findings = vec![daemon(&status)];
        if status.is_ok() {
            findings.extend(client.ask(DaemonDoctor {})?);
        }
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

fn daemon(status: &Result<DaemonView, ClientError>) -> Finding {
    let finding = |verdict, found: String, advice: Option<&str>| Finding {
        subject: "bangerd".to_owned(),
        verdict,
        found,
        advice: advice.map(str::to_owned),
    };
    match status {
        Ok(view) if view.version == build::VERSION && view.commit == build::COMMIT => {
            finding(Verdict::Pass, format!("version {}, pid {}", view.version, view.pid), None)
        }
        Ok(view) => finding(
            Verdict::Warn,
            format!(
                "version {} ({}), and this is banger {} ({})",
                view.version,
                view.commit,
                build::VERSION,
                build::COMMIT
            ),
            Some("`banger daemon stop`, and the next command starts the one beside this banger. VMs run on."),
        ),
        Err(e) => finding(Verdict::Fail, render::chain(e), Some("Nothing works without it.")),
    }
}

/// A line for each finding, its advice below it.
fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|f| f.subject.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { subject, verdict, found, advice } in findings {
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
        let findings = [
            Finding {
                subject: "kvm".to_owned(),
                verdict: Verdict::Pass,
                found: "usable".to_owned(),
                advice: None,
            },
            Finding {
                subject: "bridge".to_owned(),
                verdict: Verdict::Fail,
                found: "\u{1b}[2Jgone".to_owned(),
                advice: Some("Make it.".to_owned()),
            },
        ];
        assert_eq!(
            text(&findings),
            "PASS  kvm     usable\nFAIL  bridge  \\x1b[2Jgone\n              Make it.\n"
        );
    }

    #[test]
    fn a_daemon_of_another_build_is_noticed() {
        let view = |version: &str| DaemonView {
            pid: 7,
            version: version.to_owned(),
            commit: build::COMMIT.to_owned(),
            built: String::new(),
            started_at: 0,
            socket: String::new(),
            state_dir: String::new(),
            running_vms: 0,
            dns: vec![],
        };
        assert_eq!(daemon(&Ok(view(build::VERSION))).verdict, Verdict::Pass);
        assert_eq!(daemon(&Ok(view("0.0.1"))).verdict, Verdict::Warn);
        assert_eq!(daemon(&Err(ClientError::NotRunning)).verdict, Verdict::Fail);
    }
}
