//! Settings of the kernel: the bridge's, and that the host forwards packets, which is remembered and put back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::files::{create_private_dir, remove_if_present, write_atomic};
use crate::network::names::BRIDGE;

use super::links::LinkError;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// The bridge's (the kernel's networking/ip-sysctl.rst).
const IPV4: [(&str, &str); 8] = [
    // A guest's packet comes from where an answer would go.
    ("rp_filter", "1"),
    // 127.0.0.0/8 stays within the host.
    ("route_localnet", "0"),
    // A guest need not know that another VM is near.
    ("send_redirects", "0"),
    ("accept_redirects", "0"),
    ("accept_source_route", "0"),
    ("proxy_arp", "0"),
    // The bridge answers for its own address and asks with it, whatever others the host has.
    ("arp_ignore", "1"),
    ("arp_announce", "2"),
];

/// Lets the host forward packets. What it did before is kept in `directory`, once, until [`restore`].
pub fn enable(directory: &Path) -> Result<(), LinkError> {
    let before = read(IP_FORWARD)?;
    if before == "1" {
        return Ok(());
    }
    let kept = kept(directory);
    let keeping = |error| LinkError::Setting { path: kept.display().to_string(), error };
    create_private_dir(directory).map_err(keeping)?;
    write_atomic(&kept, before.as_bytes(), 0o600).map_err(keeping)?;
    write(IP_FORWARD, "1")
}

/// Whether the host forwards packets.
pub fn is_enabled() -> Result<bool, LinkError> {
    Ok(read(IP_FORWARD)? == "1")
}

/// Puts back what [`enable`] found, if it changed anything.
pub fn restore(directory: &Path) -> Result<(), LinkError> {
    let kept = kept(directory);
    let keeping = |error| LinkError::Setting { path: kept.display().to_string(), error };
    match fs::read_to_string(&kept) {
        Ok(before) => write(IP_FORWARD, before.trim())?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(keeping(e)),
    }
    remove_if_present(&kept).map_err(keeping)
}

fn kept(directory: &Path) -> PathBuf {
    directory.join("ip_forward")
}

/// The bridge's own settings. Without IPv6: guests have none, and a router advertisement of one would be believed.
pub(super) fn set_bridge() -> Result<(), LinkError> {
    for (name, value) in IPV4 {
        ensure(&format!("/proc/sys/net/ipv4/conf/{BRIDGE}/{name}"), value)?;
    }
    match ensure(&format!("/proc/sys/net/ipv6/conf/{BRIDGE}/disable_ipv6"), "1") {
        // A kernel that has no IPv6 at all.
        Err(LinkError::Setting { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What is as it should be is only read: below /proc/sys, that may be all that a confined helper can do.
fn ensure(path: &str, value: &str) -> Result<(), LinkError> {
    if read(path)? == value { Ok(()) } else { write(path, value) }
}

fn read(path: &str) -> Result<String, LinkError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(LinkError::Setting { path: path.to_owned(), error }),
    }
}

fn write(path: &str, value: &str) -> Result<(), LinkError> {
    fs::write(path, value).map_err(|error| LinkError::Setting { path: path.to_owned(), error })
}
