//! `banger top` on a pseudo-terminal: what it shows, what keys do, and that the terminal is given back.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use banger::proto::api::Request;
use banger::proto::frame::Kind;
use rustix::process::Signal;
use serde_json::json;

use crate::fake::{Agent, Fake, vm};
use crate::terminal::{Terminal, signal};

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// A daemon with the VMs dev, which runs, and web, until they are deleted.
fn daemon() -> Fake {
    let deleted = AtomicBool::new(false);
    Fake::start(move |request, asked| match request {
        Request::VmList(_) if deleted.load(Ordering::Relaxed) => {
            asked.done(json!([vm("dev", 0xabc, "running")]))
        }
        Request::VmList(_) => asked.done(json!([vm("dev", 0xabc, "running"), vm("web", 0xdef, "stopped")])),
        Request::VmStats(_) => asked.done(json!({
            "guest": { "at_ms": 1, "memory_bytes": 512 << 20, "memory_available_bytes": 384 << 20 },
            "vmm": null, "problem": null,
        })),
        Request::VmStop(_) => asked.fail(banger::proto::api::Code::Failed, "cannot stop vm dev: \u{1b}[2Jno"),
        Request::VmDelete(ask) => {
            assert_eq!(ask.vm, "000000000def");
            deleted.store(true, Ordering::Relaxed);
            asked.done(json!(null));
        }
        Request::VmLogs(_) => {
            let mut log = tempfile::tempfile().expect("a file");
            log.write_all(b"\x1b[2Jlogin: \n").expect("writes");
            asked.done_with(json!(null), log.into());
        }
        Request::VmExec(_) => {
            let (near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
            asked.done_with(json!(null), near.into());
            let mut agent = Agent(far);
            agent.say(Kind::Stdout, b"in the shell $ ");
            assert_eq!(agent.hear_of(Kind::Stdin).payload, b"x");
            agent.say(Kind::Exit, &[3]);
        }
        other => panic!("{other:?}"),
    })
}

fn type_in(terminal: &mut Terminal, keys: &str) {
    terminal.person.write_all(keys.as_bytes()).expect("types");
}

#[test]
fn vms_are_shown_and_keys_act_on_the_selected_one() {
    let fake = daemon();
    let mut terminal = Terminal::new(10, 120);
    let mut child = terminal.spawn(fake.banger(&["top"]));
    terminal.read_until(ENTER);
    terminal.read_until("> dev   running");
    terminal.read_until("128.0 MiB / 512.0 MiB");
    assert!(terminal.is_raw());
    type_in(&mut terminal, "s");
    terminal.read_until("Stop dev? y or n");
    type_in(&mut terminal, "y");
    // What a daemon says is shown, not obeyed.
    terminal.read_until("cannot stop vm dev: \\x1b[2Jno");
    type_in(&mut terminal, "l");
    terminal.read_until("\\x1b[2Jlogin:");
    terminal.read_until("console of dev; q goes back");
    type_in(&mut terminal, "q\x1b[B");
    terminal.read_until("> web   stopped");
    type_in(&mut terminal, "dy");
    terminal.read_until("web is deleted");
    terminal.read_until("> dev   running");
    type_in(&mut terminal, "?");
    terminal.read_until("any key goes back");
    type_in(&mut terminal, "xq");
    terminal.read_until(LEAVE);
    assert_eq!(child.wait().expect("ends").code(), Some(0));
    assert!(!terminal.is_raw());
}

#[test]
fn a_shell_has_the_terminal_and_gives_it_back() {
    let fake = daemon();
    let mut terminal = Terminal::new(10, 120);
    let mut child = terminal.spawn(fake.banger(&["top"]));
    terminal.read_until("> dev   running");
    type_in(&mut terminal, "\r");
    terminal.read_until(LEAVE);
    terminal.read_until("in the shell $ ");
    type_in(&mut terminal, "x");
    terminal.read_until(ENTER);
    terminal.read_until("> dev   running");
    type_in(&mut terminal, "q");
    terminal.read_until(LEAVE);
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn signals_and_a_terminal_that_goes_end_it() {
    for (sent, status) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let mut terminal = Terminal::new(10, 120);
        let fake = daemon();
        let mut child = terminal.spawn(fake.banger(&["top"]));
        terminal.read_until("> dev");
        signal(&child, sent);
        terminal.read_until(LEAVE);
        assert_eq!(child.wait().expect("ends").code(), Some(status));
        assert!(!terminal.is_raw());
    }
    let mut terminal = Terminal::new(10, 120);
    let fake = daemon();
    let mut child = terminal.spawn(fake.banger(&["top"]));
    terminal.read_until("> dev");
    type_in(&mut terminal, "\x03");
    assert_eq!(child.wait().expect("ends").code(), Some(0), "Ctrl-C is a key here");
    let mut child = terminal.spawn(fake.banger(&["top"]));
    terminal.read_until("> dev");
    drop(terminal);
    child.wait().expect("ends");
}

#[test]
fn a_panic_is_told_on_the_screen_that_stays() {
    let guest = || Fake::with_guest(|_, mut agent| while agent.hear().is_some() {});
    for (fake, args, armed) in
        [(daemon(), &["top"][..], "top: drawn"), (guest(), &["vm", "shell", "dev"], "session: raw")]
    {
        let mut terminal = Terminal::new(10, 120);
        let mut command = fake.banger(args);
        command.env("BANGER_FAILPOINT", armed).env("RUST_BACKTRACE", "0");
        let mut child = terminal.spawn(command);
        let seen = terminal.read_until("a test wants it");
        assert_eq!(seen.contains(ENTER), seen.contains(LEAVE), "{seen:?}");
        assert_eq!(child.wait().expect("ends").code(), Some(101));
        assert!(!terminal.is_raw());
    }
}

#[test]
fn it_follows_the_terminals_size_and_draws_without_colours() {
    let fake = daemon();
    let mut terminal = Terminal::new(10, 120);
    let mut command = fake.banger(&["top"]);
    command.env("NO_COLOR", "1");
    let mut child = terminal.spawn(command);
    terminal.read_until("WORKSPACE");
    terminal.resize(3, 24);
    signal(&child, Signal::WINCH);
    let narrow = terminal.read_until("q quit  ? help  enter sh\x1b[0m");
    let last = narrow.rsplit("\x1b[H").next().expect("a frame");
    assert!(!last.contains("WORKSPACE") && !last.contains("\x1b[7m"), "{last:?}");
    type_in(&mut terminal, "q");
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn a_daemon_that_goes_is_told_of_and_not_started_again() {
    let gone = Arc::new(AtomicBool::new(false));
    let fake = {
        let gone = Arc::clone(&gone);
        Fake::start(move |request, asked| match request {
            _ if gone.load(Ordering::Relaxed) => drop(asked),
            Request::VmList(_) => asked.done(json!([vm("dev", 0xabc, "stopped")])),
            other => panic!("{other:?}"),
        })
    };
    let mut terminal = Terminal::new(10, 120);
    let mut child = terminal.spawn(fake.banger(&["top"]));
    terminal.read_until("> dev   stopped");
    gone.store(true, Ordering::Relaxed);
    terminal.read_until("what is shown is old");
    std::fs::remove_file(fake.root().join("run/bangerd.sock")).expect("removes");
    terminal.read_until("bangerd is not running");
    type_in(&mut terminal, "q");
    assert_eq!(child.wait().expect("ends").code(), Some(0));
    assert!(!fake.root().join("state").exists(), "none was started");
}

#[test]
fn without_a_terminal_that_can_be_drawn_on_it_says_what_to_do() {
    let fake = daemon();
    let said =
        "banger: `banger top` needs a terminal to draw on; `banger vm stats --watch` prints lines instead";
    assert_eq!(fake.run(&["top"]).err, format!("{said}\n"));
    let mut terminal = Terminal::new(10, 120);
    let mut command = fake.banger(&["top"]);
    command.env("TERM", "dumb");
    let mut child = terminal.spawn(command);
    terminal.read_until(said);
    assert_eq!(child.wait().expect("ends").code(), Some(1));
}
