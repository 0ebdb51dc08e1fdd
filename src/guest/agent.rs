//! The agent: listens on vsock, tells the host that it does, and gives every connection a thread.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;
use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockListener, VsockStream};

use super::serve::{After, Guest, serve};
use super::{console, power, syscalls};
use crate::proto::agent::{PORT, Ready};
use crate::vm::boot::Halt;

/// What a connection's thread may use of the stack; it keeps its buffers elsewhere.
const STACK: usize = 256 * 1024;

/// What process 1 tells the agent, as the words of its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duty {
    /// The host's port to report to; None: it has been told already, by an agent before this one.
    pub ready_port: Option<u32>,
    pub halt: Halt,
    /// The image's own init, which is process 1; None: our own is.
    pub own_init: Option<String>,
}

impl Duty {
    /// Reads the words; None if they are not process 1's.
    pub fn parse(words: &[OsString]) -> Option<Self> {
        let words: Vec<&str> = words.iter().map(|word| word.to_str()).collect::<Option<_>>()?;
        let ["agent", halt, rest @ ..] = &words[..] else { return None };
        let halt = match *halt {
            "poweroff" => Halt::PowerOff,
            "reboot" => Halt::Reboot,
            _ => return None,
        };
        let mut duty = Self { ready_port: None, halt, own_init: None };
        for word in rest {
            match word.split_once('=')? {
                ("ready", port) => duty.ready_port = Some(port.parse().ok()?),
                ("init", path) => duty.own_init = Some(path.to_owned()),
                _ => return None,
            }
        }
        Some(duty)
    }

    fn words(&self) -> Vec<String> {
        let halt = match self.halt {
            Halt::PowerOff => "poweroff",
            Halt::Reboot => "reboot",
        };
        let ready = self.ready_port.map(|port| format!("ready={port}"));
        let init = self.own_init.as_ref().map(|path| format!("init={path}"));
        ["agent".to_owned(), halt.to_owned()].into_iter().chain(ready).chain(init).collect()
    }

    /// Starts the first agent, as a fork of this process, which has one thread: under emulation a second exec of our own
    /// executable costs 50 ms, most of it to translate again what has just run.
    pub fn fork(&self) -> io::Result<Pid> {
        match syscalls::fork()? {
            Some(child) => Ok(child),
            None => {
                run(self.clone());
                // The way back leads to what process 1 does next.
                std::process::exit(1)
            }
        }
    }

    /// Starts another agent, once process 1 catches signals, which a fork of it would inherit. It runs the file that this process runs, which no path leads to any more.
    pub fn start(&self) -> io::Result<Pid> {
        let child = Command::new("/proc/self/exe")
            .arg0("banger-vsock")
            .args(self.words())
            .env_clear()
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Pid::from_child(&child))
    }
}

/// Serves until the machine is turned off.
pub fn run(duty: Duty) -> ExitCode {
    if let Err(e) = rustix::thread::set_name(c"banger-vsock") {
        console::say(format_args!("cannot name the agent: {e}"));
    }
    // A session of its own: what is done to the terminal or the group of process 1 does not concern it.
    if let Err(e) = rustix::process::setsid() {
        console::say(format_args!("the agent cannot have a session of its own: {e}"));
    }
    let listener = match VsockListener::bind_with_cid_port(VMADDR_CID_ANY, PORT) {
        Ok(listener) => listener,
        Err(e) => {
            console::say(format_args!("cannot listen on vsock port {PORT}: {e}"));
            return ExitCode::FAILURE;
        }
    };
    let guest = match Guest::new(duty.own_init.clone()) {
        Ok(guest) => Arc::new(guest),
        Err(e) => {
            console::say(format_args!("cannot start the agent: {e}"));
            return ExitCode::FAILURE;
        }
    };
    // The connection stays open until the host closes it: closed at once, it could take the line away before it was read.
    let _told = duty.ready_port.map(|port| {
        let told = tell(port, &Ready::Up(guest.hello()));
        told.inspect_err(|e| console::say(format_args!("cannot tell the host that the guest is ready: {e}")))
    });
    loop {
        match listener.accept() {
            Ok((stream, peer)) if peer.cid() == VMADDR_CID_HOST => accept(stream.into(), &guest, duty.halt),
            // Another guest, or a process of this one over the loopback device: not whom we work for.
            Ok(_) => {}
            Err(e) => {
                console::say(format_args!("cannot accept a connection: {e}"));
                // Out of descriptors or of memory: it may pass.
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn accept(socket: OwnedFd, guest: &Arc<Guest>, halt: Halt) {
    let guest = Arc::clone(guest);
    let spawned = thread::Builder::new().stack_size(STACK).spawn(move || {
        if serve(socket, &guest) == After::PowerOff {
            if guest.own_init().is_some() {
                // systemd gives those that ignore SIGTERM a minute and a half; our own process 1 does not.
                guest.close(power::GRACE + power::GRACE);
            }
            power::ask(guest.own_init(), halt);
        }
    });
    if let Err(e) = spawned {
        console::say(format_args!("cannot serve a connection: {e}"));
    }
}

fn tell(port: u32, ready: &Ready) -> io::Result<VsockStream> {
    let mut host = VsockStream::connect_with_cid_port(VMADDR_CID_HOST, port)?;
    host.write_all(ready_line(ready)?.as_bytes())?;
    Ok(host)
}

/// What crosses the ready port.
pub fn ready_line(ready: &Ready) -> io::Result<String> {
    Ok(serde_json::to_string(ready)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_words_read_back() {
        for ready_port in [None, Some(1001)] {
            for own_init in [None, Some("/sbin/init".to_owned())] {
                for halt in [Halt::PowerOff, Halt::Reboot] {
                    let duty = Duty { ready_port, halt, own_init: own_init.clone() };
                    let words: Vec<OsString> = duty.words().into_iter().map(OsString::from).collect();
                    assert_eq!(Duty::parse(&words), Some(duty));
                }
            }
        }
    }

    #[test]
    fn other_words_are_no_duty() {
        for words in ["", "agent", "agent sleep", "agent poweroff ready=x", "agent poweroff x=y", "run"] {
            let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
            assert_eq!(Duty::parse(&words), None, "{words:?}");
        }
    }
}
