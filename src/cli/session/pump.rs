//! What a session decides: which bytes go where, when to stop, how it ended. No I/O and no clock.

use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGTERM};

use super::{Ended, How, SessionError};
use crate::cli::render::Plain;
use crate::proto::agent::Tty;
use crate::proto::frame::{BadFrame, Frame, HEADER, Header, Kind, MAX_PAYLOAD, STDIN_WINDOW};

/// More output than this is not taken from the guest while it cannot be written.
const OUTPUT_CAP: usize = 256 * 1024;
/// Stdin is read only while less than this waits to be sent, so that a signal is never far behind it.
const OUTBOUND_CAP: usize = 64 * 1024;
/// Two signals closer together than this mean that the person does not want to wait.
const IMPATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Stdout = 0,
    Stderr = 1,
}

/// One session's state.
pub struct Pump {
    how: How,
    /// From the guest, not yet a whole frame.
    inbound: Vec<u8>,
    /// Frames for the guest.
    outbound: Queue,
    outputs: [Queue; 2],
    /// What goes through here is harmless to the terminal that it goes to.
    plain: [Option<Plain>; 2],
    stderr_dropped: bool,
    stdin_open: bool,
    /// How many bytes of stdin the guest still takes.
    credit: usize,
    asked_to_end: Option<Instant>,
    /// The guest has said or done the last thing that it will.
    last: Option<Result<u8, Last>>,
    stopped: Option<Ended>,
}

/// Bytes that come in at one end and go out at the other in small pieces, without moving the rest each time.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    gone: usize,
}

impl Queue {
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.gone..]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn advance(&mut self, n: usize) {
        self.gone += n;
        if self.gone * 2 >= self.bytes.len() {
            self.bytes.drain(..self.gone);
            self.gone = 0;
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Last {
    HungUp,
    Failed(String),
}

impl Pump {
    pub fn new(how: How) -> Self {
        Self {
            how,
            inbound: vec![],
            outbound: Queue::default(),
            outputs: [Queue::default(), Queue::default()],
            plain: [None, None],
            stderr_dropped: false,
            stdin_open: how.stdin,
            credit: STDIN_WINDOW,
            asked_to_end: None,
            last: None,
            stopped: None,
        }
    }

    /// `output` goes to a terminal that is not the command's own.
    pub fn make_harmless(&mut self, output: Output) {
        self.plain[output as usize] = Some(Plain::default());
    }

    /// How it ended, if it has: at once when there is a reason to stop, else when the guest is done and all that it
    /// wrote has been written.
    pub fn is_over(&mut self) -> Result<Option<Ended>, SessionError> {
        if let Some(ended) = self.stopped {
            // What is still to be said to the guest, such as the signal, it learns from the hang-up.
            return Ok(Some(ended));
        }
        if self.outputs.iter().any(|o| !o.bytes().is_empty()) {
            return Ok(None);
        }
        match &self.last {
            None => Ok(None),
            Some(Ok(status)) => Ok(Some(Ended::Exit(*status))),
            Some(Err(Last::HungUp)) => Err(SessionError::Lost),
            Some(Err(Last::Failed(message))) => Err(SessionError::Guest { message: message.clone() }),
        }
    }

    pub fn wants_guest(&self) -> bool {
        self.last.is_none() && self.outputs.iter().all(|o| o.bytes().len() < OUTPUT_CAP)
    }

    /// How many bytes of stdin may be read now.
    pub fn wants_stdin(&self) -> usize {
        if !self.stdin_open || self.last.is_some() || self.outbound.bytes().len() >= OUTBOUND_CAP {
            return 0;
        }
        self.credit.min(MAX_PAYLOAD)
    }

    pub fn to_guest(&self) -> &[u8] {
        self.outbound.bytes()
    }

    pub fn sent(&mut self, n: usize) {
        self.outbound.advance(n);
    }

    pub fn guest_listens_no_more(&mut self) {
        self.outbound = Queue::default();
        self.stdin_open = false;
    }

    pub fn pending(&self, output: Output) -> &[u8] {
        self.outputs[output as usize].bytes()
    }

    pub fn written(&mut self, output: Output, n: usize) {
        self.outputs[output as usize].advance(n);
    }

    pub fn output_closed(&mut self) {
        self.stop(Ended::OutputClosed);
    }

    pub fn drop_stderr(&mut self) {
        self.outputs[Output::Stderr as usize] = Queue::default();
        self.plain[Output::Stderr as usize] = None;
        self.stderr_dropped = true;
    }

    pub fn stdin(&mut self, bytes: &[u8]) {
        self.credit = self.credit.saturating_sub(bytes.len());
        self.push(Frame::new(Kind::Stdin, bytes));
    }

    pub fn stdin_ended(&mut self) {
        self.stdin_open = false;
        if self.how.tty {
            // A terminal in raw mode has no end of file: it is gone.
            self.stop(Ended::HungUp(SIGHUP));
        } else {
            self.push(Frame::new(Kind::Eof, []));
        }
    }

    pub fn resize(&mut self, size: Tty) {
        self.push(Frame::resize(size.rows, size.columns));
    }

    /// A signal for us, which is meant for the command.
    pub fn signal(&mut self, signal: i32, now: Instant) {
        let impatient = self.asked_to_end.is_some_and(|before| now.duration_since(before) < IMPATIENCE);
        self.asked_to_end = Some(now);
        if impatient {
            self.stop(Ended::GaveUp(signal));
        } else if self.how.tty && matches!(signal, SIGHUP | SIGTERM) {
            // An interactive shell ignores SIGTERM; a terminal that goes away it does not.
            self.stop(Ended::HungUp(signal));
        } else {
            self.push(Frame::new(Kind::Signal, [signal as u8]));
        }
    }

    fn stop(&mut self, ended: Ended) {
        self.stopped.get_or_insert(ended);
    }

    fn push(&mut self, frame: Frame) {
        self.outbound.push(&frame.bytes());
    }

    pub fn guest_hung_up(&mut self) {
        if self.last.is_none() {
            self.end(Err(Last::HungUp));
        }
    }

    fn end(&mut self, last: Result<u8, Last>) {
        self.last = Some(last);
        for (queue, plain) in self.outputs.iter_mut().zip(&mut self.plain) {
            if let Some(plain) = plain {
                queue.push(plain.end().as_bytes());
            }
        }
    }

    fn output(&mut self, output: Output, bytes: &[u8]) {
        if output == Output::Stderr && self.stderr_dropped {
            return;
        }
        let queue = &mut self.outputs[output as usize];
        match &mut self.plain[output as usize] {
            Some(plain) => queue.push(plain.take(bytes).as_bytes()),
            None => queue.push(bytes),
        }
    }

    /// Takes bytes from the guest, in any pieces.
    ///
    /// # Errors
    /// [`SessionError::Protocol`]: the guest is broken or hostile.
    pub fn arrived(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        self.inbound.extend_from_slice(bytes);
        let mut at = 0;
        while self.last.is_none() {
            let Some(header) = self.inbound.get(at..at + HEADER) else { break };
            let header = Header::parse([header[0], header[1], header[2], header[3], header[4]])?;
            let Some(payload) = self.inbound.get(at + HEADER..at + HEADER + header.length) else { break };
            let frame = Frame::new(header.kind, payload);
            at += HEADER + header.length;
            self.take(frame)?;
        }
        self.inbound.drain(..at);
        Ok(())
    }

    fn take(&mut self, frame: Frame) -> Result<(), BadFrame> {
        match frame.kind {
            Kind::Stdout => self.output(Output::Stdout, &frame.payload),
            Kind::Stderr => self.output(Output::Stderr, &frame.payload),
            Kind::Window => {
                let more = usize::try_from(frame.as_window()?).unwrap_or(usize::MAX);
                // It cannot have consumed more than it was sent.
                self.credit = self.credit.saturating_add(more).min(STDIN_WINDOW);
            }
            Kind::Exit => self.end(Ok(frame.as_byte()?)),
            Kind::Failed => {
                let message = String::from_utf8_lossy(&frame.payload).into_owned();
                self.end(Err(Last::Failed(message)));
            }
            Kind::Answer | Kind::Stdin | Kind::Resize | Kind::Signal | Kind::Data | Kind::Eof => {
                return Err(BadFrame::Unexpected(frame.kind));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::SIGINT;

    use super::*;

    const PIPES: How = How { tty: false, stdin: true };
    const TTY: How = How { tty: true, stdin: true };

    fn frames(mut bytes: &[u8]) -> Vec<Frame> {
        std::iter::from_fn(|| Frame::read(&mut bytes).expect("frames")).collect()
    }

    fn feed(pump: &mut Pump, frames: &[Frame]) {
        for frame in frames {
            pump.arrived(&frame.bytes()).expect("takes");
        }
    }

    #[test]
    fn what_a_terminal_that_is_not_the_commands_gets_is_harmless_to_the_last_byte() {
        let mut pump = Pump::new(PIPES);
        pump.make_harmless(Output::Stderr);
        let all = [
            Frame::new(Kind::Stdout, *b"\x1b[2J"),
            Frame::new(Kind::Stderr, *b"a\x1b"),
            Frame::new(Kind::Stderr, *b"[31mb\x07\x1b["),
            Frame::new(Kind::Exit, [0]),
        ];
        feed(&mut pump, &all);
        assert_eq!(pump.pending(Output::Stdout), b"\x1b[2J");
        assert_eq!(pump.pending(Output::Stderr), br"ab\x07\x1b[");
    }

    #[test]
    fn output_is_told_apart_and_written_before_the_session_ends() {
        let mut pump = Pump::new(PIPES);
        let all: Vec<u8> = [
            Frame::new(Kind::Stdout, *b"out"),
            Frame::new(Kind::Stderr, *b"err"),
            Frame::new(Kind::Stdout, *b"put"),
            Frame::new(Kind::Exit, [7]),
        ]
        .iter()
        .flat_map(Frame::bytes)
        .collect();
        for byte in all {
            pump.arrived(&[byte]).expect("takes");
        }
        assert_eq!(pump.pending(Output::Stdout), b"output");
        assert_eq!(pump.pending(Output::Stderr), b"err");
        assert_eq!(pump.is_over().expect("goes on"), None);
        pump.written(Output::Stdout, 6);
        pump.written(Output::Stderr, 3);
        assert_eq!(pump.is_over().expect("ends"), Some(Ended::Exit(7)));
    }

    #[test]
    fn stdin_stops_at_the_window_and_goes_on_as_it_opens() {
        let mut pump = Pump::new(PIPES);
        let mut read = 0;
        while pump.wants_stdin() > 0 {
            let n = pump.wants_stdin().min(10_000);
            pump.stdin(&vec![b'x'; n]);
            pump.sent(pump.to_guest().len());
            read += n;
        }
        assert_eq!(read, STDIN_WINDOW);
        feed(&mut pump, &[Frame::window(5)]);
        assert_eq!(pump.wants_stdin(), 5);
        feed(&mut pump, &[Frame::window(u32::MAX), Frame::window(u32::MAX)]);
        assert_eq!(pump.wants_stdin(), MAX_PAYLOAD, "a lying guest gets no more than the window");
        assert_eq!(pump.credit, STDIN_WINDOW);
    }

    #[test]
    fn little_stdin_waits_so_that_a_signal_is_not_far_behind() {
        let mut pump = Pump::new(PIPES);
        while pump.wants_stdin() > 0 {
            pump.stdin(&vec![0; pump.wants_stdin().min(32 * 1024)]);
        }
        assert!(pump.to_guest().len() < OUTBOUND_CAP + 33 * 1024, "{}", pump.to_guest().len());
        pump.signal(SIGINT, Instant::now());
        assert_eq!(frames(pump.to_guest()).last().expect("frames").kind, Kind::Signal);
    }

    #[test]
    fn output_that_cannot_be_written_holds_the_guest_back() {
        let mut pump = Pump::new(PIPES);
        while pump.wants_guest() {
            feed(&mut pump, &[Frame::new(Kind::Stdout, vec![b'x'; MAX_PAYLOAD])]);
        }
        assert!(pump.pending(Output::Stdout).len() <= OUTPUT_CAP + MAX_PAYLOAD);
        pump.written(Output::Stdout, MAX_PAYLOAD);
        assert!(pump.wants_guest());
    }

    #[test]
    fn a_second_signal_soon_after_the_first_gives_up() {
        let start = Instant::now();
        let mut pump = Pump::new(PIPES);
        pump.signal(SIGINT, start);
        assert_eq!(frames(pump.to_guest()), [Frame::new(Kind::Signal, [2])]);
        pump.signal(SIGINT, start + Duration::from_secs(3));
        assert_eq!(pump.is_over().expect("goes on"), None);
        pump.signal(SIGINT, start + Duration::from_secs(4));
        assert_eq!(pump.is_over().expect("ends"), Some(Ended::GaveUp(SIGINT)));
    }

    #[test]
    fn a_terminal_that_goes_away_ends_the_session() {
        let mut pump = Pump::new(TTY);
        pump.stdin_ended();
        assert_eq!(pump.is_over().expect("ends"), Some(Ended::HungUp(SIGHUP)));
        let mut pump = Pump::new(TTY);
        pump.signal(SIGTERM, Instant::now());
        assert_eq!(pump.is_over().expect("ends"), Some(Ended::HungUp(SIGTERM)));
        let mut pump = Pump::new(PIPES);
        pump.stdin_ended();
        assert_eq!(frames(pump.to_guest()), [Frame::new(Kind::Eof, [])]);
        assert_eq!((pump.is_over().expect("goes on"), pump.wants_stdin()), (None, 0));
    }

    #[test]
    fn what_a_guest_may_not_send_is_an_error() {
        for frame in [Frame::new(Kind::Stdin, []), Frame::new(Kind::Exit, []), Frame::new(Kind::Window, [1])]
        {
            assert!(Pump::new(PIPES).arrived(&frame.bytes()).is_err(), "{frame:?}");
        }
        assert!(Pump::new(PIPES).arrived(&[99, 0, 0, 0, 0]).is_err());
        assert!(Pump::new(PIPES).arrived(&[2, 0, 0, 0, 255]).is_err());
    }

    #[test]
    fn an_end_without_a_status_is_an_error_and_one_with_it_is_not() {
        let mut pump = Pump::new(PIPES);
        feed(&mut pump, &[Frame::new(Kind::Stdout, *b"x")]);
        pump.guest_hung_up();
        assert_eq!(pump.is_over().expect("writes first"), None);
        pump.written(Output::Stdout, 1);
        assert!(matches!(pump.is_over(), Err(SessionError::Lost)));
        let mut pump = Pump::new(PIPES);
        feed(&mut pump, &[Frame::new(Kind::Exit, [0]), Frame::new(Kind::Stdout, *b"late")]);
        pump.guest_hung_up();
        assert_eq!(pump.is_over().expect("ends"), Some(Ended::Exit(0)));
        let mut pump = Pump::new(PIPES);
        feed(&mut pump, &[Frame::new(Kind::Failed, *b"no")]);
        assert!(matches!(pump.is_over(), Err(SessionError::Guest { message }) if message == "no"));
    }
}
