//! The machine that banger is installed on: a VM of a banger of the test's own, with systemd, and a processor whose AMD-V is emulated
//! too, so that there are VMs with KVM in it. Nothing in it reaches further than its loopback.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before the test fails for it; far above what it takes.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// Its name, in the banger that runs it.
const NAME: &str = "host";

pub struct Machine {
    root: tempfile::TempDir,
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

/// The executable of `version` that tests/run.sh has built.
pub fn build(version: &str) -> PathBuf {
    part("host").join(version).join("banger")
}

impl Machine {
    /// Boots one, and waits until all its services are up.
    pub fn boot() -> Self {
        let base = part("rigs");
        fs::create_dir_all(&base).expect("makes the directory");
        let root = tempfile::Builder::new().prefix("h").rand_bytes(4).tempdir_in(base);
        let machine = Self { root: root.expect("makes a directory") };
        fs::create_dir(machine.root.path().join("config")).expect("makes a directory");
        fs::write(machine.root.path().join("config/config.toml"), "network = 'user'\n").expect("writes");
        let mut parts = fs::read_dir(part("")).expect("lists").flatten().map(|e| e.path());
        let kernel = parts.find(|p| p.extension().is_some_and(|e| e == "deb")).expect("a kernel");
        machine.outside(&["kernel", "import", "--deb", kernel.to_str().expect("UTF-8")]);
        machine.outside(&["image", "import", part("host.tar").to_str().expect("UTF-8"), "--name", "host"]);
        // One processor: of more, banger makes Intel's, and QEMU emulates AMD's virtualisation alone.
        let size = ["--vcpu", "1", "--memory", "2G", "--disk-size", "8G"];
        machine.outside(&[&["vm", "create", "-q", "--name", NAME, "--image", "host"], &size[..]].concat());
        machine.wait_until_up();
        machine
    }

    fn wait_until_up(&self) {
        let begun = Instant::now();
        loop {
            let state = self.sh("systemctl is-system-running --wait").stdout;
            match state.trim() {
                "running" => break,
                // Nobody can be asked yet.
                "" | "offline" | "initializing" | "starting" => {}
                _ => panic!("the machine is {state}{}", self.ok("systemctl --failed --no-legend --plain")),
            }
            assert!(begun.elapsed() < PATIENCE, "the machine does not come up: {state}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The kernel that the machine runs, as the file that VMs in it boot.
    pub fn vmlinux(&self) -> PathBuf {
        let kernels = fs::read_dir(self.root.path().join("state/kernels")).expect("lists");
        kernels.flatten().next().expect("one").path().join("vmlinux")
    }

    /// Copies a file or a tree into it; a path that ends in `/.` is what is in it.
    pub fn copy_in(&self, from: &Path, to: &str) {
        self.outside(&["vm", "cp", from.to_str().expect("UTF-8"), &format!("{NAME}:{to}")]);
    }

    /// Writes a file in it.
    pub fn write(&self, path: &str, content: &str) {
        let word = format!("cat > '{path}'");
        let mut command = self.command(&["vm", "exec", "-i", NAME, "--", "sh", "-c", &word]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("runs banger");
        child.stdin.take().expect("piped").write_all(content.as_bytes()).expect("writes");
        assert!(child.wait().expect("ends").success(), "cannot write {path}");
    }

    /// Runs lines of bash in it, as root.
    pub fn sh(&self, script: &str) -> Ended {
        self.sh_of("root", script)
    }

    /// As one of its users.
    pub fn sh_of(&self, user: &str, script: &str) -> Ended {
        let limit = PATIENCE.as_secs().to_string();
        let words =
            ["vm", "exec", "-u", user, NAME, "--", "timeout", "-k", "5", &limit, "bash", "-c", script];
        let out = self.command(&words).stdin(Stdio::null()).output().expect("runs banger");
        ended(&out)
    }

    /// As [`Machine::sh`]; it must succeed.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        self.ok_of("root", script)
    }

    #[track_caller]
    pub fn ok_of(&self, user: &str, script: &str) -> String {
        let end = self.sh_of(user, script);
        assert_eq!(end.status, 0, "{script}: {end:#?}");
        end.stdout
    }

    /// Starts the web server in it ([`crate::releases`]).
    pub fn serve(&self) {
        // Python would leave compiled modules in the file tree, which is compared.
        let unit = "systemd-run --quiet --unit=releases --setenv=PYTHONDONTWRITEBYTECODE=1 python3 -u /srv/server.py";
        self.ok(&format!("{unit} && until curl -so /dev/null http://127.0.0.1:8000/; do sleep 0.2; done"));
    }

    /// Cuts its power: what has not reached its disk is lost. Then boots it again.
    pub fn cut_power(&self) {
        self.outside(&["vm", "kill", "-q", NAME]);
        self.outside(&["vm", "start", "-q", NAME]);
        self.wait_until_up();
    }

    /// Runs the banger that runs the machine; it must succeed.
    #[track_caller]
    fn outside(&self, args: &[&str]) {
        let end = ended(&self.command(args).stdin(Stdio::null()).output().expect("runs banger"));
        assert_eq!(end.status, 0, "{args:?}: {end:#?}");
    }

    fn command(&self, args: &[&str]) -> Command {
        let banger = std::env::var("BANGER_TEST_BINARY").expect("BANGER_TEST_BINARY is set by tests/run.sh");
        let mut command = Command::new(banger);
        command.args(args).env("BANGER_ROOT", self.root.path());
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.command(&["vm", "kill", "-q", NAME]).output();
        let _ = self.command(&["vm", "delete", "-q", NAME]).output();
        let _ = self.command(&["daemon", "stop"]).output();
    }
}

fn ended(output: &Output) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    Ended {
        status: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
