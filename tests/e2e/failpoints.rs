//! `kill -9` at every step of create, start, stop and delete: whatever comes next, nothing is leaked, and every VM can be used or
//! says why not (FAULTS F1). Failpoints are in debug builds alone, so it is that one which runs here.

use std::fmt::Write;

use serde_json::Value;

use crate::rig::{Rig, signal};
use crate::world::World;

/// The commands that reach a step, from a VM `dev` in the state before it, and the steps.
const STEPS: &[(Before, &str, &[&str])] = &[
    (
        Before::Nothing,
        "vm create --no-start -q --name dev --image busybox",
        &["create: stored", "create: directory made", "create: disk made"],
    ),
    (
        Before::Stopped,
        "vm start -q dev",
        &[
            "start: sockets made",
            "start: leased",
            "start: tap made",
            "start: prepared",
            "start: launched",
            "start: processes stored",
            "start: guest up",
            "start: running stored",
        ],
    ),
    (
        Before::Running,
        "vm stop -q dev",
        &[
            "stop: stored",
            "stop: guest asked",
            "stop: processes ended",
            "stop: all ended",
            "stop: stopped stored",
        ],
    ),
    (
        Before::Stopped,
        "vm delete -q dev",
        &["delete: stored", "delete: files removed", "delete: record removed"],
    ),
];

#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    Stopped,
    Running,
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn the_daemon_dies_at_each_step_and_nothing_is_lost_or_left() {
    let world = World::new();
    let rig = Rig::on_a_bridge(&world.host()).debug();
    let mut table = String::new();
    for (before, command, steps) in STEPS {
        for step in *steps {
            bring(&rig, *before);
            rig.ok("daemon stop");
            let ended = rig.command(command.split(' ')).env("BANGER_FAILPOINT", step).output().expect("runs");
            assert!(!ended.status.success(), "{step}: the daemon did not die there\n{}", rig.daemon_log());
            writeln!(table, "{step:26} -> {}", outcome(&world, &rig, step)).expect("writes");
        }
    }
    println!("{table}");
    rig.banger("vm delete dev");
    rig.assert_no_vm_is_left();
    assert_nothing_is_left(&world, &rig, "the end");
}

/// The next daemon's view, which must be one that a person can go on from.
fn outcome(world: &World, rig: &Rig, step: &str) -> String {
    let vms = rig.json("vm list --json");
    let vms = vms.as_array().expect("a list");
    if vms.is_empty() {
        assert_nothing_is_left(world, rig, step);
        return "no VM".to_owned();
    }
    let state = vms[0]["state"].as_str().expect("a state").to_owned();
    let said = match state.as_str() {
        "running" => {
            assert_eq!(rig.ok("vm exec dev -- echo fine"), "fine\n", "{step}");
            let address = vms[0]["address"].as_str().expect("an address");
            world.run("h", &format!("ping -c 1 -W 5 {address}"));
            assert_eq!(
                world.run("h", "dig @127.0.0.1 -p 42069 +short dev.vm"),
                format!("{address}\n"),
                "{step}"
            );
            "running, and answers".to_owned()
        }
        "stopped" | "failed" | "stopping" => {
            rig.until("it has settled", || ["stopped", "failed"].contains(&&*rig.vm_state("dev")));
            assert_nothing_is_left(world, rig, step);
            match vms[0]["reason"].as_str() {
                Some(reason) => format!("{state}: {reason}"),
                None => state.clone(),
            }
        }
        other => panic!("{step}: the VM is {other}"),
    };
    if state == "running" {
        return said;
    }
    // From there it is usable, or says why not and can be deleted.
    let started = rig.banger("vm start -q dev");
    let usable = match started.status {
        0 => {
            assert_eq!(rig.ok("vm exec dev -- echo fine"), "fine\n", "{step}");
            "starts"
        }
        _ => {
            assert!(started.stderr.contains("banger vm delete dev"), "{step}: {started:?}");
            "says that it is to be deleted"
        }
    };
    format!("{said}; then {usable}")
}

fn bring(rig: &Rig, before: Before) {
    rig.banger("vm delete -q dev");
    if before != Before::Nothing {
        rig.ok("vm create --no-start -q --name dev --image busybox");
    }
    if before == Before::Running {
        rig.ok("vm start -q dev");
    }
}

/// Nothing of a VM's run is on the host: processes, taps, firewall's elements, records of root, jails.
fn assert_nothing_is_left(world: &World, rig: &Rig, step: &str) {
    rig.until("nothing runs", || rig.processes().iter().all(|(_, line)| line.contains("bangerd")));
    let links: Value = serde_json::from_str(&world.run("h", "ip -j link")).expect("JSON");
    let taps: Vec<&str> = links
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|l| l["ifname"].as_str())
        .filter(|name| name.starts_with("bgr"))
        .collect();
    assert!(taps.is_empty(), "{step}: {taps:?}");
    let rules = world.run("h", "nft list ruleset");
    assert!(!rules.contains("06:ba:ac"), "{step}: {rules}");
    for dir in ["run-root/vms", "run-root/jails", "run/vms"] {
        let dir = rig.path().join(dir);
        let left: Vec<_> =
            std::fs::read_dir(&dir).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default();
        assert!(left.is_empty(), "{step}: {left:?}");
    }
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn the_command_line_dies_while_it_works_and_the_vm_is_whole() {
    let world = World::new();
    let rig = Rig::on_a_bridge(&world.host()).debug();
    // Six moments of a run, from before the VM is there to its command.
    for step in 0..6u64 {
        let mut child =
            rig.spawn(&["vm", "run", "-q", "--name", "dev", "--image", "busybox", "--", "sleep", "1000"]);
        std::thread::sleep(std::time::Duration::from_millis(step * step * 150));
        signal(child.id(), "KILL");
        child.wait().expect("ends");
        let vms = rig.json("vm list --json");
        if vms == Value::Array(vec![]) {
            continue;
        }
        rig.until("it has settled", || ["stopped", "failed", "running"].contains(&&*rig.vm_state("dev")));
        rig.ok("vm delete dev");
        assert_nothing_is_left(&world, &rig, &format!("moment {step}"));
    }
    rig.assert_no_vm_is_left();
}
