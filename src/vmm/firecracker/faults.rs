//! Versions of Firecracker with faults that let a guest out, or let its guests down.

use std::fmt;

use crate::vmm::firecracker::version::Version;

/// What is wrong with a version. Its Display is a sentence that says what to install.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// CVE-2026-1386: the jailer, as root, writes Firecracker's binary through a symlink or a hard link that stands at its
    /// destination (fixed by firecracker#5631, in 1.13.2, 1.14.1 and 1.15.0).
    JailerSymlink,
    /// CVE-2019-18960: a guest reads and writes memory of its Firecracker beyond a vsock descriptor's buffer.
    VsockBounds,
    /// firecracker#5958: a guest restored from a snapshot cannot open vsock connections (fixed in 1.16.1).
    VsockAfterRestore,
}

/// All that is known to be wrong with `version`.
pub fn faults(version: Version) -> Vec<Fault> {
    let v = |major, minor, patch| Version { major, minor, patch };
    // From the first that has it to the last, both included.
    let table = [
        (Fault::VsockBounds, v(0, 18, 0), v(0, 19, 0)),
        (Fault::JailerSymlink, v(0, 0, 0), v(1, 13, 1)),
        (Fault::JailerSymlink, v(1, 14, 0), v(1, 14, 0)),
        (Fault::VsockAfterRestore, v(1, 16, 0), v(1, 16, 0)),
    ];
    table.into_iter().filter(|(_, first, last)| (first..=last).contains(&&version)).map(|row| row.0).collect()
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JailerSymlink => {
                "its jailer can be made to overwrite files as root (CVE-2026-1386); install Firecracker 1.13.2, 1.14.1, or 1.15 and \
                 later"
            }
            Self::VsockBounds => {
                "a guest can break out through its vsock device (CVE-2019-18960); install Firecracker 1.15 or later"
            }
            Self::VsockAfterRestore => {
                "guests lose their vsock when they are restored (firecracker#5958); install Firecracker 1.16.1 or later"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_has_its_faults() {
        use Fault as F;
        type Row = ((u32, u32, u32), &'static [Fault]);
        let table: [Row; 12] = [
            ((0, 18, 0), &[F::VsockBounds, F::JailerSymlink]),
            ((0, 19, 0), &[F::VsockBounds, F::JailerSymlink]),
            ((0, 19, 1), &[F::JailerSymlink]),
            ((1, 5, 0), &[F::JailerSymlink]),
            ((1, 13, 1), &[F::JailerSymlink]),
            ((1, 13, 2), &[]),
            ((1, 14, 0), &[F::JailerSymlink]),
            ((1, 14, 1), &[]),
            ((1, 15, 0), &[]),
            ((1, 16, 0), &[F::VsockAfterRestore]),
            ((1, 16, 1), &[]),
            ((1, 17, 0), &[]),
        ];
        for ((major, minor, patch), want) in table {
            assert_eq!(faults(Version { major, minor, patch }), want, "{major}.{minor}.{patch}");
        }
    }

    #[test]
    fn a_fault_names_its_witness_and_what_to_install() {
        for (fault, witness) in [
            (Fault::JailerSymlink, "CVE-2026-1386"),
            (Fault::VsockBounds, "CVE-2019-18960"),
            (Fault::VsockAfterRestore, "firecracker#5958"),
        ] {
            let text = fault.to_string();
            assert!(text.contains(witness) && text.contains("; install Firecracker 1.1"), "{text}");
        }
    }
}
