//! kill -9 of the helper at each step of what it does: whoever comes next finds it done or not begun, and never half of it.

use banger::proto::root::{Answer, Request};
use serde_json::json;

use crate::life::{A, B, in_firewall, taps};
use crate::rig::{Rig, create_tap, ensure_bridge, remove_vm, request, run};
use crate::world::World;

/// What must be the same for the records, `ip` and `nft`, whatever happened.
fn consistent(rig: &Rig, step: &str) -> Vec<String> {
    let vms: Vec<String> = rig.status().vms.iter().map(|vm| vm.vm.to_string()).collect();
    let from_taps: Vec<String> = taps().iter().map(|tap| tap.trim_start_matches("bgr").to_owned()).collect();
    assert_eq!(vms, from_taps, "{step}: records and taps");
    for vm in [A, B] {
        assert_eq!(
            in_firewall(vm) > 0,
            vms.iter().any(|known| known == vm),
            "{step}: VM {vm} in the firewall"
        );
    }
    vms
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn a_helper_killed_at_any_step_leaves_nothing_that_the_next_does_not_mend() {
    let bridge = ensure_bridge();
    let tap = create_tap(B, 3);
    let nat = request(json!({"op": "set-nat", "vm": A, "nat": true, "lan": false}));
    let (remove, delete) = (remove_vm(A), request(json!({"op": "delete-tap", "vm": A})));
    let steps: Vec<(&str, &Request)> = vec![
        ("ensure-bridge:recorded", &bridge),
        ("ensure-bridge:made", &bridge),
        ("ensure-bridge:loaded", &bridge),
        ("ensure-bridge:done", &bridge),
        ("create-tap:recorded", &tap),
        ("create-tap:made", &tap),
        ("create-tap:admitted", &tap),
        ("create-tap:done", &tap),
        ("set-nat:recorded", &nat),
        ("set-nat:done", &nat),
        ("remove:recorded", &remove),
        ("remove:ended", &remove),
        ("remove:dismissed", &remove),
        ("remove:deleted", &remove),
        ("remove:done", &remove),
        ("remove:dismissed", &delete),
        ("remove:deleted", &delete),
    ];
    println!("{:<24} {:<12} vms after", "killed at", "by");
    for (step, request) in steps {
        let mut rig = Rig::started();
        let of_bridge = step.starts_with("ensure-bridge");
        if !of_bridge {
            assert_eq!(rig.ask(&ensure_bridge()), Answer::Done);
            rig.settle_carrier();
        }
        let empty = World::at_rest(&rig).without_handles();
        if !of_bridge {
            assert_eq!(rig.ask(&create_tap(A, 2)), Answer::Done);
        }
        rig.kill();
        rig.start_with(&[("BANGER_FAILPOINT", step)]);
        // What it does at its start passes no such step.
        rig.wait_until_it_serves();
        assert_eq!(rig.try_ask(request), None, "{step}: it died");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&rig.died()), Some(9), "{step}");
        rig.start();
        let vms = consistent(&rig, step);
        let op = serde_json::to_value(request).expect("serialises")["op"].clone();
        println!("{step:<24} {:<12} {vms:?}", op.as_str().unwrap_or_default());
        if of_bridge {
            assert_eq!(rig.ask(&ensure_bridge()), Answer::Done);
        }
        for vm in vms {
            assert_eq!(rig.ask(&remove_vm(&vm)), Answer::Done, "{step}");
        }
        if !of_bridge {
            assert_eq!(empty.lasting_difference(|| World::of(&rig).without_handles()), [""; 0], "{step}");
        }
    }
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn reconcile_removes_what_no_record_claims_and_makes_again_what_one_does() {
    let mut rig = Rig::bridged();
    assert_eq!(rig.ask(&create_tap(A, 2)), Answer::Done);
    assert_eq!(rig.ask(&create_tap(B, 3)), Answer::Done);
    rig.kill();
    // B's record is lost, A's tap is deleted by somebody, the firewall is flushed; a tap of our name is somebody else's, another one
    // bears our stamp.
    std::fs::remove_file(rig.dirs().root_runtime.join(format!("vms/{B}.json"))).expect("removes");
    run("ip", &format!("link delete bgr{A}"));
    run("nft", "flush ruleset");
    run("ip", "tuntap add bgr0000000000ff mode tap");
    run("ip", "tuntap add bgr0000000000fe mode tap");
    run("ip", "link set bgr0000000000fe alias banger:0000000000fe");
    let out = rig.reconcile();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    let mut left = taps();
    left.sort();
    assert_eq!(left, [format!("bgr{A}"), "bgr0000000000ff".to_owned()], "{said}");
    assert!(in_firewall(A) > 0 && in_firewall(B) == 0);
    let again = rig.reconcile();
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!said.contains("delete") && !said.contains("tap of VM"), "nothing is left to do: {said}");
    rig.start();
    assert_eq!(rig.ask(&remove_vm(A)), Answer::Done);
    assert_eq!(taps(), ["bgr0000000000ff"]);
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn a_bridge_that_somebody_deletes_comes_back_with_its_taps() {
    let mut rig = Rig::bridged();
    assert_eq!(rig.ask(&create_tap(A, 2)), Answer::Done);
    rig.kill();
    run("ip", "link delete br-banger");
    rig.start();
    let link = run("ip", &format!("-j link show bgr{A}"));
    assert!(link.contains("\"master\":\"br-banger\""), "{link}");
    assert!(in_firewall(A) > 0);
}

#[test]
#[ignore = "needs root and its own network namespace: unshare -n"]
fn the_next_helper_waits_for_what_the_last_ones_launcher_has_begun() {
    let mut rig = Rig::bridged();
    let [_, launcher] = rig.pids();
    let launcher = rustix::process::Pid::from_raw(i32::try_from(launcher).expect("a pid")).expect("a pid");
    let send = |signal| rustix::process::kill_process(launcher, signal).expect("signals it");
    // As if it were in the middle of something: it holds on, and so does the lock.
    send(rustix::process::Signal::STOP);
    rig.kill_alone();
    rig.start_with(&[]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(rig.try_ask(&Request::Status), None, "the lock is held");
    send(rustix::process::Signal::CONT);
    rig.wait_until_it_serves();
}
