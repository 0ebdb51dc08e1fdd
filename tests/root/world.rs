//! All that a request could change, as other programs see it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::Value;

use crate::rig::{Rig, comm, run};

/// One text for each of its parts, to be compared.
#[derive(Debug, PartialEq, Eq)]
pub struct World(BTreeMap<String, String>);

impl World {
    pub fn of(rig: &Rig) -> Self {
        let mut parts = BTreeMap::new();
        parts.insert("ip -j -d link".to_owned(), links());
        parts.insert("ip -j addr".to_owned(), run("ip", "-j addr"));
        parts.insert("ip -j route".to_owned(), run("ip", "-j route show table all"));
        parts.insert("nft -j list ruleset".to_owned(), run("nft", "-j list ruleset"));
        parts.insert("files".to_owned(), files(rig.path()));
        parts.insert("sysctls".to_owned(), sysctls());
        for pid in rig.pids() {
            parts.insert(format!("descriptors of {}", comm(pid)), descriptors(pid));
        }
        Self(parts)
    }

    /// The parts that differ, with both texts.
    pub fn difference(&self, later: &Self) -> Vec<String> {
        let parts = self.0.keys().chain(later.0.keys()).collect::<std::collections::BTreeSet<_>>();
        let differ = parts.into_iter().filter(|part| self.0.get(*part) != later.0.get(*part));
        differ
            .map(|part| format!("{part}:\nbefore: {:?}\nafter:  {:?}", self.0.get(part), later.0.get(part)))
            .collect()
    }
}

/// Without the bridge's clocks, which run.
fn links() -> String {
    let mut links: Value = serde_json::from_str(&run("ip", "-j -d link")).expect("JSON");
    for link in links.as_array_mut().expect("a list") {
        if let Some(data) = link["linkinfo"]["info_data"].as_object_mut() {
            data.retain(|key, _| !key.ends_with("_timer"));
        }
    }
    links.to_string()
}

/// Every name below `directory`, with whose it is, its mode, what it is and what it holds.
pub fn files(directory: &Path) -> String {
    let mut text = String::new();
    let mut entries: Vec<_> =
        std::fs::read_dir(directory).expect("lists").map(|e| e.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        let meta = std::fs::symlink_metadata(&path).expect("looks");
        let kind = meta.file_type();
        let content = match () {
            () if kind.is_symlink() => format!("-> {}", std::fs::read_link(&path).expect("reads").display()),
            () if kind.is_file() => format!("{:x?}", blake3::hash(&std::fs::read(&path).expect("reads"))),
            () if kind.is_socket() => "socket".to_owned(),
            () => String::new(),
        };
        writeln!(text, "{} {:o} {}:{} {content}", path.display(), meta.mode(), meta.uid(), meta.gid())
            .expect("writes");
        if kind.is_dir() {
            text += &files(&path);
        }
    }
    text
}

/// The network's settings of every link, and those that let packets through.
fn sysctls() -> String {
    let mut text = String::new();
    for path in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"] {
        read_all(Path::new(path), &mut text);
    }
    text
}

fn read_all(path: &Path, text: &mut String) {
    if path.is_dir() {
        let mut entries: Vec<_> =
            std::fs::read_dir(path).expect("lists").map(|e| e.expect("an entry").path()).collect();
        entries.sort();
        for path in entries {
            read_all(&path, text);
        }
    } else if let Ok(value) = std::fs::read_to_string(path) {
        // Some may only be written, or read once they have a value (stable_secret).
        writeln!(text, "{} {}", path.display(), value.trim()).expect("writes");
    }
}

/// What the process has open, without the numbers that the kernel gives to sockets.
fn descriptors(pid: u32) -> String {
    let mut open: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("lists")
        .filter_map(|fd| std::fs::read_link(fd.expect("an entry").path()).ok())
        .map(|target| target.display().to_string())
        .map(|target| target.split(":[").next().unwrap_or_default().to_owned())
        .collect();
    open.sort();
    open.join("\n")
}
