//! A command's life: its streams to and from the host, its signals, its end.
//!
//! One thread polls everything and blocks on nothing, so a signal reaches a command that neither reads nor is read from.
//! Backpressure: output is read only while little of it waits for the host; input is at most the window that the host has.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::termios::{LocalModes, SpecialCodeIndex, tcgetattr, tcgetpgrp};

use super::serve::Guest;
use super::spawn::{self, Running};
use super::wire::{BEAT, Filled, Wire, timespec};
use super::{power, syscalls};
use crate::proto::agent::Answer;
use crate::proto::frame::{BadFrame, Frame, Kind, MAX_PAYLOAD, STDIN_WINDOW};

/// Output is read while less than this waits for the host.
const PATIENCE: usize = 2 * MAX_PAYLOAD;
/// Input that was consumed is credited to the host in pieces of at least this.
const CREDIT: usize = STDIN_WINDOW / 4;
/// How long a stream that someone else holds open is silent before it counts as ended, once the command has.
const SILENCE: Duration = Duration::from_millis(100);
/// How long a command may live on after its host hung up.
const AFTER_HANGUP: Duration = Duration::from_secs(2);

/// Says that the command runs, and serves it until it has ended and all that it wrote is with the host.
pub fn run(mut wire: Wire, command: Running, guest: &Guest) -> io::Result<()> {
    let _counted = guest.count();
    let said = wire.answer(&Answer::Started { pid: command.child.id() });
    let mut session = Session {
        wire,
        command,
        input: vec![],
        consumed: 0,
        no_more_input: false,
        exit: None,
        host: said.is_ok(),
        closed: false,
        kill_at: None,
        heard: Instant::now(),
        buffer: vec![0; MAX_PAYLOAD],
    };
    if !session.host {
        session.hang_up(AFTER_HANGUP);
    }
    let exit = session.serve(guest)?;
    if !session.host {
        return Ok(());
    }
    session.wire.queue(Kind::Exit, &[exit]);
    session.wire.finish()
}

struct Session {
    wire: Wire,
    command: Running,
    /// Input on its way to the command; never more than the host's window.
    input: Vec<u8>,
    /// Input that the command took and the host has not been told of.
    consumed: usize,
    no_more_input: bool,
    exit: Option<u8>,
    /// Whether the host is still there.
    host: bool,
    /// Whether the guest is being turned off.
    closed: bool,
    kill_at: Option<Instant>,
    /// When output was last read, or could not be.
    heard: Instant,
    buffer: Vec<u8>,
}

/// What a polled descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Host,
    Closing,
    Ended,
    Stdin,
    Stdout,
    Stderr,
}

impl Session {
    /// Returns how the command ended.
    fn serve(&mut self, guest: &Guest) -> io::Result<u8> {
        loop {
            if let Some(exit) = self.finished() {
                return Ok(exit);
            }
            for (source, events) in self.wait(guest)? {
                match source {
                    Source::Host => self.host_moves(events),
                    Source::Closing => {
                        self.closed = true;
                        self.hang_up(power::GRACE);
                    }
                    Source::Ended => {
                        let status = self.command.child.wait()?;
                        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
                        self.exit = Some(u8::try_from(code.unwrap_or(255)).unwrap_or(255));
                        self.heard = Instant::now();
                        self.kill_at = None;
                    }
                    Source::Stdin => self.feed(),
                    Source::Stdout => self.drain(Kind::Stdout),
                    Source::Stderr => self.drain(Kind::Stderr),
                }
            }
            if self.kill_at.is_some_and(|at| Instant::now() >= at) {
                self.kill_at = None;
                self.signal_group(Signal::KILL);
            }
            if self.host && self.wire.flush().is_err() {
                self.hang_up(AFTER_HANGUP);
            }
        }
    }

    /// The exit, once everything the command wrote has been read. Its children may keep the streams open for ever, so when it
    /// is gone they count as long as they have something to say.
    fn finished(&self) -> Option<u8> {
        let open = self.command.stdout.is_some() || self.command.stderr.is_some();
        self.exit.filter(|_| !open || !self.host || self.heard.elapsed() >= SILENCE)
    }

    fn wait(&mut self, guest: &Guest) -> io::Result<Vec<(Source, PollFlags)>> {
        let may_read = !self.host || self.wire.queued() < PATIENCE;
        let mut polled = vec![];
        let mut add = |source, fd, events| polled.push((source, PollFd::from_borrowed_fd(fd, events)));
        if !self.closed {
            add(Source::Closing, guest.closing(), PollFlags::IN);
        }
        if self.host {
            let out = if self.wire.queued() > 0 { PollFlags::OUT } else { PollFlags::empty() };
            add(Source::Host, self.wire.socket(), PollFlags::IN | PollFlags::RDHUP | out);
        }
        if self.exit.is_none() {
            add(Source::Ended, fd(&self.command.ended), PollFlags::IN);
        }
        if let (Some(stdin), false) = (&self.command.stdin, self.input.is_empty()) {
            add(Source::Stdin, fd(stdin), PollFlags::OUT);
        }
        if may_read {
            for (source, stream) in
                [(Source::Stdout, &self.command.stdout), (Source::Stderr, &self.command.stderr)]
            {
                if let Some(stream) = stream {
                    add(source, fd(stream), PollFlags::IN);
                }
            }
        } else {
            self.heard = Instant::now();
        }
        let now = Instant::now();
        let silence = self.exit.filter(|_| may_read).map(|_| self.heard + SILENCE);
        let beat = self.host.then(|| now + BEAT);
        let deadline = [silence, self.kill_at, beat].into_iter().flatten().min();
        // A millisecond more, or a deadline that is all but reached would be polled for again and again.
        let timeout =
            deadline.map(|at| timespec(at.saturating_duration_since(now) + Duration::from_millis(1)));
        let mut fds: Vec<PollFd<'_>> = polled.iter().map(|(_, fd)| fd.clone()).collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) if self.host => {
                self.wire.look_after_host();
                return Ok(vec![]);
            }
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(vec![]),
            Err(e) => return Err(e.into()),
        }
        let moved = polled.iter().zip(&fds).map(|((source, _), fd)| (*source, fd.revents()));
        Ok(moved.filter(|(_, events)| !events.is_empty()).collect())
    }

    fn host_moves(&mut self, events: PollFlags) {
        if !events.intersects(PollFlags::IN | PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        let mut hear = || -> io::Result<bool> {
            let filled = self.wire.fill()?;
            while let Some(frame) = self.wire.take()? {
                self.obey(frame)?;
            }
            Ok(filled != Filled::End)
        };
        // A host that breaks the protocol is as good as gone: nothing that it says can be trusted any more.
        if !matches!(hear(), Ok(true)) {
            self.hang_up(AFTER_HANGUP);
        }
    }

    fn obey(&mut self, frame: Frame) -> Result<(), BadFrame> {
        match frame.kind {
            Kind::Stdin => {
                if self.no_more_input || self.input.len() + self.consumed + frame.payload.len() > STDIN_WINDOW
                {
                    return Err(BadFrame::Unexpected(Kind::Stdin));
                }
                self.input.extend(frame.payload);
                self.feed();
            }
            Kind::Eof => {
                self.no_more_input = true;
                if let Some(terminal) = &self.command.terminal {
                    self.input.extend(end_of_file(terminal));
                }
                self.feed();
            }
            Kind::Resize => {
                let (rows, columns) = frame.as_resize()?;
                if let Some(terminal) = &self.command.terminal {
                    // The terminal tells its foreground processes by SIGWINCH. If it is gone, so are they.
                    spawn::set_size(terminal, rows, columns).ok();
                }
            }
            Kind::Signal => {
                let number = frame.as_byte()?;
                self.signal_foreground(signal(number).ok_or(BadFrame::Payload(Kind::Signal))?);
            }
            kind => return Err(BadFrame::Unexpected(kind)),
        }
        Ok(())
    }

    /// Gives the command of its input what it takes, and the host as much of its window back.
    fn feed(&mut self) {
        while let (Some(stdin), false) = (&self.command.stdin, self.input.is_empty()) {
            match rustix::io::write(stdin, &self.input) {
                Ok(n) => {
                    self.input.drain(..n);
                    self.consumed += n;
                }
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => break,
                // The command does not read any more.
                Err(_) => self.command.stdin = None,
            }
        }
        if self.command.stdin.is_none() {
            self.consumed += std::mem::take(&mut self.input).len();
        }
        if self.no_more_input && self.input.is_empty() && self.command.terminal.is_none() {
            self.command.stdin = None;
        }
        if self.consumed >= CREDIT && !self.no_more_input {
            self.wire.queue(Kind::Window, &(self.consumed as u32).to_le_bytes());
            self.consumed = 0;
        }
    }

    fn drain(&mut self, kind: Kind) {
        let stream = if kind == Kind::Stdout { &mut self.command.stdout } else { &mut self.command.stderr };
        let Some(open) = stream else { return };
        match rustix::io::read(open, &mut self.buffer[..]) {
            Ok(n) if n > 0 => {
                self.heard = Instant::now();
                if self.host {
                    self.wire.queue(kind, &self.buffer[..n]);
                }
            }
            Err(Errno::INTR | Errno::WOULDBLOCK) => {}
            // Its end; EIO where a terminal has nobody on the other side.
            Ok(_) | Err(_) => *stream = None,
        }
    }

    /// The host is gone: what hangs up a terminal hangs up the command, and soon the last word is SIGKILL's.
    fn hang_up(&mut self, patience: Duration) {
        self.host = false;
        self.input.clear();
        self.command.stdin = None;
        if self.exit.is_none() {
            self.kill_at = Some(Instant::now() + patience);
            self.signal_group(Signal::HUP);
            // A stopped command would never learn of it.
            self.signal_group(Signal::CONT);
        }
    }

    fn signal_foreground(&self, signal: Signal) {
        let foreground = self.command.terminal.as_ref().and_then(|terminal| tcgetpgrp(terminal).ok());
        match foreground {
            // It may have ended by now.
            Some(group) => drop(kill_process_group(group, signal)),
            None => self.signal_group(signal),
        }
    }

    /// Signals the command's own process group; nothing once the command has been waited for, when the number may be another's.
    fn signal_group(&self, signal: Signal) {
        if self.exit.is_none()
            && let Err(e) = kill_process_group(Pid::from_child(&self.command.child), signal)
        {
            log::debug!("cannot signal a command: {e}");
        }
    }
}

fn fd(owned: &OwnedFd) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(owned)
}

/// What a person types to end a terminal's input: twice, for the first one only ends a line that has begun. A terminal in raw
/// mode has no such character.
fn end_of_file(terminal: &OwnedFd) -> Vec<u8> {
    match tcgetattr(terminal) {
        Ok(modes) if modes.local_modes.contains(LocalModes::ICANON) => {
            vec![modes.special_codes[SpecialCodeIndex::VEOF]; 2]
        }
        _ => vec![],
    }
}

fn signal(number: u8) -> Option<Signal> {
    match number {
        34..=64 => Some(syscalls::realtime(number - 34)),
        _ => Signal::from_named_raw(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_those_that_exist() {
        assert_eq!(signal(2), Some(Signal::INT));
        assert_eq!(signal(38).map(Signal::as_raw), Some(38));
        for none in [0, 32, 33, 65, 255] {
            assert_eq!(signal(none), None, "{none}");
        }
    }
}
