//! Descriptors: sent to another process, and those that we were started with and did not ask for.
//!
//! This module may use `unsafe` for what the standard library has no safe word for: flags on a descriptor that we did not open.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// The most descriptors that one message takes along: those of a launch, and a tap.
const MOST: usize = 17;

/// Sends `bytes`, which may not be empty, and `descriptors` with the first of them (unix(7), SCM_RIGHTS).
pub fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("no room for so many descriptors"));
    }
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    (&mut &*stream).write_all(&bytes[sent..])
}

/// Marks the descriptors of this process, beyond stdin, stdout and stderr, to be closed by exec, so that what it starts does not
/// hold the locks and pipes of whoever started it (F4).
pub fn keep_from_children() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if fd > 2 {
            // SAFETY: the number is not -1, and is used for one fcntl that touches nothing but the flag: should another
            // thread have closed it since it was listed, that is EBADF; should it have opened another file there, that
            // one bears the flag already, as all do that Rust opens.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            match fcntl_setfd(fd, FdFlags::CLOEXEC) {
                Ok(()) | Err(Errno::BADF) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
}
