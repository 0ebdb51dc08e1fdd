//! What became of a work tree in real guests, back on this host: as a patch, as a branch, in words.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::host_git::{apply, git, listing};
use crate::rig::Rig;

fn repository(dir: &Path) -> std::path::PathBuf {
    let repo = dir.join("repo");
    fs::create_dir_all(repo.join("d")).expect("makes");
    git(&repo, &["init", "-q", "-b", "main"]);
    for name in ["edit", "gone", "mode", "to-link", "to-dir", "Case", "case", "new\nline", "d/f"] {
        fs::write(repo.join(name), format!("{name}\n")).expect("writes");
    }
    fs::write(repo.join("binary"), b"\0\x01\x02").expect("writes");
    fs::write(repo.join(".gitignore"), "*.o\n").expect("writes");
    symlink("edit", repo.join("link")).expect("links");
    git(&repo, &["add", "-A"]);
    git(&repo, &["commit", "-q", "-m", "first"]);
    // It travels as it is: the patch has to fit this.
    fs::write(repo.join("edit"), "edit\nnot committed here\n").expect("writes");
    repo
}

#[test]
#[ignore = "needs real parts; tests/run.sh"]
fn what_became_of_a_work_tree_comes_back() {
    let rig = Rig::new();
    let repo = repository(rig.path());
    let path = repo.to_str().expect("text");
    let mark = rig.path().join("hook");
    for hook in ["reference-transaction", "post-checkout"] {
        let hook = repo.join(".git/hooks").join(hook);
        fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", mark.display())).expect("writes");
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("sets");
    }
    let run = ["vm", "run", "--name", "dev", "--image", "golden", "--memory", "1G", path, "--", "true"];
    let ran = rig.args(&run);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let none = rig.banger("vm workspace export dev");
    assert_eq!((none.status, none.stdout.as_str()), (0, ""));
    assert!(none.stderr.contains("/root/repo is as it was brought"), "{}", none.stderr);

    let commit = "git -c user.name=g -c user.email=g@g commit -q";
    rig.sh(
        "dev",
        &format!(
            "cd /root/repo && git stash -q && echo committed >>d/f && {commit} -am one && git mv gone moved && {commit} -m two && git stash pop -q &&
             printf 'more' >>edit && chmod +x mode && rm to-link to-dir && ln -s /etc/passwd to-link && mkdir to-dir && echo x >to-dir/x &&
             echo other >case && printf '\\001\\000\\002' >binary && echo 2 >\"$(printf 'new\\nline')\" && touch empty skipped.o &&
             printf '\\033[2Jevil\\n' >\"$(printf 'esc\\033[2J')\" && ln -sf nowhere link && dd if=/dev/urandom of=big bs=1M count=3 2>/dev/null"
        ),
    );
    let there = rig.sh(
        "dev",
        "cd /root/repo && rm -f skipped.o && find . -path ./.git -prune -o ! -type d -printf '%p %y %m %l\\n' -type f -exec sha256sum {} + | LC_ALL=C sort; touch skipped.o; git status --porcelain=v2 >/var/tmp/before; ls -l --time-style=full-iso .git/index >>/var/tmp/before",
    );
    let status = rig.ok("vm workspace status dev");
    for line in [
        "A  moved",
        "D  gone",
        "M  edit",
        "M  mode",
        "T  to-link",
        "D  to-dir",
        "A  to-dir/x",
        "A  empty",
        "A  big",
    ] {
        assert!(status.lines().any(|l| l == line), "{line} in {status}");
    }
    assert!(status.starts_with("commits: the guest is at "), "{status}");
    assert!(!status.contains("skipped.o") && !status.contains('\u{1b}'), "{status}");
    let json: serde_json::Value =
        serde_json::from_str(&rig.ok("vm workspace status dev --json")).expect("JSON");
    assert_eq!(json["guest_branch"], "main");
    assert!(rig.ok("vm workspace diff dev --stat").contains("to-dir/x"));
    assert!(rig.ok("vm workspace diff dev --name-only").lines().any(|line| line == "moved"));

    let patch = rig.path().join("p");
    rig.ok(&format!("vm workspace export dev --output {}", patch.display()));
    assert_eq!(fs::read(&patch).expect("reads"), rig.ok("vm workspace export dev").into_bytes());
    let before = git(&repo, &["rev-parse", "HEAD"]);
    apply(&repo, &patch);
    assert_eq!(listing(&repo), there);
    assert_eq!(git(&repo, &["rev-parse", "HEAD"]), before);

    // The commits, and what is not committed on top of them.
    let branch = rig.banger("vm workspace export dev --as-branch guest");
    assert_eq!(branch.status, 0, "{}", branch.stderr);
    assert!(branch.stdout.starts_with("branch guest: 2 commits, at "), "{}", branch.stdout);
    assert!(branch.stderr.contains("--base-commit guest` brings them as a patch"), "{}", branch.stderr);
    assert_eq!(git(&repo, &["log", "--format=%s", "guest"]), "two\none\nfirst\n");
    assert_eq!(git(&repo, &["fsck", "--strict"]), "");
    assert_eq!(listing(&repo), there, "nothing is checked out");
    let rest = rig.path().join("rest");
    rig.ok(&format!("vm workspace export dev --base-commit guest --output {}", rest.display()));
    git(&repo, &["-c", "core.hooksPath=/dev/null", "worktree", "add", "-q", "../tree", "guest"]);
    let tree = rig.path().join("tree");
    git(&tree, &["apply", "--index", "--whitespace=nowarn", rest.to_str().expect("text")]);
    assert_eq!(listing(&tree).replace(" ./.git f ", ""), listing(&repo).replace(" ./.git f ", ""));
    assert!(rig.refused("vm workspace export dev --as-branch guest --force").contains("is checked out in"));
    assert!(rig.refused("vm workspace export dev --as-branch main").contains("is checked out in"));
    assert!(!mark.exists(), "a hook was run");

    // Nothing in the guest was changed by asking, and nothing is left here.
    rig.sh("dev", "cd /root/repo && git --no-optional-locks status --porcelain=v2 >/var/tmp/after; ls -l --time-style=full-iso .git/index >>/var/tmp/after; cmp /var/tmp/before /var/tmp/after");
    let left = fs::read_dir(rig.path().join("cache")).expect("lists").flatten();
    let left: Vec<_> = left.filter(|e| e.file_name().to_string_lossy().contains("workspace-")).collect();
    assert!(left.is_empty(), "{left:?}");

    // A reader that goes away is no error worth a word.
    let mut head = Command::new(crate::rig::binary());
    head.args(["vm", "workspace", "export", "dev"]).env("BANGER_ROOT", rig.path()).stdout(Stdio::piped());
    let mut child = head.stderr(Stdio::piped()).spawn().expect("runs");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("ends");
    assert_eq!(ended.status.code(), Some(141), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
#[ignore = "needs real parts; tests/run.sh"]
fn a_guest_without_git_gives_a_patch_and_gets_files_of_the_owners() {
    let rig = Rig::new();
    let home = rig.path().join("home");
    fs::create_dir_all(home.join(".config/tool/sub")).expect("makes");
    fs::write(home.join(".gitconfig"), "[user]\n").expect("writes");
    fs::write(home.join(".config/tool/sub/run"), "#!/bin/sh\n").expect("writes");
    fs::set_permissions(home.join(".config/tool/sub/run"), fs::Permissions::from_mode(0o755)).expect("sets");
    symlink("/etc/passwd", home.join(".config/tool/link")).expect("links");
    rig.configure(
        "network = 'user'\n[[file_sync]]\nhost = '~/.gitconfig'\nguest = '~/.gitconfig'\n\
         [[file_sync]]\nhost = '~/.config/tool'\nguest = '/root/.config/tool'\n\
         [[file_sync]]\nhost = '~/gone'\nguest = '~/gone'\n",
    );
    let repo = repository(rig.path());
    let path = repo.to_str().expect("text");
    let mut command = Command::new(crate::rig::binary());
    command.args(["vm", "run", "--name", "dev", "--image", "busybox", path, "--", "true"]);
    let ran = command.env("BANGER_ROOT", rig.path()).env("HOME", &home).output().expect("runs");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert!(said.contains("home/gone does not exist, and is left out"), "{said}");
    assert!(said.contains("file_sync: left out 1 symlink"), "{said}");
    let modes = rig
        .sh("dev", "stat -c '%a %u %n' /root/.gitconfig /root/.config/tool/sub/run; ls /root/.config/tool");
    assert_eq!(modes, "600 0 /root/.gitconfig\n755 0 /root/.config/tool/sub/run\nsub\n");

    rig.sh(
        "dev",
        "cd /root/repo && echo guest >>edit && rm gone && ln -sf x link && echo n >new && echo o >a.o",
    );
    let patch = rig.path().join("p");
    rig.ok(&format!("vm workspace export dev --output {}", patch.display()));
    apply(&repo, &patch);
    assert_eq!(fs::read_to_string(repo.join("edit")).expect("reads"), "edit\nnot committed here\nguest\n");
    assert!(repo.join("new").exists() && !repo.join("gone").exists() && !repo.join("a.o").exists());
    let refused = rig.refused("vm workspace export dev --as-branch guest");
    assert!(refused.contains("nothing was committed in VM dev since /root/repo was brought"), "{refused}");
}
