//! Turning the machine off.
//!
//! Without an init of the image's own, process 1 does it: everyone is asked to end, for half a second, then made to; what they
//! wrote goes to the disk. With one, the agent asks it, in the language of its kind, and it shuts down as on any machine.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_remount};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use rustix::system::{RebootCommand, reboot};

use super::{console, syscalls};
use crate::vm::boot::Halt;

/// How long processes have to end by themselves, and again after they were killed.
pub const GRACE: Duration = Duration::from_millis(500);

/// How long systemd may take from its exec until it has blocked the signals that it fetches by a signalfd.
const SYSTEMD_EARS: Duration = Duration::from_secs(5);
/// The same of busybox, whose wait (sigtimedwait) hides that it is ready.
const BUSYBOX_EARS: Duration = Duration::from_millis(200);

/// The signal by which the agent, and `poweroff` of busybox, ask process 1.
pub const ASKS: Signal = Signal::USR2;

/// As process 1, with all other processes gone or not: puts the disk in order and ends the machine.
pub fn halt(how: Halt) -> ! {
    rustix::fs::sync();
    // EBUSY where a file is still open for writing; after the sync there is nothing to lose but a journal replay.
    if let Err(e) = mount_remount("/", MountFlags::RDONLY, "")
        && e != Errno::BUSY
        && e != Errno::INVAL
    {
        console::say(format_args!("cannot set the root file system read-only: {e}"));
    }
    loop {
        let command = match how {
            Halt::PowerOff => RebootCommand::PowerOff,
            Halt::Reboot => RebootCommand::Restart,
        };
        if let Err(e) = reboot(command) {
            console::say(format_args!("cannot turn the machine off: {e}"));
        }
        // The kernel returns from this only if it has no way to do it; the host's patience ends the machine then.
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// As process 1: ends every process, first by asking.
pub fn end_everything() {
    for signal in [Signal::TERM, Signal::KILL] {
        signal_everyone(signal);
        if reaped_all(Instant::now() + GRACE) {
            return;
        }
    }
    console::say("some processes could not be ended");
}

/// Every process descends from process 1, or is given to it when its parent ends: when it has no children, it is alone.
fn reaped_all(deadline: Instant) -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Err(_) => return true,
            Ok(None) if Instant::now() >= deadline => return false,
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn signal_everyone(signal: Signal) {
    let entries = match fs::read_dir("/proc") {
        Ok(entries) => entries,
        Err(e) => return console::say(format_args!("cannot list processes: {e}")),
    };
    for entry in entries.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|pid| *pid != Pid::INIT) {
            // Kernel threads ignore it; whoever is gone by now is gone.
            match kill_process(pid, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(e) => console::say(format_args!("cannot signal process {}: {e}", pid.as_raw_nonzero())),
            }
        }
    }
}

/// How the image's init is asked to turn the machine off.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ask {
    /// A signal, once it is heard or this time has passed.
    Signal(Signal, Duration),
    /// A program to run.
    Program(&'static str),
    /// There is no way that we know: as good as nothing is asked, and the agent does it by itself.
    Nobody,
}

/// As the agent: what has been written goes to the disk, then process 1 is asked, which is the image's own init (`Some`, its path), or ours.
pub fn ask(own_init: Option<&str>, how: Halt) {
    rustix::fs::sync();
    let question = match own_init {
        None => Ask::Signal(ASKS, Duration::ZERO),
        Some(path) => {
            let kind = fs::canonicalize(path).unwrap_or_else(|_| path.into());
            let exists = |program: &str| Path::new(program).exists();
            question(&kind.to_string_lossy(), how, exists)
        }
    };
    let asked = match question {
        Ask::Signal(signal, patience) => {
            wait_for_ears(signal, patience);
            kill_process(Pid::INIT, signal).map_err(io::Error::from)
        }
        Ask::Program(program) => run(program),
        Ask::Nobody => Err(io::Error::other("its kind is not known")),
    };
    if let Err(e) = asked {
        console::say(format_args!("cannot ask the image's init to shut down: {e}"));
        halt(how)
    }
}

/// Waits until process 1 is ready to hear `signal`: to an init that has just been started, one that it does not catch yet is
/// lost (kernel: kernel/signal.c, SIGNAL_UNKILLABLE).
fn wait_for_ears(signal: Signal, patience: Duration) {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        match fs::read_to_string("/proc/1/status") {
            Ok(status) if !hears(&status, signal) => std::thread::sleep(Duration::from_millis(5)),
            _ => return,
        }
    }
}

/// Whether a process with this /proc/pid/status catches `signal`, or has blocked it to fetch it later.
fn hears(status: &str, signal: Signal) -> bool {
    let bit = 1u64 << (signal.as_raw() - 1);
    let masks = status.lines().filter_map(|line| line.split_once(':'));
    masks
        .filter(|(name, _)| matches!(*name, "SigBlk" | "SigCgt"))
        .any(|(_, mask)| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & bit != 0))
}

fn run(program: &str) -> io::Result<()> {
    let status = Command::new(program).stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{program}: {status}"))) }
}

fn question(init: &str, how: Halt, exists: impl Fn(&str) -> bool) -> Ask {
    let name = init.rsplit('/').next().unwrap_or(init);
    if name == "systemd" {
        // systemd(1), SIGNALS: SIGRTMIN+4 starts poweroff.target, SIGRTMIN+5 reboot.target.
        return Ask::Signal(syscalls::realtime(if how == Halt::PowerOff { 4 } else { 5 }), SYSTEMD_EARS);
    }
    if name.starts_with("busybox") || name == "bbsuid" {
        // busybox: init/halt.c.
        return Ask::Signal(if how == Halt::PowerOff { Signal::USR2 } else { Signal::TERM }, BUSYBOX_EARS);
    }
    let programs = match how {
        Halt::PowerOff => ["/sbin/poweroff", "/usr/sbin/poweroff"],
        Halt::Reboot => ["/sbin/reboot", "/usr/sbin/reboot"],
    };
    programs.into_iter().find(|program| exists(program)).map_or(Ask::Nobody, Ask::Program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_hears_what_it_catches_or_blocks() {
        let status = |blocked: &str, caught: &str| {
            format!(
                "Name:\tinit\nSigPnd:\tffffffffffffffff\nSigBlk:\t{blocked}\nSigIgn:\tffffffffffffffff\nSigCgt:\t{caught}\n"
            )
        };
        let none = "0000000000000000";
        assert!(!hears(&status(none, none), Signal::USR2));
        assert!(hears(&status(none, "0000000000000800"), Signal::USR2));
        assert!(hears(&status("7fe3c0fe28014a03", none), syscalls::realtime(4)));
        assert!(!hears("", Signal::USR2));
    }

    #[test]
    fn every_init_is_asked_in_its_own_language() {
        use Halt::{PowerOff, Reboot};
        let table = [
            ("/usr/lib/systemd/systemd", PowerOff, Ask::Signal(syscalls::realtime(4), SYSTEMD_EARS)),
            ("/usr/lib/systemd/systemd", Reboot, Ask::Signal(syscalls::realtime(5), SYSTEMD_EARS)),
            ("/bin/busybox", PowerOff, Ask::Signal(Signal::USR2, BUSYBOX_EARS)),
            ("/bin/busybox.static", Reboot, Ask::Signal(Signal::TERM, BUSYBOX_EARS)),
            ("/sbin/init", PowerOff, Ask::Program("/sbin/poweroff")),
            ("/sbin/init", Reboot, Ask::Program("/sbin/reboot")),
        ];
        for (init, how, want) in table {
            assert_eq!(question(init, how, |p| p.starts_with("/sbin/")), want, "{init} {how:?}");
        }
        assert_eq!(question("/sbin/init", PowerOff, |_| false), Ask::Nobody);
    }
}
