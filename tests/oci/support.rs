//! What the tests stand on: a scratch directory, layouts made by hand, a registry in a child process, and a look into an ext4
//! file by debugfs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use banger::host::environment::Environment;
use banger::host::progress::{Progress, Silent, Unit};
use banger::image::digest::Digest;
use banger::image::platform::Platform;
use banger::image::reference::Reference;
use banger::oci::registries::Registries;
use banger::oci::{self, Blobs, Built, Input, OciError, Patience, Settings};
use tar::{Builder, EntryType, Header};

pub use crate::server::*;

pub const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
pub const OTHER_ARCH: &str = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };

/// A directory for one test, with the settings for it.
pub struct Bench {
    dir: tempfile::TempDir,
    pub settings: Settings,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = Settings {
            blobs: Blobs::at(dir.path().join("blobs/sha256")),
            scratch: dir.path().join("scratch"),
            docker_config: None,
            platform: Platform::linux(ARCH),
            limits: oci::Limits::default(),
            registries: Registries::default(),
            environment: Environment::default(),
            patience: hasty(),
        };
        fs::create_dir(&settings.scratch).expect("makes a directory");
        Self { dir, settings }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn out(&self) -> PathBuf {
        self.settings.scratch.join("out.ext4")
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("writes");
        path
    }

    pub fn import(&self, path: impl Into<PathBuf>) -> Result<Built, OciError> {
        self.finish(oci::import(Input::Path(path.into()), &self.settings, &self.out(), &Silent))
    }

    pub fn pull(&self, reference: &str) -> Result<Built, OciError> {
        self.pull_with(reference, &Silent)
    }

    pub fn pull_with(&self, reference: &str, progress: &dyn Progress) -> Result<Built, OciError> {
        let reference: Reference = reference.parse().expect("a reference");
        self.finish(oci::Pull::new(&reference, &self.settings, progress).fetch(&self.out()))
    }

    pub fn resolve(&self, reference: &str) -> Result<Digest, OciError> {
        let reference: Reference = reference.parse().expect("a reference");
        oci::Pull::new(&reference, &self.settings, &Silent).resolve()
    }

    /// Holds for every import and pull: a clean file system and nothing else, or nothing at all.
    pub fn finish(&self, result: Result<Built, OciError>) -> Result<Built, OciError> {
        let left: Vec<_> = fs::read_dir(&self.settings.scratch)
            .expect("lists")
            .map(|e| e.expect("lists").file_name())
            .collect();
        match &result {
            Ok(_) => {
                assert_eq!(left, ["out.ext4"]);
                run("e2fsck", &["-fn", text(&self.out())]);
            }
            Err(e) => assert!(left.is_empty(), "{left:?} is left after: {e}"),
        }
        if let Ok(blobs) = fs::read_dir(self.settings.blobs.directory()) {
            for blob in blobs {
                let name = blob.expect("lists").file_name().into_string().expect("hexadecimal");
                assert!(!name.starts_with('.'), "{name} is left in the store");
            }
        }
        result
    }

    /// What debugfs finds in the file system that was made.
    pub fn listing(&self) -> BTreeMap<PathBuf, String> {
        let dump = self.path("dump");
        fs::remove_dir_all(&dump).or_else(|e| if dump.exists() { Err(e) } else { Ok(()) }).expect("removes");
        fs::create_dir(&dump).expect("makes a directory");
        run("debugfs", &["-R", &format!("rdump / {}", dump.display()), text(&self.out())]);
        let mut found = listing(&dump);
        assert!(found.remove(Path::new("lost+found")).is_some());
        found
    }

    /// What debugfs says to one of its commands.
    pub fn debugfs(&self, command: &str) -> String {
        run("debugfs", &["-R", command, text(&self.out())])
    }
}

/// As patient as a person, but quicker.
pub fn hasty() -> Patience {
    Patience {
        tries: 5,
        first: Duration::from_millis(5),
        longest: Duration::from_secs(3),
        stalled: Duration::from_secs(1),
    }
}

/// The whole chain of an error, as `main` prints it.
pub fn chain(error: &OciError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(e) = source {
        text = format!("{text}: {e}");
        source = e.source();
    }
    text
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// Runs a program to its end and returns its output.
pub fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program)
        .args(args)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}; tests/run.sh installs it"));
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{program} {args:?}: {}\n{stdout}\n{}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    stdout
}

/// All files below a directory, with what they are. Devices and fifos are left out, as debugfs does not dump them.
pub fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("lists") {
            let path = entry.expect("lists").path();
            let meta = path.symlink_metadata().expect("stats");
            let kind = meta.file_type();
            if kind.is_block_device() || kind.is_char_device() || kind.is_fifo() {
                continue;
            }
            let what = if kind.is_dir() {
                todo.push(path.clone());
                "directory".to_owned()
            } else if kind.is_symlink() {
                format!("symlink to {}", fs::read_link(&path).expect("reads").display())
            } else {
                let hash = blake3::hash(&fs::read(&path).expect("reads"));
                format!("{} bytes {}", meta.len(), &hash.to_hex()[..8])
            };
            // debugfs sets no times on symlinks.
            let time = if kind.is_symlink() { 0 } else { meta.mtime() };
            // debugfs sets the owner after the mode, and so clears set-id bits.
            let line = format!("{:o} {}:{} @{time} {what}", meta.mode() & 0o1777, meta.uid(), meta.gid());
            found.insert(path.strip_prefix(root).expect("below it").to_owned(), line);
        }
    }
    found
}

/// One member of a tar: its header can be bent before it is written.
pub fn member(tar: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, target: &str, data: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(data.len() as u64);
    header.set_device_major(1).expect("GNU headers have it");
    header.set_device_minor(3).expect("GNU headers have it");
    for (field, text) in [(0, path), (157, target)] {
        header.as_mut_bytes()[field..field + text.len()].copy_from_slice(text.as_bytes());
    }
    header.set_cksum();
    tar.append(&header, data).expect("appends");
}

pub fn files(list: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Builder::new(vec![]);
    for (path, data) in list {
        member(&mut tar, EntryType::Regular, path, "", data);
    }
    tar.into_inner().expect("finishes")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).expect("packs");
    encoder.finish().expect("packs")
}

pub fn sha256(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// An OCI layout made by hand, so that any part of it can be wrong.
pub struct Layout {
    pub dir: PathBuf,
}

pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Layout {
    pub fn new(dir: PathBuf) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).expect("makes directories");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("writes");
        Self { dir }
    }

    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs").join(digest.replace(':', "/"))
    }

    /// Stores a blob and returns its descriptor, without the closing brace.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        fs::write(self.blob_path(&digest), bytes).expect("writes");
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}"#, bytes.len())
    }

    /// Stores an image of these tars and returns its manifest's descriptor, open. `diff_ids` None: the right ones.
    pub fn image(&self, arch: &str, layers: &[Vec<u8>], diff_ids: Option<&[String]>) -> String {
        let right: Vec<String> = layers.iter().map(|tar| sha256(tar)).collect();
        let ids: Vec<String> = diff_ids.unwrap_or(&right).iter().map(|id| format!("\"{id}\"")).collect();
        let config = format!(
            r#"{{"architecture":"{arch}","os":"linux","config":{{"Cmd":["sh"],"Env":["A=1"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            ids.join(",")
        );
        let layers: Vec<String> = layers.iter().map(|tar| self.blob(LAYER, &gzip(tar)) + "}").collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{}}},"layers":[{}]}}"#,
            self.blob(CONFIG, config.as_bytes()),
            layers.join(",")
        );
        self.blob(MANIFEST, manifest.as_bytes())
    }

    pub fn index(&self, open: &[String]) {
        let entries: Vec<String> = open.iter().map(|d| format!("{d}}}")).collect();
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        fs::write(self.dir.join("index.json"), index).expect("writes");
    }

    /// A layout with one image.
    pub fn of(dir: PathBuf, layers: &[Vec<u8>]) -> Self {
        let layout = Self::new(dir);
        let manifest = layout.image(ARCH, layers, None);
        layout.index(&[manifest]);
        layout
    }
}

pub fn platform(arch: &str) -> String {
    format!(r#","platform":{{"os":"linux","architecture":"{arch}"}}"#)
}

pub fn ref_name(name: &str) -> String {
    format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#)
}

/// An image of three layers, made by umoci from trees that change as packages change them. Returns the layout's path;
/// the tag is `t`.
pub fn umoci_image(bench: &Bench) -> PathBuf {
    let layout = bench.path("umoci");
    let image = format!("{}:t", layout.display());
    run("umoci", &["init", "--layout", text(&layout)]);
    run("umoci", &["new", "--image", &image]);
    let steps = [
        "mkdir -p bin etc/old usr/lib var/empty && cp /bin/busybox bin/busybox && ln -s busybox bin/sh && ln bin/busybox bin/ls
         ln -s usr/lib lib && echo one >usr/lib/a && echo secret >etc/shadow && chmod 0640 etc/shadow && chown 0:42 etc/shadow
         echo x >etc/old/x && echo y >etc/old/y && chmod 4755 bin/busybox && chmod 1777 var/empty
         mknod -m 660 null c 1 3 && mkfifo -m 600 pipe && printf 'odd' >'a \"b
c' && head -c 300000 /dev/urandom >usr/lib/big && truncate -s 3M usr/lib/hole && chown -h 7:8 lib",
        "rm -r etc/old && mkdir etc/old && echo new >etc/old/z && rm usr/lib/a && rm lib && mkdir lib && echo l >lib/l
         ln usr/lib/big usr/lib/big2",
        "rm -r var && ln -s /etc/old var && chmod 0700 etc && rm bin/sh && echo '#!' >bin/sh && chmod 755 bin/sh",
    ];
    for (i, step) in steps.iter().enumerate() {
        let bundle = bench.path(&format!("bundle{i}"));
        run("umoci", &["unpack", "--image", &image, text(&bundle)]);
        let rootfs = bundle.join("rootfs");
        run("sh", &["-ec", &format!("cd {} && {step}", rootfs.display())]);
        run("umoci", &["repack", "--image", &image, text(&bundle)]);
    }
    run("umoci", &["config", "--image", &image, "--config.cmd", "sh", "--config.env", "A=1"]);
    layout
}

/// What umoci makes of the image: the reference for ours.
pub fn umoci_listing(bench: &Bench, layout: &Path) -> BTreeMap<PathBuf, String> {
    let bundle = bench.path("reference");
    run("umoci", &["unpack", "--image", &format!("{}:t", layout.display()), text(&bundle)]);
    listing(&bundle.join("rootfs"))
}

/// docker's registry in a child process, on a port of 127.0.0.1.
pub struct Registry {
    child: Child,
    pub address: String,
    pub storage: PathBuf,
}

impl Registry {
    pub fn start(bench: &Bench) -> Self {
        Self::configured(bench, "", "")
    }

    /// `http` and `rest` are further lines of the configuration file, below `http:` and at its end.
    pub fn configured(bench: &Bench, http: &str, rest: &str) -> Self {
        Self::over(bench, bench.path("registry"), http, rest)
    }

    /// Another one with the same content.
    pub fn beside(bench: &Bench, other: &Self, rest: &str) -> Self {
        Self::over(bench, other.storage.clone(), "", rest)
    }

    fn over(bench: &Bench, storage: PathBuf, http: &str, rest: &str) -> Self {
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{http}{rest}",
            storage.display()
        );
        let config = bench.write("registry.yml", config.as_bytes());
        let log = File::create(bench.path("registry.log")).expect("creates");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("clones"))
            .stderr(log)
            .spawn()
            .expect("docker-registry starts; tests/run.sh installs it");
        let registry = Self { child, address: format!("127.0.0.1:{port}"), storage };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(&registry.address).is_err() {
            assert!(Instant::now() < deadline, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// Fills it by skopeo.
    pub fn push(&self, from: &str, name: &str, options: &[&str]) {
        let to = format!("docker://{}/{name}", self.address);
        let mut args = vec!["copy", "--insecure-policy", "--dest-tls-verify=false"];
        args.extend(options);
        args.extend([from, &to]);
        run("skopeo", &args);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().expect("kills its own child");
        self.child.wait().expect("reaps");
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.local_addr().expect("bound").port()
}

/// Keeps what it is told.
pub struct Told {
    pub notes: Mutex<Vec<String>>,
    pub stages: Mutex<Vec<String>>,
    /// Nobody waits any more when so many bytes have gone by; 0: never.
    pub cancel_at: u64,
    /// Nobody waits any more after this time.
    pub cancel_after: Option<Duration>,
    pub since: Instant,
    pub bytes: Mutex<u64>,
    pub total: Mutex<u64>,
    /// The last bytes and total before anything was said to be unpacked.
    pub arrived: Mutex<(u64, u64)>,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            notes: Mutex::default(),
            stages: Mutex::default(),
            cancel_at: 0,
            cancel_after: None,
            since: Instant::now(),
            bytes: Mutex::default(),
            total: Mutex::default(),
            arrived: Mutex::default(),
        }
    }
}

impl Progress for Told {
    fn stage(&self, text: &str) {
        self.stages.lock().expect("not poisoned").push(text.to_owned());
    }
    fn advance(&self, done: u64, total: u64, _: Unit) {
        *self.bytes.lock().expect("not poisoned") = done;
        *self.total.lock().expect("not poisoned") = total;
        if !self.stages.lock().expect("not poisoned").iter().any(|s| s.starts_with("unpacking")) {
            *self.arrived.lock().expect("not poisoned") = (done, total);
        }
    }
    fn note(&self, text: &str) {
        self.notes.lock().expect("not poisoned").push(text.to_owned());
    }
    fn cancelled(&self) -> bool {
        let enough = self.cancel_at > 0 && *self.bytes.lock().expect("not poisoned") >= self.cancel_at;
        enough || self.cancel_after.is_some_and(|time| self.since.elapsed() >= time)
    }
}

/// Reads what a command writes to a pipe, as `banger image import -` would.
pub fn piped(command: &mut Command) -> (Child, File) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("spawns");
    let out = child.stdout.take().expect("a pipe");
    (child, File::from(std::os::fd::OwnedFd::from(out)))
}

const CHILD: &str = "BANGER_TEST_CHILD";

/// What a test's own process was started with by [`run_child`]; None: it was started by the test runner.
///
/// Some things belong to a process, such as its environment, its root directory or its mounts: a test that needs them
/// another way runs itself again.
pub fn child_words<const N: usize>() -> Option<[String; N]> {
    let words: Vec<String> = std::env::var(CHILD).ok()?.split('\n').map(str::to_owned).collect();
    Some(words.try_into().expect("as many words as it was given"))
}

/// Runs the test `name` again by `command`, which ends with this executable and perhaps options.
pub fn run_child(command: &mut Command, name: &str, words: &[&str]) {
    let out = command.args(["--exact", name]).env(CHILD, words.join("\n")).output().expect("runs");
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("{text}");
    assert!(out.status.success() && text.contains("1 passed"), "{name} {words:?}: {text}");
}
