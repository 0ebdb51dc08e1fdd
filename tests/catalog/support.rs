//! What the tests stand on: a server that can be down, a publisher with a key, and a banger with a directory of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use banger::catalog::about::{ImageAbout, KernelAbout, RawAbout};
use banger::catalog::bundle::make::{self, Made};
use banger::catalog::bundle::{Manifest, VMLINUX};
use banger::host::progress::Silent;
use banger::image::config::ImageConfig;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

pub const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
pub const OTHER_ARCH: &str = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };
/// `uname -r` of [`fake_kernel`].
pub const VERSION: &str = "6.12.30";

/// What a server has at a path.
#[derive(Debug, Clone, Default)]
pub struct Page {
    pub status: u16,
    pub etag: Option<String>,
    pub body: Vec<u8>,
    /// Sends so much of the body, then hangs up.
    pub cut: Option<usize>,
    /// Goes on for ever, without a length.
    pub endless: bool,
}

#[derive(Default)]
struct Shelf {
    pages: BTreeMap<String, Page>,
    /// Requests: the path, and the status that it was answered with.
    seen: Vec<(String, u16)>,
    down: bool,
}

/// An HTTP server on 127.0.0.1; its thread ends with the process.
#[derive(Clone)]
pub struct Server {
    pub url: String,
    shelf: Arc<Mutex<Shelf>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let server = Self { url, shelf: Arc::default() };
        let shelf = Arc::clone(&server.shelf);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shelf = Arc::clone(&shelf);
                std::thread::spawn(move || serve(stream.expect("accepts"), &shelf));
            }
        });
        server
    }

    pub fn put(&self, path: &str, body: impl Into<Vec<u8>>) {
        self.page(path, Page { status: 200, body: body.into(), ..Page::default() });
    }

    pub fn page(&self, path: &str, page: Page) {
        self.shelf.lock().expect("not poisoned").pages.insert(path.to_owned(), page);
    }

    pub fn remove(&self, path: &str) {
        self.shelf.lock().expect("not poisoned").pages.remove(path);
    }

    /// Answers nothing any more, or does so again.
    pub fn down(&self, down: bool) {
        self.shelf.lock().expect("not poisoned").down = down;
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The answers to requests for `path`, by status.
    pub fn answers(&self, path: &str) -> Vec<u16> {
        let shelf = self.shelf.lock().expect("not poisoned");
        shelf.seen.iter().filter(|(p, _)| p == path).map(|(_, status)| *status).collect()
    }
}

fn serve(mut stream: TcpStream, shelf: &Mutex<Shelf>) {
    let mut reader = BufReader::new(stream.try_clone().expect("clones"));
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() {
        return;
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut known = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() {
            return;
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("if-none-match") => {
                known = Some(value.to_owned())
            }
            Some(_) => {}
            None => break,
        }
    }
    let page = {
        let mut shelf = shelf.lock().expect("not poisoned");
        if shelf.down {
            return;
        }
        let mut page = shelf.pages.get(&path).cloned().unwrap_or(Page { status: 404, ..Page::default() });
        if page.etag.is_some() && page.etag == known {
            page = Page { status: 304, ..Page::default() };
        }
        shelf.seen.push((path, page.status));
        page
    };
    let etag = page.etag.map(|etag| format!("ETag: {etag}\r\n")).unwrap_or_default();
    let length =
        if page.endless { String::new() } else { format!("Content-Length: {}\r\n", page.body.len()) };
    let head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n{length}{etag}\r\n", page.status);
    let body = &page.body[..page.cut.unwrap_or(page.body.len())];
    // The client may have had enough before all of it was written.
    if stream.write_all(&[head.as_bytes(), body].concat()).is_ok() && page.endless {
        while stream.write_all(&[b' '; 65536]).is_ok() {}
    }
}

/// Somebody who signs.
pub struct Publisher(EcdsaKeyPair);

impl Publisher {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("generates");
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random).expect("reads"))
    }

    pub fn pem(&self) -> String {
        const HEAD: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";
        let mut der = STANDARD.decode(HEAD).expect("base64");
        der.extend_from_slice(&self.0.public_key().as_ref()[1..]);
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    pub fn sign(&self, bytes: &[u8]) -> String {
        STANDARD.encode(self.0.sign(&SystemRandom::new(), bytes).expect("signs"))
    }

    /// Publishes a catalog, signed, with an ETag of its content.
    pub fn publish(&self, server: &Server, path: &str, catalog: &Value) {
        let body = catalog.to_string().into_bytes();
        server.put(&format!("{path}.sig"), self.sign(&body));
        let etag = Some(format!("\"{}\"", &blake3::hash(&body).to_hex()[..16]));
        server.page(path, Page { status: 200, etag, body, ..Page::default() });
    }
}

/// A banger with a directory of its own; dropping it stops its daemon.
pub struct Rig {
    root: tempfile::TempDir,
}

#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Rig {
    /// `config` is config.toml's text.
    pub fn new(config: &str) -> Self {
        let rig = Self { root: tempfile::Builder::new().prefix("bgr").tempdir().expect("a directory") };
        rig.configure(config);
        rig
    }

    /// With these catalogs of `server`, by `publisher`.
    pub fn with(server: &Server, publisher: &Publisher, catalogs: &[&str]) -> Self {
        let urls: Vec<String> = catalogs.iter().map(|path| format!("'{}'", server.at(path))).collect();
        Self::new(&format!(
            "catalog_urls = [{}]\ncatalog_keys = ['''{}''']\n",
            urls.join(", "),
            publisher.pem()
        ))
    }

    /// Takes effect with the next daemon.
    pub fn configure(&self, config: &str) {
        let dir = self.root.path().join("config");
        fs::create_dir_all(&dir).expect("makes a directory");
        fs::write(dir.join("config.toml"), config).expect("writes");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_banger"));
        command.args(args).env("BANGER_ROOT", self.root.path()).stdin(Stdio::null());
        command
    }

    pub fn args(&self, args: &[&str]) -> Ran {
        self.command(args).output().expect("runs").into()
    }

    pub fn run(&self, line: &str) -> Ran {
        self.args(&line.split_whitespace().collect::<Vec<_>>())
    }

    pub fn ok(&self, line: &str) -> Ran {
        let ran = self.run(line);
        assert_eq!(ran.code, Some(0), "banger {line}: {ran:#?}\n{}", self.log());
        ran
    }

    /// Runs what must fail, and returns the sentence that says why. Nothing half-made may be left.
    pub fn refused(&self, line: &str) -> String {
        let ran = self.run(line);
        let said: Vec<&str> = ran.err.lines().filter(|l| l.starts_with("banger: ")).collect();
        assert!(ran.code == Some(1) && said.len() == 1, "banger {line}: {ran:#?}");
        self.assert_nothing_is_staged();
        said[0].to_owned()
    }

    pub fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(line).out).expect("JSON")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("state/bangerd.log")).unwrap_or_default()
    }

    pub fn assert_nothing_is_staged(&self) {
        for dir in ["state", "state/images", "state/kernels", "cache", "cache/catalogs"] {
            for name in names_in(&self.path(dir)) {
                assert!(!name.starts_with(".staged-"), "{dir}/{name} is left");
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        let stopped = self.run("daemon stop");
        assert!(std::thread::panicking() || stopped.code == Some(0), "{stopped:?}");
    }
}

pub fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return vec![] };
    let mut names: Vec<String> =
        entries.map(|e| e.expect("lists").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

pub fn catalog(images: &[Value], kernels: &[Value]) -> Value {
    json!({"version": 1, "images": images, "kernels": kernels})
}

/// An image's bundle and its entry, at `path` of the server. `seed` makes its content another's. What is in it looks like a file
/// system for as long as nobody mounts it.
pub fn image_bundle(server: &Server, path: &str, name: &str, seed: u8) -> Value {
    image_bundle_of(server, path, raw(name), seed)
}

pub fn image_bundle_of(server: &Server, path: &str, raw: RawAbout, seed: u8) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bytes = vec![0; 2 << 20];
    bytes[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xef]);
    bytes[1 << 20] = seed;
    fs::write(dir.path().join("rootfs"), bytes).expect("writes");
    let about = ImageAbout::parse(raw).expect("good");
    let config = ImageConfig { env: vec!["FROM=bundle".to_owned()], ..ImageConfig::default() };
    let manifest = Manifest::Image { about: about.clone(), config };
    let out = File::create_new(dir.path().join("bundle")).expect("creates");
    let made = make::image(&dir.path().join("rootfs"), &manifest, &out, &Silent).expect("makes it");
    server.put(path, fs::read(dir.path().join("bundle")).expect("reads"));
    entry(serde_json::to_value(&about).expect("JSON"), server, path, &made)
}

/// A kernel's bundle and its entry.
pub fn kernel_bundle(server: &Server, path: &str, name: &str, seed: u8) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("modules")).expect("makes a directory");
    fs::write(dir.path().join("modules/modules.builtin"), BUILTIN).expect("writes");
    fs::write(dir.path().join("vmlinux"), fake_kernel(VERSION, seed)).expect("writes");
    let about =
        KernelAbout::parse(RawAbout { version: Some(VERSION.to_owned()), ..raw(name) }).expect("good");
    let out = File::create_new(dir.path().join("bundle")).expect("creates");
    let (kernel, modules) = (dir.path().join("vmlinux"), dir.path().join("modules"));
    let manifest = Manifest::Kernel { about: about.clone() };
    let made = make::kernel((VMLINUX, &kernel), Some(&modules), &manifest, &out, &Silent).expect("makes it");
    server.put(path, fs::read(dir.path().join("bundle")).expect("reads"));
    entry(serde_json::to_value(&about).expect("JSON"), server, path, &made)
}

pub fn raw(name: &str) -> RawAbout {
    RawAbout {
        name: name.to_owned(),
        arch: ARCH.to_owned(),
        distro: Some("debian".to_owned()),
        description: format!("{name}, for tests"),
        ..RawAbout::default()
    }
}

fn entry(mut about: Value, server: &Server, path: &str, made: &Made) -> Value {
    about["url"] = json!(server.at(path));
    about["sha256"] = json!(made.digest.hex());
    about["size"] = json!(made.size);
    about
}

/// All that guests need, built in.
pub const BUILTIN: &str = "kernel/drivers/virtio/virtio_mmio.ko\nkernel/drivers/block/virtio_blk.ko\nkernel/fs/ext4/ext4.ko\n\
                           kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko\nkernel/drivers/md/dm-mod.ko\n\
                           kernel/drivers/md/dm-snapshot.ko\nkernel/drivers/md/dm-zero.ko\n";

/// An ELF file that has what an import looks for in a kernel: a PVH note and a version. Nobody can boot it.
pub fn fake_kernel(version: &str, seed: u8) -> Vec<u8> {
    let mut note = vec![];
    for n in [4u32, 8, 18] {
        note.extend(n.to_le_bytes());
    }
    note.extend(b"Xen\0\0\0\0\0\0\0\0\0");
    let mut file = vec![0; 64 + 56];
    let at = file.len() as u64;
    file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
    let machine: u8 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    (file[0x10], file[0x12], file[0x20]) = (1, machine, 64);
    (file[0x36], file[0x38], file[0x3a]) = (56, 1, 64);
    file[64] = 4;
    file[64 + 8..64 + 16].copy_from_slice(&at.to_le_bytes());
    file[64 + 0x20..64 + 0x28].copy_from_slice(&(note.len() as u64).to_le_bytes());
    file.extend(note);
    file.extend(format!("Linux version {version} (x@y) #1\n\0").bytes());
    file.push(seed);
    file
}
