//! Sessions on a pseudo-terminal: a real one, with `banger` on its other end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use crate::rig::{PATIENCE, Rig};

pub struct Terminal {
    master: File,
    slave: OwnedFd,
    pub child: Child,
    seen: String,
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    /// Runs `banger` in a session whose controlling terminal is a new one of 30 rows and 100 columns.
    pub fn run(rig: &Rig, args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("opens");
        grantpt(&master).expect("grants");
        unlockpt(&master).expect("unlocks");
        let name = ptsname(&master, vec![]).expect("has a name");
        let slave = rustix::fs::open(
            &name,
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .expect("opens");
        tcsetwinsize(&slave, size(30, 100)).expect("sizes");
        let end = || Stdio::from(slave.try_clone().expect("clones"));
        // setsid --ctty makes the terminal on stdin the controlling one, as a login does.
        let mut command = std::process::Command::new("setsid");
        command
            .args(["--ctty", "--wait"])
            .arg(crate::rig::binary())
            .args(args)
            .env("BANGER_ROOT", rig.path());
        let child =
            command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end()).spawn().expect("runs");
        Self { master: File::from(master), slave, child, seen: String::new() }
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.slave, size(rows, columns)).expect("sizes");
    }

    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("writes");
    }

    /// Reads until `text` has been shown after what was seen before; fails the test when it does not come.
    pub fn shows(&mut self, text: &str) {
        let begun = std::time::Instant::now();
        while !self.seen.contains(text) {
            assert!(begun.elapsed() < PATIENCE, "{text:?} is not in {:?}", self.seen);
            let mut poll = [rustix::event::PollFd::new(&self.master, rustix::event::PollFlags::IN)];
            let wait = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
            if rustix::event::poll(&mut poll, Some(&wait)).expect("polls") > 0 {
                let mut bytes = [0; 4096];
                let n = self.master.read(&mut bytes).expect("reads");
                self.seen.push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        }
        let at = self.seen.find(text).expect("was found") + text.len();
        self.seen = self.seen.split_off(at);
    }

    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("reads");
        modes.local_modes.contains(rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO)
    }
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_shell_has_a_terminal_of_the_right_size_that_follows_and_is_given_back() {
    let rig = Rig::new();
    let mut terminal = Terminal::run(&rig, &["vm", "run", "--rm", "--name", "dev", "--image", "busybox"]);
    terminal.shows("# ");
    assert!(!terminal.is_cooked());
    terminal.type_in("stty size\r");
    terminal.shows("30 100");
    terminal.resize(50, 132);
    terminal.type_in("sleep 1; stty size; tty\r");
    terminal.shows("50 132");
    terminal.shows("/dev/pts/");
    // Ctrl-C ends the foreground command, not the session.
    terminal.type_in("sleep 1000\r");
    std::thread::sleep(std::time::Duration::from_millis(700));
    terminal.type_in("\x03");
    terminal.type_in("echo st''ill here\r");
    terminal.shows("still here");
    terminal.shows("# ");
    // Ctrl-D ends the shell; its status is that of the last command. Typed before the prompt is back, it would be that
    // command's end of input, and nobody's.
    terminal.type_in("(exit 9)\r");
    terminal.shows("(exit 9)");
    terminal.shows("# ");
    terminal.type_in("\x04");
    let status = terminal.child.wait().expect("ends");
    assert_eq!(status.code(), Some(9));
    assert!(terminal.is_cooked());
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_terminal_is_given_back_even_when_the_vm_dies() {
    let rig = Rig::new();
    rig.ok("vm run -d --name dev --image busybox");
    let mut terminal = Terminal::run(&rig, &["vm", "exec", "-i", "-t", "dev"]);
    terminal.shows("# ");
    rig.ok("vm kill dev");
    let status = terminal.child.wait().expect("ends");
    assert_ne!(status.code(), Some(0));
    assert!(terminal.is_cooked());
}
