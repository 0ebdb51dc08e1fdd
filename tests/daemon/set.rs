//! `vm set`: what is stored, what is said, and what is refused.

use banger::proto::api::{Code, DaemonDoctor, Event, Reply, Verdict, VmSet, VmStart};
use banger::vm::change::Change;
use banger::vm::size::Mib;

use crate::guests::{attend, good, up};
use crate::rig::{Rig, wanted};

fn set(change: Change) -> VmSet {
    VmSet { vm: "dev".to_owned(), change }
}

/// The notes that go with a change.
fn notes(rig: &Rig, change: Change) -> Vec<String> {
    let mut client = rig.connect();
    client.ask(set(change));
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
fn a_change_is_kept_and_its_disk_grows_at_the_next_start() {
    let mut rig = Rig::started();
    let vm = rig.create("dev");
    let cow = std::path::Path::new(&vm.directory).join("cow");
    let length = || std::fs::metadata(&cow).expect("stats").len();
    let change = Change { memory: Some(Mib(256)), disk: Some(Mib(128)), ..Change::default() };
    assert!(notes(&rig, change).is_empty(), "it does not run");
    rig.kill();
    rig.start();
    let spec = rig.show("dev").record.spec;
    assert_eq!((spec.vcpu, spec.memory, spec.disk), (1, Mib(256), Mib(128)));
    assert!(length() < 128 << 20);
    attend(rig.dirs().vm_sockets(vm.record.id), up(), good());
    rig.call(VmStart { vm: "dev".to_owned() }).expect("starts");
    assert!(length() > 128 << 20);
    let change = Change { memory: Some(Mib(512)), nat: Some(true), lan: Some(true), ..Change::default() };
    assert_eq!(
        notes(&rig, change),
        ["the memory and the network of dev change when it is started the next time"]
    );
    let spec = rig.show("dev").record.spec;
    assert_eq!((spec.memory, spec.nat, spec.lan), (Mib(512), true, true));
}

#[test]
fn what_cannot_be_is_refused_and_nothing_changes() {
    let rig = Rig::started();
    let before = rig.create("dev").record;
    let publish = |text: &str| Change { publish: vec![text.parse().expect("a port")], ..Change::default() };
    let table = [
        (Change { vcpu: Some(0), ..Change::default() }, "0 vCPUs are not possible here"),
        (Change { memory: Some(Mib(1)), ..Change::default() }, "1 MiB of memory is too little to boot"),
        (
            Change { disk: Some(Mib(1)), ..Change::default() },
            "the disk has 64 MiB and cannot shrink to 1 MiB",
        ),
        (Change { lan: Some(true), ..Change::default() }, "ask for --nat too"),
        (
            Change { unpublish: vec!["8080".parse().expect("a port")], ..Change::default() },
            "8080 is not published",
        ),
        (
            Change {
                memory: Some(Mib(256)),
                unpublish: vec!["1".parse().expect("a port")],
                ..publish("2:2")
            },
            "1 is not published",
        ),
    ];
    for (change, want) in table {
        let failure = rig.call(set(change)).expect_err(want);
        assert!(failure.message.starts_with("cannot change vm dev: "), "{failure:?}");
        assert!(failure.code == Code::BadRequest && failure.message.contains(want), "{failure:?}");
    }
    assert_eq!(rig.show("dev").record, before);
    let unknown = rig.call(VmSet { vm: "nope".to_owned(), change: Change::default() });
    assert_eq!(unknown.expect_err("there is none").code, Code::NotFound);
    let failure = rig
        .call(banger::proto::api::VmCreate {
            publish: ["8080:80", "0.0.0.0:8080:81"].map(|text| text.parse().expect("a port")).to_vec(),
            ..wanted("twice")
        })
        .expect_err("one port");
    assert_eq!(failure.message, "port 0.0.0.0:8080 is published twice");
}

#[test]
fn the_doctor_finds_what_there_is_and_what_is_missing() {
    let rig = Rig::of_a_plain_user();
    let rows = |rig: &Rig| rig.call(DaemonDoctor {}).expect("answers");
    let found = |rig: &Rig, subject: &str| {
        let rows = rows(rig);
        rows.into_iter().find(|row| row.subject == subject).unwrap_or_else(|| panic!("no row {subject}"))
    };
    let helper = found(&rig, "root helper");
    assert_eq!(
        (helper.verdict, helper.found.as_str()),
        (Verdict::Warn, "not there; VMs have QEMU's user-mode network")
    );
    assert_eq!(found(&rig, "vmm").verdict, Verdict::Pass);
    assert!(
        rows(&rig).iter().all(|row| row.subject != "dns"),
        "in a user-mode network nobody asks for names"
    );
    // A helper that is there, and hangs up.
    let socket = rig.dirs().root_socket();
    std::fs::create_dir_all(socket.parent().expect("a directory")).expect("makes it");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("binds");
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("sets the mode");
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let helper = found(&rig, "root helper");
    assert_eq!(helper.verdict, Verdict::Fail, "{helper:?}");
}
