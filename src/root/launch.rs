//! Launching VMMs in jails, and ending them.
//!
//! A jail is a process's view, and nothing else: namespaces, a root that lies in memory and shows the owner's files and no others,
//! an own uid and gid, a cgroup. It comes with the process and goes with it; what outlives it are the cgroup and a record of the
//! processes, both of which [`remove`] removes.
//!
//! ```text
//!  launch: descriptors judged, programs found, machine planned  (nothing is changed)
//!    -> cgroup, files handed to the VM's user -> processes started and recorded (shim)  (undone on an error)
//!    -> told what to become (order) -> they make their jails, and exec (stage, mounts)
//! ```
//!
//! Firecracker is run by its own jailer, in a jail of ours that the jailer's lies in: it becomes the VM's user, makes its devices,
//! and changes its root. QEMU, and its vsock process, have no jailer, so we do that for them.

mod cgroup;
mod descriptors;
mod error;
mod handing;
mod machine;
mod mounts;
mod namespaces;
mod order;
mod programs;
mod roots_own;
mod run;
mod shim;
pub mod stage;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Mode};

use crate::host::files::{remove_if_present, write_atomic};
use crate::host::process;
use crate::host::undo::Undo;
use crate::network::names::TapName;
use crate::network::subnet::Subnet;
use crate::proto::root::{DriveKind, Launch, Signal};
use crate::root::Ground;
use crate::root::launch::cgroup::Limits;
use crate::root::launch::descriptors::Role;
use crate::root::launch::run::{Jails, Runs};
use crate::root::launch::shim::Shim;
use crate::vm::id::VmId;
use crate::vm::state::{Process, Processes};

pub use error::LaunchError;
pub use programs::{ProgramError, Programs};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a launch needs beside what it is asked for.
pub struct Site<'a> {
    pub programs: &'a Programs,
    /// The user and the group that the VM runs as, nobody else's.
    pub uid: u32,
    /// The VM's place on the bridge.
    pub subnet: Subnet,
    pub slot: u16,
    /// Opens the VM's tap, for a VMM that is born with it open.
    pub open_tap: &'a dyn Fn(TapName) -> Result<OwnedFd, BoxError>,
    /// This executable; the stages are starts of it.
    pub executable: &'a Path,
}

/// How long a killed process may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Launches a VM in its jail; one whose VMM has ended may be launched again.
///
/// # Errors
/// [`LaunchError`]; nothing is left of it.
pub fn launch(
    ground: &Ground,
    site: &Site<'_>,
    launch: &Launch,
    given: Vec<OwnedFd>,
) -> Result<Processes, LaunchError> {
    let vm = launch.vm;
    let failed = LaunchError::effect;
    if let Some(processes) = recorded(ground, vm).map_err(failed("read the record of its processes"))? {
        if process::is_alive(processes.vmm).map_err(failed("look at its processes"))? {
            return Err(LaunchError::Running(processes.vmm.pid));
        }
        // Its vsock device may have outlived it.
        end(processes).map_err(failed("end its processes"))?;
    }
    let given = descriptors::sort(launch, ground.owner.as_raw(), given).map_err(LaunchError::Descriptor)?;
    let base = ground.jail();
    roots_own::directory(&base, Some(Mode::from_raw_mode(0o711))).map_err(LaunchError::Base)?;
    let mut runs = Runs::plan(&Jails { base: &base, site }, launch)?;

    let mut undo = Undo::default();
    record(ground, vm, None).map_err(failed("record its jail"))?;
    undo.push(format!("the record of the jail of VM {vm}"), {
        let ground = ground.clone();
        move || forget(&ground, vm)
    });
    let cgroup = cgroup::create(vm, Limits::of(launch)).map_err(LaunchError::Cgroup)?;
    undo.push(format!("the cgroup of VM {vm}"), move || cgroup::remove(vm).map_err(io::Error::other));
    hand_over(&given, site.uid, &mut undo).map_err(failed("let its user into its files"))?;
    let descriptors = runs.descriptors(given, launch, site)?;

    let spawn = || Shim::spawn(site.executable).map_err(failed("start its process"));
    let vmm = spawn()?;
    let vsock = runs.vsock.is_some().then(spawn).transpose()?;
    let processes = Processes { vmm: vmm.process(), vsock: vsock.as_ref().map(Shim::process) };
    record(ground, vm, Some(processes)).map_err(failed("record its processes"))?;
    undo.push(format!("the processes of VM {vm}"), move || end(processes));
    for (shim, order) in [(vsock, runs.vsock.take()), (Some(vmm), Some(runs.vmm))] {
        if let (Some(shim), Some(run)) = (shim, order) {
            let order = run.order(cgroup.clone(), processes.vsock.map(|process| process.pid));
            shim.release(&order, &descriptors).map_err(|source| LaunchError::Jail { source })?;
        }
    }
    undo.commit();
    Ok(processes)
}

/// What the VM's user may write becomes its group's; what it only reads is for everybody (descriptors.rs).
fn hand_over(given: &[(Role, OwnedFd)], uid: u32, undo: &mut Undo) -> io::Result<()> {
    for (role, fd) in given {
        let mode = match role {
            Role::Sockets => handing::DIRECTORY,
            Role::Console | Role::Log => handing::FILE,
            Role::Drive(_, DriveKind::Writable | DriveKind::Disposable) => handing::FILE,
            Role::Kernel | Role::Initrd | Role::Drive(_, DriveKind::ReadOnly) => continue,
        };
        handing::hand(fd, Gid::from_raw(uid), mode, undo)?;
    }
    Ok(())
}

/// Sends `signal` to a VM's processes, the VMM first; those that have ended are left out.
pub fn signal(processes: Processes, signal: Signal) -> io::Result<()> {
    for process in [Some(processes.vmm), processes.vsock].into_iter().flatten() {
        let signal = match signal {
            Signal::Kill => rustix::process::Signal::KILL,
            // Process 1 of a namespace gets no signal that it does not catch but SIGKILL (pid_namespaces(7)), and a signal that is
            // not caught is to end it.
            Signal::Terminate if !catches_term(process.pid)? => rustix::process::Signal::KILL,
            Signal::Terminate => rustix::process::Signal::TERM,
        };
        process::signal(process, signal)?;
    }
    Ok(())
}

/// proc(5), /proc/pid/status, SigCgt: a bit for each signal, SIGTERM's is the fifteenth.
fn catches_term(pid: u32) -> io::Result<bool> {
    let status = match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => status,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let caught =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
    Ok(caught.is_some_and(|caught| caught & (1 << 14) != 0))
}

/// Ends what is left of the VM's processes, `processes` and those that [`launch`] has recorded, and removes its jail.
pub fn remove(ground: &Ground, vm: VmId, processes: Option<Processes>) -> Result<(), LaunchError> {
    let failed = LaunchError::effect;
    let recorded = recorded(ground, vm).map_err(failed("read the record of its processes"))?;
    for processes in [processes, recorded].into_iter().flatten() {
        end(processes).map_err(failed("end its processes"))?;
    }
    cgroup::remove(vm).map_err(LaunchError::Cgroup)?;
    forget(ground, vm).map_err(failed("forget its processes"))
}

/// Removes what all VMs' cgroups are below; none may be left.
pub fn remove_cgroups() -> Result<(), impl std::error::Error + Send + Sync> {
    cgroup::remove_parent()
}

/// Which VMs have a jail, or something of one; those of this ground alone, and not of another root's.
pub fn jails(ground: &Ground) -> io::Result<Vec<VmId>> {
    let entries = match fs::read_dir(records(ground)) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(e),
    };
    let mut vms = vec![];
    for entry in entries {
        let name = entry?.file_name();
        vms.extend(name.to_str().and_then(|name| name.strip_suffix(".json")?.parse::<VmId>().ok()));
    }
    vms.sort();
    Ok(vms)
}

/// Kills the processes and waits until they are gone.
fn end(processes: Processes) -> io::Result<()> {
    let all = || [Some(processes.vmm), processes.vsock].into_iter().flatten();
    all().try_for_each(|process| process::signal(process, rustix::process::Signal::KILL))?;
    let deadline = Instant::now() + PATIENCE;
    all().try_for_each(|process| wait(process, deadline))
}

fn wait(process: Process, deadline: Instant) -> io::Result<()> {
    let Some(fd) = process::open(process)? else { return Ok(()) };
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&left))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// Where jails are recorded before anything of them is made, and their processes before they become anything, so that whoever comes
/// after a crash finds them.
fn records(ground: &Ground) -> PathBuf {
    ground.dirs.root_runtime.join("jails")
}

fn record_of(ground: &Ground, vm: VmId) -> PathBuf {
    records(ground).join(format!("{vm}.json"))
}

fn record(ground: &Ground, vm: VmId, processes: Option<Processes>) -> io::Result<()> {
    crate::host::files::create_private_dir(&records(ground))?;
    write_atomic(&record_of(ground, vm), &serde_json::to_vec(&processes)?, 0o600)
}

fn recorded(ground: &Ground, vm: VmId) -> io::Result<Option<Processes>> {
    match fs::read(record_of(ground, vm)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn forget(ground: &Ground, vm: VmId) -> io::Result<()> {
    remove_if_present(&record_of(ground, vm))
}
