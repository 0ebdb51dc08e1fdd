//! `banger bundle create`: what becomes of its file when there is no bundle.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use banger::proto::api::Code;

use crate::fake::Fake;

#[test]
fn a_daemon_of_another_version_is_named_and_leaves_no_file() {
    let old = "this is no request that bangerd knows: unknown variant `bundle.create`, expected one of `daemon.status`";
    let fake = Fake::start(move |_, asked| asked.fail(Code::BadRequest, old));
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("b");
    let line = ["bundle", "create", path.to_str().expect("UTF-8"), "--image", "x"];
    let end = fake.run(&line);
    assert_eq!(end.code, Some(1));
    assert_eq!(
        end.err,
        "banger: the bangerd that runs is of another version of banger and does not know this request; `banger daemon stop`, or `sudo \
         banger system restart` where it is installed, makes room for one that does; VMs run on\n"
    );
    assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 0);
}

#[test]
fn ctrl_c_takes_the_half_written_file_away() {
    let (asked, hears) = std::sync::mpsc::channel();
    let fake = Fake::start(move |_, client| {
        asked.send(()).expect("somebody hears it");
        // Never answers, as one that packs for an hour.
        std::thread::sleep(Duration::from_secs(3600));
        drop(client);
    });
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("b");
    let mut child = fake
        .banger(&["bundle", "create", path.to_str().expect("UTF-8"), "--image", "x"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    hears.recv_timeout(Duration::from_secs(60)).expect("it asks");
    assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 1, "it writes beside its place");
    assert!(
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("runs kill").success()
    );
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().expect("waits") {
            Some(status) => break status,
            None => assert!(begun.elapsed() < Duration::from_secs(60), "it does not end"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(130));
    assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 0);
}
