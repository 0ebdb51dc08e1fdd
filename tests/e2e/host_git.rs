//! What tests do with git and trees on this host.

use std::path::Path;
use std::process::Command;

/// Runs `git args` in `dir`, which must succeed, and returns its stdout.
pub fn git(dir: &Path, args: &[&str]) -> String {
    let config = ["user.name=A B", "user.email=a@b", "protocol.file.allow=always"];
    let out = Command::new("git")
        .current_dir(dir)
        .args(config.iter().flat_map(|setting| ["-c", setting]))
        .args(args)
        .output()
        .expect("runs git");
    assert!(out.status.success(), "git {args:?}: {out:?}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Commits all that is in a work tree.
pub fn commit(repo: &Path, message: &str) {
    git(repo, &["add", "-A"]);
    git(repo, &["commit", "-q", "--allow-empty", "-m", message]);
}

/// Applies a patch of banger's to a work tree, or a plain directory.
pub fn apply(dir: &Path, patch: &Path) {
    git(dir, &["apply", "--whitespace=nowarn", patch.to_str().expect("text")]);
}

/// Everything in a directory but git's own: names, kinds, modes, contents.
pub fn listing(dir: &Path) -> String {
    let script = "find . -path ./.git -prune -o ! -type d -printf '%p %y %m %l\\n' -type f -exec sha256sum {} + | LC_ALL=C sort";
    let out = Command::new("sh").args(["-c", script]).current_dir(dir).output().expect("runs");
    assert!(out.status.success(), "{out:?}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}
