//! Knowing what goes on in a real guest: one VM, looked at from all sides.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rig::{PATIENCE, Rig, signal};

/// tmux(1) with a server of its own, and banger in it.
struct Tmux<'a> {
    rig: &'a Rig,
}

impl Tmux<'_> {
    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.rig.path().join("tmux")).args(["-f", "/dev/null"]).args(args);
        command.output().expect("runs tmux")
    }

    /// Starts `banger` with `args` in a window of this size; what comes of it stays on the screen.
    fn start(&self, columns: u16, rows: u16, args: &str) {
        let banger = format!(
            "BANGER_ROOT={} {} {args}; echo ended with $?; sleep 1000",
            self.rig.path().display(),
            crate::rig::binary().display()
        );
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let ran = self.run(&["new-session", "-d", "-x", &columns, "-y", &rows, &banger]);
        assert!(ran.status.success(), "{ran:?}");
    }

    fn keys(&self, keys: &[&str]) {
        assert!(self.run(&[&["send-keys"], keys].concat()).status.success());
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.run(&["capture-pane", "-p"]).stdout).into_owned()
    }

    fn until(&self, what: &str, so: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if so(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

fn number(value: &Value, part: &str, key: &str) -> f64 {
    value[0][part][key].as_f64().unwrap_or_else(|| panic!("no {part}.{key} in {value}"))
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn what_goes_on_in_a_vm_can_be_known_from_all_sides() {
    let rig = Rig::new();
    rig.ok("vm list");
    let mut events = rig.command(["events", "--json"]).stdout(Stdio::piped()).spawn().expect("runs banger");
    rig.ok("vm run -q -d --name dev --image minbase --memory 512M");
    rig.ok("vm create -q --name web --image busybox --no-start");

    numbers(&rig);
    web_servers(&rig);
    logs(&rig);
    top(&rig);
    hung(&rig);

    rig.ok("vm stop -q dev");
    assert!(rig.refused("vm ping dev").contains("vm dev is stopped"));
    assert_eq!(
        rig.banger("vm health dev").stdout,
        "FAIL  state  stopped; `banger vm start dev` starts it.\n"
    );
    rig.ok("vm delete -q dev web");
    let told: Vec<String> = BufReader::new(events.stdout.take().expect("a pipe"))
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.expect("a line")).expect("JSON"))
        .filter(|event| event["name"] == "dev")
        .map(|event| event["what"].as_str().expect("a word").to_owned())
        .filter(|what| what.starts_with("vm."))
        .take_while(|what| what != "vm.deleted")
        .collect();
    let want = ["vm.created", "vm.starting", "vm.running", "vm.stopping", "vm.stopped", "vm.deleting"];
    assert_eq!(told, want);
    rig.ok("daemon stop");
    events.wait().expect("ends with the daemon");
}

/// Counters of the guest and of the VMM tell what the guest does.
fn numbers(rig: &Rig) {
    let pong = rig.ok("vm ping dev");
    assert!(
        pong.starts_with("dev: ") && pong.contains(" ms (banger ") && pong.contains(", linux 6."),
        "{pong}"
    );
    let health = rig.ok("vm health dev");
    for row in
        ["state   running", "vmm     qemu with ", "agent   answered in ", "disk    ", "memory  ", "clock   "]
    {
        assert!(
            health.lines().any(|line| line.starts_with("ok ") && line.contains(row)),
            "{row:?}:\n{health}"
        );
    }
    let before = rig.json("vm stats dev --json");
    rig.sh("dev", "(i=0; while [ $i -lt 100000000 ]; do i=$((i+1)); done) >/dev/null 2>&1 & echo $! >/busy");
    rig.sh("dev", "dd if=/dev/urandom of=/big bs=1M count=16 conv=fsync 2>/dev/null");
    let after = rig.json("vm stats dev --json");
    // On a busy host the two looks of one call may see nothing of it.
    let busy = |part: &str| number(&rig.json("vm stats dev --json"), "rates", part);
    rig.until("the guest is seen to be busy", || busy("cpu_percent") > 30.0);
    rig.until("its VMM is seen to be busy", || busy("vmm_cpu_percent") > 20.0);
    for (part, key) in [("guest", "disk_written_bytes"), ("vmm", "disk_bytes")] {
        let written = number(&after, part, key) - number(&before, part, key);
        assert!(written >= f64::from(16 << 20), "{part} {key}: {written}");
    }
    assert!(
        number(&before, "guest", "disk_free_bytes") > number(&after, "guest", "disk_free_bytes"),
        "{after}"
    );
    assert!(number(&after, "guest", "memory_bytes") < f64::from(512 << 20), "{after}");
    rig.sh("dev", "kill $(cat /busy); rm /big");
    rig.until("the guest is seen to be idle", || busy("cpu_percent") < 30.0);
    let table = rig.ok("vm stats");
    assert!(table.lines().count() == 2 && table.contains("MiB / "), "{table}");
    let row = rig.ok("ps").lines().find(|line| line.contains("  dev  ")).map(str::to_owned).expect("a row");
    assert!(row.ends_with(" seconds") || row.ends_with(" minutes") || row.ends_with(" minute"), "{row}");
}

/// A plain web server, one of TLS, and what is neither.
fn web_servers(rig: &Rig) {
    let bring = |from: &str, to: &str| {
        let from = std::fs::canonicalize(from).expect("is there");
        rig.ok_args(&["vm", "cp", from.to_str().expect("UTF-8"), &format!("dev:{to}")]);
    };
    bring("/bin/busybox", "/bin/busybox");
    bring("/usr/bin/openssl", "/bin/openssl");
    let pem = rig.path().join("pem");
    let key = ["-keyout", "-", "-out", "-", "-nodes", "-subj", "/CN=localhost"];
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(key)
        .output()
        .expect("runs openssl");
    std::fs::write(&pem, made.stdout).expect("writes");
    bring(pem.to_str().expect("UTF-8"), "/tmp/pem");
    let linked = Command::new("ldd").arg("/usr/bin/openssl").output().expect("runs ldd");
    let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
    rig.sh("dev", "mkdir -p /lib/tls /www && echo hello >/www/index.html");
    for library in linked.lines().filter_map(|line| line.split_once(" => ")?.1.split(' ').next()) {
        if library.contains("libssl") || library.contains("libcrypto") || library.contains("libz") {
            bring(library, &format!("/lib/tls/{}", library.rsplit('/').next().expect("a name")));
        }
    }
    rig.sh(
        "dev",
        "export LD_LIBRARY_PATH=/lib/tls; cd /tmp
         openssl s_server -accept 127.0.0.1:443 -key pem -cert pem -www >/dev/null 2>&1 &
         busybox httpd -p 80 -h /www
         busybox nc -ll -p 22 -e busybox echo SSH-2.0-x >/dev/null 2>&1 &
         busybox nc -ll -p 7 -e busybox cat >/dev/null 2>&1 &",
    );
    rig.until("all of them listen", || {
        rig.json("vm ports dev --no-probe --json").as_array().map(Vec::len) == Some(4)
    });
    let ports = rig.json("vm ports dev --json");
    let scheme = |port: u64| {
        let all = ports.as_array().expect("a list");
        all.iter().find(|p| p["port"] == port).expect("is there")["scheme"].clone()
    };
    assert_eq!(
        [7, 22, 80, 443].map(scheme),
        [Value::Null, Value::Null, "http".into(), "https".into()],
        "{ports}"
    );
}

/// The console's lines since a time.
fn logs(rig: &Rig) {
    rig.sh("dev", "echo early >/dev/console");
    std::thread::sleep(Duration::from_millis(2500));
    let now = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%NZ"]).output().expect("runs date");
    let now = String::from_utf8_lossy(&now.stdout).trim().to_owned();
    rig.sh("dev", "echo late >/dev/console; echo latest >/dev/console");
    let shown = |args: &str| rig.ok(&format!("vm logs dev {args}")).replace('\r', "");
    rig.until("the last line is there", || shown("").ends_with("latest\n"));
    assert!(shown("").contains("early\nlate\nlatest\n"));
    assert_eq!(shown(&format!("--since {now}")), "late\nlatest\n");
    assert_eq!(shown("-n 1"), "latest\n");
    assert!(shown("--since 1h").contains("early\n"));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(shown("--since 100ms"), "");
}

/// The table in a real terminal, a shell from it, and back.
fn top(rig: &Rig) {
    let tmux = Tmux { rig };
    tmux.start(150, 20, "top");
    tmux.until("both VMs are shown, and what one of them uses", |screen| {
        let row = screen.lines().find(|line| line.starts_with("> dev")).unwrap_or_default();
        row.contains("running")
            && row.contains(" %  ")
            && row.contains("MiB / ")
            && screen.contains("  web   stopped")
    });
    tmux.keys(&["e"]);
    tmux.until("a shell has the terminal", |screen| {
        screen.contains(":/#") && !screen.contains("NAME  STATE")
    });
    tmux.keys(&["echo in''side; exit 5", "Enter"]);
    tmux.until("the table is back", |screen| screen.contains("> dev") && !screen.contains("inside"));
    tmux.keys(&["l"]);
    tmux.until("the console is shown", |screen| {
        screen.contains("latest") && screen.contains("console of dev")
    });
    rig.sh("dev", "printf 'a\\033[2Jb\\n' >/dev/console");
    tmux.until("it is followed, and harmless", |screen| screen.contains("a\\x1b[2Jb"));
    tmux.keys(&["q", "Down"]);
    tmux.until("the other VM is selected", |screen| screen.contains("> web"));
    tmux.run(&["resize-window", "-x", "30", "-y", "5"]);
    tmux.until("it fits", |screen| screen.contains("> web") && !screen.contains("MEMORY"));
    tmux.keys(&["q"]);
    let left = tmux.until("it ends", |screen| screen.contains("ended with 0"));
    assert!(!left.contains("STATE"), "the screen is as it was before:\n{left}");
}

/// A VMM that stands still answers nobody, and holds up nobody.
fn hung(rig: &Rig) {
    let vmm = rig.vmm_pid("dev");
    signal(vmm, "STOP");
    let begun = Instant::now();
    let said = rig.refused("vm ping dev --timeout 500ms");
    assert!(said.contains("vm dev does not answer"), "{said}");
    let stats = rig.ok("vm stats");
    assert!(stats.lines().nth(1).is_some_and(|row| row.starts_with("dev   -  ")), "{stats}");
    let health = rig.banger("vm health dev");
    assert_eq!(health.status, 1, "{health:?}");
    assert!(
        health.stdout.contains(&format!("FAIL  vmm    process {vmm} is stopped; `kill -CONT {vmm}`")),
        "{health:?}"
    );
    assert!(health.stdout.contains("FAIL  agent  "), "{health:?}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    signal(vmm, "CONT");
    rig.ok("vm ping dev --timeout 60s");
}
