//! Kernels that somebody hands over: a Debian package with a kernel and modules, or any bytes in the place of each. It is imported or refused, and what
//! is made of it is not much more than what came.
#![no_main]

mod elf;

use std::fs;
use std::io::Write;

use arbitrary::Arbitrary;
use banger::host::progress::Silent;
use banger::kernel::import::from_deb;
use banger::kernel::vmlinux::Vmlinux;
use elf::Elf;
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

#[derive(Arbitrary, Debug)]
enum Sent {
    Package(Vec<u8>),
    Data(Vec<u8>),
    Kernel(Vec<u8>),
    Payload(Vec<u8>, Option<u32>),
    Made(Made),
}

#[derive(Arbitrary, Debug)]
struct Made {
    kernel: Elf,
    packed: bool,
    modules: Vec<(u8, Elf, Vec<u8>)>,
    builtin: Option<Vec<u8>>,
    builtin_modinfo: Vec<u8>,
    order: Vec<u8>,
    config: Vec<u8>,
    control: Option<Vec<u8>>,
}

/// Of modules: what guests need, and others.
const NAMES: [&str; 12] = [
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "dm-mod",
    "dm-snapshot",
    "dm-zero",
    "ext4",
    "vmw_vsock_virtio_transport",
    "virtio_net",
    "virtio-rng",
    "a",
    "b",
];

libfuzzer_sys::fuzz_target!(|sent: Sent| {
    match sent {
        Sent::Package(bytes) => package(&bytes),
        Sent::Data(data) => package(&deb(b"Package: linux-image-6.1\n", &data)),
        Sent::Kernel(bytes) => drop(Vmlinux::open(bytes, "x")),
        Sent::Payload(packed, length) => {
            let length = length.map_or(vec![], |length| (length & 0xf_ffff).to_le_bytes().to_vec());
            drop(Vmlinux::open(bzimage(&[packed, length].concat()), "x"));
        }
        Sent::Made(made) => {
            let control = made.control.as_deref().unwrap_or(b"Package: linux-image-6.1\n");
            package(&deb(control, &data(&made)));
        }
    }
});

fn package(bytes: &[u8]) {
    let place = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let path = place.path().join("a.deb");
    fs::write(&path, bytes).expect("writes");
    if let Ok(imported) = from_deb(&path, place.path(), &Silent) {
        assert!(
            imported.version.starts_with(|c: char| c.is_ascii_digit()) && !imported.version.contains('/')
        );
        // A section's content is there once, but for what lies between them.
        assert!(
            imported.modules_cpio.len() <= (bytes.len() + 8192) * 64,
            "{} of {}",
            imported.modules_cpio.len(),
            bytes.len()
        );
    }
    assert_eq!(fs::read_dir(place.path()).expect("reads").count(), 1);
}

fn data(made: &Made) -> Vec<u8> {
    let kernel = made.kernel.bytes(b"Linux version 6.1 (x@y) #1\n\0");
    let kernel = if made.packed {
        let mut gz = GzEncoder::new(vec![], Compression::fast());
        gz.write_all(&kernel).expect("packs");
        bzimage(&gz.finish().expect("packs"))
    } else {
        kernel
    };
    let modules = "lib/modules/6.1";
    let all: String = NAMES.iter().take(10).map(|name| format!("kernel/{name}.ko\n")).collect();
    let mut files = vec![
        ("boot/vmlinuz-6.1".to_owned(), kernel),
        ("boot/config-6.1".to_owned(), made.config.clone()),
        (format!("{modules}/modules.order"), made.order.clone()),
        (format!("{modules}/modules.builtin"), made.builtin.clone().unwrap_or(all.into_bytes())),
        (format!("{modules}/modules.builtin.modinfo"), made.builtin_modinfo.clone()),
    ];
    for (name, module, text) in &made.modules {
        let path = format!("{modules}/kernel/{}.ko", NAMES[usize::from(*name) % NAMES.len()]);
        files.push((path, module.bytes(text)));
    }
    let mut builder = Builder::new(vec![]);
    for (path, content) in files {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, &content[..]).expect("appends");
    }
    builder.into_inner().expect("ends")
}

/// A package (deb(5)) with this control file, and this data.tar.
fn deb(control: &[u8], data: &[u8]) -> Vec<u8> {
    let mut builder = Builder::new(vec![]);
    let mut header = Header::new_gnu();
    header.set_size(control.len() as u64);
    builder.append_data(&mut header, "./control", control).expect("appends");
    let control = builder.into_inner().expect("ends");
    let mut deb = b"!<arch>\n".to_vec();
    for (name, content) in [("debian-binary", &b"2.0\n"[..]), ("control.tar", &control), ("data.tar", data)] {
        deb.extend(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).into_bytes(),
        );
        deb.extend(content);
        deb.resize(deb.len().next_multiple_of(2), b'\n');
    }
    deb
}

/// A bzImage around a packed kernel (kernel: Documentation/arch/x86/boot.rst).
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    image[0x1f1] = 1;
    image[0x1fe..0x200].copy_from_slice(b"\x55\xaa");
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    image.extend(payload);
    image
}
