use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread::{JoinHandle, spawn};

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// A Firecracker that gives `answers` in turn, each on a connection of its own, and keeps what it was asked. Like the real
/// one it does not hang up after its answer.
struct Fake {
    dir: tempfile::TempDir,
    thread: JoinHandle<Vec<String>>,
}

impl Fake {
    fn start(answers: Vec<Vec<u8>>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("api")).expect("binds");
        let thread = spawn(move || answers.into_iter().map(|answer| serve(&listener, &answer)).collect());
        Self { dir, thread }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("api")
    }

    fn asked(self) -> Vec<String> {
        self.thread.join().expect("ends")
    }
}

/// Reads a whole request, answers it in two pieces, and waits until the client hangs up.
fn serve(listener: &UnixListener, answer: &[u8]) -> String {
    let (mut peer, _) = listener.accept().expect("accepts");
    let mut asked = Vec::new();
    let mut piece = [0; 1024];
    while !is_whole(&asked) {
        let n = peer.read(&mut piece).expect("reads");
        assert_ne!(n, 0, "a whole request");
        asked.extend_from_slice(&piece[..n]);
    }
    let (one, two) = answer.split_at(answer.len() / 2);
    // A client that has seen enough may be gone.
    if peer.write_all(one).and_then(|()| peer.write_all(two)).is_ok() && answer.starts_with(b"HTTP/1.1 ") {
        io::copy(&mut peer, &mut io::sink()).ok();
    }
    String::from_utf8(asked).expect("text")
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    body.len() == length.map_or(0, |n| n.parse::<usize>().expect("a number"))
}

/// As Firecracker 1.7 writes it (micro_http).
fn ok(body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn no_content() -> Vec<u8> {
    b"HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n".to_vec()
}

fn info(state: &str) -> Vec<u8> {
    ok(&format!(r#"{{"id":"banger-7","state":"{state}","vmm_version":"1.7.0","app_name":"Firecracker"}}"#))
}

#[test]
fn a_machine_is_started_greeted_and_stopped() {
    let fake = Fake::start(vec![
        info("Not started"),
        no_content(),
        info("Running"),
        ok(r#"{"firecracker_version":"1.7.0"}"#),
        no_content(),
        info("Paused"),
        no_content(),
        no_content(),
    ]);
    let socket = fake.socket();
    let state = || describe(&socket, LONG).expect("answers").state;
    let tell = |request| assert_eq!(send(&socket, request, LONG).expect("accepted"), b"");
    assert_eq!(state(), InstanceState::NotStarted);
    tell(Request::InstanceStart);
    assert_eq!(state(), InstanceState::Running);
    assert_eq!(version(&socket, LONG).expect("answers"), "1.7.0");
    tell(Request::Pause);
    assert_eq!(state(), InstanceState::Paused);
    tell(Request::Resume);
    tell(Request::SendCtrlAltDel);
    let get = |path| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
    let with = |line: &str, body: &str| {
        format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    assert_eq!(
        fake.asked(),
        [
            get("/"),
            with("PUT /actions", r#"{"action_type":"InstanceStart"}"#),
            get("/"),
            get("/version"),
            with("PATCH /vm", r#"{"state":"Paused"}"#),
            get("/"),
            with("PATCH /vm", r#"{"state":"Resumed"}"#),
            with("PUT /actions", r#"{"action_type":"SendCtrlAltDel"}"#),
        ]
    );
}

#[test]
fn a_refusal_carries_firecrackers_reason() {
    let body = r#"{"fault_message":"The requested operation is not supported after starting the microVM.\u001b[2J"}"#;
    let head = "HTTP/1.1 400 \r\nContent-Type: application/json\r\n";
    let fake = Fake::start(vec![format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()]);
    let error = send(&fake.socket(), Request::InstanceStart, LONG).expect_err("refused").to_string();
    assert_eq!(
        error,
        "Firecracker refuses PUT /actions {\"action_type\":\"InstanceStart\"} with 400: The requested operation is not \
         supported after starting the microVM.\\u{1b}[2J"
    );
    fake.asked();
}

#[test]
fn an_answer_that_is_none_is_an_error_and_never_a_wait_without_end() {
    let endless_head = [b"HTTP/1.1 200 \r\nX: ".to_vec(), vec![b'x'; 100_000]].concat();
    let garbage: [Vec<u8>; 7] = [
        b"SSH-2.0-OpenSSH\r\n\r\n".to_vec(),
        b"HTTP/1.1 \r\n\r\n".to_vec(),
        b"HTTP/1.1 200 \r\nContent-Length: 99999999\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 \r\nContent-Length: -1\r\n\r\n".to_vec(),
        ok("{}"),
        ok(r#"{"id":"x","state":"Flying","vmm_version":"1","app_name":"F"}"#),
        endless_head,
    ];
    for answer in garbage {
        let fake = Fake::start(vec![answer.clone()]);
        let error = describe(&fake.socket(), LONG).expect_err("refused");
        assert!(matches!(error, ApiError::Garbage { .. }), "{error:?} for {}", answer.escape_ascii());
        fake.asked();
    }
}

#[test]
fn a_firecracker_that_hangs_up_or_hangs_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("api");
    assert!(matches!(describe(&socket, LONG), Err(ApiError::Connect(_))));
    let _silent = UnixListener::bind(&socket).expect("binds");
    let error = describe(&socket, Duration::from_millis(30)).expect_err("times out");
    assert!(
        matches!(&error, ApiError::Io { source, .. } if source.kind() == io::ErrorKind::TimedOut),
        "{error:?}"
    );
}
