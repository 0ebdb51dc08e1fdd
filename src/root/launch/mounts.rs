//! The file system of a jail: memory, on which the owner's files are mounted. It exists in the mount namespace of one VM's process
//! and vanishes with it: nothing of it is on a disk, and there is nothing to remove.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chown, fstat, mknodat, openat2, stat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};
use rustix::process::pivot_root;

use crate::root::launch::order::{Device, Mount};

/// Where programs, their libraries and their data are. The jail shows them as the host has them, for reading.
const SYSTEM: [&str; 8] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "opt", "nix"];
/// Where the dynamic linker remembers libraries, and Debian which of several is called by a name (update-alternatives(1)).
const LINKS: [&str; 2] = ["/etc/ld.so.cache", "/etc/alternatives"];

/// Nothing that is mounted from here on is seen elsewhere, nor the other way round.
pub fn leave_the_hosts() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Mounts memory on the directory `base`, and makes `root` in it, whose path leads through `base`.
pub fn memory(base: &OwnedFd, room_bytes: u64, root: &Path) -> io::Result<()> {
    let options = std::ffi::CString::new(format!("mode=0755,size={room_bytes},nr_inodes=1024"))?;
    // Devices are allowed: the jailer makes those that a VMM needs.
    mount("banger", magic_link(base), "tmpfs", MountFlags::NOSUID, Some(&*options))?;
    DirBuilder::new().recursive(true).mode(0o755).create(root)
}

/// Shows in the jail at `root` what `fd` leads to.
///
/// A mount can only be made of what the own namespace has, and `fd` was opened in another process's. So it is looked up once more,
/// by the path that it has (proc(5), /proc/pid/fd), and must be the same file: the descriptor decides, the path is a hint.
pub fn show(root: &Path, fd: &OwnedFd, what: &Mount) -> io::Result<()> {
    let here = again(fd)?;
    let is_directory = FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory;
    let at = mount_point(root, &what.at, is_directory)?;
    mount_bind(magic_link(&here), &at)?;
    let access = if what.read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    restrict(&at, access | MountFlags::NOEXEC | MountFlags::NODEV | MountFlags::NOSUID)
}

fn again(fd: &OwnedFd) -> io::Result<OwnedFd> {
    let path = fs::read_link(magic_link(fd))?;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let here = openat2(rustix::fs::CWD, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
        .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("{}: {e}", path.display())))?;
    let (want, got) = (fstat(fd)?, fstat(&here)?);
    match (want.st_dev, want.st_ino) == (got.st_dev, got.st_ino) {
        true => Ok(here),
        false => {
            Err(io::Error::other(format!("{} is another file than the one that was opened", path.display())))
        }
    }
}

/// Shows the host's programs and libraries, for reading, and `program` if it is not among them.
pub fn show_system(root: &Path, program: &Path) -> io::Result<()> {
    for name in SYSTEM {
        let (host, at) = (Path::new("/").join(name), root.join(name));
        match fs::symlink_metadata(&host) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
            // Since /usr was merged, /bin is usr/bin.
            Ok(meta) if meta.is_symlink() => symlink(fs::read_link(&host)?, &at)?,
            Ok(_) => {
                fs::create_dir(&at)?;
                // With what is mounted below it, which then is as restricted only as the host has it.
                mount_bind_recursive(&host, &at)?;
                restrict(&at, MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV)?;
            }
        }
    }
    let mut alone = LINKS.map(Path::new).to_vec();
    if !SYSTEM.iter().any(|name| program.starts_with(Path::new("/").join(name))) {
        alone.push(program);
    }
    for host in alone.into_iter().filter(|host| host.exists()) {
        let at = mount_point(root, host, host.is_dir())?;
        mount_bind(host, &at)?;
        restrict(&at, MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV)?;
    }
    Ok(())
}

/// Makes `device` in the jail, for the user `uid` alone.
pub fn make_device(root: &Path, device: Device, uid: u32) -> io::Result<()> {
    let host = stat(device.path())
        .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("{}: {e}", device.path())))?;
    if FileType::from_raw_mode(host.st_mode) != FileType::CharacterDevice {
        return Err(io::Error::other(format!("{} is no device", device.path())));
    }
    let at = below(root, Path::new(device.path()))?;
    if let Some(parent) = at.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(rustix::fs::CWD, &at, FileType::CharacterDevice, mode, host.st_rdev)?;
    Ok(chown(&at, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)))?)
}

pub fn write(root: &Path, file: &Path, text: &str) -> io::Result<()> {
    let at = below(root, file)?;
    fs::write(&at, text)?;
    // For the VM's user, of which there is none yet.
    fs::set_permissions(&at, Permissions::from_mode(0o444))
}

/// Makes the mounted `root` the root of this process, and what was it before, unreachable.
pub fn enter(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    // The old root comes to lie on the new one and is detached from there (pivot_root(2), "pivot_root(\".\", \".\")").
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")?;
    restrict(Path::new("/"), MountFlags::RDONLY | MountFlags::NOSUID)
}

fn restrict(at: &Path, flags: MountFlags) -> io::Result<()> {
    Ok(mount_remount(at, MountFlags::BIND | flags, c"")?)
}

/// `path`, which is absolute, below `root`.
fn below(root: &Path, path: &Path) -> io::Result<PathBuf> {
    path.strip_prefix("/").map(|path| root.join(path)).map_err(io::Error::other)
}

/// An empty file or directory at `path`, which is absolute, below `root`; returns where that is.
fn mount_point(root: &Path, path: &Path, is_directory: bool) -> io::Result<PathBuf> {
    let at = below(root, path)?;
    let directory = if is_directory { Some(&*at) } else { at.parent() };
    if let Some(directory) = directory {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    if !is_directory {
        OpenOptions::new().write(true).create_new(true).mode(0o444).open(&at)?;
    }
    Ok(at)
}

fn magic_link(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
