//! `banger top`: all VMs in a live table, with keys.
//!
//! ```text
//!  sample (a thread: what there is) --.
//!  orders (a thread each: stop, delete) --> News --> state --> layout --> render::screen
//!  stdin --> keys --------------------------------> state
//! ```
//!
//! [`keys`] and [`layout`] are pure; this file waits, and does what they say.

mod keys;
mod layout;
mod sample;
mod state;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};

use argh::{ArgsInfo, FromArgs};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use self::keys::{Action, press};
use self::layout::{Style, frame};
use self::state::{Act, Row, State, View};
use crate::cli::client::{Attention, Client};
use crate::cli::error::{Error, status_of_signal};
use crate::cli::render::screen::Screen;
use crate::cli::render::{self, Progress};
use crate::cli::session;
use crate::cli::signals::Signals;
use crate::cli::ssh;
use crate::cli::vm::asked::tty_size;
use crate::cli::vm::exec;
use crate::cli::vm::logs::last_lines;
use crate::host::causes::chain;
use crate::proto::api::{Log, VmDelete, VmList, VmLogs, VmStop};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Watch all VMs in a live table; keys stop and delete them, open shells and show consoles.
#[argh(
    subcommand,
    name = "top",
    help_triggers("-h", "--help", "help"),
    example = "banger top",
    note = "Keys: up and down or k and j select a VM; enter or e opens a shell in it; l shows its console, q goes back; s stops it, d deletes it, both after a y; ? helps; q quits. VMs run on.\n\
            CPU is the guest's, or the VMM's where the guest does not answer; 100 % is one CPU. NO_COLOR leaves colours and bold letters out."
)]
pub struct Top {}

/// How many lines of a console are kept, and how much of it is looked at when it is opened.
const KEPT_LINES: usize = 1000;
const KEPT_BYTES: u64 = 256 * 1024;
/// How often a console that is shown is looked at.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };

/// What threads have to say.
enum News {
    Vms(Vec<Row>),
    Trouble(String),
    /// What became of an order.
    Note(String),
}

/// The way of threads to the loop, which polls.
struct Post {
    news: Sender<News>,
    wake: UnixStream,
}

impl Post {
    fn send(&self, news: News) {
        // Nobody listens any more when it ends; a full pipe wakes as well as another byte.
        if self.news.send(news).is_ok() {
            (&self.wake).write_all(b"x").unwrap_or_default();
        }
    }

    fn another(&self) -> io::Result<Self> {
        Ok(Self { news: self.news.clone(), wake: self.wake.try_clone()? })
    }
}

impl Top {
    pub fn run(&self) -> Result<(), Error> {
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        if !session::on_a_terminal() || dumb {
            return Err(Error::Refused(
                "`banger top` needs a terminal to draw on; `banger vm stats --watch` prints lines instead"
                    .to_owned(),
            ));
        }
        let client = Client::from_env()?;
        // Starts a daemon where there is none; one that ends later is not started again for being looked at.
        client.ask(VmList {})?;
        let signals = Signals::catch().map_err(host("catch signals"))?;
        let (wake, woken) = UnixStream::pair().map_err(host("make a pipe"))?;
        for end in [&wake, &woken] {
            end.set_nonblocking(true).map_err(host("make a pipe"))?;
        }
        let (news, inbox) = channel();
        let post = Post { news, wake };
        let (ask, asked) = channel();
        let sampler = post.another().map_err(host("make a pipe"))?;
        let watcher = Client::from_env()?;
        // Not joined: it ends with the process, whatever a guest takes its time for.
        std::thread::spawn(move || sample::run(&watcher, &sampler, &asked));
        let style = match std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            true => Style::Plain,
            false => Style::Marked,
        };
        let mut live =
            Live { client, state: State::new(), style, signals, post, inbox, woken, ask, log: None };
        let mut screen = Some(Screen::enter()?);
        live.go_on(&mut screen)
    }
}

struct Live {
    client: Client,
    state: State,
    style: Style,
    signals: Signals,
    post: Post,
    inbox: Receiver<News>,
    woken: UnixStream,
    /// Asks for a look at once.
    ask: Sender<()>,
    /// The console that is shown.
    log: Option<Tail>,
}

impl Live {
    /// Until somebody has had enough. `screen` is empty only while a shell has the terminal.
    fn go_on(&mut self, screen: &mut Option<Screen>) -> Result<(), Error> {
        loop {
            if let Some(screen) = &screen {
                screen.draw(&frame(&self.state, tty_size(), self.style))?;
            }
            let typed = self.wait()?;
            if let Some(signal) = self.signals.asked_to_end() {
                return Err(Error::Said(status_of_signal(signal)));
            }
            self.hear();
            self.read_log();
            let typed = match typed {
                Typed::Nothing => vec![],
                Typed::Bytes(bytes) => bytes,
                // The terminal is gone.
                Typed::End => return Ok(()),
            };
            for key in keys::keys(&typed) {
                match press(&mut self.state, key) {
                    Action::Nothing => {}
                    Action::Quit => return Ok(()),
                    Action::Shell { id } => {
                        *screen = None;
                        let outcome = exec::shell(&id);
                        *screen = Some(Screen::enter()?);
                        match outcome {
                            // The shell's own status is nobody's business here.
                            Ok(()) | Err(Error::Said(_)) => {}
                            Err(e) => self.state.note = Some(chain(&e)),
                        }
                        self.look_now();
                        // What was typed behind it was meant for the shell.
                        break;
                    }
                    Action::OpenLogs { id } => self.open_log(&id),
                    Action::CloseLogs => self.log = None,
                    Action::Do { act, id } => self.order(act, id)?,
                }
            }
        }
    }

    /// Waits for a key, a signal, news, or, while a console is shown, for a moment.
    fn wait(&self) -> Result<Typed, Error> {
        let stdin = io::stdin();
        let mut fds = [
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.woken, PollFlags::IN),
            PollFd::new(&stdin, PollFlags::IN),
        ];
        match poll(&mut fds, self.log.is_some().then_some(&TICK)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Typed::Nothing),
            Err(e) => return Err(host("wait for a key")(e.into())),
        }
        if fds[2].revents().is_empty() {
            return Ok(Typed::Nothing);
        }
        let mut buffer = [0; 256];
        match rustix::io::read(&stdin, &mut buffer) {
            Ok(0) | Err(Errno::IO) => Ok(Typed::End),
            Ok(n) => Ok(Typed::Bytes(buffer[..n].to_vec())),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Typed::Nothing),
            Err(e) => Err(host("read a key")(e.into())),
        }
    }

    fn hear(&mut self) {
        let mut buffer = [0; 64];
        while (&self.woken).read(&mut buffer).is_ok_and(|n| n > 0) {}
        while let Ok(news) = self.inbox.try_recv() {
            match news {
                News::Vms(rows) => {
                    self.state.show(rows);
                    self.state.trouble = None;
                }
                News::Trouble(why) => self.state.trouble = Some(why),
                News::Note(note) => self.state.note = Some(note),
            }
        }
    }

    fn look_now(&self) {
        // The thread ends only with this process.
        self.ask.send(()).unwrap_or_default();
    }

    /// Has it done beside, and tells what came of it.
    fn order(&mut self, act: Act, id: String) -> Result<(), Error> {
        let name = self.state.rows.iter().find(|row| row.id == id).map_or(id.clone(), |row| row.name.clone());
        let (post, client) = (self.post.another().map_err(host("make a pipe"))?, Client::from_env()?);
        let ask = self.ask.clone();
        let (doing, done) = match act {
            Act::Stop => ("stopping", "stopped"),
            Act::Delete => ("deleting", "deleted"),
        };
        self.state.note = Some(format!("{doing} {name}"));
        std::thread::spawn(move || {
            let outcome = match act {
                Act::Stop => client.ask(VmStop { vm: id, force: false }).map(drop),
                Act::Delete => {
                    let vm = id.clone();
                    client.ask(VmDelete { vm, only_if_ended: false }).inspect(|()| ssh::forget(&id))
                }
            };
            post.send(News::Note(match outcome {
                Ok(()) => format!("{name} is {done}"),
                Err(e) => chain(&e),
            }));
            ask.send(()).unwrap_or_default();
        });
        Ok(())
    }

    fn open_log(&mut self, id: &str) {
        let request = VmLogs { vm: id.to_owned(), which: Log::Console, since_ms: None };
        let opened = self.client.open(request, &mut Attention::to(&mut Progress::silent()));
        let tail = opened.map_err(Error::from).and_then(|fd| Tail::of(File::from(fd)));
        let name = self.state.selected().map(|row| row.name.clone()).unwrap_or_default();
        match tail {
            Ok(tail) => {
                self.log = Some(tail);
                self.state.view = View::Logs { name, lines: Default::default() };
                self.read_log();
            }
            Err(e) => self.state.note = Some(chain(&e)),
        }
    }

    fn read_log(&mut self) {
        let (Some(tail), View::Logs { lines, .. }) = (&mut self.log, &mut self.state.view) else { return };
        match tail.more() {
            Ok(more) => lines.extend(more),
            Err(e) => self.state.note = Some(format!("cannot read the log: {e}")),
        }
        lines.drain(..lines.len().saturating_sub(KEPT_LINES));
    }
}

enum Typed {
    Nothing,
    Bytes(Vec<u8>),
    End,
}

/// The end of a log that grows.
struct Tail {
    log: File,
    at: u64,
    /// A line whose end has not come.
    line: Vec<u8>,
}

impl Tail {
    fn of(log: File) -> Result<Self, Error> {
        let length = log.metadata().map_err(host("read the log"))?.len();
        let start = length.saturating_sub(KEPT_BYTES);
        let at = last_lines(&log, start, length, KEPT_LINES as u64).map_err(host("read the log"))?;
        Ok(Self { log, at, line: vec![] })
    }

    /// The whole lines that are new, made harmless; at most so many bytes at a time.
    fn more(&mut self) -> io::Result<Vec<String>> {
        if self.log.metadata()?.len() < self.at {
            self.at = 0;
        }
        let mut buffer = vec![0; KEPT_BYTES as usize];
        let read = self.log.read_at(&mut buffer, self.at)?;
        self.at += read as u64;
        self.line.extend_from_slice(&buffer[..read]);
        let whole = self.line.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        let each = self.line[..whole].split_inclusive(|b| *b == b'\n');
        let lines = each
            .map(|line| render::log_line(line.strip_suffix(b"\n").unwrap_or(line)).replace('\t', "    "))
            .collect();
        // At once: line by line, what follows would be moved for each of them.
        self.line.drain(..whole);
        // One without an end is no line.
        if self.line.len() > KEPT_BYTES as usize {
            self.line.clear();
        }
        Ok(lines)
    }
}

fn host(what: &str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Host { what: what.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_read_as_whole_harmless_lines_as_it_grows() {
        let mut log = tempfile::tempfile().expect("a file");
        let mut tail = Tail::of(log.try_clone().expect("clones")).expect("opens");
        log.write_all(b"one\n\x1b[2Jtwo\tx\r\nthr").expect("writes");
        assert_eq!(tail.more().expect("reads"), ["one", "\\x1b[2Jtwo    x"]);
        log.write_all(b"ee\n").expect("writes");
        assert_eq!(tail.more().expect("reads"), ["three"]);
        log.set_len(0).expect("cuts");
        log.write_at(b"new\n", 0).expect("writes");
        assert_eq!(tail.more().expect("reads"), ["new"]);
    }

    #[test]
    fn a_log_of_nothing_but_short_lines_is_read_whole_and_what_is_begun_is_kept() {
        let mut log = tempfile::tempfile().expect("a file");
        let mut tail = Tail::of(log.try_clone().expect("clones")).expect("opens");
        let many = (KEPT_BYTES / 2) as usize;
        log.write_all("a\n".repeat(many - 1).as_bytes()).expect("writes");
        log.write_all(b"b").expect("writes");
        let lines = tail.more().expect("reads");
        assert_eq!(lines.len(), many - 1);
        assert!(lines.iter().all(|line| line == "a"));
        log.write_all(b"c\n\nd").expect("writes");
        assert_eq!(tail.more().expect("reads"), ["bc", ""]);
        assert_eq!(tail.line, b"d");
    }
}
