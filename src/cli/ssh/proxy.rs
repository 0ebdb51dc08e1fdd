//! `banger internal ssh-proxy HOST`: what ssh runs to reach a VM, its own side on stdin and stdout.
//!
//! Two threads, one for each direction, which wait for nothing but their own two ends: so neither holds the other up, a side that has
//! ended is told to the other at once, and the way out is the end of the guest's side. If ssh is killed, its end of stdin ends the
//! guest's sshd; if this process is, the agent does.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use argh::{ArgsInfo, FromArgs};

use super::guest::{self, MAX_WORD, Word};
use super::known::{self, Living};
use super::{Place, key};
use crate::cli::client::{Attention, Client, ClientError};
use crate::cli::error::Error;
use crate::cli::render::Progress;
use crate::cli::session::SessionError;
use crate::proto::api::{Code, VmList, VmView};
use crate::proto::frame::{Frame, Kind, STDIN_WINDOW};
use crate::vm::lookup::{self, Candidate};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Connect stdin and stdout to a VM's sshd: ssh's ProxyCommand.
#[argh(
    subcommand,
    name = "ssh-proxy",
    help_triggers("-h", "--help", "help"),
    example = "ssh -o ProxyCommand='banger internal ssh-proxy %h' root@dev.vm"
)]
pub struct SshProxy {
    /// the VM's name, with or without what names of VMs end with, its id, or the beginning of its id
    #[argh(positional)]
    host: String,
}

/// What a guest's sshd says before it has said a word of SSH, kept for when it never does.
const KEPT: usize = 4096;
const PIECE: usize = 32 * 1024;

impl SshProxy {
    pub fn run(&self) -> Result<(), Error> {
        let client = Client::from_env()?;
        let place = Place::find(&client)?;
        let vms = client.ask(VmList {})?;
        let vm = &vms[find(&self.host, &place.suffix, &vms)?].record;
        let (id, name) = (vm.id.to_string(), vm.name.as_str());

        let exec = guest::exec(&id, &key::public(&place)?);
        let opened = client.open(exec, &mut Attention::to(&mut Progress::silent()));
        let guest = opened.map_err(|e| match e {
            ClientError::Failed(failure) if failure.code == Code::NoProgram => no_sshd(name),
            e => e.into(),
        })?;
        rustix::io::ioctl_fionbio(&guest, false).map_err(|e| connection(e.into()))?;
        let mut from_guest = Guest { socket: File::from(guest), stderr: vec![] };
        let rest = match from_guest.first_word()? {
            (Word::Ready(host_key), rest) => {
                let living =
                    |vm: &VmView| Living { id: vm.record.id.to_string(), name: vm.record.name.to_string() };
                let list = || Ok(client.ask(VmList {})?.iter().map(living).collect());
                known::pin(&place, &id, &host_key, list)?;
                rest
            }
            (Word::None, _) => return Err(no_sshd(name)),
            (Word::Broken(why), _) => {
                return Err(Error::Refused(format!("VM {name} cannot start its sshd: {why}")));
            }
        };
        from_guest.relay(rest)
    }
}

/// Which VM ssh means by `host`, which it has put in lower case.
fn find(host: &str, suffix: &str, vms: &[VmView]) -> Result<usize, Error> {
    let host = host.trim_end_matches('.');
    let typed = host.strip_suffix(suffix).and_then(|rest| rest.strip_suffix('.')).unwrap_or(host);
    let names: Vec<([String; 1], String)> =
        vms.iter().map(|vm| ([vm.record.name.to_string()], vm.record.id.to_string())).collect();
    let candidates: Vec<Candidate<'_>> = names.iter().map(|(names, id)| Candidate { names, id }).collect();
    lookup::find("VM", typed, &candidates).map_err(|e| Error::Refused(e.to_string()))
}

/// Another server than OpenSSH's will not do: dropbear wants a socket where sshd takes pipes, and keys in homes alone.
fn no_sshd(name: &str) -> Error {
    Error::Refused(format!(
        "VM {name} has no sshd of OpenSSH, which ssh needs; `banger vm shell {name}` and `banger vm exec {name} -- COMMAND` need nothing in the image"
    ))
}

/// The guest's side.
struct Guest {
    socket: File,
    /// What it said besides, as far as it is kept.
    stderr: Vec<u8>,
}

/// What is to be done with a frame.
enum Said {
    Stdout(Vec<u8>),
    Window(usize),
    Exit,
    Nothing,
}

impl Guest {
    /// The first line of stdout, and what came with it.
    fn first_word(&mut self) -> Result<(Word, Vec<u8>), Error> {
        let mut text = vec![];
        loop {
            if let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let rest = text.split_off(end + 1);
                let word =
                    Word::parse(&text[..end]).ok_or_else(|| self.gone("something else than was asked"))?;
                return Ok((word, rest));
            }
            match self.next()? {
                Said::Stdout(bytes) if text.len() <= MAX_WORD => text.extend(bytes),
                Said::Stdout(_) | Said::Exit => return Err(self.gone("nothing that could be understood")),
                Said::Window(_) | Said::Nothing => {}
            }
        }
    }

    /// Moves bytes until the guest's side has ended.
    fn relay(mut self, first: Vec<u8>) -> Result<(), Error> {
        let mut stdout = io::stdout().lock();
        let to_ssh = |stdout: &mut io::StdoutLock<'_>, bytes: &[u8]| {
            stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Error::Stdout)
        };
        to_ssh(&mut stdout, &first)?;
        let mut silent = first.is_empty();
        let credit = Arc::new(Credit::default());
        let (to_guest, theirs) = (self.socket.try_clone().map_err(connection)?, Arc::clone(&credit));
        // Detached: it may be reading what ssh never says, and ends with the process.
        std::thread::spawn(move || feed(to_guest, &theirs));
        loop {
            match self.next()? {
                Said::Stdout(bytes) => {
                    silent = false;
                    to_ssh(&mut stdout, &bytes)?;
                }
                Said::Window(bytes) => credit.add(bytes),
                Said::Exit if silent => return Err(self.gone("nothing")),
                Said::Exit => return Ok(()),
                Said::Nothing => {}
            }
        }
    }

    fn next(&mut self) -> Result<Said, Error> {
        let frame = match Frame::read(&mut self.socket) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(Error::Session(SessionError::Lost)),
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                return Err(Error::Session(SessionError::Lost));
            }
            Err(e) => return Err(connection(e)),
        };
        Ok(match frame.kind {
            Kind::Stdout => Said::Stdout(frame.payload),
            Kind::Window => Said::Window(frame.as_window().map_err(SessionError::Protocol)? as usize),
            Kind::Exit => Said::Exit,
            Kind::Failed => {
                let message = String::from_utf8_lossy(&frame.payload).into_owned();
                return Err(Error::Session(SessionError::Guest { message }));
            }
            Kind::Stderr => {
                let room = KEPT.saturating_sub(self.stderr.len());
                self.stderr.extend(frame.payload.into_iter().take(room));
                Said::Nothing
            }
            _ => Said::Nothing,
        })
    }

    /// Why there will be no SSH, with the last thing that the guest's programs said.
    fn gone(&self, what: &str) -> Error {
        let said = String::from_utf8_lossy(&self.stderr);
        let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
        Error::Refused(match last {
            Some(last) => format!("the guest's sshd said {what}; the last line of its log: {last}"),
            None => format!("the guest's sshd said {what}"),
        })
    }
}

/// Moves what ssh says to the guest, as much as the guest takes. It ends when either does.
fn feed(mut guest: File, credit: &Credit) {
    let mut stdin = io::stdin().lock();
    let mut buffer = vec![0; PIECE];
    loop {
        let room = credit.wait().min(buffer.len());
        let frame = match stdin.read(&mut buffer[..room]) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => Frame::new(Kind::Eof, []),
            Ok(n) => {
                credit.take(n);
                Frame::new(Kind::Stdin, &buffer[..n])
            }
        };
        // That the guest has gone is for the other direction to say.
        if frame.write(&mut guest).is_err() || frame.kind == Kind::Eof {
            return;
        }
    }
}

/// How many bytes of stdin the guest still takes.
struct Credit {
    left: Mutex<usize>,
    more: Condvar,
}

impl Default for Credit {
    fn default() -> Self {
        Self { left: Mutex::new(STDIN_WINDOW), more: Condvar::new() }
    }
}

impl Credit {
    /// Waits until there is some, and returns how much there is.
    fn wait(&self) -> usize {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *self.more.wait_while(left, |left| *left == 0).unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, bytes: usize) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) -= bytes;
    }

    fn add(&self, bytes: usize) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_add(bytes);
        self.more.notify_one();
    }
}

fn connection(source: io::Error) -> Error {
    Error::Session(SessionError::Io { what: "speak to the guest", source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::vm::stopped as vm;

    #[test]
    fn a_host_is_a_vm_by_its_name_with_and_without_the_suffix_or_by_its_id() {
        let vms = [vm("dev", 0xabc), vm("vm", 0xdef)];
        for (host, suffix, want) in [
            ("dev.vm", "vm", 0),
            ("dev", "vm", 0),
            ("dev.vm.", "vm", 0),
            ("vm.vm", "vm", 1),
            ("vm", "vm", 1),
            ("dev.my.box", "my.box", 0),
            ("000000000def.vm", "vm", 1),
        ] {
            assert_eq!(find(host, suffix, &vms).expect(host), want, "{host}");
        }
        let said = find("dve.vm", "vm", &vms).expect_err("no such VM").to_string();
        assert_eq!(said, "there is no VM \"dve\"; did you mean dev?");
    }

    fn guest_that_says(frames: &[Frame]) -> Guest {
        let (near, mut far) = std::os::unix::net::UnixStream::pair().expect("a pair");
        for frame in frames {
            frame.write(&mut far).expect("writes");
        }
        Guest { socket: File::from(std::os::fd::OwnedFd::from(near)), stderr: vec![] }
    }

    #[test]
    fn the_first_word_is_read_in_pieces_and_what_follows_is_kept() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOM4+kO9p8ZzEgbjFiYtXwxJ+4cXIdQCSuOoLjTkVQPB";
        let said = format!("ready {key}\nSSH-2.0-x\r\n");
        let (one, two) = said.split_at(20);
        let frames = [
            Frame::new(Kind::Stderr, "noise\n"),
            Frame::new(Kind::Stdout, one),
            Frame::window(5),
            Frame::new(Kind::Stdout, two),
        ];
        let (word, rest) = guest_that_says(&frames).first_word().expect("a word");
        assert_eq!((word, rest), (Word::Ready(key.to_owned()), b"SSH-2.0-x\r\n".to_vec()));
    }

    #[test]
    fn a_guest_that_says_something_else_is_an_error_with_its_last_line() {
        let table = [
            (
                vec![Frame::new(Kind::Stderr, "a\nbad option\n\n"), Frame::new(Kind::Exit, [1])],
                "its log: bad option",
            ),
            (vec![Frame::new(Kind::Stdout, "SSH-2.0-x\n")], "something else than was asked"),
            (vec![Frame::new(Kind::Stdout, vec![b'x'; 3 * MAX_WORD]); 2], "nothing that could be understood"),
            (vec![Frame::new(Kind::Failed, "no room")], "the guest says: no room"),
            (vec![], "the connection to the guest ended"),
        ];
        for (frames, want) in table {
            let said = guest_that_says(&frames).first_word().expect_err(want).to_string();
            assert!(said.contains(want), "{said}");
        }
    }

    #[test]
    fn a_guest_is_sent_no_more_than_it_takes() {
        let credit = Credit::default();
        assert_eq!(credit.wait(), STDIN_WINDOW);
        credit.take(STDIN_WINDOW);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| credit.wait());
            credit.add(7);
            assert_eq!(waits.join().expect("no panic"), 7);
        });
        credit.add(usize::MAX);
        assert_eq!(credit.wait(), usize::MAX, "a guest may say what it likes");
    }
}
