//! VMs from making to removal, and what a daemon finds after its own death.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use banger::proto::api::{
    Code, DaemonStatus, ImageDelete, ImageList, ImageTag, KernelDefault, KernelList, KernelRemove, VmCreate,
    VmDelete, VmList, VmShow, VmStart, VmStop,
};
use banger::vm::size::Mib;
use banger::vm::state::State;

use crate::guests::{attend, good, up};
use crate::rig::{IMAGE, KERNEL, Rig, alive, wanted};

#[test]
fn a_vm_is_made_without_copying_and_goes_without_a_trace() {
    let rig = Rig::started();
    let view = rig.create("dev");
    let directory = rig.dirs().vm(view.record.id);
    let blocks: u64 = std::fs::read_dir(&directory)
        .expect("lists")
        .map(|entry| entry.expect("an entry").metadata().expect("stats").blocks())
        .sum();
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
    assert_eq!(rig.call(VmList {}).expect("lists").len(), 1);
    rig.call(VmDelete { vm: view.record.id.to_string()[..5].to_owned(), only_if_ended: false })
        .expect("deletes by a prefix");
    assert!(!directory.exists());
    assert_eq!(rig.call(VmList {}).expect("lists"), []);
}

#[test]
fn what_cannot_be_made_is_refused_in_a_sentence_and_leaves_nothing() {
    let rig = Rig::started();
    rig.create("dev");
    type Spoil = fn(&mut VmCreate);
    let table: [(Spoil, Code, &str); 7] = [
        (|w| w.name = "dev".parse().ok(), Code::Conflict, "there is a VM dev already ("),
        (|w| w.wish.memory = Some(Mib(64)), Code::BadRequest, "64 MiB of memory is too little to boot"),
        (|w| w.wish.memory = Some(Mib(1 << 40)), Code::BadRequest, "of memory is more than this host has"),
        (|w| w.wish.disk = Some(Mib(1 << 40)), Code::BadRequest, "is larger than the host's file system"),
        (|w| w.wish.vcpu = Some(0), Code::BadRequest, "0 vCPUs are not possible here"),
        (
            |w| w.kernel = Some("6.0".to_owned()),
            Code::NotFound,
            "there is no kernel \"6.0\"; did you mean 6.1?",
        ),
        (|w| w.image = Some("No Such".to_owned()), Code::NotFound, "there is no image \"No Such\""),
    ];
    for (spoil, code, want) in table {
        let mut wish = wanted("other");
        spoil(&mut wish);
        let failure = rig.call(wish).expect_err(want);
        assert!(failure.code == code && failure.message.contains(want), "{failure:?}");
    }
    assert_eq!(rig.call(VmList {}).expect("lists").len(), 1);
    assert_eq!(std::fs::read_dir(rig.dirs().state.join("vms")).expect("lists").count(), 1);
    rig.create("other");
}

#[test]
fn automatic_names_differ_when_many_are_made_at_once() {
    let rig = Rig::started();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| rig.call(VmCreate { name: None, ..wanted("x") }).expect("creates"));
        }
    });
    let names: std::collections::BTreeSet<String> =
        rig.call(VmList {}).expect("lists").iter().map(|vm| vm.record.name.to_string()).collect();
    assert_eq!(names.len(), 20);
}

#[test]
fn without_a_kernel_the_way_to_one_is_said() {
    let mut rig = Rig::new();
    rig.start();
    let failure = rig.call(wanted("dev")).expect_err("there is none");
    assert_eq!(failure.code, Code::NotFound);
    assert!(failure.message.contains("`banger kernel import --host`"), "{failure:?}");
    assert!(failure.message.contains("`banger kernel import --deb FILE`"), "{failure:?}");
}

#[test]
fn an_unknown_vm_and_an_ambiguous_prefix_are_told_apart() {
    let rig = Rig::started();
    let ids: Vec<String> = (0..17).map(|n| rig.create(&format!("v{n}")).record.id.to_string()).collect();
    let unknown = rig.call(VmShow { vm: "v1x".to_owned() }).expect_err("unknown");
    assert_eq!(unknown.code, Code::NotFound);
    assert!(unknown.message.starts_with("there is no VM \"v1x\"; did you mean v1"), "{unknown:?}");
    // Of seventeen, two begin with the same of sixteen digits.
    let shared =
        ids.iter().find(|id| ids.iter().filter(|other| other[..1] == id[..1]).count() > 1).expect("two");
    let ambiguous = rig.call(VmShow { vm: shared[..1].to_owned() }).expect_err("ambiguous");
    assert_eq!(ambiguous.code, Code::Conflict);
    assert!(ambiguous.message.contains("could be more than one VM"), "{ambiguous:?}");
}

#[test]
fn an_image_or_a_kernel_in_use_is_not_removed() {
    let rig = Rig::started();
    rig.call(VmCreate { kernel: Some(KERNEL.to_owned()), ..wanted("dev") }).expect("creates");
    let image = rig.call(ImageDelete { image: IMAGE.to_owned() }).expect_err("in use");
    assert_eq!(
        (image.code, image.message.as_str()),
        (Code::Conflict, "image base is needed by vm dev; delete them first")
    );
    let kernel = rig.call(KernelRemove { kernel: KERNEL.to_owned() }).expect_err("in use");
    assert!(kernel.message.starts_with("kernel 6.1 is needed by vm dev"), "{kernel:?}");
    rig.call(VmDelete { vm: "dev".to_owned(), only_if_ended: false }).expect("deletes");
    rig.call(ImageTag { image: IMAGE.to_owned(), name: "second".to_owned() }).expect("tags");
    rig.call(ImageDelete { image: IMAGE.to_owned() }).expect("removes a name");
    let left = rig.call(ImageList {}).expect("lists");
    assert_eq!(left[0].record.names, ["second"]);
    rig.call(ImageDelete { image: "second".to_owned() }).expect("removes the last name, and the image");
    assert_eq!(rig.call(ImageList {}).expect("lists"), []);
    assert!(!rig.dirs().image_file(&"ab".repeat(32)).exists());
    assert!(rig.call(KernelDefault { kernel: KERNEL.to_owned() }).expect("is the default").default);
    rig.call(KernelRemove { kernel: KERNEL.to_owned() }).expect("removes");
    assert_eq!(rig.call(KernelList {}).expect("lists"), []);
    assert!(!rig.dirs().kernel(KERNEL).exists());
}

#[test]
fn a_vm_that_belongs_to_a_process_ends_with_it() {
    let mut rig = Rig::started();
    // The owner is whoever asks: a process that asks, lives for a while, and is killed.
    let own = |rig: &Rig, name: &str| {
        let line = banger::proto::api::Request::from(VmCreate { ephemeral: true, ..wanted(name) })
            .to_json()
            .expect("serialises");
        let script = r#"
            use IO::Socket::UNIX;
            my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die;
            print $s "$ARGV[1]\n"; $s->flush; <$s>; sleep 60;"#;
        Command::new("perl")
            .args(["-e", script])
            .arg(rig.dirs().socket())
            .arg(line)
            .stdin(Stdio::null())
            .spawn()
            .expect("perl is installed")
    };
    let exists = |rig: &Rig, name: &str| rig.call(VmShow { vm: name.to_owned() }).is_ok();
    let mut first = own(&rig, "first");
    let mut second = own(&rig, "second");
    rig.until("both exist", |rig| exists(rig, "first") && exists(rig, "second"));
    let attended = rig.show("second").record.id;
    attend(rig.dirs().vm_sockets(attended), up(), good());
    rig.call(VmStart { vm: "second".to_owned() }).expect("starts");
    let processes = rig.show("second").record.state.processes().expect("it runs");
    first.kill().expect("kills it");
    first.wait().expect("reaps it");
    rig.until("the first is gone", |rig| !exists(rig, "first"));
    assert!(exists(&rig, "second"));
    rig.kill();
    second.kill().expect("kills it");
    second.wait().expect("reaps it");
    rig.start();
    rig.until("the second is gone", |rig| !exists(rig, "second"));
    assert!(!alive(processes.vmm));
    assert_eq!(std::fs::read_dir(rig.dirs().state.join("vms")).expect("lists").count(), 0);
}

#[test]
fn a_daemon_killed_while_a_vm_starts_leaves_a_failed_vm_and_no_process() {
    let mut rig = Rig::started();
    rig.create("dev");
    let mut client = rig.connect();
    client.ask(VmStart { vm: "dev".to_owned() });
    rig.until("it is starting", |rig| rig.label("dev") == "starting");
    let processes = rig.show("dev").record.state.processes().expect("it has processes");
    rig.kill();
    rig.start();
    let state = rig.show("dev").record.state;
    assert_eq!(state, State::Failed { reason: "bangerd ended while the VM was starting".to_owned() });
    rig.until("no process is left", |_| !alive(processes.vmm) && !alive(processes.vsock.expect("a device")));
    assert_eq!(std::fs::read_dir(rig.dirs().runtime.join("vms")).expect("lists").count(), 0);
}

#[test]
fn a_daemon_killed_at_any_time_is_followed_by_one_that_agrees_with_the_host() {
    let mut rig = Rig::started();
    for (n, delay) in [0u64, 1, 2, 3, 5, 8, 12, 20, 30].into_iter().enumerate() {
        let name = format!("v{n}");
        let vm = rig.create(&name);
        attend(rig.dirs().vm_sockets(vm.record.id), up(), good());
        let mut client = rig.connect();
        client.ask(VmStart { vm: name.clone() });
        std::thread::sleep(std::time::Duration::from_millis(delay));
        rig.kill();
        rig.start();
        let state = rig.show(&name).record.state;
        match &state {
            State::Running { processes } => assert!(alive(processes.vmm), "after {delay} ms"),
            State::Stopped | State::Failed { .. } => {}
            other => panic!("{other:?} after {delay} ms"),
        }
        rig.call(VmDelete { vm: name, only_if_ended: false }).expect("deletes");
    }
    // Whatever was launched has this rig's directory in its arguments, or in its open files: none is left.
    let mine = rig.path().to_string_lossy().into_owned();
    rig.until("no process is left", |rig| {
        processes_with(&mine).into_iter().all(|pid| pid == rig.daemon_pid())
    });
}

/// Processes that have `text` among their arguments or environment, but for the test's own.
fn processes_with(text: &str) -> Vec<u32> {
    let holds = |pid: u32| {
        ["cmdline", "environ"].iter().any(|file| {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains(text)
        })
    };
    std::fs::read_dir("/proc")
        .expect("lists")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id() && holds(*pid))
        .collect()
}

#[test]
fn leftovers_are_removed_at_start() {
    let mut rig = Rig::started();
    rig.create("dev");
    rig.kill();
    let state = rig.dirs().state;
    let left = [
        state.join("vms/00000000dead"),
        state.join("kernels/.staged-op-1"),
        rig.dirs().runtime.join("vms/00000000dead"),
    ];
    left.iter().for_each(|dir| std::fs::create_dir_all(dir.join("below")).expect("makes it"));
    let files = [state.join("images/.staged-op-2"), state.join("images/ee.ext4"), state.join(".staged-x")];
    files.iter().for_each(|file| std::fs::write(file, "x").expect("writes"));
    rig.start();
    left.iter().chain(&files).for_each(|path| assert!(!path.exists(), "{}", path.display()));
    assert_eq!(rig.label("dev"), "stopped");
    assert_eq!(rig.call(ImageList {}).expect("lists").len(), 1);
}

#[test]
fn an_idle_daemon_does_not_wake() {
    let rig = Rig::started();
    (0..5).for_each(|n| drop(rig.create(&format!("v{n}"))));
    let pid = rig.daemon_pid();
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).expect("lists").count();
    rig.until("its threads have ended", |_| threads() <= 2);
    let switches = || -> u64 {
        std::fs::read_dir(format!("/proc/{pid}/task"))
            .expect("lists")
            .map(|task| std::fs::read_to_string(task.expect("a task").path().join("status")).expect("reads"))
            .flat_map(|status| {
                let counts = status.lines().filter(|l| l.contains("voluntary_ctxt_switches"));
                counts
                    .map(|l| l.rsplit('\t').next().expect("a count").parse::<u64>().expect("a number"))
                    .collect::<Vec<_>>()
            })
            .sum()
    };
    std::thread::sleep(std::time::Duration::from_millis(500));
    let before = switches();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(switches(), before);
}

#[test]
fn the_daemon_is_found_by_its_name() {
    let rig = Rig::started();
    let name = std::fs::read_to_string(format!("/proc/{}/comm", rig.daemon_pid())).expect("reads");
    assert_eq!(name, "bangerd\n");
}

#[test]
fn stopping_what_is_stopped_and_asking_twice_is_no_error() {
    let rig = Rig::started();
    rig.create("dev");
    for force in [false, true] {
        let view = rig.call(VmStop { vm: "dev".to_owned(), force }).expect("nothing to do");
        assert_eq!(view.record.state, State::Stopped);
    }
    let status = rig.call(DaemonStatus {}).expect("answers");
    assert_eq!((status.running_vms, status.pid), (0, rig.daemon_pid()));
}
