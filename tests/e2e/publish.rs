//! Ports of this host that lead to a real guest: TCP both ways, UDP, crowds, restarts, and what `vm ports` says of them.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use crate::rig::{Rig, signal};

/// Gives each connection to a port a process of the command.
const SERVER: &str = r#"
use IO::Socket::INET;
my ($at, @command) = @ARGV;
$SIG{CHLD} = "IGNORE";
my $s = IO::Socket::INET->new(LocalAddr => $at, Listen => 200, ReuseAddr => 1) or die "$at: $!";
fork and exit;
while (1) {
    my $c = $s->accept or next;
    next if fork;
    close $s;
    open STDIN, "<&", $c; open STDOUT, ">&", $c; close $c;
    exec @command;
}"#;
/// Sends each datagram back to where it came from.
const ECHO: &str = r#"
use IO::Socket::INET;
my $s = IO::Socket::INET->new(Proto => "udp", LocalAddr => $ARGV[0]) or die $!;
fork and exit;
while (1) { my $from = $s->recv(my $datagram, 65535); $s->send("you said $datagram", 0, $from) if defined $from }"#;

/// A VM with a shell and perl, and these ports published.
fn boot(rig: &Rig, ports: &[&str]) -> BTreeMap<String, SocketAddr> {
    let flags = ports.iter().flat_map(|port| ["-p", port]);
    let args: Vec<&str> = "vm run -d --name dev --image minbase".split(' ').chain(flags).collect();
    rig.ok_args(&args);
    published(rig)
}

/// Where each published port of the guest is, by `80/tcp`.
fn published(rig: &Rig) -> BTreeMap<String, SocketAddr> {
    let view = rig.json("vm show dev --json");
    let one = |port: &serde_json::Value| {
        let at = format!("{}:{}", port["address"].as_str().expect("an address"), port["host"]);
        let of = format!("{}/{}", port["guest"], port["protocol"].as_str().expect("a protocol"));
        (of, at.parse().expect("an address"))
    };
    view["published"].as_array().expect("a list").iter().map(one).collect()
}

fn perl(rig: &Rig, script: &str, args: &[&str]) {
    let words = ["vm", "exec", "dev", "--", "perl", "-e", script];
    rig.ok_args(&[&words, args].concat());
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("sets a timeout");
    stream
}

/// Bytes in which every shift shows.
fn bytes(length: u32) -> Vec<u8> {
    (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 21) as u8).collect()
}

/// Sends it all and reads it all at the same time.
fn exchange(at: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = connect(at);
    let mut writer = stream.try_clone().expect("clones");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(sent).expect("sends");
            writer.shutdown(Shutdown::Write).expect("ends");
        });
        let mut got = vec![];
        stream.read_to_end(&mut got).expect("receives to the end");
        got
    })
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn megabytes_pass_both_ways_and_each_direction_ends_by_itself() {
    let rig = Rig::new();
    let at = boot(&rig, &["0:80", "0:81", "0:82"]);
    perl(&rig, SERVER, &["0.0.0.0:80", "cat"]);
    perl(&rig, SERVER, &["0.0.0.0:81", "sha256sum"]);
    let sent = bytes(8_000_000);
    assert!(exchange(at["80/tcp"], &sent) == sent, "what comes back is not what was sent");
    // It answers only after the client's end.
    let sum = String::from_utf8(exchange(at["81/tcp"], &sent)).expect("text");
    let file = rig.path().join("sent");
    std::fs::write(&file, &sent).expect("writes");
    let want = Command::new("sha256sum").stdin(std::fs::File::open(&file).expect("opens")).output();
    assert_eq!(sum, String::from_utf8(want.expect("runs").stdout).expect("text"));
    // Nothing listens there: what was accepted is reset.
    let refused = connect(at["82/tcp"]).read(&mut [0]).expect_err("is reset");
    assert_eq!(refused.kind(), ErrorKind::ConnectionReset);
    // A client that says nothing is kept.
    let mut idle = connect(at["80/tcp"]);
    std::thread::sleep(Duration::from_secs(12));
    idle.write_all(b"still there?").expect("sends");
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).expect("receives");
    assert_eq!(&answer, b"still there?");
    // It goes with the VM, and is not left waiting.
    rig.ok("vm kill dev");
    idle.read(&mut answer).expect_err("is reset");
    assert_eq!(
        TcpStream::connect(at["80/tcp"]).expect_err("is refused").kind(),
        ErrorKind::ConnectionRefused
    );
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_client_that_does_not_read_holds_up_nobody_else() {
    let rig = Rig::new();
    let at = boot(&rig, &["0:80", "0:81"]);
    perl(&rig, SERVER, &["0.0.0.0:80", "cat", "/dev/zero"]);
    perl(&rig, SERVER, &["0.0.0.0:81", "cat"]);
    let lazy: Vec<_> = (0..5).map(|_| connect(at["80/tcp"])).collect();
    std::thread::sleep(Duration::from_secs(2));
    let sent = bytes(100_000);
    assert!(exchange(at["81/tcp"], &sent) == sent);
    let resident = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", rig.daemon_pid())).expect("reads");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("has one");
        line.split_ascii_whitespace().nth(1).expect("a number").parse().expect("a number")
    };
    assert!(resident() < 100_000, "{} KiB", resident());
    drop(lazy);
    // The programs that wrote to them end.
    rig.until("no cat is left", || rig.sh("dev", "grep -lx cat /proc/[0-9]*/comm || true").is_empty());
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_hundred_clients_at_once_are_all_served() {
    let rig = Rig::new();
    let at = boot(&rig, &["0:80"]);
    perl(&rig, SERVER, &["0.0.0.0:80", "cat"]);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..100u32)
            .map(|n| {
                let at = at["80/tcp"];
                scope.spawn(move || {
                    let sent = bytes(64_000 + n);
                    assert!(exchange(at, &sent) == sent, "client {n}");
                })
            })
            .collect();
        for client in clients {
            client.join().expect("is served");
        }
    });
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn datagrams_find_their_way_back_to_the_client_that_sent_them() {
    let rig = Rig::new();
    let at = boot(&rig, &["0:53/udp"]);
    perl(&rig, ECHO, &["0.0.0.0:53"]);
    let clients: Vec<UdpSocket> = (0..10)
        .map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
            socket.connect(at["53/udp"]).expect("connects");
            socket.set_read_timeout(Some(Duration::from_secs(30))).expect("sets a timeout");
            socket
        })
        .collect();
    let mut buffer = vec![0; 65_535];
    for length in [0u32, 1, 1400, 9000, 60_000] {
        // What is sent all at once must fit into the buffer of the guest's program, or the guest drops some.
        let crowd = if length < 9000 { clients.len() } else { 1 };
        for (first, some) in clients.chunks(crowd).enumerate() {
            for (n, client) in some.iter().enumerate() {
                client.send(&[&[(first + n) as u8], &bytes(length)[..]].concat()).expect("sends");
            }
            for (n, client) in some.iter().enumerate() {
                let got = client.recv(&mut buffer).expect("is answered");
                let want = [b"you said ", &[(first + n) as u8][..], &bytes(length)].concat();
                assert!(buffer[..got] == want, "client {first} {n}, {length} bytes: {got} came back");
            }
        }
    }
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn the_ports_are_there_again_after_a_restart_of_bangerd_and_of_the_vm() {
    let rig = Rig::new();
    let at = boot(&rig, &["0:80"]);
    perl(&rig, SERVER, &["0.0.0.0:80", "cat"]);
    let sent = bytes(300_000);
    let again = |rig: &Rig, at: &BTreeMap<String, SocketAddr>| {
        assert_eq!(&published(rig), at);
        assert!(exchange(at["80/tcp"], &sent) == sent);
    };
    for name in ["KILL", "TERM"] {
        let mut open = connect(at["80/tcp"]);
        open.write_all(b"x").expect("sends");
        open.read_exact(&mut [0]).expect("receives");
        signal(rig.daemon_pid(), name);
        // Nobody takes a part for the whole.
        open.read(&mut [0]).expect_err("is reset");
        rig.until("bangerd has gone", || rig.banger("daemon status").status == 1);
        // The port is the one that clients know, though any was asked for.
        again(&rig, &at);
    }
    rig.ok("vm stop dev");
    assert_eq!(published(&rig), BTreeMap::new());
    rig.ok("vm start dev");
    perl(&rig, SERVER, &["0.0.0.0:80", "cat"]);
    let at = published(&rig);
    again(&rig, &at);
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn what_listens_is_listed_with_the_way_to_it() {
    let rig = Rig::new();
    let at = boot(&rig, &["0:80"]);
    let shown = |args: &str| {
        let table = rig.ok(args);
        let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        table.lines().map(squeeze).collect::<Vec<_>>()
    };
    let host = at["80/tcp"];
    assert_eq!(
        shown("vm ports"),
        ["NAME PROTO PORT PROGRAM SCHEME REACH".to_owned(), format!("dev tcp 80 (nothing listens) - {host}")]
    );
    perl(&rig, SERVER, &["0.0.0.0:80", "cat"]);
    perl(&rig, SERVER, &["127.0.0.1:5432", "cat"]);
    perl(&rig, ECHO, &["0.0.0.0:53"]);
    rig.ok("vm run -d --name silent --image busybox");
    assert_eq!(
        shown("vm ports dev silent dev"),
        [
            "NAME PROTO PORT PROGRAM SCHEME REACH".to_owned(),
            "dev udp 53 perl - -p to publish".to_owned(),
            format!("dev tcp 80 perl - {host}"),
            "dev tcp 5432 perl - -p to publish".to_owned(),
        ]
    );
    let json = rig.json("vm ports --json");
    let web = json.as_array().expect("a list").iter().find(|port| port["port"] == 80).expect("is there");
    assert_eq!(
        (&web["vm"], &web["protocol"], &web["address"]),
        (&"dev".into(), &"tcp".into(), &"0.0.0.0".into())
    );
    assert_eq!(web["reach"], serde_json::json!([host.to_string()]));
    let comm = format!("cat /proc/{}/comm", web["pid"]);
    assert_eq!(rig.sh("dev", &comm), "perl\n");
    rig.ok("vm kill silent");
    let said = rig.refused("vm ports dev silent");
    assert!(said.contains("vm silent is stopped"), "{said}");
    assert_eq!(shown("vm ports").len(), 4, "all that run");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn ports_change_while_the_vm_runs() {
    let rig = Rig::new();
    boot(&rig, &[]);
    perl(&rig, SERVER, &["0.0.0.0:80", "cat"]);
    rig.ok("vm set dev -p 0:80");
    let first = published(&rig)["80/tcp"];
    let mut open = connect(first);
    open.write_all(b"x").expect("sends");
    open.read_exact(&mut [0]).expect("receives");
    rig.ok(&format!("vm set dev --unpublish {} -p 0:80/udp", first.port()));
    open.read(&mut [0]).expect_err("is reset");
    assert_eq!(TcpStream::connect(first).expect_err("is refused").kind(), ErrorKind::ConnectionRefused);
    assert_eq!(published(&rig).into_keys().collect::<Vec<_>>(), ["80/udp"]);
    // And it counts at the next start.
    rig.ok("vm restart dev");
    assert_eq!(published(&rig).into_keys().collect::<Vec<_>>(), ["80/udp"]);
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn a_port_that_is_taken_is_named_before_anything_is_made() {
    let rig = Rig::new();
    let other = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = other.local_addr().expect("has an address").port();
    let said = rig.refused(&format!("vm run -q --name dev --image busybox -p {port}:80 -- true"));
    let want = format!("cannot start vm dev: port 127.0.0.1:{port} is taken by another program");
    assert!(said.contains(&want), "{said}");
    assert_eq!(rig.json("vm list --json"), serde_json::json!([]));
    rig.ok(&format!("vm create -q --name dev --image busybox --no-start --publish {port}:80"));
    assert!(rig.refused("vm start dev").contains(&want), "by the start, too");
    assert_eq!(rig.vm_state("dev"), "stopped");
    drop(other);
    rig.ok("vm start dev");
}

#[test]
#[ignore = "boots VMs; run by tests/run.sh"]
fn the_web_server_of_an_image_is_reached() {
    let rig = Rig::new();
    rig.ok("vm run -d --name web --image busybox -p 0:80");
    rig.sh("web", "mkdir /www; echo hello >/www/index.html; httpd -p 127.0.0.1:80 -h /www");
    let port = rig.json("vm show web --json")["published"][0]["host"].as_u64().expect("a port");
    let page =
        Command::new("curl").args(["-sS", "--noproxy", "*", &format!("http://127.0.0.1:{port}/")]).output();
    let page = page.expect("runs curl");
    assert_eq!(String::from_utf8_lossy(&page.stdout), "hello\n", "{page:?}");
    // Published on 127.0.0.1, it is on no other address of this host's (FAULTS A23).
    let elsewhere =
        Command::new("ss").args(["-Hltn", &format!("sport = :{port}")]).output().expect("runs ss");
    let lines = String::from_utf8_lossy(&elsewhere.stdout).into_owned();
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.contains(&format!("127.0.0.1:{port}")), "{lines}");
}
