//! Debian's kernels, imported, boot under QEMU from an initramfs that we assembled, and load every module of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use banger::host::progress::Silent;
use banger::kernel::{import, initramfs};

/// The kernel packages among the parts that tests/run.sh makes.
fn packages() -> Vec<PathBuf> {
    let parts = std::env::var("BANGER_TEST_PARTS").expect("BANGER_TEST_PARTS is set by tests/run.sh");
    let files = std::fs::read_dir(parts).expect("lists the parts").map(|e| e.expect("lists").path());
    let name =
        |path: &Path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("linux-image-"));
    let packages: Vec<_> = files.filter(|path| name(path)).collect();
    assert!(!packages.is_empty(), "no kernel package among the parts");
    packages
}

fn done(command: &mut Command) {
    let status = command.stdin(Stdio::null()).status().expect("the program is installed");
    assert!(status.success(), "{command:?}: {status}");
}

/// The frequency that the kernel is told of: under emulation its own calibration may not end.
fn tsc_khz() -> u64 {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").expect("reads");
    let mhz = cpuinfo.lines().find_map(|line| line.strip_prefix("cpu MHz")?.split_once(": "));
    mhz.and_then(|(_, mhz)| mhz.parse::<f64>().ok()).map_or(2_000_000, |mhz| (mhz * 1000.0) as u64)
}

#[test]
#[ignore = "needs QEMU, gcc and Debian's kernel packages; tests/run.sh has them"]
fn every_module_of_an_imported_kernel_loads_in_its_order() {
    for deb in packages() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        let init = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernel_init.c");
        done(Command::new("gcc").args(["-static", "-Os", "-s", "-o"]).arg(path("init")).arg(init));
        let kernel = import::from_deb(&deb, dir.path(), &Silent).expect("imports");
        let binary = std::fs::read(path("init")).expect("reads");
        std::fs::write(path("initrd"), initramfs::assemble(&binary, &kernel.modules_cpio)).expect("writes");
        std::fs::write(path("vmlinux"), &kernel.vmlinux).expect("writes");
        let console = format!("file:{}", path("console").display());
        let words = format!("console=ttyS0 quiet tsc_early_khz={} panic=-1", tsc_khz());
        done(
            Command::new("timeout")
                .args(["120", "qemu-system-x86_64", "-M", "microvm,acpi=on", "-accel", "tcg", "-cpu", "max"])
                .args(["-m", "512", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
                .args(["-serial", &console, "-append", &words, "-kernel"])
                .arg(path("vmlinux"))
                .arg("-initrd")
                .arg(path("initrd")),
        );
        let console = std::fs::read(path("console")).expect("reads");
        let console = String::from_utf8_lossy(&console);
        assert!(console.contains("end of order"), "{}: {console}", kernel.version);
        assert!(!kernel.closure.modules.is_empty());
        for module in &kernel.closure.modules {
            let want = format!("load /modules/{}.ko: loaded", module.name);
            assert!(console.contains(&want), "{} {want}: {console}", kernel.version);
        }
    }
}
