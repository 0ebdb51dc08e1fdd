//! A ground of the test's own, an owner who is nobody else, and what he would ask the helper for.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use banger::host::dirs::Dirs;
use banger::network::names::TapName;
use banger::network::subnet;
use banger::proto::root::{DriveKind, Launch, Root, Vmm, Vsock};
use banger::root::Ground;
use banger::root::launch::{self, LaunchError, Programs, Site};
use banger::vm::id::VmId;
use banger::vm::size::Mib;
use banger::vm::state::Processes;
use rustix::process::{Gid, Uid};

/// Whom the helper serves; there is no such user.
pub const OWNER: u32 = 4_242_000;
/// Whom the VM runs as.
pub const UID: u32 = 1_900_000_002;
pub const SLOT: u16 = 2;
/// How long anything may take before the test fails for it; emulated hosts are slow.
pub const LONG: Duration = Duration::from_secs(300);

pub struct Rig {
    dir: tempfile::TempDir,
    pub ground: Ground,
    pub programs: Programs,
    pub launch: Launch,
}

impl Rig {
    /// The owner's files are there and empty; `probe` is run as QEMU, and another script as its vsock device.
    pub fn probing(probe: &str) -> Self {
        let mut rig = Self::new();
        rig.programs.qemu = Some(rig.script("qemu", probe));
        // As much of a vsock device as QEMU's jail waits for.
        rig.programs.vhost_device_vsock = Some(rig.script("device", "exec /usr/bin/nc -lkU \"$4\""));
        rig
    }

    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("banger-jail-").tempdir().expect("a directory");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("changes");
        let below = |name: &str| dir.path().join(name);
        let dirs = Dirs {
            state: below("state"),
            cache: below("cache"),
            runtime: below("run"),
            config: below("config"),
            root_runtime: below("run-root"),
        };
        let ground = Ground { owner: Uid::from_raw(OWNER), group: Gid::from_raw(OWNER), dirs };
        let vm = VmId::from_random(
            u64::from(std::process::id()) << 16 | u64::from(dir.path().as_os_str().len() as u16),
        );
        let launch = Launch {
            vm,
            name: "dev".parse().expect("a name"),
            vmm: Vmm::QemuTcg,
            vsock: Vsock::Device,
            vcpu: 1,
            memory: Mib(512),
            drives: vec![DriveKind::ReadOnly, DriveKind::Writable],
            root: Root::Snapshot { sectors: 2048 },
            modules: false,
            network: false,
            ready_port: 1001,
        };
        let rig = Self { ground, programs: Programs::default(), launch, dir };
        fs::create_dir(&rig.ground.dirs.state).expect("makes");
        fs::create_dir(&rig.ground.dirs.root_runtime).expect("makes");
        fs::create_dir(rig.owners("")).expect("makes");
        chown(rig.owners(""), Some(OWNER), Some(OWNER)).expect("gives away");
        fs::set_permissions(rig.owners(""), Permissions::from_mode(0o700)).expect("changes");
        fs::create_dir(rig.sockets()).expect("makes");
        chown(rig.sockets(), Some(OWNER), Some(OWNER)).expect("gives away");
        fs::set_permissions(rig.sockets(), Permissions::from_mode(0o700)).expect("changes");
        for (name, mode) in [("kernel", 0o444), ("initrd", 0o444), ("0", 0o444), ("1", 0o600)] {
            rig.write(name, name.as_bytes(), mode);
        }
        rig.write("console", b"", 0o600);
        rig.write("log", b"", 0o600);
        rig
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file in the directory that is the owner's alone.
    pub fn owners(&self, name: &str) -> PathBuf {
        self.dir.path().join("owners").join(name)
    }

    pub fn sockets(&self) -> PathBuf {
        self.owners(&self.launch.vm.to_string())
    }

    pub fn write(&self, name: &str, bytes: &[u8], mode: u32) {
        let path = self.owners(name);
        fs::write(&path, bytes).expect("writes");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("changes");
        chown(&path, Some(OWNER), Some(OWNER)).expect("gives away");
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("writes");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("changes");
        path
    }

    /// As the daemon would open them, with the rights that the owner has on his own files.
    pub fn descriptors(&self) -> Vec<OwnedFd> {
        let read = |name: &str| -> OwnedFd { File::open(self.owners(name)).expect("opens").into() };
        let append =
            |name: &str| OpenOptions::new().append(true).open(self.owners(name)).expect("opens").into();
        let write = |name: &str| {
            OpenOptions::new().read(true).write(true).open(self.owners(name)).expect("opens").into()
        };
        let mut all =
            vec![File::open(self.sockets()).expect("opens").into(), append("console"), append("log")];
        all.extend([read("kernel"), read("initrd")]);
        for (n, kind) in self.launch.drives.iter().enumerate() {
            all.push(match kind {
                DriveKind::ReadOnly => read(&n.to_string()),
                DriveKind::Writable | DriveKind::Disposable => write(&n.to_string()),
            });
        }
        all
    }

    pub fn launch(&self) -> Result<Processes, LaunchError> {
        self.launch_with(self.descriptors())
    }

    pub fn launch_with(&self, descriptors: Vec<OwnedFd>) -> Result<Processes, LaunchError> {
        let open_tap = |name: TapName| crate::tap::open(&name.to_string()).map_err(Into::into);
        let site = Site {
            programs: &self.programs,
            uid: UID,
            subnet: subnet::DEFAULT,
            slot: SLOT,
            open_tap: &open_tap,
            executable: &binary(),
        };
        launch::launch(&self.ground, &site, &self.launch, descriptors)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.owners("log")).expect("reads")
    }

    /// The log once `word` is in it.
    pub fn log_with(&self, word: &str) -> String {
        let found = wait_for(|| Some(self.log()).filter(|log| log.contains(word)));
        found.unwrap_or_else(|| panic!("{word:?} never came: {}", self.log()))
    }

    pub fn remove(&self) {
        launch::remove(&self.ground, self.launch.vm, None).expect("removes");
        self.assert_nothing_left();
    }

    /// No process, no cgroup, no record, no mount; nothing below the directory for jails.
    pub fn assert_nothing_left(&self) {
        let vm = self.launch.vm.to_string();
        let processes = Command::new("ps").args(["-eo", "pid,uid,stat,args"]).output().expect("runs ps");
        let processes = String::from_utf8_lossy(&processes.stdout).into_owned();
        let left: Vec<_> =
            processes.lines().filter(|line| line.contains(&vm) && !line.contains(" Z")).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(!Path::new("/sys/fs/cgroup/banger").join(&vm).exists());
        assert!(launch::jails(&self.ground).expect("lists").iter().all(|left| *left != self.launch.vm));
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("reads");
        assert!(!mounts.contains("banger-jail-"), "{mounts}");
        let jail = self.ground.jail();
        if jail.exists() {
            assert_eq!(fs::read_dir(jail).expect("lists").count(), 0);
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A test that fails leaves no process behind either.
        if std::thread::panicking()
            && let Err(e) = launch::remove(&self.ground, self.launch.vm, None)
        {
            eprintln!("VM {} is left: {e}", self.launch.vm);
        }
    }
}

/// What `look` finds, before it is too late.
pub fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        match look() {
            Some(found) => return Some(found),
            None if started.elapsed() > LONG => return None,
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

pub fn binary() -> PathBuf {
    std::env::var("BANGER_TEST_BINARY").map_or_else(|_| env!("CARGO_BIN_EXE_banger").into(), PathBuf::from)
}

/// The part of `/proc/<pid>/status` behind `name:`.
pub fn status(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("reads");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

/// Whether `uid` can connect to the socket; asked of somebody else's program.
pub fn can_connect(uid: u32, socket: &Path) -> bool {
    const CONNECT: &str = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
    let connected = Command::new("setpriv")
        .args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups"])
        .args(["/usr/bin/python3", "-c", CONNECT])
        .arg(socket)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    connected.expect("setpriv is installed").success()
}
