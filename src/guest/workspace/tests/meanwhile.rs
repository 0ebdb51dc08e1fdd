//! The guest is at work while a prepare is.

use super::*;

/// Brings `second` after `first`, the guest doing something in between.
fn bring(at: usize, force: bool, act: &'static dyn Fn(&Path)) -> (Lab, Result<Brought, String>) {
    let lab = Lab::new();
    for name in ["changed", "leaves", "becomes-file/x", "same"] {
        lab.write(name, "1");
    }
    lab.commit("first");
    lab.bring();
    write(&lab.guest().join("in-the-way"), "told");
    lab.write("changed", "2");
    fs::remove_file(lab.host().join("leaves")).expect("removes");
    fs::remove_dir_all(lab.host().join("becomes-file")).expect("removes");
    for name in ["becomes-file", "new", "deep/new"] {
        lab.write(name, "2");
    }
    if force {
        lab.write("in-the-way", "2");
    }
    lab.commit("second");
    let ways = Ways { meanwhile: Some((at, act)), overwrite: force, ..Ways::default() };
    let brought = lab.bring_so(&ways);
    (lab, brought)
}

#[test]
fn what_the_guest_changes_after_the_host_has_been_told_is_not_overwritten() {
    // What is changed, and where what was written is then.
    let cases: [(&str, bool, Act); 6] = [
        ("changed", false, &|guest| write(&guest.join("changed"), "precious")),
        ("leaves", false, &|guest| write(&guest.join("leaves"), "precious")),
        ("new", false, &|guest| write(&guest.join("new"), "precious")),
        ("deep", false, &|guest| write(&guest.join("deep"), "precious")),
        ("becomes-file", false, &|guest| write(&guest.join("becomes-file/y"), "precious")),
        ("in-the-way", true, &|guest| write(&guest.join("in-the-way"), "precious")),
    ];
    for (path, force, act) in cases {
        let (lab, brought) = bring(6, force, act);
        let error = brought.expect_err("refused");
        let sentence =
            format!("\"{path}\" was changed in the guest while it was being brought; prepare again");
        assert!(error.contains(&sentence), "{error}");
        let at = lab.guest().join(if path == "becomes-file" { "becomes-file/y" } else { path });
        assert_eq!(fs::read(at).expect("reads"), b"precious", "{path}");
        let head = |name: &str| text(&git(&lab.guest(), &["log", "-1", "--format=%s", name]));
        assert_eq!(head("HEAD"), "first\n", "{path}");
        git(&lab.guest(), &["fsck", "--strict"]);
        // Told of it, the host may go on.
        lab.bring_so(&Ways { overwrite: true, ..Ways::default() }).expect("is brought");
        assert_eq!(head("HEAD"), "second\n", "{path}");
    }
    // What is none of the prepare's does not keep it up.
    let (lab, brought) = bring(6, true, &|guest| write(&guest.join("same"), "precious"));
    brought.expect("is brought");
    assert_eq!(fs::read(lab.guest().join("same")).expect("reads"), b"precious");
    assert_eq!(fs::read(lab.guest().join("in-the-way")).expect("reads"), b"2");
}

#[test]
fn a_head_that_moves_while_a_prepare_is_under_way_is_not_moved_away() {
    let acts: [&'static dyn Fn(&Path); 2] =
        [&|guest| drop(git(guest, &["commit", "-q", "--allow-empty", "-m", "theirs"])), &|guest| {
            drop(git(guest, &["checkout", "-qb", "theirs"]))
        }];
    for act in acts {
        let (lab, brought) = bring(9, true, act);
        let error = brought.expect_err("refused");
        assert!(
            error.contains("moved in the guest while the work tree was being brought; prepare again"),
            "{error}"
        );
        let log = text(&git(&lab.guest(), &["log", "--format=%s", "--all"]));
        assert!(!log.contains("second"), "{log}");
        lab.bring();
        lab.check();
    }
}

#[test]
fn a_branch_that_is_made_while_a_prepare_is_under_way_is_not_removed_for_the_hosts() {
    let lab = Lab::new();
    lab.write("file", "1");
    lab.commit("first");
    lab.bring();
    git(&lab.host(), &["checkout", "-qb", "feature"]);
    let act: Act = &|guest| drop(git(guest, &["branch", "feature/x"]));
    let error = lab.bring_so(&Ways { meanwhile: Some((9, act)), ..Ways::default() }).expect_err("refused");
    assert!(error.contains("refs/heads/feature cannot be made: "), "{error}");
    git(&lab.guest(), &["rev-parse", "--verify", "refs/heads/feature/x"]);
    git(&lab.guest(), &["branch", "-D", "feature/x"]);
    lab.bring();
    lab.check();
}

#[test]
fn a_submodules_head_that_moves_while_a_prepare_is_under_way_is_not_moved_away() {
    let (lab, inner) = (Lab::new(), Lab::new());
    inner.write("file", "1");
    inner.commit("first");
    lab.write("file", "1");
    lab.commit("first");
    git(&lab.host(), &["submodule", "--quiet", "add", inner.host().to_str().expect("text"), "libs/sub"]);
    lab.commit("with a submodule");
    lab.bring();
    write(&lab.host().join("libs/sub/file"), "2");
    git(&lab.host().join("libs/sub"), &["commit", "-qam", "second"]);
    lab.commit("second");
    let act: Act =
        &|guest| drop(git(&guest.join("libs/sub"), &["commit", "-q", "--allow-empty", "-m", "theirs"]));
    let brought = lab.bring_so(&Ways { meanwhile: Some((9, act)), ..Ways::default() });
    let error = brought.expect_err("refused");
    assert!(error.contains("move HEAD of libs/sub") && error.contains("prepare again"), "{error}");
    let head = |dir: &Path| text(&git(dir, &["log", "-1", "--format=%s"]));
    assert_eq!(head(&lab.guest().join("libs/sub")), "theirs\n");
    assert_eq!(head(&lab.guest()), "with a submodule\n");
    // Told of it, the host may go on; what the guest did is kept.
    lab.bring();
    assert_eq!(head(&lab.guest().join("libs/sub")), "second\n");
    assert!(text(&git(&lab.guest().join("libs/sub"), &["log", "--format=%s", "--all"])).contains("theirs\n"));
}
