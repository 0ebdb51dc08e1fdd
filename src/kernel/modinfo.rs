//! What a module says about itself: the section .modinfo, `key=value` strings that end with a zero byte
//! (kernel: include/linux/moduleparam.h, __MODULE_INFO), and the names it exports.

use crate::kernel::elf::{BadElf, Elf};

/// One module. Names are normalised: `-` is `_`, as everywhere in the kernel's own tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Module {
    /// Where it lies in the tree: `kernel/fs/overlayfs/overlay.ko`.
    pub path: String,
    pub name: String,
    /// Names of the modules that it needs itself, without those that they need.
    pub depends: Vec<String>,
    /// Whom it serves: device ids with wildcards, file systems (`fs-ext4`), ...
    pub aliases: Vec<String>,
    /// As written: `pre: crc32c`, `post: x`, or names alone.
    pub softdeps: Vec<String>,
    /// Symbols that other modules may use.
    pub exports: Vec<String>,
}

/// The most strings that are taken of one kind from one module; the largest alias tables have a few thousand.
const MAX_STRINGS: usize = 100_000;

impl Module {
    /// Reads the module file `bytes`, unpacked, that lies at `path` in the tree.
    pub fn parse(path: &str, bytes: &[u8]) -> Result<Self, BadElf> {
        let elf = Elf::parse(bytes)?;
        let info = elf.section(".modinfo");
        let all = |key: &str| values(info, key).take(MAX_STRINGS).map(str::to_owned).collect::<Vec<_>>();
        let depends = values(info, "depends").flat_map(|list| list.split(','));
        Ok(Self {
            path: path.to_owned(),
            name: name_of(path),
            depends: depends.filter(|d| !d.is_empty()).take(MAX_STRINGS).map(normalised).collect(),
            aliases: all("alias"),
            softdeps: all("softdep"),
            exports: exports(elf.section(".strtab")).take(MAX_STRINGS).map(str::to_owned).collect(),
        })
    }
}

/// The name of the module in the file `path`, packed or not, which is what the kernel calls it.
pub fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normalised(file.split_once(".ko").map_or(file, |(name, _)| name))
}

/// `-` and `_` are one in modules' names, except between brackets in an alias, where `-` makes a range.
pub fn normalised(name: &str) -> String {
    let mut range = false;
    name.chars()
        .map(|c| {
            range = (range || c == '[') && c != ']';
            if c == '-' && !range { '_' } else { c }
        })
        .collect()
}

/// The built-in modules' `(name, alias)`s, from modules.builtin.modinfo, where each string begins with `name.`.
pub fn builtin_aliases(modinfo: &[u8]) -> impl Iterator<Item = (String, &str)> {
    strings(modinfo).filter_map(|text| {
        let (name, rest) = text.split_once('.')?;
        Some((normalised(name), rest.strip_prefix("alias=")?))
    })
}

/// The exported symbols, from a module's symbol names: each has an entry of its own in the table of exports. (The strings of that
/// table, __ksymtab_strings, would not do: namespaces are among them.)
fn exports(names: &[u8]) -> impl Iterator<Item = &str> {
    strings(names).filter_map(|name| name.strip_prefix("__ksymtab_"))
}

fn values<'a>(info: &'a [u8], key: &str) -> impl Iterator<Item = &'a str> {
    strings(info).filter_map(move |text| text.strip_prefix(key)?.strip_prefix('='))
}

/// The strings of a section; those with control characters, which would break the lines of the tables, are left out.
fn strings(section: &[u8]) -> impl Iterator<Item = &str> {
    section
        .split(|b| *b == 0)
        .filter_map(|text| std::str::from_utf8(text).ok())
        .filter(|text| !text.is_empty() && !text.contains(|c: char| c.is_control()))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::elf::tests::elf;

    /// A module's file with these lines of .modinfo.
    pub fn module(lines: &[&str]) -> Vec<u8> {
        let info = lines.iter().flat_map(|line| line.bytes().chain([0])).collect::<Vec<_>>();
        elf(
            &[
                (".modinfo", &info),
                (".strtab", b"\0one\0__ksymtab_one\0__ksymtab_two\0x\0"),
                (".BTF", &[7; 64]),
            ],
            &[],
        )
    }

    #[test]
    fn a_module_tells_its_needs_and_whom_it_serves() {
        let lines = ["license=GPL", "depends=dm-mod,b", "alias=fs-x", "alias=y", "softdep=pre: crc32c"];
        let parsed = Module::parse("kernel/drivers/md/dm-snapshot.ko", &module(&lines)).expect("parses");
        let list = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let want = Module {
            path: "kernel/drivers/md/dm-snapshot.ko".to_owned(),
            name: "dm_snapshot".to_owned(),
            depends: list(&["dm_mod", "b"]),
            aliases: list(&["fs-x", "y"]),
            softdeps: list(&["pre: crc32c"]),
            exports: list(&["one", "two"]),
        };
        assert_eq!(parsed, want);
        let none = Module::parse("a.ko", &module(&["depends="])).expect("parses");
        assert_eq!(none.depends, Vec::<String>::new());
        assert_eq!(Module::parse("a.ko", b"no module").err(), Some(BadElf::NotElf));
    }

    #[test]
    fn names_are_one_way_whatever_they_are_written_like() {
        assert_eq!(name_of("kernel/drivers/char/hw_random/virtio-rng.ko.xz"), "virtio_rng");
        assert_eq!(normalised("pci:v0[0-9]d-x"), "pci:v0[0-9]d_x");
    }

    #[test]
    fn built_in_modules_serve_too() {
        let info = b"ext4.license=GPL\0ext4.alias=fs-ext4\0virtio-blk.alias=virtio:d2v*\0junk\0";
        let want = [("ext4".to_owned(), "fs-ext4"), ("virtio_blk".to_owned(), "virtio:d2v*")];
        assert_eq!(builtin_aliases(info).collect::<Vec<_>>(), want);
    }

    proptest! {
        #[test]
        fn any_section_can_be_read(info in prop::collection::vec(any::<u8>(), 0..200)) {
            let file = elf(&[(".modinfo", &info)], &[]);
            Module::parse("a.ko", &file).expect("parses");
            builtin_aliases(&info).count();
        }
    }
}
