//! A client of the helper's socket that can be anybody and say anything.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// More than any message can carry (net/scm.h, SCM_MAX_FD, is 253).
const MOST_DESCRIPTORS: usize = 253;

pub struct Client {
    pub stream: UnixStream,
}

impl Client {
    /// Connects as the user `uid`, which the kernel remembers for the other end.
    pub fn connect(uid: u32, socket: &Path) -> io::Result<Self> {
        let stream = as_user(uid, || UnixStream::connect(socket))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream })
    }

    /// Sends as much as the helper takes.
    pub fn send(&mut self, bytes: &[u8]) {
        if let Err(e) = self.stream.write_all(bytes) {
            assert!(matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{e}");
        }
    }

    pub fn send_with(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)), "room for them");
        }
        let sent = sendmsg(self.stream.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
        assert_eq!(sent.expect("sends"), bytes.len());
    }

    pub fn no_more(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("shuts down");
    }

    /// All that comes back.
    pub fn answer(&mut self) -> String {
        let mut answer = vec![];
        if let Err(e) = self.stream.read_to_end(&mut answer) {
            assert_eq!(e.kind(), io::ErrorKind::ConnectionReset, "{e}");
        }
        String::from_utf8(answer).expect("UTF-8")
    }
}

/// Does `work` as the user `uid`, in a thread of its own: credentials are each thread's (credentials(7)).
pub fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if uid != 0 {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
                set_thread_groups(&[]).expect("leaves all groups");
                set_thread_res_gid(gid, gid, gid).expect("becomes another group");
                set_thread_res_uid(uid, uid, uid).expect("becomes another user");
            }
            work()
        });
        thread.join().expect("does not panic")
    })
}
