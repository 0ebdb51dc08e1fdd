//! What became of a work tree is told as it is.

use super::*;

#[test]
fn every_kind_of_change_is_told_and_its_contents_are_to_be_had() {
    let lab = Lab::new();
    let big: Vec<u8> = (0..600_000u32).flat_map(u32::to_le_bytes).collect();
    for name in
        ["same", "changed", "gone", "to-dir", "to-link", "mode", "committed", ".gitignore", "sub/.gitignore"]
    {
        lab.write(name, format!("{name}\n"));
    }
    lab.write("big", &big);
    symlink("same", lab.host().join("link")).expect("links");
    lab.commit("first");
    lab.bring();
    let guest = lab.guest();
    write(&guest.join("changed"), "now\n");
    write(&guest.join("big"), "small");
    write(&guest.join("committed"), "committed");
    git(&guest, &["commit", "-qm", "in the guest", "committed"]);
    git(&guest, &["gc", "-q"]);
    for name in ["gone", "to-dir", "to-link", "link"] {
        fs::remove_file(guest.join(name)).expect("removes");
    }
    write(&guest.join("to-dir/in"), "x");
    symlink("elsewhere", guest.join("to-link")).expect("links");
    symlink("changed", guest.join("link")).expect("links");
    fs::set_permissions(guest.join("mode"), PermissionsExt::from_mode(0o700)).expect("sets the mode");
    write(&guest.join("new\n"), "new");
    fs::create_dir(guest.join("nested")).expect("makes a directory");
    git(&guest.join("nested"), &["init", "-q"]);
    write(&guest.join("nested/in"), "not told");
    assert!(Command::new("mkfifo").arg(guest.join("fifo")).status().expect("runs").success());
    // Touched, and the same.
    write(&guest.join("same"), "same\n");
    symlink("/etc", guest.join("etc")).expect("links");

    let told = lab.differences(false);
    let said = |name: &str| {
        let difference = &told[name];
        (difference.old.as_ref().map(|(mode, _)| *mode), difference.new, difference.differs)
    };
    let file = Some(Mode::File);
    assert_eq!(said("changed"), (file, Some((Mode::File, 4)), true));
    assert_eq!(said("committed"), (file, Some((Mode::File, 9)), true));
    assert_eq!(said("gone"), (file, None, true));
    assert_eq!(said("to-dir"), (file, None, true));
    assert_eq!(said("to-dir/in"), (None, Some((Mode::File, 1)), true));
    assert_eq!(said("to-link"), (file, Some((Mode::Symlink, 9)), true));
    assert_eq!(said("link"), (Some(Mode::Symlink), Some((Mode::Symlink, 7)), true));
    assert_eq!(said("mode"), (file, Some((Mode::Executable, 5)), true));
    assert_eq!(said("new\\n"), (None, Some((Mode::File, 3)), true));
    assert_eq!(said("nested"), (None, Some((Mode::Gitlink, 0)), true));
    assert_eq!(said("etc"), (None, Some((Mode::Symlink, 4)), true));
    assert_eq!(said("sub/.gitignore"), (file, Some((Mode::File, 15)), false));
    assert_eq!(told.len(), 14, "{:?}", told.keys());
    let all = lab.differences(true);
    assert_eq!((all.len(), all["same"].differs), (15, false));

    let (_, contents) = lab.look(false, &["changed", "big", "gone", "link", "new\n", "nested", "no-such"]);
    let content = |name: &str| contents.get(name).map(|content| &content[..]);
    assert_eq!((content("old/0"), content("new/0")), (Some(&b"changed\n"[..]), Some(&b"now\n"[..])));
    assert!(content("old/1") == Some(&big) && content("new/1") == Some(b"small"));
    assert_eq!((content("old/2"), content("new/2")), (Some(&b"gone\n"[..]), None));
    assert_eq!((content("old/3"), content("new/3")), (Some(&b"same"[..]), Some(&b"changed"[..])));
    assert_eq!((content("old/4"), content("new/4")), (None, Some(&b"new"[..])));
    assert_eq!(contents.len(), 8, "{:?}", contents.keys());
}

#[test]
fn a_file_that_is_changed_right_after_it_was_placed_is_noticed() {
    let lab = Lab::new();
    for n in 0..200 {
        lab.write(&format!("f{n}"), "aaaa");
    }
    lab.commit("first");
    lab.bring();
    // As large, as old, and the same inode.
    for n in 0..200 {
        let path = lab.guest().join(format!("f{n}"));
        let time = fs::metadata(&path).expect("stats").modified().expect("a time");
        fs::write(&path, "bbbb").expect("writes");
        fs::File::options()
            .write(true)
            .open(&path)
            .expect("opens")
            .set_modified(time)
            .expect("sets the time");
    }
    assert_eq!(lab.differences(false).len(), 200);
}

#[test]
fn where_nothing_was_brought_there_is_nothing_to_tell() {
    let lab = Lab::new();
    fs::create_dir_all(lab.guest()).expect("makes directories");
    for path in [lab.guest_path(), "relative".to_owned(), "/a/../b".to_owned(), "/".to_owned()] {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        let mut wire = Wire::new(theirs.into()).expect("a wire");
        changes::run(&mut wire, &Changes { path, all: false }, &lab.ledgers()).expect("answers");
        held(&mut ours).expect_err("refused");
    }
}

#[test]
fn commits_of_the_guest_are_counted_as_git_counts_them() {
    for (format, depth) in [(Format::Sha1, None), (Format::Sha256, None), (Format::Sha1, Some(2))] {
        let lab = Lab::of(format);
        for name in ["one", "two", "three"] {
            lab.write("file", name);
            lab.commit(name);
        }
        lab.bring_so(&Ways { depth, ..Ways::default() }).expect("is brought");
        let guest = lab.guest();
        let brought = line(&guest, &["rev-parse", "HEAD"]);
        let counted = |what: &str, want: usize| {
            let range = format!("{brought}..HEAD");
            assert_eq!(line(&guest, &["rev-list", "--count", &range]), want.to_string(), "{what}");
            assert_eq!(lab.ahead(), Some(want), "{what} {format:?} {depth:?}");
        };
        let commit = |name: &str| drop(git(&guest, &["commit", "-q", "--allow-empty", "-m", name]));
        counted("as it was brought", 0);
        commit("theirs");
        commit("theirs too");
        counted("two commits", 2);
        git(&guest, &["gc", "-q"]);
        counted("packed", 2);
        // Beside what was brought, and merged: what lies before is no news.
        git(&guest, &["checkout", "-q", "-b", "side", &format!("{brought}~1")]);
        commit("beside");
        counted("beside", 1);
        git(&guest, &["checkout", "-q", "main"]);
        git(&guest, &["merge", "-q", "--no-edit", "side"]);
        counted("merged", 4);
        git(&guest, &["reset", "-q", "--hard", &format!("{brought}~1")]);
        counted("back", 0);
        git(&guest, &["checkout", "-q", "--orphan", "new"]);
        commit("of its own");
        counted("of its own", 1);
        fs::remove_dir_all(guest.join(".git/objects")).expect("removes");
        assert_eq!(lab.ahead(), None);
    }
    let plain = Lab::new();
    plain.write("file", "1");
    plain.commit("first");
    plain.bring_so(&Ways { plain: true, ..Ways::default() }).expect("is brought");
    assert_eq!(plain.ahead(), None);
}
