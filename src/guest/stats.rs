//! What this guest uses, as its kernel says: files of /proc (proc(5)), and the file system at `/`. What a kernel does not have, or
//! writes in another way, is left out.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{major, minor, statvfs};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::proto::stats::GuestStats;

/// What /proc/stat counts in (time(7), USER_HZ: 100 on all that Linux runs on today).
const TICK_MS: u64 = 10;
/// What /proc/diskstats counts in (Documentation/admin-guide/iostats.rst).
const SECTOR: u64 = 512;

pub fn read() -> GuestStats {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (stat, meminfo) = (text("/proc/stat"), text("/proc/meminfo"));
    let (cpu_busy_ms, cpus) = cpu(&stat);
    let disk = statvfs("/").ok();
    let io = fs::metadata("/").ok().and_then(|root| {
        let device = root.dev();
        transferred(&text("/proc/diskstats"), major(device), minor(device))
    });
    let net = traffic(&text("/proc/net/dev"));
    GuestStats {
        at_ms: ns(clock_gettime(ClockId::Boottime)) / 1_000_000,
        clock_ns: ns(clock_gettime(ClockId::Realtime)),
        cpus,
        cpu_busy_ms,
        load_hundredths: load(&text("/proc/loadavg")),
        processes: processes(),
        memory_bytes: amount(&meminfo, "MemTotal"),
        memory_available_bytes: amount(&meminfo, "MemAvailable"),
        disk_bytes: disk.as_ref().map(|fs| fs.f_blocks.saturating_mul(fs.f_frsize)),
        disk_free_bytes: disk.as_ref().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize)),
        disk_read_bytes: io.map(|(read, _)| read),
        disk_written_bytes: io.map(|(_, written)| written),
        net_received_bytes: net.map(|(received, _)| received),
        net_sent_bytes: net.map(|(_, sent)| sent),
    }
}

fn ns(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000) + time.tv_nsec.unsigned_abs()
}

/// CPU time that was neither idle, nor waiting, nor another machine's; and how many CPUs there are.
fn cpu(stat: &str) -> (Option<u64>, Option<u32>) {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let ticks = |line: &str| -> Option<u64> {
        let fields: Vec<u64> = line.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
        // user nice system idle iowait irq softirq; time in guests of its own is part of user.
        let [user, nice, system, _, _, irq, softirq] = *fields.first_chunk()?;
        [user, nice, system, irq, softirq].into_iter().try_fold(0u64, u64::checked_add)
    };
    let busy = all.and_then(ticks).map(|ticks| ticks.saturating_mul(TICK_MS));
    let is_one =
        |line: &&str| line.strip_prefix("cpu").is_some_and(|l| l.starts_with(|c: char| c.is_ascii_digit()));
    let count = stat.lines().filter(is_one).count();
    (busy, u32::try_from(count).ok().filter(|count| *count > 0))
}

/// An amount of /proc/meminfo, in bytes.
fn amount(meminfo: &str, name: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn load(loadavg: &str) -> Option<[u32; 3]> {
    let hundredths = |word: &str| {
        let (whole, part) = word.split_once('.')?;
        let part = part.get(..2)?.parse::<u32>().ok()?;
        whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(part)
    };
    let mut words = loadavg.split_ascii_whitespace().map(hundredths);
    Some([words.next()??, words.next()??, words.next()??])
}

fn processes() -> Option<u32> {
    let is_one = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let entries = fs::read_dir("/proc").ok()?;
    u32::try_from(entries.flatten().filter(|entry| is_one(&entry.file_name())).count()).ok()
}

/// Bytes read and written of the device with this number.
fn transferred(diskstats: &str, major: u32, minor: u32) -> Option<(u64, u64)> {
    diskstats.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let number = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        if number != (major, minor) {
            return None;
        }
        // name, reads, merged, sectors, ms, writes, merged, sectors
        let read: u64 = fields.nth(3)?.parse().ok()?;
        let written: u64 = fields.nth(3)?.parse().ok()?;
        Some((read.saturating_mul(SECTOR), written.saturating_mul(SECTOR)))
    })
}

/// Bytes received and sent by all interfaces but the loopback. None without such a table.
fn traffic(dev: &str) -> Option<(u64, u64)> {
    let mut sum = (0u64, 0u64);
    // Two lines of headings.
    let mut lines = dev.lines().skip(1);
    lines.next()?;
    for line in lines {
        let Some((name, counters)) = line.split_once(':') else { continue };
        let mut counters = counters.split_ascii_whitespace().map(str::parse::<u64>);
        if let (false, Some(Ok(received)), Some(Ok(sent))) =
            (name.trim() == "lo", counters.next(), counters.nth(7))
        {
            sum = (sum.0.saturating_add(received), sum.1.saturating_add(sent));
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_says_is_read() {
        let stat = "cpu  100 5 50 9000 77 3 2 40 0 0\ncpu0 50 0 0 0 0 0 0\ncpu1 50 0 0 0 0 0 0\nintr 1 2\n";
        assert_eq!(cpu(stat), (Some(1600), Some(2)));
        let meminfo = "MemTotal:         500 kB\nMemAvailable:     200 kB\n";
        assert_eq!(amount(meminfo, "MemTotal"), Some(512_000));
        assert_eq!(load("1.53 0.07 10.00 2/99 4711\n"), Some([153, 7, 1000]));
        let disks = " 254 0 vda 1 0 8 1 0 0 0 0\n 253       0 dm-0 10 2 100 5 20 3 40 6 0 7 8\n";
        assert_eq!(transferred(disks, 253, 0), Some((51_200, 20_480)));
        let dev = "Inter-|   Receive                   |  Transmit\n face |bytes ...\n\
                   \x20   lo: 900 1 0 0 0 0 0 0 900 1 0 0 0 0 0 0\n  eth0:1000 1 0 0 0 0 0 0 200 2 0 0 0 0 0 0\n\
                   \x20 eth1: 1 1 0 0 0 0 0 0 2 2 0 0 0 0 0 0\n";
        assert_eq!(traffic(dev), Some((1001, 202)));
    }

    #[test]
    fn what_is_missing_or_strange_is_left_out() {
        for text in ["", "cpu", "cpu  1 2 3", "cpu  a b c d e f g", "cpu  18446744073709551615 1 1 1 1 1 1"] {
            assert_eq!(cpu(text), (None, None), "{text}");
        }
        assert_eq!(amount("MemTotal: lots\n", "MemTotal"), None);
        assert_eq!(amount("MemTotalX: 1 kB\n", "MemTotal"), None);
        for text in ["", "1.5 1.5 1.5", "1.50 1.50", "99999999999.00 1.00 1.00"] {
            assert_eq!(load(text), None, "{text}");
        }
        for text in ["", "253 0", "253 0 dm-0 1 2 3", "253 0 dm-0 1 2 x 4 5 6 7"] {
            assert_eq!(transferred(text, 253, 0), None, "{text}");
        }
        assert_eq!(traffic(""), None);
        assert_eq!(traffic("a\nb\n eth0: 1 2\nnonsense\n"), Some((0, 0)));
    }

    #[test]
    fn this_machine_has_some_of_each() {
        let read = read();
        assert!(read.at_ms > 0 && read.clock_ns > 1_000_000_000_000_000_000, "{read:?}");
        assert!(read.cpus.is_some_and(|n| n > 0) && read.cpu_busy_ms.is_some_and(|ms| ms > 0), "{read:?}");
        assert!(read.memory_bytes > read.memory_available_bytes && read.processes > Some(0), "{read:?}");
        assert!(read.disk_bytes >= read.disk_free_bytes && read.net_sent_bytes.is_some(), "{read:?}");
    }
}
