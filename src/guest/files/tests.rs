//! Trees out of and into the machine that runs the tests, read and made by GNU tar as well as by us.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::guest::serve::{After, Guest, serve};
use crate::proto::agent::{Answer, Code, Read, Request, Target, Write};
use crate::proto::frame::{Frame, Kind};

fn connect(request: &Request) -> (UnixStream, std::thread::JoinHandle<After>) {
    let (mut stream, theirs) = UnixStream::pair().expect("a pair");
    let guest = Guest::new(None).expect("a guest");
    let agent = std::thread::spawn(move || serve(theirs.into(), &guest));
    let line = serde_json::to_string(request).expect("serializes");
    stream.write_all(format!("{line}\n").as_bytes()).expect("writes");
    (stream, agent)
}

fn answer(stream: &mut UnixStream) -> Answer {
    let frame = Frame::read(stream).expect("reads").expect("an answer");
    assert_eq!(frame.kind, Kind::Answer);
    serde_json::from_slice(&frame.payload).expect("an answer")
}

/// The stream, or the guest's answer if it refuses.
fn read(path: &Path, follow: bool) -> Result<Vec<u8>, Answer> {
    let (mut stream, agent) = connect(&Request::Read(Read { path: path.display().to_string(), follow }));
    match answer(&mut stream) {
        Answer::Done => {}
        other => return Err(other),
    }
    let mut tar = vec![];
    loop {
        let frame = Frame::read(&mut stream).expect("reads").expect("an end");
        match frame.kind {
            Kind::Data => tar.extend(frame.payload),
            Kind::Eof => break,
            kind => panic!("{kind:?} {}", String::from_utf8_lossy(&frame.payload)),
        }
    }
    drop(stream);
    agent.join().expect("no panic");
    Ok(tar)
}

/// None if all is well, or what failed.
fn write(
    path: &Path,
    target: Target,
    owner: Option<(u32, u32)>,
    tar: &[u8],
) -> Result<Option<String>, Answer> {
    let (mut stream, agent) =
        connect(&Request::Write(Write { path: path.display().to_string(), target, owner }));
    match answer(&mut stream) {
        Answer::Done => {}
        other => return Err(other),
    }
    for piece in tar.chunks(65_536) {
        Frame::new(Kind::Data, piece).write(&mut stream).expect("writes");
    }
    Frame::new(Kind::Eof, []).write(&mut stream).expect("writes");
    let frame = Frame::read(&mut stream).expect("reads").expect("an end");
    drop(stream);
    agent.join().expect("no panic");
    Ok((frame.kind == Kind::Failed).then(|| String::from_utf8_lossy(&frame.payload).into_owned()))
}

fn gnu_tar(args: &[&str], directory: &Path, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("tar")
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs tar");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let mut out = vec![];
    child.stdout.take().expect("a pipe").read_to_end(&mut out).expect("reads");
    assert!(child.wait().expect("ends").success());
    feeder.join().expect("feeds").ok();
    out
}

/// A tree with one of everything that does not need root.
fn tree(directory: &Path) {
    let top = directory.join("top");
    let deep = top.join("d".repeat(200)).join("e".repeat(200));
    std::fs::create_dir_all(&deep).expect("makes directories");
    std::fs::write(deep.join("file"), vec![7; 100_000]).expect("writes");
    std::fs::write(top.join("script"), "#!/bin/sh\n").expect("writes");
    std::fs::set_permissions(top.join("script"), PermissionsExt::from_mode(0o6751)).expect("sets the mode");
    std::fs::hard_link(top.join("script"), top.join("same")).expect("links");
    symlink("no/such", top.join("dangling")).expect("links");
    symlink("t".repeat(300), top.join("long")).expect("links");
    std::fs::create_dir(top.join("closed")).expect("makes a directory");
    std::fs::write(top.join("closed/in"), "x").expect("writes");
    std::fs::set_permissions(top.join("closed"), PermissionsExt::from_mode(0o500)).expect("sets the mode");
    assert!(
        Command::new("touch")
            .args(["-hd", "@1000000000"])
            .arg(top.join("closed"))
            .status()
            .expect("runs")
            .success()
    );
}

/// What GNU find sees: names, types, modes, sizes, whole seconds, link targets and counts.
fn listing(directory: &Path) -> String {
    let out = Command::new("find")
        .args([".", "-mindepth", "1", "-printf", "%P %y %m %U:%G %Ts %n %l\n"])
        .current_dir(directory)
        .output()
        .expect("runs find");
    let mut lines: Vec<&str> = std::str::from_utf8(&out.stdout).expect("text").lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn a_tree_does_not_take_the_place_of_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("tree")).expect("makes a directory");
    std::fs::write(dir.path().join("passwd"), "precious").expect("writes");
    let tar = gnu_tar(&["c", "tree"], dir.path(), &[]);
    let failed = write(&dir.path().join("passwd"), Target::Place, None, &tar).expect("begins");
    assert_eq!(failed.as_deref(), Some("cannot unpack tree/: what is in its place is no directory"));
    assert_eq!(std::fs::read(dir.path().join("passwd")).expect("reads"), b"precious");
}

#[test]
fn what_is_no_tar_is_not_quoted() {
    let dir = tempfile::tempdir().expect("a directory");
    let failed = write(dir.path(), Target::Into, None, &b"root:x:0:0:\n".repeat(100)).expect("begins");
    assert_eq!(failed.as_deref(), Some("cannot read the tar stream: it is no tar, or it is damaged"));
}

#[test]
fn a_tree_survives_the_way_out_and_in() {
    let (from, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    tree(from.path());
    let tar = read(&from.path().join("top"), false).expect("reads");
    assert_eq!(write(to.path(), Target::Into, None, &tar), Ok(None));
    assert_eq!(listing(to.path()), listing(from.path()));
    let file = Path::new("top").join("d".repeat(200)).join("e".repeat(200)).join("file");
    assert_eq!(std::fs::read(to.path().join(file)).expect("reads"), vec![7; 100_000]);
    // Once more over what is there now.
    assert_eq!(write(to.path(), Target::Place, None, &tar), Ok(None));
    assert_eq!(listing(to.path()), listing(from.path()));
}

#[test]
fn gnu_tar_reads_what_we_send_and_sends_what_we_read() {
    let (from, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    tree(from.path());
    let tar = read(&from.path().join("top"), false).expect("reads");
    gnu_tar(&["xpf", "-"], to.path(), &tar);
    assert_eq!(listing(to.path()), listing(from.path()));
    for format in ["gnu", "pax"] {
        let to = tempfile::tempdir().expect("a directory");
        let tar = gnu_tar(&["cf", "-", "--format", format, "top"], from.path(), &[]);
        assert_eq!(write(to.path(), Target::Into, None, &tar), Ok(None), "{format}");
        assert_eq!(listing(to.path()), listing(from.path()), "{format}");
    }
}

#[test]
fn a_sparse_file_is_as_long_as_it_was() {
    let (from, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let file = std::fs::File::create(from.path().join("sparse")).expect("creates");
    file.set_len(3_000_000).expect("grows");
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", 2_999_997).expect("writes");
    let tar = gnu_tar(&["cSf", "-", "sparse"], from.path(), &[]);
    assert_eq!(write(to.path(), Target::Into, None, &tar), Ok(None));
    let back = std::fs::read(to.path().join("sparse")).expect("reads");
    assert!(back.len() == 3_000_000 && back.ends_with(b"\0end"));
}

#[test]
fn a_place_that_does_not_exist_names_the_top_entry() {
    let (from, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    tree(from.path());
    let tar = read(&from.path().join("top"), false).expect("reads");
    assert_eq!(write(&to.path().join("new"), Target::Place, None, &tar), Ok(None));
    assert_eq!(listing(&to.path().join("new")), listing(&from.path().join("top")));
    let tar = read(&from.path().join("top/script"), false).expect("reads");
    assert_eq!(write(&to.path().join("new/closed/in"), Target::Place, None, &tar), Ok(None));
    assert_eq!(std::fs::read(to.path().join("new/closed/in")).expect("reads"), b"#!/bin/sh\n");
}

#[test]
fn a_symlink_is_sent_as_it_is_or_as_what_it_leads_to() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("file"), "content").expect("writes");
    symlink("file", dir.path().join("link")).expect("links");
    let kind = |follow| {
        let tar = read(&dir.path().join("link"), follow).expect("reads");
        let mut archive = tar::Archive::new(&tar[..]);
        let entry = archive.entries().expect("a stream").next().expect("an entry").expect("reads");
        (entry.path().expect("a name").into_owned(), entry.header().entry_type())
    };
    assert_eq!(kind(false), ("link".into(), tar::EntryType::Symlink));
    assert_eq!(kind(true), ("link".into(), tar::EntryType::Regular));
}

#[test]
fn a_file_in_the_way_is_replaced_and_never_written_into() {
    let dir = tempfile::tempdir().expect("a directory");
    let (target, elsewhere) = (dir.path().join("target"), dir.path().join("elsewhere"));
    std::fs::create_dir(&target).expect("makes a directory");
    std::fs::write(&elsewhere, "precious").expect("writes");
    symlink(&elsewhere, target.join("script")).expect("links");
    std::fs::write(dir.path().join("script"), "new").expect("writes");
    let tar = read(&dir.path().join("script"), false).expect("reads");
    assert_eq!(write(&target, Target::Into, None, &tar), Ok(None));
    assert_eq!(std::fs::read(&elsewhere).expect("reads"), b"precious");
    assert_eq!(std::fs::read(target.join("script")).expect("reads"), b"new");
}

#[test]
fn what_is_not_there_or_not_absolute_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let code = |answer: Answer| match answer {
        Answer::Refused(refusal) => refusal.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(read(&dir.path().join("no"), false).expect_err("refused")), Code::NotFound);
    assert_eq!(code(read(Path::new("etc"), false).expect_err("refused")), Code::BadRequest);
    for (path, target, want) in [
        ("no", Target::Into, Code::NoDirectory),
        ("no/such", Target::Place, Code::NoDirectory),
        ("file", Target::Into, Code::NoDirectory),
    ] {
        std::fs::write(dir.path().join("file"), "").expect("writes");
        assert_eq!(
            code(write(&dir.path().join(path), target, None, &[]).expect_err("refused")),
            want,
            "{path}"
        );
    }
    assert_eq!(
        code(write(Path::new("tmp"), Target::Into, None, &[]).expect_err("refused")),
        Code::BadRequest
    );
}

#[test]
fn a_hostile_or_broken_stream_fails_with_a_sentence_and_leaves_nothing_outside() {
    let dir = tempfile::tempdir().expect("a directory");
    let inside = dir.path().join("inside");
    std::fs::create_dir(&inside).expect("makes a directory");
    let named = |name: &str| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(1);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        [header.as_bytes().as_slice(), &[b'x'; 512], &[0; 1024]].concat()
    };
    let failed = |tar: &[u8]| write(&inside, Target::Into, None, tar).expect("accepted").expect("fails");
    assert_eq!(failed(&named("../out")), "cannot unpack ../out: its name is absolute or holds `..`");
    assert_eq!(failed(&named("/tmp/out")), "cannot unpack /tmp/out: its name is absolute or holds `..`");
    assert_eq!(failed(&named("cut")[..512]), "cannot unpack cut: the stream ends within it");
    assert!(failed(&[b'x'; 4096]).starts_with("cannot read the tar stream: "));
    assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 1);
    // Nothing at all is an archive of nothing.
    assert_eq!(write(&inside, Target::Into, None, &[]), Ok(None));
}

#[test]
fn everything_belongs_to_the_owner_that_was_asked_for() {
    let (from, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    tree(from.path());
    let tar = read(&from.path().join("top"), false).expect("reads");
    let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let owner = if me.0 == 0 { (4711, 4712) } else { me };
    assert_eq!(write(to.path(), Target::Into, Some(owner), &tar), Ok(None));
    for name in ["top", "top/script", "top/dangling", "top/closed/in"] {
        let meta = std::fs::symlink_metadata(to.path().join(name)).expect("stats");
        assert_eq!((meta.uid(), meta.gid()), owner, "{name}");
    }
    let script = std::fs::metadata(to.path().join("top/script")).expect("stats");
    assert_eq!(script.mode() & 0o7777, 0o6751);
}
