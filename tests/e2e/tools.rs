//! The tools that a work tree asks for, installed by a guest's mise.
//!
//! The mise here is a stand-in, which does what was seen of mise 2026.9 as far as banger sees it: it believes no tree before it is told to,
//! asks on a terminal and fails elsewhere, and puts each tool in a directory of its own and a shim beside it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::rig::{Rig, part};
use crate::terminal::Terminal;

const MISE: &str = r#"#!/bin/sh
data=$HOME/.local/share/mise trusted=$HOME/.local/state/mise/trusted-configs
error() { printf 'mise ERROR %s\n' "$1" "Version: 2026.9.15 linux-x64 (2026-09-27)" >&2; exit 1; }
believe() {
    [ "$MISE_TRUSTED_CONFIG_PATHS" = / ] || [ -e "$trusted" ] && return
    if [ -t 0 ]; then echo "mise config files in $PWD are not trusted. Trust them?" >&2; read -r _; fi
    error "Config files in $PWD/.mise.toml are not trusted."
}
version=$(sed -n 's/^tool = "\(.*\)"/\1/p' .mise.toml 2>/dev/null) dir=$data/installs/tool/$version/bin
case "$1 $2 $3" in
"trust --yes "*) mkdir -p "${trusted%/*}" && echo "$PWD" >"$trusted"; echo "mise trusted $PWD" >&2 ;;
"install --yes "*)
    believe
    echo "mise by @jdx – installing 1 tool" >&2
    wget -q -O /tmp/tool "http://10.0.2.2:$(cat port)/$version/tool" || error "Failed to install tool@$version"
    mkdir -p "$dir" "$data/shims" && mv /tmp/tool "$dir/tool" && chmod +x "$dir/tool" && cp "$dir/tool" "$data/shims/tool"
    echo "mise ✓ tool@$version" >&2 ;;
"env -s bash")
    believe
    [ -d "$dir" ] && PATH=$dir:$PATH
    echo "export GREETING='it'\\''s mise'"; echo "export PATH='$PATH'" ;;
*) error "$*" ;;
esac
"#;

/// The image `tools`: busybox with a mise at `path`.
fn image(rig: &Rig, path: &str) {
    let root = rig.path().join("image");
    let file = root.join(path);
    fs::create_dir_all(file.parent().expect("a directory")).expect("makes");
    fs::write(&file, MISE).expect("writes");
    let tar = rig.path().join("tools.tar");
    fs::copy(part("busybox.tar"), &tar).expect("copies");
    let script = "chmod -R 755 \"$1\" && tar --owner=0 --group=0 -rf \"$2\" -C \"$1\" .";
    let made = Command::new("sh").args(["-c", script, "sh"]).args([&root, &tar]).status().expect("runs");
    assert!(made.success());
    rig.ok_args(&["image", "import", tar.to_str().expect("text"), "--name", "tools"]);
}

/// A repository that asks for `version` of the tool, from the server at `port`.
fn repository(dir: &Path, name: &str, version: &str, port: u16) -> String {
    let repo = dir.join(name);
    fs::create_dir(&repo).expect("makes");
    fs::write(repo.join(".mise.toml"), format!("[tools]\ntool = \"{version}\"\n")).expect("writes");
    fs::write(repo.join("port"), port.to_string()).expect("writes");
    for words in [&["init", "-q"][..], &["add", "."], &["commit", "-q", "-m", "tools"]] {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@b"];
        let git =
            Command::new("git").current_dir(&repo).args(identity).args(words).status().expect("runs git");
        assert!(git.success());
    }
    repo.to_str().expect("text").to_owned()
}

/// A web server on 127.0.0.1 that has version 1.2.3 of the tool.
pub fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("has one").port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut asked = String::new();
            let mut lines = BufReader::new(&client);
            while lines.read_line(&mut asked).expect("reads") > 2 {}
            let tool = "#!/bin/sh\necho tool $PWD \"$@\"\n";
            let answer = match asked.starts_with("GET /1.2.3/tool ") {
                true => format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{tool}", tool.len()),
                false => "HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            };
            client.write_all(answer.as_bytes()).expect("writes");
        }
    });
    port
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn the_tools_of_a_work_tree_are_installed_and_found() {
    let rig = Rig::new();
    image(&rig, "usr/local/bin/mise");
    let port = server();
    let good = repository(rig.path(), "good", "1.2.3", port);
    let bad = repository(rig.path(), "bad", "9.9.9", port);
    let run = |name: &str, words: &[&str], tree: &str| {
        rig.args(&[&["vm", "run", "-d", "--image", "tools", "--name", name], words, &[tree]].concat())
    };

    let refused = run("dev", &[], &good);
    assert!(refused.status == 1 && refused.stderr.contains("--nat gives the VM a way there"), "{refused:#?}");
    assert_eq!(rig.ok("vm list -q"), "", "and there is no VM");

    let log = "/root/.cache/banger/vm-run-tooling-good.log";
    let ran = run("dev", &["--nat"], &good);
    let want = format!("\nthe tools of /root/good are installed; {log} in the guest has the log\n");
    assert!(ran.status == 0 && ran.stdout == "dev\n" && ran.stderr.contains(&want), "{ran:#?}");
    let logged = rig.ok(&format!("vm exec dev -- cat {log}"));
    assert!(logged.contains("installing 1 tool") && logged.ends_with("mise ✓ tool@1.2.3\n"), "{logged}");
    assert_eq!(rig.ok("vm exec dev -- tool a"), "tool /root/good a\n");
    assert_eq!(rig.sh("dev", "echo $GREETING"), "it's mise\n");
    // What is installed while a shell is open is found in it: here it was away when the shell began.
    let script = "mv /root/.local/share/mise/installs /root/.local/share/mise/shims /tmp";
    rig.sh("dev", script);
    let back =
        rig.feed(&["vm", "exec", "dev"], b"tool 1; mv /tmp/shims /root/.local/share/mise; tool 2; exit\n");
    let said = String::from_utf8_lossy(&back.stdout);
    assert!(said.contains("tool /root/good 2") && !said.contains("good 1"), "{back:?}");

    let ran = run("bad", &["--nat"], &bad);
    let log = "/root/.cache/banger/vm-run-tooling-bad.log";
    let want = format!("\nthe tools of /root/bad could not be installed; {log} in the guest says why\n");
    assert!(ran.status == 0 && ran.stdout == "bad\n" && ran.stderr.contains(&want), "{ran:#?}");
    assert!(rig.ok(&format!("vm exec bad -- cat {log}")).contains("mise ERROR Failed to install tool@9.9.9"));
    assert_eq!(rig.banger("vm exec bad -- tool").status, 127);

    // As after --no-bootstrap, when nobody has told mise to trust the tree; and with mise where its own installer puts it.
    let untrust =
        "rm -r /root/.local/state && mkdir -p /root/.local/bin && mv /usr/local/bin/mise /root/.local/bin";
    rig.sh("bad", untrust);
    let end = rig.args(&["vm", "exec", "bad", "--", "sh", "-c", "echo $GREETING"]);
    assert_eq!((end.status, end.stdout.as_str(), end.stderr.as_str()), (0, "it's mise\n", ""));
    let mut terminal = Terminal::run(&rig, &["vm", "exec", "-t", "bad", "--", "echo", "not", "asked"]);
    terminal.shows("not asked");
    assert!(terminal.child.wait().expect("ends").success());
}
