//! Making, stopping, starting and deleting VMs, one and several.

use serde_json::json;

use crate::rig::Rig;

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_vm_goes_through_its_life_by_name_and_by_prefix() {
    let rig = Rig::new();
    rig.ok("vm create --no-start --name dev --image busybox");
    assert_eq!(rig.vm_state("dev"), "stopped");
    rig.ok("vm start dev");
    assert_eq!(rig.vm_state("dev"), "running");
    assert!(rig.refused("vm start dev").contains("already running"));
    rig.ok("vm restart dev");
    assert_eq!(rig.vm_state("dev"), "running");
    rig.ok("vm stop dev");
    assert_eq!(rig.vm_state("dev"), "stopped");
    rig.ok("vm stop dev");
    rig.ok("vm start dev");
    rig.ok("vm kill dev");
    assert_eq!(rig.vm_state("dev"), "stopped");
    assert!(rig.refused("vm exec dev -- true").contains("banger vm start dev"));
    let id = rig.json("vm show --json dev")["id"].as_str().expect("an id").to_owned();
    rig.ok(&format!("vm delete {}", &id[..5]));
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn of_several_vms_the_valid_ones_proceed_and_the_failures_are_listed() {
    let rig = Rig::new();
    for name in ["one", "two", "three"] {
        rig.ok(&format!("vm create -q --no-start --name {name} --image busybox"));
    }
    let end = rig.banger("vm start one nobody two one");
    assert_eq!(end.status, 1, "{end:#?}");
    assert!(end.stderr.contains("nobody"), "{end:#?}");
    assert_eq!((rig.vm_state("one"), rig.vm_state("two")), ("running".to_owned(), "running".to_owned()));
    rig.ok("vm stop one two");
    rig.ok("vm delete three one two");
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn creating_a_vm_copies_nothing() {
    let rig = Rig::new();
    rig.ok("vm create --no-start --name dev --image minbase --disk-size 20G");
    let directory = rig.json("vm show --json dev")["directory"].as_str().expect("a directory").to_owned();
    let du = std::process::Command::new("du").args(["-s", "-B1", &directory]).output().expect("runs du");
    let bytes: u64 = String::from_utf8_lossy(&du.stdout)
        .split_whitespace()
        .next()
        .expect("a number")
        .parse()
        .expect("a number");
    assert!(bytes < 1 << 20, "{bytes} bytes");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn lists_have_the_documented_fields() {
    let rig = Rig::new();
    rig.ok("vm create --no-start --name dev --image busybox --vcpu 1 --memory 256M --disk-size 1G");
    let list = rig.json("vm list --json");
    let vm = &list[0];
    assert_eq!(vm["name"], "dev");
    assert_eq!(vm["image_name"], "busybox");
    assert_eq!(
        vm["spec"],
        json!({"vcpu": 1, "memory_mib": 256, "disk_mib": 1024, "vmm": "auto", "accel": "auto", "nat": false, "lan": false})
    );
    let text = rig.ok("ps");
    assert!(text.contains("dev") && text.contains("stopped") && text.starts_with("ID"), "{text}");
    assert_eq!(rig.ok("vm list --ids").trim(), vm["id"].as_str().expect("an id"));
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn the_console_log_can_be_read_after_the_vm_has_stopped() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    rig.sh("dev", "echo hello from the console >/dev/console");
    rig.ok("vm stop dev");
    assert!(rig.ok("vm logs dev").contains("hello from the console"));
}
