//! A web server on 127.0.0.1 that does what servers do, and what they should not.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What there is at a path.
#[derive(Debug, Clone)]
pub enum Page {
    Body(Vec<u8>),
    Status(u16),
    /// Says a length, sends half of the body and hangs up.
    Cut(Vec<u8>),
    /// Says a length, sends half of the body and nothing more.
    Stall(Vec<u8>),
    /// Sends its head a byte at a time, and never comes to the body.
    Drip,
    /// Goes on for ever, without a length.
    Endless,
    To(String),
}

/// Its threads end with the process.
#[derive(Clone)]
pub struct Server {
    pub url: String,
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let pages = Arc::<Mutex<BTreeMap<String, Page>>>::default();
        let served = Arc::clone(&pages);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let pages = Arc::clone(&served);
                std::thread::spawn(move || serve(stream.expect("accepts"), &pages));
            }
        });
        Self { url, pages }
    }

    pub fn page(&self, path: &str, page: Page) {
        self.pages.lock().expect("not poisoned").insert(path.to_owned(), page);
    }

    pub fn put(&self, path: &str, body: impl Into<Vec<u8>>) {
        self.page(path, Page::Body(body.into()));
    }

    pub fn body(&self, path: &str) -> Vec<u8> {
        match self.pages.lock().expect("not poisoned").get(path) {
            Some(Page::Body(body)) => body.clone(),
            other => panic!("{path}: {other:?}"),
        }
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

fn serve(mut stream: TcpStream, pages: &Mutex<BTreeMap<String, Page>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("clones"));
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() {
        return;
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.trim_end().is_empty() {
            break;
        }
    }
    let page = pages.lock().expect("not poisoned").get(&path).cloned().unwrap_or(Page::Status(404));
    let head = |status: u16, more: String| {
        format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{more}\r\n").into_bytes()
    };
    let length = |body: &[u8]| format!("Content-Length: {}\r\n", body.len());
    let answer = match &page {
        Page::Body(body) => [head(200, length(body)), body.clone()].concat(),
        Page::Status(status) => head(*status, length(b"")),
        Page::Cut(body) | Page::Stall(body) => {
            [head(200, length(body)), body[..body.len() / 2].to_vec()].concat()
        }
        Page::Endless | Page::Drip => head(200, String::new()),
        Page::To(to) => head(302, format!("Location: {to}\r\n{}", length(b""))),
    };
    if let Page::Drip = page {
        let endless = b"HTTP/1.1 200 X\r\nX: ".iter().chain(std::iter::repeat(&b'x'));
        for byte in endless {
            std::thread::sleep(Duration::from_millis(20));
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
    }
    // The client may have had enough before all of it was written.
    if stream.write_all(&answer).is_err() {
        return;
    }
    match page {
        Page::Endless => while stream.write_all(&[b' '; 1 << 16]).is_ok() {},
        Page::Stall(_) => std::thread::sleep(Duration::from_secs(600)),
        _ => {}
    }
}
