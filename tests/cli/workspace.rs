//! Work trees on their way into a VM, as people see it; what arrives is tested beside the code, and on real guests.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use banger::proto::api::{Code, Request};
use banger::proto::frame::Kind;
use serde_json::{Value, json};

use crate::fake::{Agent, Asked, Fake, Ran, vm};

fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .current_dir(dir)
        .args(["-c", "user.name=a", "-c", "user.email=a@b"])
        .args(args)
        .output()
        .expect("runs git");
    assert!(out.status.success(), "git {args:?}: {out:?}");
    String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
}

/// A repository `repo` of two files and one commit, with an untracked file and one that changed.
fn repository() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let repo = dir.path().join("repo");
    std::fs::create_dir(&repo).expect("makes");
    git(&repo, &["init", "-q", "-b", "main"]);
    std::fs::write(repo.join("a"), "12345").expect("writes");
    std::fs::write(repo.join("b\x1b[2J\n"), "").expect("writes");
    git(&repo, &["add", "-A"]);
    git(&repo, &["commit", "-q", "-m", "first"]);
    std::fs::write(repo.join("a"), "1234567").expect("writes");
    std::fs::write(repo.join("untracked"), "x").expect("writes");
    dir
}

fn repo_of(dir: &tempfile::TempDir) -> String {
    dir.path().join("repo").to_str().expect("text").to_owned()
}

/// A guest that has nothing and takes everything, or says `objection` in the place of its first word.
fn guest(asked: &Asked, objection: Option<&str>) {
    meet(asked, nothing(), objection);
}

/// Passes over a segment; false: there is none.
fn heard_to_the_end(agent: &mut Agent) -> bool {
    std::iter::from_fn(|| agent.hear()).any(|frame| frame.kind == Kind::Eof)
}

/// As [`guest`], of one that has `held`.
fn meet(asked: &Asked, held: Value, objection: Option<&str>) {
    let (near, far) = UnixStream::pair().expect("a pair");
    asked.done_with(held, near.into());
    let mut agent = Agent(far);
    if let Some(objection) = objection {
        agent.say(Kind::Failed, objection.as_bytes());
        return;
    }
    for hears in [2, 2, 1, 0] {
        agent.say(Kind::Eof, b"");
        for _ in 0..hears {
            // Whoever only asks hangs up.
            if !heard_to_the_end(&mut agent) {
                return;
            }
        }
    }
}

fn fake(objection: Option<&'static str>) -> Fake {
    Fake::start(move |request, asked| match request {
        Request::VmCreate(_) => asked.done(vm("dev", 1, "stopped")),
        Request::VmStart(_) | Request::VmWorkspace(_) | Request::VmShow(_) => {
            asked.done(vm("dev", 1, "running"))
        }
        Request::VmDelete(_) => asked.done(Value::Null),
        Request::VmPrepare(_) => guest(&asked, objection),
        Request::VmExec(_) => {
            let (near, far) = UnixStream::pair().expect("a pair");
            asked.done_with(Value::Null, near.into());
            Agent(far).say(Kind::Exit, &[7]);
        }
        other => panic!("{other:?}"),
    })
}

#[test]
fn what_would_travel_is_listed_without_a_vm_or_a_daemon() {
    let dir = repository();
    let fake = Fake::absent();
    let ran = fake.run(&["vm", "run", "--dry-run", &repo_of(&dir)]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(lines[0].trim(), "7 B  a");
    assert_eq!(lines[1].trim(), "0 B  b\\x1b[2J\\n");
    assert!(lines[2].ends_with("/repo -> /root/repo: 2 files (7 B), 1 commits"), "{ran:?}");
    assert_eq!(lines[3..], ["stays behind: untracked"]);
    assert_eq!(ran.err, "1 untracked file stays behind; --include-untracked brings it\n");
    let args =
        ["vm", "run", "--dry-run", "--json", "--include-untracked", "--guest-path", "/srv/x", "--full"];
    let ran = fake.run(&[&args[..], &[&repo_of(&dir)]].concat());
    let view: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((&view["files"], &view["bytes"], &view["commits"]), (&json!(3), &json!(8), &json!(1)));
    assert_eq!((&view["guest_path"], &view["branch"]), (&json!("/srv/x"), &json!("main")));
    assert_eq!(view["stay_behind"], json!([]));
    assert_eq!(view["paths"][0], json!({ "path": "a", "mode": "100644", "bytes": 7 }));
    assert!(!fake.root().join("run").exists(), "a daemon was started");
}

#[test]
fn what_cannot_be_brought_is_refused_before_there_is_a_vm() {
    let dir = repository();
    let fake = fake(None);
    let path = repo_of(&dir);
    let plain = dir.path().to_str().expect("text");
    let table: [(&[&str], &str); 7] = [
        (&["no/such"], "no/such does not exist"),
        (&[plain], "is not in a git repository; --copy brings a plain directory as it is"),
        (&[&path, "--from", "HEAD"], "--from says where a new branch begins; name it with --branch"),
        (&[&path, "--branch", "a..b"], "\"a..b\" is no name for a branch"),
        (&[&path, "--full", "--depth", "3"], "--full and --depth say different things"),
        (&[&path, "--guest-path", "x"], "is no place for a work tree; write it like /root/app"),
        (&["--full"], "--full is about a work tree"),
    ];
    for (args, want) in table {
        let ran = fake.run(&[&["vm", "run"], args].concat());
        assert!(ran.code == Some(1) && ran.err.contains(want), "{args:?}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    }
    assert_eq!(fake.methods(), [""; 0]);
}

#[test]
fn a_work_tree_is_brought_before_the_command_runs_in_it() {
    let dir = repository();
    let fake = fake(None);
    let ran = fake.run(&["vm", "run", &repo_of(&dir), "--", "make"]);
    assert_eq!(ran.code, Some(7), "{ran:?}");
    let said = "dev: /root/repo: 2 files sent, 1 commit (";
    assert!(ran.err.lines().any(|line| line.starts_with(said)), "{ran:?}");
    let methods = ["vm.create", "vm.start", "vm.workspace.prepare", "vm.workspace.record", "vm.exec"];
    assert_eq!(fake.methods(), methods);
    let [.., Request::VmWorkspace(brought), Request::VmExec(exec)] = &fake.seen()[..] else { panic!("two") };
    assert_eq!(
        brought.workspace.source,
        std::fs::canonicalize(repo_of(&dir)).expect("is there").to_str().expect("text")
    );
    assert_eq!(brought.workspace.branch.as_deref(), Some("main"));
    assert!(!exec.as_run);

    let fake = Fake::start(|request, asked| match request {
        Request::VmShow(_) => asked.done(vm("dev", 1, "running")),
        other => panic!("{other:?}"),
    });
    let ran = fake.run(&["vm", "exec", "--auto-prepare", "dev", "--", "make"]);
    assert!(ran.err.contains("has no work tree to bring again"), "{ran:?}");
}

#[test]
fn a_work_tree_that_does_not_come_leaves_the_vm_and_says_so() {
    let dir = repository();
    let path = repo_of(&dir);
    let no_room = fake(Some("no space left on \u{1b}[1mdevice"));
    let ran = no_room.run(&["vm", "run", "-q", &path, "--", "make"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let lines: Vec<&str> = ran.err.lines().collect();
    let kept = format!("VM dev is kept; banger vm workspace prepare dev {path} / banger vm delete dev");
    assert_eq!(lines, ["banger: the guest says: no space left on \\x1b[1mdevice", &kept]);
    assert!(!no_room.methods().contains(&"vm.exec".to_owned()));
    no_room.run(&["vm", "run", "--rm", "-q", &path, "--", "make"]);
    assert_eq!(no_room.methods().last().map(String::as_str), Some("vm.delete"));
}

#[test]
fn a_command_in_an_old_work_tree_is_told_so_once() {
    let dir = repository();
    let path = repo_of(&dir);
    let head = git(path.as_ref(), &["rev-parse", "HEAD"]);
    let ran = |source: &str, head: &str| -> Ran {
        let tree = json!({ "guest_path": "/root/repo", "source": source, "head": head, "branch": "main", "prepared_at": 1 });
        let fake = Fake::start(move |request, asked| match request {
            Request::VmExec(_) => {
                let (near, far) = UnixStream::pair().expect("a pair");
                asked.done_with(tree.clone(), near.into());
                Agent(far).say(Kind::Exit, &[0]);
            }
            other => asked.fail(Code::Failed, &format!("{other:?}")),
        });
        fake.run(&["vm", "exec", "dev", "--", "true"])
    };
    assert_eq!(ran(&path, &head).err, "");
    assert_eq!(ran("/no/such", &"0".repeat(40)).err, "");
    let old = ran(&path, &"0".repeat(40));
    assert_eq!((old.code, old.err.lines().count()), (Some(0), 1), "{old:?}");
    assert!(old.err.contains(&format!("is at {} now, and was at 0000000000", &head[..10])), "{old:?}");
}

/// A daemon whose VM has this work tree, and a guest that has `held` of it and takes everything.
fn known(tree: Value, held: Value) -> Fake {
    Fake::start(move |request, asked| match request {
        Request::VmShow(_) | Request::VmWorkspace(_) => {
            let mut view = vm("dev", 1, "running");
            view["workspaces"] = json!([tree]);
            asked.done(view);
        }
        Request::VmPrepare(_) => meet(&asked, held.clone(), None),
        Request::VmExec(_) => {
            let (near, far) = UnixStream::pair().expect("a pair");
            asked.done_with(Value::Null, near.into());
            Agent(far).say(Kind::Exit, &[0]);
        }
        other => panic!("{other:?}"),
    })
}

fn nothing() -> Value {
    json!({ "placed": null, "head": null, "branch": null })
}

#[test]
fn a_tree_is_not_brought_over_another_one_of_the_same_name() {
    let (dir, other) = (repository(), repository());
    let path = repo_of(&dir);
    let tree = json!({ "guest_path": "/root/repo", "source": repo_of(&other), "head": "1".repeat(40), "branch": "main", "prepared_at": 1 });
    let fake = known(tree, nothing());
    for more in [&[][..], &["--dry-run"], &["--guest-path", "/root/repo"]] {
        let ran = fake.run(&[&["vm", "workspace", "prepare", "-q", "dev", &path], more].concat());
        let want = format!("/root/repo of VM dev is where {} was brought; bring {path} to", repo_of(&other));
        assert!(
            ran.code == Some(1) && ran.err.contains(&want) && ran.err.contains("--guest-path"),
            "{ran:?}"
        );
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    }
    assert!(!fake.methods().contains(&"vm.workspace.prepare".to_owned()), "{:?}", fake.methods());
    for more in ["--guest-path=/root/two", "--force"] {
        let ran = fake.run(&["vm", "workspace", "prepare", "-q", "dev", &path, more]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
}

#[test]
fn a_commit_that_was_asked_for_once_is_brought_again() {
    let dir = repository();
    let path = std::fs::canonicalize(repo_of(&dir)).expect("is there");
    let first = git(&path, &["rev-parse", "HEAD"]);
    git(&path, &["commit", "-q", "-a", "-m", "second"]);
    let tree = json!({ "guest_path": "/root/repo", "source": path, "head": first, "branch": "main", "from": first, "prepared_at": 1 });
    let asked = |fake: &Fake| {
        let brought = fake.seen().into_iter().find_map(|request| match request {
            Request::VmWorkspace(brought) => Some(brought.workspace),
            _ => None,
        });
        brought.expect("it was brought").from
    };
    let again: [&[&str]; 3] = [
        &["vm", "exec", "--auto-prepare", "dev", "--", "true"],
        &["vm", "workspace", "prepare", "dev"],
        &["vm", "workspace", "prepare", "dev", path.to_str().expect("text")],
    ];
    for args in again {
        let fake = known(tree.clone(), nothing());
        let ran = fake.run(args);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(!ran.err.contains("when it was brought"), "{ran:?}");
        assert_eq!(asked(&fake).as_ref(), Some(&first), "{args:?}");
    }
    let fake = known(tree, nothing());
    let ran = fake.run(&["vm", "workspace", "prepare", "dev", "--branch", "main"]);
    assert_eq!((ran.code, asked(&fake)), (Some(0), None), "{ran:?}");
}

#[test]
fn what_would_be_done_is_told_of_the_branch_that_would_be_kept() {
    let dir = repository();
    let path = repo_of(&dir);
    let head = git(path.as_ref(), &["rev-parse", "HEAD"]);
    let source = std::fs::canonicalize(&path).expect("is there");
    let tree = json!({ "guest_path": "/root/repo", "source": source, "head": head, "branch": "main", "prepared_at": 1 });
    let held = json!({ "placed": { "head": head, "branch": "try", "heads": [head] }, "head": "1".repeat(40), "branch": "try" });
    for more in [&["--dry-run"][..], &[]] {
        let fake = known(tree.clone(), held.clone());
        let ran = fake.run(&[&["vm", "workspace", "prepare", "dev"], more].concat());
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
}

#[test]
fn a_repository_around_what_was_brought_is_not_brought_in_its_place() {
    let dir = repository();
    let path = std::fs::canonicalize(repo_of(&dir)).expect("is there");
    let tree = json!({ "guest_path": "/root/repo", "source": path, "head": "1".repeat(40), "branch": "main", "prepared_at": 1 });
    std::fs::remove_dir_all(path.join(".git")).expect("removes");
    git(dir.path(), &["init", "-q", "-b", "main"]);
    git(dir.path(), &["add", "-A"]);
    git(dir.path(), &["commit", "-q", "-m", "around"]);
    let fake = known(tree, nothing());
    let again: [&[&str]; 2] = [
        &["vm", "exec", "--auto-prepare", "dev", "--", "true"],
        &["vm", "workspace", "prepare", "-q", "dev"],
    ];
    for args in again {
        let ran = fake.run(args);
        let want = format!("{} is no work tree of its own any more", path.display());
        assert!(ran.code == Some(1) && ran.err.contains(&want), "{ran:?}");
    }
    assert!(!fake.methods().contains(&"vm.workspace.prepare".to_owned()), "{:?}", fake.methods());
    let ran = fake.run(&["vm", "run", "--dry-run", path.to_str().expect("text")]);
    assert!(ran.err.contains("/repo is in ") && ran.err.contains(", which is brought whole"), "{ran:?}");
}

#[test]
fn ctrl_c_ends_the_reading_of_a_work_tree_in_which_git_waits() {
    let dir = repository();
    let repo = dir.path().join("repo");
    std::fs::create_dir(repo.join("new")).expect("makes");
    let made = Command::new("mkfifo").arg(repo.join("new/.gitignore")).status().expect("runs mkfifo");
    assert!(made.success());
    let fake = Fake::absent();
    let mut command = fake.banger(&["vm", "run", "--dry-run", &repo_of(&dir)]);
    let banger = command.stderr(std::process::Stdio::piped()).spawn().expect("starts");
    let children = format!("/proc/{0}/task/{0}/children", banger.id());
    let git = loop {
        let pids = std::fs::read_to_string(&children).expect("it runs");
        let listing = |pid: &&str| {
            let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.contains("ls-files")
        };
        if let Some(pid) = pids.split_whitespace().find(listing) {
            break pid.to_owned();
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    // To banger alone, as no terminal would send it.
    let sent = Command::new("kill").args(["-INT", &banger.id().to_string()]).status().expect("runs kill");
    assert!(sent.success());
    let ended = Ran::of(banger.wait_with_output().expect("ends"));
    assert_eq!((ended.code, &*ended.err), (Some(130), "banger: cancelled\n"));
    assert!(!Path::new("/proc").join(git).exists(), "git is left");
}
