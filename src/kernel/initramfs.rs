//! The initramfs: cpio archives in the "newc" format (kernel: Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! It is two archives, one behind the other, as the kernel allows: the first holds our binary as /init and changes with every
//! release; the second holds a kernel's modules and is made once, at import.
//!
//! `/modules/order` says what to load: a line `<path> <group>[,<group>...]` for each module, dependencies first.

use crate::kernel::modules::Early;

/// A file of type and permissions, as in stat(2).
#[derive(Debug, Clone, Copy)]
struct Mode(u32);

const DIRECTORY: Mode = Mode(0o040_755);
const EXECUTABLE: Mode = Mode(0o100_755);
const FILE: Mode = Mode(0o100_644);
const CHARACTER_DEVICE: Mode = Mode(0o020_600);

/// Where the list of modules is.
pub const ORDER: &str = "/modules/order";
/// Mount points and the like, for /init to find.
const DIRECTORIES: [&str; 5] = ["dev", "newroot", "proc", "run", "sys"];
/// /dev/console (kernel: Documentation/admin-guide/devices.txt).
const CONSOLE: (u32, u32) = (5, 1);

/// Returns a complete initramfs of the static executable `binary` and an archive made by [`modules_archive`].
pub fn assemble(binary: &[u8], modules_cpio: &[u8]) -> Vec<u8> {
    let mut archive = Archive::with_capacity(binary.len() + modules_cpio.len() + 4096);
    for directory in DIRECTORIES {
        archive.add(directory, DIRECTORY, (0, 0), &[]);
    }
    // The kernel opens it as descriptors 0 to 2 of /init (init/main.c, console_on_rootfs).
    archive.add("dev/console", CHARACTER_DEVICE, CONSOLE, &[]);
    archive.add("init", EXECUTABLE, (0, 0), binary);
    let mut bytes = archive.end();
    bytes.extend_from_slice(modules_cpio);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Returns the archive of the modules, unpacked, in the order in which they are to be loaded. The same modules make the
/// same bytes.
pub fn modules_archive(modules: &[(&Early, Vec<u8>)]) -> Vec<u8> {
    let size: usize = modules.iter().map(|(_, content)| content.len() + 256).sum();
    let mut archive = Archive::with_capacity(size + 4096);
    archive.add("modules", DIRECTORY, (0, 0), &[]);
    let mut order = String::new();
    for (early, _) in modules {
        let groups: Vec<String> = early.groups.iter().map(ToString::to_string).collect();
        order += &format!("/modules/{}.ko {}\n", early.name, groups.join(","));
    }
    archive.add(ORDER.trim_start_matches('/'), FILE, (0, 0), order.as_bytes());
    for (early, content) in modules {
        archive.add(&format!("modules/{}.ko", early.name), FILE, (0, 0), content);
    }
    archive.end()
}

struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

impl Archive {
    fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), inodes: 0 }
    }

    /// Adds an entry of root's, from 1970. `device` counts for devices only.
    fn add(&mut self, path: &str, mode: Mode, device: (u32, u32), content: &[u8]) {
        self.inodes += 1;
        self.entry(self.inodes, path, mode, device, content);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry(0, "TRAILER!!!", Mode(0), (0, 0), &[]);
        self.bytes
    }

    /// One entry: a header of thirteen numbers in hexadecimal, the name, the content, each filled to a multiple of four.
    fn entry(&mut self, inode: u32, path: &str, Mode(mode): Mode, device: (u32, u32), content: &[u8]) {
        // One link: the kernel joins entries of one inode only where they have several.
        let length = content.len() as u32;
        let name = path.len() as u32 + 1;
        let numbers = [inode, mode, 0, 0, 1, 0, length, 0, 0, device.0, device.1, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for number in numbers {
            self.bytes.extend_from_slice(format!("{number:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.fill();
        self.bytes.extend_from_slice(content);
        self.fill();
    }

    fn fill(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::kernel::modules::Group;

    fn early(name: &str, groups: &[Group]) -> Early {
        Early {
            name: name.to_owned(),
            path: format!("kernel/{name}.ko"),
            groups: groups.iter().copied().collect(),
        }
    }

    /// Name and content of every entry, read by the format's own rules, and what follows the trailer.
    fn entries(mut bytes: &[u8]) -> (Vec<(String, Vec<u8>)>, &[u8]) {
        let mut found = vec![];
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let number = |i: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * i..14 + 8 * i]).expect("ASCII");
                usize::from_str_radix(text, 16).expect("a number")
            };
            let (length, name) = (number(6), number(11));
            let content = (110 + name).next_multiple_of(4);
            let text = String::from_utf8(bytes[110..110 + name - 1].to_vec()).expect("UTF-8");
            found.push((text.clone(), bytes[content..content + length].to_vec()));
            bytes = &bytes[(content + length).next_multiple_of(4)..];
            if text == "TRAILER!!!" {
                return (found, bytes);
            }
        }
    }

    #[test]
    fn the_order_names_each_module_with_its_groups() {
        let (a, b) = (early("virtio", &[Group::Block, Group::Mmio]), early("virtio_blk", &[Group::Block]));
        let archive = modules_archive(&[(&a, b"A".to_vec()), (&b, b"BB".to_vec())]);
        let (entries, rest) = entries(&archive);
        let order = b"/modules/virtio.ko mmio,block\n/modules/virtio_blk.ko block\n";
        let want: [(&str, &[u8]); 5] = [
            ("modules", b""),
            ("modules/order", order),
            ("modules/virtio.ko", b"A"),
            ("modules/virtio_blk.ko", b"BB"),
            ("TRAILER!!!", b""),
        ];
        assert_eq!(entries, want.map(|(name, content)| (name.to_owned(), content.to_vec())));
        assert!(rest.is_empty());
    }

    #[test]
    fn cpio_reads_what_we_wrote() {
        let modules = modules_archive(&[(&early("virtio", &[Group::Mmio]), b"A".to_vec())]);
        for (archive, want) in [
            (
                assemble(b"#!", &[]),
                vec!["crw------- 5, 1 dev/console", "-rwxr-xr-x 2 init", "drwxr-xr-x 0 newroot"],
            ),
            (modules, vec!["-rw-r--r-- 24 modules/order", "-rw-r--r-- 1 modules/virtio.ko"]),
        ] {
            let mut cpio = Command::new("cpio")
                .args(["--list", "--verbose", "--numeric-uid-gid", "--quiet"])
                .env("TZ", "UTC")
                .env("LC_ALL", "C")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("cpio is installed");
            cpio.stdin.take().expect("piped").write_all(&archive).expect("writes");
            let out = cpio.wait_with_output().expect("ends");
            let out = String::from_utf8(out.stdout).expect("UTF-8");
            let lines = out.lines().map(|line| {
                let words = line.split_whitespace().collect::<Vec<_>>();
                assert!(words.contains(&"1970"), "{line}");
                let date = words.iter().position(|w| *w == "Jan").expect("a date");
                [&words[..1], &words[4..date], &words[date + 3..]].concat().join(" ")
            });
            let lines = lines.collect::<Vec<_>>();
            for line in want {
                assert!(lines.iter().any(|l| l == line), "{line} in {lines:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_binary_and_modules_make_two_aligned_archives(
            binary in prop::collection::vec(any::<u8>(), 0..100),
            module in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let modules = modules_archive(&[(&early("m", &[Group::Rng]), module.clone())]);
            let whole = assemble(&binary, &modules);
            let (first, rest) = entries(&whole);
            prop_assert_eq!(&first[6], &("init".to_owned(), binary));
            prop_assert_eq!(rest, &modules[..]);
            prop_assert_eq!(&entries(rest).0[2].1, &module);
            prop_assert_eq!((whole.len() - modules.len()) % 4, 0);
        }
    }
}
