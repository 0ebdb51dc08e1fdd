//! Launches through the helper, from a launcher that has given up what it does not need. What stands in for QEMU and for its vsock
//! device are scripts: they say who they are, and wait. Real guests in jails are in tests/jail and tests/e2e.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use banger::host::process;
use banger::proto::root::{Answer, Code};
use banger::vm::state::Processes;
use serde_json::{Value, json};

use crate::client::Client;
use crate::life::{A, in_firewall, taps};
use crate::rig::{OWNER, Rig, create_tap, remove_vm, request, until};
use crate::world::World;

/// Whom A runs as: the first of a range that is this test's alone, and its slot.
fn uid() -> u32 {
    uids() + 2
}

fn uids() -> u32 {
    1_200_000_000 + std::process::id() * 100
}

/// A bridge, A's tap, the owner's files, and programs that stand in.
fn ready() -> Rig {
    let mut rig = Rig::new();
    let script = |name: &str, text: &str| {
        let path = rig.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("writes");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("changes");
        path.display().to_string()
    };
    let qemu = script("qemu", "echo ready; while :; do sleep 0.1; done");
    let device = script("device", "exec /usr/bin/nc.openbsd -lkU \"$4\"");
    let config =
        format!("qemu_bin = '{qemu}'\nvhost_device_vsock_bin = '{device}'\njail_uids = {}\n", uids());
    fs::write(rig.dirs().config_file(), config).expect("writes");
    fs::create_dir(sockets(&rig)).expect("makes");
    for (name, mode) in
        [("console", 0o600), ("log", 0o600), ("kernel", 0o444), ("initrd", 0o444), ("0", 0o444), ("1", 0o600)]
    {
        fs::write(owners(&rig, name), name).expect("writes");
        fs::set_permissions(owners(&rig, name), Permissions::from_mode(mode)).expect("changes");
    }
    for entry in fs::read_dir(rig.dirs().state).expect("lists") {
        chown(entry.expect("an entry").path(), Some(OWNER), Some(OWNER)).expect("gives away");
    }
    rig.start();
    assert_eq!(rig.ask(&crate::rig::ensure_bridge()), Answer::Done);
    rig.settle_carrier();
    assert_eq!(rig.ask(&create_tap(A, 2)), Answer::Done);
    rig.come_to_rest();
    rig
}

fn owners(rig: &Rig, name: &str) -> PathBuf {
    rig.dirs().state.join(name)
}

fn sockets(rig: &Rig) -> PathBuf {
    owners(rig, "sockets")
}

fn descriptors(rig: &Rig) -> Vec<OwnedFd> {
    let read = |name: &str| OwnedFd::from(File::open(owners(rig, name)).expect("opens"));
    let append = |name: &str| OpenOptions::new().append(true).open(owners(rig, name)).expect("opens").into();
    let write =
        |name: &str| OpenOptions::new().read(true).write(true).open(owners(rig, name)).expect("opens").into();
    vec![
        read("sockets"),
        append("console"),
        append("log"),
        read("kernel"),
        read("initrd"),
        read("0"),
        write("1"),
    ]
}

fn order() -> Value {
    json!({
        "op": "launch-vm", "vm": A, "name": "dev", "vmm": "qemu-tcg", "vsock": "device", "vcpu": 1, "memory_mib": 256,
        "drives": ["read-only", "writable"], "root": {"snapshot": {"sectors": 2048}}, "modules": false, "network": true,
        "ready_port": 1001
    })
}

/// None: nobody answered.
fn launch(rig: &Rig) -> Option<Answer> {
    let mut client = Client::connect(OWNER, &rig.socket()).expect("connects");
    let given = descriptors(rig);
    let given: Vec<_> = given.iter().map(AsFd::as_fd).collect();
    client.send_with(format!("{}\n", order()).as_bytes(), &given);
    serde_json::from_str(&client.answer()).ok()
}

fn launched(rig: &Rig) -> Processes {
    match launch(rig) {
        Some(Answer::Launched { processes }) => processes,
        other => panic!("{other:?}\n{}", fs::read_to_string(owners(rig, "log")).expect("reads")),
    }
}

fn alive(processes: Processes) -> bool {
    let one = |process| process::is_alive(process).expect("looks");
    one(processes.vmm) || processes.vsock.is_some_and(one)
}

/// Processes of the jail's user.
fn of_the_vm() -> Vec<String> {
    let mut found = vec![];
    for entry in fs::read_dir("/proc").expect("lists") {
        let path = entry.expect("an entry").path();
        let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
        let zombie = status.lines().any(|line| line.starts_with("State:\tZ"));
        if !zombie && status.lines().any(|line| line.starts_with(&format!("Uid:\t{}\t", uid()))) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn a_vm_is_launched_by_one_that_has_given_up_what_it_does_not_need_and_leaves_nothing() {
    let rig = ready();
    let processes = launched(&rig);
    let log = owners(&rig, "log");
    until(|| fs::read_to_string(&log).expect("reads").contains("ready"));
    let status = fs::read_to_string(format!("/proc/{}/status", processes.vmm.pid)).expect("reads");
    for want in [
        &format!("Uid:\t{0}\t{0}\t{0}\t{0}", uid()),
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapEff:\t0000000000000000",
    ] {
        assert!(status.contains(want), "{want}:\n{status}");
    }
    let known = rig.status();
    assert_eq!(known.vms[0].processes, Some(processes));
    let answer = rig.ask(&request(json!({"op": "delete-tap", "vm": A})));
    assert!(matches!(answer, Answer::Refused { code: Code::Conflict, .. }), "{answer:?}");
    let again = launch(&rig);
    assert!(matches!(again, Some(Answer::Refused { code: Code::Conflict, .. })), "{again:?}");
    assert!(alive(processes));

    assert_eq!(rig.ask(&request(json!({"op": "signal-vm", "vm": A, "signal": "kill"}))), Answer::Done);
    until(|| !process::is_alive(processes.vmm).expect("looks"));
    assert_eq!(rig.ask(&remove_vm(A)), Answer::Done);
    assert!(!alive(processes) && of_the_vm().is_empty(), "{:?}", of_the_vm());
    assert_eq!((taps(), in_firewall(A)), (vec![], 0));
    let jail = rig.dirs().root_runtime.join("jail");
    assert!(!jail.exists() || fs::read_dir(jail).expect("lists").count() == 0);
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn a_vm_outlives_its_helper_and_the_next_one_ends_it() {
    let mut rig = ready();
    let processes = launched(&rig);
    rig.kill();
    assert!(alive(processes));
    rig.start();
    assert!(alive(processes), "{}", rig.log());
    assert_eq!(rig.status().vms[0].processes, Some(processes));
    assert_eq!(taps(), [format!("bgr{A}")]);
    assert_eq!(rig.ask(&remove_vm(A)), Answer::Done);
    assert!(!alive(processes));
    assert_eq!(of_the_vm(), [""; 0]);
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn a_helper_killed_while_it_launches_leaves_no_process_and_the_vm_can_be_launched_again() {
    println!("{:<24} processes of the VM after the next start", "killed at");
    for step in ["launch-vm:recorded", "launch-vm:launched", "launch-vm:done"] {
        let mut rig = ready();
        rig.kill();
        rig.start_with(&[("BANGER_FAILPOINT", step)]);
        rig.wait_until_it_serves();
        assert_eq!(launch(&rig), None, "{step}");
        rig.died();
        rig.start();
        let kept = step == "launch-vm:done";
        println!("{step:<24} {}", of_the_vm().len());
        assert_eq!(!of_the_vm().is_empty(), kept, "{step}: {:?}\n{}", of_the_vm(), rig.log());
        let known = rig.status();
        assert_eq!(known.vms[0].processes.is_some(), kept, "{step}");
        assert_eq!(taps(), [format!("bgr{A}")], "{step}");
        if !kept {
            launched(&rig);
        }
        assert_eq!(rig.ask(&remove_vm(A)), Answer::Done, "{step}");
        assert_eq!(of_the_vm(), [""; 0], "{step}");
    }
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn a_launch_that_fails_leaves_the_vm_as_it_was() {
    let rig = ready();
    // The first launch makes the directory for jails.
    fs::create_dir(rig.dirs().root_runtime.join("jail")).expect("makes");
    fs::set_permissions(rig.dirs().root_runtime.join("jail"), Permissions::from_mode(0o711))
        .expect("changes");
    let before = World::at_rest(&rig);
    // The jail's program is one that its owner could have changed.
    let qemu = rig.path().join("qemu");
    fs::set_permissions(&qemu, Permissions::from_mode(0o775)).expect("changes");
    let answer = launch(&rig);
    assert!(matches!(answer, Some(Answer::Refused { code: Code::Failed, .. })), "{answer:?}");
    fs::set_permissions(&qemu, Permissions::from_mode(0o755)).expect("changes");
    assert!(Path::new(&rig.socket()).exists());
    assert_eq!(before.lasting_difference(|| World::of(&rig)), [""; 0]);
}
