//! A program that is told something on its stdin, answers, and may take only so long.
//!
//! This module may use `unsafe` for what the standard library has no safe word for: code between fork and exec.
#![allow(unsafe_code)]

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Gid, Pid, PidfdFlags, Signal, Uid, kill_process_group, pidfd_open, setsid};

use super::CmdError;

/// The longest input, in bytes: a pipe takes as much even from a program that reads nothing (pipe(7)).
pub const MAX_INPUT: usize = 4096;
/// What a program says beyond this is not kept, in bytes.
const MAX_OUTPUT: u64 = 1 << 20;

/// How a program is run that may take only so long.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    pub program: &'a Path,
    /// The name that it is called by, where that is another than its path's.
    pub called: Option<&'a str>,
    /// Whose rights it has; None: ours.
    pub user: Option<(Uid, Gid)>,
    /// All of its environment.
    pub env: &'a [(&'a str, &'a str)],
    pub limit: Duration,
}

/// Runs `program` with `args`, with nothing but `env` in its environment, and feeds it `input`. However it ends is its caller's
/// to judge.
///
/// # Errors
/// [`CmdError::Spawn`]; [`CmdError::TooSlow`], after which it and what it has started are gone.
pub fn run_fed(
    program: &Path,
    args: &[&str],
    env: &[(&str, &str)],
    input: &[u8],
    limit: Duration,
) -> Result<Output, CmdError> {
    Run { program, called: None, user: None, env, limit }.fed(args, input)
}

impl Run<'_> {
    /// As [`run_fed`].
    pub fn fed(&self, args: &[&str], input: &[u8]) -> Result<Output, CmdError> {
        let name = self.program.display().to_string();
        let deadline = Instant::now() + self.limit;
        match self.until(deadline, args, input) {
            Ok(Some(output)) => Ok(output),
            Ok(None) => Err(CmdError::TooSlow { program: name, limit: self.limit }),
            Err(source) => Err(CmdError::Spawn { program: name, source }),
        }
    }

    fn until(&self, deadline: Instant, args: &[&str], input: &[u8]) -> io::Result<Option<Output>> {
        if input.len() > MAX_INPUT {
            return Err(io::Error::other("it would be fed too much"));
        }
        let mut command = Command::new(self.program);
        if let Some(called) = self.called {
            command.arg0(called);
        }
        if let Some((uid, gid)) = self.user {
            // Our supplementary groups go with our uid (std::os::unix::process::CommandExt::uid).
            command.uid(uid.as_raw()).gid(gid.as_raw()).current_dir("/");
            // In a session of its own: whoever else is this user may take the process over, and could type into our terminal
            // (ioctl_tty(2), TIOCSTI).
            // SAFETY: between fork and exec only async-signal-safe functions may be called (signal-safety(7)); setsid(2) is one, made
            // here by a raw system call that neither allocates nor takes locks, nor does turning its errno into an io::Error.
            unsafe {
                command.pre_exec(|| setsid().map(drop).map_err(io::Error::from));
            }
        } else {
            command.process_group(0);
        }
        let mut child = command
            .args(args)
            .env_clear()
            .envs(self.env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let said = feed(&mut child, input).and_then(|()| listen(&mut child, deadline));
        if !matches!(said, Ok(Some(_))) {
            end(&mut child)?;
        }
        let Some((stdout, stderr)) = said? else { return Ok(None) };
        Ok(Some(Output { status: child.wait()?, stdout, stderr }))
    }
}

fn feed(child: &mut Child, input: &[u8]) -> io::Result<()> {
    let Some(mut stdin) = child.stdin.take() else { return Ok(()) };
    match stdin.write_all(input) {
        // It need not listen.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// What it says until it ends; None: it has not ended by `deadline`.
fn listen(child: &mut Child, deadline: Instant) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (vec![], vec![]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Whoever talks without a pause is late as well.
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let (ended, from_out, from_err) = {
            let mut fds = vec![PollFd::new(&process, PollFlags::IN)];
            fds.extend(stdout.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            fds.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            if poll(&mut fds, Some(&timeout))? == 0 {
                return Ok(None);
            }
            let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
            let ended = ready.next().unwrap_or(false);
            let from_out = stdout.is_some() && ready.next().unwrap_or(false);
            (ended, from_out, ready.next().unwrap_or(false))
        };
        if from_out {
            take(&mut stdout, &mut out)?;
        }
        if from_err {
            take(&mut stderr, &mut err)?;
        }
        // Something that it has left behind may keep the pipes open for ever; what was said is in them by now.
        if ended && !from_out && !from_err {
            return Ok(Some((out, err)));
        }
    }
}

/// Moves what is there from a pipe; at its end there is no pipe any more.
fn take(pipe: &mut Option<impl Read>, kept: &mut Vec<u8>) -> io::Result<()> {
    let Some(reader) = pipe else { return Ok(()) };
    let mut buffer = [0; 4096];
    match reader.read(&mut buffer) {
        Ok(0) => *pipe = None,
        Ok(n) if (kept.len() + n) as u64 <= MAX_OUTPUT => kept.extend_from_slice(&buffer[..n]),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
        Err(e) => return Err(e),
    }
    Ok(())
}

fn end(child: &mut Child) -> io::Result<()> {
    match kill_process_group(Pid::from_child(child), Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(e) => return Err(e.into()),
    }
    // It may have gone to another group.
    child.kill()?;
    child.wait().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn sh(script: &str, input: &[u8], limit: Duration) -> Result<Output, CmdError> {
        let env = [("PATH", "/usr/bin:/bin"), ("A", "1")];
        run_fed(Path::new("/bin/sh"), &["-c", script], &env, input, limit)
    }

    #[test]
    fn it_hears_its_input_and_is_heard() {
        let out = sh("cat; echo $A >&2; exit 3", b"question", PATIENCE).expect("runs");
        assert_eq!((out.stdout.as_slice(), out.stderr.as_slice()), (&b"question"[..], &b"1\n"[..]));
        assert_eq!(out.status.code(), Some(3));
        let deaf = sh("exec <&-; echo done", &[b'x'; MAX_INPUT], PATIENCE).expect("runs");
        assert_eq!(deaf.stdout, b"done\n");
        let long = sh("head -c 3000000 /dev/zero; echo end >&2", b"", PATIENCE).expect("runs");
        assert_eq!((long.stdout.len(), long.stderr.as_slice()), (1 << 20, &b"end\n"[..]));
    }

    #[test]
    fn one_that_takes_too_long_is_ended_with_all_that_it_started() {
        let dir = tempfile::tempdir().expect("a directory");
        let pids = dir.path().join("pids");
        let script = format!("sleep 1000 & echo $! >{0}; echo $$ >>{0}; wait", pids.display());
        let begun = Instant::now();
        let error = sh(&script, b"", Duration::from_millis(500)).expect_err("too slow");
        assert!(begun.elapsed() < PATIENCE);
        assert_eq!(error.to_string(), "/bin/sh did not end within 500ms");
        for pid in std::fs::read_to_string(&pids).expect("it ran").lines() {
            let alive =
                || crate::host::process::observe(pid.parse().expect("a pid")).expect("reads").is_some();
            while alive() {
                assert!(begun.elapsed() < PATIENCE, "{pid} lives");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    #[test]
    fn what_it_leaves_behind_holds_nobody_up() {
        let begun = Instant::now();
        let out = sh("sleep 30 & echo said", b"", PATIENCE).expect("runs");
        assert_eq!(out.stdout, b"said\n");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
