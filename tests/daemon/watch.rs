//! Knowing what goes on, with guests that are well, hang, or lie.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use banger::proto::agent::{Answer, Hello, Port, Request};
use banger::proto::api::*;
use banger::proto::frame::{Frame, Kind};
use banger::proto::stats::GuestStats;
use banger::vm::publish::Protocol;
use banger::vm::state::State;

use crate::guests::{Manner, answer, attend, good, up};
use crate::rig::Rig;

fn started(rig: &Rig, name: &str, manner: Manner) {
    let vm = rig.create(name);
    attend(rig.dirs().vm_sockets(vm.record.id), up(), manner);
    rig.call(VmStart { vm: name.to_owned() }).expect("starts");
}

/// A guest that takes every question and answers none but the one that its start needs.
fn hung() -> Manner {
    Arc::new(|request| (!matches!(request, Request::Configure(_))).then(Vec::new))
}

fn answering(bytes: Vec<u8>) -> Manner {
    Arc::new(move |request| (!matches!(request, Request::Configure(_))).then(|| bytes.clone()))
}

fn signal(rig: &Rig, vm: &str, signal: rustix::process::Signal) {
    let State::Running { processes } = rig.show(vm).record.state else { panic!("does not run") };
    let pid = rustix::process::Pid::from_raw(processes.vmm.pid.cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("signals");
}

#[test]
fn a_guest_that_hangs_costs_a_ping_its_time_and_no_more() {
    let rig = Rig::started();
    started(&rig, "dev", hung());
    let begun = Instant::now();
    let failure = rig.call(VmPing { vm: "dev".to_owned(), within_ms: 300 }).expect_err("hangs");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(failure.message, "vm dev does not answer: the guest's agent did not answer within 0.3 s");
    let hello = Hello { version: "1\u{1b}[2J".to_owned(), kernel: "x".repeat(9000), init: None };
    started(&rig, "odd", answering(answer(&Answer::Hello(hello))));
    let pong = rig.call(VmPing { vm: "odd".to_owned(), within_ms: 60_000 }).expect("answers");
    assert!(pong.version == "1\\u{1b}[2J" && pong.kernel.len() < 200, "{pong:?}");
    rig.create("web");
    let failure = rig.call(VmPing { vm: "web".to_owned(), within_ms: 300 }).expect_err("is stopped");
    assert_eq!(failure.code, Code::NotRunning);
}

#[test]
fn stats_have_what_the_host_knows_whatever_the_guest_says() {
    let rig = Rig::started();
    started(&rig, "hung", hung());
    let stats = |vm: &str| rig.call(VmStats { vm: vm.to_owned(), within_ms: Some(300) });
    let seen = stats("hung").expect("is looked at");
    let vmm = seen.vmm.expect("it runs");
    assert!(vmm.pid > 1 && vmm.cpu_ms.is_some() && vmm.memory_bytes > Some(0), "{vmm:?}");
    assert!(vmm.disk_bytes.is_some(), "{vmm:?}");
    assert_eq!(
        (seen.guest, seen.problem.as_deref()),
        (None, Some("the guest's agent did not answer within 0.3 s"))
    );
    let lies = GuestStats { cpu_busy_ms: Some(u64::MAX), at_ms: u64::MAX, ..GuestStats::default() };
    started(&rig, "liar", answering(answer(&Answer::Stats(Box::new(lies.clone())))));
    assert_eq!(stats("liar").expect("is looked at").guest, Some(lies));
    let half = br#"{"answer":"stats","cpus":2,"new":true}"#;
    started(&rig, "newer", answering(Frame::new(Kind::Answer, *half).bytes()));
    let guest = stats("newer").expect("is looked at").guest.expect("answers");
    assert_eq!(
        (guest.cpus, guest.memory_bytes),
        (Some(2), None),
        "another version's are read as far as they go"
    );
    rig.create("web");
    assert_eq!(stats("web").expect_err("is stopped").code, Code::NotRunning);
}

#[test]
fn health_names_what_is_wrong_with_a_vm() {
    let rig = Rig::started();
    let health = |vm: &str| -> Vec<String> {
        let rows = rig.call(VmHealth { vm: vm.to_owned() }).expect("is looked at");
        rows.iter().map(|row| format!("{:?} {}: {}", row.verdict, row.subject, row.found)).collect()
    };
    let clock_ns = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    let well = GuestStats {
        clock_ns: clock_ns.as_nanos() as u64,
        disk_bytes: Some(1 << 30),
        disk_free_bytes: Some(1 << 20),
        ..GuestStats::default()
    };
    started(&rig, "dev", answering(answer(&Answer::Stats(Box::new(well)))));
    let rows = health("dev");
    assert!(rows[0] == "Pass state: running" && rows[1].starts_with("Pass vmm: qemu with "), "{rows:?}");
    assert!(rows[2].starts_with("Pass agent: answered in "), "{rows:?}");
    assert_eq!(rows[3], "Fail disk: 99 % used of 1024 MiB");
    // How far apart they are by now is this machine's doing.
    assert!(rows[4].contains(" clock: "), "{rows:?}");
    signal(&rig, "dev", rustix::process::Signal::STOP);
    rig.until("the VMM is stopped", |_| health("dev")[1].ends_with(" is stopped"));
    signal(&rig, "dev", rustix::process::Signal::CONT);
    rig.call(VmStop { vm: "dev".to_owned(), force: true }).expect("stops");
    assert_eq!(health("dev"), ["Fail state: stopped"]);
}

/// What is told until `last` happens to the VM dev, without what belongs to operations.
fn told(client: &mut crate::rig::Client, last: What) -> Vec<What> {
    let mut all = vec![];
    loop {
        let Some(Reply::Event(Event::Happened(happening))) = client.line() else { panic!("no event") };
        let is_ops = matches!(happening.what, What::OperationBegun | What::OperationDone);
        if !is_ops {
            assert_eq!(happening.name.as_deref(), Some("dev"), "{happening:?}");
            all.push(happening.what);
        }
        if happening.what == last {
            return all;
        }
    }
}

#[test]
fn a_life_is_told_as_it_is_lived_and_to_those_who_ask_later() {
    let mut rig = Rig::started();
    let mut live = rig.connect();
    live.ask(DaemonEvents { since_ms: None });
    // The daemon has seen the question when it answers one that came after it.
    rig.call(DaemonStatus {}).expect("answers");
    started(&rig, "dev", good());
    let change = banger::vm::change::Change { vcpu: Some(2), ..Default::default() };
    rig.call(VmSet { vm: "dev".to_owned(), change }).expect("changes");
    rig.call(VmStop { vm: "dev".to_owned(), force: true }).expect("stops");
    rig.call(VmDelete { vm: "dev".to_owned(), only_if_ended: false }).expect("deletes");
    let want = [
        What::VmCreated,
        What::VmStarting,
        What::VmRunning,
        What::VmChanged,
        What::VmStopping,
        What::VmStopped,
        What::VmDeleting,
        What::VmDeleted,
    ];
    assert_eq!(told(&mut live, What::VmDeleted), want);
    let mut later = rig.connect();
    later.ask(DaemonEvents { since_ms: Some(0) });
    assert_eq!(told(&mut later, What::VmDeleted), want);
    // The daemon ends, and with it what it tells.
    rig.kill();
    let mut rest = std::iter::from_fn(|| live.line());
    assert!(rest.all(|line| matches!(line, Reply::Event(_))));
}

#[test]
fn an_operation_that_fails_is_told_with_its_reason_and_its_id() {
    let rig = Rig::started();
    let failure = rig.call(VmStart { vm: "nope".to_owned() }).expect_err("there is none");
    let mut events = rig.connect();
    events.ask(DaemonEvents { since_ms: Some(0) });
    let mut seen = std::iter::from_fn(|| match events.line() {
        Some(Reply::Event(Event::Happened(happening))) => Some(*happening),
        other => panic!("{other:?}"),
    });
    let failed = seen.find(|h| h.what == What::OperationFailed).expect("is told");
    assert_eq!((failed.method.as_deref(), failed.name.as_deref()), (Some("vm.start"), Some("nope")));
    assert_eq!((failed.op, failed.detail), (Some(failure.op), Some(failure.message.replace('\n', "\\n"))));
}

#[test]
fn listeners_that_go_leave_nothing_and_those_that_do_not_read_hold_up_nobody() {
    let rig = Rig::started();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", rig.daemon_pid())).expect("lists").count();
    let before = descriptors();
    let listen = || {
        let mut client = rig.connect();
        client.ask(DaemonEvents { since_ms: None });
        client
    };
    let silent: Vec<_> = (0..20).map(|_| listen()).collect();
    for n in 0..30 {
        rig.call(ImageTag { image: crate::rig::IMAGE.to_owned(), name: format!("n{n}") }).expect("tags");
    }
    drop(silent);
    rig.until("their connections are closed", |_| descriptors() <= before + 1);
}

#[test]
fn a_port_is_a_web_server_if_it_answers_as_one() {
    let rig = Rig::started();
    let data = |bytes: &[u8]| Frame::new(Kind::Data, bytes).bytes();
    let server_hello = [0x16, 3, 3, 0, 80, 2, 0, 0, 76, 3, 3];
    let said: Vec<(u16, Option<Vec<u8>>, Option<Scheme>)> = vec![
        (80, Some(data(b"HTTP/1.0 400 Bad\r\n\x1b[2J")), Some(Scheme::Http)),
        (443, Some(data(&server_hello)), Some(Scheme::Https)),
        (444, Some([data(&[0x15]), data(&[3, 3, 0, 2, 2, 40])].concat()), Some(Scheme::Https)),
        // Sends back what it gets.
        (7, None, None),
        (22, Some(data(b"SSH-2.0-OpenSSH\r\n")), None),
        // Takes the connection, and says nothing; hangs up; lies about lengths; has much to say, and none of it.
        (9, Some(vec![]), None),
        (10, Some(Frame::new(Kind::Failed, *b"reset").bytes()), None),
        (11, Some(vec![7, 255, 255, 255, 255]), None),
        (12, Some(data(b"").repeat(50_000)), None),
    ];
    let ports: Vec<Port> = said
        .iter()
        .map(|(port, _, _)| Port {
            protocol: Protocol::Tcp,
            address: Ipv4Addr::UNSPECIFIED.into(),
            port: *port,
            pid: None,
            program: None,
        })
        .chain([Port {
            protocol: Protocol::Udp,
            address: Ipv4Addr::LOCALHOST.into(),
            port: 80,
            pid: None,
            program: None,
        }])
        .collect();
    let connects = Arc::new(AtomicUsize::new(0));
    let manner: Manner = {
        let (said, connects) = (said.clone(), Arc::clone(&connects));
        Arc::new(move |request| match request {
            Request::Ports => Some(answer(&Answer::Ports { ports: ports.clone() })),
            Request::Connect(wanted) => {
                connects.fetch_add(1, Ordering::Relaxed);
                let (_, bytes, _) = said.iter().find(|(port, _, _)| *port == wanted.port).expect("listens");
                bytes.as_ref().map(|bytes| [answer(&Answer::Done), bytes.clone()].concat())
            }
            _ => None,
        })
    };
    started(&rig, "dev", manner);
    let begun = Instant::now();
    let views = rig.call(VmPorts { vm: "dev".to_owned(), probe: true }).expect("answers");
    assert!(begun.elapsed() < Duration::from_secs(30));
    for (port, _, want) in &said {
        let view = views.iter().find(|v| v.port == *port && v.protocol == Protocol::Tcp).expect("is there");
        assert_eq!(view.scheme, *want, "{port}");
    }
    assert!(views.iter().all(|view| view.protocol == Protocol::Tcp || view.scheme.is_none()));
    let asked = connects.swap(0, Ordering::Relaxed);
    assert!(asked > said.len() && asked <= 2 * said.len(), "{asked}");
    let views = rig.call(VmPorts { vm: "dev".to_owned(), probe: false }).expect("answers");
    assert!(views.iter().all(|view| view.scheme.is_none()));
    assert_eq!(connects.load(Ordering::Relaxed), 0, "nobody was asked");
}

#[test]
fn what_a_log_said_since_a_time_is_found_also_by_a_daemon_that_was_not_there() {
    let mut rig = Rig::started();
    started(&rig, "dev", good());
    let log = std::path::Path::new(&rig.show("dev").directory).join("console.log");
    let say = |text: &str| {
        let mut file = std::fs::OpenOptions::new().append(true).open(&log).expect("opens");
        file.write_all(text.as_bytes()).expect("writes");
    };
    let now = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
        since.as_millis() as u64
    };
    let since = |rig: &Rig, ms: u64| -> u64 {
        let mut client = rig.connect();
        client.ask(VmLogs { vm: "dev".to_owned(), which: Log::Console, since_ms: Some(ms) });
        client.outcome::<VmLogs>().expect("opens").expect("a place")
    };
    let marks =
        || std::fs::read_to_string(log.with_extension("log.times")).unwrap_or_default().lines().count();
    say("one\n");
    rig.until("the first line has its time", |_| marks() == 1);
    std::thread::sleep(Duration::from_millis(50));
    let second = now();
    say("two\n");
    rig.until("the second line has its time", |_| marks() == 2);
    std::thread::sleep(Duration::from_millis(50));
    rig.kill();
    let third = now();
    say("three\n");
    rig.start();
    for (time, want) in [(0, 0), (second, 4), (third, 8), (now() + 60_000, 14)] {
        assert_eq!(since(&rig, time), want, "{time}");
    }
    // A further run has a log of its own.
    rig.call(VmStop { vm: "dev".to_owned(), force: true }).expect("stops");
    attend(rig.dirs().vm_sockets(rig.show("dev").record.id), up(), good());
    rig.call(VmStart { vm: "dev".to_owned() }).expect("starts");
    assert_eq!((since(&rig, 0), marks()), (0, 0));
}
