//! Commits of guests, good and bad, on their way into a repository.

use std::io::Read;

use super::*;
use crate::git::{Format, Hasher};
use crate::proto::workspace::Placed;

/// A guest's repository: a clone of the host's.
struct Clone(Git);

impl Clone {
    fn of(host: &Host) -> Self {
        let dir = host.dir.path().join("guest");
        fs::create_dir(&dir).expect("creates");
        let git = Git::from(&dir);
        git.read(&["init", "-q", "-b", "main", "."]).expect("makes a repository");
        let objects = format!("{}\n", host.top().join(".git/objects").display());
        fs::create_dir_all(dir.join(".git/objects/info")).expect("creates");
        fs::write(dir.join(".git/objects/info/alternates"), objects).expect("writes");
        git.read(&["reset", "-q", "--hard", &host.git(&["rev-parse", "HEAD"])]).expect("checks out");
        Self(git)
    }

    fn git(&self, args: &[&str], input: &[u8]) -> String {
        let said = self.0.read_fed(args, input).expect("git does it");
        String::from_utf8_lossy(&said).trim().to_owned()
    }

    /// A commit of a tree with these entries, whatever git thinks of it.
    fn commit(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut tree = vec![];
        for (mode, name, id) in entries {
            tree.extend_from_slice(mode.as_bytes());
            tree.push(b' ');
            tree.extend_from_slice(name);
            tree.push(0);
            tree.extend((0..20).map(|n| u8::from_str_radix(&id[2 * n..2 * n + 2], 16).expect("hex")));
        }
        let tree = self.git(&["hash-object", "-w", "-t", "tree", "--literally", "--stdin"], &tree);
        self.commit_of(&tree)
    }

    fn commit_of(&self, tree: &str) -> String {
        let text = format!(
            "tree {tree}\nparent {}\nauthor a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\n\nx\n",
            self.git(&["rev-parse", "HEAD"], b"")
        );
        self.git(&["hash-object", "-w", "-t", "commit", "--literally", "--stdin"], text.as_bytes())
    }

    fn blob(&self, content: &[u8]) -> String {
        self.git(&["hash-object", "-w", "--stdin"], content)
    }

    fn pack(&self, revisions: &str) -> Vec<u8> {
        let args = ["pack-objects", "--revs", "--stdout", "--thin", "--delta-base-offset", "-q"];
        self.0.read_fed(&args, revisions.as_bytes()).expect("packs")
    }
}

/// Everything that a host's repository holds, by name and content.
fn state(host: &Host) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut left) = (BTreeMap::new(), vec![host.top()]);
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).expect("lists") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => left.push(path),
                false => drop(found.insert(path.clone(), fs::read(&path).expect("reads"))),
            }
        }
    }
    found
}

fn export(host: &Host, name: &str, force: bool, head: &str, pack: &[u8]) -> Result<usize, WorkspaceError> {
    let origin = host.origin();
    let found = origin.found.as_ref().expect("a repository");
    let branch = Branch::judge(found, name, force)?;
    let brought = host.git(&["rev-parse", "main"]);
    let placed = Placed { head: Some(brought.clone()), heads: vec![brought.clone()], ..Placed::default() };
    let scratch = Scratch::make(&origin.cache, found.format, Some(&found.common.join("objects")))?;
    let received = match branch.wanted(&placed, head)? {
        None => None,
        Some(wanted) => Some(branch.receive(&scratch, &wanted, |stdin| -> Result<(), WorkspaceError> {
            feed(stdin, pack);
            Ok(())
        })?),
    };
    branch.publish(received, head, &brought, "test")
}

fn host() -> Host {
    let host = Host::with(&tree(&[(b"f", F, b"1\n"), (b"d/g", F, b"1\n")]));
    // Whatever is run here leaves something.
    for hook in ["reference-transaction", "post-checkout", "post-update", "pre-auto-gc", "update"] {
        let path = host.top().join(".git/hooks").join(hook);
        fs::create_dir_all(path.parent().expect("below the top")).expect("creates");
        fs::write(&path, format!("#!/bin/sh\ntouch {}\n", host.dir.path().join("ran").display()))
            .expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("sets the mode");
    }
    host
}

#[test]
fn a_guests_commits_become_a_branch_and_nothing_else_changes() {
    let host = host();
    let guest = Clone::of(&host);
    for n in 11..=13 {
        fs::write(host.dir.path().join("guest/f"), format!("{n}\n")).expect("writes");
        guest.git(&["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-a", "-m", "x"], b"");
    }
    let head = guest.git(&["rev-parse", "HEAD"], b"");
    let pack = guest.pack(&format!("{head}\n^{}\n", host.git(&["rev-parse", "main"])));
    let before = state(&host);
    assert_eq!(export(&host, "fix/it", false, &head, &pack).expect("comes"), 3);
    assert_eq!(host.git(&["rev-parse", "fix/it"]), head);
    assert_eq!(host.git(&["show", "fix/it:f"]), "13");
    host.git(&["fsck", "--strict", "--no-dangling"]);
    let after = state(&host);
    let new: Vec<String> = after
        .keys()
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| path.strip_prefix(host.top()).expect("below the top").display().to_string())
        .collect();
    let expected =
        |path: &String| path.starts_with(".git/objects/pack/pack-") || path == ".git/refs/heads/fix/it";
    assert!(new.iter().all(expected), "{new:?}");
    assert!(before.keys().all(|path| after.contains_key(path)));
    assert!(!host.dir.path().join("ran").exists(), "a hook was run");
    // Again, with nothing to send; and only where it may be moved.
    let error = export(&host, "fix/it", false, &head, b"").expect_err("exists").to_string();
    assert!(error.contains("--force moves it"), "{error}");
    assert_eq!(export(&host, "fix/it", true, &head, b"").expect("moves"), 3);
    let error = export(&host, "main", true, &head, b"").expect_err("checked out").to_string();
    assert!(error.contains("main is checked out in"), "{error}");
}

#[test]
fn a_branch_that_is_checked_out_in_another_work_tree_is_not_moved() {
    let host = host();
    let other = host.dir.path().join("other");
    host.git(&["branch", "taken"]);
    host.git(&["worktree", "add", "-q", &other.display().to_string(), "taken"]);
    let head = host.git(&["rev-parse", "main"]);
    let error = export(&host, "taken", true, &head, b"").expect_err("checked out").to_string();
    assert!(error.contains("taken is checked out in"), "{error}");
}

#[test]
fn a_branch_that_is_another_name_for_one_moves_neither() {
    let host = host();
    host.git(&["branch", "other"]);
    for (name, target) in [("master", "main"), ("alias", "other"), ("dangling", "nowhere")] {
        host.git(&["symbolic-ref", &format!("refs/heads/{name}"), &format!("refs/heads/{target}")]);
    }
    let guest = Clone::of(&host);
    let commit = guest.commit(&[("100644", b"a", &guest.blob(b"x"))]);
    let pack = guest.pack(&format!("{commit}\n^{}\n", host.git(&["rev-parse", "main"])));
    let before = state(&host);
    for (name, target) in [("master", "main"), ("alias", "other"), ("dangling", "nowhere")] {
        let error = export(&host, name, true, &commit, &pack).expect_err("another name").to_string();
        assert!(error.contains(&format!("{name} is another name for refs/heads/{target}")), "{error}");
    }
    assert!(state(&host) == before);
}

#[test]
fn a_branch_that_becomes_another_name_for_one_meanwhile_does_not_move_that() {
    let host = host();
    let main = host.git(&["rev-parse", "main"]);
    host.git(&["branch", "master"]);
    let origin = host.origin();
    let branch = Branch::judge(origin.found.as_ref().expect("a repository"), "master", true).expect("fits");
    host.git(&["symbolic-ref", "refs/heads/master", "refs/heads/main"]);
    let identity = ["-c", "user.name=a", "-c", "user.email=a@b"];
    let head = host.git(&[&identity[..], &["commit-tree", "-m", "x", "main^{tree}"]].concat());
    branch.publish(None, &head, &main, "test").unwrap_or_default();
    assert_eq!(host.git(&["rev-parse", "main"]), main);
}

#[test]
fn a_branch_in_the_middle_of_a_rebase_or_a_bisection_is_not_moved() {
    let host = host();
    let commit = |content: &str, message: &str| {
        fs::write(host.top().join("f"), content).expect("writes");
        host.git(&["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-a", "-m", message]);
    };
    host.git(&["checkout", "-q", "-b", "topic"]);
    commit("topic\n", "x");
    host.git(&["checkout", "-q", "main"]);
    commit("main\n", "y");
    let head = host.git(&["rev-parse", "main"]);
    let other = host.dir.path().join("other");
    host.git(&["worktree", "add", "-q", &other.display().to_string(), "topic"]);
    let there = Git::from(&other);
    for backend in ["--merge", "--apply"] {
        let rebase = ["-c", "user.name=a", "-c", "user.email=a@b", "rebase", "-q", backend, "main"];
        there.read(&rebase).expect_err("a conflict");
        let error = export(&host, "topic", true, &head, b"").expect_err("is rebased").to_string();
        assert!(error.contains("topic is in the middle of a rebase in"), "{backend}: {error}");
        there.read(&["rebase", "--abort"]).expect("aborts");
    }
    there.read(&["bisect", "start"]).expect("starts");
    there.read(&["checkout", "-q", "--detach"]).expect("detaches");
    let error = export(&host, "topic", true, &head, b"").expect_err("is searched").to_string();
    assert!(error.contains("topic is in the middle of a bisection in"), "{error}");
    there.read(&["bisect", "reset", "HEAD"]).expect("ends");
    export(&host, "topic", true, &head, b"").expect("is free");
}

#[test]
fn a_submodules_commit_that_only_the_guest_has_is_told_of() {
    let host = host();
    let inner = host.dir.path().join("inner");
    fs::create_dir(&inner).expect("creates");
    let identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"];
    let commit = |git: &Git, message: &str| {
        let args = ["commit", "-q", "--allow-empty", "-m", message];
        git.read(&[&identity[..], &args].concat()).expect("commits");
        git.line(&["rev-parse", "HEAD"]).expect("asks").expect("a commit")
    };
    let git = Git::from(&inner);
    git.read(&["init", "-q", "-b", "main", "."]).expect("makes a repository");
    let known = commit(&git, "known");
    let guest = Clone::of(&host);
    let entry = |name: &'static [u8], id: &'static str| ("160000", name, id);
    let none: &'static str = "1111111111111111111111111111111111111111";
    let known_id: &'static str = Box::leak(known.clone().into_boxed_str());
    let brought = guest.commit(&[entry(b"same", none), entry(b"sub", none)]);
    let head = guest.commit(&[entry(b"new", known_id), entry(b"same", none), entry(b"sub", known_id)]);
    let pack = guest.pack(&format!("{head}\n{brought}\n"));
    host.git.read_fed(&["index-pack", "--stdin"], &pack).expect("takes them");
    let origin = host.origin();
    let found = origin.found.as_ref().expect("a repository");
    // Nothing of it is checked out here, then one is.
    let told = only_there(found, &brought, &head).expect("asks");
    assert_eq!(told, [("new".to_owned(), known.clone()), ("sub".to_owned(), known.clone())]);
    fs::rename(&inner, host.top().join("sub")).expect("moves");
    let told = only_there(found, &brought, &head).expect("asks");
    assert_eq!(told, [("new".to_owned(), known)]);
}

#[test]
fn a_reflog_that_is_a_symlink_is_not_written_to() {
    let host = host();
    let logs = host.top().join(".git/logs/refs/heads");
    let victim = host.dir.path().join("victim");
    fs::write(&victim, "theirs\n").expect("writes");
    fs::create_dir_all(&logs).expect("creates");
    symlink(&victim, logs.join("guest")).expect("links");
    symlink(host.dir.path(), logs.join("fix")).expect("links");
    let head = host.git(&["rev-parse", "main"]);
    for name in ["guest", "fix/victim"] {
        let error = export(&host, name, false, &head, b"").expect_err("leads elsewhere").to_string();
        assert!(error.contains(&format!("logs/refs/heads/{name} leads elsewhere")), "{error}");
        assert_eq!(host.git(&["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
    }
    assert_eq!(fs::read_to_string(&victim).expect("reads"), "theirs\n");
    export(&host, "other", false, &head, b"").expect("has no log");
}

#[test]
fn a_name_that_is_no_branchs_is_refused() {
    let host = host();
    let head = host.git(&["rev-parse", "main"]);
    for name in ["", "-x", "HEAD", "a..b", "a b", "../../hooks/x", "a.lock", "@{-1}", "a\nb", "/a", "a~1"] {
        let error = export(&host, name, true, &head, b"").expect_err("no name").to_string();
        assert!(error.contains("is no name for a branch"), "{error}");
    }
}

#[test]
fn a_pack_that_is_not_sound_leaves_the_repository_as_it_was() {
    let host = host();
    let guest = Clone::of(&host);
    let main = host.git(&["rev-parse", "main"]);
    let blob = guest.blob(b"#!/bin/sh\ntouch /tmp/pwned\n");
    let below = |name: &[u8]| {
        let inner = [&b"100755 pre-commit\0"[..], &[7; 20]].concat();
        let inner = guest.git(&["hash-object", "-w", "-t", "tree", "--literally", "--stdin"], &inner);
        guest.commit(&[("40000", name, &inner)])
    };
    let modules = guest.blob(b"[submodule \"../../x\"]\n\tpath = x\n\turl = -u./payload\n");
    let missing = "7".repeat(40);
    let bad = [
        guest.commit(&[("100644", b"..", &blob)]),
        guest.commit(&[("100644", b".git", &blob)]),
        guest.commit(&[("100644", b".GIT", &blob)]),
        guest.commit(&[("100644", b"git~1", &blob)]),
        guest.commit(&[("100644", "\u{200c}.git".as_bytes(), &blob)]),
        guest.commit(&[("100644", b"a/b", &blob)]),
        guest.commit(&[("100644", b"", &blob)]),
        guest.commit(&[("100644", b"a", &blob), ("100644", b"a", &blob)]),
        guest.commit(&[("120000", b".gitmodules", &blob)]),
        guest.commit(&[("100644", b".gitmodules", &modules)]),
        guest.commit(&[("100644", b"a", &missing)]),
        guest.commit_of(&missing),
        below(b".Git"),
    ];
    let before = state(&host);
    for head in bad {
        // Its own pack-objects would not pack what is missing; a guest can.
        let objects =
            guest.0.read_fed(&["rev-list", "--objects", "--missing=allow-any", &head, "--not", &main], b"");
        let ids: Vec<String> = match objects {
            Ok(listed) => {
                String::from_utf8_lossy(&listed).lines().map(|line| line[..40].to_owned()).collect()
            }
            Err(_) => vec![head.clone()],
        };
        let present = |id: &&String| guest.0.read(&["cat-file", "-e", id]).is_ok();
        let list: String = ids.iter().filter(present).map(|id| format!("{id}\n")).collect();
        let pack = guest.0.read_fed(&["pack-objects", "--stdout", "-q"], list.as_bytes()).expect("packs");
        let error = export(&host, "bad", false, &head, &pack).expect_err(&head).to_string();
        assert!(error.starts_with("the guest's commits are not accepted: git "), "{error}");
        assert!(state(&host) == before, "{head}");
    }
}

#[test]
fn a_pack_that_is_none_or_of_something_else_is_refused() {
    let host = host();
    let guest = Clone::of(&host);
    let commit = guest.commit(&[("100644", b"a", &guest.blob(b"x"))]);
    let other = guest.commit(&[("100644", b"b", &guest.blob(b"y"))]);
    let main = host.git(&["rev-parse", "main"]);
    let whole = guest.pack(&format!("{commit}\n^{main}\n"));
    let before = state(&host);
    let mut flipped = whole.clone();
    flipped[40] ^= 1;
    for (pack, head) in [
        (&b""[..], &commit),
        (b"PACK", &commit),
        (&whole[..whole.len() - 10], &commit),
        (&flipped, &commit),
        (&[b'x'; 1_000_000], &commit),
        (&guest.pack(&format!("{other}\n^{main}\n")), &commit),
    ] {
        let error = export(&host, "bad", false, head, pack).expect_err("refused").to_string();
        assert!(error.starts_with("the guest's commits are not accepted: git "), "{error}");
        assert!(state(&host) == before);
    }
    for head in ["main", "--all", "", &"a".repeat(39)] {
        let error = export(&host, "bad", false, head, b"").expect_err("refused").to_string();
        assert_eq!(error, "the guest does not say which commit it is at");
    }
}

/// A pack of some 100 KB that holds 100 GB: deltas that copy all of a blob twice.
fn bomb() -> Vec<u8> {
    const SIZE: usize = 0xff_ff00;
    const DELTAS: u32 = 3000;
    let deflated = |content: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(content).expect("deflates");
        encoder.finish().expect("deflates")
    };
    let number = |mut n: usize, bits: u32, first: u8| {
        let mut bytes = vec![first | (n & ((1 << bits) - 1)) as u8];
        n >>= bits;
        while n > 0 {
            *bytes.last_mut().expect("one") |= 0x80;
            bytes.push((n & 0x7f) as u8);
            n >>= 7;
        }
        bytes
    };
    let base = vec![0; SIZE];
    let mut hasher = Hasher::object(Format::Sha1, "blob", SIZE as u64);
    hasher.update(&base);
    let id = hasher.finish();
    let mut pack = [&b"PACK\0\0\0\x02"[..], &(1 + DELTAS).to_be_bytes()].concat();
    pack.extend([number(SIZE, 4, 3 << 4), deflated(&base)].concat());
    for n in 0..DELTAS {
        // Four bytes of its own, then twice a copy from 0 of the length of three bytes.
        let copy = [0xf0, 0x00, 0xff, 0xff];
        let sizes = [number(SIZE, 7, 0), number(2 * SIZE + 4, 7, 0)].concat();
        let delta = [&sizes[..], &[4], &n.to_be_bytes(), &copy, &copy].concat();
        pack.extend([&number(delta.len(), 4, 7 << 4), id.bytes(), &deflated(&delta)].concat());
    }
    let mut hasher = Hasher::new(Format::Sha1);
    hasher.update(&pack);
    pack.extend_from_slice(hasher.finish().bytes());
    pack
}

#[test]
fn a_pack_that_keeps_git_busy_for_very_long_is_given_up() {
    let host = host();
    let origin = host.origin();
    let found = origin.found.as_ref().expect("a repository");
    let mut scratch =
        Scratch::make(&origin.cache, found.format, Some(&found.common.join("objects"))).expect("is made");
    scratch.git = scratch.git.within(2);
    let main = host.git(&["rev-parse", "main"]);
    let placed = Placed { head: Some(main.clone()), heads: vec![main], ..Placed::default() };
    let branch = Branch::judge(found, "bomb", false).expect("fits");
    let wanted = branch.wanted(&placed, &"7".repeat(40)).expect("is judged").expect("is not here");
    let pack = bomb();
    assert!(pack.len() < 1 << 20, "{}", pack.len());
    let before = state(&host);
    let error = branch.receive(&scratch, &wanted, |stdin| -> Result<(), WorkspaceError> {
        feed(stdin, &pack);
        Ok(())
    });
    let error = error.expect_err("is given up").to_string();
    assert!(
        error.starts_with("the guest's commits are not accepted: git index-pack has spent all the time on them that it may have"),
        "{error}"
    );
    assert!(state(&host) == before);
}

#[test]
fn a_branch_that_cannot_be_made_takes_its_objects_with_it() {
    let host = host();
    host.git(&["branch", "a"]);
    let guest = Clone::of(&host);
    let commit = guest.commit(&[("100644", b"a", &guest.blob(b"x"))]);
    let pack = guest.pack(&format!("{commit}\n^{}\n", host.git(&["rev-parse", "main"])));
    let before = state(&host);
    // refs/heads/a is a file, so refs/heads/a/b cannot be one.
    let error = export(&host, "a/b", false, &commit, &pack).expect_err("refused").to_string();
    assert!(error.starts_with("git update-ref failed: "), "{error}");
    assert!(state(&host) == before);
}

#[test]
fn what_a_guests_program_says_is_bytes_and_its_end_is_known() {
    let (near, mut far) = UnixStream::pair().expect("a pair");
    let heard = thread::spawn(move || {
        let mut input = vec![];
        while let Some(frame) = Frame::read(&mut far).expect("reads") {
            match frame.kind {
                Kind::Stdin => input.extend(frame.payload),
                _ => break,
            }
        }
        for (kind, bytes) in [
            (Kind::Stdout, &b"\x00\x01"[..]),
            (Kind::Stderr, b"oh\n"),
            (Kind::Stdout, b"2"),
            (Kind::Exit, &[3]),
        ] {
            Frame::new(kind, bytes).write(&mut far).expect("writes");
        }
        far.read_to_end(&mut vec![]).expect("hangs up");
        input
    });
    let (mut out, mut progress) = (vec![], Progress::silent());
    let ran = run(near.into(), b"asked", &mut Attention::to(&mut progress), |bytes| {
        out.extend_from_slice(bytes);
        true
    });
    assert_eq!(ran.expect("runs"), Some(Ran { status: 3, stderr: "oh".to_owned() }));
    assert_eq!((out, heard.join().expect("ends")), (b"\x00\x012".to_vec(), b"asked".to_vec()));
}
