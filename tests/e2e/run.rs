//! The main job: `vm run` boots a VM, runs a command in it, and comes back with its exit status.

use crate::rig::{Rig, ended, signal};

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_command_runs_with_its_streams_unmixed_and_its_status_comes_back() {
    let rig = Rig::new();
    let script = "echo out; echo err >&2; exit 42";
    let end = rig.args(&["vm", "run", "-q", "--rm", "--image", "busybox", "--", "sh", "-c", script]);
    assert_eq!((end.status, end.stdout.as_str(), end.stderr.as_str()), (42, "out\n", "err\n"));
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_vm_stays_after_its_command_unless_rm_is_given() {
    let rig = Rig::new();
    let end = rig.banger("vm run --name dev --image busybox -- hostname");
    assert_eq!((end.status, end.stdout.as_str()), (0, "dev\n"), "{end:#?}");
    assert!(end.stderr.contains("dev is still running"), "{end:#?}");
    assert_eq!(rig.vm_state("dev"), "running");
    assert_eq!(rig.ok("vm exec dev -- cat /etc/hostname"), "dev\n");
    rig.ok("vm delete dev");
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_megabyte_of_every_byte_passes_through_stdin_and_stdout() {
    let rig = Rig::new();
    let input: Vec<u8> = (0..4_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let output = rig.feed(&["vm", "run", "-q", "--rm", "--image", "busybox", "--", "cat"], &input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == input, "{} bytes came back", output.stdout.len());
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn statuses_are_those_that_a_shell_would_give() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    for (script, status) in [("exit 0", 0), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
    {
        assert_eq!(rig.args(&["vm", "exec", "dev", "--", "sh", "-c", script]).status, status, "{script}");
    }
    let end = rig.banger("vm exec dev -- no-such-program");
    assert_eq!(end.status, 127);
    assert!(end.stderr.contains("no-such-program"), "{end:#?}");
    let end = rig.banger("vm exec dev -- /etc/passwd");
    assert_eq!(end.status, 126, "{end:#?}");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn ctrl_c_reaches_the_command_which_may_decide() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    let script = "trap 'echo caught; exit 7' INT; echo waiting; while :; do sleep 1; done";
    let mut child = rig.spawn(&["vm", "exec", "dev", "--", "sh", "-c", script]);
    wait_for_line(&mut child, "waiting");
    signal(child.id(), "INT");
    let end = ended(child.wait_with_output().expect("ends"));
    assert_eq!((end.status, end.stdout.as_str()), (7, "caught\n"), "{end:#?}");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_second_ctrl_c_gives_up_waiting_and_says_what_is_left() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    let script = "trap '' INT; echo waiting; while :; do sleep 1; done";
    let mut child = rig.spawn(&["vm", "exec", "dev", "--", "sh", "-c", script]);
    wait_for_line(&mut child, "waiting");
    signal(child.id(), "INT");
    std::thread::sleep(std::time::Duration::from_millis(300));
    signal(child.id(), "INT");
    let end = ended(child.wait_with_output().expect("ends"));
    assert_eq!(end.status, 130, "{end:#?}");
    assert!(end.stderr.contains("dev"), "{end:#?}");
    assert_eq!(rig.vm_state("dev"), "running");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn rm_deletes_the_vm_even_when_the_command_line_is_killed() {
    let rig = Rig::new();
    let script = "echo waiting; exec sleep 1000";
    for name in ["KILL", "TERM", "HUP"] {
        let mut child =
            rig.spawn(&["vm", "run", "-q", "--rm", "--image", "busybox", "--", "sh", "-c", script]);
        wait_for_line(&mut child, "waiting");
        signal(child.id(), name);
        child.wait().expect("ends");
        rig.until("the VM is gone", || rig.json("vm list --json") == serde_json::json!([]));
        rig.until("its processes are gone", || rig.processes().is_empty());
    }
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn environment_directory_and_user_are_the_asked_ones() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    let script = "echo $A:$(pwd):$(id -u):$HOME";
    let asked = |flags: &[&str]| {
        let args: Vec<&str> = [&["vm", "exec"], flags, &["dev", "--", "sh", "-c", script]].concat();
        rig.ok_args(&args)
    };
    assert_eq!(asked(&[]), ":/:0:/root\n");
    assert_eq!(asked(&["-e", "A=1 2", "-w", "/tmp", "-u", "app"]), "1 2:/tmp:1000:/home/app\n");
    assert_eq!(asked(&["-u", "1234:50"]), ":/:1234:/\n");
    let end = rig.banger("vm exec -u nobody-here dev -- true");
    assert_eq!(end.status, 1);
    assert!(end.stderr.contains("nobody-here"), "{end:#?}");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_detached_run_prints_the_name_and_leaves_the_vm_running() {
    let rig = Rig::new();
    let name = rig.ok("vm run -q -d --image busybox").trim().to_owned();
    assert_eq!(rig.vm_state(&name), "running");
    let id = rig.json(&format!("vm show --json {name}"))["id"].as_str().expect("an id").to_owned();
    assert_eq!(rig.vm_state(&id), "running");
    assert_eq!(rig.vm_state(&id[..4]), "running");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn fifty_commands_run_at_once_in_one_vm() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    let children: Vec<_> = (0..50)
        .map(|n| rig.spawn(&["vm", "exec", "dev", "--", "sh", "-c", &format!("sleep 1; echo {n}; exit {n}")]))
        .collect();
    for (n, child) in children.into_iter().enumerate() {
        let end = ended(child.wait_with_output().expect("ends"));
        assert_eq!((end.status, end.stdout), (n as i32, format!("{n}\n")), "{}", end.stderr);
    }
}

fn wait_for_line(child: &mut std::process::Child, line: &str) {
    use std::io::Read;
    let stdout = child.stdout.as_mut().expect("is piped");
    let mut got = vec![];
    let mut byte = [0];
    while !got.ends_with(b"\n") {
        assert_eq!(
            stdout.read(&mut byte).expect("reads"),
            1,
            "it ended after {:?}",
            String::from_utf8_lossy(&got)
        );
        got.push(byte[0]);
    }
    assert_eq!(String::from_utf8_lossy(&got).trim_end(), line);
}
