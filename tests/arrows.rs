//! The source tree's arrows (lib.rs, DESIGN): who may use whom. A `use crate::` or `crate::path` that points the wrong way
//! fails here, so that the list of what root/ can reach stays an audit surface that one can read in an evening.

use std::fs;
use std::path::{Path, PathBuf};

/// From a folder or file of src/ to what it may use. The first entry that is a prefix of the path decides.
const ALLOWED: &[(&str, &[&str])] = &[
    // Domain: pure.
    ("vm/", &["vm"]),
    ("image/", &["image"]),
    ("network/", &["network", "vm"]),
    ("kernel/record.rs", &[]),
    ("git/", &["git"]),
    ("proto/", &["proto", "vm", "image", "network", "git", "kernel::record"]),
    // Mechanisms: the domain, the host, and never each other; but layers become ext4 in one pass.
    ("host/", &["host", "vm"]),
    ("netlink/", &["netlink", "network"]),
    ("dns/", &["dns", "host", "network", "vm"]),
    ("ext4/", &["ext4", "host"]),
    ("oci/", &["oci", "ext4", "host", "image", "vm"]),
    ("catalog/", &["catalog", "host", "image", "kernel::record"]),
    ("kernel/", &["kernel", "host", "vm"]),
    ("vmm/", &["vmm", "host", "vm", "network"]),
    ("system/", &["system", "host"]),
    // What the command line and the daemon both send to a guest's agent.
    ("copy/", &["copy", "proto", "host"]),
    // An update is an installation that replaces itself.
    ("updater/", &["updater", "system", "host", "release"]),
    ("release/", &["release"]),
    ("store/", &["store", "host", "vm", "image", "network", "kernel::record"]),
    // Personalities.
    // The one table of keys: whoever goes by a key says how it is read.
    (
        "config/",
        &[
            "config",
            "host",
            "vm",
            "network",
            "catalog::KeyAt",
            "catalog::EMBEDDED_KEY",
            "oci::Limits",
            "oci::registries",
            "root::Settings",
            "updater::settings",
        ],
    ),
    ("guest/", &["guest", "netlink", "host", "proto", "vm", "image", "git", "build"]),
    // The audit surface: what runs as root can reach this, and no more.
    ("root/", &["root", "network", "netlink", "vm", "vmm", "proto::root", "host", "build"]),
    // It makes bundles where there is no daemon; what it does that with is not the command line's business.
    ("publish/release", &["release", "updater", "host"]),
    ("publish.rs", &["catalog", "oci", "kernel", "host", "image", "vm"]),
    // A test in which both sides speak to each other.
    ("cli/workspace/tests/agent.rs", &["cli", "guest", "host", "proto"]),
    (
        "cli/",
        &[
            "cli", "config", "copy", "proto", "host", "vm", "image", "network", "git", "build", "publish",
            "release", "system", "updater",
        ],
    ),
    (
        "daemon/",
        &[
            "daemon",
            "config",
            "copy",
            "proto",
            "host",
            "vm",
            "image",
            "kernel",
            "oci",
            "ext4",
            "vmm",
            "store",
            "build",
            "netlink",
            "catalog",
            "network",
            "dns",
            "root",
            "release::journal",
            "system::layout",
        ],
    ),
    ("personality.rs", &["build", "cli", "daemon", "guest", "root"]),
    ("build.rs", &[]),
    ("main.rs", &[]),
    (
        "lib.rs",
        &[
            "vm", "image", "network", "kernel", "proto", "host", "ext4", "oci", "vmm", "dns", "store", "cli",
            "daemon", "root", "guest", "system", "updater", "release", "git", "config", "copy",
        ],
    ),
];

#[test]
fn no_module_uses_one_that_it_may_not() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = vec![];
    for file in rust_files(&src) {
        let name = file.strip_prefix(&src).expect("below src").to_str().expect("UTF-8").to_owned();
        let Some((_, allowed)) = ALLOWED.iter().find(|(from, _)| name.starts_with(from)) else {
            wrong.push(format!("{name} has no entry in the table"));
            continue;
        };
        let text = fs::read_to_string(&file).expect("reads");
        for target in targets(&text) {
            let fits = |to: &&str| target == **to || target.starts_with(&format!("{to}::"));
            if !allowed.iter().any(fits) {
                wrong.push(format!("{name} uses crate::{target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "forbidden arrows:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_arrows_sees_every_form_of_them() {
    let text = "use crate::vm::id::VmId;\nuse crate::{build, cli::x, oci::{a, b}};\nlet x = crate::host::cmd::run();\n// crate::no::comment\n";
    assert_eq!(targets(text), ["vm::id::VmId", "build", "cli::x", "oci::a", "oci::b", "host::cmd::run"]);
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in fs::read_dir(dir).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Every path after `crate::`, with groups in braces spread out. Comments do not count.
fn targets(text: &str) -> Vec<String> {
    let code: String =
        text.lines().filter(|l| !l.trim_start().starts_with("//")).map(|l| format!("{l}\n")).collect();
    let mut found = vec![];
    let mut rest = code.as_str();
    while let Some(at) = rest.find("crate::") {
        // `$crate::` of a macro and `other_crate::` are not ours.
        let ours = !rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        rest = &rest[at + "crate::".len()..];
        if ours {
            spread(rest, "", &mut found);
        }
    }
    found
}

/// Reads one use tree at the start of `text` and returns what follows it.
fn spread<'a>(text: &'a str, prefix: &str, found: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    let path = format!("{prefix}{path}");
    let Some(mut inner) = rest.strip_prefix('{').filter(|_| path.is_empty() || path.ends_with("::")) else {
        found.push(path.trim_end_matches(':').to_owned());
        return rest;
    };
    loop {
        inner = inner.trim_start();
        if let Some(after) = inner.strip_prefix('}') {
            return after;
        }
        inner = spread(inner, &path, found);
        let stop = inner.find([',', '}']).unwrap_or(inner.len());
        inner = inner[stop..].strip_prefix(',').unwrap_or(&inner[stop..]);
        if inner.is_empty() {
            return inner;
        }
    }
}
