//! An owner without privilege, and the root helper: the shape of an installed machine.

use serde_json::Value;

use crate::network::asks;
use crate::rig::{PATIENCE, Rig, signal};
use crate::world::{INTERNET, World};

fn status(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("lives");
    let line = status.lines().find(|l| l.starts_with(field)).expect("has the field").to_owned();
    line.split_whitespace().nth(1).expect("a value").to_owned()
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn an_owner_without_privilege_has_vms_on_the_bridge_and_in_jails() {
    let world = World::new();
    let rig = Rig::of_an_owner(&world.host());
    let mut helper = rig.helper("");
    rig.import();
    rig.ok("vm run -d --name dev --image busybox --nat");
    assert_eq!(status(rig.daemon_pid(), "Uid:"), "4242");
    let vmm = rig.vmm_pid("dev");
    assert!(status(vmm, "Uid:").parse::<u32>().expect("a number") >= 1_900_000_000);
    assert_eq!(status(vmm, "CapEff:"), "0000000000000000");
    assert_eq!(status(vmm, "NoNewPrivs:"), "1");
    let seen = asks(&rig, "dev", INTERNET, 80);
    assert!(seen.contains("hello from outside"), "{seen}");
    let address = rig.json("vm show --json dev")["address"].as_str().expect("an address").to_owned();
    assert_eq!(world.run("h", "dig @127.0.0.1 -p 42069 +short dev.vm"), format!("{address}\n"));

    // The VM outlives both daemons, and both find it again.
    signal(helper.id(), "KILL");
    helper.wait().expect("ends");
    signal(rig.daemon_pid(), "KILL");
    assert_eq!(rig.ok("vm exec dev -- echo here"), "here\n");
    let mut helper = rig.helper("");
    assert_eq!(rig.vmm_pid("dev"), vmm);
    rig.ok("vm set dev --nat off");
    assert_eq!(asks(&rig, "dev", INTERNET, 80), "");
    rig.ok("vm restart dev");
    assert_eq!(rig.ok("vm exec dev -- echo again"), "again\n");
    rig.ok("vm delete dev");
    rig.assert_no_vm_is_left();
    let links: Value = serde_json::from_str(&world.run("h", "ip -j link")).expect("JSON");
    let taps = links.as_array().expect("a list").iter();
    assert!(!taps.clone().any(|l| l["ifname"].as_str().is_some_and(|n| n.starts_with("bgr"))), "{links}");
    signal(helper.id(), "KILL");
    helper.wait().expect("ends");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn without_the_helper_an_owner_has_the_user_mode_network_and_is_told() {
    let world = World::new();
    let rig = Rig::of_an_owner(&world.host());
    rig.import();
    let end = rig.banger("vm run -d --name dev --image busybox --nat");
    assert_eq!(end.status, 0, "{end:?}");
    assert_eq!(rig.json("vm show --json dev")["address"], "10.0.2.15");
    rig.ok("vm delete dev");
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn root_in_a_container_has_the_user_mode_network() {
    let rig = Rig::of_a_root_without_power();
    rig.ok("vm run -d --name dev --image busybox --nat");
    assert_eq!(rig.json("vm show --json dev")["address"], "10.0.2.15");
    let said = rig.ok("doctor");
    assert!(said.contains("root lacks CAP_NET_ADMIN or CAP_SYS_ADMIN here"), "{said}");
    rig.ok("vm delete dev");
    rig.assert_no_vm_is_left();
}

/// Steps of the helper, and the owner's commands that reach them.
const STEPS: &[(&str, &str)] = &[
    ("ensure-bridge:done", "vm start -q dev"),
    ("create-tap:recorded", "vm start -q dev"),
    ("create-tap:made", "vm start -q dev"),
    ("create-tap:admitted", "vm start -q dev"),
    ("create-tap:done", "vm start -q dev"),
    ("launch-vm:recorded", "vm start -q dev"),
    ("launch-vm:launched", "vm start -q dev"),
    ("launch-vm:done", "vm start -q dev"),
    ("set-nat:recorded", "vm set dev --nat on"),
    ("set-nat:done", "vm set dev --nat on"),
    ("remove:recorded", "vm stop -q dev"),
    ("remove:ended", "vm stop -q dev"),
    ("remove:dismissed", "vm stop -q dev"),
    ("remove:deleted", "vm stop -q dev"),
    ("remove:done", "vm stop -q dev"),
    ("remove:ended", "vm delete -q dev"),
];

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn the_helper_dies_at_each_step_and_nothing_is_lost_or_left() {
    let world = World::new();
    let rig = Rig::of_an_owner(&world.host()).debug();
    let mut helper = rig.helper("");
    rig.import();
    for (step, command) in STEPS {
        let _ = rig.banger("vm delete -q dev");
        rig.ok("vm create --no-start -q --name dev --image busybox");
        if !command.contains("start") {
            rig.ok("vm start -q dev");
        }
        signal(helper.id(), "KILL");
        helper.wait().expect("ends");
        helper = rig.helper(step);
        let end = rig.banger(command);
        let begun = std::time::Instant::now();
        while helper.try_wait().expect("is ours").is_none() {
            assert!(begun.elapsed() < PATIENCE, "the helper did not die at {step}: {end:?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        helper = rig.helper("");
        if rig.json("vm list --json") == Value::Array(vec![]) {
            println!("{step:24} {command:20} -> gone");
            continue;
        }
        println!("{step:24} {command:20} -> {}", rig.vm_state("dev"));
        // It can be used, as soon as the helper is there again.
        if rig.vm_state("dev") != "running" {
            rig.ok("vm stop -q dev");
            rig.ok("vm start -q dev");
        }
        assert_eq!(rig.ok("vm exec dev -- echo fine"), "fine\n", "{step}");
        rig.ok("vm delete -q dev");
        rig.assert_no_vm_is_left();
        let left: Vec<_> = std::fs::read_dir(rig.path().join("run-root/vms"))
            .map(|d| d.flatten().map(|e| e.path()).collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "{step}: {left:?}");
    }
    signal(helper.id(), "KILL");
    helper.wait().expect("ends");
}
