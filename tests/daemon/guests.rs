//! A guest that is a thread: it makes the sockets that vhost-device-vsock would make, says that it is up, and answers as it
//! was told to.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use banger::proto::agent::{Answer, Hello, READY_PORT, Ready, Request};
use banger::proto::frame::{Frame, Kind};

use crate::rig::first_line;

/// What the guest writes, as it is, in place of the answer to a request; None: what a good guest writes.
pub type Manner = Arc<dyn Fn(&Request) -> Option<Vec<u8>> + Send + Sync>;

pub fn good() -> Manner {
    Arc::new(|_| None)
}

/// Answers anything but Configure with `bytes`.
pub fn saying(bytes: Vec<u8>) -> Manner {
    Arc::new(move |request| (!matches!(request, Request::Configure(_))).then(|| bytes.clone()))
}

/// The first words of a guest that comes up.
pub fn up() -> Vec<u8> {
    let hello = Hello { version: "1".to_owned(), kernel: "6.1".to_owned(), init: None };
    line(&Ready::Up(hello))
}

pub fn line(value: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("serialises");
    line.push(b'\n');
    line
}

pub fn answer(answer: &Answer) -> Vec<u8> {
    Frame::new(Kind::Answer, serde_json::to_vec(answer).expect("serialises")).bytes()
}

/// Attends to the VM whose sockets will be in `sockets`: begins with `first` on the ready port, then answers in its manner. It
/// lives as long as the test's process.
pub fn attend(sockets: PathBuf, first: Vec<u8>, manner: Manner) {
    std::thread::spawn(move || {
        wait_for(&sockets.join("launched"));
        let bind = |name| UnixListener::bind(sockets.join(name));
        let (Ok(listener), Ok(_device)) = (bind("vsock.sock"), bind("vhost.sock")) else { return };
        let path = sockets.join(format!("vsock.sock_{READY_PORT}"));
        // The daemon may have been killed, or have given up, meanwhile.
        let Ok(mut ready) = UnixStream::connect(&path) else { return };
        if ready.write_all(&first).is_err() {
            return;
        }
        for stream in listener.incoming() {
            let manner = Arc::clone(&manner);
            std::thread::spawn(move || serve(stream.expect("accepts"), &manner));
        }
    });
}

fn serve(mut stream: UnixStream, manner: &Manner) {
    assert_eq!(first_bytes(&mut stream), "CONNECT 1000\n");
    stream.write_all(b"OK 1073741824\n").expect("accepts");
    let request: Request = serde_json::from_str(&first_line(&stream)).expect("a request");
    let told = manner(&request);
    let connects = matches!(request, Request::Connect(_));
    if let (None, Request::Connect(_)) = (&told, &request) {
        return echo(stream);
    }
    let bytes = told.unwrap_or_else(|| match request {
        Request::Exec(exec) => {
            let said = Frame::new(Kind::Stdout, exec.argv.join(" ")).bytes();
            [answer(&Answer::Started { pid: 7 }), said, Frame::new(Kind::Exit, [3]).bytes()].concat()
        }
        _ => answer(&Answer::Done),
    });
    // The daemon may have heard enough, and hung up.
    let sent = stream.write_all(&bytes);
    let mut rest = vec![];
    if sent.is_ok() && stream.read_to_end(&mut rest).is_ok() && !connects {
        assert!(rest.is_empty(), "{rest:?}");
    }
}

/// A program behind a port that sends everything back.
fn echo(mut stream: UnixStream) {
    stream.write_all(&answer(&Answer::Done)).expect("accepts");
    // The daemon hangs up on a connection that was reset.
    while let Ok(Some(frame)) = Frame::read(&mut stream) {
        let back = match frame.kind {
            Kind::Data => frame.bytes(),
            Kind::Eof => [frame.bytes(), frame.bytes()].concat(),
            kind => panic!("{kind:?} from the daemon"),
        };
        if stream.write_all(&back).is_err() {
            return;
        }
    }
}

/// Reads byte by byte up to a newline, since what follows is another's to read.
fn first_bytes(stream: &mut UnixStream) -> String {
    let mut text = vec![];
    while text.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("reads");
        text.push(byte[0]);
    }
    String::from_utf8(text).expect("text")
}

fn wait_for(path: &Path) {
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
}
