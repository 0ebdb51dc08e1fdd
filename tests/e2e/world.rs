//! A small world of network namespaces: a host, the internet behind its default route, and a LAN beside it.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::rig::PATIENCE;

/// A server of "the internet" (RFC 5737, TEST-NET-3: no private address).
pub const INTERNET: &str = "203.0.113.7";
/// A machine of the host's LAN.
pub const LAN: &str = "192.168.77.2";
/// Where clouds answer questions about a machine's credentials.
pub const METADATA: &str = "169.254.169.254";

/// The namespaces and what runs in them; dropping it ends and removes all.
pub struct World {
    tag: String,
    servers: Vec<Child>,
}

impl World {
    pub fn new() -> Self {
        let id = std::process::id();
        let tag = format!("{:x}{:x}", id, Instant::now().elapsed().subsec_nanos() & 0xff);
        let mut world = Self { tag, servers: vec![] };
        for name in ["h", "o"] {
            ip(&format!("netns add {}", world.namespace(name)));
            world.run(name, "ip link set lo up");
        }
        let (host, outside) = (world.host(), world.namespace("o"));
        for (link, host_address, far) in
            [("wan", "198.51.100.1/24", "198.51.100.2/24"), ("lan", "192.168.77.1/24", "192.168.77.2/24")]
        {
            ip(&format!("link add {link} netns {host} type veth peer name {link} netns {outside}"));
            world.run("h", &format!("ip addr add {host_address} dev {link}"));
            world.run("h", &format!("ip link set {link} up"));
            world.run("o", &format!("ip addr add {far} dev {link}"));
            world.run("o", &format!("ip link set {link} up"));
        }
        world.run("h", "ip route add default via 198.51.100.2");
        world.run("h", &format!("ip route add {METADATA}/32 via 198.51.100.2"));
        world.run("o", &format!("ip addr add {INTERNET}/32 dev lo"));
        world.run("o", &format!("ip addr add {METADATA}/32 dev lo"));
        // Nothing there knows the way to a VM: only what the host masquerades is answered.
        for address in [INTERNET, LAN, METADATA] {
            world.serve("o", &format!("{address}:80"), "hello from outside");
        }
        world
    }

    pub fn host(&self) -> String {
        self.namespace("h")
    }

    fn namespace(&self, name: &str) -> String {
        format!("bgr{name}{}", self.tag)
    }

    /// Runs a command in a namespace (`h` or `o`); it must succeed.
    pub fn run(&self, name: &str, line: &str) -> String {
        let out = self.try_run(name, line);
        assert!(out.status.success(), "{line}: {out:?}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    pub fn try_run(&self, name: &str, line: &str) -> std::process::Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(name), "sh", "-c", line]);
        command.output().expect("runs ip")
    }

    /// Runs a line of shell in a namespace until this world ends.
    pub fn spawn(&mut self, name: &str, line: &str) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(name), "sh", "-c", line]);
        self.servers.push(command.spawn().expect("runs ip"));
    }

    /// Answers every TCP connection to `at` with `text`, as a small HTTP server would.
    pub fn serve(&mut self, name: &str, at: &str, text: &str) {
        let script = format!(
            "import socketserver\n\
             class H(socketserver.StreamRequestHandler):\n\
             \x20   def handle(self):\n\
             \x20       self.rfile.readline()\n\
             \x20       self.wfile.write(b'HTTP/1.0 200 OK\\r\\n\\r\\n{text} ' + self.client_address[0].encode())\n\
             class S(socketserver.ThreadingTCPServer):\n\
             \x20   allow_reuse_address = True\n\
             S(('{}', {}), H).serve_forever()",
            at.rsplit_once(':').expect("a port").0,
            at.rsplit_once(':').expect("a port").1
        );
        let server = Command::new("ip")
            .args(["netns", "exec", &self.namespace(name), "python3", "-c", &script])
            .stdout(Stdio::null())
            .spawn()
            .expect("runs a server");
        self.servers.push(server);
        let (address, port) = at.rsplit_once(':').expect("a port");
        let address = if address == "0.0.0.0" { "127.0.0.1" } else { address };
        let begun = Instant::now();
        while !self.try_run(name, &format!("nc -z {address} {port}")).status.success() {
            assert!(begun.elapsed() < PATIENCE, "the server at {at} does not come up");
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        for name in ["h", "o"] {
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(name)]).status();
        }
    }
}

fn ip(line: &str) {
    let status = Command::new("ip").args(line.split(' ')).status().expect("runs ip");
    assert!(status.success(), "ip {line}");
}
