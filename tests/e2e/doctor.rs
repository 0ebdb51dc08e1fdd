//! `banger doctor` on hosts that somebody has broken, and its probe, with real guests.

use std::io::Read;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::rig::{Ended, Rig, ended, signal};
use crate::world::World;

/// What the doctor found of `subject`: verdict, what was found, advice.
fn row(rows: &Value, subject: &str) -> (String, String) {
    let rows = rows.as_array().expect("rows");
    let row = rows
        .iter()
        .find(|row| row["subject"] == subject)
        .unwrap_or_else(|| panic!("no {subject} in {rows:?}"));
    let word = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    (word("verdict"), format!("{} => {}", word("found"), word("advice")))
}

/// Runs the doctor; its exit status must be that of its rows.
fn doctor(rig: &Rig, words: &str) -> (Value, Ended) {
    let end = rig.banger(&format!("doctor --json {words}"));
    let rows: Value = serde_json::from_str(&end.stdout).unwrap_or_else(|e| panic!("{e}: {end:?}"));
    let fails = rows.as_array().expect("rows").iter().any(|row| row["verdict"] == "fail");
    assert_eq!(end.status, i32::from(fails), "{end:?}");
    (rows, end)
}

fn assert_row(rig: &Rig, words: &str, subject: &str, verdict: &str, with: &str) {
    let (rows, end) = doctor(rig, words);
    let (has, text) = row(&rows, subject);
    assert!(has == verdict && text.contains(with), "{subject}: {has} {text}\n{end:?}");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_probe_goes_from_a_vms_beginning_to_its_end_and_leaves_nothing() {
    let mut world = World::new();
    // As a host does whose dnsmasq was told where names of VMs are.
    world.spawn(
        "h",
        "exec dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces --pid-file= \
         --listen-address=127.0.0.1 --server=/vm/127.0.0.1#42069",
    );
    let rig = Rig::on_a_bridge(&world.host()).with_resolv_conf("nameserver 127.0.0.1\n");
    let (rows, end) = doctor(&rig, "--probe");
    for subject in ["bridge", "firewall", "forwarding", "dns", "resolver", "probe"] {
        assert_eq!(row(&rows, subject).0, "pass", "{subject}: {end:?}");
    }
    let (_, found) = row(&rows, "probe");
    for what in ["a VM in ", "a command in ", "its address in ", "its name in ", "deleted in "] {
        assert!(found.contains(what), "{found}");
    }
    rig.assert_no_vm_is_left();
    // Names that go elsewhere are a host's own choice, and no failure.
    let rig = Rig::on_a_bridge(&world.host()).with_resolv_conf("nameserver 127.0.0.9\n");
    world.run("h", "ip link delete br-banger; nft delete table inet banger; nft delete table bridge banger");
    let (rows, end) = doctor(&rig, "--probe");
    assert_eq!(
        (row(&rows, "resolver").0, row(&rows, "probe").0),
        ("warn".to_owned(), "pass".to_owned()),
        "{end:?}"
    );
    assert!(!row(&rows, "probe").1.contains("its name"), "{rows}");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_probe_in_a_user_mode_network_tells_what_there_is() {
    let rig = Rig::new();
    let (rows, _) = doctor(&rig, "--probe");
    let (verdict, found) = row(&rows, "probe");
    assert_eq!(verdict, "pass", "{found}");
    assert!(found.contains("a command in ") && !found.contains("its address"), "{found}");
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_probe_that_fails_names_the_stage_and_leaves_nothing() {
    let rig = Rig::empty();
    let image = crate::rig::part("busybox.tar");
    rig.ok_args(&["image", "import", image.to_str().expect("UTF-8"), "--name", "busybox"]);
    assert_row(&rig, "--probe", "probe", "fail", "create: there is no kernel yet");
    assert_row(&rig, "", "kernel", "fail", "VMs do not start without one");

    let world = World::new();
    let rig = Rig::on_a_bridge(&world.host());
    // All is well by itself, and another firewall keeps this host from its guests.
    world.run(
        "h",
        "nft 'table inet other { chain out { type filter hook output priority 0; ip daddr 172.16.0.0/24 drop; }; }'",
    );
    let (rows, end) = doctor(&rig, "--probe");
    let (verdict, text) = row(&rows, "probe");
    assert!(verdict == "fail" && text.starts_with("address: 172.16.0."), "{end:?}");
    for subject in ["bridge", "firewall", "forwarding"] {
        assert_eq!(row(&rows, subject).0, "pass", "{end:?}");
    }
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_probe_that_is_interrupted_or_killed_leaves_nothing() {
    let rig = Rig::new();
    for (name, status) in [("INT", 130), ("TERM", 143), ("KILL", 137)] {
        let probe = rig.spawn(&["doctor", "--probe", "--json"]);
        rig.until("it boots", || {
            let vms = rig.json("vm list --json");
            vms.as_array().is_some_and(|vms| vms.iter().any(|vm| vm["state"] == "starting"))
        });
        signal(probe.id(), name);
        let end = ended(probe.wait_with_output().expect("ends"));
        assert_eq!((end.status, end.stdout.as_str()), (status, ""), "{name}: {end:?}");
        rig.until("the VM is gone", || rig.json("vm list --json") == Value::Array(vec![]));
        rig.assert_no_vm_is_left();
    }
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn what_others_break_is_found_and_mended() {
    let world = World::new();
    // Whose servers refuse at once what a silent one would be waited for.
    let rig = Rig::on_a_bridge(&world.host()).with_resolv_conf("nameserver 127.0.0.9\n");
    rig.ok("vm run -d --name dev --image busybox --nat");
    let address = rig.json("vm show --json dev")["address"].as_str().expect("an address").to_owned();
    // Whoever keeps the firewall misses what is gone of it before anybody asks.
    for (line, mended) in [
        ("nft flush table bridge banger", "nft list chain bridge banger from_guest | grep -q drop"),
        (
            "nft insert rule inet banger input accept",
            "! nft list chain inet banger input | grep -qx '[[:space:]]*accept'",
        ),
    ] {
        world.run("h", line);
        world.run("h", &format!("for i in $(seq 100); do {mended} && exit 0; sleep 0.1; done; exit 1"));
        assert_row(&rig, "", "firewall", "pass", "");
        world.run("h", &format!("ping -c 1 -W 5 {address}"));
    }
    let table = [
        ("bridge", "ip link delete br-banger", "it is gone (1 VM)"),
        ("forwarding", "echo 0 > /proc/sys/net/ipv4/ip_forward", "this host forwards no packets"),
    ];
    for (subject, line, found) in table {
        assert_row(&rig, "", subject, "pass", "");
        world.run("h", line);
        assert_row(&rig, "", subject, "fail", found);
        let (rows, end) = doctor(&rig, "--fix");
        assert_eq!(row(&rows, subject).0, "pass", "{line}: {end:?}");
        assert!(end.stderr.contains("fixed: the bridge, its firewall and the forwarding"), "{end:?}");
        world.run("h", &format!("ping -c 1 -W 5 {address}"));
    }
    // What was there before is left alone, and what cannot be mended is said.
    let (_, end) = doctor(&rig, "--fix");
    assert_eq!(end.stderr, "there is nothing here that --fix mends\n");
    world.run("h", "ip link set $(ip -o link show master br-banger | cut -d: -f2 | tr -d ' ') nomaster");
    assert_row(&rig, "--fix", "bridge", "fail", "1 of 1 VMs are no port of it");
    rig.ok("vm restart dev");
    assert_row(&rig, "", "bridge", "pass", "1 VMs");
    rig.ok("vm delete dev");
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_bridge_that_is_somebody_elses_is_named() {
    let world = World::new();
    let rig = Rig::on_a_bridge(&world.host());
    world.run("h", "ip link add br-banger type bridge");
    assert_row(&rig, "", "bridge", "fail", "there is a link br-banger that is not banger's");
    assert_row(&rig, "--probe", "probe", "fail", "start: ");
    rig.assert_no_vm_is_left();
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn an_owner_whose_helper_is_gone_or_hangs_is_told() {
    let world = World::new();
    let rig = Rig::of_an_owner(&world.host());
    let mut helper = rig.helper("");
    assert_row(&rig, "", "root helper", "pass", "version ");
    signal(helper.id(), "KILL");
    helper.wait().expect("ends");
    // The socket is there, and nobody listens.
    assert_row(&rig, "", "root helper", "fail", "cannot speak to bangerd-root");
    let (rows, end) = doctor(&rig, "--fix");
    assert!(end.stderr.contains("run `sudo banger doctor --fix`"), "{end:?}");
    assert_eq!(row(&rows, "sockets").0, "fail", "{end:?}");
    std::fs::remove_file(rig.path().join("run-root/bangerd-root.sock")).expect("removes");
    assert_row(&rig, "", "root helper", "fail", "not there, on a machine with an installation");
    // Whoever calls need not be the owner, nor the daemon be asked, to look at the files.
    assert_row(&rig, "", "executable", "fail", "is gone");
}

/// A small file system in memory over a directory.
struct Small(PathBuf);

impl Small {
    fn over(directory: PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&directory).expect("makes the directory");
        let options = format!("size={size},mode=700");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&directory).status();
        assert!(mount.expect("runs mount").success());
        Self(directory)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
#[ignore = "mounts a small file system; run by tests/run.sh"]
fn a_disk_that_is_full_fails_and_the_doctor_says_so_all_the_same() {
    let rig = Rig::empty();
    let small = Small::over(rig.state(""), "48m");
    assert_row(&rig, "", "disk", "fail", "nothing can be written");
    // What is there is read, even when nothing more can be written.
    let filled = std::fs::File::create(rig.state("fill"))
        .and_then(|mut file| std::io::copy(&mut std::io::repeat(0).take(64 << 20), &mut file));
    assert_eq!(filled.expect_err("it is small").kind(), std::io::ErrorKind::StorageFull);
    assert_row(&rig, "", "disk", "fail", "0 MiB free");
    assert_row(&rig, "", "store", "pass", "schema ");
    rig.ok("daemon stop");
    // A daemon that cannot even begin is a row, too.
    let end = rig.banger("doctor");
    assert!(end.stdout.contains("PASS  architecture") && end.stdout.contains("  bangerd "), "{end:?}");
    drop(small);
}
