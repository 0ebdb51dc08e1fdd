//! Work trees of unusual kinds.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::guest::Guest;
use super::{Host, git, sentence, try_git};
use crate::cli::workspace::gather::{Wish, gather, head_of};
use crate::host::cmd::git::Patience;

#[test]
fn names_of_every_kind_arrive() {
    let host = Host::new();
    let long = "long/".repeat(40) + &"n".repeat(200);
    let deep = "d/".repeat(60) + "deep";
    for name in
        ["new\nline", "tab\there", "quote\"'\\", "-dash", "Case", "case", "sp ace ", "..dots", &long, &deep]
    {
        host.write(name, name);
    }
    std::fs::write(host.path(OsStr::from_bytes(b"not\xffutf8")), "x").expect("writes");
    host.write("empty", "");
    symlink("t/".repeat(100) + "arget", host.path("long-link")).expect("links");
    symlink("", host.path("empty-link")).unwrap_or_default();
    host.commit("names");
    let mut guest = Guest::new();
    guest.prepare(&host.gather(), false).expect("brings");
    assert_eq!(guest.git(&["status", "--porcelain"]), "");
    assert_eq!(guest.git(&["ls-files", "-s"]), host.git(&["ls-files", "-s"]));
    let done = guest.prepare(&host.gather(), false).expect("brings");
    assert_eq!((done.sent, done.removed), (0, 0));
}

#[test]
fn repositories_of_other_kinds_are_read() {
    // Objects named by SHA-256.
    let host = Host::with(&["--object-format=sha256"]);
    host.write("b", "b");
    let mut guest = Guest::new();
    host.git(&["add", "b"]);
    guest.prepare(&host.gather(), false).expect("brings");
    assert_eq!(guest.git(&["status", "--porcelain"]), "A  b");
    let done = guest.prepare(&host.gather(), false).expect("brings");
    assert_eq!((done.sent, done.commits), (0, 0));

    // A commit without files.
    let host = Host::new();
    host.git(&["rm", "-q", "a"]);
    host.commit("empty");
    let mut guest = Guest::new();
    guest.prepare(&host.gather(), false).expect("brings");
    assert_eq!(guest.git(&["log", "--format=%s"]), "empty\nfirst");
    assert_eq!(guest.git(&["status", "--porcelain"]), "");

    // Detached, sparse, shallow, with an unfinished merge and a file that is only announced.
    let host = Host::new();
    host.write("in/f", "1");
    host.write("out/f", "1");
    host.commit("dirs");
    host.git(&["switch", "-q", "-c", "side"]);
    host.write("in/f", "side");
    host.commit("side");
    host.git(&["switch", "-q", "main"]);
    host.write("in/f", "main");
    let head = host.commit("main");
    let origin = format!("file://{}", host.top().display());
    let clone = host.dir.path().join("clone");
    git(host.dir.path(), &["clone", "-q", "--depth=2", "--no-single-branch", &origin, "clone"]);
    git(&clone, &["checkout", "-q", "--detach", &head]);
    git(&clone, &["sparse-checkout", "set", "in"]);
    assert!(!try_git(&clone, &["merge", "-q", "origin/side"]).0);
    std::fs::write(clone.join("announced"), "x").expect("writes");
    git(&clone, &["add", "-N", "announced"]);
    let wish = Wish { path: clone.clone(), depth: None, ..host.wish() };
    let mut guest = Guest::new();
    guest.prepare(&gather(&wish).expect("reads"), false).expect("brings");
    assert_eq!(guest.git(&["rev-parse", "--abbrev-ref", "HEAD"]), "HEAD");
    assert_eq!(guest.git(&["rev-list", "--count", "HEAD"]), "2");
    assert_eq!(guest.git(&["ls-files", "-u"]), git(&clone, &["ls-files", "-u"]));
    assert!(guest.path("announced").exists() && !guest.path("out/f").exists());
    guest.git(&["fsck", "--full"]);
}

#[test]
fn a_linked_work_tree_is_its_own_and_a_path_below_one_is_the_whole() {
    let host = Host::new();
    host.write("dir/f", "1");
    host.commit("dir");
    host.git(&["worktree", "add", "-q", "-b", "side", "../linked"]);
    let linked = host.dir.path().join("linked");
    std::fs::write(linked.join("a"), "linked").expect("writes");
    let mut guest = Guest::new();
    guest
        .prepare(&gather(&Wish { path: linked.clone(), ..host.wish() }).expect("reads"), false)
        .expect("brings");
    assert_eq!(guest.git(&["status", "--porcelain", "-b"]), "## side\n M a");
    let below = gather(&Wish { path: host.path("dir"), ..host.wish() }).expect("reads");
    assert_eq!((below.top.clone(), below.items.len()), (host.top(), 2));
    assert_eq!(below.guest_path(), "/root/repo");
    assert_eq!(head_of(&linked, &Patience::default()), Some(host.git(&["rev-parse", "HEAD"])));
    assert_eq!(head_of(Path::new("/no/such"), &Patience::default()), None);

    // A submodule by itself is a repository as well.
    let outer = Host::new();
    outer.git(&["submodule", "add", "-q", host.top().to_str().expect("text"), "sub"]);
    let sub = gather(&Wish { path: outer.path("sub/dir"), ..host.wish() }).expect("reads");
    assert_eq!(sub.top, outer.path("sub"));
}

#[test]
fn what_cannot_be_brought_is_said_in_a_sentence() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let host = Host::new();
    std::fs::write(at("file"), "").expect("writes");
    std::fs::create_dir(at("plain")).expect("makes");
    git(dir.path(), &["init", "-q", "--bare", "bare"]);
    git(dir.path(), &["init", "-q", "unborn"]);
    std::fs::create_dir_all(at("broken/.git")).expect("makes");
    std::fs::write(at("broken/.git/HEAD"), "ref: refs/heads/main\n").expect("writes");
    let table = [
        ("none", "/none does not exist"),
        ("file", "/file is no directory; name a git work tree, or copy single files with `banger vm cp`"),
        ("plain", "/plain is not in a git repository; --copy brings a plain directory as it is"),
        ("bare", "/bare is a bare repository and has no files; clone it, and name the clone"),
        ("unborn", "/unborn has no commit yet; make one, or bring the files alone with --copy"),
        ("broken", "git rev-parse failed: not a git repository"),
    ];
    for (name, want) in table {
        let said = sentence(gather(&Wish { path: at(name), ..host.wish() }));
        assert!(said.contains(want), "{name}: {said}");
        if ["plain", "unborn", "broken"].contains(&name) {
            gather(&Wish { path: at(name), copy: true, ..host.wish() }).expect(name);
        }
    }
}
