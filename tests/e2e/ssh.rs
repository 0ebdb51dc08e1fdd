//! ssh into VMs over vsock, with OpenSSH's own programs: no VM here has a network that leads to it.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::rig::{Ended, PATIENCE, Rig, ended};
use crate::terminal::Terminal;
use crate::tools::server;

/// A user of ssh on this rig's host, with a home of their own.
struct User<'a> {
    rig: &'a Rig,
    home: PathBuf,
}

impl<'a> User<'a> {
    fn new(rig: &'a Rig) -> Self {
        let home = rig.path().join("a home");
        fs::create_dir(&home).expect("makes it");
        fs::create_dir(home.join(".ssh")).expect("makes it");
        fs::write(home.join(".ssh/config"), b"# caf\xe9\nHost *\n    LogLevel ERROR\n").expect("writes");
        Self { rig, home }
    }

    fn path(&self, name: &str) -> String {
        self.home.join(name).to_str().expect("UTF-8").to_owned()
    }

    /// ssh finds its configuration by the user database, not by HOME.
    fn ssh(&self) -> String {
        format!("ssh -F '{}'", self.path(".ssh/config"))
    }

    /// Runs a line of shell, in which `$ssh` is ssh with this user's configuration, and `$banger` is banger.
    fn sh(&self, line: &str) -> Ended {
        ended(self.command(line).output().expect("runs sh"))
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE.as_secs().to_string()).args(["sh", "-c", line]).current_dir(&self.home);
        command
            .env("HOME", &self.home)
            .env("BANGER_ROOT", self.rig.path())
            .env("banger", crate::rig::binary());
        command
            .env("ssh", self.ssh())
            .env("GIT_SSH_COMMAND", self.ssh())
            .env("config", self.path(".ssh/config"));
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").stdin(Stdio::null());
        command
    }

    fn ok(&self, line: &str) -> String {
        let end = self.sh(line);
        assert_eq!(end.status, 0, "{line}: {end:#?}");
        end.stdout
    }

    fn known_hosts(&self) -> String {
        fs::read_to_string(self.rig.state("ssh/known_hosts")).expect("is there")
    }
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn ssh_scp_rsync_and_git_go_into_a_vm_that_has_no_network() {
    let rig = Rig::new();
    let user = User::new(&rig);
    rig.ok("vm run -q -d --name dev --image sshd");

    // Words arrive as they were typed, the status is the command's, and bytes are bytes.
    let words = ["vm", "ssh", "dev", "--", "printf", r"%s\n", "a b", "it's", "$HOME", "", "*", "\n"];
    assert_eq!(rig.ok_args(&words), "a b\nit's\n$HOME\n\n*\n\n\n");
    assert_eq!(rig.args(&["vm", "ssh", "dev", "--", "sh", "-c", "exit 7"]).status, 7);
    let bytes: Vec<u8> = (0..600_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let echoed = rig.feed(&["vm", "ssh", "dev", "--", "cat"], &bytes);
    assert!(echoed.status.success() && echoed.stdout == bytes, "{}", String::from_utf8_lossy(&echoed.stderr));

    // What the image's own sshd would let in makes no difference, and it need not run.
    let forbid = "printf 'PermitRootLogin no\\nAllowTcpForwarding no\\n' >/etc/ssh/sshd_config.d/0.conf; useradd -m -s /bin/bash app";
    rig.sh("dev", forbid);
    let before = fs::read(user.home.join(".ssh/config")).expect("reads");
    user.ok("$banger ssh-config --install");
    assert_eq!(user.ok("eval $ssh dev.vm hostname"), "dev\n");
    assert_eq!(user.ok("eval $ssh app@dev.vm id -un"), "app\n");

    user.ok("head -c 3000000 /dev/urandom >big && scp -qF \"$config\" big dev.vm:/root/ && scp -qF \"$config\" dev.vm:big back && cmp big back");
    let rsync = "mkdir -p tree/a && ln -s x tree/l && echo 1 >tree/a/f && rsync -ae \"$ssh\" tree/ dev.vm:tree/ && \
                 rsync -ae \"$ssh\" dev.vm:tree/ returned/ && diff -r --no-dereference tree returned";
    user.ok(rsync);
    let git = "git init -q -b main repo && cd repo && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first && \
               eval $ssh dev.vm git init -q --bare -b main work && git push -q dev.vm:/root/work main && \
               git clone -q dev.vm:/root/work ../cloned && git -C ../cloned log --format=%s";
    assert_eq!(user.ok(git), "first\n");
    let agent = "ssh-keygen -q -t ed25519 -N '' -f mine && eval $(ssh-agent) >agent && ssh-add -q mine && \
                 $banger vm ssh dev -A -- ssh-add -l; $banger vm ssh dev -- ssh-add -l 2>&1; ssh-agent -k >agent";
    let agents = user.ok(agent);
    let lines: Vec<&str> = agents.lines().collect();
    assert!(lines.len() == 2 && lines[0].ends_with("(ED25519)"), "{agents}");
    assert!(lines[1].starts_with("Could not open a connection"), "{agents}");

    what_editors_do(&rig, &user);

    // However a connection ends, nothing of it is left in the guest.
    let mut killed = Command::new("ssh");
    killed.env("BANGER_ROOT", rig.path()).args(["-F", &user.path(".ssh/config"), "dev.vm", "sleep", "1000"]);
    let mut killed = killed.stdin(Stdio::null()).spawn().expect("runs ssh");
    rig.until("it is connected", || rig.banger("vm exec dev -- pgrep -x sleep").status == 0);
    killed.kill().expect("kills");
    killed.wait().expect("is gone");
    rig.until("the guest's side has ended", || rig.banger("vm exec dev -- pgrep -c sshd").stdout == "0\n");

    let mut open = user
        .command("eval $ssh dev.vm \"'echo begun; exec sleep 1000'\" 2>said >begun")
        .spawn()
        .expect("runs ssh");
    rig.until("it is connected", || fs::read(user.home.join("begun")).is_ok_and(|said| said == b"begun\n"));

    // Another key of the same VM is refused by ssh itself.
    let id = rig.json("vm show dev --json")["id"].as_str().expect("an id").to_owned();
    let pinned = user.known_hosts();
    assert!(pinned.starts_with("dev.vm,") && pinned.lines().count() == 1 && pinned.contains(&id), "{pinned}");
    rig.sh("dev", "rm /var/lib/banger/ssh_host*");
    let refused = user.sh("eval $ssh dev.vm true");
    assert!(refused.status == 255 && refused.stderr.contains("Host key verification failed"), "{refused:#?}");
    assert_eq!(user.known_hosts(), pinned);

    rig.ok("vm kill dev");
    assert_eq!(open.wait().expect("ends").code(), Some(255));
    let said = fs::read_to_string(user.home.join("said")).expect("reads");
    assert!(said.starts_with("banger: the connection to the guest ended before the command did; "), "{said}");
    let end = user.sh("eval $ssh dev.vm true");
    assert!(
        end.status == 255 && end.stderr.contains("banger: ") && end.stderr.contains("vm start dev"),
        "{end:#?}"
    );
    assert_eq!(rig.refused("vm ssh dev"), "banger: VM dev does not run; `banger vm start dev` starts it");

    // A new VM of the same name has nothing to do with the old one.
    rig.ok("vm delete dev");
    assert_eq!(user.known_hosts(), "");
    rig.ok("vm run -q -d --name dev --image sshd");
    assert_eq!(user.ok("eval $ssh dev.vm hostname"), "dev\n");

    user.ok("$banger ssh-config --uninstall");
    assert_eq!(fs::read(user.home.join(".ssh/config")).expect("reads"), before);
    assert!(!rig.path().join("config/ssh_config").exists());
}

/// Forwards ports in every way, shares one connection among many sessions, and speaks to shells and file servers in it: VS Code runs its
/// server by a script on a shell's stdin, with -T and -D; JetBrains and vim have sftp and scp; TRAMP wants -tt and shared connections.
fn what_editors_do(rig: &Rig, user: &User<'_>) {
    // From here into the guest, and from there to here again.
    let (port, [local, socks]) = (server(), free_ports());
    let master = format!(
        "eval $ssh -fMNS master -o ExitOnForwardFailure=yes -D {socks} -L {local}:localhost:7002 -R 7002:127.0.0.1:{port} dev.vm"
    );
    user.ok(&format!("{master} >master.log 2>&1"));
    for way in [
        format!("http://127.0.0.1:{local}"),
        format!("--socks5-hostname 127.0.0.1:{socks} http://localhost:7002"),
    ] {
        assert!(user.ok(&format!("curl -sS {way}/1.2.3/tool")).starts_with("#!/bin/sh\n"), "{way}");
    }
    let script = "printf 'uname -s\nread -r line\nthis is read\necho \"$line\"\nexit 3\n' | eval $ssh -S master -T dev.vm bash";
    let end = user.sh(script);
    assert_eq!((end.status, end.stdout.as_str()), (3, "Linux\nthis is read\n"), "{end:#?}");
    let many = "for n in 1 2 3 4 5 6 7 8; do eval $ssh -S master dev.vm \"'sleep 1; echo $n'\" & done; wait";
    let mut said: Vec<String> = user.ok(many).lines().map(str::to_owned).collect();
    said.sort();
    assert_eq!(said.concat(), "12345678");
    let files = "head -c 1000000 big >part && printf 'mkdir d\nput part d/f\nrename d/f d/g\nget d/g got\nrm d/g\nrmdir d\n' >batch && \
                 sftp -q -F \"$config\" -o ControlPath=master -b batch dev.vm >batch.log && cmp part got && \
                 scp -qOF \"$config\" -o ControlPath=master part dev.vm:old";
    user.ok(files);
    // Both ways at once, over two connections.
    let both = "scp -qF \"$config\" part dev.vm:new & scp -qF \"$config\" -o ControlPath=master dev.vm:old new; wait; cmp part new && \
                sha256sum <part && eval $ssh -S master dev.vm \"'sha256sum <new'\"";
    let sums = user.ok(both);
    let sums: Vec<&str> = sums.lines().collect();
    assert!(sums.len() == 2 && sums[0] == sums[1], "{sums:?}");
    user.ok("eval $ssh -S master -O exit dev.vm 2>exit.log");

    let mut terminal = Terminal::run(rig, &["vm", "ssh", "-t", "dev", "--", "sh"]);
    terminal.shows("# ");
    terminal.type_in("stty size\n");
    terminal.shows("30 100");
    terminal.resize(20, 70);
    terminal.type_in("stty size\n");
    terminal.shows("20 70");
    terminal.type_in("exit 5\n");
    assert_eq!(terminal.child.wait().expect("ends").code(), Some(5));
    assert!(terminal.is_cooked());

    // The work tree's commits, as the help has it.
    rig.ok_args(&["vm", "workspace", "prepare", "-q", "dev", &user.path("repo")]);
    rig.sh("dev", "cd /root/repo && git commit -q --allow-empty -m guest");
    let fetched = "cd repo && git fetch -q dev.vm:/root/repo main && git log --format=%s -1 FETCH_HEAD";
    assert_eq!(user.ok(fetched), "guest\n");
}

/// Two ports of 127.0.0.1 that nobody listens on.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("binds"));
    listeners.map(|listener| listener.local_addr().expect("has one").port())
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn an_image_without_sshd_is_told_apart_and_what_needs_none_is_offered() {
    let rig = Rig::new();
    rig.ok("vm run -q -d --name plain --image busybox");
    rig.ok("vm run -q -d --name bare --image scratch");
    for vm in ["plain", "bare"] {
        let end = rig.banger(&format!("vm ssh {vm} -- true"));
        assert_eq!(end.status, 255, "{end:#?}");
        let want = format!(
            "banger: VM {vm} has no sshd of OpenSSH, which ssh needs; `banger vm shell {vm}` and `banger vm exec {vm} -- COMMAND` need nothing in the image\n"
        );
        assert!(end.stderr.starts_with(&want), "{end:#?}");
    }
    // Something that is no sshd but is called so is no reason to wait, and its words reach no terminal as they are.
    rig.sh("plain", "mkdir -p /usr/sbin; printf '#!/bin/sh\\nprintf \"\\\\033[2Jno\\\\n\" >&2\\n' >/usr/sbin/sshd; chmod +x /usr/sbin/sshd");
    rig.sh("plain", "printf '#!/bin/sh\\necho ssh-ed25519 AAAA >/var/lib/banger/ssh_host_ed25519_key.pub\\nexit 1\\n' >/bin/ssh-keygen; chmod +x /bin/ssh-keygen");
    let end = rig.banger("vm ssh plain -- true");
    assert!(
        end.status == 255 && end.stderr.starts_with("banger: VM plain cannot start its sshd: ssh-keygen"),
        "{end:#?}"
    );
    rig.sh("plain", "mkdir -p /var/lib/banger; echo x >/var/lib/banger/ssh_host_ed25519_key");
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOM4+kO9p8ZzEgbjFiYtXwxJ+4cXIdQCSuOoLjTkVQPB";
    rig.sh("plain", &format!("echo {key} >/var/lib/banger/ssh_host_ed25519_key.pub"));
    let end = rig.banger("vm ssh plain -- true");
    assert!(end.stderr.contains(r"the last line of its log: \x1b[2Jno"), "{end:#?}");
    assert!(!end.stderr.contains('\x1b'), "{end:#?}");
}
