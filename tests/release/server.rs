//! An HTTP server on 127.0.0.1 with files, and with pages that no server should have.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is at a path in place of the file.
#[derive(Debug, Clone)]
pub enum Page {
    Body(Vec<u8>),
    Status(u16),
    /// So much of the file, and then the connection ends.
    Cut(usize),
    /// It never ends, and has no length.
    Endless,
    /// It says that it is small, and goes on.
    Liar,
    /// A byte, and then nothing.
    Silent,
    Redirect(String),
}

#[derive(Default)]
struct Shelf {
    pages: BTreeMap<String, Page>,
    seen: Vec<String>,
}

/// Its thread ends with the process.
#[derive(Clone)]
pub struct Server {
    pub url: String,
    shelf: Arc<Mutex<Shelf>>,
}

impl Server {
    /// Serves what is below `root`.
    pub fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let server = Self { url, shelf: Arc::default() };
        let (shelf, root) = (Arc::clone(&server.shelf), root.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (shelf, root) = (Arc::clone(&shelf), root.clone());
                std::thread::spawn(move || serve(stream.expect("accepts"), &shelf, &root));
            }
        });
        server
    }

    pub fn put(&self, path: &str, page: Page) {
        self.shelf.lock().expect("not poisoned").pages.insert(path.to_owned(), page);
    }

    /// The paths that were asked for, in order.
    pub fn seen(&self) -> Vec<String> {
        self.shelf.lock().expect("not poisoned").seen.clone()
    }
}

fn serve(mut stream: TcpStream, shelf: &Mutex<Shelf>, root: &Path) {
    let mut lines = BufReader::new(stream.try_clone().expect("clones")).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let page = {
        let mut shelf = shelf.lock().expect("not poisoned");
        shelf.seen.push(path.clone());
        shelf.pages.get(&path).cloned()
    };
    let file = || fs::read(root.join(path.trim_start_matches('/'))).ok();
    // The client may have had enough before all of it was written.
    let _gone = match page.or_else(|| file().map(Page::Body)).unwrap_or(Page::Status(404)) {
        Page::Body(body) => answer(&mut stream, 200, &length(body.len()), &body),
        Page::Status(status) => answer(&mut stream, status, &length(0), b""),
        Page::Cut(n) => {
            let body = file().expect("there is a file to be cut");
            answer(&mut stream, 200, &length(body.len()), &body[..n])
        }
        Page::Endless => answer(&mut stream, 200, "", b" ").and_then(|()| for_ever(&mut stream)),
        Page::Liar => answer(&mut stream, 200, "Transfer-Encoding: chunked\r\n", b"").and_then(|()| {
            loop {
                stream.write_all(&[b"10000\r\n", [b' '; 65536].as_slice(), b"\r\n"].concat())?;
            }
        }),
        Page::Silent => {
            answer(&mut stream, 200, &length(9), b"x").map(|()| std::thread::sleep(Duration::from_secs(120)))
        }
        Page::Redirect(to) => answer(&mut stream, 302, &format!("Location: {to}\r\n{}", length(0)), b""),
    };
}

fn length(n: usize) -> String {
    format!("Content-Length: {n}\r\n")
}

fn answer(stream: &mut TcpStream, status: u16, fields: &str, body: &[u8]) -> std::io::Result<()> {
    let reason = if status == 404 { "Not Found" } else { "X" };
    let head = format!("HTTP/1.1 {status} {reason}\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(&[head.as_bytes(), body].concat())
}

fn for_ever(stream: &mut TcpStream) -> std::io::Result<()> {
    loop {
        stream.write_all(&[b' '; 65536])?;
    }
}
