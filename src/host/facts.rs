//! What this host is: CPUs, memory, disk, KVM.

use std::io;
use std::path::Path;

use crate::vm::size::Mib;
use crate::vm::spec::Host;

/// Reads what VMs of this host may use, with their disks in `directory`, which must exist.
pub fn read(directory: &Path) -> io::Result<Host> {
    let cpus = std::thread::available_parallelism()?.get();
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let memory = mem_total(&meminfo).ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))?;
    let fs = rustix::fs::statvfs(directory)?;
    Ok(Host {
        cpus: u8::try_from(cpus).unwrap_or(u8::MAX),
        memory,
        disk: Mib(fs.f_blocks.saturating_mul(fs.f_frsize) >> 20),
    })
}

fn mem_total(meminfo: &str) -> Option<Mib> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix("kB")?;
    kib.trim().parse::<u64>().ok().map(|kib| Mib(kib / 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_mib() {
        assert_eq!(mem_total("MemFree: 1 kB\nMemTotal:       16384000 kB\n"), Some(Mib(16_000)));
        assert_eq!(mem_total(""), None);
    }

    #[test]
    fn this_host_has_something_of_each() {
        let host = read(Path::new("/")).expect("reads");
        assert!(host.cpus > 0 && host.memory.0 > 0 && host.disk.0 > 0, "{host:?}");
    }
}
