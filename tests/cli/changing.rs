//! `vm set` and `vm prune`, as they are typed.

use std::sync::{Arc, Mutex};

use banger::proto::api::{Code, Request};
use serde_json::{Value, json};

use crate::fake::{Fake, vm};

/// A daemon with four VMs, whose `stopped` is somebody else's by the time that it is pruned.
fn with_vms() -> Fake {
    let mut owned = vm("owned", 4, "stopped");
    owned["owner"] = json!({ "pid": 1, "started": 1 });
    let mut failed = vm("failed", 2, "failed");
    failed["reason"] = "its kernel \u{1b}[2J".into();
    let vms = [vm("stopped", 1, "stopped"), failed, vm("runs", 3, "running"), owned];
    Fake::start(move |request, asked| match request {
        Request::VmList(_) => asked.done(json!(vms)),
        Request::VmDelete(delete) if delete.vm == "000000000001" => {
            asked.fail(Code::Conflict, "cannot delete vm stopped: it is running");
        }
        Request::VmDelete(_) => asked.done(Value::Null),
        Request::VmSet(set) if set.vm == "000000000003" => {
            let mut view = vm("runs", 3, "running");
            view["pending"] = json!(["memory"]);
            asked.done(view);
        }
        Request::VmSet(_) => asked.fail(Code::BadRequest, "cannot change vm stopped: no"),
        other => panic!("not expected: {other:?}"),
    })
}

fn deletes(fake: &Fake) -> Vec<(String, bool)> {
    let seen = fake.seen();
    let delete = |request: &Request| match request {
        Request::VmDelete(delete) => Some((delete.vm.clone(), delete.only_if_ended)),
        _ => None,
    };
    let mut all: Vec<_> = seen.iter().filter_map(delete).collect();
    all.sort();
    all
}

#[test]
fn prune_deletes_what_has_ended_and_is_nobodys_and_says_what_stays() {
    let fake = with_vms();
    let ran = fake.run(&["vm", "prune", "-f"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "failed\n"), "{ran:?}");
    assert_eq!(ran.err, "note: stopped stays: cannot delete vm stopped: it is running\n");
    assert_eq!(deletes(&fake), [("000000000001".to_owned(), true), ("000000000002".to_owned(), true)]);
}

#[test]
fn prune_asks_before_it_deletes_and_deletes_nothing_where_it_cannot_ask() {
    let fake = with_vms();
    let ran = fake.run(&["vm", "prune"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        ran.err,
        "banger: there is no terminal to ask on; -f deletes without asking, --dry-run shows what\n"
    );
    let ran = fake.run(&["vm", "prune", "--dry-run"]);
    let names: Vec<_> = ran.out.lines().skip(1).filter_map(|l| l.split_whitespace().nth(1)).collect();
    assert_eq!((ran.code, names), (Some(0), vec!["stopped", "failed"]));
    assert_eq!(deletes(&fake), []);
    let none = Fake::start(|_, asked| asked.done(json!([vm("runs", 3, "running")])));
    let ran = none.run(&["vm", "prune"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), "no VM is stopped or has failed\n"));
}

#[test]
fn a_name_and_a_time_reach_the_daemon_and_one_name_is_for_one_vm() {
    let fake = with_vms();
    let ran = fake.run(&["vm", "set", "runs", "--name", "web", "--ttl", "2h"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "runs\n"), "{ran:?}");
    let set = fake.lines().pop().expect("a request");
    assert_eq!((&set["params"]["name"], &set["params"]["ttl"]), (&json!("web"), &json!({ "seconds": 7200 })));
    assert_eq!(fake.run(&["vm", "set", "runs", "--ttl", "off"]).code, Some(0));
    let set = fake.lines().pop().expect("a request");
    assert_eq!(set["params"]["ttl"], "off");
    let asked = fake.seen().len();
    for (args, want) in [
        (&["vm", "set", "runs", "stopped", "--name", "web"][..], "a name is for one VM"),
        (&["vm", "set", "runs", "--name", "Web"], "\"Web\" cannot name a VM"),
        (&["vm", "set", "runs", "--ttl", "soon"], "no length of time"),
        (&["vm", "run", "--ttl", "0"], "less than a second"),
    ] {
        let ran = fake.run(args);
        assert!(ran.code == Some(1) && ran.err.contains(want), "{ran:?}");
    }
    assert_eq!(fake.seen().len(), asked, "nothing was asked for");
}

#[test]
fn what_was_changed_is_json_for_programs_and_the_rest_an_error() {
    let fake = with_vms();
    let ran = fake.run(&["vm", "set", "stopped", "runs", "nope", "--memory", "1G", "--json"]);
    assert_eq!(ran.code, Some(1));
    let json: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((json.as_array().map(Vec::len), &json[0]["pending"]), (Some(1), &json!(["memory"])));
    assert!(
        ran.err.contains("cannot change vm stopped: no") && ran.err.contains("there is no VM \"nope\""),
        "{ran:?}"
    );
}

#[test]
fn a_session_whose_vm_had_its_time_is_told_so() {
    let gone = Arc::new(Mutex::new(false));
    let is_gone = Arc::clone(&gone);
    let fake = Fake::start(move |request, asked| match request {
        Request::VmCreate(create) => {
            assert_eq!(create.ttl_s, Some(1));
            asked.done(vm("calm-otter", 1, "stopped"));
        }
        Request::VmStart(_) => asked.done(vm("calm-otter", 1, "running")),
        Request::VmExec(_) => {
            let (near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
            asked.done_with(Value::Null, near.into());
            *is_gone.lock().expect("not poisoned") = true;
            drop(far);
        }
        Request::VmShow(_) if *is_gone.lock().expect("not poisoned") => {
            asked.fail(Code::NotFound, "there is no VM \"000000000001\"");
        }
        other => panic!("not expected: {other:?}"),
    });
    let ran = fake.run(&["vm", "run", "-q", "--ttl", "1s", "--", "sleep", "100"]);
    assert_eq!(ran.code, Some(1));
    let last = ran.err.lines().last();
    assert_eq!(last, Some("VM calm-otter is deleted: its time (--ttl) was over"), "{ran:?}");
}
