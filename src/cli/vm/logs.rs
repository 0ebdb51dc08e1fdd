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
use crate::cli::moment;
use crate::cli::render::{self, Progress};
use crate::proto::api::{Code, Log, VmLogs, VmShow};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Show what the guest wrote to its console.
#[argh(
    subcommand,
    name = "logs",
    help_triggers("-h", "--help", "help"),
    example = "banger vm logs dev\n\
               banger vm logs -f dev\n\
               banger vm logs -n 20 --since 10m dev\n\
               banger vm logs --vmm dev        # what QEMU or Firecracker said",
    note = "Consoles write no times: bangerd looks at a log that grows every second and notes how long it is. So --since shows all that was written since then, and up to about a second more; what was written while bangerd did not run counts as written when it was back. Logs are of the present or last run, and are cut when they take more than 16 MiB."
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
    /// only what was written since then: how long ago, such as 10m, or a time such as 2026-11-30T02:00:00Z
    #[argh(option, arg_name = "time")]
    since: Option<String>,
    /// only this many lines of the end
    #[argh(option, short = 'n', arg_name = "count")]
    lines: Option<u64>,
}

impl Logs {
    pub fn run(&self) -> Result<(), Error> {
        let client = Client::from_env()?;
        let which = if self.vmm { Log::Vmm } else { Log::Console };
        let since = self.since.as_deref().map(|text| moment::since(text, render::now_ms())).transpose();
        let since_ms = since.map_err(|why| Error::Refused(format!("--since: {why}")))?;
        let request = VmLogs { vm: self.vm.clone(), which, since_ms };
        let (start, fd) = client.open_with(request, &mut Attention::to(&mut Progress::silent()))?;
        let log = File::from(fd);
        let at = beginning(&log, start.unwrap_or(0), self.lines).map_err(host("read the log"))?;
        let mut reader = Reader { log, at, line: vec![], harmless: io::stdout().is_terminal() };
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

/// Where to begin: with the whole line that `start` lies in, or with the last `lines` lines if that is later.
fn beginning(log: &File, start: u64, lines: Option<u64>) -> io::Result<u64> {
    let length = log.metadata()?.len();
    let start = if start == 0 { 0 } else { last_lines(log, 0, start.min(length), 0)? };
    match lines {
        None => Ok(start),
        Some(0) => Ok(length),
        Some(lines) => last_lines(log, start, length, lines),
    }
}

/// Where the last `lines` lines of what is between `start` and `end` begin, or the line that `end` lies in for 0. A line's end at
/// `end` begins no further one.
pub fn last_lines(log: &File, start: u64, end: u64, lines: u64) -> io::Result<u64> {
    let mut block = [0; 32 * 1024];
    let (mut at, mut left) = (end, lines);
    while at > start {
        let size = (at - start).min(block.len() as u64) as usize;
        let block = &mut block[..size];
        at -= size as u64;
        log.read_exact_at(block, at)?;
        for (n, byte) in block.iter().enumerate().rev() {
            let behind = at + n as u64 + 1;
            if *byte != b'\n' || (behind == end && lines > 0) {
                continue;
            }
            left = left.saturating_sub(1);
            if left == 0 {
                return Ok(behind);
            }
        }
    }
    Ok(start)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text).expect("writes");
        file
    }

    #[test]
    fn the_last_lines_begin_behind_a_lines_end() {
        let text = b"one\ntwo\nthree\n";
        let table = [
            (0, None, 0),
            (0, Some(1), 8),
            (0, Some(2), 4),
            (0, Some(3), 0),
            (0, Some(99), 0),
            (0, Some(0), 14),
            // In the middle of a line, at the beginning of one, and behind the end, as when it was cut.
            (5, None, 4),
            (8, None, 8),
            (99, None, 14),
            (5, Some(1), 8),
            (5, Some(9), 4),
        ];
        for (start, lines, want) in table {
            assert_eq!(beginning(&log(text), start, lines).expect("reads"), want, "{start} {lines:?}");
        }
        assert_eq!(beginning(&log(b"one\ntwo"), 0, Some(1)).expect("reads"), 4, "a line without an end");
        assert_eq!(beginning(&log(b""), 0, Some(1)).expect("reads"), 0);
        let long = [&b"a\n"[..], &[b'x'; 100_000], b"\ny\n"].concat();
        assert_eq!(beginning(&log(&long), 0, Some(2)).expect("reads"), 2, "a line of several blocks");
    }
}
