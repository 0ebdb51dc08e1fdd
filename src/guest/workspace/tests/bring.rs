//! What is brought is there, as a repository that git likes.

use super::*;

/// A tree with every odd kind of name and file, and a history.
fn odd(lab: &Lab) {
    lab.write("plain", "one\n");
    lab.write("empty", "");
    lab.write("script", "#!/bin/sh\n");
    fs::set_permissions(lab.host().join("script"), PermissionsExt::from_mode(0o755)).expect("sets the mode");
    lab.write(&format!("deep/{}/{}/file", "d".repeat(120), "e".repeat(120)), "deep");
    lab.write("a\nb\tc \"d\"", "newline");
    write(&lab.host().join(std::ffi::OsStr::from_bytes(b"latin-\xe9")), "x");
    symlink("no/such", lab.host().join("dangling")).expect("links");
    symlink("t/".repeat(120), lab.host().join("long-link")).expect("links");
    lab.write("binary", (0..200_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    lab.write(".gitignore", "ignored\n");
    lab.commit("first");
    for n in 0..15 {
        lab.write("plain", format!("{n}\n").repeat(500));
        lab.commit(&format!("commit {n}"));
    }
}

#[test]
fn a_tree_arrives_as_a_repository_that_is_clean_without_being_read() {
    for format in [Format::Sha1, Format::Sha256] {
        let lab = Lab::of(format);
        odd(&lab);
        git(&lab.host(), &["tag", "v1"]);
        git(&lab.host(), &["tag", "-a", "-m", "x", "v2/annotated"]);
        let brought = lab.bring();
        assert_eq!((brought.held.placed, brought.held.head), (None, None));
        // By its stat alone: diff-files does not refresh the index.
        assert_eq!(text(&git(&lab.guest(), &["diff-files"])), "");
        lab.check();
        let log = ["log", "--format=%H %D", "--decorate=full"];
        assert_eq!(git(&lab.guest(), &log), git(&lab.host(), &log));
        assert_eq!(line(&lab.guest(), &["config", "--local", "user.name"]), "A \"quoted\" name");
        assert_eq!(line(&lab.guest(), &["remote", "get-url", "origin"]), "https://example.com/x.git");
        write(&lab.guest().join("a.log"), "excluded");
        assert_eq!(text(&git(&lab.guest(), &["status", "--porcelain"])), "");
        assert_eq!(lab.differences(false).keys().collect::<Vec<_>>(), [".gitignore", "a.log"]);
        // It is a repository like any other.
        git(&lab.guest(), &["gc", "-q", "--prune=now"]);
        write(&lab.guest().join("plain"), "in the guest");
        git(&lab.guest(), &["commit", "-qam", "there"]);
        git(&lab.guest(), &["fsck", "--strict", "--full"]);
    }
}

#[test]
fn what_is_staged_unstaged_deleted_and_in_conflict_arrives_so() {
    let lab = Lab::new();
    for name in ["staged", "both", "unstaged", "deleted", "removed", "fought"] {
        lab.write(name, "base\n");
    }
    lab.commit("base");
    git(&lab.host(), &["checkout", "-qb", "side"]);
    lab.write("fought", "theirs\n");
    lab.commit("theirs");
    git(&lab.host(), &["checkout", "-q", "main"]);
    lab.write("fought", "ours\n");
    lab.commit("ours");
    assert!(
        run_maybe(&lab.host(), &["-c", "user.name=A", "-c", "user.email=a@b", "merge", "side"]).is_none()
    );
    lab.write("staged", "staged\n");
    lab.write("both", "staged\n");
    git(&lab.host(), &["add", "staged", "both"]);
    lab.write("both", "and changed\n");
    lab.write("unstaged", "changed\n");
    fs::remove_file(lab.host().join("deleted")).expect("removes");
    git(&lab.host(), &["rm", "-q", "removed"]);
    lab.bring();
    lab.check();
    for args in [&["diff", "--cached"][..], &["diff"]] {
        assert_eq!(text(&git(&lab.guest(), args)), text(&git(&lab.host(), args)));
    }
}

#[test]
fn head_may_be_detached_and_history_cut_off() {
    let lab = Lab::new();
    odd(&lab);
    git(&lab.host(), &["checkout", "-q", "--detach"]);
    lab.bring_so(&Ways { depth: Some(3), ..Ways::default() }).expect("is brought");
    lab.check();
    assert_eq!(line(&lab.guest(), &["rev-list", "--count", "HEAD"]), "3");
    assert_eq!(run_maybe(&lab.guest(), &["symbolic-ref", "-q", "HEAD"]), None);
    let boundary = line(&lab.guest(), &["rev-list", "--max-parents=0", "HEAD"]);
    git(&lab.host(), &["checkout", "-q", "main"]);
    lab.commit("and on");
    let held = lab.bring().held;
    assert_eq!(held.branch, None);
    let placed = held.placed.expect("placed");
    assert!(placed.shallow);
    assert_eq!(placed.boundary, [boundary]);
    assert_eq!(line(&lab.guest(), &["symbolic-ref", "HEAD"]), "refs/heads/main");
}

#[test]
fn a_history_that_ends_in_too_many_places_to_be_told_stays_whole() {
    let lab = Lab::new();
    odd(&lab);
    lab.bring_so(&Ways { depth: Some(3), ..Ways::default() }).expect("is brought");
    let shallow = lab.guest().join(".git/shallow");
    let ends = fs::read_to_string(&shallow).expect("reads");
    // Commits that are not there do not matter to git.
    let more: String = (0..5000).map(|n| format!("{n:040x}\n")).collect();
    fs::write(&shallow, format!("{ends}{more}")).expect("writes");
    let placed = lab.bring_so(&Ways { depth: Some(2), ..Ways::default() }).expect("is brought").held.placed;
    assert!(placed.is_some_and(|placed| placed.head.is_some() && placed.heads.is_empty()));
    assert!(fs::read_to_string(&shallow).expect("reads").contains(&ends));
}

#[test]
fn submodules_are_repositories_that_borrow_their_objects() {
    let lab = Lab::new();
    let inner = Lab::new();
    inner.write("in", "inner");
    inner.commit("inner");
    lab.write("out", "outer");
    git(&lab.host(), &["submodule", "--quiet", "add", inner.host().to_str().expect("text"), "libs/sub"]);
    lab.commit("with a submodule");
    lab.bring();
    lab.check();
    let sub = lab.guest().join("libs/sub");
    git(&sub, &["fsck", "--strict", "--full"]);
    assert_eq!(text(&git(&sub, &["status", "--porcelain"])), "");
    assert_eq!(git(&sub, &["log", "--format=%H"]), git(&inner.host(), &["log", "--format=%H"]));
    let status = text(&git(&lab.guest(), &["submodule", "status"]));
    assert!(status.starts_with(' ') && status.contains(" libs/sub "), "{status:?}");
    write(&sub.join("in"), "changed");
    assert!(lab.differences(false).contains_key("libs/sub/in"));
    git(&sub, &["commit", "-qam", "in the guest"]);
    let placed = lab.bring().held.placed.expect("placed");
    assert_eq!(placed.submodules[0].0, "libs/sub");
    assert_eq!(placed.submodules[0].1.heads, [line(&inner.host(), &["rev-parse", "HEAD"])]);
}

#[test]
fn a_second_prepare_brings_what_changed_and_keeps_what_the_guest_did() {
    let lab = Lab::new();
    for name in [
        "same",
        "changed",
        "gone/deep/gone",
        "gone-but-changed",
        "becomes-dir",
        "becomes-file/x",
        "mode",
        "guests",
        "becomes-link",
    ] {
        lab.write(name, format!("{name}\n"));
    }
    lab.commit("first");
    let first = lab.bring();
    assert_eq!(first.sent.len(), 9);
    write(&lab.guest().join("guests"), "changed in the guest");
    write(&lab.guest().join("gone-but-changed"), "changed in the guest");
    write(&lab.guest().join("new"), "new in the guest");
    lab.write("changed", "changed on the host\n");
    for path in ["gone/deep/gone", "gone-but-changed", "becomes-dir", "becomes-file/x", "becomes-link"] {
        fs::remove_file(lab.host().join(path)).expect("removes");
    }
    for path in ["gone/deep", "gone", "becomes-file"] {
        fs::remove_dir(lab.host().join(path)).expect("removes");
    }
    lab.write("becomes-dir/file", "x");
    lab.write("becomes-file", "x");
    symlink("same", lab.host().join("becomes-link")).expect("links");
    fs::set_permissions(lab.host().join("mode"), PermissionsExt::from_mode(0o755)).expect("sets the mode");
    lab.write("added/file", "x");
    lab.commit("second");
    let second = lab.bring();
    assert_eq!(
        second.sent,
        ["added/file", "becomes-dir/file", "becomes-file", "becomes-link", "changed", "mode"]
    );
    let fate =
        |name: &str| second.ledger.iter().find(|record| record.path == name.as_bytes()).expect("known").fate;
    assert_eq!(
        (fate("same"), fate("guests"), fate("gone-but-changed")),
        (Fate::Unchanged, Fate::Changed, Fate::Changed)
    );
    assert!(!lab.guest().join("gone").exists());
    assert_eq!(fs::read(lab.guest().join("guests")).expect("reads"), b"changed in the guest");
    assert_eq!(fs::read(lab.guest().join("gone-but-changed")).expect("reads"), b"changed in the guest");
    assert_eq!(fs::read_link(lab.guest().join("becomes-link")).expect("reads"), Path::new("same"));
    git(&lab.guest(), &["fsck", "--strict", "--full"]);
    let status = text(&git(&lab.guest(), &["status", "--porcelain"]));
    assert_eq!(status, " M guests\n?? gone-but-changed\n?? new\n");
    assert_eq!(lab.differences(false).keys().collect::<Vec<_>>(), ["gone-but-changed", "guests", "new"]);
    // Nothing more to do.
    assert_eq!(lab.bring().sent, Vec::<String>::new());
}

#[test]
fn where_head_was_is_kept_if_it_is_asked_for() {
    let lab = Lab::new();
    lab.write("file", "1");
    lab.commit("first");
    lab.bring();
    write(&lab.guest().join("file"), "guest");
    git(&lab.guest(), &["commit", "-qam", "the guest's"]);
    git(&lab.guest(), &["pack-refs", "--all"]);
    let theirs = line(&lab.guest(), &["rev-parse", "HEAD"]);
    lab.commit("second");
    let ways = Ways { keep_before: true, overwrite: true, ..Ways::default() };
    for _ in 0..2 {
        lab.bring_so(&ways).expect("is brought");
    }
    assert_eq!(line(&lab.guest(), &["rev-parse", "refs/banger/before/1"]), theirs);
    assert_eq!(line(&lab.guest(), &["rev-parse", "main"]), line(&lab.host(), &["rev-parse", "main"]));
    // The second time there was nothing that it had not been told.
    let kept = text(&git(&lab.guest(), &["for-each-ref", "refs/banger"]));
    assert_eq!(kept.lines().count(), 1, "{kept}");
}

#[test]
fn commits_of_the_guest_on_a_branch_that_the_host_goes_to_are_kept_unasked() {
    let lab = Lab::new();
    lab.write("file", "1");
    lab.commit("first");
    let inner = Lab::new();
    inner.write("in", "inner");
    inner.commit("inner");
    git(&lab.host(), &["submodule", "--quiet", "add", inner.host().to_str().expect("text"), "libs/sub"]);
    lab.commit("with a submodule");
    lab.bring();
    let guest = lab.guest();
    git(&guest, &["checkout", "-qb", "feature"]);
    git(&guest, &["commit", "-q", "--allow-empty", "-m", "the guest's"]);
    let theirs = line(&guest, &["rev-parse", "HEAD"]);
    git(&guest, &["checkout", "-q", "main"]);
    git(&guest.join("libs/sub"), &["commit", "-q", "--allow-empty", "-m", "the guest's"]);
    let theirs_within = line(&guest.join("libs/sub"), &["rev-parse", "HEAD"]);

    git(&lab.host(), &["checkout", "-qb", "feature"]);
    git(&lab.host().join("libs/sub"), &["commit", "-q", "--allow-empty", "-m", "the host's"]);
    lab.write("file", "2");
    lab.commit("second");
    let kept = lab.bring().kept;
    lab.check();
    let kept: Vec<_> = kept.iter().map(|kept| (&*kept.path, &*kept.id, &*kept.name)).collect();
    let name = "refs/banger/before/1";
    assert_eq!(kept, [("libs/sub", &*theirs_within, name), ("", &*theirs, name)]);
    assert_eq!(line(&guest, &["rev-parse", "refs/banger/before/1"]), theirs);
    assert_eq!(line(&guest.join("libs/sub"), &["rev-parse", "refs/banger/before/1"]), theirs_within);
    // What the host has brought itself it can bring again.
    lab.write("file", "3");
    lab.commit("third");
    lab.bring();
    assert_eq!(text(&git(&guest, &["for-each-ref", "refs/banger"])).lines().count(), 1);
}

#[test]
fn head_and_index_stay_if_only_files_are_brought() {
    let lab = Lab::new();
    lab.write("file", "1");
    lab.commit("first");
    lab.bring();
    let before = (line(&lab.guest(), &["rev-parse", "HEAD"]), git(&lab.guest(), &["ls-files", "-s"]));
    lab.write("file", "2");
    lab.write("more", "3");
    lab.commit("second");
    lab.bring_so(&Ways { leave_head: true, ..Ways::default() }).expect("is brought");
    assert_eq!((line(&lab.guest(), &["rev-parse", "HEAD"]), git(&lab.guest(), &["ls-files", "-s"])), before);
    assert_eq!(text(&git(&lab.guest(), &["status", "--porcelain"])), " M file\n?? more\n");
    // What was placed is nevertheless to be had.
    write(&lab.guest().join("file"), "changed");
    let (_, contents) = lab.look(false, &["file"]);
    assert_eq!((&contents["old/0"][..], &contents["new/0"][..]), (&b"2"[..], &b"changed"[..]));
}

#[test]
fn a_plain_copy_has_no_repository_and_knows_what_changed() {
    let lab = Lab::new();
    lab.write("dir/file", "x");
    fs::create_dir(lab.host().join("empty-dir")).expect("makes a directory");
    let ways = Ways { plain: true, ..Ways::default() };
    let brought = lab.bring_so(&ways).expect("is brought");
    assert_eq!(brought.ids.len(), 1);
    assert!(!lab.guest().join(".git").exists() && lab.guest().join("empty-dir").is_dir());
    assert!(lab.differences(false).is_empty());
    write(&lab.guest().join("dir/file"), "y");
    assert_eq!(lab.differences(false).len(), 1);
    assert_eq!(lab.bring_so(&ways).expect("is brought").ledger[0].fate, Fate::Changed);
}

#[test]
fn twenty_thousand_files_arrive_and_none_is_sent_again() {
    let lab = Lab::new();
    for n in 0..20_000 {
        lab.write(&format!("d{}/e{}/f{n}", n % 40, n % 7), format!("{n}\n"));
    }
    lab.commit("many");
    lab.bring();
    assert_eq!(text(&git(&lab.guest(), &["diff-files"])), "");
    lab.check();
    assert!(lab.bring().sent.is_empty());
    assert!(lab.differences(false).is_empty());
}
