//! What a guest and its VMM have used: counters since their start, and sizes as they are now. Whoever wants rates takes two.
//!
//! A field is None where the kernel does not tell, or does not let whoever asked look.

use serde::{Deserialize, Serialize};

/// What a guest's kernel says. It comes from the guest, so any number may be a lie.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestStats {
    /// When this was read, on a clock that only goes forward: milliseconds since the guest's boot.
    pub at_ms: u64,
    /// The guest's clock, nanoseconds since 1970.
    pub clock_ns: u64,
    pub cpus: Option<u32>,
    /// CPU time that was not idle, of all CPUs together.
    pub cpu_busy_ms: Option<u64>,
    /// The load averages of 1, 5 and 15 minutes, in hundredths.
    pub load_hundredths: Option<[u32; 3]>,
    pub processes: Option<u32>,
    pub memory_bytes: Option<u64>,
    /// What programs could still have (proc(5), MemAvailable).
    pub memory_available_bytes: Option<u64>,
    /// The file system at `/`.
    pub disk_bytes: Option<u64>,
    pub disk_free_bytes: Option<u64>,
    /// Of the device at `/`.
    pub disk_read_bytes: Option<u64>,
    pub disk_written_bytes: Option<u64>,
    /// Of all interfaces but the loopback.
    pub net_received_bytes: Option<u64>,
    pub net_sent_bytes: Option<u64>,
}

/// What the host says of a VM's processes and files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VmmStats {
    /// When this was read, on a clock that only goes forward: milliseconds since the host's boot.
    pub at_ms: u64,
    pub pid: u32,
    /// CPU time of the VMM, in the guest and for it.
    pub cpu_ms: Option<u64>,
    /// Memory that it has of the host's (proc(5), VmRSS).
    pub memory_bytes: Option<u64>,
    /// What it read from and wrote to the host's disks (proc(5), /proc/pid/io).
    pub disk_read_bytes: Option<u64>,
    pub disk_written_bytes: Option<u64>,
    /// What the VM's own disk takes on the host's.
    pub disk_bytes: Option<u64>,
    /// Through its port of the bridge, where it has one.
    pub net_received_bytes: Option<u64>,
    pub net_sent_bytes: Option<u64>,
}
