//! A bangerd with its files below a directory of the test, a kernel and an image that nobody will boot, and programs that stand in
//! for QEMU: they do nothing, for long.

use std::io::{BufRead, BufReader, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use banger::host::dirs::Dirs;
use banger::host::process;
use banger::image::config::ImageConfig;
use banger::image::record::ImageRecord;
use banger::kernel::record::KernelRecord;
use banger::proto::api::{Call, DaemonStatus, Failure, Reply, Request, VmCreate, VmShow, VmView};
use banger::store::record::Setting;
use banger::store::{Changes, Store};
use banger::vm::record::VmRecord;
use banger::vm::size::Mib;
use banger::vm::spec::{AccelChoice, VmmChoice, Wish};
use banger::vm::state::Process;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

pub const BANGER: &str = env!("CARGO_BIN_EXE_banger");
pub const IMAGE: &str = "base";
pub const KERNEL: &str = "6.1";

/// Says its version, and runs nothing.
const QEMU: &str = "[ \"$1\" = --version ] && exec echo 'QEMU emulator version 7.2.0'; exec sleep 300";

/// Says, by a file beside its sockets, that it was launched.
const DEVICE: &str = r#"
for word; do case $word in */vhost.sock) : > "${word%/*}/launched";; esac; done
exec sleep 300"#;

pub struct Rig {
    directory: tempfile::TempDir,
    daemon: Option<Child>,
    environment: Vec<(String, String)>,
    uid: Option<u32>,
}

impl Rig {
    /// The files, without a daemon.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("bgr").tempdir().expect("a directory");
        let rig = Self { directory, daemon: None, environment: vec![], uid: None };
        let bin = rig.path().join("bin");
        std::fs::create_dir(&bin).expect("makes a directory");
        // As root, bangerd would make a bridge in the network that this test shares with others.
        rig.configure("network = 'user'\n");
        for program in ["qemu-system-x86_64", "qemu-system-aarch64"] {
            rig.program(program, QEMU);
        }
        // The guests of the tests make its sockets once it runs (guests.rs).
        rig.program("vhost-device-vsock", DEVICE);
        rig
    }

    /// Files, records of an image and a kernel, and a running daemon.
    pub fn started() -> Self {
        let mut rig = Self::new();
        rig.seed();
        rig.start();
        rig
    }

    pub fn configure(&self, config: &str) {
        let dir = self.dirs().config;
        std::fs::create_dir_all(&dir).expect("makes a directory");
        std::fs::write(dir.join("config.toml"), config).expect("writes");
    }

    /// As [`Rig::started`], of a user who is not root, whoever runs the tests.
    pub fn of_a_plain_user() -> Self {
        const NOBODY: u32 = 65534;
        let mut rig = Self::new();
        rig.configure("");
        rig.seed();
        if rustix::process::geteuid().is_root() {
            rig.uid = Some(NOBODY);
            let owner = format!("{NOBODY}:{NOBODY}");
            let given = Command::new("chown").args(["-R", &owner]).arg(rig.path()).status();
            assert!(given.expect("runs chown").success());
        }
        rig.start();
        rig
    }

    /// Makes `name` a program that runs a line of shell.
    pub fn program(&self, name: &str, line: &str) {
        let path = self.path().join("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{line}\n")).expect("writes");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("sets the mode");
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn dirs(&self) -> Dirs {
        Dirs {
            state: self.path().join("state"),
            cache: self.path().join("cache"),
            runtime: self.path().join("run"),
            config: self.path().join("config"),
            root_runtime: self.path().join("run-root"),
        }
    }

    pub fn seed(&self) {
        let dirs = self.dirs();
        std::fs::create_dir_all(dirs.images()).expect("makes a directory");
        std::fs::set_permissions(&dirs.state, PermissionsExt::from_mode(0o700)).expect("sets the mode");
        std::fs::create_dir_all(dirs.kernel(KERNEL)).expect("makes a directory");
        std::fs::write(dirs.kernel(KERNEL).join("vmlinux"), "no kernel").expect("writes");
        std::fs::write(dirs.kernel(KERNEL).join("modules.cpio"), "").expect("writes");
        let id = "ab".repeat(32);
        std::fs::write(dirs.image_file(&id), "no file system").expect("writes");
        let image = ImageRecord {
            id,
            names: vec![IMAGE.to_owned()],
            digest: None,
            source: "-".to_owned(),
            arch: "amd64".to_owned(),
            variant: None,
            bytes: 14,
            created_at: 1,
            config: ImageConfig::default(),
            kernel: None,
            path: None,
            stamp: None,
        };
        let kernel = KernelRecord {
            name: KERNEL.to_owned(),
            version: KERNEL.to_owned(),
            arch: "amd64".to_owned(),
            blake3: "cd".repeat(32),
            source: "host".to_owned(),
            snapshot: true,
            modules: false,
            bundle: None,
            imported_at: 1,
        };
        let default = Setting { name: "default_kernel".to_owned(), value: KERNEL.to_owned() };
        let store = Store::open(&dirs.database()).expect("makes a database");
        store.apply(Changes::new().put(&image).put(&kernel).put(&default)).expect("stores");
    }

    fn command(&self) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(BANGER);
        command
            .arg0("bangerd")
            .env("BANGER_ROOT", self.path())
            .env("HOME", self.path())
            .env("PATH", format!("{}:{path}", self.path().join("bin").display()))
            .env("BANGER_LOG_LEVEL", "debug")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Starts bangerd and waits until it answers.
    pub fn start(&mut self) {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.path().join("log"));
        let log = log.expect("opens the log");
        self.daemon = Some(self.command().stderr(log).spawn().expect("starts bangerd"));
        self.until("bangerd listens", |rig| UnixStream::connect(rig.dirs().socket()).is_ok());
        // It listens first, then puts things in order, then answers.
        self.call(DaemonStatus {}).expect("answers");
    }

    /// A bangerd that is expected to end by itself.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("runs bangerd")
    }

    /// Starts another one without waiting for the end of the first, which was told to stop.
    pub fn restart(&mut self) {
        let first = self.daemon.take();
        self.start();
        let ended = first.expect("a daemon").wait().expect("reaps it");
        assert!(ended.success());
    }

    /// What it does when its power is cut.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon");
        daemon.kill().expect("kills it");
        daemon.wait().expect("reaps it");
    }

    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon").id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// Waits until something is so; what is not so after a minute will never be.
    pub fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        for _ in 0..6000 {
            if so(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("not so: {what}; the log:\n{}", self.log());
    }

    pub fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.dirs().socket()).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("sets a timeout");
        Client { stream, fd: None, buffer: vec![] }
    }

    pub fn call<C: Call>(&self, request: C) -> Result<C::Answer, Failure> {
        let mut client = self.connect();
        client.ask(request);
        client.outcome::<C>()
    }

    pub fn call_fd<C: Call>(&self, request: C) -> Result<OwnedFd, Failure> {
        let mut client = self.connect();
        client.ask(request);
        client.outcome::<C>()?;
        Ok(client.fd.take().expect("a descriptor came"))
    }

    pub fn create(&self, name: &str) -> VmView {
        self.call(wanted(name)).expect("creates a VM")
    }

    pub fn show(&self, vm: &str) -> VmView {
        self.call(VmShow { vm: vm.to_owned() }).expect("shows it")
    }

    pub fn label(&self, vm: &str) -> &'static str {
        self.show(vm).record.state.label()
    }
}

/// A VM of the least size, which QEMU would emulate.
pub fn wanted(name: &str) -> VmCreate {
    VmCreate {
        name: Some(name.parse().expect("a name")),
        image: Some(IMAGE.to_owned()),
        kernel: None,
        wish: Wish {
            vcpu: Some(1),
            memory: Some(Mib(128)),
            disk: Some(Mib(64)),
            vmm: VmmChoice::Qemu,
            accel: AccelChoice::Tcg,
            nat: false,
            lan: false,
        },
        start: false,
        soon: false,
        ephemeral: false,
        publish: vec![],
        ttl_s: None,
        advise: false,
        environment: Default::default(),
    }
}

pub fn alive(process: Process) -> bool {
    process::is_alive(process).expect("reads /proc")
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().expect("kills bangerd");
            daemon.wait().expect("reaps bangerd");
        }
        // Whatever it has started, by pid and start time.
        let database: PathBuf = self.dirs().database();
        let records = Store::open(&database).and_then(|store| store.all::<VmRecord>()).unwrap_or_default();
        for processes in records.iter().filter_map(|vm| vm.state.processes()) {
            for process in [Some(processes.vmm), processes.vsock].into_iter().flatten() {
                process::signal(process, rustix::process::Signal::KILL).expect("signals it");
            }
        }
    }
}

/// One connection.
pub struct Client {
    pub stream: UnixStream,
    pub fd: Option<OwnedFd>,
    buffer: Vec<u8>,
}

impl Client {
    pub fn ask<C: Call>(&mut self, request: C) {
        let request: Request = request.into();
        let line = request.to_json().expect("serialises") + "\n";
        self.stream.write_all(line.as_bytes()).expect("sends");
    }

    /// The next line; None at the end.
    pub fn line(&mut self) -> Option<Reply> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a reply"));
            }
            let mut bytes = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(
                &self.stream,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
            .expect("receives");
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    assert!(self.fd.is_none(), "one descriptor");
                    self.fd = fds.into_iter().next();
                }
            }
            if received.bytes == 0 {
                return None;
            }
            self.buffer.extend_from_slice(&bytes[..received.bytes]);
        }
    }

    /// The last line, past all events.
    pub fn outcome<C: Call>(&mut self) -> Result<C::Answer, Failure> {
        loop {
            match self.line().expect("an answer") {
                Reply::Event(_) => {}
                Reply::Done(value) => return Ok(serde_json::from_value(value).expect("its type")),
                Reply::Error(failure) => return Err(failure),
            }
        }
    }

    pub fn failure(&mut self) -> Failure {
        match self.line() {
            Some(Reply::Error(failure)) => failure,
            other => panic!("{other:?} is no failure"),
        }
    }
}

/// The first line that a stream gives.
pub fn first_line(stream: &UnixStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("reads");
    line
}
