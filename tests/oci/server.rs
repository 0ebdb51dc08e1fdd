//! An HTTP server that answers what a test wants, also what no server should, and the parts of a small image to answer with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::support::{Bench, CONFIG, LAYER, Layout, MANIFEST, files, gzip, sha256};

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
    pub body: String,
}

impl Seen {
    /// The first byte that is wanted.
    pub fn from(&self) -> usize {
        let range = self.range.as_ref().map(|r| r.trim_start_matches("bytes=").trim_end_matches('-'));
        range.map_or(0, |from| from.parse().expect("bytes=N-"))
    }
}

/// Raw bytes of an HTTP response, and what comes then.
pub struct Answer {
    bytes: Vec<u8>,
    then: Then,
}

enum Then {
    Close,
    /// More of it, without an end.
    Endless,
    /// Nothing, for as long as the client listens.
    Silence,
    /// The rest, once the gate is open.
    Rest(Arc<Gate>, Vec<u8>),
}

impl From<Vec<u8>> for Answer {
    fn from(bytes: Vec<u8>) -> Self {
        let then = if bytes.ends_with(b"ENDLESS") { Then::Endless } else { Then::Close };
        Self { bytes, then }
    }
}

/// Sends this much, and then goes silent.
pub fn stalling(bytes: Vec<u8>) -> Answer {
    Answer { bytes, then: Then::Silence }
}

/// Sends the first `n` bytes, and the rest when the gate is opened.
pub fn gated(bytes: &[u8], n: usize, gate: &Arc<Gate>) -> Answer {
    Answer { bytes: bytes[..n].to_vec(), then: Then::Rest(Arc::clone(gate), bytes[n..].to_vec()) }
}

/// Something that a server waits for.
#[derive(Default)]
pub struct Gate {
    open: Mutex<bool>,
    bell: Condvar,
}

impl Gate {
    pub fn open(&self) {
        *self.open.lock().expect("not poisoned") = true;
        self.bell.notify_all();
    }

    fn pass(&self) {
        let open = self.open.lock().expect("not poisoned");
        let (open, _) =
            self.bell.wait_timeout_while(open, Duration::from_secs(60), |open| !*open).expect("not poisoned");
        assert!(*open, "the gate is never opened");
    }
}

/// What a handler answers with.
pub type Handler = dyn Fn(&Seen) -> Answer + Send + Sync;

/// The server; its threads end with the process.
pub struct Server {
    pub address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub fn start<A: Into<Answer>>(handler: impl Fn(&Seen) -> A + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", handler)
    }

    pub fn at<A: Into<Answer>>(address: &str, handler: impl Fn(&Seen) -> A + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("binds");
        let address = listener.local_addr().expect("bound").to_string();
        let seen = Arc::new(Mutex::new(vec![]));
        let (handler, log): (Arc<Handler>, _) = (Arc::new(move |s| handler(s).into()), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                std::thread::spawn(move || serve(stream.expect("accepts"), &*handler, &log));
            }
        });
        Self { address, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// How many requests of this method had this in their path.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.seen().iter().filter(|s| s.method == method && s.path.contains(part)).count()
    }
}

/// The head of a request: its first line, and its headers with lower-case names. None: the client has gone.
pub fn head(reader: &mut impl BufRead) -> Option<(String, Vec<(String, String)>)> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0).map(|_| line.trim_end().to_owned())
    };
    let first = line()?;
    let mut headers = vec![];
    while let Some((name, value)) = line()?.split_once(": ") {
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    Some((first, headers))
}

fn serve(mut stream: TcpStream, handler: &Handler, log: &Mutex<Vec<Seen>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("clones"));
    // A handshake (RFC 8446, 5.1): it is written down and refused.
    if reader.fill_buf().is_ok_and(|bytes| bytes.first() == Some(&0x16)) {
        let tls = Seen {
            method: "TLS".to_owned(),
            path: String::new(),
            authorization: None,
            range: None,
            body: String::new(),
        };
        return log.lock().expect("not poisoned").push(tls);
    }
    let Some((first, headers)) = head(&mut reader) else { return };
    let mut words = first.split(' ').map(str::to_owned);
    let get = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let length = get("content-length").map_or(0, |l| l.parse().expect("a length"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("reads");
    let seen = Seen {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        authorization: get("authorization"),
        range: get("range"),
        body: String::from_utf8(body).expect("UTF-8"),
    };
    log.lock().expect("not poisoned").push(seen.clone());
    let answer = handler(&seen);
    // The client may have had enough before all of it was written.
    if stream.write_all(&answer.bytes).is_err() {
        return;
    }
    match answer.then {
        Then::Close => {}
        Then::Endless => while stream.write_all(&[b'x'; 65536]).is_ok() {},
        Then::Silence => drop(reader.read(&mut [0])),
        Then::Rest(gate, rest) => {
            gate.pass();
            drop(stream.write_all(&rest));
        }
    }
}

pub fn response(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A response that announces all of `body` and holds its first `n` bytes.
pub fn cut(headers: &str, body: &[u8], n: usize) -> Vec<u8> {
    let mut whole = response(200, headers, body);
    whole.truncate(whole.len() - body.len() + n);
    whole
}

/// All of `body` from `from` on, as a registry that knows ranges sends it.
pub fn part(body: &[u8], from: usize) -> Vec<u8> {
    let range = format!("Content-Range: bytes {from}-{}/{}\r\n", body.len() - 1, body.len());
    response(206, &range, &body[from..])
}

pub const V2: &str = "Docker-Distribution-Api-Version: registry/2.0\r\n";

/// The parts of an image, as a registry serves them.
pub struct Parts {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    /// Oldest first.
    pub layers: Vec<Vec<u8>>,
}

impl Parts {
    /// An image of these layers, each a tar.
    pub fn of(tars: &[Vec<u8>]) -> Self {
        let bench = Bench::new();
        let layout = Layout::of(bench.path("l"), tars);
        let index: serde_json::Value =
            serde_json::from_slice(&std::fs::read(layout.dir.join("index.json")).expect("reads"))
                .expect("parses");
        let read = |digest: &serde_json::Value| {
            std::fs::read(layout.blob_path(digest.as_str().expect("a digest"))).expect("reads")
        };
        let manifest = read(&index["manifests"][0]["digest"]);
        let parsed: serde_json::Value = serde_json::from_slice(&manifest).expect("parses");
        assert_eq!(
            (&parsed["config"]["mediaType"], &parsed["layers"][0]["mediaType"]),
            (&CONFIG.into(), &LAYER.into())
        );
        Self {
            config: read(&parsed["config"]["digest"]),
            layers: tars.iter().map(|tar| gzip(tar)).collect(),
            manifest,
        }
    }

    pub fn small() -> Self {
        Self::of(&[files(&[("a", b"a")])])
    }

    /// An image whose one layer is about `bytes` long, packed.
    pub fn large(bytes: usize) -> Self {
        Self::of(&[files(&[("a", &noise(bytes, 1))])])
    }

    pub fn layer(&self) -> &[u8] {
        &self.layers[0]
    }

    pub fn is_layer(&self, path: &str) -> bool {
        path.ends_with(&sha256(self.layer()))
    }

    pub fn answer(&self, seen: &Seen) -> Vec<u8> {
        if seen.path.contains("/manifests/") {
            let digest = sha256(&self.manifest);
            let headers = format!("{V2}Content-Type: {MANIFEST}\r\nDocker-Content-Digest: {digest}\r\n");
            let body = if seen.method == "HEAD" { &[] } else { self.manifest.as_slice() };
            return response(200, &headers, body);
        }
        for blob in self.layers.iter().chain([&self.config]) {
            if seen.path.ends_with(&sha256(blob)) {
                return match seen.from() {
                    0 => response(200, V2, blob),
                    from => part(blob, from),
                };
            }
        }
        response(404, V2, br#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#)
    }
}

/// Bytes that do not pack.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next()).take(bytes).collect()
}
