//! Process 1 from the kernel's first instruction to the image's init, or to its own long life.

use std::fs;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, setrlimit};
use vsock::{VMADDR_CID_HOST, VsockStream};

use super::agent::{self, Duty};
use super::{Failed, console, disk, failed, handover, identity, modules, mounts, power, reaper};
use crate::proto::agent::{READY_PORT, Ready};
use crate::vm::boot::{Boot, Halt, Root};

/// Brings the guest up, then is its first process until it is turned off. What cannot come up says why, on the console and to
/// the host, and turns the machine off.
pub fn run() -> ! {
    let mut told = None;
    let outcome = catch_unwind(AssertUnwindSafe(|| bring_up(&mut told)));
    let why = match outcome {
        Ok(Ok(up)) => stay(up),
        Ok(Err(failed)) => failed.sentence(),
        // The panic's own message is on the console already.
        Err(_) => "the guest's first process panicked; see its console".to_owned(),
    };
    console::say(&why);
    report(&why, told.as_ref().map_or(READY_PORT, |boot| boot.ready_port));
    power::halt(told.map_or(Halt::PowerOff, |boot| boot.halt))
}

/// A guest whose root is in place.
struct Up {
    boot: Boot,
    own_init: Option<&'static str>,
}

/// Up to the point where the agent can be started; `told` is what the host said, as soon as that is known.
fn bring_up(told: &mut Option<Boot>) -> Result<Up, Failed> {
    mounts::early()?;
    let words = fs::read_to_string("/proc/cmdline").map_err(failed("read the kernel command line"))?;
    let boot =
        Boot::parse(&words).map_err(|e| failed("understand the host")(io::Error::other(e.to_string())))?;
    *told = Some(boot.clone());
    load_modules(&boot);
    let device = disk::assemble(&boot.root)?;
    mounts::root(&device)?;
    let grown = disk::grow(Path::new(mounts::NEW_ROOT), &device);
    if let Err(e) = grown.and_then(|()| mounts::leave_inode_tables_alone()) {
        console::say(e.sentence());
    }
    mounts::switch_root()?;
    mounts::everything()?;
    let own_init = handover::own_init();
    if own_init.is_none()
        && let Err(e) = mounts::control_groups()
    {
        console::say(e.sentence());
    }
    identity::assume(&boot, own_init.is_some());
    raise_limits();
    Ok(Up { boot, own_init })
}

/// Starts the agent, and becomes the image's init or stays.
fn stay(up: Up) -> ! {
    let Up { boot, own_init } = up;
    let mut duty =
        Duty { ready_port: Some(boot.ready_port), halt: boot.halt, own_init: own_init.map(str::to_owned) };
    let mut agent = match duty.fork() {
        Ok(pid) => Some(pid),
        Err(e) => {
            let why = failed("start the agent")(e).sentence();
            console::say(&why);
            report(&why, boot.ready_port);
            power::halt(boot.halt)
        }
    };
    // While the agent starts: nobody needs the modules before it is up.
    if let Some(device) = &boot.modules
        && let Err(e) = mounts::kernel_modules(device)
    {
        console::say(e.sentence());
    }
    if let Some(path) = own_init {
        handover::spare_kmod();
        handover::become_init(path);
        // It could not be executed: the guest is one without an init, and its agent must know.
        if let Some(pid) = agent.take() {
            reaper::end(pid);
        }
        duty.own_init = None;
        agent = duty.start().map_err(|e| console::say(failed("start the agent")(e).sentence())).ok();
    }
    duty.ready_port = None;
    reaper::reap_until_halt(agent, &duty)
}

/// Loads what this boot needs, no more: a module costs milliseconds under emulation.
fn load_modules(boot: &Boot) {
    let order = match fs::read_to_string(modules::ORDER) {
        Ok(order) => order,
        Err(e) => return console::say(format_args!("cannot read {}: {e}", modules::ORDER)),
    };
    let (mut groups, device) = match &boot.root {
        Root::Snapshot { base, .. } => (vec!["mmio", "block", "root", "vsock", "snapshot"], base),
        Root::Plain { device } => (vec!["mmio", "block", "root", "vsock"], device),
    };
    if boot.net.is_some() {
        groups.push("net");
    }
    modules::load(&order, &groups);
    // A machine whose devices sit on PCI; the drivers above find them when their bus comes.
    if !Path::new("/dev").join(device).exists() {
        modules::load(&order, &["pci"]);
    }
}

/// Process 1 starts with 4096 open files at most, too few for builds and databases; these are systemd's limits for services,
/// with room at once for those that do not raise theirs.
fn raise_limits() {
    let limit = Rlimit { current: Some(16 * 1024), maximum: Some(512 * 1024) };
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        console::say(format_args!("cannot raise the limit of open files: {e}"));
    }
}

/// Tells the host why there will be no guest, if there is a way to tell.
fn report(why: &str, port: u32) {
    // If the failure came before the drivers, they may still be had.
    if let Ok(order) = fs::read_to_string(modules::ORDER) {
        modules::load(&order, &["mmio", "pci", "vsock"]);
    }
    let tell = || -> io::Result<()> {
        let mut host = VsockStream::connect_with_cid_port(VMADDR_CID_HOST, port)?;
        host.write_all(agent::ready_line(&Ready::Broken { message: why.to_owned() })?.as_bytes())?;
        // Turning the machine off would drop what is still on its way.
        let timeout = Timespec::try_from(Duration::from_millis(500)).unwrap_or_default();
        poll(&mut [PollFd::new(&host, PollFlags::RDHUP)], Some(&timeout))?;
        Ok(())
    };
    if let Err(e) = tell() {
        console::say(format_args!("cannot tell the host: {e}"));
    }
}
