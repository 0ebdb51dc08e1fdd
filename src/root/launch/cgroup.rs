//! Each VM's cgroup: how much memory, processor time and how many tasks it may have, and a sure way to end all of it.
//!
//! It lies beside those of systemd's units and not within the helper's, so that stopping the helper's unit stops no VM
//! (systemd.kill(5), KillMode).

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::statfs;

use crate::proto::root::{Launch, Vmm};
use crate::vm::id::VmId;

const HIERARCHY: &str = "/sys/fs/cgroup";
/// What all VMs' cgroups are below.
const PARENT: &str = "banger";
/// linux/magic.h.
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;
/// How long killed processes may take to be gone; they are in the kernel by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a VM's processes may take, all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    memory_bytes: u64,
    /// Of processor time in each [`PERIOD_US`].
    cpu_us: u64,
    tasks: u64,
}

/// cgroup-v2.rst, cpu.max: the default.
const PERIOD_US: u64 = 100_000;

impl Limits {
    pub fn of(launch: &Launch) -> Self {
        let (own_mib, threads) = match launch.vmm {
            // Its chroot lies in memory, with the copy of its program in it: 6 MiB with what the kernel has for it (seen with 1.17).
            Vmm::Firecracker => (64, 16),
            // QEMU's thread pool has up to 64 (QEMU: util/thread-pool.c); its vsock process two.
            Vmm::QemuKvm => (256, 96),
            // And the code that it translates (vmm/qemu/args.rs, tb-size).
            Vmm::QemuTcg => (256 + 1024, 96),
        };
        let vcpu = u64::from(launch.vcpu);
        Self {
            // Whoever asks for more than there is gets a VMM that refuses.
            memory_bytes: launch.memory.0.saturating_add(own_mib).saturating_mul(1 << 20),
            // A half for what serves the devices, else a guest that computes would starve its own disk.
            cpu_us: vcpu * PERIOD_US + PERIOD_US / 2,
            tasks: vcpu + threads,
        }
    }

    fn files(&self) -> [(&'static str, String); 4] {
        [
            ("memory.max", self.memory_bytes.to_string()),
            // What is left of a VM that lost one of its processes is no VM.
            ("memory.oom.group", "1".to_owned()),
            ("cpu.max", format!("{} {PERIOD_US}", self.cpu_us)),
            ("pids.max", self.tasks.to_string()),
        ]
    }
}

/// Why a VM's cgroup could not be made or removed.
#[derive(Debug)]
pub struct CgroupError {
    path: PathBuf,
    source: io::Error,
}

/// The cgroup of a VM, below the hierarchy's root.
pub fn name(vm: VmId) -> String {
    format!("{PARENT}/{vm}")
}

/// Makes the VM's cgroup, empty; None where this host has no cgroups of version 2, so that nothing limits its VMs.
pub fn create(vm: VmId, limits: Limits) -> Result<Option<PathBuf>, CgroupError> {
    let root = Path::new(HIERARCHY);
    if !is_version_2(root) {
        log::warn!(
            "vm {vm}: {HIERARCHY} is not of version 2; its memory, processor and tasks are not limited"
        );
        return Ok(None);
    }
    let parent = root.join(PARENT);
    make(&parent)?;
    for above in [root, &parent] {
        for controller in ["+memory", "+cpu", "+pids"] {
            // One that this kernel lacks, or that is bound elsewhere, must not keep the others off.
            if let Err(e) = write(&above.join("cgroup.subtree_control"), controller) {
                log::warn!("{e}: {}", e.source);
            }
        }
    }
    remove(vm)?;
    let path = parent.join(vm.to_string());
    make(&path)?;
    for (file, value) in limits.files() {
        if let Err(e) = write(&path.join(file), &value) {
            log::warn!("vm {vm}: {e}: {}", e.source);
        }
    }
    Ok(Some(path))
}

/// Ends what is in the VM's cgroup, and removes it; nothing if there is none.
pub fn remove(vm: VmId) -> Result<(), CgroupError> {
    let path = Path::new(HIERARCHY).join(PARENT).join(vm.to_string());
    let failed = |source| CgroupError { path: path.clone(), source };
    match fs::remove_dir(&path) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Somebody is in it.
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {}
        Err(e) => return Err(failed(e)),
    }
    write(&path.join("cgroup.kill"), "1")?;
    wait_until_empty(&path.join("cgroup.events")).map_err(failed)?;
    fs::remove_dir(&path).map_err(failed)
}

/// Removes what all of them are below; nothing if another banger's are there too, or none ever was.
pub fn remove_parent() -> Result<(), CgroupError> {
    let path = Path::new(HIERARCHY).join(PARENT);
    match fs::remove_dir(&path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ResourceBusy) => Ok(()),
        other => other.map_err(|source| CgroupError { path, source }),
    }
}

fn is_version_2(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.f_type == CGROUP2_SUPER_MAGIC)
}

fn make(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError { path: path.to_owned(), source: e })
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    // Not fs::write, which would make what is not there: a cgroup's files are there or have no meaning.
    let written = fs::OpenOptions::new().write(true).open(path).and_then(|mut file| {
        use std::io::Write;
        file.write_all(value.as_bytes())
    });
    written.map_err(|source| CgroupError { path: path.to_owned(), source })
}

/// A change of the file wakes whoever polls it for POLLPRI (cgroup-v2.rst, cgroup.events).
fn wait_until_empty(events: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut file = File::open(events)?;
    loop {
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        if text.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        let left = deadline.checked_duration_since(Instant::now()).ok_or(io::ErrorKind::TimedOut)?;
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&left))?;
    }
}

impl fmt::Display for CgroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot change {}", self.path.display())
    }
}

impl std::error::Error for CgroupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
