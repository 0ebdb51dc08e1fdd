//! Stamps the version line: the commit, the build time and the target this binary is made from.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    // A rebuild of the same commit can be made byte-identical (reproducible-builds.org, SOURCE_DATE_EPOCH).
    let built = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()));
    println!("cargo:rustc-env=BANGER_COMMIT={commit}");
    println!("cargo:rustc-env=BANGER_BUILT={}", rfc3339(built));
    println!("cargo:rustc-env=BANGER_VERSION={}", version());
    println!("cargo:rustc-env=BANGER_RELEASE_KEYS={}", release_keys());
    println!("cargo:rustc-env=BANGER_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src");
    if std::env::var("PROFILE").is_ok_and(|p| p == "release")
        && std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64")
    {
        // The linker there is lld (Rust 1.90). Functions with the same code are one, and relocations are packed (glibc 2.36 and later
        // unpack them): a tenth less to load, and to pack into every initramfs.
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=safe,--pack-dyn-relocs=relr");
    }
    // The commit is HEAD's; `git rev-parse --git-path` finds it in a worktree too.
    for path in ["HEAD", "logs/HEAD"] {
        if let Some(file) = git(&["rev-parse", "--git-path", path]) {
            println!("cargo:rerun-if-changed={file}");
        }
    }
}

/// Cargo.toml's, or `BANGER_BUILD_VERSION`, for a release that differs from another in nothing else.
fn version() -> String {
    println!("cargo:rerun-if-env-changed=BANGER_BUILD_VERSION");
    std::env::var("BANGER_BUILD_VERSION").or_else(|_| std::env::var("CARGO_PKG_VERSION")).unwrap_or_default()
}

/// The file whose public keys judge updates: `BANGER_RELEASE_KEYS`, or the one in the source.
fn release_keys() -> String {
    println!("cargo:rerun-if-env-changed=BANGER_RELEASE_KEYS");
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let path =
        std::env::var("BANGER_RELEASE_KEYS").unwrap_or_else(|_| format!("{here}/src/updater/keys.pem"));
    println!("cargo:rerun-if-changed={path}");
    path
}

fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    out.status.success().then(|| text.trim().to_owned())
}

/// `secs` since 1970 as UTC (Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days).
fn rfc3339(secs: u64) -> String {
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}
