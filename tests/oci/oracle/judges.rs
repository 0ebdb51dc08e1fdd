//! Others' tools as judges: the kernel, which mounts the file; e2fsck; and umoci, which unpacks the same image.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::oracle::tree::Tree;
use crate::support::*;

/// A file system mounted by the kernel on a directory of its own; dropping it unmounts it.
pub struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    /// `options` begin with `ro` or `rw`.
    pub fn new(file: &Path, options: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        run("mount", &["-t", "ext4", "-o", &format!("loop,{options}"), text(file), text(dir.path())]);
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A panic here would abort the process and hide the test's own.
        let status = Command::new("umount").arg(self.path()).status();
        if !matches!(status, Ok(s) if s.success()) {
            eprintln!("cannot unmount {}: {status:?}", self.path().display());
        }
    }
}

/// e2fsck finds nothing, and says nothing that is not its five passes and its summary.
pub fn assert_clean(file: &Path) {
    let out =
        Command::new("/sbin/e2fsck").args(["-fn", text(file)]).env("LC_ALL", "C").output().expect("runs");
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let passes = ["Pass 1: ", "Pass 2: ", "Pass 3: ", "Pass 4: ", "Pass 5: "];
    let usual = |line: &&str| {
        line.is_empty()
            || line.starts_with("e2fsck 1.")
            || passes.iter().any(|pass| line.starts_with(pass))
            || (line.starts_with(text(file)) && line.contains("non-contiguous") && line.ends_with(" blocks"))
    };
    let odd: Vec<&str> = said.lines().filter(|line| !usual(line)).collect();
    assert!(out.status.code() == Some(0) && odd.is_empty(), "{}: {said}", out.status);
    assert!(passes.iter().all(|pass| said.contains(pass)), "{said}");
}

/// What the kernel finds in an imported file.
pub fn as_mounted(file: &Path) -> Tree {
    let mounted = Mounted::new(file, "ro");
    let mut tree = Tree::read(mounted.path());
    tree.forget("lost+found");
    tree
}

/// What umoci makes of an image in a layout.
pub fn as_unpacked(bench: &Bench, layout: &Path, tag: &str) -> Tree {
    let root = bench.path("reference");
    run("umoci", &["raw", "unpack", "--image", &format!("{}:{tag}", layout.display()), text(&root)]);
    let tree = Tree::read(&root);
    run("rm", &["-r", text(&root)]);
    tree
}

/// An image that tests/images/oracle.sh made with other people's tools.
pub fn layout_named(name: &str) -> PathBuf {
    let parts = std::env::var("BANGER_TEST_PARTS").expect("BANGER_TEST_PARTS is set by tests/run.sh");
    Path::new(&parts).join("oracle").join(name)
}
