//! Repositories that somebody made to do more than be read: nothing of theirs runs, nothing is written, and nothing of another repository
//! goes along.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::guest::Guest;
use super::{Host, git, listing, sentence, try_git};
use crate::cli::workspace::error::WorkspaceError;
use crate::cli::workspace::gather::{Gathered, Wish, gather};

/// What somebody does to a repository, with another one at hand.
type Act = fn(&Path, &Path);

/// Reads, and brings what can be read, in every way; then looks whether anything has happened.
fn tried(host: &Host) -> String {
    let canary = host.dir.path().join("canary");
    let before = listing(host.dir.path());
    let mut said = String::new();
    for (untracked, from) in [(false, None), (true, None), (false, Some("HEAD~0"))] {
        let branch = from.map(|_| "b".to_owned());
        let wish = Wish { untracked, from: from.map(str::to_owned), branch, ..host.wish() };
        let brought = gather(&wish).and_then(|gathered: Gathered| Guest::new().prepare(&gathered, false));
        said = sentence(brought);
    }
    assert!(!canary.exists(), "something ran");
    assert!(listing(host.dir.path()) == before, "something was written");
    said
}

/// A command that leaves a canary.
fn command(host: &Host) -> String {
    let script = host.dir.path().join("evil.sh");
    let text = format!("#!/bin/sh\n: >{}\ncat\n", host.dir.path().join("canary").display());
    std::fs::write(&script, text).expect("writes");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("sets");
    script.display().to_string()
}

#[test]
fn no_command_that_a_repository_names_is_run() {
    let host = Host::new();
    let evil = command(&host);
    host.write("b", "b");
    host.write(".gitattributes", "* filter=evil diff=evil merge=evil textconv=evil\n");
    host.commit("more");
    for key in [
        "core.fsmonitor",
        "core.sshCommand",
        "core.gitProxy",
        "core.askPass",
        "core.editor",
        "core.pager",
        "core.alternateRefsCommand",
        "credential.helper",
        "diff.external",
        "diff.evil.command",
        "diff.evil.textconv",
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "merge.evil.driver",
        "gpg.program",
        "gpg.ssh.program",
        "pager.rev-list",
        "pager.ls-files",
        "pager.config",
        "sequence.editor",
        "uploadpack.packObjectsHook",
        "submodule.x.update",
        "alias.ls-files",
        "alias.rev-parse",
        "alias.rev-list",
        "trace2.eventTarget",
    ] {
        host.git(&["config", key, &evil]);
    }
    host.git(&["config", "filter.evil.required", "true"]);
    host.git(&["config", "core.hooksPath", host.dir.path().to_str().expect("text")]);
    host.git(&["config", "log.showSignature", "true"]);
    host.git(&["config", "core.untrackedCache", "true"]);
    host.git(&["config", "gc.auto", "1"]);
    let hooks =
        ["post-index-change", "fsmonitor-watchman", "query-watchman", "reference-transaction", "pre-auto-gc"];
    for hook in hooks {
        for dir in [host.dir.path().to_owned(), host.path(".git/hooks")] {
            std::fs::create_dir_all(&dir).expect("makes");
            std::fs::copy(&evil, dir.join(hook)).expect("copies");
        }
    }
    // A file whose time has changed is one that git would run the filter on.
    host.write("b", "c");
    assert_eq!(tried(&host), "went well");
    // A git that is not held back runs it, whatever comes of that.
    try_git(&host.top(), &["status"]);
    assert!(host.dir.path().join("canary").exists(), "the trap does not work");
}

#[test]
fn objects_that_are_missing_are_not_fetched() {
    let host = Host::new();
    let evil = command(&host);
    host.git(&["config", "core.repositoryFormatVersion", "1"]);
    host.git(&["config", "extensions.partialClone", "origin"]);
    host.git(&["config", "remote.origin.promisor", "true"]);
    host.git(&["config", "remote.origin.url", &format!("ext::{evil}")]);
    host.git(&["config", "remote.origin.uploadpack", &evil]);
    host.git(&["config", "protocol.ext.allow", "always"]);
    host.git(&["config", "core.gitProxy", &evil]);
    let blob = host.git(&["rev-parse", "HEAD:a"]);
    std::fs::remove_file(host.path(format!(".git/objects/{}/{}", &blob[..2], &blob[2..]))).expect("removes");
    tried(&host);
    host.git(&["config", "remote.origin.url", host.dir.path().to_str().expect("text")]);
    tried(&host);
}

#[test]
fn git_in_the_repository_is_not_the_persons_git() {
    let host = Host::new();
    let evil = command(&host);
    std::fs::copy(&evil, host.path("git")).expect("copies");
    assert_eq!(tried(&host), "went well");
}

#[test]
fn a_repository_that_leads_to_another_one_is_refused() {
    let secret = Host::new();
    secret.write("secret", "s");
    secret.commit("secret");
    let secret_git = secret.path(".git");
    // What is done to the repository's directory; what is said of it.
    let cases: [(&str, Act, &str); 16] = [
        (".git symlink", |top, secret| replace(&top.join(".git"), secret), "/.git is a symlink"),
        ("gitdir", |top, secret| gitfile(top, secret), "which is the repository of another work tree"),
        (
            "gitdir below modules",
            |top, secret| {
                symlink(secret, top.join("modules")).expect("links");
                gitfile(top, &top.join("modules"));
            },
            "which is the repository of another work tree",
        ),
        (
            "commondir",
            |top, secret| {
                std::fs::write(top.join(".git/commondir"), format!("{}\n", secret.display()))
                    .expect("writes");
            },
            "which does not hold it",
        ),
        (
            "refs",
            |top, secret| replace(&top.join(".git/refs/heads"), &secret.join("refs/heads")),
            "leads elsewhere",
        ),
        (
            "a branch",
            |top, secret| replace(&top.join(".git/refs/heads/main"), &secret.join("refs/heads/main")),
            "leads elsewhere",
        ),
        ("index", |top, secret| replace(&top.join(".git/index"), &secret.join("index")), "leads elsewhere"),
        (
            "refs beside branches",
            |top, secret| {
                symlink(secret.join("refs/heads"), top.join(".git/refs/x")).expect("links");
                std::fs::write(top.join(".git/HEAD"), "ref:\trefs/x/main\n").expect("writes");
            },
            "leads elsewhere",
        ),
        (
            "a branch that goes on",
            |top, secret| {
                symlink(secret.join("refs/heads"), top.join(".git/refs/x")).expect("links");
                std::fs::write(top.join(".git/refs/heads/main"), "ref: refs/x/main\n").expect("writes");
            },
            "leads elsewhere",
        ),
        (
            "packs",
            |top, secret| replace(&top.join(".git/objects/pack"), &secret.join("objects/pack")),
            "leads elsewhere",
        ),
        ("HEAD", |top, secret| replace(&top.join(".git/HEAD"), &secret.join("HEAD")), "is a symlink"),
        (
            "a branch that is a root ref",
            |top, secret| goes_on(top, "refs/heads/main", "ORIG_HEAD", secret),
            "leads elsewhere",
        ),
        (
            "a branch that is another work tree's",
            |top, secret| goes_on(top, "refs/heads/main", "worktrees/x/ORIG_HEAD", secret),
            "leads elsewhere",
        ),
        (
            "a branch that is whatever lies there",
            |top, secret| goes_on(top, "refs/heads/main", "x/y", secret),
            "leads elsewhere",
        ),
        (
            "a tag",
            |top, secret| goes_on(top, "refs/tags/v1", "main-worktree/ORIG_HEAD", secret),
            "leads elsewhere",
        ),
        (
            "refs in another directory",
            |top, secret| {
                let more = format!(
                    "[core]\n\trepositoryFormatVersion = 1\n[extensions]\n\trefStorage = \"files://{}\"\n",
                    secret.display()
                );
                append(&top.join(".git/config"), &more);
            },
            "has its refs in",
        ),
    ];
    for (name, act, want) in cases {
        let host = Host::new();
        act(&host.top(), &secret_git);
        let said = tried(&host);
        assert!(said.contains(want) && said.contains("--copy"), "{name}: {said}");
    }
    // Its URL and names do not come by way of an include.
    let host = Host::new();
    secret.git(&["config", "remote.origin.url", "https://secret/"]);
    host.git(&["config", "include.path", secret.path(".git/config").to_str().expect("text")]);
    assert_eq!(host.gather().repository.expect("a repository").read.settings.origin, None);
    // What another repository has staged does not come by way of excludes either.
    let host = Host::new();
    host.git(&["config", "core.excludesFile", secret.path("secret").to_str().expect("text")]);
    let brought = host.gather().repository.expect("a repository");
    assert_eq!(brought.read.settings.exclude.lines().filter(|line| *line == "s").count(), 0);
}

#[test]
fn a_submodule_that_is_another_repository_is_refused() {
    let secret = Host::new();
    let host = Host::new();
    symlink(secret.dir.path(), host.path(".git/modules")).expect("links");
    host.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{},x", "1".repeat(40))]);
    host.write("x/.git", "gitdir: ../.git/modules/repo/.git\n");
    let said = tried(&host);
    assert!(said.contains("which is the repository of another work tree"), "{said}");
}

/// Has the ref `name` go on to `target`, which is the other repository's branch, whose commit is here too.
fn goes_on(top: &Path, name: &str, target: &str, secret: &Path) {
    let git_dir = top.join(".git");
    std::fs::write(git_dir.join(name), format!("ref: {target}\n")).expect("writes");
    let file = git_dir.join(target.strip_prefix("main-worktree/").unwrap_or(target));
    std::fs::create_dir_all(file.parent().expect("a parent")).expect("makes");
    symlink(secret.join("refs/heads/main"), file).expect("links");
    append(&git_dir.join("objects/info/alternates"), &format!("{}\n", secret.join("objects").display()));
}

fn append(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
    let before = std::fs::read_to_string(path).unwrap_or_default();
    std::fs::write(path, before + text).expect("writes");
}

#[test]
fn a_commit_is_not_looked_for_by_a_name_that_leads_to_another_repository() {
    let secret = Host::new();
    secret.write("secret", "s");
    let hidden = secret.commit("secret");
    let secret_git = secret.path(".git");
    let ask = |host: &Host, from: &str| {
        let (branch, from) = (Some("b".to_owned()), Some(from.to_owned()));
        sentence(gather(&Wish { branch, from, ..host.wish() }))
    };
    // Where the symlink is, and what names it.
    for (link, from) in [
        ("v1", "v1"),
        ("v1", "v1~0"),
        ("v1", "v1@{0}"),
        ("FETCH_HEAD", "FETCH_HEAD"),
        ("ORIG_HEAD", "main-worktree/ORIG_HEAD"),
        ("logs/HEAD", "@{1}"),
        ("logs/refs/heads/main", "main@{0}^"),
        ("x/y", "main@{u}"),
    ] {
        let host = Host::new();
        append(
            &host.path(".git/objects/info/alternates"),
            &format!("{}\n", secret_git.join("objects").display()),
        );
        let link = host.path(format!(".git/{link}"));
        std::fs::remove_file(&link).ok();
        std::fs::create_dir_all(link.parent().expect("a parent")).expect("makes");
        let logs = link.strip_prefix(host.path(".git")).expect("below").starts_with("logs");
        let target = if logs { "logs/refs/heads/main" } else { "refs/heads/main" };
        symlink(secret_git.join(target), &link).expect("links");
        host.git(&["config", "branch.main.remote", "."]);
        host.git(&["config", "branch.main.merge", "x/y"]);
        let said = ask(&host, from);
        assert!(said.contains("leads elsewhere"), "{from}: {said}");
    }
    // Names of its own.
    let host = Host::new();
    host.commit("second");
    std::fs::write(host.path(".git/FETCH_HEAD"), host.git(&["rev-parse", "HEAD~"])).expect("writes");
    host.git(&["tag", "-a", "-m", "x", "v1"]);
    host.git(&["tag", "one/v2", "HEAD~"]);
    for from in ["FETCH_HEAD", "v1~1", "one/v2", "main@{1}", "@{1}", "@", "HEAD^{/first}", "v1^{commit}"] {
        assert_eq!(ask(&host, from), "went well", "{from}");
    }
    assert!(ask(&host, &hidden).ends_with(&format!("has no commit {hidden}")));
}

fn replace(path: &Path, target: &Path) {
    match path.is_dir() {
        true => std::fs::remove_dir_all(path).expect("removes"),
        false => std::fs::remove_file(path).expect("removes"),
    }
    symlink(target, path).expect("links");
}

fn gitfile(top: &Path, names: &Path) {
    std::fs::remove_dir_all(top.join(".git")).expect("removes");
    std::fs::write(top.join(".git"), format!("gitdir: {}\n", names.display())).expect("writes");
}

#[test]
fn a_work_tree_elsewhere_is_not_gone_to() {
    let host = Host::new();
    let elsewhere = tempfile::tempdir().expect("a directory");
    std::fs::write(elsewhere.path().join("a"), "secret").expect("writes");
    std::fs::write(elsewhere.path().join("u"), "secret").expect("writes");
    host.git(&["config", "core.worktree", elsewhere.path().to_str().expect("text")]);
    let gathered = gather(&Wish { untracked: true, ..host.wish() });
    if let Ok(gathered) = gathered {
        assert_eq!(gathered.items.len(), 1);
        let mut guest = Guest::new();
        guest.prepare(&gathered, false).expect("brings");
        assert_eq!(std::fs::read_to_string(guest.path("a")).expect("reads"), "first\n");
    }
    assert_eq!(tried(&host), "went well");
}

#[test]
fn paths_that_git_would_not_check_out_are_refused() {
    for path in [".git/hooks/post-checkout", "../outside", ".GIT/config", "a/../../x", "git~1/x"] {
        let host = Host::new();
        let mut index = std::fs::read(host.path(".git/index")).expect("reads");
        // git itself refuses to add it, so the index is written by hand: one entry, version 2, its checksum last.
        index.truncate(12 + 62);
        index.truncate(12 + 60);
        index.extend((path.len() as u16).to_be_bytes());
        index.extend(path.as_bytes());
        let entry = 62 + path.len();
        index.extend(vec![0; 8 - entry % 8]);
        let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &index);
        index.extend(digest.as_ref());
        std::fs::write(host.path(".git/index"), index).expect("writes");
        let wish = host.wish();
        let before = listing(host.dir.path());
        let said = sentence(gather(&wish));
        assert!(listing(host.dir.path()) == before);
        assert!(said.contains("not to be trusted"), "{path}: {said}");
    }
}

#[test]
fn a_submodule_that_leads_elsewhere_is_refused() {
    let library = Host::new();
    let cases: [(&str, Act); 4] = [
        ("another repository", |sub, other| {
            std::fs::write(sub.join(".git"), format!("gitdir: {}\n", other.join(".git").display()))
                .expect("writes");
        }),
        ("the superproject", |sub, _| {
            std::fs::write(sub.join(".git"), "gitdir: ../.git\n").expect("writes");
        }),
        ("a symlink", |sub, other| replace(&sub.join(".git"), &other.join(".git"))),
        ("a name with dots", |sub, _| {
            std::fs::write(sub.join(".git"), "gitdir: ../.git/modules/../../../other/.git\n")
                .expect("writes");
        }),
    ];
    for (name, act) in cases {
        let host = Host::new();
        let other = host.dir.path().join("other");
        git(host.dir.path(), &["clone", "-q", library.top().to_str().expect("text"), "other"]);
        host.git(&["submodule", "add", "-q", library.top().to_str().expect("text"), "sub"]);
        host.commit("sub");
        act(&host.path("sub"), &other);
        let said = match host_gather(&host) {
            Ok(_) => panic!("{name} is read"),
            Err(e) => e.to_string(),
        };
        assert!(said.contains("another work tree") || said.contains("symlink"), "{name}: {said}");
        let before = listing(host.dir.path());
        sentence(host_gather(&host));
        assert!(listing(host.dir.path()) == before, "{name}");
    }
    // One that has become a symlink to a directory is a symlink.
    let host = Host::new();
    host.git(&["submodule", "add", "-q", library.top().to_str().expect("text"), "sub"]);
    host.commit("sub");
    replace(&host.path("sub"), &library.top());
    let gathered = host_gather(&host).expect("reads");
    assert!(gathered.repository.expect("a repository").read.submodules.is_empty());
}

fn host_gather(host: &Host) -> Result<Gathered, WorkspaceError> {
    gather(&host.wish())
}

#[test]
fn what_looks_like_configuration_stays_text() {
    let host = Host::new();
    let config = std::fs::read_to_string(host.path(".git/config")).expect("reads");
    let secret = host.dir.path().join("secret");
    std::fs::write(&secret, "[user]\n\tname = included\n").expect("writes");
    let more = format!(
        "[include]\n\tpath = {}\n[user]\n\temail = \"a\\n[core]\\n\\tsshCommand = evil\"\n[remote \"origin\"]\n\turl = \"https://u:p@h/a\r\"\n",
        secret.display()
    );
    std::fs::write(host.path(".git/config"), config + &more).expect("writes");
    let settings = host.gather().repository.expect("a repository").read.settings;
    assert_eq!(settings.origin, None);
    assert_eq!(settings.user_email, None);
    assert_ne!(settings.user_name.as_deref(), Some("included"));
    assert_eq!(tried(&host), "went well");
}

#[test]
fn fifos_and_symlinks_in_the_place_of_files_hold_nobody_up() {
    let host = Host::new();
    host.write("d/f", "x");
    host.write("p", "x");
    host.commit("more");
    std::fs::remove_file(host.path("p")).expect("removes");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        host.path("p"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("makes a pipe");
    replace(&host.path("d"), Path::new("/etc"));
    symlink("/etc/passwd", host.path("passwd")).expect("links");
    let gathered = gather(&Wish { untracked: true, ..host.wish() }).expect("reads");
    let paths: Vec<String> =
        gathered.items.iter().map(|i| String::from_utf8_lossy(&i.path).into_owned()).collect();
    assert_eq!(paths, ["a", "d", "passwd"]);
    assert!(gathered.items[1..].iter().all(|item| item.mode == crate::git::Mode::Symlink));
}
