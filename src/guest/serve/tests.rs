//! The agent without a VM: its end of a socket pair, on the machine that runs the tests.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use super::*;
use crate::proto::agent::{Exec, Refusal, Tty};
use crate::proto::frame::{Frame, HEADER, Kind, STDIN_WINDOW};

/// A host's end of a conversation with an agent in a thread.
struct Host {
    stream: UnixStream,
    agent: JoinHandle<After>,
}

impl Host {
    fn connect() -> Self {
        let (stream, theirs) = UnixStream::pair().expect("a pair");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("sets a timeout");
        let guest = Guest::new(None).expect("a guest");
        Self { stream, agent: std::thread::spawn(move || serve(theirs.into(), &guest)) }
    }

    fn ask(request: &Request) -> Self {
        let mut host = Self::connect();
        let mut line = serde_json::to_vec(request).expect("serializes");
        line.push(b'\n');
        host.stream.write_all(&line).expect("writes");
        host
    }

    fn exec(wanted: Exec) -> Self {
        let mut host = Self::ask(&Request::Exec(wanted));
        assert!(matches!(host.answer(), Answer::Started { .. }));
        host
    }

    fn frame(&mut self) -> Option<Frame> {
        Frame::read(&mut self.stream).expect("reads a frame")
    }

    fn answer(&mut self) -> Answer {
        let frame = self.frame().expect("an answer");
        assert_eq!(frame.kind, Kind::Answer);
        serde_json::from_slice(&frame.payload).expect("an answer")
    }

    fn send(&mut self, kind: Kind, payload: &[u8]) {
        Frame::new(kind, payload).write(&mut self.stream).expect("writes a frame");
    }

    /// Stdout, stderr and the exit; window frames are skipped.
    fn rest(&mut self) -> (Vec<u8>, Vec<u8>, u8) {
        let (mut out, mut err) = (vec![], vec![]);
        loop {
            let frame = self.frame().expect("an exit, at last");
            match frame.kind {
                Kind::Stdout => out.extend(frame.payload),
                Kind::Stderr => err.extend(frame.payload),
                Kind::Window => {}
                Kind::Exit => return (out, err, frame.as_byte().expect("a byte")),
                kind => panic!("{kind:?}"),
            }
        }
    }

    fn hang_up(self) -> After {
        drop(self.stream);
        self.agent.join().expect("the agent does not panic")
    }
}

fn exec(argv: &[&str]) -> Exec {
    Exec {
        argv: argv.iter().map(|s| (*s).to_owned()).collect(),
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        cwd: "/".to_owned(),
        user: rustix::process::getuid().as_raw().to_string(),
        ..Exec::default()
    }
}

fn sh(script: &str) -> Exec {
    exec(&["sh", "-c", script])
}

fn refused(wanted: Exec) -> Refusal {
    let mut host = Host::ask(&Request::Exec(wanted));
    match host.answer() {
        Answer::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn hello_is_answered() {
    let mut host = Host::ask(&Request::Hello);
    match host.answer() {
        Answer::Hello(hello) => assert_eq!((hello.version.as_str(), hello.init), (build::VERSION, None)),
        other => panic!("{other:?}"),
    }
    assert_eq!(host.hang_up(), After::Nothing);
}

#[test]
fn power_off_is_answered_and_then_reported() {
    let mut host = Host::ask(&Request::PowerOff);
    assert_eq!(host.answer(), Answer::Done);
    assert_eq!(host.hang_up(), After::PowerOff);
}

#[test]
fn output_is_whole_and_unmixed_and_the_status_is_the_commands() {
    let (out, err, exit) = Host::exec(sh("head -c 300000 /dev/zero; echo oops >&2; exit 42")).rest();
    assert_eq!((out.len(), err.as_slice(), exit), (300_000, &b"oops\n"[..], 42));
    assert_eq!(Host::exec(sh("kill -9 $$")).rest().2, 137);
}

#[test]
fn stdin_reaches_the_command_within_its_window() {
    let mut host = Host::exec(Exec { stdin: true, ..exec(&["cat"]) });
    let mut writer = host.stream.try_clone().expect("clones");
    let (credit, window) = std::sync::mpsc::channel::<usize>();
    let feeder = std::thread::spawn(move || {
        let mut left = STDIN_WINDOW;
        for n in 0..40u8 {
            while left < 50_000 {
                left += window.recv().expect("the guest wants more");
            }
            left -= 50_000;
            Frame::new(Kind::Stdin, vec![n; 50_000]).write(&mut writer).expect("writes");
        }
        Frame::new(Kind::Eof, []).write(&mut writer).expect("writes");
    });
    let mut out = vec![];
    let exit = loop {
        let frame = host.frame().expect("an exit, at last");
        match frame.kind {
            Kind::Stdout => out.extend(frame.payload),
            // The feeder may have had enough.
            Kind::Window => drop(credit.send(frame.as_window().expect("a number") as usize)),
            Kind::Exit => break frame.as_byte().expect("a byte"),
            kind => panic!("{kind:?}"),
        }
    };
    feeder.join().expect("feeds");
    assert_eq!(exit, 0);
    assert!(out.chunks(50_000).enumerate().all(|(n, piece)| piece == vec![n as u8; 50_000]), "{}", out.len());
    assert_eq!(out.len(), 2_000_000);
}

#[test]
fn input_that_a_command_does_not_read_is_no_obstacle_to_its_end() {
    let mut host = Host::exec(Exec { stdin: true, ..sh("exec <&-; sleep 0.2; echo done") });
    host.send(Kind::Stdin, &[b'x'; 60_000]);
    host.send(Kind::Stdin, &[b'x'; 60_000]);
    assert_eq!(host.rest(), (b"done\n".to_vec(), vec![], 0));
}

#[test]
fn a_signal_overtakes_input_that_nobody_reads() {
    let mut host = Host::exec(Exec { stdin: true, ..exec(&["sleep", "1000"]) });
    for _ in 0..4 {
        host.send(Kind::Stdin, &[b'x'; 60_000]);
    }
    host.send(Kind::Signal, &[15]);
    assert_eq!(host.rest().2, 143);
}

#[test]
fn a_terminal_has_a_size_a_name_and_an_end_of_input() {
    let tty = Some(Tty { rows: 30, columns: 100 });
    let mut host =
        Host::exec(Exec { tty, stdin: true, ..sh("stty size; tty; read x; stty size; echo $x $TERM; cat") });
    let mut seen = String::new();
    while !seen.contains("/dev/pts/") {
        seen += &String::from_utf8_lossy(&host.frame().expect("output").payload);
    }
    assert!(seen.contains("30 100"), "{seen}");
    host.send(Kind::Resize, &[40, 0, 120, 0]);
    host.send(Kind::Stdin, b"hi\n");
    host.send(Kind::Eof, &[]);
    let (out, err, exit) = host.rest();
    let out = String::from_utf8_lossy(&out);
    assert!(out.contains("40 120") && out.contains("hi xterm"), "{out}");
    assert_eq!((err.as_slice(), exit), (&[][..], 0));
}

#[test]
fn an_interrupt_reaches_the_terminals_foreground() {
    let tty = Some(Tty { rows: 1, columns: 2 });
    let mut host = Host::exec(Exec {
        tty,
        stdin: true,
        ..sh("trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done")
    });
    let mut seen = vec![];
    while !seen.windows(5).any(|w| w == b"ready") {
        seen.extend(host.frame().expect("output").payload);
    }
    host.send(Kind::Signal, &[2]);
    let (out, _, exit) = host.rest();
    assert_eq!(exit, 9);
    assert!(out.windows(6).any(|w| w == b"caught"));
}

#[test]
fn a_child_that_keeps_the_output_open_does_not_hold_the_exit_back() {
    let mut host = Host::exec(sh("sleep 1000 & echo $!"));
    let (out, _, exit) = host.rest();
    assert_eq!(exit, 0);
    let pid = String::from_utf8_lossy(&out).trim().parse().ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::KILL)
        .expect("the child lives");
}

#[test]
fn a_host_that_hangs_up_ends_the_command_even_one_that_ignores_it() {
    let mut host = Host::exec(sh("trap '' HUP TERM; echo $$; while :; do sleep 0.05; done"));
    let frame = host.frame().expect("output");
    let pid = String::from_utf8_lossy(&frame.payload).trim().to_owned();
    assert_eq!(host.hang_up(), After::Nothing);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_command_that_cannot_be_started_says_why() {
    let wanted = |change: fn(&mut Exec)| {
        let mut wanted = exec(&["true"]);
        change(&mut wanted);
        refused(wanted)
    };
    let no = wanted(|e| e.argv[0] = "no-such-program".to_owned());
    assert_eq!((no.code, no.message.as_str()), (Code::NoProgram, "the guest has no program no-such-program"));
    assert_eq!(wanted(|e| e.argv[0] = "/etc/passwd".to_owned()).code, Code::NotExecutable);
    assert_eq!(wanted(|e| e.argv[0] = "/etc/passwd/x".to_owned()).code, Code::NoProgram);
    assert_eq!(wanted(|e| e.user = "no such user".to_owned()).code, Code::NoUser);
    assert_eq!(wanted(|e| e.cwd = "/no/such".to_owned()).code, Code::NoDirectory);
    assert_eq!(wanted(|e| e.env = vec!["PATH=/no".to_owned()]).code, Code::NoProgram);
}

#[test]
fn a_program_whose_loader_is_missing_is_told_from_one_that_is_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("script");
    std::fs::write(&path, "#!/no/such/loader\n").expect("writes");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("sets the mode");
    let path = path.display().to_string();
    let refusal = refused(exec(&[&path]));
    assert_eq!(refusal.code, Code::NoProgram);
    assert_eq!(
        refusal.message,
        format!("{path} exists in the guest, but what it needs to run (its loader or interpreter) does not")
    );
}

#[test]
fn a_missing_directory_is_made_where_that_is_wanted() {
    let dir = tempfile::tempdir().expect("a directory");
    let cwd = dir.path().join("a/b").display().to_string();
    let (out, _, _) = Host::exec(Exec { cwd: cwd.clone(), make_cwd: true, ..exec(&["pwd"]) }).rest();
    assert_eq!(String::from_utf8_lossy(&out).trim(), cwd);
}

#[test]
fn garbage_is_refused_or_ends_the_connection_and_never_panics() {
    for request in ["", "{}", "[]", "garbage", r#"{"op":"exec"}"#, r#"{"op":"dance"}"#, "\u{fffd}\0\0"] {
        let mut host = Host::connect();
        host.stream.write_all(format!("{request}\n").as_bytes()).expect("writes");
        match host.answer() {
            Answer::Refused(refusal) => assert_eq!(refusal.code, Code::BadRequest, "{request:?}"),
            other => panic!("{request:?}: {other:?}"),
        }
        assert_eq!(host.hang_up(), After::Nothing);
    }
    assert_eq!(Host::connect().hang_up(), After::Nothing);
    let frames: [&[u8]; 6] = [
        &[99, 0, 0, 0, 0],
        &[1, 255, 255, 255, 255],
        // Too short for a resize; no such signal; a kind that only the guest sends.
        &[4, 1, 0, 0, 0, 7],
        &[5, 1, 0, 0, 0, 200],
        &[6, 1, 0, 0, 0, 0],
        &[1, 9, 0],
    ];
    for bytes in frames {
        let mut host = Host::exec(Exec { stdin: true, ..exec(&["cat"]) });
        host.stream.write_all(bytes).expect("writes");
        assert_eq!(host.hang_up(), After::Nothing, "{bytes:?}");
    }
}

#[test]
fn a_host_that_sends_beyond_its_window_is_hung_up_on() {
    let mut host = Host::exec(Exec { stdin: true, ..exec(&["sleep", "1000"]) });
    let piece = Frame::new(Kind::Stdin, vec![0; 65_536]).bytes();
    assert_eq!(piece.len(), 65_536 + HEADER);
    // More than the pipe and the window together; the guest stops reading, so the writing ends too.
    while host.stream.write_all(&piece).is_ok() {}
    assert_eq!(host.hang_up(), After::Nothing);
}

#[test]
fn fifty_commands_run_at_once() {
    let hosts: Vec<Host> = (0..50).map(|n| Host::exec(sh(&format!("echo {n}; exit {n}")))).collect();
    for (n, mut host) in hosts.into_iter().enumerate() {
        let (out, _, exit) = host.rest();
        assert_eq!((String::from_utf8_lossy(&out).trim(), usize::from(exit)), (n.to_string().as_str(), n));
        assert_eq!(host.hang_up(), After::Nothing);
    }
}

#[test]
fn closing_the_guest_ends_its_commands() {
    let (mut stream, theirs) = UnixStream::pair().expect("a pair");
    let guest = std::sync::Arc::new(Guest::new(Some("/sbin/init".to_owned())).expect("a guest"));
    let agent = std::thread::spawn({
        let guest = std::sync::Arc::clone(&guest);
        move || serve(theirs.into(), &guest)
    });
    let line = serde_json::to_string(&Request::Exec(sh("trap '' HUP; sleep 1000"))).expect("serializes");
    stream.write_all(format!("{line}\n").as_bytes()).expect("writes");
    Frame::read(&mut stream).expect("reads").expect("started");
    guest.close(Duration::from_secs(60));
    agent.join().expect("ended");
}
