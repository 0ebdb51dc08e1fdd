//! The comparer: what is in a directory tree, all of it, and how two of them differ.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

/// What can be said of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    Type,
    Mode,
    Owner,
    Mtime,
    Size,
    Sha256,
    /// Of a symlink.
    Target,
    /// The first path, in order, of those that are the same inode.
    LinkedTo,
    Device,
    Xattrs,
}

type Fields = BTreeMap<Field, String>;

/// Paths from the root, which is the empty one, with everything that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree(BTreeMap<Vec<u8>, Fields>);

impl Tree {
    pub fn read(root: &Path) -> Self {
        let mut found = BTreeMap::new();
        let mut inodes = BTreeMap::new();
        let mut todo = vec![vec![]];
        while let Some(path) = todo.pop() {
            let on_disk = below(root, &path);
            let fields = fields(&on_disk);
            if fields[&Field::Type] == "directory" {
                for entry in fs::read_dir(&on_disk).unwrap_or_else(|e| panic!("{}: {e}", on_disk.display())) {
                    let name = entry.expect("lists").file_name().into_vec();
                    todo.push(if path.is_empty() { name } else { [&path[..], b"/", &name].concat() });
                }
            } else {
                let meta = fs::symlink_metadata(&on_disk).expect("stats");
                inodes.entry(meta.ino()).or_insert_with(Vec::new).push(path.clone());
            }
            found.insert(path, fields);
        }
        for mut names in inodes.into_values() {
            names.sort();
            for name in &names {
                let fields = found.get_mut(name).expect("was found");
                fields.insert(Field::LinkedTo, names[0].escape_ascii().to_string());
            }
        }
        Self(found)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn field(&self, path: &str, field: Field) -> Option<&str> {
        self.0.get(path.as_bytes())?.get(&field).map(String::as_str)
    }

    /// Forgets a path, which must be there.
    pub fn forget(&mut self, path: &str) {
        assert!(self.0.remove(path.as_bytes()).is_some(), "there is no {path}");
    }

    /// Forgets one field of a path that must be there. This is how exemptions are made: one by one.
    pub fn forget_field(&mut self, path: &str, field: Field) {
        let fields = self.0.get_mut(path.as_bytes()).unwrap_or_else(|| panic!("there is no {path}"));
        fields.remove(&field);
    }

    /// One line for each difference; none: they are equal. Only the first ones, if there are many.
    pub fn differences(&self, wanted: &Self) -> Vec<String> {
        let mut lines = vec![];
        let mut say = |path: &[u8], what: String| lines.push(format!("'{}': {what}", path.escape_ascii()));
        for path in self.0.keys().filter(|path| !wanted.0.contains_key(*path)) {
            say(path, "is too much".to_owned());
        }
        for (path, want) in &wanted.0 {
            let Some(have) = self.0.get(path) else {
                say(path, "is missing".to_owned());
                continue;
            };
            let mut names: Vec<_> = have.keys().chain(want.keys()).collect();
            names.sort();
            names.dedup();
            for name in names.into_iter().filter(|name| have.get(name) != want.get(name)) {
                let told = |fields: &Fields| fields.get(name).map_or("nothing".to_owned(), Clone::clone);
                say(path, format!("{name:?} is {}, not {}", told(have), told(want)));
            }
        }
        if lines.len() > 40 {
            let more = lines.len() - 40;
            lines.truncate(40);
            lines.push(format!("and {more} more"));
        }
        lines
    }
}

fn below(root: &Path, path: &[u8]) -> PathBuf {
    // Without this the root's own path would get a slash, and a symlink in its place would be followed.
    if path.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(path)) }
}

fn fields(path: &Path) -> Fields {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let kind = meta.file_type();
    let mut fields = Fields::from([
        (Field::Mode, format!("{:04o}", meta.mode() & 0o7777)),
        (Field::Owner, format!("{}:{}", meta.uid(), meta.gid())),
        (Field::Mtime, format!("{}.{:09}", meta.mtime(), meta.mtime_nsec())),
        (Field::Xattrs, xattrs(path)),
    ]);
    let kind = if kind.is_dir() {
        "directory"
    } else if kind.is_file() {
        fields.insert(Field::Size, meta.size().to_string());
        fields.insert(Field::Sha256, sha256_of(path));
        "file"
    } else if kind.is_symlink() {
        let target = fs::read_link(path).expect("reads a link").into_os_string().into_vec();
        fields.insert(Field::Target, target.escape_ascii().to_string());
        "symlink"
    } else if kind.is_fifo() {
        "fifo"
    } else if kind.is_socket() {
        "socket"
    } else {
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        fields.insert(Field::Device, format!("{major}:{minor}"));
        if kind.is_block_device() { "block device" } else { "character device" }
    };
    fields.insert(Field::Type, kind.to_owned());
    fields
}

fn sha256_of(path: &Path) -> String {
    let mut file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).unwrap_or_else(|e| panic!("{}: {e}", path.display())) {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    hash.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// All extended attributes in all namespaces, in order; ACLs are two of them.
fn xattrs(path: &Path) -> String {
    let mut names = vec![0; 64 << 10];
    let n =
        rustix::fs::llistxattr(path, &mut names[..]).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut lines: Vec<String> = names[..n]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let n = rustix::fs::lgetxattr(path, name, &mut value[..])
                .unwrap_or_else(|e| panic!("{} of {}: {e}", name.escape_ascii(), path.display()));
            format!("{}={}", name.escape_ascii(), value[..n].escape_ascii())
        })
        .collect();
    lines.sort();
    lines.join(" ")
}
