//! What a process sees and may do in the jail that QEMU gets, asked by a shell in QEMU's place.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use banger::proto::root::Signal;
use banger::root::launch;
use banger::vm::state::Processes;

use crate::rig::{OWNER, Rig, UID, can_connect, status, wait_for};

/// It says what it sees, a word and a colon first, and stays.
const LOOK: &str = r#"
echo "id: $(id -u) $(id -g) $(id -G)"
echo "pid: $$"
echo "root: $(echo /*)"
echo "dev: $(echo /dev/*)"
echo "home: $(ls -A /home /root /etc /var /proc /sys 2>/dev/null | tr '\n' ' ')"
echo "kernel: $(cat /kernel)"
echo "drive: $(cat /drive1)"
echo "links: $(cat /proc/net/dev 2>&1 | wc -l) $(ls /sys/class/net 2>&1 | wc -l)"
tried() { if ( eval "$2" ) 2>/dev/null; then echo "$1: could"; else echo "$1: could not"; fi; }
tried change-kernel ': >/kernel'
tried change-image ': >/drive0'
tried change-root ': >/new'
tried change-usr ': >/usr/new'
tried run-from-sockets 'cd /vm/* && cp /bin/true true && ./true'
tried make-device 'mknod /vm/d c 1 3'
tried mount 'mount -t tmpfs t /vm'
tried write-drive 'echo more >>/drive1'
tried write-console 'echo hello >>/console.log'
tried write-sockets 'cd /vm/* && : >file'
echo "environment: $(env | sort | tr '\n' ' ')"
echo "end: of it"
exec sleep 1000"#;

#[test]
#[ignore = "needs root, and its own network namespace: unshare -n"]
fn a_jail_shows_the_vms_own_files_and_lets_nothing_else_be_changed() {
    let rig = Rig::probing(LOOK);
    let processes = rig.launch().expect("launched");
    let log = rig.log_with("end: of it");
    let said = |what: &str| {
        let line = log.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("nothing of {what}: {log}")).trim().to_owned()
    };
    assert_eq!(said("id"), format!("{UID} {UID} {UID}"));
    assert_eq!(said("pid"), "1");
    assert_eq!(said("dev"), "/dev/null /dev/urandom /dev/zero");
    let root = said("root");
    for shown in ["/console.log", "/drive0", "/drive1", "/initrd", "/kernel", "/usr", "/vm"] {
        assert!(root.contains(shown), "{root}");
    }
    for hidden in ["/proc", "/sys", "/home", "/root", "/var", "/run", "/boot", "/vmm.log"] {
        assert!(!root.split(' ').any(|name| name == hidden), "{hidden} in {root}");
    }
    assert_eq!(said("home"), "/etc: alternatives ld.so.cache");
    assert_eq!((said("kernel"), said("drive")), ("kernel".to_owned(), "1".to_owned()));
    for (deed, want) in [
        ("change-kernel", "could not"),
        ("change-image", "could not"),
        ("change-root", "could not"),
        ("change-usr", "could not"),
        ("run-from-sockets", "could not"),
        ("make-device", "could not"),
        ("mount", "could not"),
        ("write-drive", "could"),
        ("write-console", "could"),
        ("write-sockets", "could"),
    ] {
        assert_eq!(said(deed), want, "{deed}");
    }
    assert!(said("environment").contains("LC_ALL=C"), "{log}");
    let pid = processes.vmm.pid;
    for (name, want) in [("NoNewPrivs", "1"), ("CapEff", "0000000000000000"), ("CapPrm", "0000000000000000")]
    {
        assert_eq!(status(pid, name), want, "{name}");
    }
    assert!(status(pid, "NSpid").ends_with("\t1"), "{}", status(pid, "NSpid"));
    for namespace in ["mnt", "pid", "net", "ipc", "uts"] {
        let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{namespace}")).expect("reads");
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
    assert_eq!(fs::read_to_string(rig.owners("console")).expect("reads"), "hello\n");
    assert_eq!(fs::read_to_string(rig.owners("1")).expect("reads"), "1more\n");
    rig.remove();
}

#[test]
#[ignore = "needs root, and its own network namespace: unshare -n"]
fn the_owner_reaches_the_sockets_and_nobody_else_does() {
    let rig = Rig::probing("cd /vm/* && exec /usr/bin/nc -lkU qmp.sock");
    rig.launch().expect("launched");
    let socket = rig.sockets().join("qmp.sock");
    wait_for(|| socket.exists().then_some(())).expect("is made");
    wait_for(|| can_connect(OWNER, &socket).then_some(())).expect("the owner connects");
    assert!(!can_connect(OWNER + 1, &socket), "a stranger");
    let meta = fs::metadata(rig.sockets()).expect("stats");
    assert_eq!((meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777), (OWNER, UID, 0o770));
    for name in ["1", "console", "log"] {
        let meta = fs::metadata(rig.owners(name)).expect("stats");
        assert_eq!(
            (meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777),
            (OWNER, UID, 0o660),
            "{name}"
        );
    }
    for name in ["kernel", "initrd", "0"] {
        let meta = fs::metadata(rig.owners(name)).expect("stats");
        assert_eq!(
            (meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777),
            (OWNER, OWNER, 0o444),
            "{name}"
        );
    }
    rig.remove();
}

#[test]
#[ignore = "needs root, and its own network namespace: unshare -n"]
fn a_vm_that_runs_is_not_launched_again_and_ends_by_either_signal() {
    let rig = Rig::probing("trap 'echo caught; exit' TERM; echo ready; while :; do sleep 0.05; done");
    let processes = rig.launch().expect("launched");
    rig.log_with("ready");
    let error = rig.launch().expect_err("it runs").to_string();
    assert_eq!(error, format!("it runs already, as process {}", processes.vmm.pid));
    assert_eq!(launch::jails(&rig.ground).expect("lists"), [rig.launch.vm]);
    // Its device catches nothing, and as process 1 of its namespace would not get it.
    launch::signal(processes, Signal::Terminate).expect("signals");
    rig.log_with("caught");
    wait_for(|| (!alive(processes)).then_some(())).expect("both end");
    launch::signal(processes, Signal::Kill).expect("that nobody is left is no error");
    // What has ended by itself can be launched again at once.
    fs::remove_file(rig.sockets().join("vhost.sock")).expect("is stale");
    let processes = rig.launch().expect("launched");
    launch::signal(processes, Signal::Kill).expect("signals");
    wait_for(|| (!alive(processes)).then_some(())).expect("both end");
    rig.remove();
    launch::remove(&rig.ground, rig.launch.vm, Some(processes)).expect("that nothing is left is no error");
}

fn alive(processes: Processes) -> bool {
    let alive = |p| banger::host::process::is_alive(p).expect("reads /proc");
    alive(processes.vmm) || processes.vsock.is_some_and(alive)
}
