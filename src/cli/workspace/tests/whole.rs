//! What a guest has after a prepare, as git sees it.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::guest::Guest;
use super::{Host, git, listing};
use crate::cli::workspace::gather::{Wish, gather};

#[test]
fn a_guest_has_the_tree_as_it_is_here_and_here_nothing_was_touched() {
    let host = Host::new();
    for n in 1..15 {
        host.write(&format!("dir/{n}"), &"line\n".repeat(n));
        host.commit(&format!("commit {n}"));
    }
    host.write("run", "#!/bin/sh\n");
    std::fs::set_permissions(host.path("run"), std::fs::Permissions::from_mode(0o755)).expect("sets");
    symlink("/etc/passwd", host.path("link")).expect("links");
    host.write(".gitignore", "ignored\n");
    host.commit("kinds");
    host.git(&["tag", "light"]);
    host.git(&["tag", "-a", "-m", "text", "annotated", "HEAD~3"]);
    host.git(&["tag", "too-old", "HEAD~12"]);
    // Unstaged, deleted, staged, and staged then changed again.
    host.write("a", "changed\n");
    std::fs::remove_file(host.path("dir/1")).expect("removes");
    host.write("staged", "s\n");
    host.write("dir/2", "staged\n");
    host.git(&["add", "staged", "dir/2"]);
    host.write("dir/2", "and changed again\n");
    host.write("untracked", "u\n");
    host.write("ignored", "i\n");
    let before = listing(&host.top());

    let mut guest = Guest::new();
    let gathered = host.gather();
    let done = guest.prepare(&gathered, false).expect("brings");
    assert_eq!(listing(&host.top()), before);
    assert_eq!((done.sent, done.removed, done.commits), (18, 0, 10));
    assert_eq!(gathered.notes, ["1 untracked file stays behind; --include-untracked brings it"]);
    assert_eq!(gathered.behind, [b"untracked"]);

    assert_eq!(guest.git(&["status", "--porcelain"]), host.git(&["status", "--porcelain", "-uno"]));
    assert_eq!(guest.git(&["diff"]), host.git(&["diff"]));
    assert_eq!(guest.git(&["diff", "--cached"]), host.git(&["diff", "--cached"]));
    assert_eq!(guest.git(&["log", "--format=%H"]), host.git(&["log", "--format=%H", "-10"]));
    assert_eq!(guest.git(&["tag"]), "annotated\nlight");
    assert_eq!(guest.git(&["branch", "--show-current"]), "main");
    guest.git(&["fsck", "--full", "--strict"]);

    let whole = Wish { depth: None, untracked: true, ..host.wish() };
    let done = guest.prepare(&gather(&whole).expect("reads"), false).expect("brings");
    assert_eq!((done.sent, done.commits), (1, 6));
    assert_eq!(guest.git(&["log", "--format=%H"]), host.git(&["log", "--format=%H"]));
    assert_eq!(guest.git(&["status", "--porcelain"]), host.git(&["status", "--porcelain"]));
    assert_eq!(guest.git(&["tag"]), "annotated\nlight\ntoo-old");
    assert!(!guest.path("ignored").exists());
    guest.git(&["fsck", "--full", "--strict"]);
}

#[test]
fn history_gets_deeper_as_it_is_asked_for_and_no_object_is_missing() {
    let host = Host::new();
    for n in 1..8 {
        host.git(&["switch", "-q", "-c", &format!("side{n}")]);
        host.write(&format!("side/{n}"), &n.to_string());
        host.commit("side");
        host.git(&["switch", "-q", "main"]);
        host.write("a", &n.to_string());
        host.commit("main");
        host.git(&["merge", "-q", "--no-edit", &format!("side{n}")]);
    }
    let mut guest = Guest::new();
    for depth in [Some(2), Some(1), Some(5), Some(5), None, Some(3)] {
        let before = guest.packed;
        let done =
            guest.prepare(&gather(&Wish { depth, ..host.wish() }).expect("reads"), false).expect("brings");
        guest.git(&["fsck", "--full", "--strict"]);
        assert_eq!(guest.git(&["status", "--porcelain"]), "");
        if done.commits == 0 {
            assert_eq!(guest.packed, before, "{depth:?}: there was nothing to send");
        }
    }
    assert_eq!(guest.git(&["rev-list", "--count", "HEAD"]), host.git(&["rev-list", "--count", "HEAD"]));

    // New commits on top of a history that is cut off are joined to it.
    let mut guest = Guest::new();
    let wish = Wish { depth: Some(3), ..host.wish() };
    guest.prepare(&gather(&wish).expect("reads"), false).expect("brings");
    let had: usize = guest.git(&["rev-list", "--count", "HEAD"]).parse().expect("a number");
    host.write("a", "new");
    host.commit("new");
    host.write("a", "newer");
    host.commit("newer");
    let done = guest.prepare(&gather(&wish).expect("reads"), false).expect("brings");
    assert_eq!(done.commits, 2);
    assert_eq!(guest.git(&["rev-list", "--count", "HEAD"]), (had + 2).to_string());
    guest.git(&["fsck", "--full", "--strict"]);
    // Many, which do not reach it.
    for n in 0..6 {
        host.write("a", &format!("many {n}"));
        host.commit("many");
    }
    let done = guest.prepare(&gather(&wish).expect("reads"), false).expect("brings");
    assert_eq!(done.commits, 3);
    assert_eq!(guest.git(&["rev-list", "--count", "HEAD"]), "3");
    guest.git(&["fsck", "--full", "--strict"]);
}

#[test]
fn another_commit_on_a_branch_of_its_own_comes_as_it_was_committed() {
    let host = Host::new();
    let first = host.git(&["rev-parse", "HEAD"]);
    host.write(".gitattributes", "* filter=evil eol=crlf\n");
    host.git(&["config", "filter.evil.smudge", "touch canary"]);
    host.write("b", "second\n");
    symlink("a", host.path("l")).expect("links");
    let second = host.commit("second");
    std::fs::remove_file(host.path("b")).expect("removes");
    host.write("a", "uncommitted\n");
    let ask = |branch: &str, from: Option<&str>| {
        let (branch, from) = (Some(branch.to_owned()), from.map(str::to_owned));
        gather(&Wish { branch, from, ..host.wish() })
    };
    let mut guest = Guest::new();
    guest.prepare(&ask("try", Some(&first)).expect("reads"), false).expect("brings");
    assert_eq!(guest.git(&["rev-parse", "HEAD"]), first);
    assert_eq!(guest.git(&["status", "--porcelain", "-b"]), "## try");
    assert_eq!(std::fs::read_to_string(guest.path("a")).expect("reads"), "first\n");

    let other = host.git(&["commit-tree", "-p", &second, "-m", "third", &format!("{second}^{{tree}}")]);
    let done = guest.prepare(&ask("two", Some(&other)).expect("reads"), false).expect("brings");
    assert_eq!((done.sent, done.commits), (3, 2));
    assert_eq!(guest.git(&["status", "--porcelain", "-b"]), "## two");
    assert_eq!(std::fs::read_link(guest.path("l")).expect("a link").to_str(), Some("a"));
    guest.git(&["fsck", "--full", "--strict"]);
    assert!(!host.path("canary").exists());

    // HEAD's own name is no reason to leave uncommitted changes behind.
    let mut guest = Guest::new();
    guest.prepare(&ask("try", Some("HEAD")).expect("reads"), false).expect("brings");
    assert_eq!(guest.git(&["status", "--porcelain"]), host.git(&["status", "--porcelain"]));
    for name in ["a..b", "@{-1}", "-x", "", "a b", "refs/../x"] {
        let refused = ask(name, None).expect_err(name).to_string();
        assert!(refused.contains("is no name for a branch"), "{refused}");
    }
    assert!(ask("x", Some("no-such")).expect_err("none").to_string().ends_with("has no commit no-such"));
    assert!(ask("x", Some("--all")).is_err());
}

#[test]
fn submodules_come_with_their_files_and_histories() {
    let library = Host::new();
    library.write("deep/lib", "1\n");
    library.commit("lib");
    let host = Host::new();
    host.git(&["submodule", "add", "-q", library.top().to_str().expect("text"), "sub/lib"]);
    host.git(&["submodule", "add", "-q", library.top().to_str().expect("text"), "absent"]);
    host.commit("with submodules");
    host.git(&["submodule", "deinit", "-q", "-f", "absent"]);
    host.write("sub/lib/deep/lib", "changed\n");
    host.write("sub/lib/new", "untracked\n");
    let before = listing(host.dir.path());
    let mut guest = Guest::new();
    let gathered = host.gather();
    assert_eq!(gathered.behind, [b"sub/lib/new"]);
    let done = guest.prepare(&gathered, false).expect("brings");
    assert_eq!(listing(host.dir.path()), before);
    assert_eq!(done.commits, 4);
    let sub = guest.path("sub/lib");
    assert_eq!(git(&sub, &["status", "--porcelain"]), " M deep/lib");
    assert_eq!(git(&sub, &["log", "--format=%s"]), "lib\nfirst");
    git(&sub, &["fsck", "--full"]);
    guest.git(&["fsck", "--full"]);
    assert!(guest.path("absent").is_dir());
    assert_eq!(guest.git(&["status", "--porcelain"]), " M sub/lib");

    let packed = guest.packed;
    let done = guest.prepare(&host.gather(), false).expect("brings");
    assert_eq!((done.sent, done.commits, guest.packed), (0, 0, packed));
    git(&host.path("sub/lib"), &["commit", "-q", "-a", "-m", "sub"]);
    let done = guest.prepare(&host.gather(), false).expect("brings");
    assert_eq!((done.sent, done.commits), (0, 1));
    assert_eq!(git(&sub, &["log", "--format=%s"]), "sub\nlib\nfirst");
    git(&sub, &["fsck", "--full"]);
}

#[test]
fn a_plain_directory_comes_without_git() {
    let host = Host::new();
    host.write("untracked", "u");
    let mut guest = Guest::new();
    let copy = Wish { copy: true, ..host.wish() };
    let done = guest.prepare(&gather(&copy).expect("reads"), false).expect("brings");
    assert_eq!((done.sent, done.commits), (2, 0));
    assert!(!guest.path(".git").exists());
    host.write("a", "changed");
    let done = guest.prepare(&gather(&copy).expect("reads"), false).expect("brings");
    assert_eq!((done.sent, done.removed), (1, 0));
    assert_eq!(std::fs::read_to_string(guest.path("a")).expect("reads"), "changed");
}
