//! What the tests stand on: a publisher with a key of openssl's, a server with releases, and a home for install.sh.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use banger::publish::release::{ReleaseError, ReleaseWish, Released, release};
use serde_json::Value;

use crate::server::Server;

pub const INSTALLER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/install.sh");
/// Where this machine's programs are, and nothing of whoever runs the tests.
pub const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Somebody with a key, a directory of releases, and a server that has them.
pub struct Publisher {
    dir: tempfile::TempDir,
    pub server: Server,
}

impl Publisher {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // As README.md says.
        sh(
            dir.path(),
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem 2>/dev/null",
        );
        sh(dir.path(), "openssl pkey -in key.pem -pubout -out public.pem");
        fs::create_dir(dir.path().join("out")).expect("makes a directory");
        let server = Server::start(&dir.path().join("out"));
        Self { dir, server }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn out(&self) -> PathBuf {
        self.path("out")
    }

    pub fn keys(&self) -> String {
        fs::read_to_string(self.path("public.pem")).expect("reads")
    }

    pub fn wish(&self, binary: &Path) -> ReleaseWish {
        ReleaseWish {
            binary: binary.to_owned(),
            version: None,
            out: self.out(),
            base: self.server.url.parse().expect("a URL"),
            key: self.path("key.pem"),
            manifest: None,
            expires: None,
            min_version: None,
            manual: |version| vec![("banger".to_owned(), format!("of {version}"))],
        }
    }

    /// Releases something that says that it is this version of banger.
    pub fn release(&self, version: &str) -> Released {
        self.try_release(version).unwrap_or_else(|e| panic!("{e:?}"))
    }

    pub fn try_release(&self, version: &str) -> Result<Released, ReleaseError> {
        let program = self.path(&format!("program-{version}"));
        write_program(&program, version);
        release(&self.wish(&program), &self.keys())
    }

    pub fn manifest(&self) -> Value {
        serde_json::from_slice(&fs::read(self.out().join("manifest.json")).expect("reads")).expect("JSON")
    }

    /// Puts `tarball` in place of a release's, and signs it: the publisher is the one who errs, or lies.
    pub fn replace_tarball(&self, version: &str, tarball: &[u8]) {
        let (dir, name) = (self.out().join(version), tarball_name(version));
        fs::write(dir.join(&name), tarball).expect("writes");
        sh(&dir, &format!("sha256sum {name} >SHA256SUMS"));
        self.sign(version);
    }

    /// Signs the SHA256SUMS of a release again, with openssl.
    pub fn sign(&self, version: &str) {
        let key = self.path("key.pem");
        let line =
            format!("openssl dgst -sha256 -sign {} SHA256SUMS | base64 >SHA256SUMS.sig", key.display());
        sh(&self.out().join(version), &line);
    }
}

pub fn tarball_name(version: &str) -> String {
    format!("banger-{version}-x86_64-linux.tar.gz")
}

/// A script that says that it is a banger, and writes down what else it is asked to do.
pub fn write_program(path: &Path, version: &str) {
    let text = format!(
        "#!/bin/sh\n\
         case \"$*\" in\n\
         --version) echo 'banger {version} (commit abcd1234, built 2026-11-29T12:00:00Z)' ;;\n\
         *) echo \"banger $*\" >>\"$BANGER_TEST_LOG\"; [ ! -e \"$BANGER_TEST_LOG.fail\" ] || exit 1 ;;\n\
         esac\n"
    );
    write_executable(path, &text);
}

pub fn write_executable(path: &Path, text: &str) {
    fs::write(path, text).expect("writes");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("sets a mode");
}

/// Runs a line of shell, which must succeed.
pub fn sh(dir: &Path, line: &str) -> String {
    let out =
        Command::new("bash").args(["-euo", "pipefail", "-c", line]).current_dir(dir).output().expect("runs");
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

/// A user's home, in which install.sh is run; by root or by anybody, it thinks that it is what `uid` says.
pub struct Home {
    dir: tempfile::TempDir,
    pub uid: u32,
    /// Where it finds programs, before [`PATH`]; or instead of it.
    tools: Option<PathBuf>,
    pub env: BTreeMap<String, String>,
}

/// How a run of it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Home {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("bgr").tempdir().expect("a directory");
        for name in ["tmp", "home", "stubs"] {
            fs::create_dir(dir.path().join(name)).expect("makes a directory");
        }
        let home = Self { dir, uid: 1000, tools: None, env: BTreeMap::new() };
        let id = "#!/bin/sh\ncase \"$*\" in\n-u) echo $BANGER_TEST_UID ;;\n-un) echo me ;;\n'-u -- me') echo 1000 ;;\n\
                  *) exec /usr/bin/id \"$@\" ;;\nesac\n";
        write_executable(&home.path("stubs/id"), id);
        let sudo =
            "#!/bin/sh\necho sudo >>\"$BANGER_TEST_LOG\"\n[ \"$1\" = -- ] || exit 2\nshift\nexec \"$@\"\n";
        write_executable(&home.path("stubs/sudo"), sudo);
        // Whatever is wrong with a test, or with --try: this machine's packages are none of its business.
        for name in ["apt-get", "apt-cache", "cargo", "dpkg", "rustup"] {
            write_executable(
                &home.path(&format!("stubs/{name}")),
                "#!/bin/sh\necho \"$0\" >>\"$BANGER_TEST_LOG\"\nexit 1\n",
            );
        }
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// From here on there are only these programs of this machine.
    pub fn only_tools(&mut self, names: &[&str]) -> PathBuf {
        let tools = self.path("tools");
        fs::create_dir(&tools).expect("makes a directory");
        for name in names {
            let found = PATH.split(':').map(|dir| Path::new(dir).join(name)).find(|path| path.exists());
            symlink(found.unwrap_or_else(|| panic!("{name} is not on this machine")), tools.join(name))
                .expect("links");
        }
        self.tools = Some(tools.clone());
        tools
    }

    /// `program args` in this home, without a terminal and without this process's environment.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/setsid");
        let others = self.tools.as_ref().map_or_else(|| PATH.to_owned(), |tools| tools.display().to_string());
        command.arg("--wait").arg(program).args(args).env_clear();
        command.env("PATH", format!("{}:{others}", self.text("stubs"))).env("HOME", self.path("home"));
        command.env("TMPDIR", self.path("tmp")).env("BANGER_TEST_LOG", self.path("log"));
        // Never the machine's own installation.
        command.env("BANGER_ROOT", self.path("root")).env("BANGER_TEST_UID", self.uid.to_string());
        command.envs(&self.env).current_dir(self.path("home")).stdin(Stdio::null());
        command
    }

    /// `bash install.sh args`.
    pub fn run(&self, args: &[&str]) -> Ran {
        let args = [&[INSTALLER], args].concat();
        self.ended(self.command("/bin/bash", &args).output().expect("runs"))
    }

    /// `bash -s -- args`, with the script on its stdin.
    pub fn piped(&self, script: &[u8], args: &[&str]) -> Ran {
        let args = [&["-s", "--"], args].concat();
        let mut command = self.command("/bin/bash", &args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let fed = child.stdin.take().expect("a pipe").write_all(script);
        let output = child.wait_with_output().expect("ends");
        if output.status.success() {
            fed.expect("it reads all of the script");
        }
        self.ended(output)
    }

    fn ended(&self, output: Output) -> Ran {
        let ran = Ran::from(output);
        // However it ends, it leaves nothing where it worked.
        assert_eq!(names_in(&self.path("tmp")), [""; 0], "{ran:#?}");
        ran
    }

    /// Runs what must go well.
    pub fn ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        ran
    }

    /// Runs what must fail with one sentence, which it returns.
    pub fn refused(&self, args: &[&str]) -> String {
        self.sentence(self.run(args))
    }

    pub fn sentence(&self, ran: Ran) -> String {
        let said: Vec<&str> = ran.err.lines().collect();
        assert!(ran.code == Some(1) && said.len() == 1, "{ran:#?}");
        said[0].strip_prefix("install.sh: ").unwrap_or_else(|| panic!("{ran:#?}")).to_owned()
    }

    /// What the programs that it ran were asked to do.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

pub fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return vec![] };
    let mut names: Vec<String> =
        entries.map(|e| e.expect("lists").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}
