//! Processes die at bad moments; nothing is lost and nothing is left behind.

use crate::rig::{Rig, signal};

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_killed_daemon_finds_its_vm_again_and_exec_works() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    rig.sh("dev", "echo before >/tmp/mark");
    let (daemon, vmm) = (rig.daemon_pid(), rig.vmm_pid("dev"));
    signal(daemon, "KILL");
    assert_eq!(rig.ok("vm exec dev -- cat /tmp/mark"), "before\n");
    assert_eq!(rig.vmm_pid("dev"), vmm);
    assert_ne!(rig.daemon_pid(), daemon);
    rig.ok("vm stop dev");
    rig.ok("vm delete dev");
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_session_outlives_the_daemon() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    let script = "while [ ! -e /tmp/go ]; do sleep 0.1; done; echo done";
    let child = rig.spawn(&["vm", "exec", "dev", "--", "sh", "-c", script]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    signal(rig.daemon_pid(), "KILL");
    rig.sh("dev", "touch /tmp/go");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
    assert!(output.status.success());
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_vm_that_died_while_no_daemon_looked_is_stopped_and_starts_again() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    let vmm = rig.vmm_pid("dev");
    signal(rig.daemon_pid(), "KILL");
    signal(vmm, "KILL");
    assert_eq!(rig.vm_state("dev"), "stopped");
    rig.until("the vsock device is gone", || rig.processes().is_empty());
    rig.ok("vm start dev");
    assert_eq!(rig.ok("vm exec dev -- echo again"), "again\n");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_vmm_that_dies_is_noticed_at_once() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    signal(rig.vmm_pid("dev"), "KILL");
    rig.until("the VM is stopped", || rig.vm_state("dev") == "stopped");
    rig.until("nothing runs", || rig.processes().is_empty());
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_daemon_killed_while_a_vm_starts_leaves_no_stray_process() {
    let rig = Rig::new();
    rig.ok("vm create --no-start --name dev --image busybox");
    let daemon = rig.daemon_pid();
    // Ten moments of a start, from before the first process to after the guest is ready.
    for step in 0..10u64 {
        let mut child = rig.spawn(&["vm", "start", "-q", "dev"]);
        std::thread::sleep(std::time::Duration::from_millis(step * step * 40));
        signal(rig.daemon_pid(), "KILL");
        child.wait().expect("ends");
        // Whatever it finds, the next daemon brings the VM to a state from which it can be deleted or used.
        let state = rig.vm_state("dev");
        assert!(["stopped", "failed", "running", "starting"].contains(&state.as_str()), "{state}");
        rig.ok("vm kill dev");
        rig.until("nothing runs", || rig.processes().is_empty());
    }
    assert_ne!(rig.daemon_pid(), daemon);
    rig.ok("vm start dev");
    assert_eq!(rig.ok("vm exec dev -- echo fine"), "fine\n");
    rig.ok("vm delete dev");
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn an_ephemeral_vm_goes_with_its_owner_even_across_a_daemons_death() {
    let rig = Rig::new();
    let mut child =
        rig.spawn(&["vm", "run", "-q", "--rm", "--name", "dev", "--image", "busybox", "--", "sleep", "1000"]);
    rig.until("it runs", || rig.banger("vm exec dev -- true").status == 0);
    signal(rig.daemon_pid(), "KILL");
    signal(child.id(), "KILL");
    child.wait().expect("ends");
    rig.until("the VM is gone", || rig.json("vm list --json") == serde_json::json!([]));
    rig.until("nothing runs", || rig.processes().is_empty());
    rig.assert_no_vm_is_left();
}
