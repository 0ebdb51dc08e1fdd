//! What git was told of files here, in the guest.

use super::agent::Agent;
use super::{Host, git, sentence};
use crate::cli::workspace::gather::{Wish, gather};

/// What git says of the work tree and the index is the same on both sides.
fn check(agent: &Agent, host: &Host) {
    for args in [
        &["status", "--porcelain=v2"][..],
        &["ls-files", "-s", "-v"],
        &["diff"],
        &["diff", "--cached"],
        &["diff-files", "--abbrev=40"],
    ] {
        assert_eq!(git(&agent.top(), args), host.git(args), "{args:?}");
    }
    git(&agent.top(), &["fsck", "--strict", "--full"]);
}

#[test]
fn what_a_sparse_checkout_leaves_out_is_left_out_in_the_guest_too() {
    for index in ["--no-sparse-index", "--sparse-index"] {
        let host = Host::new();
        for name in ["in/f", "in/deep/f", "out/f", "out/deep/f", "out/.gitignore"] {
            host.write(name, name);
        }
        host.commit("more");
        host.git(&["sparse-checkout", "set", index, "in"]);
        assert!(!host.path("out").exists());
        host.write("in/f", "changed");
        let agent = Agent::new();
        agent.prepare(&host.gather(), false).expect("brings");
        check(&agent, &host);
        assert!(!agent.top().join("out").exists(), "{index}");
        assert_eq!(git(&agent.top(), &["status", "--porcelain"]), " M in/f");
        let done = agent.prepare(&host.gather(), false).expect("brings");
        assert_eq!((done.sent, done.removed), (0, 0));
        // And comes when it is here.
        host.git(&["sparse-checkout", "disable"]);
        let done = agent.prepare(&host.gather(), false).expect("brings");
        assert_eq!((done.sent, done.removed), (3, 0), "{index}");
        check(&agent, &host);
        // git keeps what was changed.
        host.git(&["commit", "-qam", "changed"]);
        host.git(&["sparse-checkout", "set", index, "out"]);
        let done = agent.prepare(&host.gather(), false).expect("brings");
        assert_eq!((done.sent, done.removed), (0, 2), "{index}");
        check(&agent, &host);
    }
}

#[test]
fn what_git_was_told_of_a_file_here_it_knows_in_the_guest() {
    for options in [&[][..], &["--object-format=sha256"]] {
        let host = Host::with(options);
        for name in ["skipped", "gone", "assumed", "both", "empty"] {
            host.write(name, if name == "empty" { "" } else { name });
        }
        host.commit("more");
        host.git(&["update-index", "--skip-worktree", "skipped", "gone", "both"]);
        host.git(&["update-index", "--assume-unchanged", "assumed", "both"]);
        for name in ["skipped", "assumed", "both"] {
            host.write(name, "of this host alone");
        }
        std::fs::remove_file(host.path("gone")).expect("removes");
        for (name, content) in
            [("announced", "x"), ("announced-empty", ""), ("announced\nflags: 20000000", "x"), ("z/n", "x")]
        {
            host.write(name, content);
            host.git(&["add", "-N", name]);
        }
        host.write("staged-empty", "");
        host.git(&["add", "staged-empty"]);
        let agent = Agent::new();
        agent.prepare(&host.gather(), false).expect("brings");
        check(&agent, &host);
        assert_eq!(agent.read("skipped").as_deref(), Some("of this host alone"));
        assert_eq!(agent.read("announced").as_deref(), Some("x"));
        let status = git(&agent.top(), &["status", "--porcelain"]);
        assert!(status.lines().any(|line| line == " A announced"), "{status}");
        assert!(status.lines().any(|line| line == "A  staged-empty"), "{status}");
        assert!(!status.contains("skipped") && !status.contains("assumed"), "{status}");
        let done = agent.prepare(&host.gather(), false).expect("brings");
        assert_eq!((done.sent, done.removed), (0, 0));
        host.git(&["add", "announced"]);
        host.git(&["update-index", "--no-skip-worktree", "skipped"]);
        agent.prepare(&host.gather(), false).expect("brings");
        check(&agent, &host);
    }
}

#[test]
fn untracked_files_leave_the_guest_when_they_are_not_to_come_any_more() {
    let host = Host::new();
    for name in ["u/one", "u/two", "changed", "deleted"] {
        host.write(name, "here");
    }
    let gathered = |untracked| gather(&Wish { untracked, ..host.wish() }).expect("reads");
    let agent = Agent::new();
    assert_eq!(agent.prepare(&gathered(true), false).expect("brings").sent, 5);
    std::fs::write(agent.top().join("changed"), "there").expect("writes");
    std::fs::remove_file(agent.top().join("deleted")).expect("removes");
    let done = agent.prepare(&gathered(false), false).expect("brings");
    assert_eq!((done.sent, done.removed, done.untracked.left, done.untracked.stayed), (0, 2, 2, 1));
    assert!(!agent.top().join("u").exists());
    assert_eq!(agent.read("changed").as_deref(), Some("there"));
    let done = agent.prepare(&gathered(false), false).expect("brings");
    assert_eq!((done.sent, done.removed, done.untracked.left, done.untracked.stayed), (0, 0, 0, 0));
    // It is the guest's own now.
    let said = sentence(agent.prepare(&gathered(true), false));
    assert!(said.starts_with("in the way in the guest, and not brought by banger: changed;"), "{said}");
}
