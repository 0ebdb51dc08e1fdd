//! Work trees of odd kinds in a guest with next to nothing, and back: brought, changed there, exported and applied here, until both sides
//! are equal.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use crate::host_git::{apply, commit, git, listing};
use crate::rig::Rig;

/// How much of what a work tree may be takes an emulated guest minutes: a fifth of the files and a tenth of the bytes, or with
/// BANGER_TEST_FULL_SIZE all of it. The whole goes through both sides without a guest in cli/workspace/tests/whole_size.rs.
fn sizes() -> (usize, u64) {
    match std::env::var_os("BANGER_TEST_FULL_SIZE") {
        Some(_) => (100_000, 3 << 30),
        None => (20_000, 300 << 20),
    }
}

fn repository(rig: &Rig, name: &str) -> PathBuf {
    let repo = rig.path().join(name);
    fs::create_dir(&repo).expect("makes");
    git(&repo, &["init", "-q", "-b", "main"]);
    repo
}

fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.as_ref().parent().expect("a parent")).expect("makes");
    fs::write(path, content).expect("writes");
}

fn start(rig: &Rig) {
    rig.ok("vm run -d --name odd --image busybox --memory 2G --disk-size 16G");
}

fn prepare(rig: &Rig, repo: &Path, options: &[&str]) {
    let words = [&["vm", "workspace", "prepare", "odd", repo.to_str().expect("text")], options].concat();
    rig.ok_args(&words);
}

/// Changes the work tree in the guest, brings the changes here, and holds both sides against each other.
fn round(rig: &Rig, repo: &Path, script: &str) {
    let name = repo.file_name().and_then(OsStr::to_str).expect("text");
    rig.sh("odd", &format!("cd /root/{name}\n{script}"));
    let (patch, guest) = (rig.path().join("patch"), rig.path().join("guest"));
    rig.ok(&format!("vm workspace export odd --guest-path /root/{name} --output {}", patch.display()));
    apply(repo, &patch);
    rig.ok(&format!("vm cp odd:/root/{name} {}", guest.display()));
    let (there, here) = (listing(&guest), listing(repo));
    assert!(there == here, "{name}: {}", first_difference(&there, &here));
    fs::remove_dir_all(&guest).expect("removes");
    fs::remove_file(&patch).expect("removes");
    // The next one sends nothing that is there already, and finds nothing in its way.
    prepare(rig, repo, &["--include-untracked"]);
    let none = rig.ok(&format!("vm workspace diff odd --guest-path /root/{name} --name-only"));
    assert_eq!(none, "", "{name}");
}

fn first_difference(there: &str, here: &str) -> String {
    let pair = there.lines().zip(here.lines()).find(|(there, here)| there != here);
    format!("{pair:?}, of {} and {} lines", there.lines().count(), here.lines().count())
}

#[test]
#[ignore = "needs real parts; tests/run.sh"]
fn odd_names_and_no_files_at_all() {
    let rig = Rig::new();
    start(&rig);

    let empty = repository(&rig, "empty");
    git(&empty, &["commit", "-q", "--allow-empty", "-m", "nothing"]);
    prepare(&rig, &empty, &[]);
    round(&rig, &empty, "test -d .git && echo first >first && mkdir -p a/b && echo deep >a/b/c");
    round(&rig, &empty, "rm -r first a");
    assert_eq!(listing(&empty), "");

    let names = repository(&rig, "names");
    let odd: [&[u8]; 16] = [
        b"new\nline",
        b"\n",
        b"dir\n/in\nit",
        b"tab\there",
        b" spaces around ",
        b"-rf",
        b"quote\"d 'twice'",
        b"back\\slash",
        b"*?[a-z]{x,y}$HOME`id`;#!&|<>",
        b":(top)magic",
        b"%s%n",
        b"\xff\xfe not UTF-8",
        "é composed".as_bytes(),
        "e\u{301} decomposed".as_bytes(),
        b"esc\x1b[2J",
        &[b'n'; 255],
    ];
    for name in odd {
        write(names.join(OsStr::from_bytes(name)), [name, b"\n"].concat());
    }
    let deep = ["d".repeat(200), "e".repeat(200), "f".repeat(200), "g".repeat(200)].join("/");
    write(names.join(&deep), "deep\n");
    symlink(OsStr::from_bytes(b"to\nnowhere\xff"), names.join("link\n")).expect("links");
    commit(&names, "odd names");
    prepare(&rig, &names, &[]);
    round(
        &rig,
        &names,
        r#"n='
'
           for f in *; do test -f "$f" && test ! -L "$f" && echo more >>"$f"; done
           echo new >"another${n}name" && rm "dir${n}/in${n}it" && ln -sf "else${n}where" "link${n}" &&
           mv -- -rf "$(printf 'moved\r')""#,
    );

    let cases = repository(&rig, "cases");
    for name in ["README", "readme", "ReadMe", "Dir/file", "dir/file", "DIR/FILE", "swap"] {
        write(cases.join(name), format!("{name}\n"));
    }
    commit(&cases, "names that differ in case");
    prepare(&rig, &cases, &[]);
    round(
        &rig,
        &cases,
        "echo more >>readme && rm ReadMe && echo new >rEADME && mv dir/file dir/FILE && rm -r DIR && echo file >DIR && mv swap Swap",
    );
}

#[test]
#[ignore = "needs real parts; tests/run.sh"]
fn many_files() {
    let rig = Rig::new();
    let (count, _) = sizes();
    start(&rig);
    let many = repository(&rig, "many");
    for number in 0..count {
        let path = format!("d{:03}/s{:02}/f{number}", number / 1000, number / 50 % 20);
        write(many.join(path), format!("file {number}\n").repeat(number % 20));
    }
    commit(&many, "many");
    prepare(&rig, &many, &[]);
    round(
        &rig,
        &many,
        "rm -r d007 && mv d008 moved && for f in d009/s0*/*; do echo more >>$f; done && chmod +x d010/s00/* && echo new >new",
    );
}

#[test]
#[ignore = "needs real parts; tests/run.sh"]
fn a_large_file() {
    let rig = Rig::new();
    let (_, size) = sizes();
    start(&rig);
    let large = repository(&rig, "large");
    write(large.join("small"), "small\n");
    commit(&large, "small");
    let path = large.join("large");
    let file = File::create(&path).expect("creates");
    file.set_len(size).expect("sets its length");
    file.write_all_at(b"begins", 0).expect("writes");
    file.write_all_at(b"ends", size - 4).expect("writes");
    drop(file);
    prepare(&rig, &large, &["--include-untracked"]);
    round(
        &rig,
        &large,
        "echo more >>small && printf middle | dd of=large bs=1 seek=200000000 conv=notrunc 2>/dev/null && printf longer >>large",
    );
}
