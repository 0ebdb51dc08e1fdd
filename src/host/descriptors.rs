//! Descriptors that we were started with and did not ask for.
//!
//! This module may use `unsafe` for what the standard library has no safe word for: flags on a descriptor that we did not open.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, FdFlags, fcntl_setfd};

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
