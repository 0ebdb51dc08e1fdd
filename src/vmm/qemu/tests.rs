use std::fs::OpenOptions;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::network::names::{Mac, TapName};
use crate::vm::id::VmId;
use crate::vm::size::Mib;
use crate::vmm::{Drive, Nic, Tap, control::ControlError, qemu::qmp::Qmp};

fn qemu(accel: Accel, vsock: VsockDevice) -> Qemu {
    Qemu { program: "/usr/bin/qemu-system-x86_64".into(), accel, vsock, tsc_khz: Some(2_596_000) }
}

fn process() -> VsockDevice {
    VsockDevice::Process { program: "/bin/vhost-device-vsock".into() }
}

fn machine() -> Machine {
    let drive = |path: &str, read_only, disposable| Drive { path: path.into(), read_only, disposable };
    Machine {
        vcpu: 1,
        memory: Mib(512),
        kernel: "/k/vmlinux".into(),
        initrd: "/k/initrd".into(),
        words: "banger.id=7".to_owned(),
        drives: vec![drive("/i/a,b.ext4", true, false), drive("/v/cow", false, true)],
        cid: 5,
        nic: Some(Nic::User),
        sockets: "/run/banger/vms/0000002a".into(),
        console_log: "/v/7/console,1.log".into(),
        vmm_log: "/v/7/vmm.log".into(),
    }
}

/// One option and its value in each line, the flags first.
fn lines(argv: &[String]) -> String {
    argv.join("\n").replace("\n-", "\u{0}-").replace('\n', " ").replace('\u{0}', "\n")
}

#[test]
fn an_emulated_machine_is_this_command_line() {
    let plan = qemu(Accel::Tcg, process()).plan(&machine()).expect("planned");
    let golden = r#"/usr/bin/qemu-system-x86_64
-nodefaults
-no-user-config
-no-reboot
-display none
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-name banger-0000002a
-M microvm,acpi=on,pic=off,rtc=on,pit=off,memory-backend=memory
-accel tcg,tb-size=1024
-cpu max,la57=off,erms=off,fsrm=off
-smp 1
-m 512M
-object memory-backend-memfd,id=memory,size=512M,share=on
-kernel /k/vmlinux
-initrd /k/initrd
-append console=ttyS0 quiet loglevel=3 panic=-1 reboot=t cryptomgr.notests mitigations=off initcall_blacklist=load_system_certificate_list,init_kprobe_trace noreplace-smp tsc_early_khz=2596000 tsc=reliable banger.id=7
-chardev file,id=console,path=/v/7/console,,1.log,append=on
-serial chardev:console
-chardev socket,id=qmp,path=/run/banger/vms/0000002a/qmp.sock,server=on,wait=off
-mon chardev=qmp,mode=control
-global virtio-mmio.force-legacy=off
-blockdev {"cache":{"no-flush":false},"discard":"ignore","driver":"raw","file":{"cache":{"no-flush":false},"discard":"ignore","driver":"file","filename":"/i/a,b.ext4","read-only":true},"node-name":"drive0","read-only":true}
-device virtio-blk-device,drive=drive0
-blockdev {"cache":{"no-flush":true},"discard":"unmap","driver":"raw","file":{"cache":{"no-flush":true},"discard":"unmap","driver":"file","filename":"/v/cow","read-only":false},"node-name":"drive1","read-only":false}
-device virtio-blk-device,drive=drive1
-netdev user,id=net,ipv6=off
-device virtio-net-device,netdev=net
-chardev socket,id=vsock,path=/run/banger/vms/0000002a/vhost.sock
-device vhost-user-vsock-device,chardev=vsock"#;
    assert_eq!(lines(&plan.vmm.argv), golden);
    let vsock = plan.vsock.expect("a process for the vsock");
    assert_eq!(
        vsock.argv.join(" "),
        "/bin/vhost-device-vsock --guest-cid 5 --socket /run/banger/vms/0000002a/vhost.sock \
         --uds-path /run/banger/vms/0000002a/vsock.sock"
    );
    assert_eq!(vsock.socket, Path::new("/run/banger/vms/0000002a/vhost.sock"));
    assert_eq!(plan.channel, Channel::Hybrid { socket: "/run/banger/vms/0000002a/vsock.sock".into() });
    assert_eq!(plan.vmm.log, Path::new("/v/7/vmm.log"));
    assert_eq!(plan.stale.len(), 3);
}

#[test]
fn under_kvm_with_the_kernels_vsock_there_is_one_process_and_no_shared_memory() {
    let machine = Machine { nic: None, ..machine() };
    let plan = qemu(Accel::Kvm, VsockDevice::Kernel).plan(&machine).expect("planned");
    let lines = lines(&plan.vmm.argv);
    assert!(lines.contains("\n-accel kvm\n-cpu host\n"), "{lines}");
    assert!(lines.ends_with("\n-device vhost-vsock-device,guest-cid=5"), "{lines}");
    for absent in ["memory-backend", "netdev", "mitigations=off", "tb-size"] {
        assert!(!lines.contains(absent), "{absent}");
    }
    assert_eq!((plan.vsock, plan.channel), (None, Channel::Vhost { cid: 5 }));
}

#[test]
fn a_tap_is_opened_by_name_or_inherited_and_no_script_runs() {
    let nic = |tap| {
        let mac = Mac::of([172, 16, 0, 2].into());
        let machine = Machine { nic: Some(Nic::Tap { tap, mac }), ..machine() };
        let plan = qemu(Accel::Kvm, VsockDevice::Kernel).plan(&machine).expect("planned");
        let lines = lines(&plan.vmm.argv);
        let (_, rest) = lines.split_once("\n-netdev ").expect("a network");
        rest.lines().take(2).collect::<Vec<_>>().join("\n")
    };
    let device = "-device virtio-net-device,netdev=net,mac=06:ba:ac:10:00:02";
    let named = Tap::Named(TapName::of(VmId::from_random(42)));
    assert_eq!(nic(named), format!("tap,id=net,ifname=bgr00000000002a,script=no,downscript=no\n{device}"));
    assert_eq!(nic(Tap::Open(10)), format!("tap,id=net,fd=10\n{device}"));
}

#[test]
fn several_emulated_processors_are_intels_and_keep_their_locks() {
    let plan = qemu(Accel::Tcg, process()).plan(&Machine { vcpu: 4, ..machine() }).expect("planned");
    let lines = lines(&plan.vmm.argv);
    assert!(lines.contains("\n-cpu max,la57=off,erms=off,fsrm=off,vendor=GenuineIntel\n-smp 4\n"), "{lines}");
    assert!(!lines.contains("noreplace-smp"), "{lines}");
}

#[test]
fn what_qemu_cannot_be_told_is_refused_with_a_sentence() {
    let text = |change: fn(&mut Machine)| {
        let mut machine = machine();
        change(&mut machine);
        qemu(Accel::Tcg, process()).plan(&machine).expect_err("refused").to_string()
    };
    let long = text(|m| m.sockets = format!("/{}", "x".repeat(100)).into());
    assert!(long.contains("too long") && long.contains("XDG_RUNTIME_DIR or BANGER_ROOT"), "{long}");
    let long = text(|m| m.words = "x".repeat(2000));
    assert!(long.contains("the kernel reads 2047"), "{long}");
    let many = text(|m| m.drives = vec![m.drives[0].clone(); 9]);
    assert_eq!(many, "9 drives are too many; a machine takes 8");
    let bytes = text(|m| {
        m.kernel = PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"/\xff"));
    });
    assert!(bytes.contains("not UTF-8"), "{bytes}");
}

/// A real QEMU without a machine, which ends with the test.
struct Bare {
    child: Child,
    dir: tempfile::TempDir,
}

impl Bare {
    fn start(machine: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("q");
        let child = Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-display", "none", "-M", machine, "-S", "-chardev"])
            .arg(format!("socket,id=q,path={},server=on,wait=off", socket.display()))
            .args(["-mon", "chardev=q,mode=control"])
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu-system-x86 is installed");
        let bare = Self { child, dir };
        let started = Instant::now();
        // It binds the socket a moment before it listens.
        while UnixStream::connect(bare.socket()).is_err() {
            assert!(started.elapsed() < LONG, "QEMU makes no socket");
            std::thread::sleep(Duration::from_millis(5));
        }
        bare
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("q")
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It has ended already where the test asked it to.
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().expect("kills");
            self.child.wait().expect("reaps");
        }
    }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_real_qemu_answers_and_quits() {
    let mut bare = Bare::start("microvm");
    let mut qmp = Qmp::connect(&bare.socket(), LONG).expect("connects");
    assert_eq!(qmp.status().expect("answers"), "prelaunch");
    qmp.power_button().expect("answers");
    assert_eq!(qmp.status().expect("answers after an event"), "prelaunch");
    drop(qmp);
    assert!(!Kind::Qemu.is_running(&bare.socket(), LONG).expect("answers a second connection"));
    Qmp::connect(&bare.socket(), LONG).expect("connects").quit().expect("quits");
    assert!(bare.child.wait().expect("ends").success());
    let error = Kind::Qemu.press_power(&bare.socket(), LONG).expect_err("gone");
    assert!(matches!(error, ControlError::Qemu(_)), "{error}");
}

#[test]
fn a_peer_that_speaks_no_qmp_is_refused() {
    use std::io::Write;
    let endless = vec![b'x'; 200_000];
    let lines: [&[u8]; 5] = [
        b"hello\n",
        b"{}\n",
        b"{\"return\":{}}\n",
        &endless,
        b"{\"QMP\":{}}\n{\"error\":{\"desc\":\"no\\u001b[2J\"}}\n",
    ];
    for line in lines {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("q");
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("binds");
        let line = line.to_vec();
        let thread = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("accepts");
            // The client may hang up in the middle.
            if peer.write_all(&line).is_ok() {
                std::io::copy(&mut peer, &mut std::io::sink()).ok();
            }
        });
        let error = Qmp::connect(&socket, LONG).expect_err("refused").to_string();
        assert!(error.contains("no QMP") || error.ends_with("no\\u{1b}[2J"), "{error}");
        thread.join().expect("ends");
    }
}

#[test]
fn many_machines_may_read_one_image_and_one_may_write_a_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let image = dir.path().join("image,1");
    std::fs::write(&image, vec![0; 1 << 20]).expect("writes");
    let open = |read_only| {
        let drive = Drive { path: image.clone(), read_only, disposable: false };
        let blockdev = args::blockdev(0, &drive).expect("described");
        let log = OpenOptions::new().append(true).create(true).open(dir.path().join("log")).expect("opens");
        let socket = tempfile::tempdir().expect("a directory");
        let child = Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-display", "none", "-M", "microvm", "-S", "-blockdev", &blockdev])
            .args(["-device", "virtio-blk-device,drive=drive0", "-chardev"])
            .arg(format!("socket,id=q,path={},server=on,wait=off", socket.path().join("q").display()))
            .args(["-mon", "chardev=q,mode=control"])
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu-system-x86 is installed");
        let mut bare = Bare { child, dir: socket };
        // The socket is made before the drives are opened; the greeting comes once all is well.
        let started = Instant::now();
        loop {
            if bare.child.try_wait().expect("asks").is_some() {
                return None;
            }
            if Qmp::connect(&bare.socket(), LONG).is_ok() {
                return Some(bare);
            }
            assert!(started.elapsed() < LONG, "QEMU neither starts nor ends");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let readers = [open(true), open(true)];
    assert!(readers.iter().all(Option::is_some), "two readers");
    assert!(open(false).is_none(), "a writer beside readers");
    drop(readers);
    let writer = open(false);
    assert!(writer.is_some(), "one writer");
    assert!(open(false).is_none(), "a second writer");
    let log = std::fs::read_to_string(dir.path().join("log")).expect("reads");
    assert!(log.contains("lock"), "{log}");
}
