//! Answers over UDP: a loop that reads, answers and sends, and waits only when nothing is there.
//!
//! Plain calls on a thread of its own, not smol's: two system calls for each question, and nobody else waits in the meantime.

use std::io::{self, PipeReader};
use std::net::{SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::dns::limits::Sparingly;
use crate::dns::service::{Face, Inside, Job, Return};
use crate::dns::zone::Verdict;

/// The longest question that is read; a longer one loses its end, and is malformed then.
const LONGEST: usize = 4096;
/// After so many questions in a row it is looked whether to go on.
const ROUND: usize = 256;
/// So long nothing is read when the kernel has no memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until the other end of `stop` is closed.
pub fn serve(socket: &Arc<UdpSocket>, face: Face, inside: &Inside, stop: &PipeReader) {
    let mut message = [0; LONGEST];
    let mut reply = Vec::with_capacity(LONGEST);
    let trouble = Sparingly::default();
    loop {
        let nothing_left = match round(socket, face, inside, &mut message, &mut reply) {
            Ok(nothing_left) => nothing_left,
            Err(e) => {
                if trouble.now() {
                    log::warn!("cannot read questions: {e}");
                }
                std::thread::sleep(PAUSE);
                false
            }
        };
        if over(socket, stop, nothing_left) {
            return;
        }
    }
}

/// Answers what is there; true: all of it.
fn round(
    socket: &Arc<UdpSocket>,
    face: Face,
    inside: &Inside,
    message: &mut [u8],
    reply: &mut Vec<u8>,
) -> io::Result<bool> {
    for _ in 0..ROUND {
        let (length, from) = match socket.recv_from(message) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            received => received?,
        };
        // A mistake of ours in one question must not take the others with it.
        let work = || answer(socket, face, inside, &message[..length], from, reply);
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            log::error!("a question from {from} led to a mistake in the DNS server");
        }
    }
    Ok(false)
}

fn answer(
    socket: &Arc<UdpSocket>,
    face: Face,
    inside: &Inside,
    message: &[u8],
    from: SocketAddr,
    reply: &mut Vec<u8>,
) {
    let Some(asker) = face.asker(from.ip()) else { return };
    let verdict = inside.names.read().answer(asker, message, reply);
    match (verdict, face) {
        (Verdict::Reply, _) => send(socket, reply, from),
        (Verdict::Forward(query), Face::Guests(guests)) => {
            // The guest asks again after a while; by then there may be room.
            let Some(turn) = inside.turns.take(from.ip()) else { return inside.busy(from.ip()) };
            inside.forward(Job {
                query,
                back: Return::Udp(Arc::clone(socket), from),
                bridge: guests.bridge,
                turn,
            });
        }
        (Verdict::Silence, _) | (Verdict::Forward(_), Face::Host) => {}
    }
}

/// Sends a reply, or drops it where there is no room for it: UDP promises nothing, and whoever wants it asks again.
pub fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    if let Err(e) = socket.send_to(reply, to) {
        log::debug!("cannot send a reply to {to}: {e}");
    }
}

/// Waits for a question, if `idle`; true: it is over.
fn over(socket: &UdpSocket, stop: &PipeReader, idle: bool) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
    let at_once = Timespec::default();
    match poll(&mut fds, if idle { None } else { Some(&at_once) }) {
        Ok(_) => !fds[1].revents().is_empty(),
        Err(rustix::io::Errno::INTR) => false,
        Err(e) => {
            log::error!("cannot wait for questions: {e}");
            true
        }
    }
}
