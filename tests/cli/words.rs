//! What is printed, in which order, to which stream, with which status.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use banger::proto::api::{Code, Event, Request, Unit};
use serde_json::json;

use crate::fake::{Fake, Ran, vm};

fn lister() -> Fake {
    Fake::start(|request, asked| match request {
        Request::VmList(_) => asked.done(json!([
            vm("dev", 0xabc, "running"),
            vm("web", 0xdef, "stopped"),
            vm("db", 0xabd, "failed_")
        ])),
        other => panic!("{other:?}"),
    })
}

fn two_vms() -> serde_json::Value {
    let mut dev = vm("dev", 0xabc, "running");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    dev["started_at"] = json!(now - 310);
    let tree = |path: &str| json!({ "guest_path": path, "source": "/src", "head": null, "branch": null, "prepared_at": 1 });
    dev["workspaces"] = json!([tree("/root/a"), tree("/root/b")]);
    json!([dev, vm("web", 0xdef, "stopped")])
}

#[test]
fn vms_are_listed_as_a_table_as_ids_and_as_json() {
    let fake = Fake::start(|_, asked| asked.done(two_vms()));
    let table = fake.run(&["ps"]);
    assert_eq!(table.code, Some(0), "{table:?}");
    let lines: Vec<&str> = table.out.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>().join(" "),
        "ID NAME STATE IMAGE IP VCPU MEM DISK WORKSPACE UPTIME"
    );
    let row = lines[1].split("  ").map(str::trim).filter(|c| !c.is_empty()).collect::<Vec<_>>();
    assert_eq!(
        row,
        ["000000000abc", "dev", "running", "debian", "-", "2", "1536 MiB", "8 GiB", "/root/b", "5 minutes"]
    );
    assert!(lines[2].ends_with("8 GiB  -          -"), "one that does not run: {}", lines[2]);
    assert_eq!(fake.run(&["vm", "list", "-q"]).out, "000000000abc\n000000000def\n");
    assert_eq!(fake.run(&["vm", "list", "--ids"]).out, "000000000abc\n000000000def\n");
    let json: serde_json::Value =
        serde_json::from_str(&fake.run(&["vm", "list", "--json"]).out).expect("JSON");
    let mut keys: Vec<&str> = json[0].as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    // Programs rely on these; help names them.
    assert_eq!(
        keys,
        [
            "address",
            "created_at",
            "directory",
            "expires_at",
            "id",
            "image",
            "image_name",
            "kernel",
            "name",
            "owner",
            "processes",
            "publish",
            "published",
            "running_on",
            "spec",
            "started_at",
            "state",
            "workspaces",
        ]
    );
}

#[test]
fn an_answer_that_makes_no_sense_is_one_sentence() {
    let ran = lister().run(&["vm", "list"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.starts_with("banger: bangerd gave an answer that this banger does not understand"),
        "{ran:?}"
    );
    let fake = Fake::start(|_, asked| asked.garbage(b"\x1b[2Jnonsense\n"));
    let ran = fake.run(&["vm", "list"]);
    assert!(ran.code == Some(1) && ran.err.lines().count() == 1 && !ran.err.contains('\x1b'), "{ran:?}");
    let fake = Fake::start(|_, asked| drop(asked));
    let ran = fake.run(&["vm", "list"]);
    assert!(ran.err.starts_with("banger: bangerd hung up without an answer"), "{ran:?}");
}

#[test]
fn text_from_elsewhere_cannot_act_on_the_terminal() {
    let fake = Fake::start(|_, asked| {
        let mut view = vm("dev", 1, "stopped");
        view["image_name"] = json!("\u{1b}[2J\u{9b}31mdebian\u{202e}");
        asked.event(Event::Stage { text: "pulling \u{1b}]0;x\u{7}".to_owned() });
        asked.event(Event::Note { text: "a\u{1b}[1m".to_owned() });
        asked.done(json!([view]));
    });
    for args in [&["vm", "list"][..], &["vm", "list", "--json"]] {
        let ran = fake.run(args);
        let all = ran.out + &ran.err;
        assert!(all.chars().all(|c| c == '\n' || !c.is_control()) && !all.contains('\u{202e}'), "{all:?}");
    }
}

#[test]
fn several_vms_are_done_in_the_order_of_first_mention_and_failures_are_listed() {
    let fake = Fake::start(|request, asked| match request {
        Request::VmList(_) => asked.done(two_vms()),
        Request::VmStop(stop) if stop.vm == "000000000abc" => {
            // The first one takes longer, and is still printed first.
            std::thread::sleep(std::time::Duration::from_millis(100));
            asked.done(vm("dev", 0xabc, "stopped"));
        }
        Request::VmStop(_) => asked.fail(Code::Failed, "cannot stop VM web: no"),
        other => panic!("{other:?}"),
    });
    let ran = fake.run(&["vm", "stop", "dev", "nope", "web", "000000000a", "dev"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), "dev\n"));
    let errors: Vec<&str> = ran.err.lines().collect();
    assert_eq!(
        errors,
        [
            "banger: there is no VM \"nope\"; `banger vm list` shows what there is",
            "banger: cannot stop VM web: no (op-00c0ffee)"
        ]
    );
    assert_eq!(fake.methods().iter().filter(|m| *m == "vm.stop").count(), 2, "each VM once");
}

#[test]
fn a_prefix_that_fits_two_is_refused_with_both() {
    let fake =
        Fake::start(|_, asked| asked.done(json!([vm("dev", 0xabc, "running"), vm("web", 0xabd, "stopped")])));
    let ran = fake.run(&["vm", "delete", "000000000ab"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("dev (000000000abc), web (000000000abd)"), "{ran:?}");
    assert_eq!(fake.methods(), ["vm.list"]);
}

#[test]
fn restart_is_stop_and_start_and_kill_does_not_ask() {
    let fake = Fake::start(|request, asked| match request {
        Request::VmList(_) => asked.done(two_vms()),
        Request::VmStop(_) | Request::VmStart(_) => asked.done(vm("dev", 0xabc, "stopped")),
        other => panic!("{other:?}"),
    });
    assert_eq!(fake.run(&["vm", "restart", "dev"]).out, "dev\n");
    assert_eq!(fake.methods(), ["vm.list", "vm.stop", "vm.start"]);
    assert_eq!(fake.run(&["vm", "kill", "dev"]).out, "dev\n");
    assert!(matches!(fake.seen().last(), Some(Request::VmStop(stop)) if stop.force));
}

#[test]
fn progress_on_a_pipe_is_plain_lines_on_stderr_and_nothing_with_q() {
    let fake = Fake::start(|request, asked| match request {
        Request::ImagePull(pull) => {
            asked.event(Event::Stage { text: format!("pulling {}", pull.reference) });
            for done in 0..100 {
                asked.event(Event::Progress { done: done << 20, total: 100 << 20, unit: Unit::Bytes });
            }
            asked.event(Event::Note { text: "a warning".to_owned() });
            asked.done(json!({
                "id": "ab".repeat(32), "names": ["debian:12"], "digest": null, "source": "s", "arch": "amd64",
                "bytes": 1, "created_at": 1, "config": {},
            }));
        }
        other => panic!("{other:?}"),
    });
    let ran = fake.run(&["image", "pull", "debian:12"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "debian:12\n"));
    assert_eq!(
        ran.err.lines().collect::<Vec<_>>(),
        [
            "pulling debian:12",
            "pulling debian:12: 25.0 MiB of 100.0 MiB",
            "pulling debian:12: 50.0 MiB of 100.0 MiB",
            "pulling debian:12: 75.0 MiB of 100.0 MiB",
            "note: a warning"
        ]
    );
    let ran = fake.run(&["image", "pull", "-q", "debian:12"]);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("debian:12\n", ""));
}

#[test]
fn an_image_from_stdin_travels_as_a_descriptor() {
    let fake = Fake::start(|request, asked| match request {
        Request::ImageImport(import) => {
            assert_eq!((import.path, import.name.as_deref()), (None, Some("x")));
            asked.fail(Code::BadRequest, "cannot import: it is no tar");
        }
        other => panic!("{other:?}"),
    });
    let mut child = fake
        .banger(&["image", "import", "-", "--name", "x"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawns");
    child.stdin.take().expect("a pipe").write_all(b"no tar").expect("writes");
    let ran = Ran::of(child.wait_with_output().expect("ends"));
    assert_eq!(ran.err, "banger: cannot import: it is no tar (op-00c0ffee)\n");
}

#[test]
fn paths_reach_the_daemon_whole() {
    let fake = Fake::start(|_, asked| asked.fail(Code::Failed, "seen"));
    fake.banger(&["image", "import", "./x.tar"]).current_dir("/usr").output().expect("runs");
    fake.banger(&["kernel", "import", "--from=lib"]).current_dir("/usr").output().expect("runs");
    let seen = fake.lines();
    assert_eq!(seen[0]["params"]["path"], "/usr/x.tar");
    assert_eq!(seen[1]["params"]["source"]["from"], "/usr/lib");
}

#[test]
fn bad_words_are_refused_without_a_daemon() {
    let fake = Fake::absent();
    let table: [(&[&str], &str); 18] = [
        (&["vm", "lst"], "there is no command `banger vm lst`; did you mean `banger vm list`?"),
        (&["vm", "run", "--memory", "7X"], "--memory: \"7X\" is no size; write it like 512M or 4G"),
        (
            &["vm", "run", "--name", "Dev_1"],
            "--name: \"Dev_1\" cannot name a VM; use 1 to 32 of a-z, 0-9 and -, starting with a letter and not ending with -",
        ),
        (&["vm", "run", "--vcpu", "many"], "--vcpu: \"many\" is no number of CPUs; write it like 2"),
        (&["vm", "run", "--vmm", "xen"], "--vmm: \"xen\" is no VMM; choose auto, firecracker or qemu"),
        (&["vm", "run", "--name", "a", "--name", "b"], "--name: it is given twice"),
        (
            &["vm", "run", "-p", "80"],
            "--publish: \"80\" publishes nothing; write it like 8080:80, 0.0.0.0:8080:80 or 5353:53/udp, this host's port first",
        ),
        (
            &["vm", "create", "--lan"],
            "--lan opens private networks on the way out that --nat gives; ask for --nat too",
        ),
        (&["vm", "set", "dev", "--nat", "yes"], "--nat: \"yes\" is neither; write on or off"),
        (&["vm", "set", "dev"], "nothing is to be changed; `banger vm set --help` shows what can be"),
        (&["vm", "run", "-d", "--rm"], "-d leaves the VM running and --rm deletes it; choose one of them"),
        (
            &["vm", "run", "-d", "--", "ls"],
            "-d runs no command; start the VM with -d, then run the command with `banger vm exec`",
        ),
        (&["vm", "run", "-e", "=x"], "-e \"=x\" has no name; write it like -e NAME=value"),
        (
            &["vm", "exec", "-t", "dev", "--", "ls"],
            "a pseudo-terminal needs a terminal on this side, and stdin or stdout is none; leave -t out",
        ),
        (&["vm", "cp", "a", "b"], "neither side is in a VM; write one of them as VM:path"),
        (
            &["vm", "cp", "a:/x", "b:/y"],
            "cp copies between this host and one VM; copy here first, then to the other VM",
        ),
        (
            &["kernel", "import"],
            "say where the kernel comes from with one of --deb FILE, --from DIR and --host",
        ),
        (&["completion", "tcsh"], "shell: there is no completion for \"tcsh\"; choose bash, zsh or fish"),
    ];
    for (args, want) in table {
        let ran = fake.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{args:?}");
        assert_eq!(ran.err, format!("banger: {want}\n"), "{args:?}");
    }
    assert_eq!(std::fs::read_dir(fake.root()).expect("lists").count(), 0, "no daemon was started");
}

#[test]
fn help_goes_to_stdout_with_status_zero_and_needs_no_daemon() {
    let fake = Fake::absent();
    for args in [&[][..], &["help"], &["vm"], &["vm", "run", "--help"], &["-h"], &["help", "vm", "cp"]] {
        let ran = fake.run(args);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{args:?}");
        assert!(ran.out.starts_with("Usage: banger"), "{args:?}");
    }
    assert_eq!(std::fs::read_dir(fake.root()).expect("lists").count(), 0);
}

#[test]
fn a_daemon_that_does_not_run_is_not_started_to_look_at_it() {
    let fake = Fake::absent();
    let ran = fake.run(&["daemon", "status"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.err, "banger: bangerd is not running; any command that needs it starts it\n");
    assert_eq!(fake.run(&["daemon", "stop"]).code, Some(0));
    assert_eq!(std::fs::read_dir(fake.root()).expect("lists").count(), 0);
}

#[test]
fn a_reader_that_goes_away_is_no_error_to_complain_about() {
    let fake = Fake::start(|_, asked| {
        let many: Vec<_> = (0..20_000).map(|n| vm("dev", n, "stopped")).collect();
        asked.done(json!(many));
    });
    let mut child =
        fake.banger(&["ps"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawns");
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().expect("ends"));
    assert_eq!((ran.code, ran.err.as_str()), (Some(141), ""));
}

#[test]
#[ignore = "needs root, to give the socket's directory to somebody else"]
fn a_socket_of_somebody_else_is_not_talked_to() {
    let fake = Fake::start(|_, _| panic!("it was talked to"));
    let run = fake.root().join("run");
    std::os::unix::fs::chown(run.join("bangerd.sock"), Some(12_345), None).expect("gives away");
    let ran = fake.run(&["vm", "list"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("bangerd.sock belongs to uid 12345, not to you"), "{ran:?}");
    std::os::unix::fs::chown(&run, Some(12_345), None).expect("gives away");
    assert!(fake.run(&["vm", "list"]).err.contains("run belongs to uid 12345, not to you"));
}

#[test]
fn a_daemon_that_cannot_start_is_explained() {
    let fake = Fake::absent();
    std::fs::create_dir(fake.root().join("config")).expect("creates");
    std::fs::write(fake.root().join("config/config.toml"), "[[[ no TOML").expect("writes");
    let ran = fake.run(&["vm", "list"]);
    assert_eq!((ran.code, ran.err.lines().count()), (Some(1), 1), "{ran:?}");
    let config = fake.root().join("config/config.toml");
    let want = format!("banger: bangerd does not start: {}:1:", config.display());
    assert!(ran.err.starts_with(&want), "{ran:?}");
    let log = fake.root().join("state/bangerd.log");
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("stats").permissions().mode() & 0o777;
    assert_eq!((mode(&log), mode(&fake.root().join("state"))), (0o600, 0o700));
}

#[test]
fn what_is_published_and_changed_reaches_the_daemon_whole() {
    let fake = Fake::start(|request, asked| match request {
        Request::VmList(_) => asked.done(two_vms()),
        Request::VmSet(_) => {
            asked.event(Event::Stage { text: "changing".to_owned() });
            asked.event(Event::Note {
                text: "the memory changes when it is started the next time".to_owned(),
            });
            asked.done(vm("dev", 0xabc, "running"));
        }
        _ => asked.fail(Code::Failed, "seen"),
    });
    let args = ["vm", "create", "--nat", "--lan", "-p", "8080:80", "--publish=[::1]:53:53/udp"];
    assert_eq!(fake.run(&args).code, Some(1));
    let set = ["vm", "set", "dev", "--vcpu", "2", "--nat", "off", "--unpublish", "8080", "-p", "0:81"];
    let ran = fake.run(&set);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "dev\n"), "{ran:?}");
    let several = fake.run(&["vm", "set", "dev", "web", "--memory", "1G"]);
    assert_eq!((several.code, several.out.as_str()), (Some(0), "dev\nweb\n"));
    let note = "note: the memory changes when it is started the next time";
    assert_eq!(several.err.lines().collect::<Vec<_>>(), [note, note], "of each of them");
    assert_eq!(fake.run(&["vm", "set", "-q", "dev", "web", "--memory", "1G"]).err, "");
    let seen = fake.lines();
    let of = |method: &str| {
        let all = &seen;
        all.iter().find(|r| r["method"] == method).expect("was asked")["params"].clone()
    };
    let create = of("vm.create");
    assert_eq!((&create["wish"]["nat"], &create["wish"]["lan"]), (&json!(true), &json!(true)));
    let port = |address: &str, host: u16, guest: u16, protocol: &str| json!({ "address": address, "host": host, "guest": guest, "protocol": protocol });
    assert_eq!(create["publish"], json!([port("127.0.0.1", 8080, 80, "tcp"), port("::1", 53, 53, "udp")]));
    let set = of("vm.set");
    assert_eq!((&set["vcpu"], &set["memory_mib"], &set["nat"]), (&json!(2), &json!(null), &json!(false)));
    assert_eq!(set["publish"], json!([port("127.0.0.1", 0, 81, "tcp")]));
    assert_eq!(
        set["unpublish"],
        json!([{ "address": null, "host": 8080, "guest": null, "protocol": "tcp" }])
    );
}

#[test]
fn ports_are_a_table_of_all_vms_that_run_or_of_those_named() {
    let port = |protocol: &str, port: u16, program: Option<&str>, reach: &[&str]| {
        let address = program.map(|_| "0.0.0.0");
        let scheme = program.filter(|_| port == 80).map(|_| "https");
        json!({
            "protocol": protocol, "address": address, "port": port, "pid": 1, "program": program, "reach": reach,
            "scheme": scheme
        })
    };
    let fake = Fake::start(move |request, asked| match request {
        Request::VmList(_) => asked.done(two_vms()),
        Request::VmPorts(ask) if ask.vm == "000000000abc" && ask.probe => asked.done(json!([
            port("tcp", 80, Some("a\u{1b}[2J"), &["127.0.0.1:8080", "dev.vm:80"]),
            port("udp", 53, Some("dns"), &[]),
            port("tcp", 90, None, &["127.0.0.1:9090"]),
        ])),
        Request::VmPorts(_) => asked.fail(Code::NotRunning, "vm web is stopped"),
        other => panic!("{other:?}"),
    });
    let table = "NAME  PROTO  PORT  PROGRAM            SCHEME  REACH\n\
                 dev   tcp    80    a\\x1b[2J           https   https://127.0.0.1:8080, https://dev.vm:80\n\
                 dev   udp    53    dns                -       -p to publish\n\
                 dev   tcp    90    (nothing listens)  -       127.0.0.1:9090\n";
    let ran = fake.run(&["vm", "ports"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), table, ""));
    let ran = fake.run(&["vm", "ports", "web", "dev"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), table), "the others are shown all the same");
    assert_eq!(ran.err, "banger: vm web is stopped (op-00c0ffee)\n");
    let ran = fake.run(&["vm", "ports", "nope", "web", "--json"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.lines().count()), (Some(1), "[]\n", 2), "{ran:?}");
    let json: serde_json::Value =
        serde_json::from_str(&fake.run(&["vm", "ports", "dev", "--json"]).out).expect("JSON");
    let mut keys: Vec<&str> = json[0].as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["address", "pid", "port", "program", "protocol", "reach", "scheme", "vm"]);
}
