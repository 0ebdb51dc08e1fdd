//! What the helper does for those whom it serves, and what it is while it does.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use banger::network::ruleset::Ruleset;
use banger::network::subnet;
use banger::proto::root::{Answer, Code};
use serde_json::{Value, json};

use crate::client::Client;
use crate::rig::{OWNER, ROOT, Rig, create_tap, ensure_bridge, remove_vm, request, run, until};
use crate::world::World;

pub const A: &str = "00000000000a";
pub const B: &str = "00000000000b";

/// The links that are called like taps.
pub fn taps() -> Vec<String> {
    let links: Value = serde_json::from_str(&run("ip", "-j link")).expect("JSON");
    let names = links
        .as_array()
        .expect("a list")
        .iter()
        .map(|link| link["ifname"].as_str().expect("a name").to_owned());
    names.filter(|name| name.starts_with("bgr")).collect()
}

/// How often the VM is named in the firewall.
pub fn in_firewall(vm: &str) -> usize {
    run("nft", "list ruleset").matches(&format!("bgr{vm}")).count()
}

/// A number where the user has no name.
fn user_of(link: &Value) -> String {
    link[0]["linkinfo"]["info_data"]["user"].to_string().replace('"', "")
}

fn refused(answer: &Answer) -> Code {
    match answer {
        Answer::Refused { code, .. } => *code,
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn a_vm_gets_its_tap_and_its_place_in_the_firewall_and_leaves_nothing() {
    let rig = Rig::bridged();
    let before = World::at_rest(&rig);
    assert_eq!(rig.ask(&create_tap(A, 2)), Answer::Done);
    assert_eq!(rig.ask(&create_tap(B, 3)), Answer::Done);
    assert_eq!(taps(), [format!("bgr{A}"), format!("bgr{B}")]);
    let link: Value = serde_json::from_str(&run("ip", &format!("-j -d link show bgr{A}"))).expect("JSON");
    assert_eq!(link[0]["ifalias"], format!("banger:{A}"));
    assert_eq!(link[0]["master"], "br-banger");
    assert_eq!(user_of(&link), "1900000002", "the jail's: {link}");
    assert!(in_firewall(A) > 0 && in_firewall(B) > 0);
    let status = rig.status();
    assert_eq!(status.subnet.map(|s| s.to_string()).as_deref(), Some("172.16.0.1/24"));
    assert_eq!(status.vms.len(), 2);

    let named = in_firewall(A);
    assert_eq!(rig.ask(&request(json!({"op": "set-nat", "vm": A, "nat": true, "lan": true}))), Answer::Done);
    assert!(run("nft", "list ruleset").matches("172.16.0.2").count() > 0);
    assert!(rig.status().vms[0].port.expect("a port").nat);
    assert_eq!(
        rig.ask(&request(json!({"op": "set-nat", "vm": A, "nat": false, "lan": false}))),
        Answer::Done
    );
    assert_eq!(in_firewall(A), named);

    assert_eq!(rig.ask(&request(json!({"op": "delete-tap", "vm": A}))), Answer::Done);
    assert_eq!(rig.ask(&remove_vm(B)), Answer::Done);
    assert_eq!(before.lasting_difference(|| World::of(&rig)), [""; 0]);
    assert_eq!(refused(&rig.ask(&remove_vm(B))), Code::NotFound);
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn a_direct_vms_tap_is_the_owners() {
    let rig = Rig::bridged();
    let port = json!({"slot": 9, "nat": true, "lan": false, "direct": true});
    assert_eq!(rig.ask(&request(json!({"op": "create-tap", "vm": A, "port": port}))), Answer::Done);
    let link: Value = serde_json::from_str(&run("ip", &format!("-j -d link show bgr{A}"))).expect("JSON");
    assert_eq!(user_of(&link), "12345", "{link}");
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn asking_again_for_the_bridge_mends_it() {
    let rig = Rig::bridged();
    assert_eq!(rig.ask(&create_tap(A, 2)), Answer::Done);
    run("ip", "addr flush dev br-banger");
    run("ip", "link set br-banger down");
    assert_eq!(rig.ask(&ensure_bridge()), Answer::Done);
    let addresses = run("ip", "-j addr show br-banger");
    assert!(addresses.contains("172.16.0.1"), "{addresses}");
    assert!(in_firewall(A) > 0);
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn a_tap_whose_name_is_taken_leaves_no_record() {
    let rig = Rig::bridged();
    run("ip", &format!("link add bgr{A} type bridge"));
    let before = World::at_rest(&rig);
    assert_eq!(refused(&rig.ask(&create_tap(A, 2))), Code::Foreign);
    assert_eq!(before.lasting_difference(|| World::of(&rig)), [""; 0]);
    run("ip", &format!("link delete bgr{A}"));
    assert_eq!(rig.ask(&create_tap(A, 2)), Answer::Done);
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn a_tap_that_the_firewall_does_not_take_is_taken_back_and_so_is_a_change() {
    let rig = Rig::bridged();
    assert_eq!(rig.ask(&create_tap(B, 3)), Answer::Done);
    rig.come_to_rest();
    // The table is there, with as many rules as it should have, so that nobody mends it; but its set takes something else.
    let [rules, _] = Ruleset { subnet: subnet::DEFAULT, dns_port: 1, guests: vec![] }.rules();
    let rules = "; add rule bridge banger some accept".repeat(rules);
    let table =
        "delete table bridge banger; add table bridge banger; add set bridge banger guests { type mark; }";
    run("nft", &format!("{table}; add chain bridge banger some{rules}"));
    let before = World::at_rest(&rig);
    assert_eq!(refused(&rig.ask(&create_tap(A, 2))), Code::Failed);
    assert_eq!(before.lasting_difference(|| World::of(&rig)), [""; 0]);
    let nat = request(json!({"op": "set-nat", "vm": B, "nat": true, "lan": false}));
    assert_eq!(refused(&rig.ask(&nat)), Code::Failed);
    assert_eq!(before.lasting_difference(|| World::of(&rig)), [""; 0]);
    assert!(!rig.status().vms[0].port.expect("a port").nat);
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn a_bridge_that_nothing_is_forwarded_for_is_taken_back_with_its_firewall() {
    let rig = Rig::started();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("forwards nothing");
    // Where what the host did before is to be kept, something else is.
    let kept = rig.dirs().root_runtime.join("ip_forward");
    std::fs::create_dir_all(kept.join("full")).expect("makes a directory");
    let before = World::at_rest(&rig);
    assert_eq!(refused(&rig.ask(&ensure_bridge())), Code::Failed);
    assert_eq!(before.lasting_difference(|| World::of(&rig)), [""; 0]);
    std::fs::remove_dir_all(&kept).expect("removes");
    assert_eq!(rig.ask(&ensure_bridge()), Answer::Done);
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("reads").trim(), "1");
    assert_eq!(std::fs::read_to_string(kept).expect("reads").trim(), "0");
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn somebody_elses_bridge_is_refused_and_stays_as_it_is() {
    let rig = Rig::started();
    run("ip", "link add br-banger type bridge");
    run("ip", "link set br-banger alias somebody-elses");
    let before = World::at_rest(&rig);
    assert_eq!(refused(&rig.ask(&ensure_bridge())), Code::Foreign);
    assert_eq!(refused(&rig.ask(&create_tap(A, 2))), Code::NotFound);
    assert_eq!(before.lasting_difference(|| World::of(&rig)), [""; 0]);
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn the_socket_is_the_owners_alone_and_nobody_else_is_heard() {
    let rig = Rig::started();
    let meta = std::fs::metadata(rig.socket()).expect("looks");
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (OWNER, OWNER, 0o600));
    let meta = std::fs::metadata(rig.dirs().root_runtime).expect("looks");
    assert_eq!((meta.uid(), meta.mode() & 0o777), (0, 0o711));
    let meta = std::fs::metadata(rig.dirs().root_runtime.join("vms")).expect("looks");
    assert_eq!((meta.uid(), meta.mode() & 0o777), (0, 0o700));
    assert!(Client::connect(OWNER + 1, &rig.socket()).is_err(), "the mode says no");
    // Where the mode has been changed by an accident, the kernel still says who it is.
    std::fs::set_permissions(rig.socket(), PermissionsExt::from_mode(0o666)).expect("changes the mode");
    for stranger in [OWNER + 1, 1, 65534, 1_900_000_002] {
        let mut client = Client::connect(stranger, &rig.socket()).expect("connects");
        client.send(b"{\"op\":\"status\"}\n");
        let want = format!("the user with uid {stranger} is not whom this helper serves");
        let answer = client.answer();
        assert!(answer.contains(&want), "{answer}");
    }
    for friend in [OWNER, ROOT] {
        let mut client = Client::connect(friend, &rig.socket()).expect("connects");
        client.send(b"{\"op\":\"status\"}\n");
        assert!(client.answer().starts_with("{\"answer\":\"status\""));
    }
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn it_gives_up_what_it_does_not_need_and_says_so() {
    let rig = Rig::started();
    let [front, launcher] = rig.pids();
    let field = |pid: u32, name: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("reads");
        let line = status.lines().find(|line| line.starts_with(name)).expect("the field").to_owned();
        line.split_whitespace().nth(1).expect("a value").to_owned()
    };
    let capabilities = |pid, name| u64::from_str_radix(&field(pid, name), 16).expect("a number");
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        // NET_ADMIN is 12, NET_RAW 13 (linux/capability.h).
        assert_eq!(capabilities(front, set), 1 << 12 | 1 << 13, "{set}");
        // SYS_MODULE 16, SYS_RAWIO 17, SYS_PTRACE 19, SYS_BOOT 22, SYS_TIME 25, BPF 39, SETPCAP 8, NET_RAW 13.
        for lost in [8, 13, 16, 17, 19, 22, 25, 39] {
            assert_eq!(capabilities(launcher, set) & (1 << lost), 0, "{set} {lost}");
        }
    }
    for pid in [front, launcher] {
        assert_eq!((field(pid, "NoNewPrivs:"), field(pid, "Seccomp:")), ("1".to_owned(), "2".to_owned()));
    }
    let log = rig.log();
    for said in [
        "no_new_privs",
        "front: seccomp refuses",
        "launcher: seccomp refuses",
        "front: landlock",
        "launcher: landlock",
    ] {
        assert!(log.contains(said), "{said}:\n{log}");
    }
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn two_do_not_work_in_one_place() {
    let mut rig = Rig::bridged();
    let second = rig.command(&[]).output().expect("runs");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another bangerd-root is running already"), "{said}");
    let reconcile = rig.reconcile();
    assert!(!reconcile.status.success(), "it has done so itself");
    assert_eq!(rig.status().vms.len(), 0, "it serves on");
    rig.kill();
    assert!(rig.reconcile().status.success());
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn it_serves_a_socket_that_was_passed_and_refuses_anything_else() {
    let mut rig = Rig::new();
    // As systemd does: descriptor 3, and the pid of whoever is to take it.
    let pass = |what: &str| {
        let program = format!(
            "import os, socket, sys\n{what}\nos.dup2(s.fileno(), 3); os.set_inheritable(3, True)\n\
             os.environ['LISTEN_PID'] = str(os.getpid()); os.environ['LISTEN_FDS'] = '1'\n\
             os.execve(sys.argv[1], ['bangerd-root'], os.environ)"
        );
        let mut command = Command::new("python3");
        command
            .args(["-c", &program, crate::rig::BANGER])
            .env("BANGER_ROOT", rig.path())
            .stdin(Stdio::null());
        command
    };
    for wrong in [
        "s = socket.socket()",
        "s = socket.socket(socket.AF_UNIX)",
        "s = socket.socketpair()[0]",
        "s = open('/dev/null')",
        "s = socket.socket(); s.bind(('127.0.0.1', 0))",
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind('\\0bgr-test'); s.listen()",
    ] {
        let out = pass(wrong).output().expect("runs");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            !out.status.success() && said.contains("cannot take the socket that was passed"),
            "{wrong}: {said}"
        );
    }
    std::fs::create_dir(rig.dirs().root_runtime).expect("makes a directory");
    std::fs::set_permissions(rig.dirs().root_runtime, PermissionsExt::from_mode(0o711)).expect("opens it");
    let right = format!(
        "s = socket.socket(socket.AF_UNIX); s.bind({0:?}); os.chown({0:?}, {OWNER}, {OWNER}); os.chmod({0:?}, 0o600); s.listen()",
        rig.socket().display().to_string()
    );
    let inode = |rig: &Rig| std::fs::metadata(rig.socket()).map(|meta| meta.ino()).ok();
    let child = pass(&right).stderr(Stdio::null()).process_group(0).spawn().expect("starts");
    rig.adopt(child);
    rig.wait_until_it_serves();
    let passed = inode(&rig);
    assert_eq!(rig.ask(&ensure_bridge()), Answer::Done);
    assert_eq!(inode(&rig), passed, "it is the one that was passed");
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn what_others_may_have_written_is_not_believed() {
    let rig = Rig::new();
    let said = || {
        let out = rig.command(&[]).output().expect("runs");
        assert!(!out.status.success());
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    let install = rig.dirs().install_file();
    let spoil = |mode: u32, uid: u32| {
        std::fs::set_permissions(&install, PermissionsExt::from_mode(mode)).expect("changes the mode");
        std::os::unix::fs::chown(&install, Some(uid), None).expect("gives it away");
    };
    for (mode, uid) in [(0o664, 0), (0o646, 0), (0o644, OWNER)] {
        spoil(mode, uid);
        assert!(
            said().contains("may have been written by somebody else than root"),
            "{mode:o} {uid}: {}",
            said()
        );
    }
    std::fs::rename(&install, rig.path().join("elsewhere")).expect("moves it");
    symlink(rig.path().join("elsewhere"), &install).expect("links");
    assert!(said().contains("cannot read"), "{}", said());
    std::fs::remove_file(&install).expect("removes");
    assert!(said().contains("there is no installation to be the helper of"), "{}", said());
    assert!(!Path::new(&rig.dirs().root_runtime).exists(), "nothing was made");
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn it_is_roots_to_run() {
    let rig = Rig::new();
    let out = rig.command(&[]).uid(OWNER).gid(OWNER).output().expect("runs");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("this is root's to run"), "{said}");
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn a_firewall_that_somebody_flushes_is_loaded_again() {
    let rig = Rig::bridged();
    assert_eq!(rig.ask(&create_tap(A, 2)), Answer::Done);
    let loaded = run("nft", "list ruleset");
    run("nft", "flush ruleset");
    until(|| in_firewall(A) > 0);
    assert_eq!(run("nft", "list ruleset"), loaded);
    until(|| rig.log().contains("somebody has flushed the firewall; it is loaded again"));
    // As nftables.service does it: its own rules in the same transaction.
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("starts");
    let theirs =
        "flush ruleset\ntable inet filter {\nchain input {\ntype filter hook input priority 0;\n}\n}\n";
    std::io::Write::write_all(&mut nft.stdin.take().expect("a pipe"), theirs.as_bytes()).expect("feeds it");
    assert!(nft.wait().expect("waits").success());
    until(|| in_firewall(A) > 0);
    assert!(run("nft", "list ruleset").contains("table inet filter"), "theirs stays");
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn clearing_leaves_nothing_of_what_was_made_and_may_be_done_twice() {
    let mut rig = Rig::started();
    // A new namespace may have it from its host (ip-sysctl.rst, net.core.devconf_inherit_init_net).
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("forwards nothing");
    let forwards =
        || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("reads").trim().to_owned();
    assert_eq!(rig.ask(&ensure_bridge()), Answer::Done);
    assert_eq!(forwards(), "1");
    for (vm, slot) in [("00000000000a", 10), ("00000000000b", 11)] {
        assert_eq!(rig.ask(&create_tap(vm, slot)), Answer::Done);
    }
    assert!(!rig.clear().status.success(), "a helper that serves has its work cleared under it");
    assert!(run("ip", "-o link").contains("br-banger"));
    rig.kill();
    for _ in 0..2 {
        let out = rig.clear();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let links = run("ip", "-o link");
        assert!(!links.contains("br-banger") && !links.contains("bgr0"), "{links}");
        assert_eq!(run("nft", "list ruleset"), "");
        assert_eq!(forwards(), "0");
        assert_eq!(std::fs::read_dir(rig.dirs().root_runtime.join("vms")).expect("lists").count(), 0);
    }
}
