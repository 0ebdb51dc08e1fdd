//! A helper with its files below a directory of the test, in a network namespace that is the test's own and goes with it.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use banger::host::dirs::Dirs;
use banger::proto::root::{Answer, Request, Status};
use rustix::thread::UnshareFlags;
use serde_json::{Value, json};

use crate::client::Client;

pub const BANGER: &str = env!("CARGO_BIN_EXE_banger");
pub const OWNER: u32 = 12345;
pub const ROOT: u32 = 0;
/// For whatever the machine does under load.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Rig {
    directory: tempfile::TempDir,
    helper: Option<Child>,
}

impl Rig {
    /// The files and the network, without a helper.
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root: unshare -n tests, as root");
        // SAFETY: another network namespace changes nothing in this process's memory or descriptors.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("makes a network namespace");
        let directory = tempfile::Builder::new().prefix("bgr").tempdir().expect("a directory");
        let rig = Self { directory, helper: None };
        std::fs::set_permissions(rig.path(), PermissionsExt::from_mode(0o755)).expect("opens it to all");
        let dirs = rig.dirs();
        std::fs::create_dir(&dirs.config).expect("makes a directory");
        let install = format!("owner = 'o'\nuid = {OWNER}\ngid = {OWNER}\nhome = '/nonexistent'\n");
        std::fs::write(dirs.install_file(), install).expect("writes");
        for owned in [&dirs.state, &dirs.runtime] {
            std::fs::create_dir(owned).expect("makes a directory");
            chown(owned, Some(OWNER), Some(OWNER)).expect("gives it away");
        }
        rig
    }

    /// With a helper.
    pub fn started() -> Self {
        let mut rig = Self::new();
        rig.start();
        rig
    }

    /// With a helper that serves a bridge.
    pub fn bridged() -> Self {
        let rig = Self::started();
        assert_eq!(rig.ask(&ensure_bridge()), Answer::Done);
        rig.settle_carrier();
        rig
    }

    /// A bridge has a carrier until it has had ports and lost them; the worlds that are compared have none.
    pub fn settle_carrier(&self) {
        let passing = "0000000000aa";
        assert_eq!(self.ask(&create_tap(passing, 9)), Answer::Done);
        assert_eq!(self.ask(&remove_vm(passing)), Answer::Done);
        self.come_to_rest();
    }

    /// Nobody is behind the taps, so that no port has a carrier; the kernel says so within a second (net/core/link_watch.c).
    pub fn come_to_rest(&self) {
        until(|| run("ip", "link show br-banger").contains("NO-CARRIER"));
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn dirs(&self) -> Dirs {
        let below = |name: &str| self.path().join(name);
        Dirs {
            state: below("state"),
            cache: below("cache"),
            runtime: below("run"),
            config: below("config"),
            root_runtime: below("run-root"),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dirs().root_socket()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BANGER);
        command
            .arg0("bangerd-root")
            .args(args)
            .env_clear()
            .env("BANGER_ROOT", self.path())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null());
        command
    }

    pub fn start(&mut self) {
        self.start_with(&[]);
        self.wait_until_it_serves();
    }

    pub fn start_with(&mut self, environment: &[(&str, &str)]) {
        assert!(self.helper.is_none(), "one at a time");
        let log =
            std::fs::File::options().create(true).append(true).open(self.log_file()).expect("opens the log");
        let mut command = self.command(&[]);
        command.envs(environment.iter().copied()).stdout(Stdio::null()).stderr(log);
        self.helper = Some(command.spawn().expect("starts"));
    }

    pub fn adopt(&mut self, helper: Child) {
        self.helper = Some(helper);
    }

    pub fn wait_until_it_serves(&mut self) {
        let until = Instant::now() + PATIENCE;
        while self.try_ask(&Request::Status).is_none() {
            if let Some(status) = self.helper.as_mut().and_then(|h| h.try_wait().expect("looks")) {
                panic!("the helper ended, {status}:\n{}", self.log());
            }
            assert!(Instant::now() < until, "it does not serve:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Beside the directory that is compared.
    fn log_file(&self) -> PathBuf {
        self.path().with_extension("log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.helper.as_ref().expect("a helper").id()
    }

    /// Of the helper and of its launcher.
    pub fn pids(&self) -> [u32; 2] {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = std::fs::read_to_string(children).expect("reads");
        let pids: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect();
        let launcher = pids.iter().find(|pid| comm(**pid) == "bangerd-launch").expect("a launcher");
        [self.pid(), *launcher]
    }

    /// SIGKILL, and waits for its end; that of its launcher as well.
    pub fn kill(&mut self) {
        let [_, launcher] = self.pids();
        self.kill_alone();
        until(|| !Path::new(&format!("/proc/{launcher}")).exists());
    }

    /// Without its launcher.
    pub fn kill_alone(&mut self) {
        let mut helper = self.helper.take().expect("a helper");
        helper.kill().expect("kills");
        helper.wait().expect("waits");
    }

    /// Waits until it has died by itself.
    pub fn died(&mut self) -> std::process::ExitStatus {
        let mut helper = self.helper.take().expect("a helper");
        until(|| helper.try_wait().expect("looks").is_some());
        helper.wait().expect("waits")
    }

    pub fn reconcile(&self) -> Output {
        self.command(&["--reconcile"]).output().expect("runs")
    }

    pub fn clear(&self) -> Output {
        self.command(&["--clear"]).output().expect("runs")
    }

    /// As the owner.
    pub fn ask(&self, request: &Request) -> Answer {
        self.try_ask(request).unwrap_or_else(|| panic!("no answer to {request:?}:\n{}", self.log()))
    }

    /// None: nobody answers.
    pub fn try_ask(&self, request: &Request) -> Option<Answer> {
        let line = serde_json::to_vec(request).expect("serialises");
        let mut client = Client::connect(OWNER, &self.socket()).ok()?;
        client.send(&[&line[..], b"\n"].concat());
        serde_json::from_str(&client.answer()).ok()
    }

    pub fn status(&self) -> Status {
        match self.ask(&Request::Status) {
            Answer::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the helper's log:\n{}", self.log());
        }
        if let Some(mut helper) = self.helper.take()
            && let Err(e) = helper.kill().and_then(|()| helper.wait())
        {
            eprintln!("cannot end the helper: {e}");
        }
        if let Err(e) = std::fs::remove_file(self.log_file()) {
            eprintln!("cannot remove the log: {e}");
        }
    }
}

pub fn comm(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

pub fn until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "it does not come to pass");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn request(value: Value) -> Request {
    serde_json::from_value(value).expect("a request")
}

pub fn ensure_bridge() -> Request {
    request(json!({"op": "ensure-bridge", "subnet": "172.16.0.1/24", "dns_port": 42069}))
}

pub fn create_tap(vm: &str, slot: u16) -> Request {
    let port = json!({"slot": slot, "nat": false, "lan": false, "direct": false});
    request(json!({"op": "create-tap", "vm": vm, "port": port}))
}

pub fn remove_vm(vm: &str) -> Request {
    request(json!({"op": "remove-vm", "vm": vm}))
}

/// Runs a program, which must succeed, and returns what it says.
pub fn run(program: &str, args: &str) -> String {
    let out = Command::new(program).args(args.split(' ')).output().expect("runs");
    assert!(out.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}
