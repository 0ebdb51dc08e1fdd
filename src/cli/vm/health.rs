//! `banger vm ping` and `banger vm health`.

use std::time::Duration;

use argh::{ArgsInfo, FromArgs};

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::render;
use crate::proto::api::{VmHealth, VmPing};
use crate::proto::finding::Verdict;
use crate::vm::duration;

#[derive(FromArgs, ArgsInfo, Debug)]
/// See whether a guest answers, and how soon. Exits with 1 if it does not.
#[argh(
    subcommand,
    name = "ping",
    help_triggers("-h", "--help", "help"),
    example = "banger vm ping dev\nuntil banger vm ping dev --timeout 1s; do sleep 1; done"
)]
pub struct Ping {
    /// the VM's name, its id, or the beginning of its id
    #[argh(positional)]
    vm: String,
    /// how long it may take, such as 500ms or 10s; 5s if not given
    #[argh(option, arg_name = "time", default = "Duration::from_secs(5)", from_str_fn(time))]
    timeout: Duration,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// See whether a VM is well: its processes, its agent, room on its disk and in its memory, its clock, its ports. Exits with 1 if something fails.
#[argh(
    subcommand,
    name = "health",
    help_triggers("-h", "--help", "help"),
    example = "banger vm health dev\n\
               banger vm health dev --json | jq -r '.[] | select(.verdict != \"pass\") | .advice'",
    note = "Fields of --json: subject (state, vmm, agent, disk, memory, clock, port), verdict (pass, warn, fail), found, advice."
)]
pub struct Health {
    /// the VM's name, its id, or the beginning of its id
    #[argh(positional)]
    vm: String,
    /// print JSON
    #[argh(switch)]
    json: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|e| e.to_string())
}

impl Ping {
    pub fn run(&self) -> Result<(), Error> {
        let within_ms = self.timeout.as_millis() as u64;
        let view = Client::from_env()?.ask(VmPing { vm: self.vm.clone(), within_ms })?;
        let ms = Duration::from_micros(view.took_us).as_secs_f64() * 1_000.0;
        render::out_line(&format!(
            "{}: {ms:.1} ms (banger {}, linux {})",
            view.name, view.version, view.kernel
        ))
    }
}

impl Health {
    pub fn run(&self) -> Result<(), Error> {
        let findings = Client::from_env()?.ask(VmHealth { vm: self.vm.clone() })?;
        if self.json {
            render::json(&findings)?;
        } else {
            let lines: Vec<_> = findings
                .iter()
                .map(|finding| {
                    let verdict = match finding.verdict {
                        Verdict::Pass => "ok",
                        Verdict::Warn => "WARN",
                        Verdict::Fail => "FAIL",
                    };
                    let advice =
                        finding.advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default();
                    [verdict.to_owned(), finding.subject.clone(), format!("{}{advice}", finding.found)]
                })
                .collect();
            render::out(&render::rows(&lines))?;
        }
        match findings.iter().any(|finding| finding.verdict == Verdict::Fail) {
            true => Err(Error::Said(1)),
            false => Ok(()),
        }
    }
}
