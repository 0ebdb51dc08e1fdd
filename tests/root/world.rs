//! All that a request could change, as other programs see it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rig::{Rig, comm, run, until};

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

    /// Once it does not change any more: connections that have been answered still take a moment to be closed.
    pub fn at_rest(rig: &Rig) -> Self {
        let mut world = Self::of(rig);
        until(|| {
            let again = Self::of(rig);
            let same = world == again;
            world = again;
            same
        });
        world
    }

    /// The parts that differ, and where they begin to.
    pub fn difference(&self, later: &Self) -> Vec<String> {
        let parts = self.0.keys().chain(later.0.keys()).collect::<BTreeSet<_>>();
        let text = |world: &Self, part: &String| world.0.get(part).cloned().unwrap_or_default();
        let differ = parts.into_iter().filter(|part| text(self, part) != text(later, part));
        differ
            .map(|part| {
                let (before, after) = (text(self, part), text(later, part));
                let same = before.bytes().zip(after.bytes()).take_while(|(a, b)| a == b).count();
                let from =
                    |text: &str| text.chars().skip(same.saturating_sub(60)).take(200).collect::<String>();
                format!("{part}: before: ..{}.. after: ..{}..", from(&before), from(&after))
            })
            .collect()
    }

    /// What still differs from this after a while: links, and the routes over them, take a moment to come to rest.
    pub fn lasting_difference(&self, look: impl Fn() -> Self) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(3);
        loop {
            let difference = self.difference(&look());
            if difference.is_empty() || Instant::now() > until {
                return difference;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Without the numbers that nf_tables gives to rules, which are others when the same ruleset is loaded again.
    pub fn without_handles(mut self) -> Self {
        let part = self.0.get_mut("nft -j list ruleset").expect("it was looked at");
        let mut ruleset: Value = serde_json::from_str(part).expect("JSON");
        forget_handles(&mut ruleset);
        *part = ruleset.to_string();
        self
    }
}

fn forget_handles(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("handle");
            object.values_mut().for_each(forget_handles);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_handles),
        _ => {}
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
