//! A socket that systemd has opened for us (sd_listen_fds(3)), so that it is there before we are and while we are not.
//!
//! This module may use `unsafe` for what has no safe word: taking over a descriptor by its number.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

/// SD_LISTEN_FDS_START.
const FIRST: i32 = 3;

/// Takes the listening socket that this process was started with; None: it was started without. At most once in a process.
///
/// # Errors
/// A sentence as the error, when what was passed is not one listening unix socket.
pub fn take() -> io::Result<Option<UnixListener>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    // The variables may have been meant for whoever started us.
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        Some(1) => {}
        Some(0) | None => return Ok(None),
        Some(n) => return Err(io::Error::other(format!("{n} sockets were passed, and one is served"))),
    }
    // SAFETY: 3 is not -1, and is used only for calls that change or close nothing but the flag; EBADF if it is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(FIRST) };
    fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    let listening = socket_domain(fd)? == AddressFamily::UNIX
        && socket_type(fd)? == SocketType::STREAM
        && socket_acceptconn(fd)?;
    if !listening {
        return Err(io::Error::other("descriptor 3 is no listening unix stream socket"));
    }
    // SAFETY: it is open, as fcntl has just said; it was passed to this process, whose main calls this once and has opened
    // nothing of that number, since it was taken before the process began.
    let owned = unsafe { OwnedFd::from_raw_fd(FIRST) };
    Ok(Some(UnixListener::from(owned)))
}
