//! Bundles made and taken apart again, and those that nobody honest has made.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tar::{EntryType, Header};

use super::*;
use crate::catalog::about::{ImageAbout, KernelAbout};
use crate::host::progress::{Cancelled, Progress, Silent, Unit};
use crate::image::config::ImageConfig;

fn image_about() -> ImageAbout {
    let text = |text: &str| text.to_owned();
    ImageAbout {
        name: text("golden"),
        distro: text("debian"),
        arch: text("amd64"),
        kernel: Some(text("k")),
        description: text("d"),
    }
}

fn kernel_about() -> KernelAbout {
    let text = |text: &str| text.to_owned();
    KernelAbout { name: text("k"), arch: text("amd64"), version: text("6.12"), description: String::new() }
}

fn image_manifest() -> Vec<u8> {
    let config = ImageConfig { env: vec!["A=1".to_owned()], ..ImageConfig::default() };
    Manifest::Image { about: image_about(), config }.to_bytes().expect("writes")
}

fn kernel_manifest() -> Vec<u8> {
    Manifest::Kernel { about: kernel_about() }.to_bytes().expect("writes")
}

/// A file of some MiB that looks like a file system for as long as nobody mounts it: mostly zeros.
fn rootfs() -> Vec<u8> {
    let mut bytes = vec![0; 3 << 20];
    bytes[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xef]);
    bytes[2 << 20..(2 << 20) + 5].copy_from_slice(b"hello");
    bytes
}

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("makes directories");
        fs::write(&path, bytes).expect("writes");
        path
    }

    /// A bundle, open at its beginning.
    fn packed(&self, tar: &[u8]) -> File {
        self.file(&zstd::encode_all(tar, 3).expect("packs"))
    }

    fn file(&self, bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile_in(self.0.path()).expect("a file");
        file.write_all(bytes).expect("writes");
        file.seek(SeekFrom::Start(0)).expect("seeks");
        file
    }

    /// Unpacks an image; on an error there must be nothing.
    fn image(&self, bundle: File) -> Result<ImageConfig, String> {
        let out = self.path("out.ext4");
        let result = image(bundle, &image_about(), &out, &Silent);
        assert_eq!(out.exists(), result.is_ok());
        result.map_err(|e| e.to_string())
    }

    fn kernel(&self, bundle: File) -> Result<(), String> {
        let out = self.path("kernel");
        let result = kernel(bundle, &kernel_about(), &out, &Silent);
        assert_eq!(out.exists(), result.is_ok());
        if result.is_ok() {
            fs::rename(&out, self.path("unpacked")).expect("moves");
        }
        result.map_err(|e| e.to_string())
    }
}

fn member(kind: EntryType, path: &str, target: &str, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o777);
    header.set_size(data.len() as u64);
    for (field, text) in [(0, path), (157, target)] {
        header.as_mut_bytes()[field..field + text.len()].copy_from_slice(text.as_bytes());
    }
    header.set_cksum();
    let mut bytes = [header.as_bytes().as_slice(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(path: &str, data: &[u8]) -> Vec<u8> {
    member(EntryType::Regular, path, "", data)
}

fn tar(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

#[test]
fn an_image_comes_out_as_it_was_put_in_with_its_holes() {
    let bench = Bench::new();
    let source = bench.write("rootfs", &rootfs());
    let manifest = Manifest::parse(&image_manifest()).expect("reads");
    let out = File::create_new(bench.path("bundle")).expect("creates");
    let made = make::image(&source, &manifest, &out, &Silent).expect("makes it");
    assert_eq!(made.size, out.metadata().expect("stats").len());
    let config = bench.image(File::open(bench.path("bundle")).expect("opens")).expect("unpacks");
    assert_eq!(config.env, ["A=1"]);
    let unpacked = bench.path("out.ext4");
    assert!(fs::read(&unpacked).expect("reads") == rootfs(), "the same bytes");
    assert!(fs::metadata(&unpacked).expect("stats").blocks() * 512 < 1 << 20, "holes for zeros");
}

#[test]
fn the_same_input_gives_the_same_bytes_whenever_and_wherever_it_is_packed() {
    let bench = Bench::new();
    let manifest = Manifest::parse(&kernel_manifest()).expect("reads");
    let mut all = vec![];
    for (place, files) in
        [("one", ["a/x.ko", "b/y.ko", "modules.order"]), ("two", ["modules.order", "b/y.ko", "a/x.ko"])]
    {
        for name in files {
            let path = bench.write(&format!("{place}/modules/{name}"), name.as_bytes());
            let file = File::options().write(true).open(path).expect("opens");
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(all.len() as u64 * 1000);
            file.set_modified(time).expect("sets the time");
        }
        let kernel = bench.write(&format!("{place}/vmlinux"), b"kernel");
        let path = bench.path(place).join("bundle");
        let out = File::create_new(&path).expect("creates");
        let modules = bench.path(place).join("modules");
        let made =
            make::kernel((VMLINUX, &kernel), Some(&modules), &manifest, &out, &Silent).expect("makes it");
        all.push((made, fs::read(path).expect("reads")));
    }
    assert!(all[0] == all[1]);
}

#[test]
fn a_kernels_modules_come_out_with_symlinks_that_stay_inside_and_without_others() {
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);
    impl Progress for Notes {
        fn stage(&self, _: &str) {}
        fn advance(&self, _: u64, _: u64, _: Unit) {}
        fn note(&self, text: &str) {
            self.0.lock().expect("not poisoned").push(text.to_owned());
        }
        fn cancelled(&self) -> bool {
            false
        }
    }
    let bench = Bench::new();
    let vmlinux = bench.write("vmlinux", b"kernel");
    bench.write("modules/kernel/fs/a.ko", b"a");
    let modules = bench.path("modules");
    for (target, name) in
        [("kernel/fs/a.ko", "inside"), ("../kernel", "kernel/fs/up"), ("/usr/src/linux", "build")]
    {
        // kernel/fs/../kernel is inside although it is not there.
        std::os::unix::fs::symlink(target, modules.join(name)).expect("links");
    }
    let manifest = Manifest::parse(&kernel_manifest()).expect("reads");
    let out = File::create_new(bench.path("bundle")).expect("creates");
    let notes = Notes::default();
    make::kernel((VMLINUX, &vmlinux), Some(&modules), &manifest, &out, &notes).expect("makes it");
    assert_eq!(
        *notes.0.lock().expect("not poisoned"),
        ["modules/build is left out: it points to /usr/src/linux"]
    );
    bench.kernel(File::open(bench.path("bundle")).expect("opens")).expect("unpacks");
    let read = |name: &str| fs::read(bench.path("unpacked").join(name)).expect(name);
    assert_eq!((read("vmlinux"), read("modules/inside")), (b"kernel".to_vec(), b"a".to_vec()));
    assert!(
        fs::read_link(bench.path("unpacked/modules/kernel/fs/up")).expect("a link") == Path::new("../kernel")
    );
    assert!(fs::symlink_metadata(bench.path("unpacked/modules/build")).is_err());
}

#[test]
fn members_in_any_order_are_taken_and_every_other_one_is_refused_by_name() {
    let bench = Bench::new();
    let (root, about) = (file(ROOTFS, &rootfs()), file(MANIFEST, &image_manifest()));
    bench.image(bench.packed(&tar(&[root.clone(), about.clone()]))).expect("takes it");
    fs::remove_file(bench.path("out.ext4")).expect("removes");
    bench.image(bench.packed(&tar(&[about.clone(), root.clone()]))).expect("takes it");
    fs::remove_file(bench.path("out.ext4")).expect("removes");
    let link = |path: &str, target: &str| member(EntryType::Symlink, path, target, b"");
    for (members, why) in [
        (vec![root.clone()], "has no manifest.json"),
        (vec![about.clone()], "has no rootfs.ext4"),
        (
            vec![root.clone(), about.clone(), file("extra", b"x")],
            "'extra' is there twice, or does not belong",
        ),
        (vec![root.clone(), about.clone(), root.clone()], "'rootfs.ext4' is there twice"),
        (vec![root.clone(), about.clone(), about.clone()], "'manifest.json' is there twice"),
        (vec![root.clone(), link(MANIFEST, "x/y")], "'manifest.json' is a symlink out of its directory"),
        (vec![link(ROOTFS, "/etc/passwd"), about.clone()], "'rootfs.ext4' is a symlink out of its directory"),
        (
            vec![file("/etc/passwd", b""), about.clone()],
            "'/etc/passwd' has a path that is not made of plain names",
        ),
        (vec![file("../rootfs.ext4", b""), about.clone()], "'../rootfs.ext4' has a path"),
        (
            vec![member(EntryType::Directory, "d", "", b""), about.clone()],
            "'d' is there twice, or does not belong",
        ),
        (vec![root.clone(), file(MANIFEST, &kernel_manifest())], "its kind is a kernel, not an image"),
        (vec![file(ROOTFS, &[0; 4096]), about.clone()], "is no ext4 file system"),
        (vec![file(ROOTFS, b""), about.clone()], "is no ext4 file system"),
        (vec![root.clone(), file(MANIFEST, b"{}")], "does not say that it is of version 1"),
        (vec![root.clone(), file(MANIFEST, &vec![b' '; 2 << 20])], "a manifest of more than 1 MiB"),
    ] {
        let error = bench.image(bench.packed(&tar(&members))).expect_err(why);
        assert!(error.contains(why), "{why}: {error}");
    }
    let other = String::from_utf8(image_manifest()).expect("UTF-8").replace("golden", "copper");
    let error =
        bench.image(bench.packed(&tar(&[root, file(MANIFEST, other.as_bytes())]))).expect_err("another");
    assert_eq!(error, "the bundle is another than the catalog means: its name is copper, not golden");
}

#[test]
fn a_kernels_bundle_has_one_kernel_and_modules_and_nothing_is_written_through_a_symlink() {
    let bench = Bench::new();
    let about = file(MANIFEST, &kernel_manifest());
    let vmlinux = file(VMLINUX, b"kernel");
    let link = |path: &str, target: &str| member(EntryType::Symlink, path, target, b"");
    for (members, why) in [
        (vec![about.clone()], "has no vmlinux or bzImage"),
        (vec![vmlinux.clone()], "has no manifest.json"),
        (vec![about.clone(), vmlinux.clone(), file(BZIMAGE, b"another")], "'bzImage' is there twice"),
        (
            vec![about.clone(), vmlinux.clone(), file("config", b"x")],
            "'config' is there twice, or does not belong",
        ),
        (
            vec![about.clone(), vmlinux.clone(), file(MODULES, b"x")],
            "'modules' is there twice, or does not belong",
        ),
        (vec![about.clone(), link(VMLINUX, "modules/x")], "'vmlinux' is a symlink out of its directory"),
        (
            vec![about.clone(), vmlinux.clone(), link("modules/x", "../vmlinux")],
            "'modules/x' is a symlink out of",
        ),
        (
            vec![about.clone(), vmlinux.clone(), link("modules/x", "y"), file("modules/x/z", b"")],
            "'modules/x/z' lies below what is no directory",
        ),
        (
            vec![about.clone(), vmlinux.clone(), link("modules/x", "y"), file("modules/x", b"")],
            "'modules/x' is there twice",
        ),
        (
            vec![
                about.clone(),
                vmlinux.clone(),
                file("modules/x", b""),
                member(EntryType::Directory, "modules/x", "", b""),
            ],
            "'modules/x' is there twice",
        ),
        (vec![vmlinux.clone(), file(MANIFEST, &image_manifest())], "its kind is an image, not a kernel"),
    ] {
        let error = bench.kernel(bench.packed(&tar(&members))).expect_err(why);
        assert!(error.contains(why), "{why}: {error}");
    }
    let other = String::from_utf8(kernel_manifest()).expect("UTF-8").replace("6.12", "6.13");
    let error =
        bench.kernel(bench.packed(&tar(&[vmlinux, file(MANIFEST, other.as_bytes())]))).expect_err("another");
    assert_eq!(error, "the bundle is another than the catalog means: its version is 6.13, not 6.12");
}

#[test]
fn a_bundle_that_is_cut_short_or_bent_at_any_place_leaves_nothing() {
    let bench = Bench::new();
    let members = [file(VMLINUX, &[7; 5000]), file(MANIFEST, &kernel_manifest()), file("modules/a", b"a")];
    let whole = zstd::encode_all(tar(&members).as_slice(), 3).expect("packs");
    bench.kernel(bench.file(&whole)).expect("the whole one is good");
    for length in 0..whole.len() {
        bench.kernel(bench.file(&whole[..length])).expect_err("cut short");
    }
    for trailing in [b"x".as_slice(), &whole] {
        bench.kernel(bench.file(&[&whole, trailing].concat())).expect_err("it goes on");
    }
    // A tar that is cut short, well packed.
    let tar = tar(&members);
    for length in (0..tar.len()).step_by(512) {
        bench.kernel(bench.packed(&tar[..length])).expect_err("cut short");
    }
    bench.kernel(bench.file(b"no zstd at all")).expect_err("no zstd");
}

#[test]
fn a_bomb_is_refused_before_the_disk_is_full() {
    let bench = Bench::new();
    let about = file(MANIFEST, &kernel_manifest());
    let bomb = tar(&[about.clone(), file(VMLINUX, &vec![1; 80 << 20])]);
    let error = bench.kernel(bench.packed(&bomb)).expect_err("a bomb");
    assert_eq!(error, "the bundle has far more in it than a file of its size can honestly have");
    let many = vec![member(EntryType::Directory, MODULES, "", b""); 20_001];
    let error = bench.kernel(bench.packed(&tar(&many))).expect_err("too many");
    assert_eq!(error, "the bundle has more members than any kernel has modules");
    // What a header only claims is judged before it is read.
    let mut header = Header::new_ustar();
    header.set_path(ROOTFS).expect("fits");
    header.set_entry_type(EntryType::Regular);
    header.set_size(65 << 30);
    header.set_cksum();
    let error = bench.image(bench.packed(&tar(&[header.as_bytes().to_vec()]))).expect_err("too large");
    assert_eq!(error, "the bundle has a root file system of more than 64 GiB");
}

#[test]
fn whoever_has_gone_is_not_unpacked_for() {
    let bench = Bench::new();
    let bundle = bench.packed(&tar(&[file(ROOTFS, &rootfs()), file(MANIFEST, &image_manifest())]));
    let out = bench.path("out.ext4");
    assert!(matches!(image(bundle, &image_about(), &out, &Cancelled), Err(BundleError::Cancelled)));
    assert!(!out.exists());
}
