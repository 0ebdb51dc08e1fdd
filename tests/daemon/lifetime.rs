//! VMs that get another name, are pruned, or whose time is over: that of their --ttl, and that of a VM that nobody uses.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use banger::image::config::Asked;
use banger::proto::agent::{Answer, Code as GuestCode, Refusal, Request};
use banger::proto::api::{Code, Event, Reply, VmCreate, VmDelete, VmExec, VmList, VmSet, VmStart, VmStop};
use banger::vm::change::Change;
use banger::vm::lifetime::{Activity, Ttl};

use crate::guests::{Manner, answer, attend, good, up};
use crate::rig::{Rig, wanted};

fn start(rig: &Rig, vm: &str, manner: Manner) {
    attend(rig.dirs().vm_sockets(rig.show(vm).record.id), up(), manner);
    rig.call(VmStart { vm: vm.to_owned() }).expect("starts");
}

fn renamed(name: &str) -> Change {
    Change { name: Some(name.parse().expect("a name")), ..Change::default() }
}

/// The notes that go with a change.
fn set(rig: &Rig, vm: &str, change: Change) -> Vec<String> {
    let mut client = rig.connect();
    client.ask(VmSet { vm: vm.to_owned(), change });
    let mut notes = vec![];
    loop {
        match client.line().expect("an answer") {
            Reply::Event(Event::Note { text }) => notes.push(text),
            Reply::Event(_) => {}
            Reply::Done(_) => return notes,
            Reply::Error(failure) => panic!("{failure:?}"),
        }
    }
}

#[test]
fn a_vm_that_runs_gets_another_name_and_its_guest_is_told() {
    let mut rig = Rig::started();
    let id = rig.create("dev").record.id;
    rig.create("web");
    let failure = rig.call(VmSet { vm: "dev".to_owned(), change: renamed("web") }).expect_err("it is taken");
    assert!(
        failure.code == Code::Conflict && failure.message.contains("there is a VM web already"),
        "{failure:?}"
    );
    let told = Arc::new(Mutex::new(vec![]));
    let heard = Arc::clone(&told);
    let manner: Manner = Arc::new(move |request| {
        if let Request::Hostname(hostname) = request {
            heard.lock().expect("not poisoned").push(hostname.name.to_string());
        }
        None
    });
    start(&rig, "dev", manner);
    assert_eq!(set(&rig, "dev", renamed("build")), [""; 0]);
    assert_eq!(set(&rig, "build", renamed("build")), [""; 0], "it is called so already");
    assert_eq!(*told.lock().expect("not poisoned"), ["build"]);
    assert_eq!((rig.show("build").record.id, rig.label("build")), (id, "running"));
    rig.create("dev");
    rig.kill();
    rig.start();
    assert_eq!(rig.show("build").record.id, id);
}

#[test]
fn a_guest_that_does_not_take_its_name_is_told_of() {
    let rig = Rig::started();
    rig.create("dev");
    let refusal =
        Refusal { code: GuestCode::BadRequest, message: "this is no request: \u{1b}[2J".to_owned() };
    let no = answer(&Answer::Refused(refusal));
    start(&rig, "dev", Arc::new(move |request| matches!(request, Request::Hostname(_)).then(|| no.clone())));
    let want = "the guest of web calls itself dev until it is started the next time";
    assert_eq!(set(&rig, "dev", renamed("web")), [want]);
    assert!(rig.log().contains("the guest did not take its name") && !rig.log().contains('\u{1b}'));
}

#[test]
fn two_that_want_one_name_do_not_both_get_it() {
    let rig = Rig::started();
    for name in ["a", "b", "c", "d"] {
        rig.create(name);
    }
    let got: Vec<bool> = std::thread::scope(|scope| {
        let change = |vm: &'static str| {
            let rig = &rig;
            scope.spawn(move || rig.call(VmSet { vm: vm.to_owned(), change: renamed("one") }).is_ok())
        };
        let all = ["a", "b", "c", "d"].map(change);
        all.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(got.iter().filter(|got| **got).count(), 1, "{got:?}");
    let names = rig.call(VmList {}).expect("lists");
    assert_eq!(names.iter().filter(|vm| vm.record.name.as_str() == "one").count(), 1);
}

#[test]
fn what_counts_from_the_next_start_is_shown_until_then() {
    let rig = Rig::started();
    rig.create("dev");
    start(&rig, "dev", good());
    let change = Change { vcpu: Some(2), ..Change::default() };
    let note = "the number of CPUs of dev changes when it is started the next time";
    for _ in 0..2 {
        assert_eq!(set(&rig, "dev", change.clone()), [note], "also the second time");
    }
    assert_eq!(rig.show("dev").pending, [banger::vm::change::Later::Vcpu]);
    set(&rig, "dev", Change { vcpu: Some(1), ..Change::default() });
    assert_eq!(rig.show("dev").pending, []);
}

#[test]
fn only_what_has_ended_is_pruned() {
    let rig = Rig::started();
    for name in ["stopped", "runs"] {
        rig.create(name);
    }
    start(&rig, "runs", good());
    rig.call(VmCreate { soon: true, ..wanted("made-just-now") }).expect("creates");
    let prune = |vm: &str| rig.call(VmDelete { vm: vm.to_owned(), only_if_ended: true });
    prune("stopped").expect("deletes");
    for (vm, why) in [("runs", "it is running"), ("made-just-now", "whoever made it is about to use it")] {
        let failure = prune(vm).expect_err(vm);
        assert!(
            failure.code == Code::Conflict && failure.message == format!("cannot delete vm {vm}: {why}"),
            "{failure:?}"
        );
    }
    start(&rig, "made-just-now", good());
    rig.call(VmStop { vm: "made-just-now".to_owned(), force: true }).expect("stops");
    prune("made-just-now").expect("it has been used");
    assert_eq!(rig.call(VmList {}).expect("lists").len(), 1);
}

#[test]
fn a_vm_whose_time_is_over_goes_whatever_it_does_and_whoever_is_there_to_see() {
    let mut rig = Rig::started();
    let with_ttl = |name: &str, seconds| VmCreate { ttl_s: Some(seconds), ..wanted(name) };
    rig.call(with_ttl("runs", 2)).expect("creates");
    start(&rig, "runs", good());
    rig.call(with_ttl("kept", 2)).expect("creates");
    set(&rig, "kept", Change { ttl: Some(Ttl::Off), ..Change::default() });
    rig.create("later");
    set(&rig, "later", Change { ttl: Some(Ttl::Seconds(1)), ..Change::default() });
    let names = |rig: &Rig| -> Vec<String> {
        rig.call(VmList {}).expect("lists").iter().map(|vm| vm.record.name.to_string()).collect()
    };
    rig.until("two are gone", |rig| names(rig) == ["kept"]);
    assert!(rig.log().contains("vm runs: its time is over (--ttl)"), "{}", rig.log());
    // Its end is stored: a daemon that comes after it sees to it at once.
    rig.call(with_ttl("orphan", 1)).expect("creates");
    rig.kill();
    std::thread::sleep(Duration::from_millis(1500));
    rig.start();
    rig.until("it is gone", |rig| names(rig) == ["kept"]);
}

/// A guest that tells of `open` operations, and is ended at once when it is to stop.
fn used(open: &Arc<AtomicU32>, quiet_ms: u64) -> Manner {
    let open = Arc::clone(open);
    Arc::new(move |request| match request {
        Request::Activity => {
            let activity = Activity { open: open.load(Ordering::SeqCst), quiet_ms };
            Some(answer(&Answer::Activity(activity)))
        }
        Request::PowerOff => Some(b"no frame".to_vec()),
        _ => None,
    })
}

#[test]
fn a_vm_is_stopped_when_nobody_uses_it_and_not_before() {
    let mut rig = Rig::new();
    rig.configure("network = 'user'\nauto_stop_stale_after = '1s'\n");
    rig.seed();
    rig.start();
    let open = Arc::new(AtomicU32::new(1));
    rig.create("dev");
    let begun = Instant::now();
    start(&rig, "dev", used(&open, 60_000));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(rig.label("dev"), "running", "a command is open in it");
    open.store(0, Ordering::SeqCst);
    rig.until("it is stopped", |rig| rig.label("dev") == "stopped");
    assert!(begun.elapsed() >= Duration::from_secs(3));
    assert!(rig.log().contains("nobody has used it for 1s; it is stopped"), "{}", rig.log());
    // One that does not answer the question stays.
    let silent: Manner =
        Arc::new(|request| matches!(request, Request::Activity).then(|| b"no frame".to_vec()));
    start(&rig, "dev", silent);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(rig.label("dev"), "running");
    assert!(rig.log().contains("cannot say whether it is used"), "{}", rig.log());
}

#[test]
fn a_command_that_comes_as_its_vm_is_stopped_runs_or_is_told_and_the_vm_starts_again() {
    let mut rig = Rig::new();
    rig.configure("network = 'user'\nauto_stop_stale_after = '1s'\n");
    rig.seed();
    rig.start();
    rig.create("dev");
    let exec = || {
        let asked = Asked { argv: vec!["true".to_owned()], ..Asked::default() };
        VmExec { vm: "dev".to_owned(), asked, as_run: false, tty: None, stdin: false }
    };
    let mut refused = 0;
    for round in 0..4 {
        start(&rig, "dev", used(&Arc::default(), 60_000));
        let due = Instant::now() + Duration::from_millis(970);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // A crowd around the very moment; each one that gets in makes it a used VM again.
        loop {
            match rig.call_fd(exec()) {
                Ok(_) => std::thread::sleep(Duration::from_millis(1001)),
                Err(failure) => {
                    assert_eq!(failure.code, Code::NotRunning, "round {round}: {failure:?}");
                    refused += 1;
                    break;
                }
            }
        }
        rig.until("it is stopped", |rig| rig.label("dev") == "stopped");
    }
    assert_eq!(refused, 4);
    start(&rig, "dev", used(&Arc::default(), 60_000));
    assert_eq!(rig.label("dev"), "running");
}
