//! A daemon and a guest's agent that say what a test wants them to, on a real socket below a directory of their own.

use std::io::{BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use banger::proto::agent;
use banger::proto::api::{Code, Event, Failure, Reply, Request};
use banger::proto::frame::{Frame, Kind};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::TempDir;

pub struct Fake {
    root: TempDir,
    seen: Arc<Mutex<Vec<Request>>>,
}

/// One connection of the CLI, its request read.
pub struct Asked {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Fake {
    /// A directory without a daemon.
    pub fn absent() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        Self { root, seen: Arc::default() }
    }

    /// Answers every request by `script`, each in a thread.
    pub fn start(script: impl Fn(Request, Asked) + Send + Sync + 'static) -> Self {
        let fake = Self::absent();
        let run = fake.root().join("run");
        std::fs::DirBuilder::new().mode(0o700).create(&run).expect("creates");
        let listener = UnixListener::bind(run.join("bangerd.sock")).expect("binds");
        let (seen, script) = (Arc::clone(&fake.seen), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("accepts");
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().expect("clones"));
                    let mut line = String::new();
                    reader.read_line(&mut line).expect("reads");
                    if line.is_empty() {
                        return;
                    }
                    let request: Request = Request::from_json(line.as_bytes()).expect("a request");
                    seen.lock().expect("not poisoned").push(request.clone());
                    script(request, Asked { stream, reader });
                });
            }
        });
        fake
    }

    /// A daemon with these VMs, that starts, stops and deletes whatever it is told to, and whose guest is `agent`.
    pub fn with_guest(agent: impl Fn(agent::Exec, Agent) + Send + Sync + 'static) -> Self {
        let agent = Arc::new(agent);
        Self::start(move |request, asked| match request {
            Request::VmCreate(create) => {
                let name = create.name.map_or("calm-otter".to_owned(), |n| n.to_string());
                asked.done(vm(&name, 1, "stopped"));
            }
            Request::VmStart(_) | Request::VmShow(_) => asked.done(vm("calm-otter", 1, "running")),
            Request::VmStop(_) => asked.done(vm("calm-otter", 1, "stopped")),
            Request::VmDelete(_) => asked.done(serde_json::Value::Null),
            Request::VmExec(exec) => {
                let (near, far) = UnixStream::pair().expect("a pair");
                let exec = agent::Exec {
                    argv: exec.asked.argv,
                    env: exec.asked.env,
                    tty: exec.tty,
                    stdin: exec.stdin,
                    ..agent::Exec::default()
                };
                asked.done_with(serde_json::Value::Null, near.into());
                agent(exec, Agent(far));
            }
            other => panic!("not expected: {other:?}"),
        })
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// What has been asked so far, by method.
    pub fn methods(&self) -> Vec<String> {
        let seen = self.seen.lock().expect("not poisoned");
        seen.iter().map(|request| request.method().to_owned()).collect()
    }

    /// The same as it was sent.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        let json =
            |request: &Request| serde_json::from_str(&request.to_json().expect("serialises")).expect("JSON");
        self.seen().iter().map(json).collect()
    }

    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// The real program, talking to this daemon.
    pub fn banger(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_banger"));
        command.args(args).env("BANGER_ROOT", self.root()).env("TERM", "xterm").stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.banger(args).output().expect("runs"))
    }
}

/// What a program left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Asked {
    fn send(&self, reply: &Reply, fd: Option<OwnedFd>) {
        let mut line = serde_json::to_vec(reply).expect("JSON");
        line.push(b'\n');
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let sent = sendmsg(&self.stream, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL);
        let sent = sent.expect("sends");
        (&self.stream).write_all(&line[sent..]).expect("sends the rest");
    }

    pub fn event(&self, event: Event) {
        self.send(&Reply::Event(event), None);
    }

    pub fn done(&self, answer: serde_json::Value) {
        self.send(&Reply::Done(answer), None);
    }

    pub fn done_with(&self, answer: serde_json::Value, fd: OwnedFd) {
        self.send(&Reply::Done(answer), Some(fd));
    }

    pub fn fail(&self, code: Code, message: &str) {
        self.fail_with(code, message, &[]);
    }

    pub fn fail_with(&self, code: Code, message: &str, details: &[&str]) {
        self.send(
            &Reply::Error(Failure {
                code,
                message: message.to_owned(),
                op: "op-00c0ffee".to_owned(),
                details: details.iter().map(|d| (*d).to_owned()).collect(),
            }),
            None,
        );
    }

    /// Writes bytes that need be no reply.
    pub fn garbage(mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("writes");
    }

    /// Returns when the CLI has gone.
    pub fn wait_for_hang_up(mut self) {
        let mut line = String::new();
        assert_eq!(self.reader.read_line(&mut line).expect("reads"), 0, "{line}");
    }
}

/// The guest's side of a session.
pub struct Agent(pub UnixStream);

impl Agent {
    pub fn say(&mut self, kind: Kind, payload: &[u8]) {
        Frame::new(kind, payload).write(&mut self.0).expect("writes");
    }

    /// Writes bytes that need be no frame.
    pub fn say_bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("writes");
    }

    pub fn hear(&mut self) -> Option<Frame> {
        Frame::read(&mut self.0).expect("frames")
    }

    /// The next frame of this kind; others are passed over.
    pub fn hear_of(&mut self, kind: Kind) -> Frame {
        loop {
            let frame = self.hear().expect("the CLI is there");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// All of stdin, opening the window as it comes.
    pub fn stdin(&mut self) -> Vec<u8> {
        let mut all = vec![];
        loop {
            let frame = self.hear().expect("the CLI is there");
            match frame.kind {
                Kind::Stdin => {
                    all.extend_from_slice(&frame.payload);
                    let n = u32::try_from(frame.payload.len()).expect("short");
                    Frame::window(n).write(&mut self.0).expect("writes");
                }
                Kind::Eof => return all,
                _ => {}
            }
        }
    }
}

/// A VM as the daemon shows it.
pub fn vm(name: &str, id: u64, state: &str) -> serde_json::Value {
    let process = serde_json::json!({ "vmm": { "pid": 1, "started": 1 } });
    let mut view = serde_json::json!({
        "id": format!("{id:012x}"), "name": name, "image": "0".repeat(64), "image_name": "debian",
        "kernel": null, "spec": { "vcpu": 2, "memory_mib": 1536, "disk_mib": 8192, "vmm": "auto", "accel": "auto", "nat": false },
        "state": state, "created_at": 1, "started_at": null, "owner": null,
        "directory": "/d", "address": null, "running_on": null,
    });
    if matches!(state, "running" | "starting" | "stopping") {
        view["processes"] = process;
    }
    view
}
