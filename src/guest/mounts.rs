//! Mounts: what the initramfs needs for itself, the change to the real root, and what every process expects to find there.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, mount_remount, unmount};

use super::console;
use super::{Failed, failed};

/// Where the real root is mounted before it becomes `/`.
pub const NEW_ROOT: &str = "/sysroot";

const PSEUDO: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// The two that bring-up itself needs.
pub fn early() -> Result<(), Failed> {
    mount_on("devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755")?;
    mount_on("proc", "/proc", PSEUDO, "")
}

/// Mounts the root file system at [`NEW_ROOT`].
pub fn root(device: &Path) -> Result<(), Failed> {
    let at_root = || {
        make_directory(NEW_ROOT)?;
        match mount(device, NEW_ROOT, "ext4", MountFlags::empty(), None) {
            Err(Errno::ROFS | Errno::ACCESS) => {
                mount(device, NEW_ROOT, "ext4", MountFlags::RDONLY, None).map_err(io::Error::from)
            }
            other => other.map_err(io::Error::from),
        }
    };
    at_root().map_err(failed(format!("mount the root file system {}", device.display())))
}

/// Keeps the kernel from writing zeros over the inode tables of the file system at [`NEW_ROOT`]: what lies behind the image's
/// end reads as zeros already, and the VM's file would be filled with them.
///
/// After the growth, not at the mount: a resize that may not leave the tables to be initialised later does it by itself
/// (kernel: fs/ext4/resize.c, EXT4_BG_INODE_ZEROED), 128 MiB for a disk of 8 GiB.
pub fn leave_inode_tables_alone() -> Result<(), Failed> {
    match mount_remount(NEW_ROOT, MountFlags::empty(), c"noinit_itable") {
        Ok(()) | Err(Errno::ROFS | Errno::ACCESS) => Ok(()),
        Err(e) => Err(failed("set the root file system's options")(e)),
    }
}

/// Makes [`NEW_ROOT`] the root of this process and all to come, and gives the initramfs's files back to the machine.
pub fn switch_root() -> Result<(), Failed> {
    let switch = || {
        for path in ["/proc", "/dev"] {
            unmount(path, UnmountFlags::DETACH)?;
        }
        // The executable lives on in the processes that run it, and /proc/self/exe can start more of them.
        fs::remove_file("/init")?;
        fs::remove_dir_all("/modules")?;
        std::env::set_current_dir(NEW_ROOT)?;
        mount_move(".", "/")?;
        rustix::process::chroot(".")?;
        std::env::set_current_dir("/")
    };
    switch().map_err(failed("change to the root file system"))
}

/// Mounts in the new root what Linux programs take for granted. Only /proc and /dev are worth failing for.
pub fn everything() -> Result<(), Failed> {
    mount_on("proc", "/proc", PSEUDO, "")?;
    mount_on("devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755")?;
    // 5 is the group tty's number wherever there is one; a pty belongs to it as login(1) would have it.
    let rest = [
        ("sysfs", "/sys", PSEUDO, ""),
        ("devpts", "/dev/pts", MountFlags::NOSUID.union(MountFlags::NOEXEC), "gid=5,mode=0620,ptmxmode=0666"),
        ("tmpfs", "/dev/shm", MountFlags::NOSUID.union(MountFlags::NODEV), "mode=1777"),
        ("tmpfs", "/run", MountFlags::NOSUID.union(MountFlags::NODEV), "mode=0755"),
    ];
    for (kind, path, flags, options) in rest {
        if let Err(e) = mount_on(kind, path, flags, options) {
            console::say(e.sentence());
        }
    }
    // devtmpfs has devices only; the rest is user space's to make (kernel: admin-guide/devices.rst, "Compulsory links").
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("fd/0", "/dev/stdin"),
        ("fd/1", "/dev/stdout"),
        ("fd/2", "/dev/stderr"),
    ] {
        if let Err(e) = symlink(target, link)
            && e.kind() != io::ErrorKind::AlreadyExists
        {
            console::say(format_args!("cannot make {link}: {e}"));
        }
    }
    Ok(())
}

/// Where nobody else will: an init of the image's own mounts the control groups its own way.
pub fn control_groups() -> Result<(), Failed> {
    mount_on("cgroup2", "/sys/fs/cgroup", PSEUDO, "nsdelegate")
}

/// The kernel's modules, read-only, where modprobe looks for them.
pub fn kernel_modules(device: &str) -> Result<(), Failed> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let at = format!("/lib/modules/{release}");
    let device = Path::new("/dev").join(device);
    let mounted = || {
        // /lib is a symlink in a usr-merged image; the root is ours by now, so it leads where it should.
        fs::create_dir_all(&at)?;
        let flags = MountFlags::RDONLY.union(MountFlags::NOSUID).union(MountFlags::NODEV);
        mount(&device, &at, "ext4", flags, None).map_err(io::Error::from)
    };
    mounted().map_err(failed(format!("mount the kernel's modules at {at}")))
}

fn mount_on(kind: &'static str, path: &str, flags: MountFlags, options: &str) -> Result<(), Failed> {
    let mounted = || {
        make_directory(path)?;
        let options = std::ffi::CString::new(options)?;
        mount(kind, path, kind, flags, Some(options.as_c_str())).map_err(io::Error::from)
    };
    mounted().map_err(failed(format!("mount {kind} at {path}")))
}

/// Makes `path` a directory if it is none. What some images have in its place, a file or a symlink to nowhere, makes way.
fn make_directory(path: &str) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(_) | Err(_) => {}
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    fs::DirBuilder::new().mode(0o755).create(path)
}
