//! What this host is: CPUs, memory, disk, KVM.

use std::io;
use std::path::Path;

use crate::vm::size::Mib;
use crate::vm::spec::Host;

/// Reads what VMs of this host may use, with their disks in `directory`, which must exist.
pub fn read(directory: &Path) -> io::Result<Host> {
    let cpus = std::thread::available_parallelism()?.get();
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let memory = self::meminfo(&meminfo, "MemTotal")
        .ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))?;
    let fs = rustix::fs::statvfs(directory)?;
    Ok(Host {
        cpus: u8::try_from(cpus).unwrap_or(u8::MAX),
        memory,
        disk: Mib(fs.f_blocks.saturating_mul(fs.f_frsize) >> 20),
    })
}

/// An amount of /proc/meminfo, such as MemTotal (proc(5)).
pub fn meminfo(text: &str, name: &str) -> Option<Mib> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib = value.trim().strip_suffix("kB")?;
    kib.trim().parse::<u64>().ok().map(|kib| Mib(kib / 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_mib() {
        let text = "MemFree: 1024 kB\nMemTotal:       16384000 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), Some(Mib(16_000)));
        assert_eq!(meminfo(text, "MemFree"), Some(Mib(1)));
        assert_eq!(meminfo(text, "Mem"), None);
    }

    #[test]
    fn this_host_has_something_of_each() {
        let host = read(Path::new("/")).expect("reads");
        assert!(host.cpus > 0 && host.memory.0 > 0 && host.disk.0 > 0, "{host:?}");
    }
}
