//! Modules for the initramfs without what loading them does not need: their signature, their type information, and the name
//! of their compiler.
//!
//! Under emulation this is time. A kernel parses its own type information, megabytes, when the first module with some is
//! loaded (kernel: kernel/bpf/btf.c, btf_parse_module), and checks each signature with RSA. Guests do not ask for signatures
//! (lockdown is off in them); the only trace is the taint flag E, which a kernel that cannot find the key sets anyway.

use crate::kernel::elf::{BadElf, Elf, PHNUM, PHOFF, SECTION_HEADER, SHF_ALLOC, SHOFF, SHT_NULL};

/// Returns the module `bytes` without needless sections and without what follows the last one. Sections keep their numbers,
/// which symbols and relocations refer to.
pub fn slim(bytes: &[u8]) -> Result<Vec<u8>, BadElf> {
    let elf = Elf::parse(bytes)?;
    let mut out = bytes.get(..64).ok_or(BadElf::NotElf)?.to_vec();
    // A module has no segments; what a strange one has, the kernel's loader does not look at (kernel/module/main.c).
    out[PHOFF..PHOFF + 8].fill(0);
    out[PHNUM..PHNUM + 2].fill(0);
    let table = u64::from_le_bytes(bytes[SHOFF..SHOFF + 8].try_into().map_err(|_| BadElf::Damaged)?);
    let table = usize::try_from(table).map_err(|_| BadElf::Damaged)?;
    let length = elf.sections().len() * SECTION_HEADER;
    let mut headers = bytes.get(table..table.saturating_add(length)).ok_or(BadElf::Damaged)?.to_vec();
    // Sections share nothing in the file; thousands that did would become as many times the file.
    let mut left = bytes.len();
    for (section, header) in elf.sections().iter().zip(headers.chunks_exact_mut(SECTION_HEADER)) {
        if section.kind == SHT_NULL {
            continue;
        }
        left = left.checked_sub(section.bytes.len()).ok_or(BadElf::Damaged)?;
        let content = if needless(section.name, section.flags) { &[] } else { section.bytes };
        if content.is_empty() && !section.bytes.is_empty() {
            header[0x20..0x28].copy_from_slice(&0u64.to_le_bytes());
        }
        let align = section.align.clamp(1, 4096).next_power_of_two() as usize;
        out.resize(out.len().next_multiple_of(align), 0);
        header[0x18..0x20].copy_from_slice(&(out.len() as u64).to_le_bytes());
        out.extend_from_slice(content);
    }
    out.resize(out.len().next_multiple_of(8), 0);
    let table = out.len() as u64;
    out[SHOFF..SHOFF + 8].copy_from_slice(&table.to_le_bytes());
    out.extend(headers);
    Ok(out)
}

fn needless(name: &str, flags: u64) -> bool {
    // Debug sections and their relocations; Debian's packages hold none, self-made kernels do.
    let debug = [".debug_", ".rela.debug_"].iter().any(|prefix| name.starts_with(prefix));
    debug && flags & SHF_ALLOC == 0 || matches!(name, ".BTF" | ".comment")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::elf::tests::elf;
    use crate::kernel::modinfo::tests::module;

    #[test]
    fn what_loading_needs_is_kept_and_the_rest_goes() {
        let signed = [&module(&["depends="])[..], b"signature~Module signature appended~\n"].concat();
        let slim = slim(&signed).expect("an ELF file");
        assert!(slim.len() + 64 <= signed.len());
        let (before, after) = (Elf::parse(&signed).expect("parses"), Elf::parse(&slim).expect("parses"));
        let names = |elf: &Elf<'_>| elf.sections().iter().map(|s| s.name.to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&after), names(&before));
        assert_eq!(after.section(".modinfo"), before.section(".modinfo"));
        assert_eq!(after.section(".BTF"), b"");
        assert!(!slim.ends_with(b"appended~\n"));
    }

    #[test]
    fn a_module_whose_sections_are_all_the_same_bytes_does_not_grow() {
        let mut file = elf(&[(".text", &[7; 10_000]), (".data", b"x")], &[]);
        let headers = file.len() - 4 * SECTION_HEADER;
        let text = file[headers + SECTION_HEADER..][..SECTION_HEADER].to_vec();
        file[headers + 2 * SECTION_HEADER..][0x18..0x28].copy_from_slice(&text[0x18..0x28]);
        assert_eq!(slim(&file), Err(BadElf::Damaged));
    }

    proptest! {
        #[test]
        fn a_damaged_module_never_panics(at in 0usize..700, value in any::<u8>()) {
            let mut file = module(&["depends="]);
            if let Some(byte) = file.get_mut(at) {
                *byte = value;
            }
            let _ = slim(&file);
        }
    }
}
