//! `vm stats`: what a guest uses by its agent's word, and what its VMM uses by this host's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::daemon::agent::AgentError;
use crate::daemon::dial::dial;
use crate::daemon::fault::Fault;
use crate::daemon::guest::{another_answer, running};
use crate::daemon::guest_text::harmless;
use crate::daemon::{Daemon, Shared, blocking, machine, vms};
use crate::host::process;
use crate::network::names::TapName;
use crate::proto::agent::{Answer, Request};
use crate::proto::api::{StatsView, VmStats};
use crate::proto::stats::{GuestStats, VmmStats};
use crate::vm::record::VmRecord;
use crate::vmm::Channel;

/// How long a guest may take, where nobody says.
const PATIENCE: Duration = Duration::from_secs(5);
/// And the longest that anybody may say.
const LONGEST: Duration = Duration::from_secs(600);

/// Looks at both. A guest that does not answer leaves a gap, and why.
///
/// # Errors
/// The VM has no processes.
pub async fn stats(d: &Shared, wanted: &VmStats) -> Result<StatsView, Fault> {
    let record = vms::find(d, &wanted.vm)?;
    let reached = match running(d, &record.id.to_string()) {
        Err(fault) if record.state.processes().is_none() => return Err(fault),
        reached => reached,
    };
    let within = wanted.within_ms.map_or(PATIENCE, patience);
    let vmm = blocking(d, move |d| vmm(d, &record)).await;
    let guest = match reached {
        Ok((_, channel)) => guest(&channel, within).await,
        Err(fault) => Err(fault),
    };
    let (guest, problem) = match guest {
        Ok(guest) => (Some(guest), None),
        Err(fault) => (None, Some(harmless(&fault.message, 300))),
    };
    Ok(StatsView { guest, vmm, problem })
}

/// What was asked for, within reason.
pub fn patience(ms: u64) -> Duration {
    Duration::from_millis(ms).clamp(Duration::from_millis(1), LONGEST)
}

/// What the guest's agent says.
pub async fn guest(channel: &Channel, within: Duration) -> Result<GuestStats, Fault> {
    match dial(channel, &Request::Stats, within).await {
        Ok((Answer::Stats(stats), _)) => Ok(*stats),
        Ok(_) => Err(another_answer()),
        Err(e @ AgentError::Refused(_)) => {
            Err(Fault::failed("its agent is of an older banger, and tells nothing; restart the VM", &e))
        }
        Err(e) => Err(e.into()),
    }
}

/// What this host says; None if the VMM has ended.
pub fn vmm(d: &Daemon, record: &VmRecord) -> Option<VmmStats> {
    let process = record.state.processes()?.vmm;
    let used = match process::used(process) {
        Ok(used) => used?,
        Err(e) => {
            log::warn!("cannot look at process {}: {e}", process.pid);
            return None;
        }
    };
    let text = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", process.pid)).unwrap_or_default();
    let io = text("io");
    let directory = d.dirs.vm(record.id);
    // What the tap receives, the guest has sent.
    let tap = Path::new("/sys/class/net").join(TapName::of(record.id).to_string()).join("statistics");
    let counter = |name: &str| fs::read_to_string(tap.join(name)).ok()?.trim().parse().ok();
    let now = clock_gettime(ClockId::Boottime);
    Some(VmmStats {
        at_ms: now.tv_sec.unsigned_abs() * 1_000 + now.tv_nsec.unsigned_abs() / 1_000_000,
        pid: process.pid,
        cpu_ms: Some(used.cpu.as_millis() as u64),
        memory_bytes: resident(&text("status")),
        disk_read_bytes: field(&io, "read_bytes"),
        disk_written_bytes: field(&io, "write_bytes"),
        disk_bytes: [machine::COW, machine::COPY]
            .iter()
            .find_map(|name| fs::metadata(directory.join(name)).ok())
            .map(|disk| disk.blocks().saturating_mul(512)),
        net_received_bytes: counter("tx_bytes"),
        net_sent_bytes: counter("rx_bytes"),
    })
}

/// Of /proc/pid/status: `VmRSS:  4 kB`.
fn resident(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Of /proc/pid/io: `read_bytes: 4096`.
fn field(io: &str, name: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_a_process_is_read() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t       4 kB\n"), Some(4096));
        let io = "rchar: 1\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 1\n";
        assert_eq!((field(io, "read_bytes"), field(io, "write_bytes")), (Some(4096), Some(8192)));
        for text in ["", "VmRSS:", "VmRSS: x kB", "VmRSS: 18446744073709551615 kB"] {
            assert_eq!((resident(text), field(text, "read_bytes")), (None, None));
        }
    }

    #[test]
    fn patience_has_bounds() {
        assert_eq!(patience(0), Duration::from_millis(1));
        assert_eq!(patience(u64::MAX), LONGEST);
    }
}
