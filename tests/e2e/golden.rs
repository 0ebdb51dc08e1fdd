//! The golden image (tests/images/golden.sh): a Debian to develop in.

use std::process::Command;

use crate::rig::{Rig, part};

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn the_golden_image_has_every_service_up_and_docker_keeps_its_own_on_the_root_disk() {
    let rig = Rig::new();
    rig.ok("vm run -q -d --name dev --image golden --vcpu 2 --memory 1G");
    rig.until("systemd can be asked", || {
        !["", "offline\n"].contains(&rig.banger("vm exec dev -- systemctl is-system-running").stdout.as_str())
    });
    let state = rig.banger("vm exec dev -- systemctl is-system-running --wait").stdout;
    assert_eq!(rig.ok("vm exec dev -- systemctl list-units --failed --plain --no-legend"), "");
    assert_eq!(state, "running\n");
    let units =
        "multi-user.target ssh.service docker.service containerd.service dbus.service systemd-udevd.service";
    assert_eq!(rig.ok(&format!("vm exec dev -- systemctl is-active {units}")), "active\n".repeat(6));

    // sshd answers, with a key that this machine has made for itself.
    let banner = rig.ok_args(&["vm", "exec", "dev", "--", "bash", "-c", "head -n 1 </dev/tcp/127.0.0.1/22"]);
    assert!(banner.starts_with("SSH-2.0-OpenSSH"), "{banner}");
    assert_eq!(rig.sh("dev", "ls /etc/ssh/ssh_host_*_key"), "/etc/ssh/ssh_host_ed25519_key\n");

    // And ssh goes in beside it.
    assert_eq!(rig.ok("vm ssh dev -- systemctl is-active ssh.service"), "active\n");

    assert_eq!(
        rig.ok_args(&["vm", "exec", "dev", "--", "docker", "info", "-f", "{{.Driver}} {{.DockerRootDir}}"]),
        "overlay2 /var/lib/docker\n"
    );
    assert_eq!(rig.sh("dev", "findmnt -n -o TARGET,FSTYPE -T /var/lib/docker | tr -s ' '"), "/ ext4\n");
    let tar = std::fs::read(part("busybox.tar")).expect("reads");
    let imported = rig.feed(&["vm", "exec", "-i", "dev", "--", "docker", "import", "-", "busybox"], &tar);
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let said = rig.sh("dev", "docker run --rm busybox sh -c 'id; ip -o -4 addr'");
    assert!(said.starts_with("uid=0(root) gid=0(root)") && said.contains(" 172.17.0.2/16 "), "{said}");
    // A published port goes by way of the bridge and the firewall's rules.
    rig.ok("vm exec dev -- docker run -d -p 8080:80 busybox httpd -f -h /etc");
    rig.until("the container answers", || {
        rig.banger("vm exec dev -- curl -s 127.0.0.1:8080/group").stdout.starts_with("root:x:0:")
    });

    let script = "cd /tmp && echo 'int main(void) { return 7; }' >x.c && make -s x && { ./x; echo $?; } && \
                  git init -q repo && echo '{\"a\": [1, 2]}' | jq -c .a && tmux -V | cut -c1-4 && bash -lc 'echo $LANG'";
    assert_eq!(rig.sh("dev", script), "7\n[1,2]\ntmux\nC.UTF-8\n");
    assert_eq!(rig.sh("dev", "hostname && getent hosts dev >/dev/null"), "dev\n");
    assert_eq!(rig.sh("dev", "awk -F: '$2 !~ /^[!*]/' /etc/shadow"), "", "nobody has a password");
}

#[test]
#[ignore = "needs the parts made by tests/run.sh"]
fn the_golden_image_holds_nothing_of_the_machine_that_made_it() {
    let out = Command::new("tar").arg("-tvf").arg(part("golden.tar")).output().expect("runs tar");
    let listed = String::from_utf8_lossy(&out.stdout);
    let of = |path: &str| listed.lines().filter(|line| line.contains(path)).collect::<Vec<_>>();
    assert_eq!(of(" ./etc/ssh/ssh_host_"), [""; 0]);
    assert_eq!(of(" ./etc/resolv.conf"), [""; 0]);
    let machine_id = of(" ./etc/machine-id");
    assert_eq!(machine_id.len(), 1);
    assert_eq!(machine_id[0].split_whitespace().nth(2), Some("0"), "{machine_id:?}");
    for place in [" ./var/lib/apt/lists/", " ./var/cache/apt/", " ./var/log/"] {
        let empty = |line: &&str| line.starts_with('d') || line.ends_with("/lock") || line.contains(" -> ");
        assert!(of(place).iter().all(empty), "{:?}", of(place));
    }
}
