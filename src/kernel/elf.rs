//! ELF as far as kernels and their modules need it: 64-bit, little-endian (System V gABI, chapters 4 and 5).
//!
//! Input may be anything; whatever points outside the file is refused.

use std::fmt;

/// A parsed ELF file; names and contents borrow from it.
pub struct Elf<'a> {
    pub machine: Machine,
    sections: Vec<Section<'a>>,
    segments: Vec<Segment<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    X86_64,
    Aarch64,
}

/// A section with its contents; `bytes` is empty where the section has none in the file.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    pub name: &'a str,
    pub kind: u32,
    pub flags: u64,
    pub align: u64,
    pub bytes: &'a [u8],
}

struct Segment<'a> {
    kind: u32,
    align: u64,
    bytes: &'a [u8],
}

/// Why a file is no ELF that we can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadElf {
    NotElf,
    /// 32-bit, big-endian, or a machine that banger has no guests for.
    Foreign,
    /// An offset leaves the file.
    Damaged,
}

pub const MAGIC: &[u8] = b"\x7fELF";
/// Where the file header has the section header table's offset.
pub(super) const SHOFF: usize = 0x28;
/// Where it has the program header table's offset, and its number of entries.
pub(super) const PHOFF: usize = 0x20;
pub(super) const PHNUM: usize = 0x38;
pub(super) const SECTION_HEADER: usize = 64;
pub(super) const SHF_ALLOC: u64 = 2;
pub(super) const SHT_NULL: u32 = 0;
pub(super) const SHT_NOBITS: u32 = 8;
const PT_NOTE: u32 = 4;
/// More sections than any kernel or module has (a kernel has about 60, a module about 100), and more segments (a kernel has 5, a module none).
/// Each may be as long as the file.
const MAX_SECTIONS: u16 = 8192;
const MAX_SEGMENTS: u16 = 64;
/// The longest name of a section, in bytes: that of a function (kernel: KSYM_NAME_LEN), and what it is to the function.
const MAX_NAME: usize = 4096;

impl Machine {
    /// As images name it.
    pub fn arch(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }
}

impl<'a> Elf<'a> {
    /// Reads the headers of `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadElf> {
        let header = bytes.get(..64).ok_or(BadElf::NotElf)?;
        if !header.starts_with(MAGIC) {
            return Err(BadElf::NotElf);
        }
        if header[4] != 2 || header[5] != 1 {
            return Err(BadElf::Foreign);
        }
        let machine = match u16_at(header, 0x12)? {
            62 => Machine::X86_64,
            183 => Machine::Aarch64,
            _ => return Err(BadElf::Foreign),
        };
        Ok(Self { machine, sections: sections(bytes, header)?, segments: segments(bytes, header)? })
    }

    pub fn sections(&self) -> &[Section<'a>] {
        &self.sections
    }

    /// The contents of the first section of this name; empty if there is none.
    pub fn section(&self, name: &str) -> &'a [u8] {
        self.sections.iter().find(|s| s.name == name).map_or(&[], |s| s.bytes)
    }

    /// Whether a PT_NOTE segment holds a note of this owner and type.
    pub fn has_note(&self, owner: &str, kind: u32) -> bool {
        self.segments
            .iter()
            .filter(|s| s.kind == PT_NOTE)
            .any(|s| notes(s.bytes, s.align).any(|(o, k)| o == owner.as_bytes() && k == kind))
    }
}

fn sections<'a>(bytes: &'a [u8], header: &[u8]) -> Result<Vec<Section<'a>>, BadElf> {
    let (count, names) = (u16_at(header, 0x3c)?, u16_at(header, 0x3e)?);
    if count > MAX_SECTIONS {
        return Err(BadElf::Damaged);
    }
    let table = table(bytes, u64_at(header, SHOFF)?, count, u16_at(header, 0x3a)?, SECTION_HEADER)?;
    let content = |entry: &[u8]| match u32_at(entry, 4)? {
        SHT_NULL | SHT_NOBITS => Ok(&[][..]),
        _ => range(bytes, u64_at(entry, 0x18)?, u64_at(entry, 0x20)?),
    };
    let entries = || table.chunks_exact(SECTION_HEADER);
    let Some(names) = entries().nth(usize::from(names)) else {
        return if count == 0 { Ok(vec![]) } else { Err(BadElf::Damaged) };
    };
    let names = content(names)?;
    entries()
        .map(|entry| {
            let name = names.get(u32_at(entry, 0)? as usize..).ok_or(BadElf::Damaged)?;
            let end = name.iter().take(MAX_NAME).position(|b| *b == 0).ok_or(BadElf::Damaged)?;
            Ok(Section {
                name: std::str::from_utf8(&name[..end]).map_err(|_| BadElf::Damaged)?,
                kind: u32_at(entry, 4)?,
                flags: u64_at(entry, 8)?,
                align: u64_at(entry, 0x30)?,
                bytes: content(entry)?,
            })
        })
        .collect()
}

fn segments<'a>(bytes: &'a [u8], header: &[u8]) -> Result<Vec<Segment<'a>>, BadElf> {
    const ENTRY: usize = 56;
    let count = u16_at(header, PHNUM)?;
    if count > MAX_SEGMENTS {
        return Err(BadElf::Damaged);
    }
    table(bytes, u64_at(header, PHOFF)?, count, u16_at(header, 0x36)?, ENTRY)?
        .chunks_exact(ENTRY)
        .map(|entry| {
            Ok(Segment {
                kind: u32_at(entry, 0)?,
                align: u64_at(entry, 0x30)?,
                bytes: range(bytes, u64_at(entry, 8)?, u64_at(entry, 0x20)?)?,
            })
        })
        .collect()
}

/// A table of `count` headers of `size` bytes each, which must be the size we know.
fn table(bytes: &[u8], offset: u64, count: u16, size: u16, known: usize) -> Result<&[u8], BadElf> {
    if count == 0 {
        return Ok(&[]);
    }
    if usize::from(size) != known {
        return Err(BadElf::Damaged);
    }
    range(bytes, offset, u64::from(count) * known as u64)
}

/// Owner and type of each note; ends at the first one that does not fit.
fn notes(mut bytes: &[u8], align: u64) -> impl Iterator<Item = (&[u8], u32)> {
    let align = if align == 8 { 8 } else { 4 };
    std::iter::from_fn(move || {
        let (name, desc, kind) =
            (u32_at(bytes, 0).ok()? as usize, u32_at(bytes, 4).ok()? as usize, u32_at(bytes, 8).ok()?);
        let owner = bytes.get(12..12usize.checked_add(name)?)?;
        let desc_at = owner.len().checked_add(12)?.checked_next_multiple_of(align)?;
        let next = desc_at.checked_add(desc)?.checked_next_multiple_of(align)?;
        bytes = bytes.get(next..).unwrap_or_default();
        Some((owner.strip_suffix(b"\0").unwrap_or(owner), kind))
    })
}

fn range(bytes: &[u8], offset: u64, length: u64) -> Result<&[u8], BadElf> {
    let start = usize::try_from(offset).map_err(|_| BadElf::Damaged)?;
    let length = usize::try_from(length).map_err(|_| BadElf::Damaged)?;
    let end = start.checked_add(length).ok_or(BadElf::Damaged)?;
    bytes.get(start..end).ok_or(BadElf::Damaged)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, BadElf> {
    number(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, BadElf> {
    number(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, BadElf> {
    number(bytes, at).map(u64::from_le_bytes)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], BadElf> {
    bytes.get(at..at + N).and_then(|b| b.try_into().ok()).ok_or(BadElf::Damaged)
}

impl fmt::Display for BadElf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotElf => "it is no ELF file",
            Self::Foreign => "it is an ELF file, but not a 64-bit one for x86 or ARM",
            Self::Damaged => "it is an ELF file, but cut short or damaged",
        })
    }
}

impl std::error::Error for BadElf {}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A section to be made: its name, and its contents.
    pub type Made<'a> = (&'a str, &'a [u8]);

    /// An x86-64 ELF file with these sections (PROGBITS, not allocated) and one PT_NOTE segment of `notes`.
    pub fn elf(sections: &[Made<'_>], notes: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        let notes_at = file.len();
        file.extend(notes);
        let mut names = vec![0];
        let mut headers = vec![0; SECTION_HEADER];
        let with_names = [sections, &[(".shstrtab", &[][..])]].concat();
        for (name, content) in &with_names {
            let name_at = names.len() as u32;
            names.extend(name.bytes().chain([0]));
            let last = *name == ".shstrtab";
            let content = if last { &names[..] } else { content };
            let mut header = [0; SECTION_HEADER];
            header[..4].copy_from_slice(&name_at.to_le_bytes());
            header[4] = 1;
            header[0x18..0x20].copy_from_slice(&(file.len() as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(content.len() as u64).to_le_bytes());
            header[0x30] = 1;
            headers.extend(header);
            file.extend(content);
        }
        let shoff = file.len() as u64;
        file.extend(headers);
        file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
        file[0x10] = 1;
        file[0x12] = 62;
        file[0x20] = 64;
        file[SHOFF..SHOFF + 8].copy_from_slice(&shoff.to_le_bytes());
        (file[0x36], file[0x38], file[0x3a]) = (56, 1, 64);
        (file[0x3c], file[0x3e]) = (with_names.len() as u8 + 1, with_names.len() as u8);
        file[64] = PT_NOTE as u8;
        file[64 + 8..64 + 16].copy_from_slice(&(notes_at as u64).to_le_bytes());
        file[64 + 0x20..64 + 0x28].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        file
    }

    /// A note as it lies in a PT_NOTE segment.
    pub fn note(owner: &str, kind: u32, desc: &[u8]) -> Vec<u8> {
        let mut note = vec![];
        for n in [owner.len() as u32 + 1, desc.len() as u32, kind] {
            note.extend(n.to_le_bytes());
        }
        for part in [&[owner.as_bytes(), b"\0"].concat()[..], desc] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn sections_and_notes_are_found_by_name() {
        let notes = [note("GNU", 3, b"12345"), note("Xen", 18, &[0; 4])].concat();
        let file = elf(&[(".modinfo", b"name=a\0"), (".BTF", b"xyz")], &notes);
        let elf = Elf::parse(&file).expect("parses");
        assert_eq!(elf.machine.arch(), "amd64");
        assert_eq!(elf.section(".modinfo"), b"name=a\0");
        assert_eq!(elf.section(".none"), b"");
        assert!(elf.has_note("Xen", 18) && elf.has_note("GNU", 3));
        assert!(!elf.has_note("Xen", 3));
    }

    #[test]
    fn what_is_no_elf_or_a_foreign_one_is_said_so() {
        assert_eq!(Elf::parse(b"MZ").err(), Some(BadElf::NotElf));
        assert_eq!(Elf::parse(&[0; 100]).err(), Some(BadElf::NotElf));
        let mut file = elf(&[], &[]);
        file[4] = 1;
        assert_eq!(Elf::parse(&file).err(), Some(BadElf::Foreign));
        let file = elf(&[(".a", b"x")], &[]);
        assert_eq!(Elf::parse(&file[..file.len() - 1]).err(), Some(BadElf::Damaged));
    }

    proptest! {
        #[test]
        fn a_damaged_file_never_panics(
            at in 0usize..400,
            value in any::<u8>(),
            cut in 0usize..400,
        ) {
            let notes = note("Xen", 18, &[0; 4]);
            let mut file = elf(&[(".modinfo", b"name=a\0"), (".BTF", b"xyz")], &notes);
            if let Some(byte) = file.get_mut(at) {
                *byte = value;
            }
            file.truncate(cut.max(64));
            if let Ok(elf) = Elf::parse(&file) {
                elf.has_note("Xen", 18);
            }
        }
    }
}
