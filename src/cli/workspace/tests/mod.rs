//! Real repositories, looked at with git: brought to a guest that is made of git and tar alone (guest.rs), or to the agent itself (agent.rs).

mod again;
mod agent;
mod flags;
mod guest;
mod hostile;
mod many;
mod odd;
mod repeated;
mod round_trip;
mod waiting;
mod whole;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::WorkspaceError;
use super::gather::{DEPTH, Gathered, Wish, gather};
use crate::host::cmd::git::Patience;

/// A repository in a directory of its own, with one commit.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(options: &[&str]) -> Self {
        let host = Self { dir: tempfile::tempdir().expect("a directory") };
        std::fs::create_dir(host.top()).expect("makes");
        git(&host.top(), &[&["init", "-q", "-b", "main"], options].concat());
        host.write("a", "first\n");
        host.commit("first");
        host
    }

    fn top(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.top().join(name.as_ref())
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
        std::fs::write(path, text).expect("writes");
    }

    fn git(&self, args: &[&str]) -> String {
        git(&self.top(), args)
    }

    fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn wish(&self) -> Wish {
        let patience = Patience::default();
        let (branch, from) = (None, None);
        Wish { path: self.top(), copy: false, branch, from, depth: Some(DEPTH), untracked: false, patience }
    }

    fn gather(&self) -> Gathered {
        gather(&self.wish()).expect("is read")
    }
}

/// Somebody's git, with an identity and nothing else of the environment.
fn git(dir: &Path, args: &[&str]) -> String {
    let (ok, out, err) = try_git(dir, args);
    assert!(ok, "git {args:?}: {err}");
    out
}

fn try_git(dir: &Path, args: &[&str]) -> (bool, String, String) {
    let out = command(dir, args).output().expect("runs git");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    (out.status.success(), text(&out.stdout), text(&out.stderr))
}

fn git_fed(dir: &Path, args: &[&str], input: &str) {
    let mut git = command(dir, args).stdin(Stdio::piped()).spawn().expect("runs git");
    git.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("writes");
    assert!(git.wait().expect("ends").success(), "git {args:?} of {input}");
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let config = [
        "user.name=A B",
        "user.email=a@b",
        "protocol.file.allow=always",
        "core.hooksPath=/dev/null",
        // Many files would have it repack behind our back.
        "gc.auto=0",
        "maintenance.auto=false",
    ];
    let mut git = Command::new("git");
    git.current_dir(dir).args(config.iter().flat_map(|setting| ["-c", setting])).args(args);
    git.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", "/nonexistent");
    git
}

/// Everything below `dir`: kind, mode, times and content. What has been read only has the same afterwards.
fn listing(dir: &Path) -> BTreeMap<PathBuf, String> {
    listing_but(dir, |_| false)
}

/// The same, without what is `left_out`, and all below it.
fn listing_but(dir: &Path, left_out: impl Fn(&Path) -> bool) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        if left_out(&path) {
            continue;
        }
        let meta = std::fs::symlink_metadata(&path).expect("stats");
        let content = match meta.file_type() {
            kind if kind.is_file() => blake3::hash(&std::fs::read(&path).expect("reads")).to_string(),
            kind if kind.is_dir() => {
                left.extend(
                    std::fs::read_dir(&path).expect("lists").map(|entry| entry.expect("an entry").path()),
                );
                String::new()
            }
            _ => String::new(),
        };
        let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        all.insert(path, format!("{:o} {times:?} {content}", meta.mode()));
    }
    all
}

fn sentence<T>(result: Result<T, WorkspaceError>) -> String {
    match result {
        Ok(_) => "went well".to_owned(),
        Err(e) => e.to_string(),
    }
}
