//! `vm ping` and `vm health`: whether a VM is there, and well.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::daemon::dial::dial;
use crate::daemon::fault::Fault;
use crate::daemon::guest::{another_answer, running};
use crate::daemon::guest_text::harmless;
use crate::daemon::usage::{self, patience};
use crate::daemon::{Shared, blocking, vms};
use crate::host::process;
use crate::proto::agent::{Answer, Request};
use crate::proto::api::{Finding, PingView, Published, VmPing};
use crate::proto::stats::GuestStats;
use crate::store::record::Run;
use crate::vm::record::VmRecord;
use crate::vm::state::State;

/// How long a guest that is well takes at most.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a guest says of itself, at most so long.
const WORD: usize = 100;
/// Parts in a thousand that are used of what there is: from here on it is told, and from [`ALL`] on it is exhausted.
const MUCH: u64 = 900;
const ALL: u64 = 985;
/// How far the two clocks may be apart; the guest's follows when it starts.
const CLOCK: Duration = Duration::from_secs(2);

/// Asks the guest's agent who it is.
pub async fn ping(d: &Shared, wanted: &VmPing) -> Result<PingView, Fault> {
    let (record, channel) = running(d, &wanted.vm)?;
    let begun = Instant::now();
    match dial(&channel, &Request::Hello, patience(wanted.within_ms)).await {
        Ok((Answer::Hello(hello), _)) => Ok(PingView {
            name: record.name.to_string(),
            took_us: begun.elapsed().as_micros() as u64,
            version: harmless(&hello.version, WORD),
            kernel: harmless(&hello.kernel, WORD),
        }),
        Ok(_) => Err(another_answer()),
        Err(e) => Err(Fault::from(e).within(format!("vm {} does not answer", record.name))),
    }
}

/// What is known of a VM.
struct Facts<'a> {
    record: &'a VmRecord,
    problem: Option<String>,
    run: Option<Run>,
    published: Vec<Published>,
    /// Whether the VMM is there, and whether it was stopped.
    vmm: Option<process::Used>,
    guest: Option<Result<Heard, String>>,
}

/// What the guest says, and when it was heard.
struct Heard {
    stats: GuestStats,
    took: Duration,
    /// Nanoseconds since 1970, halfway between question and answer.
    clock_ns: u64,
}

pub async fn examine(d: &Shared, typed: &str) -> Result<Vec<Finding>, Fault> {
    let record = vms::find(d, typed)?;
    let run = d.store.get::<Run>(record.id)?;
    let vmm = match record.state.processes().map(|processes| processes.vmm) {
        Some(vmm) => blocking(d, move |_| process::used(vmm))
            .await
            .map_err(|e| Fault::failed("cannot look at its process", &e))?,
        None => None,
    };
    let guest = match running(d, &record.id.to_string()) {
        Ok((_, channel)) => {
            let (begun, before) = (Instant::now(), since_1970());
            let stats = usage::guest(&channel, PATIENCE).await;
            let took = begun.elapsed();
            let clock_ns = (before + took / 2).as_nanos() as u64;
            Some(
                stats
                    .map(|stats| Heard { stats, took, clock_ns })
                    .map_err(|fault| harmless(&fault.message, 300)),
            )
        }
        Err(_) => None,
    };
    let published = d.ports.view(record.id);
    let problem = vms::problem(&record);
    Ok(judge(&Facts { record: &record, problem, run, published, vmm, guest }))
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let name = &facts.record.name;
    let start = format!("`banger vm start {name}` starts it.");
    let restart = format!(
        "`banger vm restart {name}` begins anew; what the guest has not written to its disk is lost."
    );
    let state = match &facts.record.state {
        State::Running { .. } => Finding::pass("state", "running"),
        State::Starting { .. } => Finding::warn("state", "starting", "Its guest is not up yet; ask again."),
        State::Stopping { .. } => Finding::warn("state", "stopping", "It is on its way down."),
        State::Stopped => Finding::fail("state", "stopped", start),
        State::Deleting => Finding::fail("state", "it is being deleted", "There is no way back."),
        State::Failed { reason } => Finding::fail("state", harmless(reason, 300), start),
    };
    let mut rows = vec![state];
    let Some(processes) = facts.record.state.processes() else { return rows };
    let pid = processes.vmm.pid;
    rows.push(match &facts.vmm {
        None => Finding::fail("vmm", format!("process {pid} has ended"), restart.clone()),
        Some(used) if used.stopped => Finding::fail(
            "vmm",
            format!("process {pid} is stopped"),
            format!("`kill -CONT {pid}` lets it go on."),
        ),
        Some(_) => {
            let with =
                facts.run.as_ref().map(|run| format!("{} with {}, ", run.vmm, run.accel)).unwrap_or_default();
            Finding::pass("vmm", format!("{with}process {pid}"))
        }
    });
    match (&facts.problem, &facts.guest) {
        (Some(problem), _) => rows.push(Finding::fail("agent", problem.clone(), restart)),
        (None, None) => {}
        (None, Some(Err(why))) => rows.push(Finding::fail("agent", why.clone(), restart)),
        (None, Some(Ok(heard))) => {
            let ms = heard.took.as_secs_f64() * 1_000.0;
            rows.push(Finding::pass("agent", format!("answered in {ms:.1} ms")));
            let GuestStats { disk_bytes, disk_free_bytes, memory_bytes, memory_available_bytes, .. } =
                heard.stats;
            rows.extend(room(
                "disk",
                disk_bytes,
                disk_free_bytes,
                &format!("Remove something in the guest, or `banger vm set {name} --disk-size SIZE`."),
            ));
            rows.extend(room(
                "memory",
                memory_bytes,
                memory_available_bytes,
                &format!("End something in the guest, or `banger vm set {name} --memory SIZE`."),
            ));
            rows.push(clock(heard, name.as_str()));
        }
    }
    for port in &facts.published {
        let to = format!("{} to {}", port.publish.place(), port.publish.guest);
        rows.push(match &port.problem {
            None => Finding::pass("port", to),
            Some(problem) => Finding::fail(
                "port",
                format!("{to}: {problem}"),
                format!("It is tried again; `banger vm set {name} --unpublish {} --publish PORT:{}` takes another one.", port.publish.place(), port.publish.guest),
            ),
        });
    }
    rows
}

/// How much is used of what there is; nothing where the guest does not say.
fn room(subject: &str, all: Option<u64>, free: Option<u64>, advice: &str) -> Option<Finding> {
    let (all, free) = (all.filter(|all| *all > 0)?, free?);
    let used = all.saturating_sub(free);
    let thousandths = u64::try_from(u128::from(used) * 1_000 / u128::from(all)).unwrap_or(1_000);
    let found = format!("{} % used of {} MiB", thousandths / 10, all >> 20);
    Some(match thousandths {
        ALL.. => Finding::fail(subject, found, advice),
        MUCH.. => Finding::warn(subject, found, advice),
        _ => Finding::pass(subject, found),
    })
}

fn clock(heard: &Heard, name: &str) -> Finding {
    let apart = Duration::from_nanos(heard.stats.clock_ns.abs_diff(heard.clock_ns));
    let side = if heard.stats.clock_ns < heard.clock_ns { "behind" } else { "ahead of" };
    // No answer says more than that it was made between the question and its arrival.
    if apart <= CLOCK + heard.took / 2 {
        return Finding::pass("clock", format!("{:.3} s {side} the host's", apart.as_secs_f64()));
    }
    Finding::warn(
        "clock",
        format!("{:.1} s {side} the host's", apart.as_secs_f64()),
        format!("`banger vm exec {name} -- date -s @$(date +%s)` sets it."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: &serde_json::Value) -> VmRecord {
        let mut json = serde_json::json!({
            "id": "000000000001", "name": "dev", "image": "i", "image_name": "debian",
            "spec": { "vcpu": 1, "memory_mib": 512, "disk_mib": 8192, "vmm": "auto", "accel": "auto", "nat": false },
            "created_at": 0,
        });
        json.as_object_mut().expect("an object").extend(state.as_object().expect("an object").clone());
        serde_json::from_value(json).expect("a record")
    }

    fn heard(free: u64, clock_ns: u64) -> Heard {
        let stats = GuestStats {
            clock_ns,
            disk_bytes: Some(1000 << 20),
            disk_free_bytes: Some(free << 20),
            memory_bytes: Some(500 << 20),
            ..GuestStats::default()
        };
        Heard { stats, took: Duration::from_millis(4), clock_ns: 1_000_000_000_000 }
    }

    fn lines(facts: &Facts<'_>) -> Vec<String> {
        judge(facts).iter().map(Finding::line).collect()
    }

    #[test]
    fn a_vm_that_does_not_run_is_told_in_one_line() {
        let table = [
            (
                serde_json::json!({ "state": "stopped" }),
                "Fail state: stopped => `banger vm start dev` starts it.",
            ),
            (
                serde_json::json!({ "state": "failed", "reason": "a\u{1b}[2J" }),
                "Fail state: a\\u{1b}[2J => `banger vm start dev` starts it.",
            ),
        ];
        for (state, want) in table {
            let record = record(&state);
            let facts = Facts {
                record: &record,
                problem: None,
                run: None,
                published: vec![],
                vmm: None,
                guest: None,
            };
            assert_eq!(lines(&facts), [want]);
        }
    }

    #[test]
    fn a_vm_that_runs_is_looked_at_from_all_sides() {
        let running =
            serde_json::json!({ "state": "running", "processes": { "vmm": { "pid": 7, "started": 1 } } });
        let record = record(&running);
        let used = process::Used { cpu: Duration::ZERO, stopped: false };
        let base = || Facts {
            record: &record,
            problem: None,
            run: None,
            published: vec![],
            vmm: Some(used),
            guest: None,
        };
        let now = 1_000_000_000_000;
        assert_eq!(
            lines(&Facts { guest: Some(Ok(heard(500, now))), ..base() }),
            [
                "Pass state: running",
                "Pass vmm: process 7",
                "Pass agent: answered in 4.0 ms",
                "Pass disk: 50 % used of 1000 MiB",
                "Pass clock: 0.000 s ahead of the host's",
            ]
        );
        let bad = lines(&Facts {
            vmm: Some(process::Used { stopped: true, ..used }),
            guest: Some(Err("it did not answer".to_owned())),
            published: vec![Published {
                publish: "8080:80".parse().expect("a port"),
                problem: Some("taken".to_owned()),
            }],
            ..base()
        });
        assert!(bad[1].starts_with("Fail vmm: process 7 is stopped => `kill -CONT 7`"), "{bad:?}");
        assert!(bad[2].starts_with("Fail agent: it did not answer => "), "{bad:?}");
        assert!(bad[3].starts_with("Fail port: 127.0.0.1:8080 to 80: taken => "), "{bad:?}");
        let full = lines(&Facts { guest: Some(Ok(heard(10, now - 9_000_000_000))), ..base() });
        assert!(full[3].starts_with("Fail disk: 99 % used"), "{full:?}");
        assert!(full[4].starts_with("Warn clock: 9.0 s behind the host's => "), "{full:?}");
        assert!(lines(&Facts { vmm: None, ..base() })[1].starts_with("Fail vmm: process 7 has ended"));
    }

    #[test]
    fn numbers_that_make_no_sense_break_nothing() {
        assert_eq!(room("disk", Some(0), Some(1), ""), None);
        assert_eq!(
            room("disk", Some(10), Some(u64::MAX), "").expect("a row").line(),
            "Pass disk: 0 % used of 0 MiB"
        );
        let odd = room("disk", Some(u64::MAX), Some(0), "x").expect("a row").line();
        assert!(odd.starts_with("Fail disk: 100 % used"), "{odd}");
        assert!(clock(&heard(0, u64::MAX), "dev").line().contains("ahead of the host's"));
    }
}
