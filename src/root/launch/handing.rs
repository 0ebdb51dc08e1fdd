//! Letting a VM's own user into files of the owner's, by their group: the owner stays the owner, and nobody else has the group.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Mode, fchmod, fchown, fstat};

use crate::host::undo::Undo;

/// What the owner and the VM's user may do with a file, others nothing.
pub const FILE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP).union(Mode::WGRP);
/// The same with a directory.
pub const DIRECTORY: Mode = Mode::RWXU.union(Mode::RWXG);

/// Gives what `fd` leads to the group `gid` and the mode `mode`.
pub fn hand(fd: &OwnedFd, gid: Gid, mode: Mode, undo: &mut Undo) -> io::Result<()> {
    let before = fstat(fd)?;
    let back = fd.as_fd().try_clone_to_owned()?;
    // Closed first, so that at no moment the old group has the new mode.
    fchmod(fd, mode & Mode::RWXU)?;
    undo.push("a file's group and mode", move || {
        fchown(&back, None, Some(Gid::from_raw(before.st_gid)))?;
        Ok(fchmod(&back, Mode::from_raw_mode(before.st_mode))?)
    });
    fchown(fd, None, Some(gid))?;
    Ok(fchmod(fd, mode)?)
}
