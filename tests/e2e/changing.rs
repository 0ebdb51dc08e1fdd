//! VMs that are renamed, pruned, deleted after their time and stopped for want of use, with real guests; and a configuration that is wrong.

use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::rig::{Ended, Rig, ended};

fn end_of(child: Child) -> Ended {
    ended(child.wait_with_output().expect("ends"))
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_vm_is_renamed_as_it_runs_outlives_a_prune_and_goes_when_its_time_is_over() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox --publish 0:8080");
    let own = "hostname; cat /etc/hostname; tail -n 2 /etc/hosts | head -n 1";
    assert_eq!(rig.sh("dev", own), "dev\ndev\n127.0.1.1 dev\n");
    let end = rig.banger("vm set dev --name web --ttl 1h");
    assert_eq!((end.status, end.stderr.as_str()), (0, ""), "{end:#?}");
    assert_eq!(rig.sh("web", own), "web\nweb\n127.0.1.1 web\n");
    assert!(rig.refused("vm exec dev -- true").contains("there is no VM \"dev\""));
    let shown = rig.json("vm show --json web");
    let left = shown["expires_at"].as_u64().expect("a time") - shown["created_at"].as_u64().expect("a time");
    assert!((3600..3700).contains(&left), "{left}");
    assert!(rig.ok("vm show web").contains("(--ttl)"));

    // Its old name is free.
    rig.ok("vm create --name dev --image busybox --no-start");
    let said = rig.refused("vm set web --name dev");
    assert!(said.contains("there is a VM dev already"), "{said}");
    assert!(rig.refused("vm prune").contains("there is no terminal to ask on"));
    assert!(rig.ok("vm prune --dry-run").contains("dev"));
    assert_eq!(rig.ok("vm prune -f"), "dev\n");
    assert_eq!(rig.vm_state("web"), "running");

    rig.ok("vm restart web");
    assert_eq!(rig.sh("web", own), "web\nweb\n127.0.1.1 web\n");
    let session = rig.spawn(&["vm", "exec", "web", "--", "sleep", "100"]);
    let json = rig.json("vm set web --ttl 2s --json");
    assert_eq!(json[0]["name"], "web");
    let end = end_of(session);
    assert_eq!(end.status, 1, "{end:#?}");
    assert!(end.stderr.contains("the connection to the guest ended before the command did"), "{end:#?}");
    rig.until("it is gone", || rig.json("vm list --json").as_array().is_some_and(Vec::is_empty));
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_vm_that_nobody_uses_is_stopped_and_a_command_that_comes_then_runs_or_is_told() {
    let rig = Rig::new();
    rig.configure("network = 'user'\nauto_stop_stale_after = '2s'\n");
    rig.ok("vm run -d --name dev --image busybox");
    let begun = Instant::now();
    let session = rig.spawn(&["vm", "exec", "dev", "--", "sh", "-c", "sleep 5; echo slept"]);
    let end = end_of(session);
    assert_eq!((end.status, end.stdout.as_str()), (0, "slept\n"), "it was used: {end:#?}");
    assert!(begun.elapsed() >= Duration::from_secs(5));
    rig.until("it is stopped", || rig.vm_state("dev") == "stopped");
    assert!(rig.daemon_log().contains("nobody has used it for 2s; it is stopped"));

    let mut told = vec![];
    for round in 0..2 {
        rig.ok("vm start dev");
        // Commands around the moment at which it is stopped; each that runs puts it off.
        for pause in [1_950, 2_000, 2_020, 2_050, 2_100].into_iter().cycle().skip(round) {
            sleep(Duration::from_millis(pause));
            let end = rig.banger("vm exec dev -- echo here");
            if end.status == 0 {
                assert_eq!(end.stdout, "here\n");
                continue;
            }
            assert!(
                end.stderr.contains("vm dev is stopped")
                    || end.stderr.contains("vm dev is being stopped")
                    || end.stderr.contains("vm dev is stopping"),
                "round {round}: {end:#?}"
            );
            told.push(end.stderr);
            break;
        }
        rig.until("it is stopped", || rig.vm_state("dev") == "stopped");
    }
    assert_eq!(told.len(), 2);
    rig.ok("vm start dev");
    assert_eq!(rig.sh("dev", "echo on"), "on\n");
}

#[test]
#[ignore = "needs real parts; run by tests/run.sh"]
fn a_configuration_that_is_wrong_is_said_by_the_first_command_and_by_ten_at_once() {
    let rig = Rig::empty();
    rig.configure("network = 'user'\n[vm_defaults]\nmemroy = '1G'\n");
    let file = rig.path().join("config/config.toml");
    let why =
        format!("{}:3:1: there is no key \"memroy\" in [vm_defaults]; did you mean memory?", file.display());
    let said = rig.refused("vm run --image busybox -- true");
    assert_eq!(said, format!("banger: bangerd does not start: {why}"));
    let crowd: Vec<Child> = (0..10).map(|_| rig.spawn(&["vm", "list"])).collect();
    for child in crowd {
        let end = end_of(child);
        assert_eq!((end.status, end.stderr.trim_end()), (1, said.as_str()));
    }
    assert_eq!(rig.refused("config check"), format!("banger: {why}"));
    rig.configure("network = 'user'\n[vm_defaults]\nmemory = '1G'\n");
    assert_eq!(rig.ok("config check"), format!("{}: ok\n", file.display()));
    assert_eq!(rig.ok("vm list -q"), "");
    // What the daemon has read, and what is there by now.
    assert_eq!(rig.banger("config show").stderr, "");
    rig.configure("network = 'user'\n");
    let end = rig.banger("config show --origin");
    assert!(end.stderr.contains("read another configuration at its start; `banger daemon stop`"), "{end:#?}");
    rig.ok("daemon stop");
    rig.ok("vm list -q");
    assert_eq!(rig.banger("config show").stderr, "");
}
