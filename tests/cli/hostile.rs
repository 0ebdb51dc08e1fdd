//! Text that a guest, an image, a registry or a work tree chose is shown, never obeyed, whichever command shows it (FAULTS A19):
//! a daemon in which everything that can be such text is hostile, and every command that shows something.

use std::io::Write;

use banger::image::config::ImageConfig;
use banger::proto::api::{Code, Event, Happening, Request, Unit, What};
use banger::proto::frame::Kind;
use serde_json::{Value, json};

use crate::fake::{Agent, Fake, vm};
use crate::terminal::Terminal;

/// Clears the screen, sets the title, is red by one character, writes backwards, goes back, and deletes.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;own\u{7}\u{9b}31m\u{202e}\r\u{8}x\u{7f}\n";

fn view(state: &str) -> Value {
    let mut view = vm("dev", 0xabc, state);
    view["workspaces"] = json!([{ "guest_path": HOSTILE, "source": HOSTILE, "head": HOSTILE, "branch": HOSTILE, "prepared_at": 1 }]);
    for key in ["image_name", "image", "kernel", "directory", "address", "problem"] {
        view[key] = json!(HOSTILE);
    }
    view["started_at"] = json!(1);
    view["running_on"] = json!({ "vmm": HOSTILE, "accel": HOSTILE });
    view["published"] =
        json!([{ "address": "127.0.0.1", "host": 1, "guest": 1, "protocol": "tcp", "problem": HOSTILE }]);
    view
}

fn failed() -> Value {
    let mut view = view("failed");
    view["reason"] = json!(HOSTILE);
    view
}

fn image() -> Value {
    json!({
        "id": HOSTILE, "names": [HOSTILE], "digest": HOSTILE, "source": HOSTILE, "arch": HOSTILE, "bytes": 1,
        "created_at": 1, "config": ImageConfig { env: vec![HOSTILE.to_owned()], ..ImageConfig::default() },
        "kernel": HOSTILE, "path": HOSTILE, "disk_bytes": 1, "used_by": [HOSTILE], "problem": HOSTILE,
    })
}

fn kernel() -> Value {
    json!({
        "name": HOSTILE, "version": HOSTILE, "arch": HOSTILE, "blake3": HOSTILE, "source": HOSTILE, "snapshot": true,
        "modules": true, "imported_at": 1, "default": true, "disk_bytes": 1,
    })
}

fn offer() -> Value {
    json!({
        "name": HOSTILE, "distro": HOSTILE, "arch": HOSTILE, "kernel": HOSTILE, "description": HOSTILE, "version": HOSTILE,
        "source": HOSTILE, "bytes": 1, "state": "available", "catalog": HOSTILE,
    })
}

fn finding() -> Value {
    json!([{ "subject": HOSTILE, "verdict": "fail", "found": HOSTILE, "advice": HOSTILE }])
}

/// What a daemon says whose guests, images and registries are all hostile.
fn answer(request: &Request) -> Option<Value> {
    Some(match request {
        Request::DaemonStatus(_) => json!({
            "pid": 1, "version": HOSTILE, "commit": HOSTILE, "built": HOSTILE, "started_at": 1, "socket": HOSTILE,
            "state_dir": HOSTILE, "running_vms": 1, "dns": [{ "address": HOSTILE, "problem": HOSTILE }], "dns_suffix": HOSTILE,
        }),
        Request::DaemonDoctor(_) | Request::VmHealth(_) => finding(),
        Request::VmList(_) => {
            let mut other = failed();
            other["id"] = json!("000000000def");
            other["name"] = json!("web");
            json!([view("running"), other])
        }
        Request::VmShow(ask) if ask.vm == "web" => failed(),
        Request::VmShow(_)
        | Request::VmCreate(_)
        | Request::VmStart(_)
        | Request::VmStop(_)
        | Request::VmWorkspace(_)
        | Request::VmSet(_) => view("running"),
        Request::VmDelete(_) => json!(null),
        Request::VmPing(_) => json!({ "name": HOSTILE, "took_us": 1, "version": HOSTILE, "kernel": HOSTILE }),
        Request::VmStats(_) => json!({ "guest": null, "vmm": null, "problem": HOSTILE }),
        Request::VmPorts(_) => json!([{
            "protocol": "tcp", "address": "0.0.0.0", "port": 1, "pid": 1, "program": HOSTILE, "reach": [HOSTILE],
            "scheme": "http",
        }]),
        Request::ImageList(_) => json!([image()]),
        Request::ImageShow(_)
        | Request::ImagePull(_)
        | Request::ImageImport(_)
        | Request::ImageRegister(_)
        | Request::ImagePromote(_)
        | Request::ImageTag(_) => image(),
        Request::ImageDelete(_) | Request::KernelRemove(_) => json!(null),
        Request::ImageCatalog(_) | Request::KernelCatalog(_) => json!([offer()]),
        Request::ImageCacheList(_) => {
            json!([{ "digest": HOSTILE, "bytes": 1, "fetched_at": 1, "in_use": true }])
        }
        Request::ImageCachePrune(_) => json!({ "blobs": 1, "bytes": 1, "directory": HOSTILE }),
        Request::KernelList(_) => json!([kernel()]),
        Request::KernelShow(_)
        | Request::KernelImport(_)
        | Request::KernelPull(_)
        | Request::KernelDefault(_) => kernel(),
        Request::BundleInstall(_) => json!({
            "banger": HOSTILE, "sha256": HOSTILE,
            "parts": [{ "kind": "image", "name": HOSTILE, "bytes": 1, "state": "installed" }],
        }),
        _ => return None,
    })
}

fn daemon() -> Fake {
    Fake::start(|request, asked| {
        let text = || HOSTILE.to_owned();
        asked.event(Event::Stage { text: text() });
        asked.event(Event::Progress { done: 16 << 20, total: 16 << 20, unit: Unit::Bytes });
        asked.event(Event::Note { text: text() });
        if let Some(answer) = answer(&request) {
            return asked.done(answer);
        }
        match request {
            Request::DaemonEvents(_) => {
                let words = Happening {
                    id: Some(text()),
                    name: Some(text()),
                    op: Some(text()),
                    method: Some(text()),
                    detail: Some(text()),
                    ..Happening::new(1, What::OperationFailed)
                };
                asked.event(Event::Happened(Box::new(words)));
            }
            Request::VmLogs(_) => {
                let mut log = tempfile::tempfile().expect("a file");
                log.write_all(format!("{HOSTILE}{HOSTILE}").as_bytes()).expect("writes");
                asked.done_with(json!(null), log.into());
            }
            Request::VmPrepare(_) | Request::VmChanges(_) => {
                let (near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
                let placed = json!({ "head": HOSTILE, "branch": HOSTILE });
                asked.done_with(json!({ "placed": placed, "head": HOSTILE, "branch": HOSTILE }), near.into());
                let mut agent = Agent(far);
                agent.say(Kind::Failed, HOSTILE.as_bytes());
                while agent.hear().is_some() {}
            }
            // The guest gives up in the middle of it, and says why.
            Request::VmExec(_) | Request::VmRead(_) | Request::VmWrite(_) => {
                let (near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
                asked.done_with(json!(null), near.into());
                let mut agent = Agent(far);
                agent.say(Kind::Failed, HOSTILE.as_bytes());
                while agent.hear().is_some() {}
            }
            other => panic!("{other:?}"),
        }
    })
}

#[track_caller]
fn assert_harmless(what: &[&str], text: &str) {
    // What a completion script reads has a tab of ours between the word and what is said of it.
    let ours = |c: char| c == '\n' || (c == '\t' && what[0] == "complete");
    let bad = text.chars().find(|c| (c.is_control() && !ours(*c)) || *c == '\u{202e}');
    assert_eq!(bad, None, "{what:?}: {text:?}");
}

const COMMANDS: &[&str] = &[
    "ps",
    "vm list --json",
    "vm show dev",
    "vm show web",
    "vm show dev --json",
    "vm stats",
    "vm stats --json",
    "vm ping dev",
    "vm health dev",
    "vm health dev --json",
    "vm ports",
    "vm ports --json",
    "vm create",
    "vm start dev",
    "vm stop dev web",
    "vm restart dev",
    "vm delete dev",
    "vm set dev --vcpu 1",
    "vm run -- true",
    "vm run -d",
    "vm exec dev -- true",
    "vm cp dev:/x /tmp",
    "vm cp Cargo.toml dev:/x",
    "events",
    "events --json",
    "image list",
    "image list --json",
    "image list --available",
    "image show x",
    "image show x --json",
    "image pull x",
    "image tag x y",
    "image delete x",
    "image cache list",
    "image cache prune",
    "kernel list",
    "kernel list --json",
    "kernel list --available",
    "kernel show x",
    "kernel show x --json",
    "kernel pull x",
    "kernel default x",
    "kernel rm x",
    "bundle install Cargo.toml",
    "bundle install Cargo.toml --json",
    "vm workspace status dev",
    "vm workspace status dev --json",
    "vm workspace diff dev",
    "vm workspace export dev",
    "vm workspace prepare dev --copy tests/bench",
    "vm ssh dev -- true",
    "vm prune -f",
    "config show",
    "config show --json",
    "daemon status",
    "daemon status --json",
    "doctor",
    "doctor --json",
    "complete -- vm start ",
    "complete -- image show ",
    "complete -- kernel show ",
];

#[test]
fn no_command_obeys_what_a_guest_an_image_or_a_registry_says() {
    let fake = daemon();
    let mut shown = 0;
    for line in COMMANDS {
        let args: Vec<&str> = line.split(' ').collect();
        let mut ran = fake.run(&args);
        // ssh ends its own lines so, and with this status.
        let is_ssh = line.starts_with("vm ssh ");
        if is_ssh {
            ran.err = ran.err.replace("\r\n", "\n");
        }
        assert_harmless(&args, &ran.out);
        assert_harmless(&args, &ran.err);
        let usage = ran.err.contains("has no option") || ran.err.contains("there is no command");
        let is_one = |code| code < 100 || (is_ssh && code == 255);
        assert!(!usage && ran.code.is_some_and(is_one), "{line}: {ran:?}");
        shown += usize::from(format!("{}{}", ran.out, ran.err).contains("[2J"));
    }
    assert!(shown > COMMANDS.len() - 12, "only {shown} have shown any of it");
}

#[test]
fn no_failure_is_obeyed_either() {
    let fake = Fake::start(|_, asked| asked.fail_with(Code::Failed, HOSTILE, &[HOSTILE, HOSTILE]));
    // What is not the daemon's to tell, or is better told in part.
    let own = ["complete", "doctor", "config"];
    for line in COMMANDS.iter().filter(|line| !own.iter().any(|word| line.starts_with(word))) {
        let args: Vec<&str> = line.split(' ').collect();
        let ran = fake.run(&args);
        assert_harmless(&args, &ran.out);
        assert_harmless(&args, &ran.err);
        assert!(ran.err.contains("\\x1b[2J"), "{line}: {ran:?}");
    }
}

#[test]
fn a_log_on_a_terminal_is_shown_and_not_obeyed() {
    let fake = daemon();
    let mut terminal = Terminal::new(24, 200);
    let mut child = terminal.spawn(fake.banger(&["vm", "logs", "dev"]));
    let seen = terminal.read_until("x\\x7f\r\n");
    child.wait().expect("ends");
    assert!(!seen.contains('\u{1b}') && !seen.contains('\u{9b}') && !seen.contains('\u{8}'), "{seen:?}");
    assert!(seen.starts_with("\\x1b[2J\\x1b]0;own\\x07\\x9b31m\\u{202e}\\r\\x08x\\x7f"), "{seen:?}");
}

#[test]
fn a_table_that_is_drawn_again_and_again_obeys_nobody() {
    let fake = daemon();
    let mut terminal = Terminal::new(12, 240);
    let mut child = terminal.spawn(fake.banger(&["top"]));
    let mut seen = terminal.read_until("> dev");
    seen += &terminal.read_until("\\x9b31m");
    // Its console, and back.
    terminal.person.write_all(b"l").expect("types");
    seen += &terminal.read_until("x\\x7f");
    terminal.person.write_all(b"qq").expect("types");
    seen += &terminal.read_until("\x1b[?1049l");
    assert_eq!(child.wait().expect("ends").code(), Some(0));
    // Of its own it clears the screen once, colours, and goes to the beginning of lines.
    assert_eq!(seen.matches("\x1b[2J").count(), 1, "{seen:?}");
    for bad in ["\x1b]", "\u{9b}", "\u{202e}", "\u{8}", "\u{7}"] {
        assert!(!seen.contains(bad), "{bad:?}: {seen:?}");
    }
}
