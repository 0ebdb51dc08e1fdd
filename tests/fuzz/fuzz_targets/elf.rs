//! ELF files with sections and notes of few kinds, and lies in their headers.

use arbitrary::Arbitrary;

#[derive(Arbitrary, Debug)]
pub struct Elf {
    arm: bool,
    note: bool,
    sections: Vec<Section>,
    /// Where, and what is put there.
    lies: Vec<(u16, u8)>,
}

#[derive(Arbitrary, Debug)]
struct Section {
    name: u8,
    kind: u8,
    flags: u8,
    align: u8,
    content: Vec<u8>,
    /// It is the section's before it, too.
    shared: bool,
}

const NAMES: [&str; 9] =
    [".modinfo", ".strtab", ".rodata", ".BTF", ".comment", ".debug_info", ".rela.debug_info", ".text", ""];
/// Section and program headers, in bytes.
const SECTION: usize = 64;
const SEGMENT: usize = 56;

impl Elf {
    /// With `text` in a section of its own. The headers come last, and so are behind what the lies are about most often.
    pub fn bytes(&self, text: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64];
        let names: Vec<u8> =
            NAMES.iter().flat_map(|name| name.bytes().chain([0])).chain(*b".shstrtab\0").collect();
        let mut headers = vec![0; SECTION];
        let mut last = (file.len(), 0);
        let mut put = |name: usize, kind: u8, flags: u8, align: u8, content: &[u8], shared: bool| {
            if !shared {
                last = (file.len(), content.len());
                file.extend(content);
            }
            let mut header = [0; SECTION];
            let at = NAMES.iter().take(name).map(|name| name.len() + 1).sum::<usize>();
            header[..4].copy_from_slice(&(at as u32).to_le_bytes());
            (header[4], header[8], header[0x30]) = (kind, flags, align);
            header[0x18..0x20].copy_from_slice(&(last.0 as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(last.1 as u64).to_le_bytes());
            headers.extend(header);
        };
        put(2, 1, 0, 1, text, false);
        for Section { name, kind, flags, align, content, shared } in &self.sections {
            put(usize::from(*name) % NAMES.len(), *kind, *flags, *align, content, *shared);
        }
        put(NAMES.len(), 3, 0, 1, &names, false);
        let count = headers.len() / SECTION;
        // XEN_ELFNOTE_PHYS32_ENTRY.
        let note: &[u8] = if self.note { b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\0\0\0\0" } else { b"" };
        let mut segment = [0; SEGMENT];
        segment[0] = 4;
        segment[8..16].copy_from_slice(&(file.len() as u64).to_le_bytes());
        segment[0x20] = note.len() as u8;
        file.extend(note);
        file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
        file[0x12] = if self.arm { 183 } else { 62 };
        let (phoff, shoff) = (file.len() as u64, (file.len() + SEGMENT) as u64);
        file[0x20..0x28].copy_from_slice(&phoff.to_le_bytes());
        file[0x28..0x30].copy_from_slice(&shoff.to_le_bytes());
        (file[0x36], file[0x38], file[0x3a]) = (SEGMENT as u8, 1, SECTION as u8);
        file[0x3c..0x3e].copy_from_slice(&(count as u16).to_le_bytes());
        file[0x3e..0x40].copy_from_slice(&(count as u16 - 1).to_le_bytes());
        file.extend(segment);
        file.extend(headers);
        for (at, byte) in &self.lies {
            // From the end, where the headers are, or from the start.
            let at = usize::from(*at / 2) % file.len();
            let at = if at.is_multiple_of(2) { at } else { file.len() - 1 - at };
            file[at] = *byte;
        }
        file
    }
}
