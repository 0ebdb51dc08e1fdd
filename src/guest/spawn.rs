//! Starting a command: its pipes or its terminal, and what happens between fork and exec.
//!
//! Between the two, the child makes a session of its own, takes the terminal, becomes the user and enters the directory, in
//! this order: whether the directory may be entered and the program be found on PATH is up to that user, unless
//! [`Command::cwd_first`] says otherwise. std's Command knows
//! neither supplementary groups nor terminals, so this is a `pre_exec` of system calls only; a shim of our own executable
//! would cost an exec more, and `true` in an emulated guest 40 ms instead of 14.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::exec::Command;
use super::wire::set_nonblocking;
use crate::proto::agent::Tty;

/// A command that has been started, with our ends of its streams, none of which blocks.
#[derive(Debug)]
pub struct Running {
    pub child: Child,
    /// Becomes readable when the command ends.
    pub ended: OwnedFd,
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// Our side of its terminal, which is then its stdin and stdout too.
    pub terminal: Option<OwnedFd>,
}

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Process,
    Terminal,
    User,
    Directory,
    Program,
}

type Failure = (Step, io::Error);

/// Starts the command in a session of its own: with a terminal, or with pipes. Without `stdin` it reads /dev/null.
pub fn spawn(command: &Command, tty: Option<Tty>, stdin: bool) -> Result<Running, Failure> {
    let mut builder = std::process::Command::new(&command.program);
    builder.arg0(&command.argv0).args(&command.args).env_clear().envs(&command.env);
    let mut ours = Streams::default();
    match tty {
        Some(size) => {
            terminal(&mut builder, &mut ours, size, command.user.uid).map_err(at(Step::Terminal))?
        }
        None => pipes(&mut builder, &mut ours, stdin).map_err(at(Step::Process))?,
    }
    let prepare = between_fork_and_exec(command, tty.is_some());
    // SAFETY: `prepare` runs in the child of a process with several threads, where only async-signal-safe calls are allowed:
    // it makes system calls through rustix's raw layer, and allocates, locks and drops nothing.
    unsafe { builder.pre_exec(prepare) };
    let child = builder.spawn().map_err(which_step)?;
    // The builder holds the child's ends; with them open here, their streams would never end.
    drop(builder);
    // The child has not been waited for, so its number is still its own.
    let ended =
        pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|e| at(Step::Process)(e.into()))?;
    Ok(Running {
        child,
        ended,
        stdin: ours.stdin,
        stdout: ours.stdout,
        stderr: ours.stderr,
        terminal: ours.terminal,
    })
}

#[derive(Default)]
struct Streams {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

fn pipes(builder: &mut std::process::Command, ours: &mut Streams, stdin: bool) -> io::Result<()> {
    if stdin {
        let (theirs, mine) = io::pipe()?;
        builder.stdin(theirs);
        ours.stdin = Some(mine.into());
    } else {
        builder.stdin(Stdio::null());
    }
    let (mine, theirs) = io::pipe()?;
    builder.stdout(theirs);
    ours.stdout = Some(mine.into());
    let (mine, theirs) = io::pipe()?;
    builder.stderr(theirs);
    ours.stderr = Some(mine.into());
    [&ours.stdin, &ours.stdout, &ours.stderr].into_iter().flatten().try_for_each(set_nonblocking)
}

fn terminal(builder: &mut std::process::Command, ours: &mut Streams, size: Tty, uid: u32) -> io::Result<()> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&master)?;
    set_size(&master, size.rows, size.columns)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    // Programs open /dev/tty and their terminal's own name again, as the user.
    rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None)?;
    builder.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
    set_nonblocking(&master)?;
    ours.stdin = Some(master.try_clone()?);
    ours.stdout = Some(master.try_clone()?);
    ours.terminal = Some(master);
    Ok(())
}

pub fn set_size(terminal: &OwnedFd, rows: u16, columns: u16) -> io::Result<()> {
    Ok(tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
}

fn between_fork_and_exec(
    command: &Command,
    tty: bool,
) -> impl FnMut() -> io::Result<()> + Send + Sync + use<> {
    let user = &command.user;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (cwd, cwd_first) = (command.cwd.clone(), command.cwd_first);
    let enter = move || rustix::process::chdir(&*cwd).map_err(|e| tagged(Step::Directory, e));
    // Whoever runs the tests is not root, and stays who it is.
    let same = rustix::process::getuid() == uid && !uid.is_root();
    move || {
        rustix::process::setsid().map_err(|e| tagged(Step::Process, e))?;
        if tty {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())
                .map_err(|e| tagged(Step::Terminal, e))?;
        }
        if cwd_first {
            enter()?;
        }
        if !same {
            set_thread_groups(&groups)
                .and_then(|()| set_thread_res_gid(gid, gid, gid))
                .and_then(|()| set_thread_res_uid(uid, uid, uid))
                .map_err(|e| tagged(Step::User, e))?;
        }
        if cwd_first { Ok(()) } else { enter() }
    }
}

/// std carries a raw number from the child to us, no more; the upper half of it says which step failed.
const TAG: i32 = 1 << 16;

fn tagged(step: Step, errno: rustix::io::Errno) -> io::Error {
    let step = match step {
        Step::Process => 1,
        Step::Terminal => 2,
        Step::User => 3,
        Step::Directory => 4,
        Step::Program => 0,
    };
    io::Error::from_raw_os_error(step * TAG + errno.raw_os_error())
}

fn which_step(error: io::Error) -> Failure {
    let Some(raw) = error.raw_os_error() else { return (Step::Process, error) };
    let step = match raw / TAG {
        0 => Step::Program,
        1 => Step::Process,
        2 => Step::Terminal,
        3 => Step::User,
        _ => Step::Directory,
    };
    (step, io::Error::from_raw_os_error(raw % TAG))
}

fn at(step: Step) -> impl FnOnce(io::Error) -> Failure {
    move |error| (step, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_that_failed_comes_back_with_its_errno() {
        for step in [Step::Process, Step::Terminal, Step::User, Step::Directory, Step::Program] {
            let (back, error) = which_step(tagged(step, rustix::io::Errno::ACCESS));
            assert_eq!((back, error.kind()), (step, io::ErrorKind::PermissionDenied));
        }
    }
}
