//! `banger image pull` and `banger image cache` as people type them, with a daemon of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use banger::host::process;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::*;

/// A banger's directories; dropping it stops its daemon.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("bgr").tempdir().expect("a directory") }
    }

    fn configured(config: &str) -> Self {
        let home = Self::new();
        fs::create_dir_all(home.path("config")).expect("makes a directory");
        fs::write(home.path("config/config.toml"), config).expect("writes");
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn blobs(&self) -> PathBuf {
        self.path("cache/oci/blobs/sha256")
    }

    /// The names of files in the cache: blobs, and what is not finished.
    fn cached(&self) -> (Vec<String>, Vec<String>) {
        let entries = fs::read_dir(self.blobs()).map(|e| e.flatten().collect()).unwrap_or(vec![]);
        let names = entries.into_iter().map(|e| e.file_name().into_string().expect("UTF-8"));
        names.partition(|name| !name.starts_with('.'))
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_banger"));
        command.args(line.split(' ')).env("BANGER_ROOT", self.dir.path()).env("HOME", self.dir.path());
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "DOCKER_CONFIG"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().expect("runs banger")
    }

    /// What it prints, which must succeed.
    fn ok(&self, line: &str) -> String {
        let out = self.run(line);
        assert!(out.status.success(), "banger {line}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("UTF-8")
    }

    fn json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.ok(line)).expect("JSON")
    }

    fn daemon(&self) -> u32 {
        let pid = self.json("daemon status --json")["pid"].as_u64().expect("a pid");
        u32::try_from(pid).expect("a pid")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // It may never have run.
        self.run("daemon stop");
    }
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "not so: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("signals its own child");
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn an_image_that_is_here_costs_one_request_and_the_cache_can_be_emptied() {
    let parts = Parts::of(&[files(&[("a", &noise(2 << 20, 1))]), files(&[("b", b"b")])]);
    let server = Server::start(move |seen| parts.answer(seen));
    let home = Home::new();
    let reference = format!("{}/app:1", server.address);
    assert_eq!(home.ok(&format!("image pull {reference}")), format!("{reference}\n"));
    let before = server.seen().len();
    let again = home.run(&format!("image pull {reference}"));
    assert!(stderr(&again).contains("is up to date"), "{}", stderr(&again));
    let asked: Vec<String> = server.seen().split_off(before).into_iter().map(|s| s.method).collect();
    assert_eq!(asked, ["HEAD"]);

    let listed = home.json("image cache list --json");
    let listed = listed.as_array().expect("an array");
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|b| b["in_use"] == false && b["bytes"].as_u64().is_some_and(|n| n > 0)));
    assert!(listed.iter().all(|b| b["digest"].as_str().is_some_and(|d| d.starts_with("sha256:"))));
    assert!(home.ok("image cache list").starts_with("DIGEST"));
    let place = home.blobs().display().to_string();
    let would = home.ok("image cache prune --dry-run");
    let end = format!(" MiB across 3 blob(s) in {place}\n");
    assert!(would.starts_with("would free 2.") && would.ends_with(&end), "{would}");
    assert_eq!(home.cached().0.len(), 3);
    assert_eq!(home.ok("image cache prune"), would.replacen("would free", "freed", 1));
    assert_eq!(home.ok("image cache prune"), format!("freed 0 B across 0 blob(s) in {place}\n"));
    assert_eq!(home.json("image cache list --json"), serde_json::json!([]));
    // The image has stayed.
    assert_eq!(home.json(&format!("image show --json {reference}"))["names"][0], reference);
}

#[test]
fn pulls_at_the_same_time_share_their_work() {
    let parts = Arc::new(Parts::large(1 << 20));
    let (own, gate) = (Arc::clone(&parts), Arc::new(Gate::default()));
    let server = Server::start({
        let gate = Arc::clone(&gate);
        move |seen| -> Answer {
            let answer = own.answer(seen);
            match own.is_layer(&seen.path) {
                true => gated(&answer, 1000, &gate),
                false => answer.into(),
            }
        }
    });
    let home = Home::new();
    home.ok("image list");
    // The same name twice, and another name of the same image.
    let pull = |tag: &str| {
        let line = format!("image pull {}/app:{tag}", server.address);
        home.command(&line).spawn().expect("runs banger")
    };
    let first = pull("1");
    until("the layer comes", || server.count("GET", &sha256(parts.layer())) == 1);
    let others = [pull("1"), pull("2")];
    until("the other name is looked up", || server.count("HEAD", "/manifests/2") == 1);
    // Long enough for a second layer to be asked for, if it were.
    std::thread::sleep(Duration::from_millis(300));
    gate.open();
    let first = first.wait_with_output().expect("ends");
    assert!(first.status.success(), "{}", stderr(&first));
    for other in others {
        let out = other.wait_with_output().expect("ends");
        assert!(out.status.success() && stderr(&out).contains("is up to date"), "{}", stderr(&out));
    }
    assert_eq!(server.count("GET", "/blobs/"), 2);
    assert_eq!(server.count("GET", "/manifests/"), 1);
    let images = home.json("image list --json");
    assert_eq!(images.as_array().map(Vec::len), Some(1), "{images}");
    assert_eq!(images[0]["names"].as_array().map(Vec::len), Some(2), "{images}");
}

#[test]
fn after_ctrl_c_there_are_whole_blobs_only_and_the_next_pull_fetches_the_rest() {
    let bench = Bench::new();
    let registry = Registry::start(&bench);
    const LAYERS: usize = 16;
    let tars: Vec<_> =
        (0..LAYERS).map(|n| files(&[(&format!("f{n}"), &noise(6 << 20, n as u64 + 1))])).collect();
    let layout = Layout::of(bench.path("l"), &tars);
    registry.push(&format!("oci:{}", text(&layout.dir)), "app:1", &[]);
    let home = Home::new();
    let line = format!("image pull {}/app:1", registry.address);
    home.ok("image list");
    let pull = home.command(&line).spawn().expect("runs banger");
    // A configuration and a layer have come, and something is on its way.
    until("a layer has come", || {
        let (whole, staged) = home.cached();
        whole.len() >= 2 && !staged.is_empty()
    });
    signal(&pull, Signal::INT);
    let begun = Instant::now();
    let out = pull.wait_with_output().expect("ends");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&out.status), Some(2), "{}", stderr(&out));
    until("what is not whole is gone", || home.cached().1.is_empty());
    assert!(begun.elapsed() < Duration::from_secs(10));
    let (whole, _) = home.cached();
    assert!((2..=LAYERS).contains(&whole.len()), "{} blobs", whole.len());
    for name in &whole {
        let content = fs::read(home.blobs().join(name)).expect("reads");
        assert_eq!(sha256(&content), format!("sha256:{name}"));
    }
    // What had been written of the image goes a moment after what was being fetched for it.
    until("no image is left", || fs::read_dir(home.path("state/images")).expect("lists").next().is_none());
    home.ok(&line);
    assert_eq!(home.cached().0.len(), LAYERS + 1);
}

#[test]
fn what_a_killed_daemon_was_fetching_is_swept_by_the_next() {
    let parts = Arc::new(Parts::large(1 << 20));
    let own = Arc::clone(&parts);
    let server = Server::start(move |seen| -> Answer {
        match own.is_layer(&seen.path) {
            true => stalling(cut(V2, own.layer(), 500_000)),
            false => own.answer(seen).into(),
        }
    });
    let home = Home::new();
    home.ok("image list");
    let mut pull =
        home.command(&format!("image pull {}/app:1", server.address)).spawn().expect("runs banger");
    until("the layer is on its way", || {
        let (whole, staged) = home.cached();
        (whole.len(), staged.len()) == (1, 1)
    });
    let pid = home.daemon();
    let daemon = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(daemon, Signal::KILL).expect("kills it");
    until("it is gone", || process::observe(pid).expect("reads /proc").is_none());
    assert!(!pull.wait().expect("ends").success());
    assert_eq!(home.cached().1.len(), 1);
    home.ok("image list");
    let (whole, staged) = home.cached();
    assert_eq!((whole.len(), staged.len()), (1, 0), "the configuration");
}

#[test]
fn what_the_callers_environment_says_counts_for_a_daemon_that_runs_already() {
    let bench = Bench::new();
    let registry = Registry::private(&bench, "127.0.0.1");
    registry.fill(&bench);
    let home = Home::new();
    home.ok("image list");
    let line = format!("image pull {}/app:1", registry.address);
    let out = home.run(&line);
    assert!(!out.status.success() && stderr(&out).contains("cannot trust"), "{}", stderr(&out));
    // As people type it: relative to where they are.
    let mut trusting = home.command(&line);
    trusting.env("SSL_CERT_FILE", "127.0.0.1.ca.crt").current_dir(bench.path(""));
    let out = trusting.output().expect("runs banger");
    assert!(out.status.success(), "{}", stderr(&out));

    let parts = Parts::small();
    let demanding = Server::start(move |seen| match seen.authorization {
        None => response(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
        Some(_) => parts.answer(seen),
    });
    let config = format!(r#"{{"auths":{{"{}":{{"username":"u","password":"p"}}}}}}"#, demanding.address);
    bench.write("config.json", config.as_bytes());
    let line = format!("image pull {}/app:1", demanding.address);
    assert!(!home.run(&line).status.success());
    let out = home.command(&line).env("DOCKER_CONFIG", bench.path("")).output().expect("runs banger");
    assert!(out.status.success(), "{}", stderr(&out));
}

#[test]
fn mirrors_of_the_configuration_are_asked_and_mistakes_in_it_are_named() {
    let parts = Parts::small();
    let mirror = Server::start(move |seen| parts.answer(seen));
    let config = format!("[registries.\"docker.io\"]\nmirrors = [\"http://{}\"]\n", mirror.address);
    let home = Home::configured(&config);
    let out = home.run("image pull app:1");
    assert!(out.status.success(), "{}", stderr(&out));
    let note = format!("note: app:1 is what http://{} says it is", mirror.address);
    assert_eq!(stderr(&out).matches(&note).count(), 1, "{}", stderr(&out));
    let home = Home::configured("[registries.\"docker.io\"]\nmirror = []\n");
    assert!(!home.run("image list").status.success());
    let log = fs::read_to_string(home.path("state/bangerd.log")).expect("reads");
    assert!(log.contains("did you mean mirrors?"), "{log}");
}

#[test]
fn a_pull_while_the_disk_is_full_leaves_nothing() {
    if let Some([reference, root]) = child_words() {
        return on_a_full_disk(&reference, Path::new(&root));
    }
    let bench = Bench::new();
    let parts = Parts::large(6 << 20);
    let server = Server::start(move |seen| parts.answer(seen));
    fs::create_dir(bench.path("small")).expect("makes a directory");
    // A file system of 4 MiB, in a mount namespace of its own.
    let mut command = Command::new("unshare");
    let script = format!("mount -t tmpfs -o size=4m none {0} && exec \"$@\"", bench.path("small").display());
    command.args(["-m", "sh", "-c", &script, "sh"]).arg(std::env::current_exe().expect("a path"));
    let words = [format!("{}/app:1", server.address), text(&bench.path("small")).to_owned()];
    run_child(&mut command, "command::a_pull_while_the_disk_is_full_leaves_nothing", &[&words[0], &words[1]]);
}

fn on_a_full_disk(reference: &str, root: &Path) {
    let mut bench = Bench::new();
    bench.settings.blobs = banger::oci::Blobs::at(root.join("blobs"));
    let error = chain(&bench.pull(reference).expect_err("there is no room"));
    assert!(
        error.starts_with("cannot fetch layer sha256:") && error.contains("cannot store layer"),
        "{error}"
    );
    assert!(error.ends_with("No space left on device (os error 28)"), "{error}");
    assert_eq!(fs::read_dir(root.join("blobs")).expect("lists").count(), 1, "the configuration");
}
