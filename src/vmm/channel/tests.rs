use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::{JoinHandle, spawn};

use proptest::prelude::*;

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// A device that takes one connection, wants `CONNECT 1000`, and writes `pieces`, one after the other.
fn device(pieces: Vec<Vec<u8>>) -> (tempfile::TempDir, Channel, JoinHandle<()>) {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("v");
    let listener = UnixListener::bind(&socket).expect("binds");
    let thread = spawn(move || {
        let (mut peer, _) = listener.accept().expect("accepts");
        let mut command = [0; 64];
        let read = peer.read(&mut command).expect("reads");
        assert_eq!(&command[..read], b"CONNECT 1000\n", "in one piece");
        for piece in pieces {
            // The other side may have had enough.
            if peer.write_all(&piece).is_err() {
                return;
            }
            std::thread::yield_now();
        }
    });
    (dir, Channel::Hybrid { socket }, thread)
}

fn connected(pieces: &[&[u8]]) -> io::Result<Vec<u8>> {
    let (_dir, channel, thread) = device(pieces.iter().map(|p| p.to_vec()).collect());
    let connected = channel.connect(1000, LONG);
    thread.join().expect("the device ends");
    let mut rest = Vec::new();
    UnixStream::from(connected?).read_to_end(&mut rest)?;
    Ok(rest)
}

#[test]
fn the_answer_is_taken_from_the_stream_and_nothing_else() {
    assert_eq!(connected(&[b"OK 1073741824\n"]).expect("connects"), b"");
    assert_eq!(connected(&[b"OK 7\nhello"]).expect("connects"), b"hello");
    assert_eq!(connected(&[b"O", b"K", b" ", b"12", b"\n", b"\n\n"]).expect("connects"), b"\n\n");
    assert_eq!(connected(&[b"OK 4294967295\nOK 2\n"]).expect("connects"), b"OK 2\n");
}

#[test]
fn an_answer_that_is_none_is_refused() {
    for bad in
        ["OK\n", "OK \n", "ok 1\n", "OK x\n", "\n", "OK 42949672950\n", "garbage without an end", "OK -1\n"]
    {
        let error = connected(&[bad.as_bytes()]).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bad:?}: {error}");
    }
    let error = connected(&[b"\x1b[2J\n"]).expect_err("refused").to_string();
    assert_eq!(error, "the vsock device answered \"\\x1b[2J\\n\" instead of OK");
}

#[test]
fn a_guest_where_nobody_listens_is_a_refusal() {
    assert_eq!(connected(&[]).expect_err("refused").kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(connected(&[b"OK 1"]).expect_err("cut short").kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_device_that_says_nothing_is_a_timeout() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("v");
    let _silent = UnixListener::bind(&socket).expect("binds");
    let error = Channel::Hybrid { socket }.connect(1, Duration::from_millis(20)).expect_err("times out");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_listener_takes_the_guests_connections_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let channel = Channel::Hybrid { socket: dir.path().join("v") };
    let path = dir.path().join("v_1001");
    std::fs::write(&path, "left by a crash").expect("writes");
    let listener = channel.listen(1001).expect("listens");
    assert_eq!(listener.port(), 1001);
    assert_eq!(std::fs::metadata(&path).expect("stats").permissions().mode() & 0o777, 0o666);
    assert_eq!(listener.try_accept().expect_err("nobody yet").kind(), io::ErrorKind::WouldBlock);
    let error = listener.accept(Duration::from_millis(10)).expect_err("nobody yet");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let mut guest = UnixStream::connect(&path).expect("connects");
    guest.write_all(b"ready").expect("writes");
    drop(guest);
    let mut text = String::new();
    UnixStream::from(listener.accept(LONG).expect("accepts"))
        .read_to_string(&mut text)
        .expect("blocks and reads");
    assert_eq!(text, "ready");
    drop(listener);
    assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 0);
}

#[test]
fn a_listener_can_be_waited_for_by_async_code() {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = Channel::Hybrid { socket: dir.path().join("v") }.listen(5).expect("listens");
    let listener = smol::Async::new(listener).expect("registers");
    let path = dir.path().join("v_5");
    let guest = spawn(move || UnixStream::connect(path).expect("connects"));
    smol::block_on(listener.read_with(Listener::try_accept)).expect("accepts");
    guest.join().expect("connected");
}

#[test]
fn a_listener_of_the_kernels_vsock_has_a_port_of_its_own() {
    let channel = Channel::Vhost { cid: 3 };
    let listeners = [channel.listen(1001).expect("listens"), channel.listen(1001).expect("listens")];
    assert_ne!(listeners[0].port(), listeners[1].port());
    assert_eq!(listeners[0].try_accept().expect_err("nobody").kind(), io::ErrorKind::WouldBlock);
}

#[test]
#[ignore = "needs the kernel module vsock_loopback"]
fn the_kernels_vsock_carries_bytes_from_the_one_guest_that_may_connect() {
    // With the loopback device this very machine is CID 1.
    let listener = Channel::Vhost { cid: 1 }.listen(0).expect("listens");
    let other = Channel::Vhost { cid: 99 }.listen(0).expect("listens");
    let connect = |port| Channel::Vhost { cid: 1 }.connect(port, LONG);
    let mut guest = UnixStream::from(connect(listener.port()).expect("connects"));
    guest.write_all(b"ready").expect("writes");
    drop(guest);
    let mut text = String::new();
    UnixStream::from(listener.accept(LONG).expect("accepts")).read_to_string(&mut text).expect("reads");
    assert_eq!(text, "ready");
    drop(connect(other.port()));
    let error = other.accept(Duration::from_millis(50)).expect_err("CID 1 is not CID 99");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let port = listener.port();
    drop(listener);
    assert_eq!(connect(port).expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
}

proptest! {
    #[test]
    fn any_answer_is_taken_or_refused_in_time(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..4)) {
        let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let error = connected(&slices).expect_err("random bytes are no answer");
        prop_assert_ne!(error.kind(), io::ErrorKind::TimedOut);
    }
}
