//! A hostile client, which is the owner: whoever took over his account can connect. Each of its requests is refused with a reason,
//! and nothing is changed: what `ip`, `nft`, /proc and the files show is compared before and after each.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use banger::proto::root::{Answer, Code, Request};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
use serde_json::{Value, json};

use crate::client::{Client, as_user};
use crate::life::{A, B};
use crate::rig::{OWNER, Rig, create_tap, remove_vm, run};
use crate::world::{World, files};

/// A tap of that name is somebody else's; of the other one, too, though it bears our stamp.
const FOREIGN: &str = "0000000000f0";
const STAMPED: &str = "0000000000f1";
const UNKNOWN: &str = "0000000000ee";

struct Case {
    name: String,
    /// What is sent, piece by piece, and how many descriptors go with it.
    pieces: Vec<(Vec<u8>, usize)>,
    ends: End,
    /// What the refusal says.
    want: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Waits,
    /// Shuts its writing half.
    Stops,
    /// Goes before it is answered.
    Leaves,
}

fn line(name: impl Into<String>, bytes: impl AsRef<[u8]>, want: &'static str) -> Case {
    let bytes = [bytes.as_ref(), b"\n"].concat();
    Case { name: name.into(), pieces: vec![(bytes, 0)], ends: End::Waits, want }
}

fn says(name: impl Into<String>, request: &Value, want: &'static str) -> Case {
    line(name, request.to_string(), want)
}

fn with(mut request: Value, key: &str, value: Value) -> Value {
    request[key] = value;
    request
}

fn tap(vm: &str) -> Value {
    json!({"op": "create-tap", "vm": vm, "port": {"slot": 77, "nat": false, "lan": false, "direct": false}})
}

fn in_port(key: &str, value: Value) -> Value {
    let mut request = tap(UNKNOWN);
    request["port"][key] = value;
    request
}

fn launch(vm: &str) -> Value {
    json!({
        "op": "launch-vm", "vm": vm, "name": "dev", "vmm": "qemu-tcg", "vsock": "device", "vcpu": 1, "memory_mib": 256,
        "drives": ["read-only", "disposable"], "root": {"snapshot": {"sectors": 2048}}, "modules": false, "network": true,
        "ready_port": 1001
    })
}

/// Requests that are none.
fn malformed() -> Vec<Case> {
    let bad = "this is no request: ";
    let deep = [vec![b'['; 30_000], vec![b']'; 30_000]].concat();
    let deep_value = format!(
        r#"{{"op":"create-tap","vm":"{UNKNOWN}","port":{}1{}}}"#,
        "[".repeat(20_000),
        "]".repeat(20_000)
    );
    vec![
        line("an empty line", "", bad),
        line("no JSON", "GET / HTTP/1.1", bad),
        line("a NUL", b"\0", bad),
        line("a NUL in a word", b"{\"op\":\"sta\0tus\"}", bad),
        line("no UTF-8", b"{\"op\":\"\xff\xfe\"}", bad),
        line("a string", "\"status\"", bad),
        line("a list", "[\"status\"]", bad),
        line("a number", "1e999", bad),
        line("an unknown op", r#"{"op":"exec"}"#, "unknown variant `exec`"),
        line("an op of another case", r#"{"op":"Status"}"#, "unknown variant `Status`"),
        line("no op", r#"{"vm":"00000000000a"}"#, bad),
        line("an op that is a number", r#"{"op":9}"#, bad),
        line("an op that is a list", r#"{"op":["status"]}"#, bad),
        line("two ops", r#"{"op":"status","op":"remove-vm","vm":"00000000000a"}"#, bad),
        line("two ids", format!(r#"{{"op":"remove-vm","vm":"{UNKNOWN}","vm":"{A}"}}"#), bad),
        line("deep JSON", deep, bad),
        line("deep JSON in a field", deep_value, bad),
        line("half an object", r#"{"op":"status""#, bad),
        says("a path with status", &json!({"op": "status", "path": "/etc/shadow"}), "it says more"),
        says("an id with clear-resolver", &json!({"op": "clear-resolver", "vm": A}), "it says more"),
        says(
            "an interface's name",
            &json!({"op": "delete-tap", "vm": UNKNOWN, "tap": "lo"}),
            "unknown field",
        ),
        says("an argv", &with(launch(A), "argv", json!(["/bin/sh"])), "unknown field"),
    ]
}

/// Every field, with what would lead elsewhere, and with other types.
fn fields() -> Vec<Case> {
    let bad = "this is no request: ";
    let mut cases = vec![];
    for path in [
        "../../../etc",
        "/etc/passwd",
        "..",
        "a/../../b",
        "00000000000a/..",
        "lo",
        "eth0\n",
        "00000000000A",
        "",
    ] {
        let path = json!(path);
        for op in ["delete-tap", "remove-vm"] {
            cases.push(says(format!("{op} of {path}"), &json!({"op": op, "vm": path}), bad));
        }
        cases.push(says(format!("create-tap of {path}"), &with(tap(A), "vm", path.clone()), bad));
    }
    let dots = json!("../..");
    let nat = json!({"op": "set-nat", "vm": dots, "nat": true, "lan": true});
    cases.push(says("set-nat of ..", &nat, bad));
    cases.push(says("signal-vm of ..", &json!({"op": "signal-vm", "vm": dots, "signal": "kill"}), bad));
    cases.push(says("signal ..", &json!({"op": "signal-vm", "vm": A, "signal": dots}), bad));
    cases.push(says("signal 9", &json!({"op": "signal-vm", "vm": A, "signal": 9}), bad));
    cases.push(says("subnet ..", &json!({"op": "ensure-bridge", "subnet": dots, "dns_port": 42069}), bad));
    for key in [
        "vm",
        "name",
        "vmm",
        "vsock",
        "vcpu",
        "memory_mib",
        "drives",
        "root",
        "modules",
        "network",
        "ready_port",
    ] {
        cases.push(says(format!("launch-vm with {key} .."), &with(launch(A), key, dots.clone()), bad));
    }
    for (key, value) in [
        ("slot", json!("2")),
        ("slot", json!(-1)),
        ("slot", json!(65536)),
        ("slot", json!(2.5)),
        ("slot", json!(null)),
        ("slot", json!({"slot": 2})),
        ("nat", json!("yes")),
        ("nat", json!(1)),
        ("direct", json!("../..")),
    ] {
        cases.push(says(format!("{key} {value}"), &in_port(key, value), bad));
    }
    let huge = "9".repeat(400);
    cases.push(line("a huge number", format!(r#"{{"op":"set-resolver","dns_port":{huge}}}"#), bad));
    cases.push(line("a huge exponent", r#"{"op":"set-resolver","dns_port":1e400}"#, bad));
    cases.push(says("65536 as a port", &json!({"op": "set-resolver", "dns_port": 65536}), bad));
    cases.push(says("an id as a number", &json!({"op": "remove-vm", "vm": 10}), bad));
    cases.push(says("256 vCPUs", &with(launch(A), "vcpu", json!(256)), bad));
    for subnet in
        ["8.8.8.0/24", "10.0.0.1/8", "172.16.0.0/24", "127.0.0.1/24", "0.0.0.0/0", "fe80::1/64", "172.16.0.1"]
    {
        let request = json!({"op": "ensure-bridge", "subnet": subnet, "dns_port": 42069});
        cases.push(says(format!("subnet {subnet}"), &request, bad));
    }
    cases
}

/// Requests that are well made, and not to be done.
fn not_to_be_done() -> Vec<Case> {
    let remove = |vm| json!({"op": "remove-vm", "vm": vm});
    vec![
        says(
            "another subnet under VMs",
            &json!({"op": "ensure-bridge", "subnet": "10.77.0.1/24", "dns_port": 42069}),
            "VMs are on the bridge",
        ),
        says("DNS at port 53", &json!({"op": "set-resolver", "dns_port": 53}), "port 53 is root's"),
        says(
            "DNS at port 0",
            &json!({"op": "ensure-bridge", "subnet": "172.16.0.1/24", "dns_port": 0}),
            "port 0 is root's",
        ),
        says("the network's own address", &in_port("slot", json!(0)), "no guest of"),
        says("the gateway's address", &in_port("slot", json!(1)), "no guest of"),
        says("the broadcast address", &in_port("slot", json!(255)), "no guest of"),
        says("an address outside", &in_port("slot", json!(65535)), "no guest of"),
        says("another VM's address", &in_port("slot", json!(2)), "is VM 00000000000a's"),
        says("a tap twice", &tap(A), "has its tap already"),
        says("somebody else's tap", &tap(FOREIGN), "exists and is not"),
        says("deleting somebody else's tap", &json!({"op": "delete-tap", "vm": FOREIGN}), "there is no VM"),
        says("removing somebody else's VM", &remove(FOREIGN), "there is no VM"),
        says("deleting a tap with our stamp", &json!({"op": "delete-tap", "vm": STAMPED}), "there is no VM"),
        says("removing a VM with our stamp", &remove(STAMPED), "there is no VM"),
        says("removing an unknown VM", &remove(UNKNOWN), "there is no VM"),
        says(
            "nat for an unknown VM",
            &json!({"op": "set-nat", "vm": UNKNOWN, "nat": true, "lan": true}),
            "there is no VM",
        ),
        says(
            "a signal to an unknown VM",
            &json!({"op": "signal-vm", "vm": UNKNOWN, "signal": "kill"}),
            "there is no VM",
        ),
        says(
            "a signal to one that was not launched",
            &json!({"op": "signal-vm", "vm": A, "signal": "kill"}),
            "has not been launched",
        ),
    ]
}

/// Lines that are too long, too slow, too many, or only a part of one.
fn lines() -> Vec<Case> {
    let status = br#"{"op":"status"}"#.to_vec();
    let padded = |length: usize| {
        let mut line = status.clone();
        line.resize(length, b' ');
        line
    };
    let pieces = |pieces: &[&[u8]]| pieces.iter().map(|piece| (piece.to_vec(), 0)).collect::<Vec<_>>();
    let slow = "no whole request came within 5 seconds";
    vec![
        line("a line of 64 KiB and one byte", padded(64 << 10), "the request is too long"),
        Case {
            name: "an endless line".to_owned(),
            pieces: vec![(vec![b'{'; 1 << 20], 0)],
            ends: End::Waits,
            want: "the request is too long",
        },
        line("two lines", [&status[..], b"\n", &status].concat(), "more than one line came"),
        line("something after the line", [&status[..], b"\n\0"].concat(), "more than one line came"),
        Case { name: "nothing".to_owned(), pieces: vec![], ends: End::Waits, want: slow },
        Case { name: "half a line".to_owned(), pieces: pieces(&[b"{\"op\":"]), ends: End::Waits, want: slow },
        Case {
            name: "a byte each second".to_owned(),
            pieces: status.iter().map(|byte| (vec![*byte], 0)).collect(),
            ends: End::Waits,
            want: slow,
        },
        Case {
            name: "half a line, then no more".to_owned(),
            pieces: pieces(&[b"{\"op\":"]),
            ends: End::Stops,
            want: "the request ended before its line did",
        },
        Case {
            name: "nothing, then no more".to_owned(),
            pieces: vec![],
            ends: End::Stops,
            want: "the request ended before its line did",
        },
        Case {
            // To this one nothing can be said.
            name: "half a line, then gone".to_owned(),
            pieces: pieces(&[b"{\"op\":"]),
            ends: End::Leaves,
            want: "",
        },
    ]
}

fn with_descriptors() -> Vec<Case> {
    let status = b"{\"op\":\"status\"}\n".to_vec();
    let ends = End::Waits;
    let launch = |vm| format!("{}\n", launch(vm)).into_bytes();
    let case = |name: &str, pieces, want| Case { name: name.to_owned(), pieces, ends, want };
    vec![
        case(
            "a descriptor with status",
            vec![(status.clone(), 1)],
            "1 descriptors came with the request, which takes 0",
        ),
        case("16 descriptors with status", vec![(status.clone(), 16)], "16 descriptors came"),
        case("17 descriptors", vec![(status.clone(), 17)], "more than 16 descriptors came"),
        case("253 descriptors", vec![(status.clone(), 253)], "more than 16 descriptors came"),
        case(
            "a descriptor later than the first byte",
            vec![(b"{\"op\":".to_vec(), 0), (b"\"status\"}\n".to_vec(), 1)],
            "with the first byte",
        ),
        case(
            "descriptors with bytes that are no line",
            vec![(vec![b'x'; 9], 16), (b"\n".to_vec(), 0)],
            "this is no request",
        ),
        case(
            "a launch without descriptors",
            vec![(launch(A), 0)],
            "0 descriptors came with the request, which takes 7",
        ),
        case(
            "a launch with one too many",
            vec![(launch(A), 8)],
            "8 descriptors came with the request, which takes 7",
        ),
        case("a launch of an unknown VM", vec![(launch(UNKNOWN), 7)], "there is no VM"),
        case("a launch with the wrong kinds", vec![(launch(A), 7)], "cannot launch VM"),
    ]
}

/// Descriptors of every kind: a directory, a device, a socket that listens, both ends of one, an event, nameless memory, a path.
fn kinds(rig: &Rig) -> Vec<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let (one, other) = UnixStream::pair().expect("a pair");
    let listener = UnixListener::bind(rig.path().join("run/theirs.sock")).expect("listens");
    std::fs::remove_file(rig.path().join("run/theirs.sock")).expect("removes");
    vec![
        open("/", flags, Mode::empty()).expect("opens"),
        open("/dev/null", flags | OFlags::RDWR, Mode::empty()).expect("opens"),
        OwnedFd::from(listener),
        OwnedFd::from(one),
        OwnedFd::from(other),
        eventfd(0, EventfdFlags::CLOEXEC).expect("an event"),
        memfd_create("theirs", MemfdFlags::CLOEXEC).expect("memory"),
        open("/etc/shadow", flags | OFlags::PATH, Mode::empty()).expect("opens"),
    ]
}

/// What came back.
fn play(rig: &Rig, case: &Case, kinds: &[OwnedFd]) -> String {
    let mut client = Client::connect(OWNER, &rig.socket()).expect("connects");
    let slow = case.pieces.len() > 10;
    for (bytes, descriptors) in &case.pieces {
        if *descriptors == 0 {
            client.send(bytes);
        } else {
            let fds: Vec<BorrowedFd<'_>> = kinds.iter().cycle().take(*descriptors).map(AsFd::as_fd).collect();
            client.send_with(bytes, &fds);
        }
        if case.pieces.len() > 1 {
            std::thread::sleep(if slow { Duration::from_secs(1) } else { Duration::from_millis(50) });
        }
    }
    match case.ends {
        End::Waits => client.answer(),
        End::Stops => {
            client.no_more();
            client.answer()
        }
        End::Leaves => String::new(),
    }
}

/// A bridge with two VMs, and links that are somebody else's.
fn stage() -> Rig {
    let rig = Rig::bridged();
    assert_eq!(rig.ask(&create_tap(A, 2)), Answer::Done);
    assert_eq!(rig.ask(&create_tap(B, 3)), Answer::Done);
    run("ip", &format!("tuntap add bgr{FOREIGN} mode tap"));
    run("ip", &format!("link add bgr{STAMPED} type bridge"));
    run("ip", &format!("link set bgr{STAMPED} alias banger:{STAMPED}"));
    rig.come_to_rest();
    rig
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn everything_hostile_is_refused_with_a_reason_and_changes_nothing() {
    let rig = stage();
    let kinds = kinds(&rig);
    let before = World::at_rest(&rig);
    let cases: Vec<Case> = [malformed(), fields(), not_to_be_done(), with_descriptors(), lines()]
        .into_iter()
        .flatten()
        .collect();
    assert!(cases.len() >= 40);
    println!("{:<42} {:<12} answer", "request", "changed");
    for case in &cases {
        let answer = play(&rig, case, &kinds);
        let changed = before.difference(&World::at_rest(&rig));
        let shown: String = answer.trim_end().chars().take(150).collect();
        println!(
            "{:<42} {:<12} {shown}",
            case.name.escape_debug().to_string(),
            if changed.is_empty() { "nothing" } else { "CHANGED" }
        );
        assert_eq!(changed, [""; 0], "{}", case.name);
        if case.want.is_empty() {
            assert_eq!(answer, "", "{}", case.name);
        } else {
            let refusal: Answer =
                serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{}: {e}: {answer:?}", case.name));
            let Answer::Refused { message, .. } = refusal else { panic!("{}: {answer}", case.name) };
            assert!(message.contains(case.want), "{}: {message}", case.name);
        }
    }
    let heard = cases.iter().filter(|case| case.ends != End::Leaves).count();
    println!("{} requests, {heard} of them refused with a reason; the rest had gone", cases.len());
    assert_eq!(rig.status().vms.len(), 2, "it serves on");
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn of_many_deletes_at_once_one_is_done() {
    let rig = stage();
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let ask = || rig.ask(&remove_vm(A));
        let threads: Vec<_> = (0..24).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("does not panic")).collect()
    });
    let done = answers.iter().filter(|answer| **answer == Answer::Done).count();
    let not_found =
        answers.iter().filter(|a| matches!(a, Answer::Refused { code: Code::NotFound, .. })).count();
    assert_eq!((done, not_found), (1, 23), "{answers:?}");
    assert_eq!(rig.status().vms.len(), 1);
    assert!(!crate::life::taps().contains(&format!("bgr{A}")));
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn two_vms_do_not_get_one_address_however_fast_they_ask() {
    let rig = Rig::bridged();
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let ask = |n: usize| rig.ask(&create_tap(&format!("{n:012x}"), 9));
        let threads: Vec<_> = (0..24).map(|n| scope.spawn(move || ask(n))).collect();
        threads.into_iter().map(|thread| thread.join().expect("does not panic")).collect()
    });
    assert_eq!(answers.iter().filter(|answer| **answer == Answer::Done).count(), 1, "{answers:?}");
    assert_eq!(crate::life::taps().len(), 1);
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn clients_that_say_nothing_keep_nobody_waiting() {
    let rig = stage();
    let before = World::at_rest(&rig);
    let silent: Vec<Client> =
        (0..40).map(|_| Client::connect(OWNER, &rig.socket()).expect("connects")).collect();
    let started = Instant::now();
    assert_eq!(rig.status().vms.len(), 2);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    drop(silent);
    assert_eq!(before.difference(&World::at_rest(&rig)), [""; 0]);
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn a_flood_of_connections_is_refused_and_passes() {
    let rig = stage();
    let before = World::at_rest(&rig);
    let mut flood: Vec<Client> =
        (0..400).map(|_| Client::connect(OWNER, &rig.socket()).expect("connects")).collect();
    let refused = flood.iter_mut().skip(100).all(|client| client.answer().contains("try again in a moment"));
    assert!(refused, "those beyond the limit are told so at once");
    let [helper, _] = rig.pids();
    let threads = std::fs::read_dir(format!("/proc/{helper}/task")).expect("lists").count();
    assert!(threads < 80, "{threads} threads");
    drop(flood);
    crate::rig::until(|| {
        rig.try_ask(&Request::Status).is_some_and(|answer| matches!(answer, Answer::Status(_)))
    });
    assert_eq!(before.difference(&World::at_rest(&rig)), [""; 0]);
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn symlinks_raced_under_its_feet_lead_nowhere() {
    let mut rig = stage();
    let victim = rig.path().join("victim");
    std::fs::create_dir(&victim).expect("makes a directory");
    for name in ["000000000001", A, "precious"] {
        std::fs::create_dir(victim.join(name)).expect("makes a directory");
        std::fs::write(victim.join(name).join("file"), "precious").expect("writes");
    }
    let before = files(&victim);
    let stop = AtomicBool::new(false);
    // The owner's directories are his: in them he swaps names for links to what is not, as fast as he can.
    let (state, runtime) = (rig.dirs().state, rig.dirs().runtime);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            as_user(OWNER, || {
                while !stop.load(Ordering::Relaxed) {
                    for directory in [&state, &runtime] {
                        for name in ["jail", "vms", "jails", ".staged-bridge.json"] {
                            let link = directory.join(name);
                            // Whichever of these fails, the other side was faster.
                            let swapped = std::fs::remove_file(&link)
                                .or_else(|_| std::fs::remove_dir(&link))
                                .and_then(|()| symlink(&victim, &link));
                            if swapped.is_err() && symlink(&victim, &link).is_err() {
                                std::thread::yield_now();
                            }
                        }
                    }
                }
            });
        });
        for n in 0..60u16 {
            let vm = format!("{:012x}", 0x100 + u64::from(n));
            assert_eq!(rig.ask(&create_tap(&vm, 100 + n)), Answer::Done);
            let case = Case {
                name: "launch".to_owned(),
                pieces: vec![(format!("{}\n", launch(&vm)).into_bytes(), 7)],
                ends: End::Waits,
                want: "",
            };
            let answer = play(&rig, &case, &kinds(&rig));
            assert!(answer.contains("refused"), "{answer}");
            assert_eq!(rig.ask(&remove_vm(&vm)), Answer::Done);
        }
        rig.kill();
        rig.start();
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(files(&victim), before);
    assert_eq!(rig.status().vms.len(), 2);
}
