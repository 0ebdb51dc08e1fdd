//! Processes by pid *and* start time, so that a number that the kernel has given away again is not taken for ours (F4).

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::vm::state::Process;

/// Returns the process with this pid as it is now; None if there is none, or only a zombie.
pub fn observe(pid: u32) -> io::Result<Option<Process>> {
    let stat = read_stat(pid)?.filter(|stat| !stat.zombie);
    Ok(stat.map(|stat| Process { pid, started: stat.started }))
}

fn read_stat(pid: u32) -> io::Result<Option<Stat>> {
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => Ok(parse_stat(&stat)),
        Err(e)
            if e.kind() == io::ErrorKind::NotFound
                || e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// The process that this is.
pub fn myself() -> io::Result<Process> {
    observe(std::process::id())?
        .ok_or_else(|| io::Error::other("/proc does not show this process; is /proc mounted?"))
}

pub fn is_alive(process: Process) -> io::Result<bool> {
    Ok(observe(process.pid)? == Some(process))
}

/// Opens a descriptor that stands for exactly this process, and becomes readable when it ends (pidfd_open(2)). None if it has
/// ended; a zombie has one, since whoever is its parent must still be able to wait for it.
pub fn open(process: Process) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let fd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(fd) => fd,
        Err(Errno::SRCH) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    // The number may have changed hands before it was opened; from here on it cannot.
    let is_it = read_stat(process.pid)?.is_some_and(|stat| stat.started == process.started);
    Ok(is_it.then_some(fd))
}

/// Sends `signal` to exactly this process; nothing if it has ended.
pub fn signal(process: Process, signal: Signal) -> io::Result<()> {
    let Some(fd) = open(process)? else { return Ok(()) };
    match pidfd_send_signal(fd, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// CPU time of all its threads, of its own and of the kernel's for it.
    pub cpu: Duration,
    /// A signal has stopped it, or a debugger.
    pub stopped: bool,
}

/// Returns what exactly this process has used; None if it has ended.
pub fn used(process: Process) -> io::Result<Option<Used>> {
    let stat = read_stat(process.pid)?.filter(|stat| !stat.zombie && stat.started == process.started);
    // proc(5): in units of sysconf(_SC_CLK_TCK), which is 100 on all that Linux runs on today.
    let cpu = |stat: &Stat| Duration::from_millis(stat.ticks.saturating_mul(10));
    Ok(stat.map(|stat| Used { cpu: cpu(&stat), stopped: stat.stopped }))
}

/// What /proc/pid/stat says (proc(5), fields 3, 14 with 15, and 22).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    zombie: bool,
    stopped: bool,
    ticks: u64,
    /// In clock ticks since boot.
    started: u64,
}

fn parse_stat(stat: &[u8]) -> Option<Stat> {
    // Field 2 is the program's name in parentheses, which may itself hold spaces and parentheses.
    let after_name = stat.iter().rposition(|b| *b == b')')? + 1;
    let text = std::str::from_utf8(&stat[after_name..]).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = fields.next()?;
    let (zombie, stopped) = (matches!(state, "Z" | "X" | "x"), matches!(state, "T" | "t"));
    let (user, system): (u64, u64) = (fields.nth(10)?.parse().ok()?, fields.next()?.parse().ok()?);
    let ticks = user.saturating_add(system);
    Some(Stat { zombie, stopped, ticks, started: fields.nth(6)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_pid_and_start_time() {
        let me = myself().expect("reads /proc");
        assert!(is_alive(me).expect("reads /proc"));
        assert!(!is_alive(Process { started: me.started + 1, ..me }).expect("reads /proc"));
        assert!(open(Process { started: me.started + 1, ..me }).expect("opens").is_none());
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().expect("spawns");
        let fd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("opens");
        let mut poll = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut poll, None).expect("polls");
        assert_eq!(observe(child.id()).expect("reads /proc"), None);
        child.wait().expect("reaps");
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let stat = b"42 (a) b (c) S 1 1 1 0 -1 4 0 0 0 0 30 4 0 0 20 0 1 0 777 0 0";
        let sleeping = Stat { zombie: false, stopped: false, ticks: 34, started: 777 };
        assert_eq!(parse_stat(stat), Some(sleeping));
        let zombie = b"42 (x) Z 1 1 1 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0";
        assert_eq!(parse_stat(zombie), Some(Stat { zombie: true, stopped: false, ticks: 0, started: 777 }));
        assert_eq!(parse_stat(b"42 (x"), None);
    }
}
