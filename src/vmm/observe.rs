//! What this host has to run guests with. Takes a few milliseconds at most and runs no program.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::vmm::choose::HostFacts;
use crate::vmm::kvm;

/// The emulator of this machine's own architecture.
pub const QEMU: &str =
    if cfg!(target_arch = "aarch64") { "qemu-system-aarch64" } else { "qemu-system-x86_64" };

/// Looks at /dev, /proc and the PATH; `firecracker_bin` is where the configuration says that Firecracker is.
pub fn observe(firecracker_bin: Option<&Path>) -> HostFacts {
    let directories = search_path();
    let find = |name| find(&directories, name);
    HostFacts {
        kvm: kvm::probe(),
        qemu: find(QEMU),
        firecracker: match firecracker_bin {
            Some(path) => is_program(path).then(|| path.to_owned()),
            None => find("firecracker"),
        },
        firecracker_bin: firecracker_bin.map(Path::to_owned),
        vhost_device_vsock: find("vhost-device-vsock"),
        vhost_vsock: opens(Path::new(VHOST_VSOCK)),
        has_vhost_vsock: is_device(Path::new(VHOST_VSOCK)),
    }
}

/// Where the program `name` is installed.
pub fn installed(name: &str) -> Option<PathBuf> {
    find(&search_path(), name)
}

fn find(directories: &[PathBuf], name: &str) -> Option<PathBuf> {
    directories.iter().map(|directory| directory.join(name)).find(|path| is_program(path))
}

/// Where programs are looked for: the PATH, then where they are commonly installed without being on it.
pub fn search_path() -> Vec<PathBuf> {
    directories(std::env::var_os("PATH"), std::env::var_os("HOME"))
}

fn directories(path: Option<OsString>, home: Option<OsString>) -> Vec<PathBuf> {
    let common = ["/usr/local/bin", "/usr/bin", "/usr/libexec"].map(PathBuf::from);
    let cargo = home.map(|home| Path::new(&home).join(".cargo/bin"));
    // A relative one means another place in each process.
    std::env::split_paths(&path.unwrap_or_default())
        .chain(common)
        .chain(cargo)
        .filter(|directory| directory.is_absolute())
        .collect()
}

const VHOST_VSOCK: &str = "/dev/vhost-vsock";

fn is_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device())
}

/// Whether `path` is a device, and ours to open: a program that writes to a device which is not there leaves a file instead.
fn opens(path: &Path) -> bool {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.and_then(|file| file.metadata()).is_ok_and(|metadata| metadata.file_type().is_char_device())
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_on_the_path_and_where_they_are_commonly_installed() {
        let found = directories(Some("/a:b::/c".into()), Some("/home/u".into()));
        let want = ["/a", "/c", "/usr/local/bin", "/usr/bin", "/usr/libexec", "/home/u/.cargo/bin"];
        assert_eq!(found, want.map(PathBuf::from));
        assert_eq!(directories(None, None).len(), 3);
    }

    #[test]
    fn a_file_in_the_place_of_a_device_is_no_device() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(!opens(file.path()));
        assert!(!opens(Path::new("/dev/no-such-device")));
        assert!(opens(Path::new("/dev/null")));
    }

    #[test]
    fn a_configured_firecracker_must_be_a_program() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("fc");
        assert_eq!(observe(Some(&path)).firecracker, None);
        crate::host::files::write_atomic(&path, b"#!/bin/sh\n", 0o644).expect("writes");
        assert_eq!(observe(Some(&path)).firecracker, None);
        crate::host::files::write_atomic(&path, b"#!/bin/sh\n", 0o755).expect("writes");
        let facts = observe(Some(&path));
        assert_eq!(
            (facts.firecracker.as_deref(), facts.firecracker_bin.as_deref()),
            (Some(&*path), Some(&*path))
        );
    }
}
