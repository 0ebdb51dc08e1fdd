//! `banger doctor`: what is said whatever the daemon says, or does not; what --fix asks of it; a probe with a guest that is a thread.

use std::os::unix::fs::PermissionsExt;

use banger::proto::api::{Code, Request};
use banger::proto::frame::Kind;
use serde_json::{Value, json};

use crate::fake::{Agent, Asked, Fake, Ran, vm};

fn status(version: &str) -> Value {
    json!({
        "pid": 7, "version": version, "commit": banger::build::COMMIT, "built": "", "started_at": 1,
        "socket": "", "state_dir": "", "running_vms": 0, "dns": [], "dns_suffix": "vm",
    })
}

fn rows(ran: &Ran) -> Vec<Value> {
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

fn row<'a>(rows: &'a [Value], subject: &str) -> &'a Value {
    rows.iter().find(|row| row["subject"] == subject).unwrap_or_else(|| panic!("no {subject} in {rows:?}"))
}

#[test]
fn it_fails_when_something_fails_and_only_then() {
    for (verdict, code, shown) in [("pass", 0, "PASS"), ("warn", 0, "WARN"), ("fail", 1, "FAIL")] {
        let fake = Fake::start(move |request, asked| match request {
            Request::DaemonStatus(_) => asked.done(status("0.0.1")),
            Request::DaemonDoctor(_) => asked.done(json!([
                { "subject": "kvm", "verdict": verdict, "found": "it is\u{7} so", "advice": "Do this." },
            ])),
            other => panic!("{other:?}"),
        });
        let ran = fake.run(&["doctor"]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(code), ""), "{ran:?}");
        let lines: Vec<&str> = ran.out.lines().collect();
        assert!(
            lines.iter().any(|line| line.starts_with("WARN  bangerd       version 0.0.1")),
            "a daemon of another build: {ran:?}"
        );
        let at = lines.len() - 2;
        assert_eq!(
            lines[at..],
            [&format!("{shown}  kvm           it is\\x07 so"), "                    Do this."]
        );
        assert_eq!(row(&rows(&fake.run(&["doctor", "--json"])), "kvm")["verdict"], verdict);
        assert!(!ran.out.contains("installation"), "there is none: {ran:?}");
    }
}

#[test]
fn a_daemon_that_does_not_answer_is_a_row_and_the_rest_is_there() {
    let refusing = Fake::start(|request, asked| match request {
        Request::DaemonStatus(_) => asked.done(status(banger::build::VERSION)),
        Request::DaemonDoctor(_) => asked.fail(Code::Failed, "cannot read the stored VMs"),
        other => panic!("{other:?}"),
    });
    let garbled = Fake::start(|_, asked| asked.garbage(b"{\"done\":7}\n"));
    let hanging_up = Fake::start(|_, _| {});
    for (fake, why) in [
        (&refusing, "it does not say what it sees: cannot read the stored VMs"),
        (&garbled, "does not understand"),
        (&hanging_up, "hung up"),
    ] {
        let ran = fake.run(&["doctor", "--json"]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(1), ""), "{ran:?}");
        let rows = rows(&ran);
        assert_eq!(row(&rows, "architecture")["verdict"], "pass");
        let failed: Vec<&Value> = rows.iter().filter(|row| row["verdict"] == "fail").collect();
        assert!(failed.len() == 1 && failed[0]["subject"] == "bangerd", "{failed:?}");
        assert!(failed[0]["found"].as_str().expect("text").contains(why), "{failed:?}");
    }
}

#[test]
fn the_files_of_an_installation_are_looked_at_whether_its_daemon_answers_or_not() {
    let fake = Fake::start(|_, _| {});
    let config = fake.root().join("config");
    std::fs::create_dir(&config).expect("makes a directory");
    let file = config.join("install.toml");
    std::fs::write(&file, "owner = 'me'\nuid = 4242\ngid = 4242\nhome = '/home/me'\nversion = '0.0.1'\n")
        .expect("writes");
    let failing = |subject: &str| {
        let rows = rows(&fake.run(&["doctor", "--json"]));
        assert_eq!(row(&rows, subject)["verdict"], "fail", "{rows:?}");
    };
    if rustix::process::geteuid().is_root() {
        for subject in ["executable", "links", "units", "directories", "sockets", "bangerd"] {
            failing(subject);
        }
    }
    // Anybody may have written that.
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).expect("sets the mode");
    failing("installation");
}

#[test]
fn fix_asks_for_each_thing_once_and_looks_again() {
    let fake = Fake::start(|request, asked| match request {
        Request::DaemonStatus(_) => asked.done(status(banger::build::VERSION)),
        Request::DaemonMend(mend) if format!("{:?}", mend.fix) == "Resolver" => {
            asked.fail(Code::NotFound, "no systemd-resolved runs here");
        }
        Request::DaemonMend(_) => asked.done(Value::Null),
        Request::DaemonDoctor(_) => asked.done(json!([
            { "subject": "resolver", "verdict": "warn", "found": "x", "advice": "y", "fix": "resolver" },
            { "subject": "bridge", "verdict": "fail", "found": "x", "advice": "y", "fix": "network" },
            { "subject": "firewall", "verdict": "fail", "found": "x", "advice": "y", "fix": "network" },
            { "subject": "root helper", "verdict": "pass", "found": "x", "fix": "services" },
        ])),
        other => panic!("{other:?}"),
    });
    let ran = fake.run(&["doctor", "--fix", "--json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(
        ran.err,
        "fixed: the bridge, its firewall and the forwarding are made again\n\
         not fixed: the host's resolver is told where names of VMs are: no systemd-resolved runs here\n"
    );
    assert_eq!(row(&rows(&ran), "bridge")["fix"], "network");
    let methods = fake.methods();
    let mended: Vec<usize> =
        methods.iter().enumerate().filter(|(_, m)| *m == "daemon.mend").map(|(at, _)| at).collect();
    let looked: Vec<usize> =
        methods.iter().enumerate().filter(|(_, m)| *m == "daemon.doctor").map(|(at, _)| at).collect();
    assert_eq!((mended.len(), looked.len()), (2, 2), "{methods:?}");
    assert!(looked[0] < mended[0] && mended[1] < looked[1], "{methods:?}");
}

/// A daemon whose VMs start as `start` has it, and whose guests do what `agent` does.
fn with_vms(
    start: impl Fn(Asked) + Send + Sync + 'static,
    agent: impl Fn(Vec<String>, Agent) + Send + Sync + 'static,
) -> Fake {
    Fake::start(move |request, asked| match request {
        Request::DaemonStatus(_) => asked.done(status(banger::build::VERSION)),
        Request::DaemonDoctor(_) => {
            asked.done(json!([{ "subject": "kvm", "verdict": "pass", "found": "usable" }]))
        }
        Request::ImageList(_) => asked.done(json!([])),
        Request::VmCreate(create) => {
            assert!(create.ephemeral && !create.start, "it must go with whoever probes: {create:?}");
            assert_eq!((create.wish.vcpu, create.image.as_deref()), (Some(1), None));
            asked.done(vm(create.name.expect("a name").as_str(), 1, "stopped"));
        }
        Request::VmStart(_) => start(asked),
        Request::VmDelete(_) => asked.done(Value::Null),
        Request::VmExec(exec) => {
            let (near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
            asked.done_with(Value::Null, near.into());
            agent(exec.asked.argv, Agent(far));
        }
        other => panic!("not expected: {other:?}"),
    })
}

fn started(asked: Asked) {
    asked.done(vm("doctor-x", 1, "running"));
}

#[test]
fn a_probe_runs_a_command_in_a_vm_and_deletes_it() {
    let fake = with_vms(started, |argv, mut agent| {
        assert_eq!(argv, ["/proc/self/exe", "--version"]);
        agent.say(Kind::Stdout, b"banger v0.1.0 (commit ");
        agent.say(Kind::Stdout, b"x)\n");
        agent.say(Kind::Exit, &[0]);
    });
    let ran = fake.run(&["doctor", "--probe", "--json"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    let found = row(&rows(&ran), "probe")["found"].as_str().expect("text").to_owned();
    assert!(found.starts_with("a VM in ") && found.contains("a command in "), "{found}");
    let seen = fake.methods();
    let at = |method: &str| seen.iter().position(|m| m == method).unwrap_or_else(|| panic!("no {method}"));
    assert!(at("vm.exec") < at("daemon.doctor") && at("daemon.doctor") < at("vm.delete"), "{seen:?}");
}

#[test]
fn a_probe_that_fails_says_at_which_stage_and_deletes_the_vm_all_the_same() {
    let panics =
        |asked: Asked| asked.fail_with(Code::NotReady, "the guest did not come up", &["Kernel panic"]);
    let stages: [(Fake, &str); 5] = [
        (with_vms(panics, |_, _| {}), "start: the guest did not come up"),
        (
            with_vms(started, |_, mut agent| agent.say(Kind::Exit, &[127])),
            "command: it failed, and said \"\"",
        ),
        (
            with_vms(started, |_, mut agent| {
                agent.say(Kind::Stdout, b"\x1b[2Jhello");
                agent.say(Kind::Exit, &[0]);
            }),
            "command: the command was to say",
        ),
        (with_vms(started, |_, _| {}), "command: "),
        (with_vms(started, |_, mut agent| agent.say_bytes(&[99; 64])), "command: "),
    ];
    for (fake, why) in stages {
        let ran = fake.run(&["doctor", "--probe", "--json"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let rows = rows(&ran);
        let probe = row(&rows, "probe");
        assert_eq!(probe["verdict"], "fail");
        assert!(probe["found"].as_str().expect("text").starts_with(why), "{why}: {probe}");
        assert!(!ran.out.contains('\u{1b}'), "{ran:?}");
        if why.starts_with("start") {
            assert!(
                probe["advice"].as_str().expect("text").ends_with("The guest said last: Kernel panic"),
                "{probe}"
            );
        }
        assert!(fake.methods().contains(&"vm.delete".to_owned()), "{:?}", fake.methods());
        assert_eq!(row(&rows, "kvm")["verdict"], "pass", "the rest is looked at");
    }
}
