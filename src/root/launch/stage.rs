//! The process that becomes a VMM, in two stages, each a start of this executable.
//!
//! The first ([`FIRST`]) has but one thing to do: it leaves the pid namespace for its children, starts the second, tells the helper
//! the second's pid, and ends. So the second ([`SECOND`]) is process 1 of a namespace of its own, and no child of the helper, which
//! would have to wait for it. It waits for its order; then it makes its jail around itself, and becomes the program. If the helper
//! dies before the order is whole, the second stage reads the end of the socket and goes: nothing has been made by then.

use std::ffi::OsString;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Resource, Rlimit, setrlimit, setsid, umask};
use rustix::thread::set_no_new_privs;

use crate::host::cmd::PATH;
use crate::host::endpoint;
use crate::root::launch::mounts;
use crate::root::launch::namespaces::{Namespace, leave};
use crate::root::launch::order::{Jailer, Order, Ours};
use crate::root::launch::roots_own;
use crate::root::seccomp;

/// The arguments that make bangerd-root one of the stages.
pub const FIRST: &str = "--launch";
pub const SECOND: &str = "--jailed";
/// The executable that runs, even if its file was replaced since.
const MYSELF: &str = "/proc/self/exe";
/// The longest order: as much as Linux takes as arguments (execve(2), "Limits on size of arguments").
const MAX_ORDER: u64 = 2 << 20;
/// The most descriptors with an order: those of a launch, and a tap.
pub const MAX_DESCRIPTORS: usize = 17;
/// How long the vsock device's program may take to listen.
const DEVICE: Duration = Duration::from_secs(10);

/// Runs a stage if `args` ask for one; None: this is an ordinary start.
pub fn run(args: &[OsString]) -> Option<ExitCode> {
    let done = match args {
        [flag] if flag == FIRST => first(),
        [flag] if flag == SECOND => second(),
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bangerd-root: {e}");
            ExitCode::FAILURE
        }
    })
}

fn first() -> io::Result<()> {
    let mut helper = helper()?;
    leave(&[Namespace::ChildrensPids])?;
    // Its stdin is ours: the socket.
    let second = Command::new(MYSELF).arg0("bangerd-root").arg(SECOND).stdout(Stdio::null()).spawn()?;
    writeln!(helper, "{}", second.id())
}

/// Returns only if the order never came.
fn second() -> io::Result<()> {
    setsid()?;
    let mut helper = helper()?;
    let Some((order, descriptors)) = receive(&helper)? else { return Ok(()) };
    // All of it closes with exec, which tells the helper that it is done; until then we say what went wrong.
    let error = become_ordered(&order, descriptors);
    write!(helper, "{error}")
}

/// The socket to the helper, which is stdin.
fn helper() -> io::Result<UnixStream> {
    Ok(UnixStream::from(rustix::stdio::stdin().try_clone_to_owned()?))
}

/// None: the helper has gone.
fn receive(helper: &UnixStream) -> io::Result<Option<(Order, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let buffers = &mut [IoSliceMut::new(&mut byte)];
    if recvmsg(helper, buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = vec![];
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    let mut line = vec![];
    BufReader::new(helper.take(MAX_ORDER)).read_until(b'\n', &mut line)?;
    match line.pop() {
        Some(b'\n') => Ok(Some((serde_json::from_slice(&line)?, descriptors))),
        _ => Ok(None),
    }
}

/// What went wrong, as a phrase for a log: `cannot mount the jail: Permission denied (os error 13)`.
struct Broken {
    what: String,
    source: io::Error,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.what, self.source)
    }
}

trait While<T> {
    fn when(self, what: impl Into<String>) -> Result<T, Broken>;
}

impl<T, E: Into<io::Error>> While<T> for Result<T, E> {
    fn when(self, what: impl Into<String>) -> Result<T, Broken> {
        self.map_err(|e| Broken { what: what.into(), source: e.into() })
    }
}

/// Returns only if it does not become the program.
fn become_ordered(order: &Order, descriptors: Vec<OwnedFd>) -> Broken {
    let [program, args @ ..] = &order.argv[..] else {
        return Broken { what: "find a program".to_owned(), source: io::ErrorKind::NotFound.into() };
    };
    let ready = || -> Result<(Stdio, Stdio, Option<OwnedFd>), Broken> {
        make_jail(order, Path::new(program), &descriptors)?;
        let log =
            |n: usize| Ok::<_, Broken>(Stdio::from(get(&descriptors, n)?.try_clone().when("pass a log on")?));
        let inherited =
            order.inherited.map(|(n, number)| inherit(get(&descriptors, n)?, number)).transpose()?;
        Ok((log(order.stdout)?, log(order.stderr)?, inherited))
    };
    let (stdout, stderr, _inherited) = match ready() {
        Ok(ready) => ready,
        Err(e) => return e,
    };
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", PATH).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    if let Jailer::Ours(Ours { uid, .. }) = &order.jailer {
        // With no other groups: that is what std does for a root that becomes somebody else (std: do_exec).
        command.uid(*uid).gid(*uid);
    }
    Broken { what: format!("run {program}"), source: command.exec() }
}

fn make_jail(order: &Order, program: &Path, descriptors: &[OwnedFd]) -> Result<(), Broken> {
    let jail = "make the jail";
    if let Some(cgroup) = &order.cgroup {
        // 0 is whoever writes (cgroup-v2.rst, cgroup.procs), whatever number the file system's pid namespace gives it.
        let file = OpenOptions::new().write(true).open(cgroup.join("cgroup.procs"));
        file.and_then(|mut file| file.write_all(b"0")).when(format!("enter {}", cgroup.display()))?;
    }
    let mut namespaces = vec![Namespace::Mounts, Namespace::Ipc, Namespace::Uts, Namespace::Cgroups];
    if let Jailer::Ours(_) = order.jailer {
        // Firecracker opens its tap by name, where that is. Others get theirs open and need no network at all.
        namespaces.push(Namespace::Network);
    }
    leave(&namespaces).when("leave the host's namespaces")?;
    mounts::leave_the_hosts().when("leave the host's mounts")?;
    // What the VMM makes is for the owner too, whose group it has not; who gets there the directories decide.
    umask(Mode::empty());
    // It has been checked before, in the host's namespace, by the helper.
    let base = roots_own::directory(&order.base, None).map_err(io::Error::other).when(jail)?;
    mounts::memory(&base, order.room_bytes, &order.root).when(jail)?;
    for mount in &order.mounts {
        let shown = mounts::show(&order.root, get(descriptors, mount.descriptor)?, mount);
        shown.when(format!("mount {}", mount.at.display()))?;
    }
    for (file, text) in &order.files {
        mounts::write(&order.root, file, text).when(format!("write {}", file.display()))?;
    }
    if let Jailer::Ours(ours) = &order.jailer {
        enter(order, ours, program)?;
    }
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).when("forgo core dumps")?;
    set_no_new_privs(true).when("forgo new privileges")?;
    match seccomp::refuse_ioctls(seccomp::NO_VMMS) {
        // A kernel without filters.
        Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::NOSYS | Errno::INVAL)) => Ok(()),
        other => other.when("forgo changes of the tap"),
    }
}

/// What Firecracker's jailer does for itself.
fn enter(order: &Order, ours: &Ours, program: &Path) -> Result<(), Broken> {
    mounts::show_system(&order.root, program).when("mount the system")?;
    for device in &ours.devices {
        mounts::make_device(&order.root, *device, ours.uid).when(format!("make {}", device.path()))?;
    }
    if let Some((pid, socket)) = &ours.after {
        listening(*pid, socket).when("wait for the vsock device")?;
    }
    mounts::enter(&order.root).when("enter the jail")
}

/// Waits until process `pid` listens on `socket`, in its own network.
fn listening(pid: u32, socket: &Path) -> io::Result<()> {
    let deadline = Instant::now() + DEVICE;
    loop {
        let table = match std::fs::read_to_string(format!("/proc/{pid}/net/unix")) {
            Ok(table) => table,
            // A process that has ended has no network (ESRCH or EINVAL for a zombie's).
            Err(_) => return Err(io::Error::other("it ended as soon as it was started")),
        };
        if endpoint::listens(&table, socket) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Nothing tells when a process has come to listen.
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn get(descriptors: &[OwnedFd], n: usize) -> Result<&OwnedFd, Broken> {
    descriptors.get(n).ok_or(io::ErrorKind::NotFound).when("find a descriptor")
}

/// A copy of `fd` under `number`, which exec leaves open.
fn inherit(fd: &OwnedFd, number: i32) -> Result<OwnedFd, Broken> {
    let copy = fcntl_dupfd_cloexec(fd, number).when("pass a descriptor on")?;
    if copy.as_raw_fd() != number {
        return Err(io::Error::other(format!("{number} is taken"))).when("pass a descriptor on");
    }
    fcntl_setfd(copy.as_fd(), FdFlags::empty()).when("pass a descriptor on")?;
    Ok(copy)
}
