//! Who may connect, and one request for each connection.
//!
//! A thread for each, at most [`MOST`] at once, so that a slow client keeps nobody waiting; who comes when all are taken is told so.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::process::Uid;

use crate::proto::root::{Answer, Code, Request};
use crate::root::asked::{self, Asked, NoRequest};
use crate::root::perform::Root;
use crate::root::policy::Denied;

/// Connections at once. The owner's daemon has one for each VM that it starts or stops.
const MOST: usize = 64;
/// Between attempts, when the kernel has no descriptors left for us.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until `ended` says that the launcher has ended.
pub fn serve(root: &Arc<Root>, listener: &UnixListener, ended: &UnixStream) -> io::Result<()> {
    let connected = Arc::new(AtomicUsize::new(0));
    listener.set_nonblocking(true)?;
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        if !fds[1].revents().is_empty() {
            return Err(io::Error::other("the launcher has ended"));
        }
        match listener.accept() {
            Ok((stream, _)) => {
                let place = Place::take(&connected);
                let root = Arc::clone(root);
                // At most so many threads, each of which has at most so many seconds for its client.
                let started = match place {
                    None => Err(stream),
                    Some(place) => start(root, stream, place),
                };
                if let Err(stream) = started {
                    refuse_at_once(&stream);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => {
                log::warn!("cannot accept a connection: {e}");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// A connection's place among [`MOST`].
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(connected: &Arc<AtomicUsize>) -> Option<Self> {
        // Only one thread takes places, so that the number cannot grow between the two.
        (connected.load(Ordering::Acquire) < MOST).then(|| {
            connected.fetch_add(1, Ordering::AcqRel);
            Self(Arc::clone(connected))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn start(root: Arc<Root>, stream: UnixStream, place: Place) -> Result<(), UnixStream> {
    let refused = stream.try_clone();
    let thread = std::thread::Builder::new().name("request".to_owned()).spawn(move || {
        let _place = place;
        converse(&root, &stream);
    });
    match (thread, refused) {
        (Ok(_), _) => Ok(()),
        (Err(e), Ok(stream)) => {
            log::warn!("cannot start a thread: {e}");
            Err(stream)
        }
        (Err(e), Err(_)) => {
            log::warn!("cannot start a thread: {e}");
            Ok(())
        }
    }
}

/// Says that all places are taken, if that can be said without waiting.
fn refuse_at_once(stream: &UnixStream) {
    log::warn!("refused a connection: {MOST} are open");
    let message = format!("{MOST} requests are being made already; try again in a moment");
    let line = line(&Answer::Refused { code: Code::Conflict, message });
    if let Err(e) = rustix::net::send(stream, &line, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        log::debug!("cannot say so: {e}");
    }
}

fn converse(root: &Root, stream: &UnixStream) {
    let Ok(peer) = rustix::net::sockopt::socket_peercred(stream.as_fd()) else { return };
    let (uid, pid) = (peer.uid, peer.pid.as_raw_nonzero());
    let answer = match hear(root, uid, stream) {
        Some(answer) => answer,
        None => return,
    };
    if let Answer::Refused { code, message } = &answer {
        log::info!("refused a request of pid {pid}, uid {}: {code:?}: {message}", uid.as_raw());
    }
    if let Err(e) = asked::answer(stream, &line(&answer)) {
        log::debug!("cannot answer pid {pid}: {e}");
    }
}

/// None: the client has gone.
fn hear(root: &Root, uid: Uid, stream: &UnixStream) -> Option<Answer> {
    // Before anything is read: whom we do not serve gets no more of our attention than this.
    if !uid.is_root() && uid != root.ground.owner {
        return Some(crate::root::error::RootError::from(Denied::Peer(uid.as_raw())).answer());
    }
    let bad = |message| Some(Answer::Refused { code: Code::BadRequest, message });
    let Asked { line, descriptors } = match asked::receive(stream) {
        Ok(asked) => asked,
        Err(NoRequest::Gone) => return None,
        Err(NoRequest::Refused(message)) => return bad(message),
    };
    let request = match parse(&line) {
        Ok(request) => request,
        Err(message) => return bad(message),
    };
    Some(root.perform_for(uid, &request, descriptors).unwrap_or_else(|e| e.answer()))
}

/// Reads a request that says nothing but what a request says.
fn parse(line: &[u8]) -> Result<Request, String> {
    let request: Request = serde_json::from_slice(line).map_err(|e| format!("this is no request: {e}"))?;
    // serde ignores what comes with `status` and `clear-resolver` (serde#2294): what is written back must be what was read.
    let read: serde_json::Value =
        serde_json::from_slice(line).map_err(|e| format!("this is no request: {e}"))?;
    match serde_json::to_value(&request) {
        Ok(written) if written == read => Ok(request),
        _ => Err("this is no request: it says more than its operation takes".to_owned()),
    }
}

fn line(answer: &Answer) -> Vec<u8> {
    let mut line = match serde_json::to_vec(answer) {
        Ok(line) => line,
        // Strings, numbers and lists always are JSON.
        Err(e) => {
            log::error!("cannot write an answer: {e}");
            vec![]
        }
    };
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_its_operation_takes_and_nothing_else() {
        assert_eq!(parse(br#"{"op":"status"}"#), Ok(Request::Status));
        assert!(parse(br#" {"op" : "delete-tap", "vm":"00000000002a"} "#).is_ok());
        for bad in [
            &br#"{"op":"status","path":"/etc/shadow"}"#[..],
            br#"{"op":"clear-resolver","vm":"00000000002a"}"#,
            br#"{"op":"delete-tap","vm":"00000000002a","tap":"eth0"}"#,
            br#"{"op":"delete-tap","vm":"00000000002a","vm":"00000000002b"}"#,
            br#"{"op":"delete-tap","op":"status","vm":"00000000002a"}"#,
            br#"{"op":"delete-tap","vm":"../../etc/pwd"}"#,
            br#"{"op":"ensure-bridge","subnet":"172.16.0.1/24","dns_port":42069.0}"#,
            br#"{"op":"set-resolver","dns_port":65536}"#,
            br#"["status"]"#,
            b"\"status\"",
            b"status",
            b"",
            b"\0",
        ] {
            let text = String::from_utf8_lossy(bad);
            assert!(parse(bad).expect_err(&text).starts_with("this is no request: "), "{text}");
        }
        let deep = format!(r#"{{"op":"status","x":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
        assert!(parse(deep.as_bytes()).expect_err("deep").contains("recursion limit"));
    }
}
