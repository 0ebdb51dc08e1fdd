//! The life of process 1 in an image without an init: it reaps what nobody else waits for, starts the agent again should it
//! ever end, and turns the machine off when it is asked.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait, waitpid};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::agent::Duty;
use super::{console, power};

/// An agent that lives shorter than this is not started again at once.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// `agent` is the running one; `duty` is what the next one is told.
pub fn reap_until_halt(mut agent: Option<Pid>, duty: &Duty) -> ! {
    // SIGUSR1, SIGUSR2 and SIGTERM are halt, poweroff and reboot of busybox; the kernel sends SIGINT for Ctrl-Alt-Del and
    // SIGPWR is the power button's. A VM that is to start again is started by its host, so they all mean the same here.
    let mut signals = match Signals::new([SIGCHLD, SIGTERM, SIGINT, SIGUSR1, SIGUSR2, Signal::POWER.as_raw()])
    {
        Ok(signals) => signals,
        Err(e) => {
            console::say(format_args!("cannot wait for signals: {e}"));
            power::halt(duty.halt)
        }
    };
    let mut started = Instant::now();
    loop {
        // What ended before the signals were caught is found here.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if Some(pid) == agent {
                console::say(format_args!("the agent ended ({status:?}), starting it again"));
                agent = None;
            }
        }
        if agent.is_none() {
            std::thread::sleep(SHORT_LIFE.saturating_sub(started.elapsed()));
            started = Instant::now();
            match duty.start() {
                Ok(pid) => agent = Some(pid),
                Err(e) => {
                    console::say(format_args!("cannot start the agent: {e}"));
                    continue;
                }
            }
        }
        if signals.wait().any(|signal| signal != SIGCHLD) {
            power::end_everything();
            power::halt(duty.halt)
        }
    }
}

/// Ends a child for good.
pub fn end(pid: Pid) {
    let ended = kill_process(pid, Signal::KILL).and_then(|()| {
        loop {
            match waitpid(Some(pid), WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        }
    });
    if let Err(e) = ended {
        console::say(format_args!("cannot end process {}: {e}", pid.as_raw_nonzero()));
    }
}
