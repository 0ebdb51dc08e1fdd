//! The two stages by themselves: what becomes of them when the helper dies at the worst moment.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use banger::host::process;

use crate::rig::{binary, wait_for};

/// Starts both; the helper's end of the socket, and the second's pid.
fn start() -> (BufReader<UnixStream>, u32) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let mut first = Command::new(binary())
        .arg0("bangerd-root")
        .arg("--launch")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .expect("starts");
    let mut socket = BufReader::new(ours);
    let mut line = String::new();
    socket.read_line(&mut line).expect("reads");
    assert!(first.wait().expect("ends").success());
    (socket, line.trim().parse().expect("a pid"))
}

#[test]
#[ignore = "needs root, and its own network namespace: unshare -n"]
fn a_process_whose_helper_dies_before_it_is_told_goes_too() {
    for part in [&b""[..], b"o", b"o{\"cgroup\":null"] {
        let (mut socket, pid) = start();
        let process = process::observe(pid).expect("reads").expect("waits");
        let parent = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("reads");
        assert!(
            !parent.contains(&format!("PPid:\t{}\n", std::process::id())),
            "the helper is not its parent: {parent}"
        );
        socket.get_mut().write_all(part).expect("writes");
        drop(socket);
        wait_for(|| (!process::is_alive(process).expect("reads")).then_some(())).expect("goes");
    }
}

#[test]
#[ignore = "needs root, and its own network namespace: unshare -n"]
fn an_order_that_is_none_is_refused_by_ending() {
    let (mut socket, pid) = start();
    let process = process::observe(pid).expect("reads").expect("waits");
    socket.get_mut().write_all(b"o{}\n").expect("writes");
    let mut said = String::new();
    socket.read_to_string(&mut said).expect("reads");
    wait_for(|| (!process::is_alive(process).expect("reads")).then_some(())).expect("goes");
}
