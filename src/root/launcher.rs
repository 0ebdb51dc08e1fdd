//! The launcher: the process apart that does what belongs to jails, since that takes rights which the one that reads requests
//! should not have ([`super::harden`]).
//!
//! ```text
//!  front --- control: one byte and one end of a new socket pair for each chore ---> launcher (a thread per chore)
//!        <== that pair: a line of JSON with descriptors, answered by a line ======>
//! ```
//!
//! It ends when the front has ended and its chores are done, and holds the front's lock until then: whoever comes next waits for
//! it, and finds no launch under way. A launch whose answer reaches nobody is taken back.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::host::descriptors;
use crate::proto::root::{Code, MAX_ANSWER};
use crate::root::Ground;
use crate::root::asked::{self, Asked, NoRequest};
use crate::root::chores::{self, Chore, Failed, Outcome};
use crate::root::settings::Settings;

/// The argument that makes bangerd-root such a process.
pub const FLAG: &str = "--launcher";
/// Longer than any chore: a VMM that does not end is given ten seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// The front's end of it.
#[derive(Debug)]
pub struct Launcher {
    control: Mutex<UnixStream>,
    /// Never waited for: it outlives nobody but us.
    _process: Child,
}

impl Launcher {
    /// Starts one, from the executable that this process runs, with this process's rights. It holds `lock` too.
    pub fn spawn(lock: &File) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        let process = Command::new("/proc/self/exe")
            .arg0("bangerd-root")
            .arg(FLAG)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(lock.try_clone()?))
            .spawn()?;
        Ok(Self { control: Mutex::new(control), _process: process })
    }

    /// A descriptor that is readable when the launcher has ended.
    pub fn ended(&self) -> io::Result<UnixStream> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner).try_clone()
    }

    /// Has `chore` done.
    pub fn ask(&self, chore: &Chore, fds: &[BorrowedFd<'_>]) -> io::Result<Result<Outcome, Failed>> {
        let (ours, theirs) = UnixStream::pair()?;
        {
            let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
            descriptors::send(&control, b"c", &[theirs.as_fd()])?;
        }
        drop(theirs);
        let mut line = serde_json::to_vec(chore)?;
        line.push(b'\n');
        descriptors::send(&ours, &line, fds)?;
        ours.set_read_timeout(Some(PATIENCE))?;
        let mut answer = vec![];
        BufReader::new(ours.take(MAX_ANSWER as u64)).read_until(b'\n', &mut answer)?;
        match answer.pop() {
            Some(b'\n') => Ok(serde_json::from_slice(&answer)?),
            _ => Err(io::Error::other("the launcher has ended")),
        }
    }
}

/// What the process does, with `control` and `lock` that it was given; returns when the front has ended and all is done.
pub fn serve(ground: &Ground, settings: &Settings, control: &UnixStream, lock: File) -> io::Result<()> {
    let place = Arc::new((ground.clone(), settings.clone()));
    let mut chores: Vec<JoinHandle<()>> = vec![];
    while let Some(stream) = next(control)? {
        chores.retain(|chore| !chore.is_finished());
        let place = Arc::clone(&place);
        chores.push(std::thread::Builder::new().spawn(move || one(&place.0, &place.1, &stream))?);
    }
    for chore in chores {
        if chore.join().is_err() {
            log::error!("a chore ended by a panic");
        }
    }
    drop(lock);
    Ok(())
}

/// The socket of the next chore; None: the front has ended.
fn next(control: &UnixStream) -> io::Result<Option<UnixStream>> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        // One byte: each is a message of its own, with its own descriptor.
        let mut byte = [0];
        match recvmsg(control, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) if received.bytes == 0 => return Ok(None),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(Errno::CONNRESET) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message
                && let Some(fd) = fds.next()
            {
                return Ok(Some(UnixStream::from(fd)));
            }
        }
    }
}

fn one(ground: &Ground, settings: &Settings, stream: &UnixStream) {
    let answer = match asked::receive(stream) {
        Ok(Asked { line, descriptors }) => match serde_json::from_slice::<Chore>(&line) {
            Ok(chore) => chores::perform(ground, settings, chore, descriptors),
            Err(e) => Err(Failed { code: Code::BadRequest, message: format!("this is no chore: {e}") }),
        },
        Err(NoRequest::Refused(message)) => Err(Failed { code: Code::BadRequest, message }),
        Err(NoRequest::Gone) => return,
    };
    if let Err(e) = tell(stream, &answer) {
        log::warn!("nobody hears what became of a chore: {e}");
        if let Ok(Outcome::Launched { vm, .. }) = answer
            && let Err(e) = chores::perform(ground, settings, Chore::Remove { vm, processes: None }, vec![])
        {
            log::error!("cannot take back the launch of VM {vm}: {e}");
        }
    }
}

fn tell(stream: &UnixStream, answer: &Result<Outcome, Failed>) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    asked::answer(stream, &line)
}
