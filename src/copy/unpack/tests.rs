//! Hostile and honest streams, against a real directory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;

use tar::{EntryType, Header};
use tempfile::TempDir;

use super::*;
use crate::proto::frame::{Frame, Kind as FrameKind};

/// One entry: its kind, name, link target, content and mode.
struct Item(EntryType, &'static str, &'static str, &'static str, u32);

fn file(name: &'static str, content: &'static str) -> Item {
    Item(EntryType::Regular, name, "", content, 0o640)
}

fn dir(name: &'static str) -> Item {
    Item(EntryType::Directory, name, "", "", 0o750)
}

fn link(name: &'static str, target: &'static str) -> Item {
    Item(EntryType::Symlink, name, target, "", 0o777)
}

fn hard(name: &'static str, target: &'static str) -> Item {
    Item(EntryType::Link, name, target, "", 0o640)
}

fn tar_of(items: &[Item]) -> Vec<u8> {
    let mut bytes = vec![];
    for Item(kind, name, target, content, mode) in items {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_uid(u64::from(geteuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getegid().as_raw()));
        header.set_mtime(1_000_000_000);
        let gnu = header.as_gnu_mut().expect("gnu");
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Sends the stream as a guest does, in pieces.
fn receive(items: &[Item], to: &Destination) -> Result<Skipped, CopyError> {
    receive_bytes(tar_of(items), to)
}

fn receive_bytes(bytes: Vec<u8>, to: &Destination) -> Result<Skipped, CopyError> {
    let (near, mut far) = UnixStream::pair().expect("a pair");
    let sender = std::thread::spawn(move || {
        for piece in bytes.chunks(700) {
            if Frame::new(FrameKind::Data, piece).write(&mut far).is_err() {
                return;
            }
        }
        far.write_all(&Frame::new(FrameKind::Eof, []).bytes()).unwrap_or_default();
    });
    let result = unpack(&mut Incoming::new(near.into(), |_| {}), to);
    sender.join().expect("no panic");
    result
}

fn into_dir(dir: &TempDir) -> Destination {
    Destination { base: dir.path().to_owned(), top: Top::Keep }
}

fn temp() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn a_tree_arrives_with_modes_times_and_links() {
    let here = temp();
    let items = [
        dir("t"),
        file("t/f", "hello"),
        link("t/l", "../../etc/passwd"),
        hard("t/h", "t/f"),
        dir("t/d"),
        file("t/d/g", ""),
    ];
    receive(&items, &into_dir(&here)).expect("unpacks");
    let at = |name: &str| here.path().join(name);
    assert_eq!(fs::read_to_string(at("t/f")).expect("reads"), "hello");
    assert_eq!(fs::read_link(at("t/l")).expect("reads"), Path::new("../../etc/passwd"));
    let (f, h) = (fs::metadata(at("t/f")).expect("stats"), fs::metadata(at("t/h")).expect("stats"));
    assert_eq!(f.ino(), h.ino());
    assert_eq!((f.permissions().mode() & 0o7777, f.mtime()), (0o640, 1_000_000_000));
    let t = fs::metadata(at("t")).expect("stats");
    assert_eq!((t.permissions().mode() & 0o7777, t.mtime()), (0o750, 1_000_000_000));
    assert_eq!(fs::symlink_metadata(at("t/l")).expect("stats").mtime(), 1_000_000_000);
}

#[test]
fn the_top_is_renamed_or_stands_for_the_base() {
    let here = temp();
    let rename = Destination { base: here.path().to_owned(), top: Top::Rename("new".into()) };
    receive(&[dir("t"), file("t/f", "x"), hard("t/h", "t/f")], &rename).expect("unpacks");
    assert!(here.path().join("new/h").exists());
    let contents = Destination { base: here.path().to_owned(), top: Top::Contents };
    receive(&[dir("t"), file("t/f", "x")], &contents).expect("unpacks");
    assert!(here.path().join("f").exists());
    receive(&[dir("./"), file("./g", "x")], &into_dir(&here)).expect("unpacks a root");
    assert!(here.path().join("g").exists());
    assert!(receive(&[file("f", "x")], &contents).is_err(), "a file is no directory");
}

#[test]
fn a_file_that_was_there_stays_until_the_new_one_is_whole() {
    let here = temp();
    fs::write(here.path().join("f"), "old").expect("writes");
    let new: &'static str = Box::leak("new".repeat(1000).into_boxed_str());
    let whole = tar_of(&[file("f", new)]);
    for length in [512, 513, 2000, 512 + new.len() - 1] {
        receive_bytes(whole[..length].to_vec(), &into_dir(&here)).expect_err("breaks off");
        assert_eq!(fs::read_to_string(here.path().join("f")).expect("reads"), "old", "{length}");
        assert_eq!(fs::read_dir(here.path()).expect("lists").count(), 1, "{length}");
    }
    receive_bytes(whole, &into_dir(&here)).expect("unpacks");
    assert_eq!(fs::read_to_string(here.path().join("f")).expect("reads"), new);
}

#[test]
fn nothing_is_written_through_a_symlink_of_the_stream() {
    let (here, outside) = (temp(), temp());
    let target: &'static str = Box::leak(outside.path().to_str().expect("UTF-8").to_owned().into_boxed_str());
    for items in [
        vec![dir("t"), link("t/l", target), file("t/l/f", "x")],
        vec![dir("t"), link("t/l", target), dir("t/l"), file("t/l/f", "x")],
        vec![dir("t"), link("t/l", ".."), file("t/l/f", "x")],
    ] {
        receive(&items, &into_dir(&here)).expect_err("refused");
    }
    assert_eq!(fs::read_dir(outside.path()).expect("lists").count(), 0);
    assert!(!here.path().join("f").exists());
}

#[test]
fn a_symlink_gives_way_to_a_file_and_its_target_is_untouched() {
    let (here, outside) = (temp(), temp());
    let secret = outside.path().join("secret");
    fs::write(&secret, "mine").expect("writes");
    fs::create_dir(here.path().join("t")).expect("creates");
    symlink(&secret, here.path().join("t/f")).expect("links");
    receive(&[dir("t"), file("t/f", "x")], &into_dir(&here)).expect("unpacks");
    assert_eq!(fs::read_to_string(&secret).expect("reads"), "mine");
    assert!(here.path().join("t/f").symlink_metadata().expect("stats").is_file());
}

#[test]
fn a_symlink_that_was_there_before_is_not_followed() {
    let (here, outside) = (temp(), temp());
    symlink(outside.path(), here.path().join("t")).expect("links");
    let error = receive(&[dir("t"), file("t/f", "x")], &into_dir(&here)).expect_err("refused");
    assert!(error.to_string().contains("is no directory"), "{error}");
    assert_eq!(fs::read_dir(outside.path()).expect("lists").count(), 0);
}

#[test]
fn a_hard_link_reaches_only_what_came_with_the_stream() {
    let here = temp();
    fs::create_dir(here.path().join("t")).expect("creates");
    fs::write(here.path().join("t/mine"), "mine").expect("writes");
    for items in [
        vec![dir("t"), hard("t/h", "t/mine")],
        vec![dir("t"), link("t/l", "mine"), hard("t/h", "t/l")],
        vec![dir("t"), hard("t/h", "other/x")],
        vec![dir("t"), hard("t/h", "t")],
    ] {
        receive(&items, &into_dir(&here)).expect_err("refused");
    }
    assert!(!here.path().join("t/h").exists());
}

#[test]
fn setuid_bits_and_devices_do_not_arrive() {
    let here = temp();
    let items = [
        dir("t"),
        Item(EntryType::Regular, "t/su", "", "x", 0o6755),
        Item(EntryType::Char, "t/null", "", "", 0o666),
        Item(EntryType::Fifo, "t/pipe", "", "", 0o622),
        Item(EntryType::Directory, "t/d", "", "", 0o7771),
    ];
    let skipped = receive(&items, &into_dir(&here)).expect("unpacks");
    assert_eq!(skipped, Skipped { devices: 1, sockets: 0, setuid: 2, symlinks: 0 });
    let mode =
        |name: &str| fs::metadata(here.path().join(name)).expect("stats").permissions().mode() & 0o7777;
    assert_eq!((mode("t/su"), mode("t/pipe"), mode("t/d")), (0o755, 0o622, 0o1771));
    assert!(!here.path().join("t/null").exists());
}

#[test]
fn entries_outside_the_top_or_twice_are_refused() {
    let here = temp();
    for items in [
        vec![dir("t"), file("u/f", "x")],
        vec![file("t/f", "x")],
        vec![dir("t"), file("t/f", "x"), file("t/f", "y")],
        vec![dir("t"), file("t/a/f", "x")],
        vec![dir("t"), dir("t/d"), file("t/d", "x")],
    ] {
        receive(&items, &into_dir(&here)).expect_err("refused");
    }
}

#[test]
fn a_stream_that_breaks_off_leaves_no_half_file() {
    let here = temp();
    let (near, mut far) = UnixStream::pair().expect("a pair");
    let mut bytes = tar_of(&[file("f", "hello")]);
    bytes.truncate(514);
    Frame::new(FrameKind::Data, bytes).write(&mut far).expect("writes");
    Frame::new(FrameKind::Failed, *b"disk on fire").write(&mut far).expect("writes");
    let error = unpack(&mut Incoming::new(near.into(), |_| {}), &into_dir(&here)).expect_err("broke off");
    assert!(matches!(&error, CopyError::Guest { message } if message == "disk on fire"), "{error}");
    assert!(!here.path().join("f").exists());
}

#[test]
fn a_stream_without_end_is_not_waited_for() {
    let here = temp();
    let (near, mut far) = UnixStream::pair().expect("a pair");
    let sender = std::thread::spawn(move || {
        far.write_all(&Frame::new(FrameKind::Data, tar_of(&[file("f", "x")])).bytes()).unwrap_or_default();
        while Frame::new(FrameKind::Data, vec![0; 60_000]).write(&mut far).is_ok() {}
    });
    unpack(&mut Incoming::new(near.into(), |_| {}), &into_dir(&here)).expect_err("refused");
    sender.join().expect("no panic");
}
