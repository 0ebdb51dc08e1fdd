//! Sessions without a terminal: streams, statuses, signals, and what becomes of the VM.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use banger::proto::api::{Code, Request};
use banger::proto::frame::{Frame, Kind};
use rustix::process::{Pid, Signal, kill_process};

use crate::fake::{Fake, Ran, vm};

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    kill_process(pid, signal).expect("signals");
}

#[test]
fn stdin_stdout_and_stderr_pass_unmixed_and_the_status_is_the_commands() {
    let fake = Fake::with_guest(|exec, mut agent| {
        assert_eq!(exec.argv, ["cat", "-A"]);
        assert!(exec.stdin && exec.tty.is_none());
        let input = agent.stdin();
        agent.say(Kind::Stdout, &input);
        agent.say(Kind::Stderr, b"complaint");
        agent.say(Kind::Exit, &[42]);
    });
    let mut child = fake
        .banger(&["vm", "run", "--name", "dev", "-q", "--", "cat", "-A"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawns");
    let bytes: Vec<u8> = (0..=255).cycle().take(60_000).collect();
    child.stdin.take().expect("a pipe").write_all(&bytes).expect("writes");
    let output = child.wait_with_output().expect("ends");
    assert!(output.stdout == bytes, "binary data is not touched");
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(42), &b"complaint"[..]));
}

#[test]
fn the_reminder_and_the_spec_are_on_stderr_and_not_with_q() {
    let fake = Fake::with_guest(|_, mut agent| {
        agent.say(Kind::Stdout, b"Linux\n");
        agent.say(Kind::Exit, &[0]);
    });
    let ran = fake.run(&["vm", "run", "--name", "dev", "--", "uname"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "Linux\n"));
    assert_eq!(
        ran.err.lines().collect::<Vec<_>>(),
        [
            "spec: 2 vcpu · 1536 MiB · 8 GiB disk",
            "VM dev is still running; banger vm exec dev / banger vm delete dev"
        ]
    );
    let ran = fake.run(&["vm", "run", "-q", "--name", "dev", "--", "uname"]);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("Linux\n", ""));
}

#[test]
fn rm_deletes_whatever_the_status_was() {
    let fake = Fake::with_guest(|_, mut agent| agent.say(Kind::Exit, &[3]));
    let ran = fake.run(&["vm", "run", "--rm", "-q", "--", "false"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(3), ""));
    assert_eq!(fake.methods(), ["vm.create", "vm.start", "vm.exec", "vm.delete"]);
    assert!(matches!(&fake.seen()[0], Request::VmCreate(create) if create.ephemeral && !create.start));
}

#[test]
fn detached_prints_the_name_and_leaves_the_vm() {
    let fake = Fake::with_guest(|_, _| panic!("no command"));
    let ran = fake.run(&["vm", "run", "-dq"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "calm-otter\n", ""));
    assert_eq!(fake.methods(), ["vm.create", "vm.start"]);
}

#[test]
fn a_boot_that_fails_shows_the_console_and_keeps_the_vm_unless_rm() {
    let fake = Fake::start(|request, asked| match request {
        Request::VmCreate(_) => asked.done(vm("dev", 1, "stopped")),
        Request::VmStart(_) => asked.fail_with(
            Code::NotReady,
            "cannot start VM dev: not ready",
            &["panic \x1b[31mred\x1b[0m\x07"],
        ),
        Request::VmDelete(_) => asked.done(serde_json::Value::Null),
        other => panic!("{other:?}"),
    });
    let ran = fake.run(&["vm", "run", "-q", "--", "ls"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        ran.err.lines().collect::<Vec<_>>(),
        [
            "banger: cannot start VM dev: not ready (op-00c0ffee)",
            "  | panic red\\x07",
            "VM dev is kept; `banger vm logs dev` shows its console, `banger vm delete dev` removes it",
        ]
    );
    let ran = fake.run(&["vm", "run", "--rm", "-q", "--", "ls"]);
    assert_eq!((ran.code, ran.err.lines().count()), (Some(1), 2), "{ran:?}");
    assert_eq!(fake.methods().last().map(String::as_str), Some("vm.delete"));
}

#[test]
fn a_program_that_is_not_there_has_the_shells_status() {
    let fake = Fake::start(|request, asked| match request {
        Request::VmExec(exec) if exec.asked.argv == ["nope"] => {
            asked.fail(Code::NoProgram, "there is no program nope")
        }
        Request::VmExec(_) => asked.fail(Code::NotExecutable, "cannot execute /etc"),
        other => panic!("{other:?}"),
    });
    let ran = fake.run(&["vm", "exec", "dev", "--", "nope"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(127), "banger: there is no program nope (op-00c0ffee)\n"));
    assert_eq!(fake.run(&["vm", "exec", "dev", "--", "/etc"]).code, Some(126));
}

#[test]
fn a_lot_of_output_arrives_whole_however_slowly_it_is_read() {
    const PIECES: usize = 600;
    let fake = Fake::with_guest(|_, mut agent| {
        for n in 0..PIECES {
            agent.say(Kind::Stdout, &vec![n as u8; 65_536]);
        }
        agent.say(Kind::Exit, &[0]);
    });
    let mut child =
        fake.banger(&["vm", "exec", "dev", "--", "x"]).stdout(Stdio::piped()).spawn().expect("spawns");
    std::thread::sleep(Duration::from_millis(100));
    let mut all = vec![];
    child.stdout.take().expect("a pipe").read_to_end(&mut all).expect("reads");
    assert_eq!(all.len(), PIECES * 65_536);
    assert!(all.chunks(65_536).enumerate().all(|(n, piece)| piece.iter().all(|b| *b == n as u8)));
    assert!(child.wait().expect("ends").success());
}

#[test]
fn input_larger_than_the_window_arrives_whole() {
    let fake = Fake::with_guest(|_, mut agent| {
        let input = agent.stdin();
        let sum: u64 = input.iter().map(|b| u64::from(*b)).sum();
        agent.say(Kind::Stdout, format!("{} {sum}", input.len()).as_bytes());
        agent.say(Kind::Exit, &[0]);
    });
    let mut child = fake
        .banger(&["vm", "exec", "-i", "dev", "--", "sum"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawns");
    let bytes: Vec<u8> = (0..=255).cycle().take(5_000_000).collect();
    let sum: u64 = bytes.iter().map(|b| u64::from(*b)).sum();
    child.stdin.take().expect("a pipe").write_all(&bytes).expect("writes");
    let ran = Ran::of(child.wait_with_output().expect("ends"));
    assert_eq!(ran.out, format!("5000000 {sum}"));
}

#[test]
fn exec_passes_stdin_only_when_asked() {
    let fake = Fake::with_guest(|exec, mut agent| {
        agent.say(Kind::Stdout, format!("{}", exec.stdin).as_bytes());
        agent.say(Kind::Exit, &[0]);
    });
    assert_eq!(fake.run(&["vm", "exec", "dev", "--", "cat"]).out, "false");
    assert_eq!(fake.run(&["vm", "exec", "-i", "dev", "--", "cat"]).out, "true");
    assert_eq!(fake.run(&["vm", "exec", "dev"]).out, "true", "a shell reads its commands there");
    assert_eq!(fake.run(&["vm", "run", "-q", "--", "cat"]).out, "true");
}

#[test]
fn a_reader_that_goes_away_ends_the_session() {
    let fake = Fake::with_guest(|_, agent| {
        let mut agent = agent;
        while Frame::new(Kind::Stdout, vec![b'y'; 1000]).write(&mut agent.0).is_ok() {}
    });
    let mut child = fake
        .banger(&["vm", "exec", "dev", "--", "yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawns");
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().expect("ends"));
    assert_eq!((ran.code, ran.err.as_str()), (Some(141), ""));
}

#[test]
fn a_signal_reaches_the_command_and_a_second_one_gives_up() {
    let fake = Fake::with_guest(|_, mut agent| {
        agent.say(Kind::Stdout, b"up\n");
        assert_eq!(agent.hear_of(Kind::Signal).payload, [2]);
        agent.say(Kind::Stdout, b"no\n");
        while agent.hear().is_some() {}
    });
    let mut child = fake
        .banger(&["vm", "run", "--name", "dev", "--", "stubborn"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawns");
    let mut line = [0; 3];
    let mut output = child.stdout.take().expect("a pipe");
    output.read_exact(&mut line).expect("it is up");
    signal(&child, Signal::INT);
    output.read_exact(&mut line).expect("it has heard it");
    signal(&child, Signal::INT);
    let ran = Ran::of(child.wait_with_output().expect("ends"));
    assert_eq!(ran.code, Some(130));
    assert_eq!(
        ran.err.lines().last(),
        Some(
            "gave up waiting; VM dev and the command in it still run; banger vm exec dev / banger vm delete dev"
        )
    );
}

#[test]
fn giving_up_with_rm_says_that_the_vm_goes() {
    let fake = Fake::with_guest(|_, mut agent| {
        agent.say(Kind::Stdout, b"up\n");
        agent.hear_of(Kind::Signal);
        agent.say(Kind::Stdout, b"no\n");
        while agent.hear().is_some() {}
    });
    let mut child = fake
        .banger(&["vm", "run", "--rm", "-q", "--name", "dev", "--", "stubborn"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawns");
    let mut line = [0; 3];
    let mut output = child.stdout.take().expect("a pipe");
    output.read_exact(&mut line).expect("it is up");
    signal(&child, Signal::TERM);
    output.read_exact(&mut line).expect("it has heard it");
    signal(&child, Signal::TERM);
    let ran = Ran::of(child.wait_with_output().expect("ends"));
    assert_eq!((ran.code, ran.err.as_str()), (Some(143), "gave up waiting; VM dev is being deleted\n"));
}

#[test]
fn a_command_that_obeys_the_signal_has_its_own_status() {
    let fake = Fake::with_guest(|_, mut agent| {
        agent.say(Kind::Stdout, b"up\n");
        let signal = agent.hear_of(Kind::Signal).payload[0];
        agent.say(Kind::Exit, &[128 + signal]);
    });
    for (sent, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129), (Signal::QUIT, 131)] {
        let mut child =
            fake.banger(&["vm", "exec", "dev", "--", "x"]).stdout(Stdio::piped()).spawn().expect("spawns");
        child.stdout.take().expect("a pipe").read_exact(&mut [0; 3]).expect("it is up");
        signal(&child, sent);
        assert_eq!(child.wait().expect("ends").code(), Some(status), "{sent:?}");
    }
}

#[test]
fn a_signal_during_the_boot_cancels_it_and_deletes_the_vm() {
    let (told, up) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let fake = Fake::start(move |request, asked| match request {
        Request::VmCreate(_) => asked.done(vm("dev", 1, "stopped")),
        Request::VmStart(_) => {
            told.lock().expect("not poisoned").send(()).expect("tells");
            asked.wait_for_hang_up();
        }
        Request::VmDelete(_) => asked.done(serde_json::Value::Null),
        other => panic!("{other:?}"),
    });
    let child = fake
        .banger(&["vm", "run", "-q", "--", "ls"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawns");
    up.recv().expect("it boots");
    signal(&child, Signal::INT);
    let ran = Ran::of(child.wait_with_output().expect("ends"));
    assert_eq!((ran.code, ran.err.as_str()), (Some(130), "banger: cancelled\n"));
    assert_eq!(fake.methods(), ["vm.create", "vm.start", "vm.delete"]);
}

#[test]
fn a_signal_that_we_were_told_to_ignore_stays_ignored() {
    let fake = Fake::with_guest(|_, mut agent| {
        agent.say(Kind::Stdout, b"up\n");
        assert_eq!(agent.hear_of(Kind::Signal).payload, [15], "SIGHUP did not come first");
        agent.say(Kind::Exit, &[0]);
    });
    let banger = env!("CARGO_BIN_EXE_banger");
    let mut child = std::process::Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$0\" vm exec dev -- x", banger])
        .env("BANGER_ROOT", fake.root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawns");
    child.stdout.take().expect("a pipe").read_exact(&mut [0; 3]).expect("it is up");
    signal(&child, Signal::HUP);
    std::thread::sleep(Duration::from_millis(50));
    signal(&child, Signal::TERM);
    assert!(child.wait().expect("ends").success());
}

#[test]
fn a_guest_that_lies_or_dies_gets_one_sentence() {
    type Guest = fn(UnixStream);
    let table: [(Guest, &str); 5] = [
        (
            |mut s| drop(s.write_all(&[99, 0, 0, 0, 0])),
            "the guest sent what is no answer: a frame of the unknown kind 99",
        ),
        (
            |mut s| drop(s.write_all(&[2, 255, 255, 255, 255])),
            "the guest sent what is no answer: a frame Stdout of 4294967295 bytes; 65536 are allowed",
        ),
        (
            |mut s| drop(Frame::new(Kind::Stdin, []).write(&mut s)),
            "the guest sent what is no answer: a frame Stdin where none may come",
        ),
        (
            drop,
            "the connection to the guest ended before the command did; the VM was stopped, or its agent ended",
        ),
        (|mut s| drop(Frame::new(Kind::Failed, *b"\x1b[2Jno").write(&mut s)), "the guest says: \\x1b[2Jno"),
    ];
    for (guest, want) in table {
        let fake = Fake::with_guest(move |_, agent| guest(agent.0));
        let ran = fake.run(&["vm", "exec", "dev", "--", "x"]);
        assert_eq!((ran.code, ran.err), (Some(1), format!("banger: {want}\n")));
    }
}

#[test]
fn logs_are_followed_until_the_vm_stops() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("console.log");
    std::fs::write(&path, "one\n").expect("writes");
    let log = path.clone();
    let fake = Fake::start(move |request, asked| match request {
        Request::VmLogs(_) => {
            let file = std::fs::File::open(&log).expect("opens");
            asked.done_with(serde_json::Value::Null, file.into());
        }
        Request::VmShow(_) => asked.done(vm("dev", 1, "stopped")),
        other => panic!("{other:?}"),
    });
    assert_eq!(fake.run(&["vm", "logs", "dev"]).out, "one\n");
    let mut child = fake.banger(&["vm", "logs", "-f", "dev"]).stdout(Stdio::piped()).spawn().expect("spawns");
    let mut output = child.stdout.take().expect("a pipe");
    let mut line = [0; 4];
    output.read_exact(&mut line).expect("reads");
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("opens");
    file.write_all(b"two\n").expect("writes");
    output.read_exact(&mut line).expect("reads");
    assert_eq!(&line, b"two\n");
    assert!(child.wait().expect("ends as the VM is not alive").success());
}
