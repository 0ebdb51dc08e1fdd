//! Which QEMU it is, and what is known to be wrong with it.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::host::cmd::{self, CmdError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

/// The first with all that its command line is given: `-M microvm,acpi=on` (QEMU's changelog, 5.2).
pub const OLDEST: Version = Version { major: 5, minor: 2, patch: 0 };

/// What a guest of ours can do to its QEMU, if nobody has mended it: distributions mend versions that they do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// CVE-2021-3748: a guest has virtio-net write to memory that it no more has (fixed in 6.2.0).
    NetUseAfterUnmap,
    /// CVE-2022-26353: the fix of the former leaks memory on errors (6.2.0; fixed in 7.0.0).
    NetLeak,
    /// CVE-2022-26354: a guest has vhost-vsock leak memory (fixed in 7.0.0).
    VsockLeak,
}

/// How long it may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `program --version`. The inner error is what it said instead of a version.
pub fn ask(program: &Path) -> Result<Result<Version, String>, CmdError> {
    let env = [("PATH", cmd::PATH), ("LC_ALL", "C")];
    let out = cmd::run_fed(program, &["--version"], &env, b"", PATIENCE)?;
    let said = String::from_utf8_lossy(&out.stdout);
    let first: String = said.lines().next().unwrap_or_default().chars().take(80).collect();
    Ok(parse(&first).ok_or(first))
}

/// Reads `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`.
pub fn parse(line: &str) -> Option<Version> {
    let number = line.strip_prefix("QEMU emulator version ")?;
    let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
    let mut parts = number[..end].split('.').map(str::parse);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) => Some(Version { major, minor, patch }),
        _ => None,
    }
}

/// All that is known to be wrong with `version`.
pub fn faults(version: Version) -> Vec<Fault> {
    let v = |major, minor| Version { major, minor, patch: 0 };
    // From the first that has it to the first that has it no more.
    let table = [
        (Fault::NetUseAfterUnmap, v(0, 0), v(6, 2)),
        (Fault::NetLeak, v(6, 2), v(7, 0)),
        (Fault::VsockLeak, v(0, 0), v(7, 0)),
    ];
    table
        .into_iter()
        .filter(|(_, first, fixed)| *first <= version && version < *fixed)
        .map(|row| row.0)
        .collect()
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetUseAfterUnmap => "a guest can break out through its network (CVE-2021-3748)",
            Self::NetLeak => "a guest can use up memory through its network (CVE-2022-26353)",
            Self::VsockLeak => "a guest can use up memory through its vsock (CVE-2022-26354)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u32, minor: u32, patch: u32) -> Version {
        Version { major, minor, patch }
    }

    #[test]
    fn a_version_is_read_from_what_the_program_says() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)";
        assert_eq!(parse(debian), Some(version(7, 2, 22)));
        assert_eq!(parse("QEMU emulator version 10.1.0"), Some(version(10, 1, 0)));
        for bad in
            ["", "QEMU emulator version", "QEMU emulator version 7", "QEMU emulator version x.y.z", "7.2.0"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert!(version(10, 0, 0) > OLDEST && version(5, 1, 9) < OLDEST);
    }

    #[test]
    fn every_version_has_its_faults_with_their_witnesses() {
        use Fault as F;
        assert_eq!(faults(version(5, 2, 0)), [F::NetUseAfterUnmap, F::VsockLeak]);
        assert_eq!(faults(version(6, 1, 1)), [F::NetUseAfterUnmap, F::VsockLeak]);
        assert_eq!(faults(version(6, 2, 0)), [F::NetLeak, F::VsockLeak]);
        assert_eq!(faults(version(7, 0, 0)), []);
        assert_eq!(faults(version(10, 0, 3)), []);
        for fault in [F::NetUseAfterUnmap, F::NetLeak, F::VsockLeak] {
            assert!(fault.to_string().contains("(CVE-202"), "{fault}");
        }
    }
}
