//! What this executable is: stamped by build.rs.

pub const VERSION: &str = env!("BANGER_VERSION");
pub const COMMIT: &str = env!("BANGER_COMMIT");
/// RFC 3339, UTC.
pub const BUILT: &str = env!("BANGER_BUILT");
pub const TARGET: &str = env!("BANGER_TARGET");

/// The public keys in PEM, one after the other, that judge updates. A build without any has a placeholder, which trusts nobody.
pub const RELEASE_KEYS: &str = include_str!(env!("BANGER_RELEASE_KEYS"));

/// `banger v0.1.0 (commit abcd1234, built 2026-11-23T15:00:00Z)`, the one line of `--version`.
pub fn version_line() -> String {
    format!("banger v{VERSION} (commit {}, built {BUILT})", &COMMIT[..COMMIT.len().min(8)])
}
