//! Knowing what goes on: stats, ping, health, events, logs.

use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use banger::proto::api::{Code, Event, Happening, Request, What};
use serde_json::json;

use crate::fake::{Fake, vm};

fn two_vms() -> serde_json::Value {
    json!([vm("dev", 0xabc, "running"), vm("web", 0xdef, "running")])
}

/// A look at a guest, `n` seconds after its start; it is busy half of the time.
fn stats(n: u64) -> serde_json::Value {
    json!({
        "guest": {
            "at_ms": n * 1000, "clock_ns": 1, "cpus": 2, "cpu_busy_ms": n * 500, "load_hundredths": [153, 7, 0],
            "processes": 12, "memory_bytes": 512 << 20, "memory_available_bytes": 384 << 20, "disk_bytes": 8u64 << 30,
            "disk_free_bytes": 7u64 << 30, "disk_read_bytes": n * 1024, "disk_written_bytes": 0,
            "net_received_bytes": n << 20, "net_sent_bytes": 0,
        },
        "vmm": { "at_ms": n * 1000, "pid": 7, "cpu_ms": n * 10, "memory_bytes": 256 << 20, "disk_bytes": 1 << 20 },
        "problem": null,
    })
}

/// A daemon whose VM dev answers, later each time, and whose web never does.
fn watched() -> Fake {
    let count = std::sync::atomic::AtomicU64::new(1);
    Fake::start(move |request, asked| match request {
        Request::VmList(_) => asked.done(two_vms()),
        Request::VmStats(ask) if ask.vm == "000000000abc" => {
            asked.done(stats(count.fetch_add(1, std::sync::atomic::Ordering::Relaxed)));
        }
        Request::VmStats(ask) => {
            let within = ask.within_ms.expect("does not wait for ever");
            std::thread::sleep(Duration::from_millis(within.min(300)));
            asked.done(json!({ "guest": null, "vmm": null, "problem": "the guest's agent did not answer" }));
        }
        other => panic!("{other:?}"),
    })
}

fn squeezed(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn stats_are_rates_and_sizes_and_a_guest_that_is_silent_leaves_a_gap() {
    let ran = watched().run(&["vm", "stats"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    assert_eq!(
        squeezed(&ran.out),
        [
            "NAME CPU LOAD PROCS MEMORY DISK READ/WRITE PER S NET IN/OUT PER S VMM CPU VMM MEM VMM DISK",
            "dev 50 % 1.53 12 128.0 MiB / 512.0 MiB 1.0 GiB / 8.0 GiB 1.0 KiB / 0 B 1.0 MiB / 0 B 1 % 256.0 MiB 1.0 MiB",
            "web - - - - - - - - - -",
        ]
    );
    let ran = watched().run(&["vm", "stats", "dev", "nope"]);
    assert_eq!((ran.code, ran.out.lines().count()), (Some(1), 2), "{ran:?}");
    assert!(ran.err.starts_with("banger: there is no VM \"nope\""), "{ran:?}");
}

#[test]
fn stats_as_json_have_the_keys_that_help_names() {
    let json: serde_json::Value =
        serde_json::from_str(&watched().run(&["vm", "stats", "--json"]).out).expect("JSON");
    let keys = |value: &serde_json::Value| -> Vec<String> {
        let mut keys: Vec<String> = value.as_object().expect("an object").keys().cloned().collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(keys(&json[0]), ["guest", "id", "problem", "rates", "vm", "vmm"]);
    assert_eq!(json[0]["rates"]["cpu_percent"], 50.0);
    assert_eq!((&json[1]["vm"], &json[1]["guest"]), (&json!("web"), &json!(null)));
    assert_eq!(json[1]["problem"], "the guest's agent did not answer");
    let help = Fake::absent().run(&["vm", "stats", "--help"]).out;
    for key in ["guest", "vmm", "rates"].iter().flat_map(|part| keys(&json[0][part])) {
        assert!(help.contains(&key), "{key}");
    }
}

#[test]
fn stats_that_are_watched_come_again_and_again_until_the_daemon_ends() {
    let fake = watched();
    let mut child = fake
        .banger(&["vm", "stats", "--watch", "--every", "500ms", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawns");
    let begun = Instant::now();
    let lines: Vec<String> = BufReader::new(child.stdout.take().expect("a pipe"))
        .lines()
        .take(6)
        .map(|line| line.expect("a line"))
        .collect();
    child.kill().expect("kills");
    child.wait().expect("reaps");
    assert!(begun.elapsed() < Duration::from_secs(20));
    let names: Vec<serde_json::Value> = lines
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["vm"].clone())
        .collect();
    assert_eq!(names, ["dev", "web", "dev", "web", "dev", "web"], "one that hangs holds up nobody");
}

#[test]
fn words_that_make_no_sense_for_stats_logs_and_events_are_refused() {
    let fake = Fake::absent();
    let time = "is no time; write how long ago, like 10m, or a time like";
    for (args, want) in [
        (&["vm", "stats", "--every", "5s"][..], "--every says how often; add --watch".to_owned()),
        (&["vm", "logs", "dev", "--since", "soon"], format!("--since: \"soon\" {time}")),
        (&["events", "--since", "2026-01-01"], format!("--since: \"2026-01-01\" {time}")),
        (
            &["vm", "ping", "dev", "--timeout", "x"],
            "--timeout: \"x\" is no length of time; write it like 30s, 10m or 1h30m".to_owned(),
        ),
    ] {
        let ran = fake.run(args);
        assert!(ran.code == Some(1) && ran.err.starts_with(&format!("banger: {want}")), "{args:?} {ran:?}");
    }
}

#[test]
fn a_ping_is_one_line_or_one_sentence() {
    let fake = Fake::start(|request, asked| match request {
        Request::VmPing(ask) if ask.vm == "dev" => {
            assert_eq!(ask.within_ms, 1500);
            asked.done(json!({ "name": "dev", "took_us": 1234, "version": "0.1.0", "kernel": "6.1" }));
        }
        Request::VmPing(_) => asked.fail(Code::Failed, "vm web does not answer"),
        other => panic!("{other:?}"),
    });
    let ran = fake.run(&["vm", "ping", "dev", "--timeout", "1.5s"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "dev: 1.2 ms (banger 0.1.0, linux 6.1)\n"));
    let ran = fake.run(&["vm", "ping", "web"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(1), "banger: vm web does not answer (op-00c0ffee)\n"));
}

#[test]
fn health_is_a_line_for_each_and_fails_if_one_does() {
    let fake = Fake::start(|request, asked| match request {
        Request::VmHealth(ask) => {
            let mut rows = vec![
                json!({ "subject": "state", "verdict": "pass", "found": "running" }),
                json!({ "subject": "clock", "verdict": "warn", "found": "9 s behind", "advice": "Set it." }),
            ];
            if ask.vm == "bad" {
                rows.push(
                    json!({ "subject": "agent", "verdict": "fail", "found": "no", "advice": "Do it." }),
                );
            }
            asked.done(json!(rows));
        }
        other => panic!("{other:?}"),
    });
    let ran = fake.run(&["vm", "health", "good"]);
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (Some(0), "ok    state  running\nWARN  clock  9 s behind; Set it.\n")
    );
    let ran = fake.run(&["vm", "health", "bad"]);
    assert!(ran.code == Some(1) && ran.err.is_empty(), "{ran:?}");
    assert!(ran.out.ends_with("FAIL  agent  no; Do it.\n"), "{ran:?}");
}

fn happening(what: What) -> Event {
    Event::Happened(Box::new(Happening {
        name: Some("dev".to_owned()),
        ..Happening::new(1_796_004_000_000, what)
    }))
}

#[test]
fn events_are_lines_until_the_daemon_ends() {
    let fake = Fake::start(|request, asked| match request {
        Request::DaemonEvents(_) => {
            asked.event(happening(What::VmStarting));
            asked.event(happening(What::VmRunning));
        }
        other => panic!("{other:?}"),
    });
    let said = "banger: bangerd has ended, and with it its events; run `banger events` again to go on\n";
    let ran = fake.run(&["events"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(1), said));
    assert_eq!(
        ran.out,
        "2026-11-30T02:00:00Z  vm.starting      dev\n2026-11-30T02:00:00Z  vm.running       dev\n"
    );
    let ran = fake.run(&["events", "--json", "--since", "1970-01-01T00:00:01Z"]);
    let first: serde_json::Value =
        serde_json::from_str(ran.out.lines().next().expect("a line")).expect("JSON");
    assert_eq!(
        first,
        json!({
            "at_ms": 1_796_004_000_000u64, "what": "vm.starting", "id": null, "name": "dev", "op": null,
            "method": null, "detail": null, "count": null
        })
    );
    assert!(
        matches!(&fake.seen()[1], Request::DaemonEvents(ask) if ask.since_ms == Some(1000)),
        "{:?}",
        fake.seen()
    );
}

#[test]
fn of_a_log_the_part_that_is_asked_for_is_shown() {
    let fake = Fake::start(|request, asked| match request {
        Request::VmLogs(ask) => {
            let mut log = tempfile::tempfile().expect("a file");
            log.write_all(b"one\ntwo\nthree\n").expect("writes");
            log.seek(SeekFrom::Start(0)).expect("seeks");
            // In the middle of a line: that is shown whole.
            let start = ask.since_ms.map(|_| 5);
            asked.done_with(json!(start), log.into());
        }
        other => panic!("{other:?}"),
    });
    for (args, want) in [
        (&["vm", "logs", "dev"][..], "one\ntwo\nthree\n"),
        (&["vm", "logs", "dev", "-n", "1"], "three\n"),
        (&["vm", "logs", "dev", "-n0"], ""),
        (&["vm", "logs", "dev", "--since", "10m"], "two\nthree\n"),
        (&["vm", "logs", "dev", "--since", "10m", "--lines", "1"], "three\n"),
    ] {
        let ran = fake.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (Some(0), want), "{args:?}");
    }
}
