//! `vm cp` against a guest that is a thread: what GNU tar says of what it was sent, and what arrives from what it sends.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use banger::proto::agent::{Read, Target, Write as GuestWrite};
use banger::proto::api::{Code, Request};
use banger::proto::frame::{Frame, Kind};
use tempfile::TempDir;

use crate::fake::{Agent, Fake, Ran};

/// A guest that takes streams, and passes on what it took.
fn taker() -> (Fake, Receiver<(GuestWrite, Vec<u8>)>) {
    let (tell, taken): (Sender<(GuestWrite, Vec<u8>)>, _) = channel();
    let tell = Mutex::new(tell);
    let fake = Fake::start(move |request, asked| match request {
        Request::VmWrite(write) => {
            let (near, far) = UnixStream::pair().expect("a pair");
            asked.done_with(serde_json::Value::Null, near.into());
            let mut agent = Agent(far);
            let mut stream = vec![];
            loop {
                let frame = agent.hear().expect("the CLI is there");
                match frame.kind {
                    Kind::Data => stream.extend_from_slice(&frame.payload),
                    Kind::Eof => break,
                    kind => panic!("{kind:?}"),
                }
            }
            // Only what the guest has on its disk counts.
            agent.say(Kind::Eof, b"");
            tell.lock().expect("not poisoned").send((write.write, stream)).expect("tells");
        }
        other => panic!("{other:?}"),
    });
    (fake, taken)
}

/// A guest that gives what `tar` makes of `dir`.
fn giver(dir: &TempDir, args: &[&str]) -> (Fake, Receiver<Read>) {
    let output =
        Command::new("tar").arg("-C").arg(dir.path()).args(["-c"]).args(args).output().expect("runs");
    assert!(output.status.success(), "{output:?}");
    let (tell, asked_for) = channel();
    let tell = Mutex::new(tell);
    let fake = Fake::start(move |request, asked| match request {
        Request::VmRead(read) => {
            let (near, far) = UnixStream::pair().expect("a pair");
            asked.done_with(serde_json::Value::Null, near.into());
            tell.lock().expect("not poisoned").send(read.read).expect("tells");
            let mut agent = Agent(far);
            for piece in output.stdout.chunks(10_000) {
                agent.say(Kind::Data, piece);
            }
            agent.say(Kind::Eof, b"");
        }
        other => panic!("{other:?}"),
    });
    (fake, asked_for)
}

fn list(stream: &[u8]) -> Vec<String> {
    let mut tar = Command::new("tar")
        .args(["--numeric-owner", "--utc", "-tvf", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawns");
    tar.stdin.take().expect("a pipe").write_all(stream).expect("writes");
    let ran = Ran::of(tar.wait_with_output().expect("ends"));
    assert_eq!(ran.code, Some(0));
    ran.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn tree() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("t/sub")).expect("creates");
    fs::write(at("t/f"), "hello").expect("writes");
    fs::set_permissions(at("t/f"), fs::Permissions::from_mode(0o640)).expect("sets");
    fs::set_permissions(at("t"), fs::Permissions::from_mode(0o750)).expect("sets");
    fs::set_permissions(at("t/sub"), fs::Permissions::from_mode(0o1777)).expect("sets");
    fs::hard_link(at("t/f"), at("t/sub/again")).expect("links");
    symlink(".//f/../f", at("t/odd")).expect("links");
    symlink("x".repeat(300), at("t/long-link")).expect("links");
    fs::write(at(&format!("t/sub/{}", "n".repeat(200))), "long").expect("writes");
    dir
}

#[test]
fn a_tree_goes_to_the_guest_with_all_that_it_is() {
    let (fake, taken) = taker();
    let dir = tree();
    let ran = fake.run(&["vm", "cp", dir.path().join("t").to_str().expect("UTF-8"), "dev:/srv/x"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let (write, stream) = taken.recv().expect("taken");
    assert_eq!((write.path.as_str(), write.target, write.owner), ("/srv/x", Target::Place, None));
    let me = fs::metadata(dir.path()).expect("stats");
    let owner = format!("{}/{}", me.uid(), me.gid());
    let shown = list(&stream);
    let without_time = |line: &String| {
        let mut words: Vec<&str> = line.split(' ').collect();
        words.drain(3..5);
        words.join(" ")
    };
    assert_eq!(
        shown.iter().map(without_time).collect::<Vec<_>>(),
        [
            format!("drwxr-x--- {owner} 0 t"),
            format!("-rw-r----- {owner} 5 t/f"),
            format!("lrwxrwxrwx {owner} 0 t/long-link -> {}", "x".repeat(300)),
            format!("lrwxrwxrwx {owner} 0 t/odd -> .//f/../f"),
            format!("drwxrwxrwt {owner} 0 t/sub"),
            format!("hrw-r----- {owner} 0 t/sub/again link to t/f"),
            format!("-rw-r--r-- {owner} 4 t/sub/{}", "n".repeat(200)),
        ]
    );
}

#[test]
fn contents_and_directories_are_told_apart() {
    let (fake, taken) = taker();
    let dir = tree();
    let t = dir.path().join("t").to_str().expect("UTF-8").to_owned();
    for (src, dst, top, target) in [
        (format!("{t}/."), "dev:/srv", "./", Target::Place),
        (format!("{t}/"), "dev:/srv/", "t", Target::Into),
        (t.clone(), "dev:srv", "t", Target::Place),
    ] {
        assert_eq!(fake.run(&["vm", "cp", &src, dst]).code, Some(0), "{src}");
        let (write, stream) = taken.recv().expect("taken");
        assert_eq!(write.target, target, "{src}");
        let first = list(&stream)[0].rsplit(' ').next().expect("a name").to_owned();
        assert_eq!(first.trim_end_matches('/'), top.trim_end_matches('/'), "{src}");
    }
}

#[test]
fn a_tree_arrives_here_with_all_that_it_is() {
    let dir = tree();
    let (fake, asked_for) = giver(&dir, &["t"]);
    let here = tempfile::tempdir().expect("a directory");
    let cp = |src: &str, dst: &str| {
        let dst = here.path().join(dst);
        fake.run(&["vm", "cp", src, dst.to_str().expect("UTF-8")])
    };
    assert_eq!(cp("dev:/srv/t", ".").code, Some(0));
    assert_eq!(asked_for.recv().expect("asked"), Read { path: "/srv/t".to_owned(), follow: false });
    assert_eq!(cp("dev:/srv/t", "new").code, Some(0));
    assert_eq!(cp("dev:/srv/t/.", "made").code, Some(0));
    for place in ["t", "new", "made"] {
        let diff = Command::new("diff")
            .args(["-r", "--no-dereference"])
            .arg(dir.path().join("t"))
            .arg(here.path().join(place))
            .output()
            .expect("runs");
        assert!(diff.status.success(), "{place}: {diff:?}");
        let meta = |root: &TempDir, first: &str, name: &str| {
            let meta = fs::symlink_metadata(root.path().join(first).join(name)).expect("stats");
            (meta.mode(), meta.mtime(), meta.uid(), meta.nlink())
        };
        for name in ["", "f", "sub", "sub/again", "odd"] {
            assert_eq!(meta(&here, place, name), meta(&dir, "t", name), "{place}/{name}");
        }
    }
}

#[test]
fn a_file_arrives_under_its_name_or_another() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("f"), "new").expect("writes");
    let (fake, _asked_for) = giver(&dir, &["f"]);
    let here = tempfile::tempdir().expect("a directory");
    let cp = |dst: &str| {
        let mut command = fake.banger(&["vm", "cp", "dev:/etc/f", dst]);
        Ran::of(command.current_dir(here.path()).output().expect("runs"))
    };
    let read = |name: &str| fs::read_to_string(here.path().join(name)).expect("reads");
    fs::write(here.path().join("old"), "old and longer").expect("writes");
    symlink("target", here.path().join("link")).expect("links");
    fs::write(here.path().join("target"), "old").expect("writes");
    for (dst, at) in [(".", "f"), ("g", "g"), ("old", "old"), ("link", "target")] {
        let ran = cp(dst);
        assert_eq!((ran.code, read(at).as_str()), (Some(0), "new"), "{dst}: {ran:?}");
    }
    assert!(fs::symlink_metadata(here.path().join("link")).expect("stats").is_symlink());
    let ran = cp("none/f");
    assert_eq!(ran.err, "banger: there is no directory none; make it first\n");
    assert_eq!(cp("old/").code, Some(1));
}

#[test]
fn tar_streams_pass_as_they_are() {
    let dir = tree();
    let (fake, asked_for) = giver(&dir, &["t"]);
    let output = fake.banger(&["vm", "cp", "dev:/t", "-"]).output().expect("runs");
    assert_eq!(asked_for.recv().expect("asked").path, "/t");
    assert_eq!(list(&output.stdout).len(), 7);
    let (fake, taken) = taker();
    let mut child =
        fake.banger(&["vm", "cp", "-", "dev:/srv"]).stdin(Stdio::piped()).spawn().expect("spawns");
    child.stdin.take().expect("a pipe").write_all(&output.stdout).expect("writes");
    assert!(child.wait().expect("ends").success());
    let (write, stream) = taken.recv().expect("taken");
    assert_eq!((write.target, stream == output.stdout), (Target::Into, true));
}

#[test]
fn a_refusal_of_the_guest_is_said_once() {
    let fake = Fake::start(|request, asked| match request {
        Request::VmRead(_) => asked.fail(Code::NotFound, "VM dev has no /nope"),
        Request::VmWrite(_) => {
            let (near, mut far) = UnixStream::pair().expect("a pair");
            asked.done_with(serde_json::Value::Null, near.into());
            Frame::new(Kind::Failed, *b"cannot write /srv/f: no space left").write(&mut far).expect("writes");
        }
        other => panic!("{other:?}"),
    });
    let ran = fake.run(&["vm", "cp", "dev:/nope", "/tmp"]);
    assert_eq!(ran.err, "banger: VM dev has no /nope (op-00c0ffee)\n");
    let ran = fake.run(&["vm", "cp", "/etc/hostname", "dev:/srv/f"]);
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (Some(1), "banger: the guest says: cannot write /srv/f: no space left\n")
    );
    let ran = fake.run(&["vm", "cp", "/no/such/file", "dev:/srv/f"]);
    assert_eq!(ran.err, "banger: cannot copy /no/such/file: No such file or directory (os error 2)\n");
}
