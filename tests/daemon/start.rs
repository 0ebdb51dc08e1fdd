//! Starting, with guests that come up, do not, or lie.

use std::fs::File;
use std::os::unix::net::UnixStream;

use banger::image::config::Asked;
use banger::proto::agent::{Answer, Code as GuestCode, Ready, Refusal};
use banger::proto::api::{Code, Failure, Log, VmDelete, VmExec, VmLogs, VmStart, VmStop};
use banger::proto::frame::{Frame, Kind};
use banger::vm::state::State;

use crate::guests::{self, answer, attend, good, line, saying, up};
use crate::rig::{Rig, alive};

fn start(rig: &Rig, vm: &str) -> Result<(), Failure> {
    rig.call(VmStart { vm: vm.to_owned() }).map(drop)
}

fn exec(vm: &str) -> VmExec {
    let asked = Asked { argv: vec!["echo".to_owned(), "hi".to_owned()], ..Asked::default() };
    VmExec { vm: vm.to_owned(), asked, as_run: false, tty: None, stdin: false }
}

fn attended(rig: &Rig, name: &str, first: Vec<u8>, manner: guests::Manner) {
    let vm = rig.create(name);
    attend(rig.dirs().vm_sockets(vm.record.id), first, manner);
}

#[test]
fn a_guest_that_says_it_is_up_runs_and_a_command_speaks_past_the_daemon() {
    let mut rig = Rig::started();
    attended(&rig, "dev", up(), good());
    start(&rig, "dev").expect("starts");
    let view = rig.show("dev");
    let State::Running { processes } = view.record.state else { panic!("{:?}", view.record.state) };
    assert!(alive(processes.vmm) && alive(processes.vsock.expect("a vsock device")));
    assert_eq!(view.running_on.expect("it runs").vmm, "qemu");
    let fd = rig.call_fd(exec("dev")).expect("starts a command");
    rig.kill();
    // The daemon is gone, and the command's frames still come, from the first one behind the answer.
    let mut stream = UnixStream::from(fd);
    assert_eq!(Frame::read(&mut stream).expect("reads"), Some(Frame::new(Kind::Stdout, "echo hi")));
    assert_eq!(Frame::read(&mut stream).expect("reads"), Some(Frame::new(Kind::Exit, [3])));
    rig.start();
    assert_eq!(rig.label("dev"), "running");
    rig.call_fd(exec("dev")).expect("the adopted VM takes commands");
    let again = start(&rig, "dev").expect_err("it runs");
    assert_eq!(again.message, "cannot start vm dev: it is already running");
    rig.call(VmStop { vm: "dev".to_owned(), force: true }).expect("stops");
    assert!(!alive(processes.vmm) && !alive(processes.vsock.expect("a vsock device")));
    assert!(!rig.dirs().vm_sockets(view.record.id).exists());
    let stopped = rig.call_fd(exec("dev")).expect_err("it is stopped");
    assert_eq!(
        (stopped.code, stopped.message.as_str()),
        (Code::NotRunning, "vm dev is stopped; `banger vm start dev` starts it")
    );
}

#[test]
fn a_guest_that_cannot_come_up_is_quoted_harmlessly_and_its_vm_kept() {
    let rig = Rig::started();
    let broken = Ready::Broken { message: "no \u{1b}[31mroot".to_owned() };
    attended(&rig, "dev", line(&broken), good());
    let failure = start(&rig, "dev").expect_err("fails");
    assert_eq!(failure.code, Code::NotReady);
    assert_eq!(
        failure.message,
        "cannot start vm dev: the guest cannot come up: no \\u{1b}[31mroot; `banger vm logs dev` shows its console"
    );
    assert_eq!(rig.label("dev"), "failed");
    rig.call_fd(VmLogs { vm: "dev".to_owned(), which: Log::Console, since_ms: None })
        .expect("its log is there");
}

#[test]
fn a_guest_that_begins_with_garbage_gets_one_sentence() {
    let rig = Rig::started();
    let endless = vec![b'x'; 10_000];
    for (name, first, want) in [
        ("a", b"hello\n".to_vec(), "a first line that is no JSON of ours"),
        ("b", endless, "a first line of more than 4096 bytes"),
        ("c", b"\xff\n".to_vec(), "a first line that is no JSON of ours"),
    ] {
        attended(&rig, name, first, good());
        let failure = start(&rig, name).expect_err("fails");
        assert!(
            failure.message.contains("does not speak banger's protocol") && failure.message.contains(want),
            "{failure:?}"
        );
        let processes = rig.show(name).record.state.processes();
        assert_eq!(processes, None, "no process is left");
    }
}

#[test]
fn an_agent_that_answers_garbage_gets_one_sentence() {
    let rig = Rig::started();
    let long = [&[0u8][..], &u32::MAX.to_le_bytes(), b"x"].concat();
    let mut cut = answer(&Answer::Done);
    cut.truncate(8);
    let refused =
        |code, message: &str| answer(&Answer::Refused(Refusal { code, message: message.to_owned() }));
    let table = [
        ("a", b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), Code::Failed, "a frame of the unknown kind 72"),
        ("b", long, Code::Failed, "a frame Answer of 4294967295 bytes; 65536 are allowed"),
        ("c", Frame::new(Kind::Stdout, "x").bytes(), Code::Failed, "a frame Stdout in place of an answer"),
        ("d", Frame::new(Kind::Answer, "{").bytes(), Code::Failed, "an answer that is no JSON of ours"),
        ("e", answer(&Answer::Done), Code::Failed, "an answer to something else"),
        ("f", refused(GuestCode::NoProgram, "no echo\u{7}"), Code::NoProgram, "no echo\\u{7}"),
        ("g", refused(GuestCode::NotExecutable, "no"), Code::NotExecutable, "no"),
    ];
    for (name, bytes, code, want) in table {
        attended(&rig, name, up(), saying(bytes));
        start(&rig, name).expect("starts");
        let failure = rig.call_fd(exec(name)).expect_err(name);
        assert!(failure.code == code && failure.message.contains(want), "{failure:?}");
    }
}

#[test]
fn a_guest_that_never_comes_up_is_given_up_in_time() {
    let mut rig = Rig::new();
    rig.set("BANGER_BOOT_TIMEOUT", "1");
    rig.program("qemu-system-x86_64", "echo first words >&2; exec sleep 300");
    rig.seed();
    rig.start();
    attended(&rig, "dev", vec![], good());
    let failure = start(&rig, "dev").expect_err("fails");
    // A guest that connects and says nothing has as long as any other.
    assert!(
        failure.message.contains("the guest did not come up within 1 s; `banger vm logs dev`"),
        "{failure:?}"
    );
    assert_eq!(failure.details, ["first words"]);
    assert_eq!(rig.show("dev").record.state.processes(), None);
}

#[test]
fn a_vmm_that_ends_at_once_is_noticed_at_once() {
    let rig = Rig::started();
    rig.program("qemu-system-x86_64", "echo cannot set up guest memory >&2; exit 1");
    // The guest makes the device's socket, but is not connected to.
    attended(&rig, "dev", vec![], good());
    let failure = start(&rig, "dev").expect_err("fails");
    assert!(failure.message.contains("the VMM ended before the guest was up"), "{failure:?}");
    assert_eq!(failure.details, ["cannot set up guest memory"]);
    assert_eq!(rig.label("dev"), "failed");
}

#[test]
fn a_vmm_that_gives_up_is_quoted_after_the_console() {
    let rig = Rig::started();
    let console = r#"all="$*"; console=${all#*path=}; console=${console%%,*}"#;
    rig.program(
        "qemu-system-x86_64",
        &format!("{console}; echo booting >>\"$console\"; echo KVM failed >&2; exit 1"),
    );
    attended(&rig, "dev", vec![], good());
    let failure = start(&rig, "dev").expect_err("fails");
    assert_eq!(failure.details, ["booting", "KVM failed"]);
}

#[test]
fn a_vsock_device_that_ends_at_once_is_named() {
    let rig = Rig::started();
    rig.program("vhost-device-vsock", "echo no such option >&2; exit 2");
    rig.create("dev");
    let failure = start(&rig, "dev").expect_err("fails");
    assert!(failure.message.contains("vhost-device-vsock ended as soon as it was started"), "{failure:?}");
    assert_eq!(failure.details, ["no such option"]);
    assert_eq!(rig.show("dev").record.state.processes(), None);
}

#[test]
fn a_vm_that_is_starting_can_be_stopped_and_deleted() {
    let rig = Rig::started();
    for name in ["a", "b"] {
        rig.create(name);
        let mut starting = rig.connect();
        starting.ask(VmStart { vm: name.to_owned() });
        rig.until("it is starting", |rig| rig.label(name) == "starting");
        if name == "a" {
            rig.call(VmStop { vm: name.to_owned(), force: false }).expect("stops");
            assert_eq!(rig.label(name), "stopped");
        } else {
            rig.call(VmDelete { vm: name.to_owned(), only_if_ended: false }).expect("deletes");
        }
        let failure = starting.outcome::<VmStart>().expect_err("gives way");
        assert_eq!(failure.message, format!("cannot start vm {name}: it was stopped while it was starting"));
    }
}

#[test]
fn a_vm_whose_vmm_ends_is_stopped_and_its_device_ended() {
    let rig = Rig::started();
    attended(&rig, "dev", up(), good());
    start(&rig, "dev").expect("starts");
    let processes = rig.show("dev").record.state.processes().expect("it runs");
    banger::host::process::signal(processes.vmm, rustix::process::Signal::KILL).expect("kills it");
    rig.until("it is stopped", |rig| rig.label("dev") == "stopped");
    assert!(!alive(processes.vsock.expect("a vsock device")));
}

#[test]
fn a_vsock_device_that_ends_leaves_the_guest_running_and_is_named_to_whoever_asks() {
    let mut rig = Rig::started();
    attended(&rig, "dev", up(), good());
    start(&rig, "dev").expect("starts");
    let processes = rig.show("dev").record.state.processes().expect("it runs");
    let device = processes.vsock.expect("a vsock device");
    assert_eq!(rig.show("dev").problem, None);
    banger::host::process::signal(device, rustix::process::Signal::KILL).expect("kills it");
    rig.until("it is noticed", |rig| rig.log().contains("vm dev: its vsock device has ended"));
    let told = |rig: &Rig| {
        let view = rig.show("dev");
        assert_eq!(view.record.state.label(), "running");
        let problem = view.problem.expect("a problem");
        assert!(
            problem.starts_with(&format!("its vsock device (process {}) has ended", device.pid)),
            "{problem}"
        );
        let failure = rig.call_fd(exec("dev")).expect_err("it cannot be reached");
        assert_eq!(failure.message, format!("vm dev runs, but {problem}"));
    };
    told(&rig);
    rig.kill();
    rig.start();
    told(&rig);
    rig.call(VmStop { vm: "dev".to_owned(), force: true }).expect("stops");
    assert!(!alive(processes.vmm));
}

#[test]
fn a_guest_that_floods_its_console_does_not_fill_the_disk() {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;
    let mut rig = Rig::started();
    attended(&rig, "dev", up(), good());
    start(&rig, "dev").expect("starts");
    let log = std::path::Path::new(&rig.show("dev").directory).join("console.log");
    // Before and after a restart of the daemon.
    for round in 0..2 {
        let mut console = std::fs::OpenOptions::new().append(true).open(&log).expect("opens");
        for _ in 0..20 {
            console.write_all(&[b'x'; 1 << 20]).expect("writes");
        }
        console.write_all(b"the end\n").expect("writes");
        let blocks = || std::fs::metadata(&log).expect("stats").blocks();
        rig.until("it was cut", |_| blocks() * 512 < 1 << 20);
        rig.until("its end is there", |_| std::fs::read(&log).expect("reads").ends_with(b"the end\n"));
        assert!(std::fs::read(&log).expect("reads").starts_with(b"[bangerd has cut this log"));
        if round == 0 {
            rig.kill();
            rig.start();
        }
    }
}

#[test]
fn a_vm_without_its_disk_is_not_started() {
    let rig = Rig::started();
    let vm = rig.create("dev");
    std::fs::remove_file(std::path::Path::new(&vm.directory).join("cow")).expect("removes it");
    let failure = start(&rig, "dev").expect_err("fails");
    assert!(failure.message.starts_with("cannot start vm dev: its disk is not in /"), "{failure:?}");
    rig.call(VmDelete { vm: "dev".to_owned(), only_if_ended: false }).expect("deletes");
}

#[test]
fn a_log_is_handed_over_for_reading_only() {
    let rig = Rig::started();
    rig.create("dev");
    let none = rig
        .call_fd(VmLogs { vm: "dev".to_owned(), which: Log::Console, since_ms: None })
        .expect_err("none yet");
    assert_eq!(
        (none.code, none.message.as_str()),
        (Code::NotFound, "vm dev has not run yet, so there is no log")
    );
    rig.program("qemu-system-x86_64", "exit 1");
    attend(rig.dirs().vm_sockets(rig.show("dev").record.id), vec![], good());
    start(&rig, "dev").expect_err("fails");
    let log = File::from(
        rig.call_fd(VmLogs { vm: "dev".to_owned(), which: Log::Vmm, since_ms: None }).expect("opens"),
    );
    std::io::Write::write_all(&mut &log, b"x").expect_err("it is not for writing");
}

/// A control socket like QEMU's, which takes one conversation and ends `vmm` when the power button is pressed.
fn power_button(
    socket: &std::path::Path,
    vmm: banger::vm::state::Process,
) -> std::thread::JoinHandle<Vec<String>> {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::os::unix::net::UnixListener::bind(socket).expect("binds");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepts");
        stream.write_all(b"{\"QMP\": {}}\n").expect("greets");
        let mut verbs = vec![];
        for line in BufReader::new(stream.try_clone().expect("clones")).lines() {
            let command: serde_json::Value = serde_json::from_str(&line.expect("reads")).expect("JSON");
            verbs.push(command["execute"].as_str().expect("a verb").to_owned());
            stream.write_all(b"{\"return\": {}}\n").expect("answers");
            if verbs.last().is_some_and(|verb| verb == "system_powerdown") {
                banger::host::process::signal(vmm, rustix::process::Signal::TERM).expect("ends it");
            }
        }
        verbs
    })
}

#[test]
fn a_guest_whose_agent_has_died_is_stopped_by_its_power_button() {
    let rig = Rig::started();
    attended(&rig, "dev", up(), saying(b"\x1b[2Jno frame, and long enough to be read".to_vec()));
    start(&rig, "dev").expect("starts");
    let vm = rig.show("dev").record;
    let processes = vm.state.processes().expect("it runs");
    let button = power_button(&rig.dirs().vm_sockets(vm.id).join("qmp.sock"), processes.vmm);
    let stopped = rig.call(VmStop { vm: "dev".to_owned(), force: false }).expect("stops");
    assert_eq!(stopped.record.state, State::Stopped);
    assert_eq!(button.join().expect("was asked"), ["qmp_capabilities", "system_powerdown"]);
    assert!(rig.log().contains("its power button was pressed") && !rig.log().contains("\x1b[2J"));
    assert!(!alive(processes.vsock.expect("a vsock device")));
}
