//! There and back again, between the two sides as they are.

use super::agent::Agent;
use super::{Host, git_fed, sentence};

fn apply(host: &Host, patch: &str, args: &[&str]) {
    git_fed(&host.top(), &[&["apply"], args].concat(), patch);
}

#[test]
fn what_was_done_in_the_guest_comes_back_as_a_patch() {
    let host = Host::new();
    host.write("gone", "0\n");
    host.commit("more");
    let guest = Agent::new();
    guest.prepare(&host.gather(), false).expect("brings");
    assert_eq!(guest.read("a").as_deref(), Some("first\n"));
    guest.git(&["rm", "-q", "gone"]);
    guest.write("a", "second\n");
    guest.write("new", "1\n");
    apply(&host, &guest.patch(&host), &["--index"]);
    assert_eq!(host.git(&["status", "--porcelain"]), "M  a\nD  gone\nA  new");
    assert_eq!(std::fs::read_to_string(host.path("a")).expect("reads"), "second\n");
}

#[test]
fn what_came_back_as_a_patch_is_there_already() {
    let host = Host::new();
    for name in
        ["changed", "committed", "deleted", "mode", "moved", "staged", "to-dir", "to-link", "from-dir/f"]
    {
        host.write(name, name);
    }
    host.commit("more");
    let guest = Agent::new();
    guest.prepare(&host.gather(), false).expect("brings");
    change(&guest);
    let patch = guest.patch(&host);
    apply(&host, &patch, &[]);
    // New files are not tracked here, and stay behind.
    let done = guest.prepare(&host.gather(), false).expect("both are the same");
    assert_eq!((done.sent, done.removed), (0, 0));
    // Tracked now, they are in the way, and the same.
    host.git(&["add", "-A"]);
    let done = guest.prepare(&host.gather(), false).expect("both are the same");
    assert_eq!((done.sent, done.removed), (0, 0));
    assert_eq!(guest.git(&["diff", "--name-only"]), "");
    assert_eq!(guest.git(&["ls-files", "-s"]), host.git(&["ls-files", "-s"]));
    guest.git(&["fsck", "--full", "--strict"]);
    // It counts as placed: nothing differs, and what it was can be had once it is changed again.
    assert_eq!(guest.patch(&host), "");
    guest.write("new", "newer");
    guest.write("changed", "changed again");
    let patch = guest.patch(&host);
    assert!(patch.contains("-new\n") && patch.contains("-guest's\n"), "{patch}");
    apply(&host, &patch, &["--index"]);
    host.commit("the guest's");
    let done = guest.prepare(&host.gather(), false).expect("both are the same");
    assert_eq!((done.sent, done.removed, done.commits), (0, 0, 1));
    assert_eq!(guest.git(&["status", "--porcelain"]), "");
    guest.git(&["fsck", "--full", "--strict"]);
}

/// A change of each kind, with a newline at the end of what is new.
fn change(guest: &Agent) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    guest.write("committed", "guest's\n");
    guest.git(&["commit", "-qam", "in the guest"]);
    guest.git(&["reset", "-q", "--soft", "HEAD~1"]);
    guest.git(&["reset", "-q"]);
    guest.write("changed", "guest's\n");
    guest.write("staged", "guest's\n");
    guest.write("new", "new\n");
    guest.write("deeper/new", "new\n");
    for gone in ["deleted", "moved", "to-dir", "to-link", "from-dir/f"] {
        std::fs::remove_file(guest.path(gone)).expect("removes");
    }
    guest.write("moved-to", "moved");
    guest.write("to-dir/f", "to-dir");
    std::fs::remove_dir(guest.path("from-dir")).expect("removes");
    guest.write("from-dir", "from-dir");
    symlink("mode", guest.path("to-link")).expect("links");
    std::fs::set_permissions(guest.path("mode"), PermissionsExt::from_mode(0o755)).expect("sets the mode");
    guest.git(&["add", "staged"]);
}

#[test]
fn a_branch_that_came_back_and_was_merged_is_there_already() {
    let host = Host::new();
    let guest = Agent::new();
    guest.prepare(&host.gather(), false).expect("brings");
    guest.write("a", "guest's\n");
    guest.write("new", "guest's\n");
    guest.git(&["add", "-A"]);
    guest.git(&["commit", "-qm", "in the guest"]);
    host.git(&["pull", "-q", guest.top().to_str().expect("text"), "main"]);
    let done = guest.prepare(&host.gather(), false).expect("both are the same");
    assert_eq!((done.sent, done.removed, done.head_stays), (0, 0, false));
    assert_eq!(guest.git(&["status", "--porcelain"]), "");
    assert_eq!(guest.patch(&host), "");
}

#[test]
fn what_is_not_quite_the_same_on_both_sides_is_refused_and_nothing_is_taken_for_placed() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::new();
    host.write("same", "0");
    host.write("mode", "0");
    host.commit("more");
    let guest = Agent::new();
    guest.prepare(&host.gather(), false).expect("brings");
    for name in ["a", "same", "mode", "way", "way-same"] {
        guest.write(name, "1");
        host.write(name, "1");
    }
    host.git(&["add", "-A"]);
    host.write("a", "2");
    host.write("way", "2");
    std::fs::set_permissions(guest.path("mode"), PermissionsExt::from_mode(0o755)).expect("sets the mode");
    let said = sentence(guest.prepare(&host.gather(), false));
    assert!(said.starts_with("changed in the guest and here: a, mode; "), "{said}");
    host.write("a", "1");
    std::fs::set_permissions(host.path("mode"), PermissionsExt::from_mode(0o755)).expect("sets the mode");
    let said = sentence(guest.prepare(&host.gather(), false));
    assert!(said.starts_with("in the way in the guest, and not brought by banger: way; "), "{said}");
    assert_eq!(guest.read("way").as_deref(), Some("1"));
    let done = guest.prepare(&host.gather(), true).expect("is forced");
    assert_eq!((done.sent, guest.read("way").as_deref()), (1, Some("2")));
    assert_eq!(guest.patch(&host), "");
}

#[test]
fn a_plain_copy_that_is_the_same_on_both_sides_is_there_already() {
    let host = Host::new();
    host.write("dir/b", "0");
    let wish = super::Wish { copy: true, ..host.wish() };
    let gather = || super::gather(&wish).expect("is read");
    let guest = Agent::new();
    guest.prepare(&gather(), false).expect("brings");
    for name in ["a", "dir/b", "new"] {
        guest.write(name, "1");
        host.write(name, "1");
    }
    for _ in 0..2 {
        let done = guest.prepare(&gather(), false).expect("both are the same");
        assert_eq!((done.sent, done.removed), (0, 0));
    }
    assert_eq!(guest.patch(&host), "");
}

#[test]
fn a_repository_that_is_made_in_a_tracked_directory_hides_none_of_its_files() {
    let host = Host::new();
    for name in ["lib/same", "lib/changed", "lib/deep/same", "lib/gone"] {
        host.write(name, "0\n");
    }
    host.commit("more");
    let guest = Agent::new();
    guest.prepare(&host.gather(), false).expect("brings");
    super::git(&guest.path("lib"), &["init", "-q"]);
    guest.write("lib/changed", "1\n");
    guest.write("lib/new", "1\n");
    std::fs::remove_file(guest.path("lib/gone")).expect("removes");
    apply(&host, &guest.patch(&host), &["--index"]);
    assert_eq!(host.git(&["status", "--porcelain"]), "M  lib/changed\nD  lib/gone\nA  lib/new");
}

#[test]
fn commits_in_a_submodule_of_the_guests_stay_where_this_host_has_not_moved_it() {
    let host = Host::new();
    let inner = Host::new();
    host.git(&["submodule", "--quiet", "add", inner.top().to_str().expect("text"), "libs/sub"]);
    host.commit("with a submodule");
    let guest = Agent::new();
    guest.prepare(&host.gather(), false).expect("brings");
    let sub = guest.path("libs/sub");
    let within = |args: &[&str]| super::git(&sub, args);
    guest.write("libs/sub/a", "guest's");
    within(&["commit", "-qam", "the guest's"]);
    let theirs = within(&["rev-parse", "HEAD"]);
    for round in ["as it was", "another commit in the repository around it"] {
        guest.prepare(&host.gather(), false).expect("brings");
        let at = (within(&["rev-parse", "HEAD"]), within(&["symbolic-ref", "--short", "HEAD"]));
        assert_eq!(at, (theirs.clone(), "main".to_owned()), "{round}");
        assert_eq!(within(&["status", "--porcelain"]), "", "{round}");
        assert_eq!(within(&["for-each-ref", "refs/banger"]), "", "{round}");
        host.write("a", "second");
        host.commit("second");
    }
    // Moved here too, it is one of those things that both have changed.
    let here = host.path("libs/sub");
    super::git(&here, &["commit", "-q", "--allow-empty", "-m", "this host's"]);
    let said = sentence(guest.prepare(&host.gather(), false));
    assert!(said.starts_with("HEAD of the submodule libs/sub moved in the guest and here; "), "{said}");
    assert_eq!(within(&["rev-parse", "HEAD"]), theirs);
    guest.prepare(&host.gather(), true).expect("is forced");
    assert_eq!(within(&["rev-parse", "HEAD"]), super::git(&here, &["rev-parse", "HEAD"]));
    assert_eq!(within(&["rev-parse", "refs/banger/before/1"]), theirs);
}

#[test]
fn a_guests_history_ends_where_it_ended_if_this_host_has_none_of_what_was_brought() {
    let host = Host::new();
    for n in 0..5 {
        host.commit(&format!("old {n}"));
    }
    let few = super::Wish { depth: Some(2), ..host.wish() };
    let guest = Agent::new();
    guest.prepare(&super::gather(&few).expect("is read"), false).expect("brings");
    guest.git(&["branch", "kept"]);
    // Another history, as after a rewrite and a gc.
    host.git(&["checkout", "-q", "--orphan", "anew"]);
    for n in 0..5 {
        host.commit(&format!("new {n}"));
    }
    host.git(&["branch", "-q", "-M", "anew", "main"]);
    host.git(&["reflog", "expire", "--expire=now", "--all"]);
    host.git(&["gc", "-q", "--prune=now"]);
    for depth in [Some(2), None] {
        let wish = super::Wish { depth, ..host.wish() };
        guest.prepare(&super::gather(&wish).expect("is read"), false).expect("brings");
        assert_eq!(guest.git(&["log", "--format=%s", "kept"]), "old 4\nold 3", "{depth:?}");
        guest.git(&["gc", "-q"]);
        guest.git(&["fsck", "--full", "--strict"]);
    }
    assert_eq!(guest.git(&["rev-list", "--count", "HEAD"]), "5");
}
