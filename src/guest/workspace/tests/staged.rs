//! What the guest has staged, or under way, is not lost.

use super::*;

fn staged(lab: &Lab) -> String {
    text(&git(&lab.guest(), &["ls-files", "-s", "-t"]))
}

fn before(lab: &Lab, name: &str) -> String {
    let index = lab.guest().join(".git").join(name);
    let args = ["ls-files", "-s", "-t"];
    text(&run(&lab.guest(), &args, b"", &[("GIT_INDEX_FILE", index.to_str().expect("text"))]))
}

#[test]
fn what_is_staged_in_the_guest_stays_if_the_host_has_staged_nothing_new() {
    for version in ["2", "3", "4"] {
        let lab = Lab::of(if version == "3" { Format::Sha256 } else { Format::Sha1 });
        for name in ["file", "dir/other", "dir/more"] {
            lab.write(name, "1");
        }
        lab.commit("first");
        lab.bring();
        git(&lab.guest(), &["update-index", "--index-version", version]);
        // As it was, however git writes it: the host's takes its place.
        git(&lab.guest(), &["update-index", "--really-refresh"]);
        lab.write("dir/other", "2");
        lab.commit("second");
        lab.bring();
        lab.check();
        assert!(!lab.guest().join(".git/banger-index-before").exists(), "{version}");

        git(&lab.guest(), &["update-index", "--index-version", version]);
        write(&lab.guest().join("file"), "the guest's");
        write(&lab.guest().join("new"), "the guest's");
        git(&lab.guest(), &["add", "file"]);
        // Which an index of version 2 cannot say.
        git(&lab.guest(), &["add", if version == "2" { "new" } else { "-N" }, "new"]);
        let theirs = staged(&lab);
        for content in ["2", "changed, and not staged"] {
            lab.write("dir/more", content);
            lab.bring();
            assert_eq!(staged(&lab), theirs, "{version}");
        }
        assert!(text(&git(&lab.guest(), &["status", "--porcelain"])).contains(" M dir/more\n"));

        // Now it has: the guest's is kept, and the next one does not take its place.
        git(&lab.host(), &["add", "dir/more"]);
        lab.bring();
        assert_eq!(before(&lab, "banger-index-before"), theirs, "{version}");
        assert_eq!(git(&lab.guest(), &["ls-files", "-s"]), git(&lab.host(), &["ls-files", "-s"]));
        git(&lab.guest(), &["add", "file"]);
        let again = staged(&lab);
        lab.commit("third");
        lab.bring();
        assert_eq!(staged(&lab), again, "{version}: the host's index says what it said");
        lab.write("dir/other", "4");
        lab.commit("fourth");
        lab.bring();
        assert_eq!(before(&lab, "banger-index-before"), theirs, "{version}");
        assert_eq!(before(&lab, "banger-index-before-2"), again, "{version}");
        git(&lab.guest(), &["fsck", "--strict"]);
    }
}

#[test]
fn an_index_that_is_not_understood_is_kept() {
    let lab = Lab::new();
    lab.write("file", "1");
    lab.commit("first");
    lab.bring();
    git(&lab.guest(), &["update-index", "--split-index"]);
    let split = fs::read(lab.guest().join(".git/index")).expect("reads");
    lab.write("file", "2");
    lab.commit("second");
    lab.bring();
    lab.check();
    assert_eq!(fs::read(lab.guest().join(".git/banger-index-before")).expect("reads"), split);
}

#[test]
fn what_is_under_way_in_the_guest_is_neither_torn_nor_lost() {
    let busy = |args: &[&str]| {
        let lab = Lab::new();
        lab.write("file", "1\n");
        lab.write("other", "1\n");
        lab.commit("first");
        lab.bring();
        let guest = lab.guest();
        git(&guest, &["checkout", "-qb", "side"]);
        for content in ["2\n", "3\n"] {
            write(&guest.join("file"), content);
            git(&guest, &["commit", "-qam", content]);
        }
        git(&guest, &["format-patch", "-q", "-1", "--output", ".git/patch"]);
        git(&guest, &["checkout", "-q", "main"]);
        let settings = ["-c", "user.name=A", "-c", "user.email=a@b"];
        // All but the merge end in a conflict.
        drop(run_maybe(&guest, &[&settings, args].concat()));
        lab
    };
    for (args, sentence) in [
        (&["merge", "--no-ff", "--no-commit", "side"][..], "a merge is under way in the guest, in "),
        (&["cherry-pick", "side"], "a cherry-pick is under way in the guest, in "),
        (&["revert", "side"], "a revert is under way in the guest, in "),
        (&["am", "-3", ".git/patch"], "an am is under way in the guest, in "),
        (&["rebase", "--onto", "main", "side~1", "side"], "a rebase is under way in the guest, in "),
    ] {
        let lab = busy(args);
        let state = || (staged(&lab), fs::read(lab.guest().join(".git/HEAD")).expect("reads"));
        let before = state();
        // Nothing but a file, staged or not: it comes, and the rest stays.
        lab.write("other", "2\n");
        git(&lab.host(), &["add", "other"]);
        lab.bring();
        assert_eq!(state(), before, "{args:?}");
        assert_eq!(fs::read(lab.guest().join("other")).expect("reads"), b"2\n");
        lab.commit("second");
        let error = lab.bring_so(&Ways::default()).expect_err("refused");
        assert!(error.contains(sentence), "{error}");
        assert!(error.ends_with(&format!("finish it, or `git {} --abort`", args[0])), "{error}");
        assert_eq!(state(), before, "{args:?}");
    }
}
