//! Work trees in real guests: one with git, which says what has arrived, and one with next to nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::host_git::{commit, git};
use crate::rig::Rig;

/// A repository of many kinds of files, with a submodule, and changes of every kind.
fn repository(dir: &Path) -> PathBuf {
    let (repo, library) = (dir.join("repo"), dir.join("library"));
    for path in [&repo, &library] {
        fs::create_dir(path).expect("makes");
        git(path, &["init", "-q", "-b", "main"]);
    }
    fs::write(library.join("lib"), "1\n").expect("writes");
    commit(&library, "library");
    for n in 0..11 {
        fs::create_dir_all(repo.join(format!("d{n}/sub"))).expect("makes");
        fs::write(repo.join(format!("d{n}/sub/f")), "line\n".repeat(n)).expect("writes");
        commit(&repo, &format!("commit {n}"));
    }
    for name in ["a", "Case", "case", "new\nline", "deleted", "staged", &"long".repeat(50)] {
        fs::write(repo.join(name), name).expect("writes");
    }
    symlink("/etc/passwd", repo.join("link")).expect("links");
    fs::set_permissions(repo.join("a"), fs::Permissions::from_mode(0o755)).expect("sets");
    fs::write(repo.join(".gitignore"), "ignored\n").expect("writes");
    git(&repo, &["submodule", "add", "-q", library.to_str().expect("text"), "lib"]);
    commit(&repo, "kinds");
    git(&repo, &["tag", "-a", "-m", "text", "v1"]);
    git(&repo, &["remote", "add", "origin", "https://me:secret@example.org/repo.git"]);
    fs::remove_file(repo.join("deleted")).expect("removes");
    fs::write(repo.join("staged"), "staged").expect("writes");
    git(&repo, &["add", "staged"]);
    fs::write(repo.join("staged"), "and changed").expect("writes");
    fs::write(repo.join("lib/lib"), "changed\n").expect("writes");
    fs::write(repo.join("untracked"), "u").expect("writes");
    fs::write(repo.join("ignored"), "i").expect("writes");
    repo
}

#[test]
#[ignore = "needs real parts; tests/run.sh"]
fn a_guest_with_git_has_the_tree_as_it_is_here() {
    let rig = Rig::new();
    let repo = repository(rig.path());
    let path = repo.to_str().expect("text");
    let run =
        ["vm", "run", "--name", "dev", "--image", "golden", "--vcpu", "2", "--memory", "1G", path, "--"];
    let ran = rig.args(&[&run[..], &["git", "status", "--porcelain"]].concat());
    assert_eq!(
        (ran.status, ran.stdout),
        (0, git(&repo, &["status", "--porcelain", "-uno"])),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("1 untracked file stays behind; --include-untracked brings it"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("dev: /root/repo: 21 files sent, 11 commits ("), "{}", ran.stderr);
    let here = |args: &[&str]| git(&repo, args);
    for args in [
        &["ls-files", "-s"][..],
        &["diff", "--no-ext-diff"],
        &["diff", "--cached"],
        &["log", "-10", "--format=%H %an %s"],
        &["tag"],
        &["branch", "--show-current"],
        &["-C", "lib", "log", "--format=%H"],
    ] {
        let there = rig.ok_args(&[&["vm", "exec", "dev", "--", "git"], args].concat());
        assert_eq!(there, here(args), "{args:?}");
    }
    let script = "pwd; git remote get-url origin; git rev-list --count HEAD; git fsck --full 2>&1 | grep -v ^dangling; git -C lib log --format=%s; ls";
    let listed = rig.ok_args(&["vm", "exec", "dev", "--", "sh", "-c", script]);
    assert!(listed.starts_with("/root/repo\nhttps://example.org/repo.git\n10\nlibrary\n"), "{listed}");
    assert!(!listed.contains("ignored") && !listed.contains("untracked"), "{listed}");

    // Statuses are the command's, directories the person's, and other users have the work tree too.
    assert_eq!(rig.banger("vm exec dev -- no-such-program").status, 127);
    assert_eq!(rig.banger("vm exec dev -- /etc/passwd").status, 126);
    assert_eq!(rig.ok("vm exec -w /tmp dev -- pwd"), "/tmp\n");
    assert_eq!(rig.ok("vm exec -u daemon dev -- pwd"), "/root/repo\n");
    assert_eq!(rig.ok("vm exec dev -- sh -c echo${IFS}$LANG"), "C.UTF-8\n");

    // Nothing has changed; then something here; then something on both sides.
    let again = rig.banger("vm workspace prepare dev");
    assert!(again.stderr.contains("dev: /root/repo: nothing has changed"), "{}", again.stderr);
    fs::write(repo.join("d1/sub/f"), "changed here\n").expect("writes");
    fs::remove_file(repo.join("Case")).expect("removes");
    commit(&repo, "more");
    let old = rig.banger("vm exec dev -- true");
    assert!(old.status == 0 && old.stderr.contains("--auto-prepare"), "{}", old.stderr);
    rig.sh("dev", "echo guest >/root/repo/d2/sub/f; echo own >/root/repo/own");
    let new = rig.banger("vm exec --auto-prepare dev -- git status --porcelain");
    assert!(new.stderr.contains("dev: /root/repo: 2 files sent, 1 removed, 1 commit ("), "{}", new.stderr);
    assert_eq!(new.stdout, " M d2/sub/f\n M lib\n?? own\n");
    fs::write(repo.join("d2/sub/f"), "host\n").expect("writes");
    let said = rig.refused("vm workspace prepare dev");
    assert!(said.contains("changed in the guest and here: d2/sub/f; "), "{said}");
    rig.ok("vm workspace prepare dev --force");
    assert_eq!(rig.sh("dev", "cat /root/repo/d2/sub/f /root/repo/own"), "host\nown\n");

    // Commits of the guest's are its own.
    let identity = "git -c user.name=g -c user.email=g@g";
    rig.sh("dev", &format!("cd /root/repo && git add own && {identity} commit -q -m guest"));
    let stays = rig.banger("vm workspace prepare dev");
    assert!(stays.status == 0 && stays.stderr.contains("HEAD stays"), "{}", stays.stderr);
    commit(&repo, "here");
    let said = rig.refused("vm workspace prepare dev");
    assert!(said.contains("HEAD moved in the guest and here"), "{said}");
    rig.ok("vm workspace prepare dev --force");
    let log = rig.sh("dev", "cd /root/repo && git log -1 --format=%s && git log -1 --format=%s $(git for-each-ref --format='%(refname)' refs/banger/before | tail -n 1)");
    assert_eq!(log, "here\nguest\n");

    // All of the history; another commit elsewhere; a plain directory.
    rig.ok("vm workspace prepare dev --full");
    assert_eq!(
        rig.sh(
            "dev",
            "cd /root/repo && git rev-list --count HEAD && git fsck --full 2>&1 | grep -v ^dangling | wc -l"
        ),
        "14\n0\n"
    );
    rig.ok(&format!("vm workspace prepare dev {path} --guest-path /srv/two --branch try --from v1"));
    assert_eq!(rig.ok("vm exec dev -- git status --porcelain -b"), "## try\n");
    assert_eq!(rig.sh("dev", "cat /srv/two/staged"), "staged");
    rig.ok(&format!("vm workspace prepare dev {path} --guest-path /srv/plain --copy"));
    let listed = rig.ok("vm exec dev -- ls -A");
    let has = |name: &str| listed.lines().any(|line| line == name);
    assert!(has("ignored") && has("untracked") && !has(".git"), "{listed}");
}

#[test]
#[ignore = "needs real parts; tests/run.sh"]
fn a_guest_without_git_has_the_files_and_one_whose_boot_fails_is_not_made_for_a_bad_path() {
    let rig = Rig::new();
    let repo = repository(rig.path());
    let path = repo.to_str().expect("text");
    assert!(rig.refused("vm run --image busybox /no/such").contains("/no/such does not exist"));
    assert_eq!(rig.ok("vm list -q"), "");
    let run = [
        "vm",
        "run",
        "--rm",
        "-q",
        "--image",
        "busybox",
        path,
        "--",
        "sh",
        "-c",
        "pwd; cat staged; ls -A .git",
    ];
    let out = rig.ok_args(&run);
    assert!(out.starts_with("/root/repo\nand changed"), "{out}");
    for name in ["HEAD", "index", "objects", "refs", "shallow"] {
        assert!(out.lines().any(|line| line.ends_with(name)), "{name}: {out}");
    }
}
