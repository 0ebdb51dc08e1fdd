//! Sessions on a pseudo-terminal: raw mode and its end, sizes, keys.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use banger::proto::api::Request;
use banger::proto::frame::Kind;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::fake::{Fake, vm};

/// A terminal: what a person sees and types at, and what a program has.
pub struct Terminal {
    pub person: File,
    program: OwnedFd,
}

impl Terminal {
    pub fn new(rows: u16, columns: u16) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("opens");
        grantpt(&person).expect("grants");
        unlockpt(&person).expect("unlocks");
        let program =
            ioctl_tiocgptpeer(&person, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
                .expect("opens");
        let terminal = Self { person: person.into(), program };
        terminal.resize(rows, columns);
        terminal
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.program, size).expect("resizes");
    }

    pub fn spawn(&self, mut command: Command) -> Child {
        let end = || Stdio::from(self.program.try_clone().expect("clones"));
        command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("spawns")
    }

    /// Reads until `text` has been shown.
    pub fn read_until(&mut self, text: &str) -> String {
        let mut all = vec![];
        let mut byte = [0];
        while !String::from_utf8_lossy(&all).contains(text) {
            self.person.read_exact(&mut byte).expect("shown");
            all.push(byte[0]);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    pub fn is_raw(&self) -> bool {
        let modes = tcgetattr(self.program.as_fd()).expect("a terminal").local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ISIG | LocalModes::ECHO)
    }
}

pub fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("signals");
}

#[test]
fn keys_and_sizes_reach_the_shell_and_the_terminal_is_restored() {
    let fake = Fake::with_guest(|exec, mut agent| {
        let tty = exec.tty.expect("a terminal");
        assert_eq!((tty.rows, tty.columns), (40, 120));
        assert!(exec.argv.is_empty() && exec.stdin && exec.env == ["TERM=xterm"], "{exec:?}");
        agent.say(Kind::Stdout, b"$ ");
        // The size at the start of the session, which may have changed since the request.
        assert_eq!(agent.hear_of(Kind::Resize).as_resize(), Ok((40, 120)));
        assert_eq!(agent.hear_of(Kind::Stdin).payload, b"\x03\x04", "Ctrl-C and Ctrl-D are bytes");
        agent.say(Kind::Stdout, b"again ");
        assert_eq!(agent.hear_of(Kind::Resize).as_resize(), Ok((50, 100)));
        agent.say(Kind::Exit, &[5]);
    });
    let mut terminal = Terminal::new(40, 120);
    let mut child = terminal.spawn(fake.banger(&["vm", "run", "-q"]));
    terminal.read_until("$ ");
    assert!(terminal.is_raw());
    terminal.person.write_all(b"\x03\x04").expect("types");
    terminal.read_until("again ");
    terminal.resize(50, 100);
    signal(&child, Signal::WINCH);
    assert_eq!(child.wait().expect("ends").code(), Some(5));
    assert!(!terminal.is_raw());
}

#[test]
fn a_signal_ends_a_session_on_a_terminal_and_restores_it() {
    for (sent, status) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let fake = Fake::with_guest(|_, mut agent| {
            agent.say(Kind::Stdout, b"$ ");
            while agent.hear().is_some() {}
        });
        let mut terminal = Terminal::new(24, 80);
        let mut child = terminal.spawn(fake.banger(&["vm", "run", "-q", "--rm"]));
        terminal.read_until("$ ");
        signal(&child, sent);
        assert_eq!(child.wait().expect("ends").code(), Some(status));
        assert!(!terminal.is_raw());
        assert_eq!(fake.methods().last().map(String::as_str), Some("vm.delete"));
    }
}

#[test]
fn a_terminal_that_goes_away_ends_the_session() {
    let fake = Fake::with_guest(|_, mut agent| {
        agent.say(Kind::Stdout, b"$ ");
        while agent.hear().is_some() {}
    });
    let mut terminal = Terminal::new(24, 80);
    let mut child = terminal.spawn(fake.banger(&["vm", "exec", "dev"]));
    terminal.read_until("$ ");
    drop(terminal);
    assert_eq!(child.wait().expect("ends").code(), Some(129));
}

#[test]
fn a_command_gets_a_terminal_only_when_asked() {
    let fake = Fake::with_guest(|exec, mut agent| {
        agent.say(Kind::Stdout, format!("tty {} ", exec.tty.is_some()).as_bytes());
        agent.say(Kind::Exit, &[0]);
    });
    for (args, want) in [
        (&["vm", "exec", "dev", "--", "ls"][..], "tty false "),
        (&["vm", "exec", "-it", "dev", "--", "ls"], "tty true "),
        (&["vm", "run", "-q", "--", "ls"], "tty false "),
        (&["vm", "run", "-qit", "--", "ls"], "tty true "),
        (&["vm", "shell", "dev"], "tty true "),
    ] {
        let mut terminal = Terminal::new(24, 80);
        let mut child = terminal.spawn(fake.banger(args));
        terminal.read_until(want);
        assert!(child.wait().expect("ends").success(), "{args:?}");
    }
}

#[test]
fn what_goes_on_is_shown_on_a_terminal_and_gone_before_the_shell() {
    let fake = Fake::start(|request, asked| match request {
        Request::VmCreate(_) => {
            asked.event(banger::proto::api::Event::Stage { text: "pulling debian:12".to_owned() });
            std::thread::sleep(std::time::Duration::from_millis(150));
            asked.done(vm("dev", 1, "stopped"));
        }
        Request::VmStart(_) => asked.fail(banger::proto::api::Code::Failed, "cannot start VM dev"),
        other => panic!("{other:?}"),
    });
    let mut terminal = Terminal::new(24, 80);
    let mut child = terminal.spawn(fake.banger(&["vm", "run"]));
    let shown = terminal.read_until("banger: cannot start VM dev");
    assert!(shown.contains("pulling debian:12") && shown.contains("spec: 2 vcpu"), "{shown:?}");
    let last = shown.rfind("banger: ").expect("shown");
    assert!(
        shown[..last].ends_with("\x1b[2K") || shown[..last].ends_with('\n'),
        "the bar is wiped: {shown:?}"
    );
    assert_eq!(child.wait().expect("ends").code(), Some(1));
}

#[test]
fn a_log_cannot_act_on_the_terminal() {
    let mut log = tempfile::tempfile().expect("a file");
    log.write_all(b"[\x1b[32m OK \x1b[0m] up\r\n\x1b]0;owned\x07\x1b[2J\n\xff last").expect("writes");
    let fake = Fake::start(move |request, asked| match request {
        Request::VmLogs(_) => {
            asked.done_with(serde_json::Value::Null, log.try_clone().expect("clones").into())
        }
        other => panic!("{other:?}"),
    });
    let mut terminal = Terminal::new(24, 80);
    let mut child = terminal.spawn(fake.banger(&["vm", "logs", "dev"]));
    let shown = terminal.read_until("last\r\n");
    assert_eq!(shown, "[ OK ] up\r\n\\x1b]0;owned\\x07\\x1b[2J\r\n\u{fffd} last\r\n");
    assert!(child.wait().expect("ends").success());
}

#[test]
fn prune_deletes_after_a_yes_and_nothing_after_anything_else() {
    for (answer, deletes) in [("y\n", true), ("\n", false), ("no\n", false)] {
        let fake = Fake::start(|request, asked| match request {
            Request::VmList(_) => asked.done(serde_json::json!([vm("old", 1, "stopped")])),
            Request::VmDelete(_) => asked.done(serde_json::Value::Null),
            other => panic!("not expected: {other:?}"),
        });
        let mut terminal = Terminal::new(24, 80);
        let mut child = terminal.spawn(fake.banger(&["vm", "prune"]));
        let shown = terminal.read_until("[y/N] ");
        assert!(shown.contains("old") && shown.contains("delete it and its disk?"), "{shown}");
        terminal.person.write_all(answer.as_bytes()).expect("types");
        assert!(child.wait().expect("ends").success());
        assert_eq!(fake.methods().contains(&"vm.delete".to_owned()), deletes, "{answer:?}");
    }
}
