//! An installation below a directory of the test, of v0.1.0, and what is published for it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::publisher::{BANGER, Executable, Publisher, manifest, sha256};
use crate::server::Server;

pub const MANIFEST: &str = "/manifest.json";

pub struct Rig {
    root: tempfile::TempDir,
    pub server: Server,
    pub publisher: Publisher,
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
    /// v0.1.0 is installed, its daemon runs, and v0.0.9 was there before.
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root, as an update does");
        let root = tempfile::Builder::new().prefix("bgr").tempdir().expect("a directory");
        let rig = Self { root, server: Server::start(), publisher: Publisher::new() };
        fs::set_permissions(rig.path(""), PermissionsExt::from_mode(0o755)).expect("opens it to all");
        for dir in ["bin", "units", "share", "config", "state", "run", "keep"] {
            fs::create_dir(rig.path(dir)).expect("makes a directory");
        }
        rig.install(&Executable::new("v0.1.0"));
        fs::write(rig.path("bin/banger.previous"), Executable::new("v0.0.9").script()).expect("writes");
        let install = "owner = \"root\"\nuid = 0\ngid = 0\nhome = \"/root\"\nversion = \"0.1.0\"\ncommit = \"c\"\nbuilt_at = \"b\"\n";
        fs::write(rig.path("config/install.toml"), install).expect("writes");
        for (name, content) in [
            ("units/bangerd.service", "unit of v0.1.0\n"),
            ("run/daemon", "0.1.0\n"),
            ("state/banger.redb", "records of v0.1.0"),
        ] {
            fs::write(rig.path(name), content).expect("writes");
        }
        fs::write(rig.path("key.pem"), rig.publisher.pem()).expect("writes");
        rig
    }

    /// With these releases published; the last is the newest stable one.
    pub fn with(releases: &[Executable]) -> Self {
        let rig = Self::new();
        rig.publish(releases);
        rig
    }

    pub fn publish(&self, releases: &[Executable]) {
        let entries: Vec<Value> =
            releases.iter().map(|e| self.publisher.release(&self.server, &e.version, e.tarball())).collect();
        let latest = &releases.last().expect("one").version;
        self.server.put(MANIFEST, manifest(latest, &entries));
    }

    fn install(&self, executable: &Executable) {
        let path = self.path("bin/banger");
        fs::write(&path, executable.script()).expect("writes");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("sets the mode");
        for name in ["bangerd", "bangerd-root", "banger-vsock"] {
            symlink("banger", self.path(&format!("bin/{name}"))).expect("links");
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(BANGER);
        command.args(line.split_whitespace()).env("BANGER_ROOT", self.root.path()).stdin(Stdio::null());
        command
    }

    pub fn banger(&self, line: &str) -> Ran {
        self.command(line).output().expect("runs").into()
    }

    pub fn update_command(&self, options: &str) -> Command {
        let key = self.path("key.pem");
        let line = format!(
            "update -q --manifest-url {} --pubkey-file {} {options}",
            self.server.at(MANIFEST),
            key.display()
        );
        self.command(&line)
    }

    pub fn update(&self, options: &str) -> Ran {
        self.update_command(options).output().expect("runs").into()
    }

    pub fn updated(&self, options: &str) -> Ran {
        let ran = self.update(options);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        ran
    }

    /// Runs an update that must be refused, and returns why.
    pub fn refused(&self, options: &str) -> String {
        let ran = self.update(options);
        let said: Vec<&str> = ran.err.lines().filter(|line| line.starts_with("banger: ")).collect();
        assert!(ran.code == Some(1) && said.len() == 1 && ran.out.is_empty(), "{ran:#?}");
        said[0].to_owned()
    }

    /// The version whose executable is installed.
    pub fn version(&self) -> String {
        self.read("bin/banger").lines().nth(1).unwrap_or_default().trim_start_matches("# ").to_owned()
    }

    /// The whole installation is `executable`'s, with `previous` as the way back, and nothing of an update is left.
    pub fn assert_is(&self, executable: &Executable, previous: &str, context: &str) {
        let version = &executable.version;
        let digest = |name: &str| sha256(self.read(name).as_bytes());
        assert_eq!(
            digest("bin/banger"),
            sha256(executable.script().as_bytes()),
            "{context}: {}",
            self.version()
        );
        assert_eq!(
            self.read("bin/banger.previous").lines().nth(1),
            Some(&*format!("# {previous}")),
            "{context}"
        );
        assert_eq!(mode(&self.path("bin/banger")), 0o755, "{context}");
        let bin = ["banger", "banger-vsock", "banger.previous", "bangerd", "bangerd-root"];
        assert_eq!(names_in(&self.path("bin")), bin, "{context}");
        for link in ["bangerd", "bangerd-root", "banger-vsock"] {
            let target = fs::read_link(self.path("bin").join(link)).expect("is a link");
            assert_eq!(target, Path::new("banger"), "{context}");
        }
        assert_eq!(self.read("units/bangerd.service"), format!("unit of {version}\n"), "{context}");
        let made: &[String] = if version == "v0.1.0" { &[] } else { &[format!("of-{version}")] };
        let made_here = names_in(&self.path("share"));
        assert!(made.iter().all(|name| made_here.contains(name)), "{context}: {made_here:?}");
        if version == "v0.1.0" {
            assert_eq!(made_here, [""; 0], "{context}");
        }
        assert_eq!(
            format!("v{}", self.read("run/daemon").trim()),
            *version,
            "{context}: the daemon that runs"
        );
        let install = self.read("config/install.toml");
        let number = version.trim_start_matches('v');
        assert!(install.contains(&format!("version = \"{number}\"")), "{context}: {install}");
        self.assert_nothing_is_left(context);
    }

    pub fn assert_nothing_is_left(&self, context: &str) {
        let kept = names_in(&self.path("keep"));
        assert!(
            kept.iter().all(|name| ["newest", "update.lock"].contains(&name.as_str())),
            "{context}: {kept:?}"
        );
        let staged = names_in(&self.path("cache/updates"));
        assert_eq!(staged, [""; 0], "{context}");
        for dir in ["bin", "units", "config", "share", "state", "keep"] {
            let names = names_in(&self.path(dir));
            assert!(!names.iter().any(|name| name.starts_with(".staged")), "{context}: {dir}: {names:?}");
        }
    }

    /// Removes what may be left where there was nothing to mend any more, and the next update would clear: root's own, and in nobody's way.
    pub fn clear_leftovers(&self) {
        for tree in ["cache/updates", "keep/saved"] {
            let path = self.path(tree);
            if path.exists() {
                fs::remove_dir_all(path).expect("removes");
            }
        }
        let half = self.path("keep/.staged-update.json");
        if half.exists() {
            fs::remove_file(half).expect("removes");
        }
    }

    /// As it was made.
    pub fn assert_untouched(&self, context: &str) {
        self.assert_is(&Executable::new("v0.1.0"), "v0.0.9", context);
        assert_eq!(self.read("state/banger.redb"), "records of v0.1.0", "{context}");
    }
}

pub fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return vec![] };
    let mut names: Vec<String> =
        entries.map(|e| e.expect("lists").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("stats").permissions().mode() & 0o7777
}
