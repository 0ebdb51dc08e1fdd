//! Real guests in jails: they get ready, reach the host by their tap, and leave nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use banger::kernel::initramfs::assemble;
use banger::network::names::TapName;
use banger::proto::agent::Ready;
use banger::proto::root::{DriveKind, Root, Vmm, Vsock};
use banger::root::launch::Programs;
use banger::vm::cow::file_bytes;
use banger::vmm::channel::Listener;
use banger::vmm::{Channel, Kind};

use crate::rig::{LONG, Rig, SLOT, UID, can_connect, status};

fn parts() -> PathBuf {
    std::env::var("BANGER_TEST_PARTS").expect("BANGER_TEST_PARTS is set by tests/run.sh").into()
}

/// The one entry of the seed's directory that `fits`.
fn seeded(directory: &str, fits: fn(&Path) -> bool) -> PathBuf {
    let entries = fs::read_dir(parts().join("seed/state").join(directory)).expect("the seed is there");
    let mut found: Vec<_> = entries.map(|e| e.expect("lists").path()).filter(|path| fits(path)).collect();
    found.sort_by_key(|path| fs::metadata(path).expect("stats").len());
    found.into_iter().next().expect("has been imported")
}

/// The owner's files are a kernel's and an image's, and there is a tap with the gateway's address.
fn furnish(rig: &mut Rig) {
    let kernel = seeded("kernels", |path| path.join("vmlinux").exists());
    let image = seeded("images", |path| path.extension().is_some_and(|e| e == "ext4"));
    let read = |path: &Path| fs::read(path).expect("reads");
    let banger =
        read(&std::env::var("BANGER_TEST_GUEST").map_or_else(|_| crate::rig::binary(), PathBuf::from));
    rig.write("kernel", &read(&kernel.join("vmlinux")), 0o444);
    rig.write("initrd", &assemble(&banger, &read(&kernel.join("modules.cpio"))), 0o444);
    rig.write("0", &read(&image), 0o444);
    rig.write("1", b"", 0o600);
    rig.write("2", &read(&kernel.join("modules.ext4")), 0o444);
    let bytes = fs::metadata(rig.owners("0")).expect("stats").len();
    fs::File::options()
        .write(true)
        .open(rig.owners("1"))
        .and_then(|cow| cow.set_len(file_bytes(bytes)))
        .expect("sizes");
    rig.launch.drives = vec![DriveKind::ReadOnly, DriveKind::Writable, DriveKind::ReadOnly];
    rig.launch.root = Root::Snapshot { sectors: bytes / 512 };
    rig.launch.modules = true;
    rig.launch.network = true;
    let tap = TapName::of(rig.launch.vm).to_string();
    let ip = |args: &str| {
        let done = Command::new("ip").args(args.split(' ')).status().expect("ip is installed");
        assert!(done.success(), "ip {args}");
    };
    ip(&format!("tuntap add dev {tap} mode tap vnet_hdr user {UID}"));
    ip(&format!("addr add 172.16.0.1/24 dev {tap}"));
    ip(&format!("link set {tap} up"));
}

/// What the daemon does: it listens first, and hears that the guest is up.
fn ready(rig: &Rig, listener: &Listener) {
    let fd = listener.accept(LONG).unwrap_or_else(|e| {
        let console = fs::read(rig.owners("console")).expect("reads");
        panic!("{e}: {}\n{}", rig.log(), String::from_utf8_lossy(&console));
    });
    let mut line = String::new();
    BufReader::new(fs::File::from(fd)).read_line(&mut line).expect("reads");
    assert!(matches!(serde_json::from_str(&line), Ok(Ready::Up(_))), "{line}");
}

/// The guest is launched, gets ready, answers pings at the lease's address and the agent's port; then all is removed.
fn live_and_go(rig: &Rig, control: &str) {
    let channel = Channel::Hybrid { socket: rig.sockets().join("vsock.sock") };
    let listener = channel.listen(1001).expect("listens");
    let processes =
        rig.launch().unwrap_or_else(|e| panic!("{e}: {:?}\n{}", std::error::Error::source(&e), rig.log()));
    ready(rig, &listener);
    let pid = processes.vmm.pid;
    for name in
        ["Name", "Uid", "Gid", "Groups", "CapEff", "NoNewPrivs", "Seccomp", "NSpid", "VmHWM", "RssShmem"]
    {
        println!("{name}: {}", status(pid, name));
    }
    let ids = format!("{UID}\t{UID}\t{UID}\t{UID}");
    assert_eq!((status(pid, "Uid"), status(pid, "Gid")), (ids.clone(), ids));
    assert_eq!(status(pid, "CapEff"), "0000000000000000");
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert!(status(pid, "NSpid").ends_with("\t1"));
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("reads");
    println!("{mounts}");
    for (at, access) in [("/kernel", "ro,"), ("/drive0", "ro,"), ("/drive1", "rw,"), ("/drive2", "ro,")] {
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(at)).expect("is mounted");
        let options = line.split(' ').nth(5).expect("options");
        assert!(options.starts_with(access) && options.contains("nosuid,nodev,noexec"), "{line}");
    }
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("reads");
    println!("{cgroup}");
    if let Ok(current) = fs::read_to_string(format!("/sys/fs/cgroup/banger/{}/memory.current", rig.launch.vm))
    {
        assert!(cgroup.contains(&format!("0::/banger/{}", rig.launch.vm)), "{cgroup}");
        let file = |name: &str| {
            let path = format!("/sys/fs/cgroup/banger/{}/{name}", rig.launch.vm);
            fs::read_to_string(path).expect("reads").trim().to_owned()
        };
        println!(
            "memory.current {} of {}, cpu.max {}, pids {} of {}",
            current.trim(),
            file("memory.max"),
            file("cpu.max"),
            file("pids.current"),
            file("pids.max")
        );
        println!(
            "memory.peak {:?}\n{}",
            fs::read_to_string(format!("/sys/fs/cgroup/banger/{}/memory.peak", rig.launch.vm)),
            file("memory.stat")
        );
    }
    let control = rig.sockets().join(control);
    let kind = if rig.launch.vmm == Vmm::Firecracker { Kind::Firecracker } else { Kind::Qemu };
    assert!(kind.is_running(&control, LONG).expect("answers"));
    assert!(can_connect(crate::rig::OWNER, &control) && !can_connect(crate::rig::OWNER + 1, &control));
    drop(channel.connect(1000, LONG).expect("the agent listens"));
    let address = format!("172.16.0.{SLOT}");
    let ping =
        Command::new("ping").args(["-c", "2", "-W", "10", &address]).output().expect("ping is installed");
    assert!(ping.status.success(), "{}", String::from_utf8_lossy(&ping.stdout));
    println!("{}", String::from_utf8_lossy(&ping.stdout));
    drop(listener);
    rig.remove();
}

#[test]
#[ignore = "needs root, QEMU, vhost-device-vsock and the seed that tests/run.sh makes, and its own network namespace: unshare -n"]
fn a_guest_of_an_emulating_qemu_lives_in_its_jail() {
    let mut rig = Rig::new();
    rig.programs = Programs {
        vhost_device_vsock: Some(parts().join("tools/bin/vhost-device-vsock")),
        ..Programs::default()
    };
    furnish(&mut rig);
    live_and_go(&rig, "qmp.sock");
}

#[test]
#[ignore = "needs root, BANGER_TEST_FIRECRACKER_DIR with firecracker and jailer, KVM, and its own network namespace: unshare -n"]
fn a_guest_of_a_real_firecracker_lives_in_its_jail() {
    let given = PathBuf::from(
        std::env::var("BANGER_TEST_FIRECRACKER_DIR").expect("BANGER_TEST_FIRECRACKER_DIR is set"),
    );
    let mut rig = Rig::new();
    rig.programs = Programs {
        firecracker: Some(given.join("firecracker")),
        jailer: Some(given.join("jailer")),
        ..Programs::default()
    };
    rig.launch.vmm = Vmm::Firecracker;
    furnish(&mut rig);
    live_and_go(&rig, "api.sock");
}

#[test]
#[ignore = "needs root, KVM, QEMU, /dev/vhost-vsock, and its own network namespace: unshare -n"]
fn a_guest_of_qemu_with_kvm_and_the_kernels_vsock_lives_in_its_jail() {
    let mut rig = Rig::new();
    rig.launch.vmm = Vmm::QemuKvm;
    rig.launch.vsock = Vsock::Kernel;
    furnish(&mut rig);
    let channel = Channel::Vhost { cid: rig.launch.vm.cid() };
    let listener = channel.listen(1001).expect("listens");
    rig.launch.ready_port = listener.port();
    let processes =
        rig.launch().unwrap_or_else(|e| panic!("{e}: {:?}\n{}", std::error::Error::source(&e), rig.log()));
    ready(&rig, &listener);
    println!("Uid {} VmHWM {}", status(processes.vmm.pid, "Uid"), status(processes.vmm.pid, "VmHWM"));
    drop(channel.connect(1000, LONG).expect("the agent listens"));
    rig.remove();
}
