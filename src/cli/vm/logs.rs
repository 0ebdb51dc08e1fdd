//! `banger vm logs`: what the guest wrote to its console, or what the VMM said.
//!
//! The daemon hands over the open file; from then on it is not needed. On a terminal every line is made harmless (A19);
//! on a pipe the bytes pass as they are.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use argh::{ArgsInfo, FromArgs};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

use crate::cli::client::{Attention, Client, ClientError};
use crate::cli::error::Error;
use crate::cli::render::{self, Progress};
use crate::proto::api::{Code, Log, VmLogs, VmShow};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Show what the guest wrote to its console.
#[argh(
    subcommand,
    name = "logs",
    help_triggers("-h", "--help", "help"),
    example = "banger vm logs dev\nbanger vm logs -f dev\nbanger vm logs --vmm dev        # what QEMU or Firecracker said"
)]
pub struct Logs {
    /// the VM's name, its id, or the beginning of its id
    #[argh(positional)]
    vm: String,
    /// go on as it grows, until the VM stops
    #[argh(switch, short = 'f')]
    follow: bool,
    /// show what the VMM said instead
    #[argh(switch)]
    vmm: bool,
}

impl Logs {
    pub fn run(&self) -> Result<(), Error> {
        let client = Client::from_env()?;
        let which = if self.vmm { Log::Vmm } else { Log::Console };
        let request = VmLogs { vm: self.vm.clone(), which };
        let fd = client.open(request, &mut Attention::to(&mut Progress::silent()))?;
        let mut reader =
            Reader { log: File::from(fd), at: 0, line: vec![], harmless: io::stdout().is_terminal() };
        if !self.follow {
            reader.catch_up()?;
            return reader.finish();
        }
        let grows = watch(&reader.log).map_err(host("watch the log"))?;
        loop {
            reader.catch_up()?;
            if !wait(&grows).map_err(host("watch the log"))? && !self.is_alive(&client)? {
                // What it wrote between the last look and its end.
                reader.catch_up()?;
                return reader.finish();
            }
        }
    }

    /// Whether more can come: the VM exists and has processes.
    fn is_alive(&self, client: &Client) -> Result<bool, Error> {
        match client.ask(VmShow { vm: self.vm.clone() }) {
            Ok(vm) => Ok(vm.record.state.processes().is_some()),
            Err(ClientError::Failed(failure)) if failure.code == Code::NotFound => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

/// A log and how far it has been shown.
struct Reader {
    log: File,
    at: u64,
    /// The beginning of a line whose end has not come; only where lines are made harmless.
    line: Vec<u8>,
    harmless: bool,
}

/// A line that is longer is shown in pieces.
const LONGEST_LINE: usize = 64 * 1024;

impl Reader {
    /// Shows all that is there.
    fn catch_up(&mut self) -> Result<(), Error> {
        let mut buffer = [0; 64 * 1024];
        // A log that was cut short begins anew.
        if self.log.metadata().map_err(host("read the log"))?.len() < self.at {
            self.at = 0;
        }
        loop {
            // At an offset of our own: the descriptor may share its offset with others.
            let n = match self.log.read_at(&mut buffer, self.at) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(host("read the log")(e)),
            };
            self.at += n as u64;
            self.show(&buffer[..n])?;
        }
    }

    fn show(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if !self.harmless {
            let mut stdout = io::stdout().lock();
            return stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Error::Stdout);
        }
        self.line.extend_from_slice(bytes);
        while let Some(end) = self.line.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            render::out(&format!("{}\n", render::log_line(&line[..end])))?;
        }
        if self.line.len() > LONGEST_LINE {
            self.finish()?;
        }
        Ok(())
    }

    /// Shows a last line without its end.
    fn finish(&mut self) -> Result<(), Error> {
        if self.line.is_empty() {
            return Ok(());
        }
        let line = std::mem::take(&mut self.line);
        render::out(&format!("{}\n", render::log_line(&line)))
    }
}

fn watch(log: &File) -> io::Result<OwnedFd> {
    let watcher = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    // The path leads to the very file that is open, wherever it is and whatever it is called now (proc(5)).
    let path = format!("/proc/self/fd/{}", log.as_raw_fd());
    inotify::add_watch(&watcher, path, inotify::WatchFlags::MODIFY)?;
    Ok(watcher)
}

/// Waits until the log has grown; false when it has not for two seconds.
fn wait(grows: &OwnedFd) -> io::Result<bool> {
    const IDLE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
    let mut fds = [PollFd::new(grows, PollFlags::IN)];
    match poll(&mut fds, Some(&IDLE)) {
        Ok(0) => return Ok(false),
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(true),
        Err(e) => return Err(e.into()),
    }
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(grows, &mut space);
    loop {
        match events.next() {
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn host(what: &str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Host { what: what.to_owned(), source }
}
