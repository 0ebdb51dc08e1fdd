//! Guests that tell the truth about odd trees, and guests that do not, against this host's git.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

use tempfile::TempDir;

mod branch;
mod copied;

use super::super::error::WorkspaceError;
use super::super::prepare::Guest;
use super::super::records::Limits;
use super::*;
use crate::cli::client::Attention;
use crate::cli::render::Progress;
use crate::git::Mode;
use crate::host::cmd::git::{Git, Patience};
use crate::proto::frame::{Frame, Kind, MAX_PAYLOAD};
use crate::proto::workspace::{Difference, Held, Placed};
use crate::vm::workspace::Workspace;

type Tree = BTreeMap<Vec<u8>, (Mode, Vec<u8>)>;

fn tree(entries: &[(&[u8], Mode, &[u8])]) -> Tree {
    entries.iter().map(|(path, mode, content)| (path.to_vec(), (*mode, content.to_vec()))).collect()
}

/// A repository of this host's with a commit of `tree`, in a directory that nothing else is in.
struct Host {
    dir: TempDir,
    git: Git,
}

impl Host {
    fn with(tree: &Tree) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let top = dir.path().join("repo");
        fs::create_dir(&top).expect("creates");
        let git = Git::from(&top);
        git.read(&["init", "-q", "-b", "main", "."]).expect("makes a repository");
        let host = Self { dir, git };
        write(&host.top(), tree);
        host.git(&["add", "-A", "-f"]);
        host.git(&["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"]);
        host
    }

    fn top(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    fn git(&self, args: &[&str]) -> String {
        String::from_utf8_lossy(&self.git.read(args).expect("git does it")).trim().to_owned()
    }

    fn workspace(&self) -> Workspace {
        Workspace {
            guest_path: "/root/repo".to_owned(),
            source: self.top().canonicalize().expect("is there").display().to_string(),
            head: Some("0".repeat(40)),
            branch: None,
            from: None,
            prepared_at: 0,
            untracked: false,
        }
    }

    fn origin(&self) -> Origin {
        Origin::find(&self.workspace(), &self.cache(), Patience::default()).expect("finds it")
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn id_of(&self, content: &[u8]) -> String {
        let said = self.git.read_fed(&["hash-object", "--stdin", "--no-filters"], content).expect("hashes");
        String::from_utf8_lossy(&said).trim().to_owned()
    }

    /// The patch that comes of a guest's word.
    fn patch(&self, guest: Guest) -> Result<Vec<u8>, WorkspaceError> {
        let mut progress = Progress::silent();
        let made = Patch::make(&self.origin(), guest, None, &mut Attention::to(&mut progress));
        let written = made.and_then(|patch| {
            let mut out = vec![];
            patch.write(How::Patch, &mut out).map(|()| out).map_err(|e| match e {
                Unwritten::Not(e) => e,
                Unwritten::To(e) => panic!("memory takes all: {e}"),
            })
        });
        // However it went.
        assert_eq!(fs::read_dir(self.cache()).expect("lists").count(), 0);
        written
    }

    fn apply(&self, patch: &[u8], args: &[&str]) {
        self.git.read_fed(&[&["apply"], args].concat(), patch).expect("applies");
    }
}

fn path_of(top: &Path, path: &[u8]) -> PathBuf {
    top.join(OsStr::from_bytes(path))
}

fn write(top: &Path, tree: &Tree) {
    for (path, (mode, content)) in tree {
        let path = path_of(top, path);
        fs::create_dir_all(path.parent().expect("below the top")).expect("creates");
        match mode {
            Mode::Symlink => symlink(OsStr::from_bytes(content), &path).expect("links"),
            mode => {
                fs::write(&path, content).expect("writes");
                let bits = if *mode == Mode::Executable { 0o755 } else { 0o644 };
                fs::set_permissions(&path, fs::Permissions::from_mode(bits)).expect("sets the mode");
            }
        }
    }
}

fn read(top: &Path) -> Tree {
    let (mut found, mut left) = (Tree::new(), vec![top.to_owned()]);
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).expect("lists") {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("is there");
            let name = path.strip_prefix(top).expect("below the top").as_os_str().as_bytes().to_vec();
            if meta.is_symlink() {
                let target = fs::read_link(&path).expect("reads").as_os_str().as_bytes().to_vec();
                found.insert(name, (Mode::Symlink, target));
            } else if meta.is_file() {
                let executable = meta.permissions().mode() & 0o100 != 0;
                let mode = if executable { Mode::Executable } else { Mode::File };
                found.insert(name, (mode, fs::read(&path).expect("reads")));
            } else if name != b".git" {
                left.push(path);
            }
        }
    }
    found
}

/// A guest that says `records`, then answers each request for contents with what `stream` makes of it.
fn guest(
    records: Vec<u8>,
    stream: impl Fn(&[Vec<u8>], &mut dyn Write) -> io::Result<()> + Send + 'static,
) -> Guest {
    let (near, mut far) = UnixStream::pair().expect("a pair");
    thread::spawn(move || -> io::Result<()> {
        for piece in records.chunks(MAX_PAYLOAD - 7) {
            Frame::new(Kind::Data, piece).write(&mut far)?;
        }
        Frame::new(Kind::Eof, []).write(&mut far)?;
        let mut asked = vec![];
        while let Some(frame) = Frame::read(&mut far)? {
            if frame.kind == Kind::Data {
                asked.extend(frame.payload);
                continue;
            }
            let paths: Vec<Vec<u8>> =
                asked.split(|b| *b == 0).filter(|p| !p.is_empty()).map(<[u8]>::to_vec).collect();
            asked.clear();
            stream(&paths, &mut Framed(&mut far))?;
            Frame::new(Kind::Eof, []).write(&mut far)?;
        }
        Ok(())
    });
    Guest { held: Held { placed: Some(Placed::default()), ..Held::default() }, connection: near.into() }
}

struct Framed<'a>(&'a mut UnixStream);

impl Write for Framed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(MAX_PAYLOAD)];
        Frame::new(Kind::Data, piece).write(self.0).map(|()| piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(tar: &mut tar::Builder<&mut dyn Write>, name: &str, content: &[u8]) -> io::Result<()> {
    let mut header = header(content.len() as u64);
    tar.append_data(&mut header, name, content)
}

/// A guest that tells the truth: `before` was placed, `after` is there. It holds old contents as it should.
fn honest(host: &Host, before: &Tree, after: &Tree) -> Guest {
    let mut records = vec![];
    let paths: std::collections::BTreeSet<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    for path in paths {
        let (old, new) = (before.get(path), after.get(path));
        let differs = old != new;
        if !differs && !path.ends_with(b".gitignore") {
            continue;
        }
        let old = old.map(|(mode, content)| (*mode, host.id_of(content)));
        let new = new.map(|(mode, content)| (*mode, content.len() as u64));
        Difference { old, new, differs, path: path.clone() }.write(&mut records);
    }
    let (before, after) = (before.clone(), after.clone());
    guest(records, move |paths, to| {
        let mut tar = tar::Builder::new(to);
        for (number, path) in paths.iter().enumerate() {
            for (side, tree) in [("old", &before), ("new", &after)] {
                if let Some((_, content)) = tree.get(path) {
                    append(&mut tar, &format!("{side}/{number}"), content)?;
                }
            }
        }
        tar.finish()
    })
}

const F: Mode = Mode::File;
const X: Mode = Mode::Executable;
const L: Mode = Mode::Symlink;

fn odd() -> (Tree, Tree) {
    let big: Vec<u8> =
        (0..300_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()).collect();
    let mut changed = big.clone();
    changed[500_000] ^= 1;
    let before = tree(&[
        (b"same", F, b"same\n"),
        (b"edit", F, b"a\nb\nc\n"),
        (b"no newline", F, b"end"),
        (b"crlf", F, b"a\r\nb\r\n"),
        (b"Case", F, b"upper\n"),
        (b"case", F, b"lower\n"),
        (b"mode", F, b"#!/bin/sh\n"),
        (b"unmode", X, b"#!/bin/sh\n"),
        (b"gone", F, b"gone\n"),
        (b"gone dir/deep/er", F, b"gone too\n"),
        (b"empty-gone", F, b""),
        (b"to-link", F, b"a file\n"),
        (b"to-file", L, b"edit"),
        (b"to-dir", F, b"a file\n"),
        (b"to-plain/a", F, b"in a directory\n"),
        (b"link", L, b"edit"),
        (b"binary", F, b"\x00\x01\x02"),
        (b"new\nline", F, b"1\n"),
        (b"bytes-\xff\xfe", F, b"1\n"),
        (b"quote\"\\t", F, b"1\n"),
        (b"big", F, &big),
    ]);
    let mut after = tree(&[
        (b"same", F, b"same\n"),
        (b"edit", F, b"a\nB\nc\nd"),
        (b"no newline", F, b"end\n"),
        (b"crlf", F, b"a\r\nB\r\n"),
        (b"Case", F, b"lower\n"),
        (b"case", F, b"upper\n"),
        (b"cAse", F, b"a third\n"),
        (b"mode", X, b"#!/bin/sh\n"),
        (b"unmode", F, b"#!/bin/sh\necho\n"),
        (b"to-link", L, b"/etc/passwd"),
        (b"to-file", F, b"now a file\n"),
        (b"to-dir/a/b", F, b"below\n"),
        (b"to-plain", F, b"now a file\n"),
        (b"link", L, b"../../\xff elsewhere"),
        (b"binary", F, b"\x00\x01\x03\x00"),
        (b"new\nline", F, b"2\n"),
        (b"bytes-\xff\xfe", F, b"2\n"),
        (b"quote\"\\t", F, b"2\n"),
        (b"added/\t and \x1b[2J", F, b"\x1b]0;x\x07 \xff\n"),
        (b"added/empty", F, b""),
        (b"added/exec", X, b"#!/bin/sh\ntouch /tmp/pwned\n"),
        (b"-p", F, b"looks like an option\n"),
        (b":(exclude)*", F, b"looks like magic\n"),
        (b"big", F, &changed),
    ]);
    after.insert(b"added/binary".to_vec(), (F, big[..100_000].to_vec()));
    (before, after)
}

#[test]
fn a_patch_of_odd_changes_makes_the_hosts_tree_the_guests() {
    let (before, after) = odd();
    let host = Host::with(&before);
    let objects = host.git(&["count-objects", "-v"]);
    let patch = host.patch(honest(&host, &before, &after)).expect("is made");
    assert_eq!(host.git(&["count-objects", "-v"]), objects, "the host's repository was written to");
    host.apply(&patch, &["--index"]);
    assert!(read(&host.top()) == after);
    host.git(&["reset", "-q", "--hard"]);
    host.apply(&patch, &[]);
    assert!(read(&host.top()) == after);
}

#[test]
fn files_that_are_too_large_for_git_to_compare_are_in_a_patch() {
    let large: Vec<u8> = (0..2_000_000u32).map(|n| (n >> 9) as u8).collect();
    let mut changed = large.clone();
    changed[1_000_000] ^= 1;
    let before = tree(&[
        (b"changed", F, &large),
        (b"mode and more", F, &large),
        (b"mode", F, &large),
        (b"gone", F, &large),
        (b"short", F, &large),
        (b"to-dir", F, &large),
        (b"small\n", F, b"1\n"),
    ]);
    let after = tree(&[
        (b"changed", F, &changed),
        (b"mode and more", X, &changed),
        (b"mode", X, &large),
        (b"short", F, b"short\n"),
        (b"to-dir/f", F, b"small\n"),
        (b"new \xff", X, &changed),
        (b"small\n", F, b"2\n"),
    ]);
    let host = Host::with(&before);
    let patch = host.patch(honest(&host, &before, &after)).expect("is made");
    for args in [&["--index"][..], &[]] {
        host.apply(&patch, args);
        assert!(read(&host.top()) == after);
        host.git(&["reset", "-q", "--hard"]);
        host.git(&["clean", "-fdq"]);
    }
    let to_link = tree(&[(b"changed", L, b"mode")]);
    let refused = host.patch(honest(&host, &tree(&[(b"changed", F, &large)]), &to_link));
    let said = refused.expect_err("is refused").to_string();
    assert!(said.contains("changed was a large file or is one") && said.contains("banger vm cp"), "{said}");
}

#[test]
fn what_was_placed_without_being_committed_is_what_a_patch_fits() {
    let committed = tree(&[(b"f", F, b"1\n"), (b"g", F, b"1\n")]);
    let dirty = tree(&[(b"f", F, b"1\nnot committed\n"), (b"u", F, b"untracked\n")]);
    let after = tree(&[(b"f", F, b"1\nnot committed\nguest\n"), (b"u", F, b"untracked, changed\n")]);
    let host = Host::with(&committed);
    for name in ["f", "g"] {
        fs::remove_file(host.top().join(name)).expect("removes");
    }
    write(&host.top(), &dirty);
    let patch = host.patch(honest(&host, &dirty, &after)).expect("is made");
    host.apply(&patch, &[]);
    assert!(read(&host.top()) == after);
}

#[test]
fn an_unchanged_tree_makes_an_empty_patch() {
    let (before, _) = odd();
    let host = Host::with(&before);
    assert_eq!(host.patch(honest(&host, &before, &before)).expect("is made"), b"");
}

#[test]
fn new_files_that_git_ignores_here_or_there_stay_in_the_guest() {
    let before =
        tree(&[(b".gitignore", F, b"*.o\n"), (b"sub/.gitignore", F, b"x\n"), (b"was.o", F, b"tracked\n")]);
    let mut after = tree(&[
        (b".gitignore", F, b"*.o\n/target/\n!keep.o\n"),
        (b"sub/.gitignore", F, b"x\n"),
        (b"was.o", F, b"changed\n"),
        (b"a.o", F, b""),
        (b"keep.o", F, b""),
        (b"target/deep/file", F, b""),
        (b"sub/x", F, b""),
        (b"x", F, b""),
        (b"secret", F, b""),
        (b"lnk/.gitignore", L, b"/etc/passwd"),
        (b"lnk/y", F, b""),
    ]);
    let host = Host::with(&before);
    fs::write(host.top().join(".git/info/exclude"), "secret\n").expect("writes");
    let patch = host.patch(honest(&host, &before, &after)).expect("is made");
    host.apply(&patch, &[]);
    for ignored in [&b"a.o"[..], b"target/deep/file", b"sub/x", b"secret"] {
        after.remove(ignored);
    }
    assert!(read(&host.top()) == after, "{:?}", read(&host.top()).keys());
}

#[test]
fn a_gitignore_that_is_too_long_is_told_of_and_does_not_count() {
    let long = [b"x\n".repeat(200_000), b"*.o\n".to_vec()].concat();
    let before = tree(&[(b"f", F, b"1\n")]);
    let after = tree(&[
        (b"f", F, b"1\n"),
        (b".gitignore", F, &long),
        (b"a.o", F, b""),
        (b"sub/.gitignore", F, b"y\n"),
        (b"sub/y", F, b""),
    ]);
    let host = Host::with(&before);
    let mut progress = Progress::silent();
    let guest = honest(&host, &before, &after);
    let patch = Patch::make(&host.origin(), guest, None, &mut Attention::to(&mut progress)).expect("is made");
    assert_eq!(patch.notes, [".gitignore is too long and does not count; what it ignores is taken too"]);
    let mut names = vec![];
    patch.write(How::Names, &mut names).expect("writes");
    assert_eq!(String::from_utf8_lossy(&names), ".gitignore\na.o\nsub/.gitignore\n");
    let lies = refused(&[record(b".gitignore", NEW), record(b"a", NEW)].concat(), |_, to| {
        append(&mut tar::Builder::new(to), "new/0", &[b'x'; 1000])
    });
    assert_eq!(lies, ".gitignore is longer than the guest said; try again");
}

#[test]
fn everything_since_a_commit_is_in_a_patch_that_names_it() {
    let before = tree(&[(b"a", F, b"1\n"), (b"b", F, b"1\n"), (b"c", F, b"1\n")]);
    let host = Host::with(&before);
    let dirty = tree(&[(b"a", F, b"2, not committed\n"), (b"b", F, b"1\n"), (b"c", F, b"1\n")]);
    let after = tree(&[(b"a", F, b"2, not committed\n"), (b"b", F, b"3\n"), (b"d", F, b"new\n")]);
    let mut records = vec![];
    for (path, old, new) in [("a", true, true), ("b", true, true), ("c", true, false), ("d", false, true)] {
        let path = path.as_bytes().to_vec();
        let old = old.then(|| (F, host.id_of(&dirty[&path].1)));
        let new = new.then(|| (F, after[&path].1.len() as u64));
        Difference { differs: path != b"a", old, new, path }.write(&mut records);
    }
    let guest = guest(records, {
        let after = after.clone();
        move |paths, to| {
            let mut tar = tar::Builder::new(to);
            for (n, path) in paths.iter().enumerate().filter(|(_, path)| after.contains_key(*path)) {
                append(&mut tar, &format!("new/{n}"), &after[path].1)?;
            }
            tar.finish()
        }
    });
    let mut progress = Progress::silent();
    let base = Base::find(&host.origin(), "main").expect("is a commit");
    let patch =
        Patch::make(&host.origin(), guest, Some(&base), &mut Attention::to(&mut progress)).expect("is made");
    let mut out = vec![];
    patch.write(How::Patch, &mut out).expect("writes");
    host.apply(&out, &["--index"]);
    assert!(read(&host.top()) == after);
    let error = Base::find(&host.origin(), "--all").expect_err("no commit").to_string();
    assert!(error.contains("has no commit \"--all\""), "{error}");
}

#[test]
fn a_submodule_that_is_newer_than_the_commit_does_not_come_as_plain_files() {
    let host = Host::with(&tree(&[(b"f", F, b"1\n"), (b"dir/g", F, b"1\n")]));
    let one = host.id_of(b"1\n");
    let link = format!("160000,{},known", host.git(&["rev-parse", "main"]));
    host.git(&["update-index", "--add", "--cacheinfo", &link]);
    host.git(&["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x"]);
    let placed = format!("100644 {one} 100644 2");
    let records = [
        record(b"f", &format!("{placed} =")),
        record(b"dir/g", &format!("{placed} D")),
        record(b"known/z", &format!("{placed} =")),
        record(b"sub/x", &format!("{placed} =")),
        record(b"sub/deep/y", "- - 100644 2 D"),
        record(b"subway", "- - 100644 2 D"),
    ];
    let mut guest = guest(records.concat(), |paths, to| {
        let mut tar = tar::Builder::new(to);
        (0..paths.len()).try_for_each(|n| append(&mut tar, &format!("new/{n}"), b"2\n"))?;
        tar.finish()
    });
    let submodules = ["known", "sub", "dir", "..", "", "/"].map(|path| (path.to_owned(), Placed::default()));
    guest.held.placed = Some(Placed { submodules: submodules.to_vec(), ..Placed::default() });
    let base = Base::find(&host.origin(), "main").expect("is a commit");
    let mut progress = Progress::silent();
    let patch =
        Patch::make(&host.origin(), guest, Some(&base), &mut Attention::to(&mut progress)).expect("is made");
    assert_eq!(patch.notes, ["the submodule sub is left out; without --base-commit it is not"]);
    let mut names = vec![];
    patch.write(How::Names, &mut names).expect("writes");
    assert_eq!(String::from_utf8_lossy(&names), "dir/g\nsubway\n");
}

#[test]
fn a_file_in_the_place_of_a_directory_with_a_submodule_is_in_a_patch_against_a_commit() {
    let host = Host::with(&tree(&[(b"f", F, b"1\n")]));
    let link = format!("160000,{},libs/sub", host.git(&["rev-parse", "main"]));
    host.git(&["update-index", "--add", "--cacheinfo", &link]);
    host.git(&["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x"]);
    let same = format!("100644 {} 100644 2 =", host.id_of(b"1\n"));
    let records = [record(b"f", &same), record(b"libs", "- - 100644 2 D")].concat();
    let guest = guest(records, |paths, to| {
        let mut tar = tar::Builder::new(to);
        (0..paths.len()).try_for_each(|n| append(&mut tar, &format!("new/{n}"), b"2\n"))?;
        tar.finish()
    });
    let base = Base::find(&host.origin(), "main").expect("is a commit");
    let mut progress = Progress::silent();
    let patch =
        Patch::make(&host.origin(), guest, Some(&base), &mut Attention::to(&mut progress)).expect("is made");
    let mut names = vec![];
    patch.write(How::Names, &mut names).expect("writes");
    assert_eq!(String::from_utf8_lossy(&names), "libs\nlibs/sub\n");
}

#[test]
fn what_git_takes_into_no_tree_is_not_left_out_without_a_word() {
    let before = tree(&[(b".gitmodules", F, b"[x]\n"), (b"f", F, b"1\n")]);
    let after = tree(&[(b".gitmodules", L, b"f"), (b"f", F, b"2\n")]);
    let host = Host::with(&before);
    let error = host.patch(honest(&host, &before, &after)).expect_err("is refused").to_string();
    assert!(error.starts_with("git takes .gitmodules into no tree as it is in the guest"), "{error}");
}

/// What becomes of a guest that says `records`, and `stream` when it is asked for contents.
fn refused(
    records: &[u8],
    stream: impl Fn(&[Vec<u8>], &mut dyn Write) -> io::Result<()> + Send + 'static,
) -> String {
    let before = tree(&[(b"f", F, b"1\n")]);
    let host = Host::with(&before);
    let error = host.patch(guest(records.to_vec(), stream)).expect_err("is refused").to_string();
    assert!(read(&host.top()) == before);
    assert_eq!(fs::read_dir(host.dir.path()).expect("lists").count(), 2, "only the repository and the cache");
    assert_eq!(host.git(&["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
    error
}

fn nothing(_: &[Vec<u8>], _: &mut dyn Write) -> io::Result<()> {
    Ok(())
}

fn record(path: &[u8], words: &str) -> Vec<u8> {
    [words.as_bytes(), b"\t", path, b"\0"].concat()
}

const NEW: &str = "- - 100644 1 D";

#[test]
fn paths_that_lead_out_or_are_gits_own_are_refused_before_anything_is_made_of_them() {
    for path in [
        &b"../x"[..],
        b"/etc/passwd",
        b"a/../../x",
        b".git/hooks/post-checkout",
        b".GIT/config",
        b"git~1/x",
        b"a/.git/x",
        b".g\xe2\x80\x8cit/x",
        b"a//b",
        b"",
    ] {
        let error = refused(&record(path, NEW), nothing);
        assert!(
            error.starts_with("what the guest says of its work tree is not accepted: the path \""),
            "{error}"
        );
    }
}

#[test]
fn a_tree_that_cannot_be_is_refused() {
    let twice = refused(&[record(b"a", NEW), record(b"a", NEW)].concat(), nothing);
    assert!(twice.ends_with("it tells twice of \"a\""), "{twice}");
    let below = refused(
        &[record(b"a", "- - 120000 1 D"), record(b"a.b", NEW), record(b"a/b", NEW)].concat(),
        nothing,
    );
    assert!(below.ends_with("\"a/b\" cannot be there, since \"a\" is no directory"), "{below}");
    for words in ["- - 100600 1 D", "- - 100644 -1 D", "- - 100644 99999999999999999999 D", "x", ""] {
        let error = refused(&record(b"a", words), nothing);
        assert!(error.contains("is no record of a work tree"), "{error}");
    }
    let cut = refused(b"- - 100644 1 D\ta", nothing);
    assert!(cut.ends_with("broke off in the middle of a path"), "{cut}");
    let long = refused(&[b"- - 100644 1 D\t", &[b'a'; 100_000][..]].concat(), nothing);
    assert!(long.ends_with("longer than paths can be"), "{long}");
}

#[test]
fn more_paths_than_a_work_tree_can_have_are_not_kept() {
    let (near, mut far) = UnixStream::pair().expect("a pair");
    let endless = thread::spawn(move || {
        let mut n = 0_u64;
        loop {
            let records: Vec<u8> =
                (0..1000).flat_map(|k| record(format!("{}", n + k).as_bytes(), NEW)).collect();
            n += 1000;
            if Frame::new(Kind::Data, records).write(&mut far).is_err() {
                return n;
            }
        }
    });
    let mut progress = Progress::silent();
    let mut attention = Attention::to(&mut progress);
    let mut peer = super::super::peer::Peer::new(near.into(), &mut attention);
    let limits = Limits { paths: 20_000, bytes: 1 << 30 };
    let error = listing::read(&mut peer, limits).expect_err("is refused").to_string();
    assert!(error.contains("more paths than a work tree can have"), "{error}");
    drop(peer);
    assert!(endless.join().expect("ends") < 100_000);
}

#[test]
fn contents_that_were_not_asked_for_are_refused() {
    for name in ["../../x", "/etc/passwd", "new/7", "new/0/x", "old", "other/0", "new/-0"] {
        let name = name.to_owned();
        let error = refused(&record(b"a", NEW), move |_, to| {
            let mut header = header(0);
            header.as_gnu_mut().expect("gnu").name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            to.write_all(header.as_bytes())?;
            to.write_all(&[0; 1024])
        });
        assert!(error.starts_with("the guest's tar stream is not accepted: "), "{error}");
    }
    let twice = refused(&record(b"a", NEW), |_, to| {
        let mut tar = tar::Builder::new(to);
        append(&mut tar, "new/0", b"1")?;
        append(&mut tar, "new/0", b"2")
    });
    assert!(twice.ends_with("a content comes twice"), "{twice}");
}

#[test]
fn contents_that_are_not_what_was_said_are_refused() {
    let missing = refused(&record(b"a", NEW), nothing);
    assert!(missing.ends_with("a was changed in the guest while it was read; try again"), "{missing}");
    let old = format!("100644 {} - - D", "1".repeat(40));
    let lost = refused(&record(b"a", &old), nothing);
    assert!(lost.starts_with("nobody has any more what a was when it was brought"), "{lost}");
    let said = |size: u64| {
        move |_: &[Vec<u8>], to: &mut dyn Write| {
            let mut header = header(size);
            header.set_path("new/0")?;
            header.set_cksum();
            to.write_all(header.as_bytes())?;
            // It does not matter when the host stops listening.
            for _ in 0..64 {
                to.write_all(&[b'x'; 1 << 20])?;
            }
            Ok(())
        }
    };
    let longer = refused(&record(b"a", NEW), said(1 << 40));
    assert!(longer.ends_with("a is much longer than the guest said"), "{longer}");
    let whole = refused(&record(b"a", &format!("- - 100644 {} D", u64::MAX / 4)), said(u64::MAX / 4));
    assert!(whole.contains("takes no file of more than 4 GiB; `banger vm cp` copies"), "{whole}");
    let many: Vec<u8> =
        (0..5).flat_map(|n| record(format!("f{n}").as_bytes(), "- - 100644 4000000000 D")).collect();
    let asked = refused(&many, |_, _| panic!("nothing is asked for"));
    let has_room = !asked.contains("for which there is no room in");
    assert!(!has_room || asked.contains("with f4, what differs has more than 16 GiB"), "{asked}");
    let short = refused(&record(b"a", "- - 100644 1073741824 D"), said(1 << 30));
    assert!(short.ends_with("a breaks off"), "{short}");
    let endless = refused(&record(b"a", NEW), |_, to| {
        append(&mut tar::Builder::new(&mut *to), "new/0", b"1")?;
        for _ in 0..64 {
            to.write_all(&[0; 1 << 20])?;
        }
        Ok(())
    });
    assert!(endless.contains("it does not end where it says that it does"), "{endless}");
}

#[test]
fn a_nested_repository_stays_in_the_guest_and_is_told_of() {
    let host = Host::with(&tree(&[(b"f", F, b"1\n")]));
    let records = [
        record(b"nested", "- - 160000 0 D"),
        // Placed as an empty directory.
        record(b"sub", "040000  160000 0 D"),
        record(b"sub-as-it-was", "040000  160000 0 ="),
    ];
    let guest = guest(records.concat(), nothing);
    let mut progress = Progress::silent();
    let patch = Patch::make(&host.origin(), guest, None, &mut Attention::to(&mut progress)).expect("is made");
    assert!(patch.is_empty());
    let stays = |path: &str| format!("{path} is a repository of its own and stays in the guest");
    assert_eq!(patch.notes, ["nested", "sub"].map(stays));
}

#[test]
fn a_status_has_a_letter_for_each_path() {
    let (before, after) = odd();
    let host = Host::with(&before);
    let mut progress = Progress::silent();
    let status = Status::of(
        "/p",
        "/s",
        &host.origin(),
        honest(&host, &before, &after),
        &mut Attention::to(&mut progress),
    );
    let lines = status.expect("is told").lines();
    for line in [
        "A  added/empty",
        "D  gone",
        "M  edit",
        "T  to-link",
        "T  to-file",
        "D  to-dir",
        "A  to-dir/a/b",
        "M  mode",
    ] {
        assert!(lines.iter().any(|l| l == line), "{line} in {lines:?}");
    }
    assert!(!lines.iter().any(|l| l.ends_with("same")), "{lines:?}");
}

#[test]
fn a_diff_tells_of_the_same_paths_as_a_status_with_their_modes() {
    let (before, after) = odd();
    let host = Host::with(&before);
    let mut progress = Progress::silent();
    let attention = &mut Attention::to(&mut progress);
    let mut told =
        Status::of("/root/repo", "/repo", &host.origin(), honest(&host, &before, &after), attention)
            .expect("is told")
            .changes;
    let patch =
        Patch::make(&host.origin(), honest(&host, &before, &after), None, attention).expect("is made");
    let mut changes = patch.changes().expect("reads");
    told.sort_by(|a, b| a.path.cmp(&b.path));
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(changes, told);
    let modes = |path: &str| {
        let change = told.iter().find(|change| change.path == path).expect(path);
        (change.status, change.old_mode, change.new_mode)
    };
    assert_eq!(modes("mode"), ('M', Some("100644"), Some("100755")));
    assert_eq!(modes("gone"), ('D', Some("100644"), None));
    assert_eq!(modes("to-link"), ('T', Some("100644"), Some("120000")));
}
