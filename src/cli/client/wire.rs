//! Lines over a unix socket, and the descriptors that travel with them (SCM_RIGHTS, unix(7)).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::ClientError;
use crate::proto::api::MAX_REPLY;

/// Sends all of `line`; `lent` goes with its first byte.
pub fn send_line(
    connection: &UnixStream,
    mut line: &[u8],
    mut lent: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    while !line.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = lent.map(|fd| [fd]);
        if let Some(fds) = &fds {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        match sendmsg(connection, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL) {
            Ok(n) => {
                line = &line[n..];
                lent = None;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Lines as they arrive, and the last descriptor that came with them.
#[derive(Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// How many of `bytes` are known to hold no newline.
    searched: usize,
    fd: Option<OwnedFd>,
}

impl Lines {
    /// The next whole line, without its newline.
    ///
    /// # Errors
    /// [`ClientError::BadReply`] for a line that is longer than any reply.
    pub fn take(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        if let Some(at) = self.bytes[self.searched..].iter().position(|b| *b == b'\n') {
            let mut line: Vec<u8> = self.bytes.drain(..=self.searched + at).collect();
            line.pop();
            self.searched = 0;
            return Ok(Some(line));
        }
        self.searched = self.bytes.len();
        if self.bytes.len() > MAX_REPLY {
            return Err(ClientError::BadReply { why: format!("a line of more than {MAX_REPLY} bytes") });
        }
        Ok(None)
    }

    /// Reads what is there, waiting for some; false at the end of the stream.
    pub fn fill(&mut self, connection: &UnixStream) -> Result<bool, ClientError> {
        let mut buffer = [0; 16 * 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let slices = &mut [IoSliceMut::new(&mut buffer)];
            match recvmsg(connection, slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => break received.bytes,
                Err(Errno::INTR) => {}
                // The kernel says so when the daemon ended with our request unread (unix(7), ECONNRESET).
                Err(Errno::CONNRESET) => return Err(ClientError::Unread),
                Err(e) => {
                    return Err(ClientError::Connection { what: "read from the daemon", source: e.into() });
                }
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                // Any that is not used is closed again as it is dropped.
                self.fd = fds.last().or(self.fd.take());
            }
        }
        self.bytes.extend_from_slice(&buffer[..received]);
        Ok(received > 0)
    }

    pub fn into_fd(self) -> Option<OwnedFd> {
        self.fd
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn lines_come_whole_however_they_were_cut() {
        let (mut far, near) = UnixStream::pair().expect("a pair");
        let mut lines = Lines::default();
        far.write_all(b"on").expect("writes");
        assert!(lines.fill(&near).expect("reads"));
        assert_eq!(lines.take().expect("no line"), None);
        far.write_all(b"e\ntwo\nth").expect("writes");
        drop(far);
        assert!(lines.fill(&near).expect("reads"));
        assert_eq!(lines.take().expect("a line").as_deref(), Some(&b"one"[..]));
        assert_eq!(lines.take().expect("a line").as_deref(), Some(&b"two"[..]));
        assert_eq!(lines.take().expect("no line"), None);
        assert!(!lines.fill(&near).expect("ends"));
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut lines = Lines { bytes: vec![b'x'; MAX_REPLY + 1], ..Lines::default() };
        assert!(matches!(lines.take(), Err(ClientError::BadReply { .. })));
    }

    #[test]
    fn a_descriptor_goes_with_a_line_and_is_the_same_file() {
        let (far, near) = UnixStream::pair().expect("a pair");
        let (mut file_far, file_near) = UnixStream::pair().expect("a pair");
        send_line(&far, b"done\n", Some(file_near.as_fd())).expect("sends");
        drop(file_near);
        let mut lines = Lines::default();
        lines.fill(&near).expect("reads");
        assert_eq!(lines.take().expect("a line").as_deref(), Some(&b"done"[..]));
        let fd = lines.into_fd().expect("a descriptor");
        file_far.write_all(b"hi").expect("writes");
        drop(file_far);
        let mut text = String::new();
        UnixStream::from(fd).read_to_string(&mut text).expect("reads");
        assert_eq!(text, "hi");
    }
}
