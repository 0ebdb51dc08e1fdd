//! A host of the test's own: the network namespace of its thread. Others are in namespaces beside it: the internet, a LAN, and guests,
//! each behind its tap as a VMM would be, which is to say that a thread carries frames between that tap and the guest's interface.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use banger::netlink::tun::Tap;
use banger::network::guest::Guest;
use banger::network::subnet::{self, Subnet};
use banger::root::{bridge, firewall, tap};
use banger::vm::id::VmId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Uid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

pub const STAMP: &str = "banger:test";
pub const SUBNET: Subnet = subnet::DEFAULT;
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The virtio-net header before each frame of a tap (linux/virtio_net.h): nothing was left to the device.
const NO_OFFLOAD: [u8; 10] = [0; 10];

/// Gives this thread, and what it starts, a network namespace of its own.
pub fn own_host() {
    let flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    // SAFETY: a new file system context is this thread's alone; nothing here relies on sharing one.
    unsafe { rustix::thread::unshare_unsafe(flags) }.expect("root may have a namespace of its own");
    sh("mount --make-rprivate / && mount -t sysfs sysfs /sys && ip link set lo up");
    let links = json("ip -j link");
    assert_eq!(links.as_array().map(Vec::len), Some(1), "only lo is here: {links}");
}

/// Runs a line of shell here; it must succeed.
#[track_caller]
pub fn sh(line: &str) -> String {
    stdout(line, try_sh(line))
}

pub fn try_sh(line: &str) -> Output {
    Command::new("sh").args(["-c", line]).output().expect("runs sh")
}

/// Whether a line of shell succeeds here.
pub fn sh_can(line: &str) -> bool {
    try_sh(line).status.success()
}

#[track_caller]
pub fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(&sh(line)).expect("it answers in JSON")
}

#[track_caller]
fn stdout(line: &str, out: Output) -> String {
    assert!(out.status.success(), "{line}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends with the one who started it.
pub struct Running(Child);

impl Running {
    pub fn start(line: &str) -> Self {
        Self(shell(line).spawn().expect("runs sh"))
    }
}

fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {line}")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it ends");
    }
}

/// A network namespace beside the host's.
pub struct Space(Running);

impl Space {
    pub fn new() -> Self {
        let mut holder = Running::start("unshare -n sh -c 'ip link set lo up; echo ready; exec sleep 1000'");
        let mut line = String::new();
        let stdout = holder.0.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("reads");
        assert_eq!(line, "ready\n");
        Self(holder)
    }

    /// Beside the host, by a cable between `link` here and `eth0` there.
    pub fn connected(link: &str, here: &str, there: &str) -> Self {
        let space = Self::new();
        sh(&format!("ip link add {link} type veth peer name eth0 netns {}", space.pid()));
        sh(&format!("ip addr add {here} dev {link} && ip link set {link} up"));
        space.sh(&format!("ip addr add {there} dev eth0 && ip link set eth0 up"));
        space
    }

    pub fn pid(&self) -> u32 {
        self.0.0.id()
    }

    /// The line of shell that runs `line` there.
    pub fn there(&self, line: &str) -> String {
        format!("nsenter -t {} -n {line}", self.pid())
    }

    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        stdout(line, self.try_sh(line))
    }

    pub fn try_sh(&self, line: &str) -> Output {
        let pid = self.pid().to_string();
        Command::new("nsenter").args(["-t", &pid, "-n", "sh", "-c", line]).output().expect("runs nsenter")
    }

    /// Whether the line succeeds there.
    pub fn can(&self, line: &str) -> bool {
        self.try_sh(line).status.success()
    }

    /// Does something there in a thread of its own.
    pub fn inside<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(act).join().expect("it does not panic")
    }

    pub fn spawn<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let space = File::open(format!("/proc/{}/ns/net", self.pid())).expect("opens");
        std::thread::spawn(move || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).expect("moves there");
            act()
        })
    }

    /// A server there, which tells over HTTP who asked, and then repeats what it hears.
    pub fn serve(&self, address: &str) {
        let address: SocketAddr = address.parse().expect("an address");
        accept(self.inside(move || TcpListener::bind(address).expect("binds")));
    }
}

/// As [`Space::serve`], on the host.
pub fn serve_here(address: &str) {
    accept(TcpListener::bind(address).expect("binds"));
}

fn accept(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("accepts");
            std::thread::spawn(move || converse(stream));
        }
    });
}

fn converse(mut stream: TcpStream) {
    let peer = stream.peer_addr().expect("connected").ip();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if buffer.starts_with(b"GET ") {
            let answer = format!("HTTP/1.0 200 OK\r\n\r\nyou are {peer}\n");
            stream.write_all(answer.as_bytes()).expect("answers");
            return;
        }
        if stream.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}

/// A connection that is kept.
pub struct Talk(TcpStream);

impl Talk {
    pub fn begin(space: &Space, to: &str) -> Self {
        let to: SocketAddr = to.parse().expect("an address");
        Self::over(space.inside(move || TcpStream::connect_timeout(&to, PATIENCE).expect("connects")))
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("sets");
        Self(stream)
    }

    /// Whether what is said is repeated within `limit`.
    pub fn goes_on(&mut self, limit: Duration) -> bool {
        self.0.set_read_timeout(Some(limit)).expect("sets");
        let mut heard = [0; 4];
        self.0.write_all(b"ping").is_ok() && self.0.read_exact(&mut heard).is_ok() && heard == *b"ping"
    }
}

/// A guest that runs: its namespace, and the thread that is its VMM.
pub struct Vm {
    pub guest: Guest,
    pub space: Space,
    tap: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    vmm: Option<JoinHandle<()>>,
}

pub fn guest(number: u16) -> Guest {
    Guest::new(VmId::from_random(number.into()), number, SUBNET).expect("a slot of the subnet")
}

pub fn bridge() {
    bridge::ensure(SUBNET, STAMP).expect("makes the bridge");
}

impl Vm {
    /// Makes the guest's tap and starts it behind it.
    pub fn start(guest: Guest) -> Self {
        tap::create(&guest, Uid::ROOT).expect("makes the tap");
        let space = Space::new();
        let outer: Arc<OwnedFd> = Arc::new(tap::open(guest.tap).expect("opens the tap"));
        let inner: OwnedFd = space.inside(|| Tap::create("eth0").expect("makes an interface").into());
        let stop = Arc::new(AtomicBool::new(false));
        let vmm = std::thread::spawn({
            let (outer, stop) = (Arc::clone(&outer), Arc::clone(&stop));
            move || carry(&outer, &inner, &stop)
        });
        let vm = Self { guest, space, tap: outer, stop, vmm: Some(vmm) };
        vm.take_address(&guest.mac.to_string(), guest.address.into());
        vm
    }

    /// What the guest does to itself, rightly or wrongly.
    pub fn take_address(&self, mac: &str, address: IpAddr) {
        self.space.sh(&format!(
            "ip addr flush dev eth0 && ip link set eth0 down && ip link set eth0 address {mac} up"
        ));
        self.space.sh(&format!("ip addr add {address}/{} dev eth0", SUBNET.prefix()));
        self.space.sh(&format!("ip route add default via {} dev eth0 onlink", SUBNET.gateway()));
    }

    /// Sends a frame that no honest guest would.
    pub fn send(&self, frame: &[u8]) {
        send_over(&self.tap, frame);
    }

    pub fn can(&self, line: &str) -> bool {
        self.space.can(line)
    }

    /// Stops it, and removes what the host has of it.
    pub fn delete(self) {
        let guest = self.guest;
        drop(self);
        firewall::remove(&guest).expect("removes");
        tap::delete(guest.tap).expect("deletes");
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(vmm) = self.vmm.take() {
            vmm.join().expect("the VMM does not panic");
        }
    }
}

fn carry(outer: &OwnedFd, inner: &OwnedFd, stop: &AtomicBool) {
    let tick = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let mut buffer = vec![0; 1 << 17];
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(outer, PollFlags::IN), PollFd::new(inner, PollFlags::IN)];
        poll(&mut fds, Some(&tick)).expect("polls");
        let ready = fds.map(|fd| fd.revents().contains(PollFlags::IN));
        for (is_ready, from, to) in [(ready[0], outer, inner), (ready[1], inner, outer)] {
            if is_ready {
                let length = rustix::io::read(from, &mut buffer).expect("reads a frame");
                match rustix::io::write(to, &buffer[..length]) {
                    // The other side is down.
                    Ok(_) | Err(rustix::io::Errno::IO) => {}
                    Err(e) => panic!("cannot pass a frame on: {e}"),
                }
            }
        }
    }
}

/// As the process behind a tap, sends one frame to it.
pub fn send_over(tap: &OwnedFd, frame: &[u8]) {
    rustix::io::write(tap, &[&NO_OFFLOAD, frame].concat()).expect("the tap takes it");
}

/// tcpdump on a link, from before [`Capture::start`] returns.
pub struct Capture {
    running: Running,
    lines: JoinHandle<Vec<String>>,
}

impl Capture {
    pub fn here(link: &str, filter: &str) -> Self {
        Self::start(|line| line.to_owned(), link, filter)
    }

    pub fn inside(space: &Space, link: &str, filter: &str) -> Self {
        Self::start(|line| space.there(line), link, filter)
    }

    fn start(place: impl Fn(&str) -> String, link: &str, filter: &str) -> Self {
        let line = place(&format!("tcpdump -l -n -e -t --immediate-mode -i {link} '{filter}'"));
        let mut child = shell(&line).stderr(Stdio::piped()).spawn().expect("runs tcpdump");
        let mut said = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert!(said.read_line(&mut line).expect("reads") > 0, "tcpdump does not listen on {link}");
        }
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let lines = std::thread::spawn(move || stdout.lines().map(|line| line.expect("reads")).collect());
        Self { running: Running(child), lines }
    }

    /// What was seen, a line for each frame.
    pub fn end(self) -> Vec<String> {
        // What has been sent is seen at once, but written by another process.
        std::thread::sleep(Duration::from_millis(300));
        drop(self.running);
        self.lines.join().expect("reads to the end")
    }
}
