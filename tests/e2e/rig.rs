//! A rig is one banger of a test's own: its directories, its daemon, its VMs. Dropping it ends and removes all of them.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before the test fails for it; far above what it takes.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Rig {
    root: tempfile::TempDir,
    /// The network namespace that everything of it runs in; None: this process's own, with VMs in user-mode networks.
    namespace: Option<String>,
    binary: PathBuf,
    /// What banger and its daemon see in the place of a file: a line of shell that mounts it.
    mounts: Option<String>,
    /// The words of setpriv(1) that banger is run with.
    privileges: Vec<String>,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ended {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The file or directory `name` among the parts that tests/run.sh makes.
pub fn part(name: &str) -> PathBuf {
    let parts = std::env::var("BANGER_TEST_PARTS").expect("BANGER_TEST_PARTS is set by tests/run.sh");
    PathBuf::from(parts).join(name)
}

pub fn binary() -> PathBuf {
    PathBuf::from(std::env::var("BANGER_TEST_BINARY").expect("BANGER_TEST_BINARY is set by tests/run.sh"))
}

impl Rig {
    /// A rig with the kernel and the images `busybox`, `minbase`, `systemd`, `sshd`, `scratch` and `golden`.
    pub fn new() -> Self {
        let rig = Self::empty();
        let seed = part("seed");
        // Images and kernels never change, so they are shared by hard link; the database is a copy, the log is its own.
        let linked = Command::new("cp")
            .args(["-al"])
            .arg(seed.join("state"))
            .arg(rig.root.path())
            .status()
            .expect("runs cp");
        assert!(
            linked.success(),
            "cannot link the seed; is it on the file system of {}?",
            rig.root.path().display()
        );
        fs::remove_file(rig.state("bangerd.log")).expect("unlinks");
        let database = rig.state("banger.redb");
        fs::remove_file(&database).expect("unlinks");
        fs::copy(seed.join("state/banger.redb"), &database).expect("copies");
        rig
    }

    /// A rig in which nothing has been imported. Its directory lies beside the seed, with a short name, since a socket's
    /// path has at most 107 bytes.
    pub fn empty() -> Self {
        let base = part("rigs");
        fs::create_dir_all(&base).expect("makes the directory");
        let root = tempfile::Builder::new().prefix("r").rand_bytes(4).tempdir_in(base);
        let rig = Self {
            root: root.expect("makes a directory"),
            namespace: None,
            binary: binary(),
            mounts: None,
            privileges: vec![],
        };
        // As root, banger would make a bridge in the network that this test shares with others.
        fs::create_dir(rig.path().join("config")).expect("makes a directory");
        fs::write(rig.path().join("config/config.toml"), "network = 'user'\n").expect("writes");
        rig
    }

    /// A rig whose VMs are on a bridge in the network namespace `namespace`.
    pub fn on_a_bridge(namespace: &str) -> Self {
        let mut rig = Self::new();
        rig.namespace = Some(namespace.to_owned());
        rig.configure("");
        rig
    }

    /// A rig in which nothing has been imported, in the network namespace `namespace`.
    pub fn empty_in(namespace: &str) -> Self {
        let mut rig = Self::empty();
        rig.namespace = Some(namespace.to_owned());
        rig
    }

    /// A rig with the kernel and the image `busybox`, whose banger is an unprivileged user's on a machine with an installation: root
    /// has laid the directories, and starts the helper ([`Rig::helper`]).
    pub fn of_an_owner(namespace: &str) -> Self {
        const OWNER: u32 = 4242;
        let mut rig = Self::empty();
        rig.namespace = Some(namespace.to_owned());
        rig.privileges =
            vec![format!("--reuid={OWNER}"), format!("--regid={OWNER}"), "--clear-groups".to_owned()];
        rig.configure("");
        let install = format!("owner = 'someone'\nuid = {OWNER}\ngid = {OWNER}\nhome = '/nonexistent'\n");
        fs::write(rig.path().join("config/install.toml"), install).expect("writes");
        fs::set_permissions(rig.path(), PermissionsExt::from_mode(0o755)).expect("sets the mode");
        for dir in ["state", "cache", "run"] {
            let path = rig.path().join(dir);
            fs::create_dir(&path).expect("makes a directory");
            std::os::unix::fs::chown(&path, Some(OWNER), Some(OWNER)).expect("chowns");
        }
        rig
    }

    /// A rig of a root that may change no network, as in most containers.
    pub fn of_a_root_without_power() -> Self {
        let mut rig = Self::new();
        rig.configure("");
        rig.privileges = vec!["--bounding-set=-net_admin".to_owned()];
        rig
    }

    /// The same, on whose host names are resolved by `text`, a resolv.conf(5).
    pub fn with_resolv_conf(mut self, text: &str) -> Self {
        let path = self.path().join("resolv.conf");
        fs::write(&path, text).expect("writes");
        self.mounts = Some(format!("mount --bind {} /etc/resolv.conf", path.display()));
        self
    }

    pub fn import(&self) {
        let mut parts = fs::read_dir(part("")).expect("lists").flatten().map(|e| e.path());
        let kernel = parts.find(|p| p.extension().is_some_and(|e| e == "deb")).expect("a kernel");
        self.ok_args(&["kernel", "import", "--deb", kernel.to_str().expect("UTF-8")]);
        let image = part("busybox.tar");
        self.ok_args(&["image", "import", image.to_str().expect("UTF-8"), "--name", "busybox"]);
    }

    /// Starts bangerd-root, with `failpoint` armed, and waits until it listens.
    pub fn helper(&self, failpoint: &str) -> Child {
        use std::os::unix::process::CommandExt;
        let namespace = self.namespace.as_deref().expect("a namespace");
        let link = self.path().join("bangerd-root");
        if !link.exists() {
            std::os::unix::fs::symlink(&self.binary, &link).expect("links");
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path().join("helper.log"));
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{namespace}")).arg(link);
        command.env("BANGER_ROOT", self.path()).env("BANGER_FAILPOINT", failpoint).arg0("nsenter");
        let child = command.stdin(Stdio::null()).stderr(log.expect("opens")).spawn().expect("runs it");
        let socket = self.path().join("run-root/bangerd-root.sock");
        self.until("the helper listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        child
    }

    /// The same, run by the debug build, which has failpoints.
    pub fn debug(mut self) -> Self {
        self.binary = PathBuf::from(env!("CARGO_BIN_EXE_banger"));
        self
    }

    /// The same, run by this executable.
    pub fn run_by(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    pub fn configure(&self, config: &str) {
        fs::write(self.path().join("config/config.toml"), config).expect("writes");
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    pub fn state(&self, name: &str) -> PathBuf {
        self.root.path().join("state").join(name)
    }

    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut words: Vec<String> = vec![];
        if let Some(namespace) = &self.namespace {
            words.extend(["ip", "netns", "exec", namespace].map(str::to_owned));
        }
        if let Some(mounts) = &self.mounts {
            let script = format!("{mounts} && exec \"$0\" \"$@\"");
            words.extend(["unshare", "-m", "sh", "-c"].map(str::to_owned));
            words.push(script);
        }
        if !self.privileges.is_empty() {
            words.push("setpriv".to_owned());
            words.extend(self.privileges.iter().cloned());
        }
        words.push(self.binary.to_str().expect("UTF-8").to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(args).env("BANGER_ROOT", self.root.path()).stdin(Stdio::null());
        command
    }

    /// Runs `banger` with words split at spaces; `sh -c` scripts and other words with spaces go through [`Rig::args`].
    pub fn banger(&self, line: &str) -> Ended {
        self.args(&line.split_whitespace().collect::<Vec<_>>())
    }

    pub fn args(&self, args: &[&str]) -> Ended {
        ended(self.command(args).output().expect("runs banger"))
    }

    /// Runs `banger`, which must succeed, and returns its stdout.
    pub fn ok(&self, line: &str) -> String {
        let words: Vec<_> = line.split_whitespace().collect();
        self.ok_args(&words)
    }

    pub fn ok_args(&self, args: &[&str]) -> String {
        let end = self.args(args);
        assert_eq!(end.status, 0, "banger {}: {end:#?}\n{}", args.join(" "), self.daemon_log());
        end.stdout
    }

    /// Runs `banger`, which must fail with status 1 and one clear sentence, and returns that sentence.
    pub fn refused(&self, line: &str) -> String {
        let end = self.banger(line);
        assert_eq!(end.status, 1, "banger {line}: {end:#?}");
        let said: Vec<&str> = end.stderr.lines().filter(|l| l.starts_with("banger: ")).collect();
        assert_eq!(said.len(), 1, "banger {line}: one sentence is due: {end:#?}");
        said[0].to_owned()
    }

    pub fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(line)).expect("is JSON")
    }

    /// Runs a shell script in a VM; it must succeed.
    pub fn sh(&self, vm: &str, script: &str) -> String {
        self.ok_args(&["vm", "exec", vm, "--", "sh", "-c", script])
    }

    pub fn feed(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs banger");
        let mut stdin = child.stdin.take().expect("is piped");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("ends");
        writer.join().expect("no panic").expect("all input is taken");
        output
    }

    pub fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs banger")
    }

    pub fn vm_state(&self, vm: &str) -> String {
        self.json(&format!("vm show --json {vm}"))["state"].as_str().expect("has a state").to_owned()
    }

    pub fn daemon_pid(&self) -> u32 {
        let pid = self.json("daemon status --json")["pid"].as_u64().expect("has a pid");
        u32::try_from(pid).expect("a pid")
    }

    pub fn vmm_pid(&self, vm: &str) -> u32 {
        let pid = self.json(&format!("vm show --json {vm}"))["processes"]["vmm"]["pid"]
            .as_u64()
            .expect("has a pid");
        u32::try_from(pid).expect("a pid")
    }

    pub fn daemon_log(&self) -> String {
        fs::read_to_string(self.state("bangerd.log")).unwrap_or_default()
    }

    /// Processes whose command line mentions this rig's directory, or one of its VMs: its daemon, its VMMs and their devices.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let log = self.daemon_log();
        let created = |line: &str| Some(line.split_once("created (")?.1.split_once(',')?.0.to_owned());
        let mut needles: Vec<String> = log.lines().filter_map(created).collect();
        needles.push(self.root.path().to_str().expect("UTF-8").to_owned());
        let mut found = vec![];
        for entry in fs::read_dir("/proc").expect("lists").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if needles.iter().any(|needle| line.contains(needle)) {
                found.push((pid, line));
            }
        }
        found
    }

    /// Waits until `done`; fails the test when it does not come.
    pub fn until(&self, what: &str, done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}\n{}", self.daemon_log());
            sleep(Duration::from_millis(50));
        }
    }

    /// Nothing of any VM is left: no record, no file, no process.
    pub fn assert_no_vm_is_left(&self) {
        assert_eq!(self.json("vm list --json"), Value::Array(vec![]));
        for dir in [self.state("vms"), self.root.path().join("run/vms")] {
            let left: Vec<_> =
                fs::read_dir(&dir).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default();
            assert!(left.is_empty(), "{left:?}");
        }
        let left: Vec<_> =
            self.processes().into_iter().filter(|(_, line)| !line.contains("/bangerd-root")).collect();
        assert_eq!(left, []);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.daemon_log());
        }
        let _ = self.command(["daemon", "stop"]).output();
        for (pid, _) in self.processes() {
            // Ours by its command line, which names this test's own directory or VM.
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

pub fn ended(output: Output) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    Ended {
        status: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

pub fn signal(pid: u32, name: &str) {
    let status =
        Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().expect("runs kill");
    assert!(status.success(), "kill -{name} {pid}");
    if name == "KILL" {
        // kill(1) returns before the process has gone.
        let begun = Instant::now();
        let gone = || banger::host::process::observe(pid).expect("reads /proc").is_none();
        while !gone() {
            assert!(begun.elapsed() < PATIENCE, "{pid} does not die");
            sleep(Duration::from_millis(1));
        }
    }
}
