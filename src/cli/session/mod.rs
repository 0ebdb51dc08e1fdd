//! A session: a command in a guest, and this process's stdin, stdout, stderr, terminal and signals.
//!
//! One thread, one poll(2). What arrives and what is due is decided in [`pump`], which does no I/O; this loop moves bytes.
//! Our own descriptors may be shared with other processes (the shell's terminal is), so none is made non-blocking: the
//! guest's socket is used with MSG_DONTWAIT, and stdin and stdout only when poll says that they will not block.

mod pump;
mod terminal;

use std::fmt;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use signal_hook::consts::SIGWINCH;

use self::pump::{Output, Pump};
pub use self::terminal::{Raw, size};
use crate::cli::signals::Signals;
use crate::proto::frame::BadFrame;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The command ended with this status.
    Exit(u8),
    /// Nobody reads our stdout any more.
    OutputClosed,
    /// A second signal within two seconds: the person does not want to wait for the command.
    GaveUp(i32),
    /// The terminal is gone, or we were told to go; the guest hangs up on the command.
    HungUp(i32),
}

#[derive(Debug)]
pub enum SessionError {
    /// The connection ended and the command's status is not known.
    Lost,
    /// The guest said why it cannot go on.
    Guest {
        message: String,
    },
    Protocol(BadFrame),
    Io {
        what: &'static str,
        source: io::Error,
    },
}

/// What a session is given.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// The command has a pseudo-terminal; ours is put into raw mode.
    pub tty: bool,
    /// Our stdin goes to the command.
    pub stdin: bool,
}

/// Whether both stdin and stdout are terminals, which a pseudo-terminal in the guest needs.
pub fn on_a_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Moves bytes until the command has ended and all of its output is written, or there is a reason to stop.
pub fn run(guest: &OwnedFd, how: How, signals: &mut Signals) -> Result<Ended, SessionError> {
    let _raw = match how.tty {
        true => Some(terminal::Raw::enter().map_err(io_error("set up the terminal"))?),
        false => None,
    };
    let mut pump = Pump::new(how);
    // It may have changed between the request and now.
    if how.tty
        && let Some(size) = size()
    {
        pump.resize(size);
    }
    for (output, terminal) in
        [(Output::Stdout, io::stdout().is_terminal()), (Output::Stderr, io::stderr().is_terminal())]
    {
        if terminal && !how.tty {
            pump.make_harmless(output);
        }
    }
    loop {
        if let Some(ended) = pump.is_over()? {
            return Ok(ended);
        }
        let ready = wait(&pump, guest, signals)?;
        if ready.signals {
            for signal in signals.pending() {
                match signal {
                    SIGWINCH if !how.tty => {}
                    SIGWINCH => {
                        if let Some(size) = size() {
                            pump.resize(size);
                        }
                    }
                    signal => pump.signal(signal, Instant::now()),
                }
            }
        }
        if ready.to_guest {
            send(&mut pump, guest)?;
        }
        for output in [Output::Stdout, Output::Stderr] {
            if ready.outputs[output as usize] {
                write(&mut pump, output)?;
            }
        }
        if ready.stdin {
            read_stdin(&mut pump)?;
        }
        if ready.from_guest {
            receive(&mut pump, guest)?;
        }
    }
}

/// What will not block.
#[derive(Default)]
struct Ready {
    signals: bool,
    stdin: bool,
    from_guest: bool,
    to_guest: bool,
    outputs: [bool; 2],
}

/// Waits for the next thing that the pump can use.
fn wait(pump: &Pump, guest: &OwnedFd, signals: &Signals) -> Result<Ready, SessionError> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let mut guest_flags = PollFlags::empty();
    guest_flags.set(PollFlags::IN, pump.wants_guest());
    guest_flags.set(PollFlags::OUT, !pump.to_guest().is_empty());
    let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
    // A descriptor that nothing is wanted of stays out: its hang-up would be reported again and again.
    let candidates = [
        (!guest_flags.is_empty(), PollFd::new(guest, guest_flags)),
        (pump.wants_stdin() > 0, PollFd::new(&stdin, PollFlags::IN)),
        (!pump.pending(Output::Stdout).is_empty(), PollFd::new(&stdout, PollFlags::OUT)),
        (!pump.pending(Output::Stderr).is_empty(), PollFd::new(&stderr, PollFlags::OUT)),
    ];
    let [guest_at, stdin_at, stdout_at, stderr_at] = candidates.map(|(wanted, fd)| {
        wanted.then(|| {
            fds.push(fd);
            fds.len() - 1
        })
    });
    match poll(&mut fds, None) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(Ready::default()),
        Err(e) => return Err(io_error("wait for the command")(e.into())),
    }
    let flags = |at: Option<usize>| at.map_or(PollFlags::empty(), |at| fds[at].revents());
    let broken = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    let guest_has = flags(guest_at);
    Ok(Ready {
        signals: !fds[0].revents().is_empty(),
        stdin: !flags(stdin_at).is_empty(),
        from_guest: pump.wants_guest() && guest_has.intersects(PollFlags::IN | broken),
        to_guest: guest_has.intersects(PollFlags::OUT | broken) && !pump.to_guest().is_empty(),
        outputs: [!flags(stdout_at).is_empty(), !flags(stderr_at).is_empty()],
    })
}

fn send(pump: &mut Pump, guest: &OwnedFd) -> Result<(), SessionError> {
    match rustix::net::send(guest, pump.to_guest(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(n) => pump.sent(n),
        Err(Errno::AGAIN | Errno::INTR) => {}
        // It ends; what it still had to say is there to be read.
        Err(Errno::PIPE | Errno::CONNRESET) => pump.guest_listens_no_more(),
        Err(e) => return Err(io_error("write to the guest")(e.into())),
    }
    Ok(())
}

fn receive(pump: &mut Pump, guest: &OwnedFd) -> Result<(), SessionError> {
    let mut buffer = [0; 64 * 1024];
    match rustix::net::recv(guest, &mut buffer, RecvFlags::DONTWAIT) {
        Ok((0, _)) | Err(Errno::CONNRESET) => pump.guest_hung_up(),
        Ok((n, _)) => pump.arrived(&buffer[..n])?,
        Err(Errno::AGAIN | Errno::INTR) => {}
        Err(e) => return Err(io_error("read from the guest")(e.into())),
    }
    Ok(())
}

/// Writes as much as poll(2) vouches for: a pipe that is reported writable takes PIPE_BUF bytes without blocking.
fn write(pump: &mut Pump, output: Output) -> Result<(), SessionError> {
    const PIPE_BUF: usize = 4096;
    let pending = pump.pending(output);
    let piece = &pending[..pending.len().min(PIPE_BUF)];
    let written = match output {
        Output::Stdout => rustix::io::write(io::stdout().as_fd(), piece),
        Output::Stderr => rustix::io::write(io::stderr().as_fd(), piece),
    };
    match (written, output) {
        (Ok(n), _) => pump.written(output, n),
        (Err(Errno::AGAIN | Errno::INTR), _) => {}
        (Err(Errno::PIPE), Output::Stdout) => pump.output_closed(),
        // Errors that nobody can see are no reason to end the command.
        (Err(_), Output::Stderr) => pump.drop_stderr(),
        // The terminal is gone.
        (Err(Errno::IO), Output::Stdout) => pump.output_closed(),
        (Err(e), Output::Stdout) => return Err(io_error("write to stdout")(e.into())),
    }
    Ok(())
}

fn read_stdin(pump: &mut Pump) -> Result<(), SessionError> {
    let mut buffer = [0; 32 * 1024];
    let room = pump.wants_stdin().min(buffer.len());
    match rustix::io::read(io::stdin(), &mut buffer[..room]) {
        // EIO: the terminal is gone, or we are in the background without a terminal of our own (tty_ioctl(4)).
        Ok(0) | Err(Errno::IO) => pump.stdin_ended(),
        Ok(n) => pump.stdin(&buffer[..n]),
        Err(Errno::AGAIN | Errno::INTR) => {}
        Err(e) => return Err(io_error("read stdin")(e.into())),
    }
    Ok(())
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> SessionError {
    move |source| SessionError::Io { what, source }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => {
                f.write_str("the connection to the guest ended before the command did; the VM was stopped, or its agent ended")
            }
            Self::Guest { message } => write!(f, "the guest says: {message}"),
            Self::Protocol(_) => f.write_str("the guest sent what is no answer"),
            Self::Io { what, .. } => write!(f, "cannot {what}"),
        }
    }
}

impl std::error::Error for SessionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Protocol(bad) => Some(bad),
            Self::Io { source, .. } => Some(source),
            Self::Lost | Self::Guest { .. } => None,
        }
    }
}

impl From<BadFrame> for SessionError {
    fn from(bad: BadFrame) -> Self {
        Self::Protocol(bad)
    }
}
