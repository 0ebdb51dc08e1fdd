use super::*;
use crate::host::progress::{Cancelled, Silent};
use crate::kernel::bzimage::tests::{bzimage, gzip};
use crate::kernel::deb::tests::package;
use crate::kernel::modinfo::tests::module;
use crate::kernel::vmlinux::tests::kernel;

const VERSION: &str = "6.1.0-9-cloud-amd64";
const CONTROL: &str = "Package: linux-image-6.1.0-9-cloud-amd64\nDepends: kmod\n";
const BUILTIN: &[u8] = b"kernel/fs/ext4/ext4.ko\n";

/// The files below lib/modules/<version> of a kernel that can do everything.
fn modules() -> Vec<(String, Vec<u8>)> {
    let list = [
        ("drivers/virtio/virtio", ""),
        ("drivers/virtio/virtio_mmio", "virtio"),
        ("drivers/block/virtio_blk", "virtio"),
        ("drivers/md/dm-mod", ""),
        ("drivers/md/dm-snapshot", "dm-mod"),
        ("drivers/md/dm-zero", "dm-mod"),
        ("net/vmw_vsock/vmw_vsock_virtio_transport", "virtio"),
        ("fs/overlayfs/overlay", ""),
    ];
    let module = |(path, depends): (&str, &str)| {
        (format!("kernel/{path}.ko.gz"), gzip(&module(&[&format!("depends={depends}"), "alias=fs-overlay"])))
    };
    let mut files: Vec<_> = list.into_iter().map(module).collect();
    files.push(("modules.builtin".to_owned(), BUILTIN.to_vec()));
    files.push(("modules.dep".to_owned(), b"stale".to_vec()));
    files
}

/// All files of a package, without those whose path ends with one of `without`.
fn files(without: &[&str]) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![
        (format!("boot/vmlinuz-{VERSION}"), bzimage(&gzip(&kernel(VERSION, None)))),
        ("usr/share/doc/x".to_owned(), b"x".to_vec()),
    ];
    files.extend(
        modules().into_iter().map(|(path, content)| (format!("lib/modules/{VERSION}/{path}"), content)),
    );
    files.retain(|(path, _)| !without.iter().any(|end| path.ends_with(end)));
    files
}

fn import(control: &str, files: &[(String, Vec<u8>)]) -> Result<Imported, KernelError> {
    let files = files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect::<Vec<_>>();
    import_bytes(&package(control, &files))
}

fn import_bytes(deb: &[u8]) -> Result<Imported, KernelError> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("k.deb");
    fs::write(&path, deb).expect("writes");
    let imported = from_deb(&path, dir.path(), &Silent);
    assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1, "nothing is left behind");
    imported
}

/// The files written into a new directory.
fn unpacked(files: &[(String, Vec<u8>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (path, content) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("has one")).expect("makes");
        fs::write(path, content).expect("writes");
    }
    dir
}

fn check(imported: &Imported, source: &str) {
    assert_eq!(imported.version, VERSION);
    let record = imported.record("k", 7);
    assert_eq!((record.arch.as_str(), record.snapshot, record.modules), ("amd64", true, true));
    assert!(record.source.ends_with(source), "{}", record.source);
    assert_eq!(imported.vmlinux, kernel(VERSION, None));
    let names = imported.closure.modules.iter().map(|m| m.name.as_str()).collect::<Vec<_>>();
    let want = [
        "virtio",
        "virtio_mmio",
        "virtio_blk",
        "dm_mod",
        "dm_snapshot",
        "dm_zero",
        "vmw_vsock_virtio_transport",
    ];
    assert_eq!(names, want);
    let dir = tempfile::tempdir().expect("a directory");
    imported.unpack_modules(dir.path()).expect("unpacks");
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    let dep = read("modules.dep");
    assert!(dep.contains("kernel/drivers/md/dm-zero.ko: kernel/drivers/md/dm-mod.ko\n"), "{dep}");
    assert!(read("modules.alias").contains("alias fs-overlay overlay\n"));
    assert!(
        fs::read(dir.path().join("kernel/fs/overlayfs/overlay.ko")).expect("reads").starts_with(b"\x7fELF")
    );
}

#[test]
fn a_package_gives_kernel_modules_and_tables() {
    check(&import(CONTROL, &files(&[])).expect("imports"), "k.deb");
}

#[test]
fn the_running_kernel_is_found_below_boot_or_beside_its_modules() {
    let scratch = tempfile::tempdir().expect("a directory");
    let root = unpacked(&files(&[]));
    check(&from_host(root.path(), VERSION, scratch.path(), &Silent).expect("imports"), "host");
    let from = root.path().join(format!("boot/vmlinuz-{VERSION}"));
    fs::rename(from, root.path().join(format!("lib/modules/{VERSION}/vmlinuz"))).expect("moves");
    check(&from_host(root.path(), VERSION, scratch.path(), &Silent).expect("imports"), "host");
    assert!(host_is_readable(root.path(), VERSION));
    assert!(!host_is_readable(root.path(), "5.4.0"));
    let error =
        from_host(root.path(), "5.4.0", scratch.path(), &Silent).expect_err("no such kernel").to_string();
    assert_eq!(
        error,
        "there is no kernel in /boot/vmlinuz-5.4.0 or /lib/modules/5.4.0/vmlinuz; is this a container? Import a package \
         with --deb instead"
    );
    assert_eq!(fs::read_dir(scratch.path()).expect("lists").count(), 0);
}

#[test]
fn a_directory_may_have_its_modules_with_or_without_a_version() {
    let scratch = tempfile::tempdir().expect("a directory");
    for (kernel_name, prefix) in [
        ("vmlinux", format!("lib/modules/{VERSION}")),
        ("bzImage", "modules".to_owned()),
        ("vmlinuz", format!("modules/{VERSION}")),
    ] {
        let mut files: Vec<_> = modules().into_iter().map(|(p, c)| (format!("{prefix}/{p}"), c)).collect();
        let elf = kernel(VERSION, None);
        let content = if kernel_name == "vmlinux" { elf } else { bzimage(&gzip(&elf)) };
        files.push((kernel_name.to_owned(), content));
        let dir = unpacked(&files);
        std::os::unix::fs::symlink("/", dir.path().join(&prefix).join("build")).expect("links");
        let imported = from_directory(dir.path(), scratch.path(), &Silent).expect("imports");
        check(&imported, &dir.path().display().to_string());
    }
}

#[test]
fn a_kernel_with_everything_built_in_needs_its_configuration_only() {
    let scratch = tempfile::tempdir().expect("a directory");
    let config = "CONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_BLK=y\nCONFIG_EXT4_FS=y\nCONFIG_VIRTIO_VSOCKETS=y\n";
    for (inside, beside) in [(Some(config), None), (None, Some(config))] {
        let mut files = vec![("vmlinux".to_owned(), kernel("6.1.128", inside))];
        files.extend(beside.map(|text| ("config".to_owned(), text.as_bytes().to_vec())));
        let imported = from_directory(unpacked(&files).path(), scratch.path(), &Silent).expect("imports");
        let record = imported.record("ci", 0);
        assert_eq!((record.version.as_str(), record.snapshot, record.modules), ("6.1.128", false, false));
        assert!(imported.closure.modules.is_empty());
        imported.unpack_modules(Path::new("/nonexistent")).expect("there is nothing to write");
    }
    let files = [("vmlinux".to_owned(), kernel("6.1.128", None))];
    let error =
        from_directory(unpacked(&files).path(), scratch.path(), &Silent).expect_err("refused").to_string();
    assert!(
        error.starts_with("nothing says which drivers are built into 6.1.128; put its modules"),
        "{error}"
    );
}

#[test]
fn packages_that_cannot_be_used_say_what_to_do() {
    let real = "linux-image-6.1.0-9-cloud-amd64";
    let meta = format!("Package: linux-image-cloud-amd64\nDepends: {real} (= 6.1.1)\n");
    let debug = format!("Package: {real}-dbg\n");
    let no_kernel = files(&["vmlinuz-6.1.0-9-cloud-amd64"]);
    let mut two = files(&[]);
    two.push(("lib/modules/5.4.0/modules.order".to_owned(), vec![]));
    let mut other = files(&["vmlinuz-6.1.0-9-cloud-amd64"]);
    other.push(("boot/vmlinuz-5".to_owned(), kernel("5.4.0", None)));
    let mut broken = files(&["overlay.ko.gz"]);
    broken.push((format!("lib/modules/{VERSION}/kernel/x.ko.gz"), b"\x1f\x8b\x08broken".to_vec()));
    let table = [
        (meta.as_str(), &no_kernel, "import that: `apt-get download linux-image-6.1.0-9-cloud-amd64`"),
        ("Package: linux-image-x\n", &no_kernel, "import the linux-image package with a version in its name"),
        (
            &debug,
            &no_kernel,
            "holds debug symbols, not a kernel to boot; import linux-image-6.1.0-9-cloud-amd64",
        ),
        (
            "Package: hello\n",
            &no_kernel,
            "hello holds no kernel; import a package called linux-image-*-cloud-amd64",
        ),
        (CONTROL, &two, "but the modules are for 5.4.0"),
        (CONTROL, &other, "the kernel is 5.4.0, but the modules are for 6.1.0-9-cloud-amd64"),
        (CONTROL, &broken, "cannot use the module kernel/x.ko.gz"),
        (CONTROL, &files(&["virtio_blk.ko.gz"]), "kernel 6.1.0-9-cloud-amd64 cannot run guests"),
    ];
    for (control, files, want) in table {
        let error = import(control, files).expect_err(want).to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn a_file_that_is_no_package_or_cut_short_says_so() {
    let error = import_bytes(b"<html>404</html>").expect_err("refused").to_string();
    assert!(error.contains("k.deb is no Debian package; get one with `apt-get download"), "{error}");
    let files = files(&[]);
    let files = files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect::<Vec<_>>();
    let deb = package(CONTROL, &files);
    let error = import_bytes(&deb[..deb.len() / 2]).expect_err("refused").to_string();
    assert!(error.ends_with("k.deb is cut short or damaged; download it again"), "{error}");
    let error =
        from_deb(Path::new("/none.deb"), Path::new("/tmp"), &Silent).expect_err("refused").to_string();
    assert_eq!(error, "cannot read /none.deb");
}

#[test]
fn an_import_ends_when_nobody_waits_for_it() {
    let root = unpacked(&files(&[]));
    let error = from_host(root.path(), VERSION, root.path(), &Cancelled).expect_err("cancelled");
    assert!(matches!(error, KernelError::Cancelled), "{error}");
}

/// Packages of Debian's, whole.
mod debian {
    use std::collections::BTreeSet;

    use super::*;
    use crate::host::cmd;

    /// Those among the parts that tests/run.sh makes.
    fn packages() -> Vec<PathBuf> {
        let parts = std::env::var("BANGER_TEST_PARTS").expect("BANGER_TEST_PARTS is set by tests/run.sh");
        let mut files = list(Path::new(&parts)).expect("lists");
        files
            .retain(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("linux-image-")));
        assert!(!files.is_empty(), "no kernel package among the parts");
        files
    }

    /// The lines of a table as sets of words: neither depmod's order of lines nor that of independent modules in one is ours.
    fn table(directory: &Path, name: &str) -> BTreeSet<BTreeSet<String>> {
        let text = fs::read_to_string(directory.join(name)).expect("reads");
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|w| w.trim_end_matches(':').to_owned()).collect())
            .collect()
    }

    #[test]
    #[ignore = "needs Debian's kernel packages and kmod; tests/run.sh has them"]
    fn debians_packages_are_imported_and_our_tables_say_what_depmods_say() {
        for deb in packages() {
            let dir = tempfile::tempdir().expect("a directory");
            let imported = from_deb(&deb, dir.path(), &Silent).expect("imports");
            assert!(imported.closure.snapshot);
            let ours = dir.path().join("lib/modules").join(&imported.version);
            fs::create_dir_all(&ours).expect("makes");
            imported.unpack_modules(&ours).expect("unpacks");
            for name in ["ext4", "fs-overlay", "virtio:d00000004v00001AF4", "symbol:vsock_core_register"] {
                let (root, version) = (dir.path().to_str().expect("UTF-8"), &imported.version);
                cmd::run("modprobe", ["-n", "--show-depends", "-d", root, "-S", version, name]).expect(name);
            }
            let theirs = dir.path().join("theirs/lib/modules").join(&imported.version);
            fs::create_dir_all(&theirs).expect("makes");
            imported.unpack_modules(&theirs).expect("unpacks");
            let root = dir.path().join("theirs");
            cmd::run("depmod", ["-b", root.to_str().expect("UTF-8"), &imported.version])
                .expect("depmod runs");
            for name in
                ["modules.dep", "modules.alias", "modules.symbols", "modules.softdep", "modules.devname"]
            {
                let (ours, theirs) = (table(&ours, name), table(&theirs, name));
                let difference = ours.symmetric_difference(&theirs).collect::<Vec<_>>();
                assert!(difference.is_empty(), "{} {name}: {difference:?}", imported.version);
            }
            for name in ["modules.builtin.bin", "modules.builtin.alias.bin"] {
                let (ours, theirs) = (fs::read(ours.join(name)), fs::read(theirs.join(name)));
                assert!(ours.expect("reads") == theirs.expect("reads"), "{} {name}", imported.version);
            }
        }
    }
}
