//! Room for VMs: disk and memory against what a VM takes that nobody chose a size for.

use std::io;
use std::path::Path;

use rustix::fs::StatVfsMountFlags;

use crate::daemon::Daemon;
use crate::daemon::fault::chain;
use crate::host::facts;
use crate::proto::finding::Finding;
use crate::vm::size::Mib;
use crate::vm::spec::{BadSpec, MEMORY_FLOOR, Spec, Wish};

/// Less than this holds neither a VM's logs and records nor the daemon's own.
const LEAST_DISK: Mib = Mib(64);

/// Free room in a file system.
#[derive(Debug, Clone, Copy)]
struct Room {
    free: Mib,
    files: u64,
    read_only: bool,
}

pub fn rows(d: &Daemon) -> Vec<Finding> {
    let defaults = &d.config.vm_defaults;
    let spec = match facts::read(&d.dirs.state) {
        Ok(host) => defaults.fill(Wish::default()).settle(&host, Mib(0)),
        Err(e) => {
            return vec![Finding::fail("vm defaults", "this host's size cannot be read", format!("{e}."))];
        }
    };
    let chosen: Vec<&str> = [
        ("vcpu", defaults.vcpu.is_some()),
        ("memory", defaults.memory.is_some()),
        ("disk_size", defaults.disk.is_some()),
    ]
    .into_iter()
    .filter_map(|(key, set)| set.then_some(key))
    .collect();
    let mut rows =
        vec![vm_defaults(&spec, &chosen), disk(&d.dirs.state, look(&d.dirs.state), spec.as_ref().ok())];
    if !on_one_file_system(&d.dirs.state, &d.dirs.cache) {
        rows.push(disk(&d.dirs.cache, look(&d.dirs.cache), None));
    }
    rows.push(memory(available(), spec.as_ref().ok()));
    rows
}

/// `chosen`: the keys of the configuration that say so.
fn vm_defaults(spec: &Result<Spec, BadSpec>, chosen: &[&str]) -> Finding {
    let subject = "vm defaults";
    match spec {
        Ok(spec) if chosen.is_empty() => Finding::pass(subject, format!("{spec}, by this host's size")),
        Ok(spec) => Finding::pass(subject, format!("{spec}; {} by config.toml", chosen.join(", "))),
        Err(e) => Finding::fail(
            subject,
            format!("no VM of the default size can be made: {e}"),
            "Correct [vm_defaults] in config.toml, then `banger daemon stop`.",
        ),
    }
}

fn look(directory: &Path) -> io::Result<Room> {
    let fs = rustix::fs::statvfs(directory)?;
    Ok(Room {
        free: Mib(fs.f_bavail.saturating_mul(fs.f_frsize) >> 20),
        // A file system that makes them as it goes, such as btrfs, says that it has none.
        files: if fs.f_files == 0 { u64::MAX } else { fs.f_favail },
        read_only: fs.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}

fn disk(directory: &Path, room: io::Result<Room>, spec: Option<&Spec>) -> Finding {
    let (subject, place) = ("disk", directory.display());
    let make_room =
        "`banger vm delete`, `banger image delete` and `banger image cache prune` give room back.";
    match room {
        Err(e) => Finding::fail(
            subject,
            format!("cannot look at {place}: {e}"),
            "Make it again, and start the daemon again.",
        ),
        Ok(Room { read_only: true, .. }) => Finding::fail(
            subject,
            format!("{place} is on a file system that is mounted read-only"),
            "The kernel does so after an error of the disk, which `dmesg` shows; mount it writable.",
        ),
        Ok(Room { files: 0, .. }) => {
            Finding::fail(subject, format!("{place} is on a file system that takes no more files"), make_room)
        }
        Ok(Room { free, .. }) if free < LEAST_DISK => {
            Finding::fail(subject, format!("{free} free in {place}: nothing can be written"), make_room)
        }
        Ok(Room { free, .. }) => match spec {
            Some(spec) if free < spec.disk => Finding::warn(
                subject,
                format!("{free} free in {place}, and a VM's disk may grow to {}", spec.disk),
                format!("VMs run, and find no room for all that they may write. {make_room}"),
            ),
            Some(_) | None => Finding::pass(subject, format!("{free} free in {place}")),
        },
    }
}

fn on_one_file_system(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    device(one) == device(other)
}

/// What can be had without pushing others to the swap (proc(5), /proc/meminfo, MemAvailable).
fn available() -> io::Result<Mib> {
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    facts::meminfo(&meminfo, "MemAvailable")
        .ok_or_else(|| io::Error::other("/proc/meminfo has no MemAvailable"))
}

fn memory(available: io::Result<Mib>, spec: Option<&Spec>) -> Finding {
    let subject = "memory";
    let advice = "Stop VMs or other programs, or set `memory` in [vm_defaults] of config.toml.";
    match (available, spec) {
        (Err(e), _) => Finding::warn(subject, format!("cannot be read: {}", chain(&e)), "Is /proc mounted?"),
        (Ok(has), _) if has < MEMORY_FLOOR => {
            Finding::fail(subject, format!("{has} free: no VM finds room"), advice)
        }
        (Ok(has), Some(spec)) if has < spec.memory => {
            Finding::warn(subject, format!("{has} free, and a VM takes up to {}", spec.memory), advice)
        }
        (Ok(has), _) => Finding::pass(subject, format!("{has} free")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::spec::Host;

    fn spec() -> Spec {
        let host = Host { cpus: 8, memory: Mib(8192), disk: Mib(100_000) };
        Wish::default().settle(&host, Mib(0)).expect("fits")
    }

    #[test]
    fn the_default_vm_is_named_with_who_chose_it() {
        assert_eq!(
            vm_defaults(&Ok(spec()), &[]).line(),
            "Pass vm defaults: 2 vcpu · 1024 MiB · 8 GiB disk, by this host's size"
        );
        assert!(vm_defaults(&Ok(spec()), &["memory"]).line().ends_with("; memory by config.toml"));
        let bad = vm_defaults(&Err(BadSpec::MemoryBelow { asked: Mib(1) }), &["memory"]).line();
        assert!(
            bad.starts_with("Fail vm defaults: no VM of the default size can be made: 1 MiB of memory"),
            "{bad}"
        );
    }

    #[test]
    fn a_disk_is_judged_by_what_a_vm_may_write() {
        let row = |free: u64, files: u64, read_only: bool| {
            disk(Path::new("/s"), Ok(Room { free: Mib(free), files, read_only }), Some(&spec())).line()
        };
        assert_eq!(row(20_000, 9, false), "Pass disk: 20000 MiB free in /s");
        assert!(
            row(8191, 9, false)
                .starts_with("Warn disk: 8191 MiB free in /s, and a VM's disk may grow to 8 GiB")
        );
        assert!(row(63, 9, false).starts_with("Fail disk: 63 MiB free in /s: nothing can be written"));
        assert!(
            row(20_000, 0, false).starts_with("Fail disk: /s is on a file system that takes no more files")
        );
        assert!(
            row(20_000, 9, true).starts_with("Fail disk: /s is on a file system that is mounted read-only")
        );
        let gone = disk(Path::new("/s"), Err(io::ErrorKind::NotFound.into()), None).line();
        assert!(gone.starts_with("Fail disk: cannot look at /s: "), "{gone}");
        look(Path::new("/no/such/place")).expect_err("is not there");
        assert!(look(Path::new("/")).expect("is there").files > 0);
    }

    #[test]
    fn memory_is_judged_by_the_default_vm() {
        let row = |mib| memory(Ok(Mib(mib)), Some(&spec())).line();
        assert_eq!(row(4096), "Pass memory: 4 GiB free");
        assert!(row(1000).starts_with("Warn memory: 1000 MiB free, and a VM takes up to 1 GiB"));
        assert!(row(100).starts_with("Fail memory: 100 MiB free: no VM finds room"));
        assert!(available().expect("reads").0 > 0);
    }
}
