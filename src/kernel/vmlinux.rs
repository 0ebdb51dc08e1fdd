//! The kernel itself: an ELF file that VMMs start, as it was given or unpacked from a bzImage.

use std::io::Read;

use crate::kernel::bzimage;
use crate::kernel::elf::{Elf, MAGIC, Machine};
use crate::kernel::error::KernelError;
use crate::kernel::gather::MAX_LIST;

/// A kernel that guests can boot.
#[derive(Debug)]
pub struct Vmlinux {
    pub elf: Vec<u8>,
    /// As `uname -r` says in its guests.
    pub version: String,
    /// `amd64`, `arm64`.
    pub arch: &'static str,
}

/// XEN_ELFNOTE_PHYS32_ENTRY (Xen: xen/include/public/elfnote.h).
const PVH_ENTRY: u32 = 18;
/// What a kernel that carries its configuration has before and behind it (kernel: kernel/configs.c).
const CONFIG_START: &[u8] = b"IKCFG_ST";

impl Vmlinux {
    /// Takes the content of `file`, an ELF vmlinux or an x86 bzImage.
    pub fn open(bytes: Vec<u8>, file: &str) -> Result<Self, KernelError> {
        let name = || file.to_owned();
        let elf = if bytes.starts_with(MAGIC) {
            bytes
        } else {
            bzimage::unpack(&bytes).map_err(|source| KernelError::Image { file: name(), source })?
        };
        let parsed = Elf::parse(&elf).map_err(|source| KernelError::Elf { file: name(), source })?;
        let machine = parsed.machine;
        if machine == Machine::X86_64 && !parsed.has_note("Xen", PVH_ENTRY) {
            return Err(KernelError::NoPvh { file: name() });
        }
        let version = banner(&elf).ok_or_else(|| KernelError::NoVersion { file: name() })?;
        Ok(Self { elf, version, arch: machine.arch() })
    }

    /// The configuration that the kernel carries itself (CONFIG_IKCONFIG).
    pub fn config(&self) -> Option<String> {
        let start = find(&self.elf, CONFIG_START)? + CONFIG_START.len();
        let mut text = String::new();
        let mut packed = flate2::read::GzDecoder::new(self.elf.get(start..)?).take(MAX_LIST as u64);
        packed.read_to_string(&mut text).ok()?;
        Some(text)
    }
}

/// The version in `Linux version 6.1.0-56-cloud-amd64 (...`, if it is one that can be a directory's name.
fn banner(elf: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    let mut rest = elf;
    while let Some(at) = find(rest, BANNER) {
        rest = &rest[at + BANNER.len()..];
        let end = rest.iter().take(65).position(|b| *b == b' ').unwrap_or(0);
        let version = std::str::from_utf8(&rest[..end]).unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+' | b'~');
        if version.starts_with(|c: char| c.is_ascii_digit()) && version.bytes().all(plain) {
            return Some(version.to_owned());
        }
    }
    None
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = 0;
    while let Some(next) = bytes.get(at..)?.iter().position(|b| *b == first) {
        at += next;
        if bytes[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::bzimage::tests::{bzimage, gzip};
    use crate::kernel::elf::tests::{elf, note};

    /// An ELF kernel of this version, with the PVH note and with its configuration inside, if any.
    pub fn kernel(version: &str, config: Option<&str>) -> Vec<u8> {
        let text = format!("%s version %s\0Linux version %s\0Linux version {version} (x@y) #1\n\0");
        let config = config.map(|c| [CONFIG_START, &gzip(c.as_bytes()), b"IKCFG_ED"].concat());
        let data = [text.as_bytes(), &config.unwrap_or_default()].concat();
        elf(&[(".rodata", &data)], &note("Xen", PVH_ENTRY, &[0; 8]))
    }

    #[test]
    fn an_elf_kernel_and_a_bzimage_give_the_same() {
        let elf = kernel("6.1.0-56-cloud-amd64", Some("CONFIG_A=y\n"));
        for bytes in [elf.clone(), bzimage(&gzip(&elf))] {
            let vmlinux = Vmlinux::open(bytes, "x").expect("opens");
            assert_eq!(
                (&vmlinux.elf, vmlinux.version.as_str(), vmlinux.arch),
                (&elf, "6.1.0-56-cloud-amd64", "amd64")
            );
            assert_eq!(vmlinux.config().as_deref(), Some("CONFIG_A=y\n"));
        }
        assert_eq!(Vmlinux::open(kernel("6.1", None), "x").expect("opens").config(), None);
    }

    #[test]
    fn what_is_wrong_with_a_kernel_is_said_in_one_sentence() {
        let version = b"Linux version 6.1 (";
        let table = [
            (
                elf(&[(".rodata", version)], &[]),
                "has no PVH entry (ELF note Xen 18), which QEMU's microvm needs",
            ),
            (kernel("../../etc", None), "does not say which Linux version it is"),
            (b"MZ".to_vec(), "cannot take the kernel out of x"),
            (b"\x7fELF\x01".to_vec(), "cannot use the kernel in x"),
        ];
        for (bytes, want) in table {
            let error = Vmlinux::open(bytes, "x").expect_err(want).to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
            if magic {
                bytes.splice(0..0, *b"\x7fELF\x02\x01");
            }
            let _ = Vmlinux::open(bytes, "x");
        }
    }
}
