//! A file system in the making, and the judges.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use banger::ext4::tree::{Content, Inode, InodeId, Kind, Meta, Time, Tree};
use banger::ext4::{Image, Seed, WriteError, finish};

pub struct Disk {
    dir: tempfile::TempDir,
    pub tree: Tree,
    pub image: Image,
}

/// A finished file system.
pub struct Made {
    _dir: tempfile::TempDir,
    pub path: PathBuf,
}

pub fn meta() -> Meta {
    Meta {
        mode: 0o644,
        uid: 1000,
        gid: 50,
        mtime: Time { seconds: 1_700_000_000, nanoseconds: 5 },
        ..Meta::default()
    }
}

pub fn directory() -> Inode {
    Inode { meta: Meta { mode: 0o755, ..meta() }, kind: Kind::Directory(BTreeMap::new()) }
}

impl Disk {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = File::options().read(true).write(true).create_new(true).open(dir.path().join("disk"));
        Self { image: Image::new(file.expect("a file")), tree: Tree::default(), dir }
    }

    pub fn add(&mut self, parent: InodeId, name: &str, inode: Inode) -> InodeId {
        self.tree.insert(parent, name.as_bytes(), inode, 0)
    }

    pub fn put(&mut self, name: &str, kind: Kind) -> InodeId {
        self.add(InodeId::ROOT, name, Inode { meta: meta(), kind })
    }

    /// A file of `size` bytes that has `data` at some places.
    pub fn content(&mut self, size: u64, data: &[(u64, &[u8])]) -> Content {
        let mut file = self.image.file(size);
        for (at, bytes) in data {
            file.seek(*at).expect("goes on");
            file.write(bytes).expect("writes");
        }
        file.finish().expect("ends")
    }

    pub fn file(&mut self, name: &str, size: u64, data: &[(u64, &[u8])]) -> InodeId {
        let content = self.content(size, data);
        self.put(name, Kind::File(content))
    }

    pub fn try_finish(self, min_bytes: u64) -> Result<Made, WriteError> {
        let path = self.dir.path().join("disk");
        finish(self.image, self.tree, Seed([7; 32]), min_bytes, &|| false)?;
        Ok(Made { _dir: self.dir, path })
    }

    pub fn finish(self) -> Made {
        let made = self.try_finish(0).expect("fits");
        made.check();
        made
    }
}

impl Made {
    /// e2fsck has nothing to say beside its passes and its summary.
    pub fn check(&self) {
        let out =
            Command::new("/sbin/e2fsck").arg("-fn").arg(&self.path).output().expect("e2fsprogs is installed");
        let text = String::from_utf8_lossy(&out.stdout);
        let odd = |line: &&str| !line.starts_with("Pass ") && !line.contains("% non-contiguous");
        let odd: Vec<&str> = text.lines().filter(odd).collect();
        assert!(out.status.success() && odd.is_empty(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    }

    /// What debugfs says to a command.
    pub fn debugfs(&self, command: &str) -> String {
        let out = Command::new("/sbin/debugfs").args(["-R", command]).arg(&self.path).output().expect("runs");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    pub fn cat(&self, name: &str) -> Vec<u8> {
        let command = format!("cat /{name}");
        Command::new("/sbin/debugfs").args(["-R", &command]).arg(&self.path).output().expect("runs").stdout
    }
}
