//! The server: which addresses it answers at, for whom, and the thread in which it waits for others.

use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use smol::channel::{Receiver, Sender, bounded, unbounded};
use smol::future::FutureExt;
use smol::{Async, Executor};

use crate::dns::limits::{Sparingly, Turn, Turns};
use crate::dns::names::Names;
use crate::dns::query::Query;
use crate::dns::rebind::Forbidden;
use crate::dns::tcp::{self, Connection};
use crate::dns::udp;
use crate::dns::upstream::{self, Outcome, Transport};
use crate::dns::zone::Asker;
use crate::host::resolver::Config;
use crate::network::subnet::Subnet;

/// Questions that wait for upstream servers: of all guests, and of one.
const IN_FLIGHT: usize = 512;
const IN_FLIGHT_EACH: usize = 64;
/// Connections, likewise.
const CONNECTIONS: usize = 256;
const CONNECTIONS_EACH: usize = 16;

/// Whom an address serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// Programs on this machine, with the zone.
    Host,
    /// Guests, with everything.
    Guests(Guests),
}

/// Which askers are guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guests {
    pub bridge: Subnet,
    /// The first `prefix` bits of their addresses are those of this one, which is not theirs but the host's.
    pub gateway: Ipv4Addr,
    pub prefix: u8,
}

impl From<Subnet> for Guests {
    fn from(bridge: Subnet) -> Self {
        Self { bridge, gateway: bridge.gateway(), prefix: bridge.prefix() }
    }
}

impl Face {
    /// Who asks from there; None: nobody that is served here.
    pub fn asker(self, from: IpAddr) -> Option<Asker> {
        match (self, from) {
            (Self::Host, from) => from.is_loopback().then_some(Asker::Host),
            // A resolver of the host's, perhaps the very one that is upstream: it gets nothing that would come back here.
            (Self::Guests(guests), IpAddr::V4(from)) if from == guests.gateway => Some(Asker::Host),
            (Self::Guests(guests), IpAddr::V4(from)) => {
                let differ = from.to_bits() ^ guests.gateway.to_bits();
                (differ.leading_zeros() >= u32::from(guests.prefix)).then_some(Asker::Guest)
            }
            (Self::Guests(_), IpAddr::V6(_)) => None,
        }
    }
}

/// Where the host's own resolvers are known from.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// A resolv.conf, read again for each question: it changes with the host's networks.
    File(PathBuf),
    Fixed(Config),
}

/// Why nobody is answered at an address.
#[derive(Debug)]
pub enum DnsError {
    /// Some other program answers there.
    Busy(SocketAddr),
    Io {
        what: &'static str,
        at: SocketAddr,
        source: io::Error,
    },
}

/// The server. Dropping it ends it; what listens is dropped before.
#[derive(Debug)]
pub struct Service {
    inside: Arc<Inside>,
    thread: Option<JoinHandle<()>>,
}

/// An address at which the server answers, until this is dropped.
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    inside: Arc<Inside>,
    /// Closed, it ends the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
    /// Closed, it ends the TCP listener.
    _tcp: Sender<()>,
}

/// What all threads share.
#[derive(Debug)]
pub struct Inside {
    pub names: Names,
    pub turns: Arc<Turns>,
    pub connections: Arc<Turns>,
    upstream: Upstream,
    ours: Mutex<Vec<SocketAddr>>,
    orders: Sender<Order>,
    busy: Sparingly,
    rebound: Sparingly,
}

#[derive(Debug)]
enum Order {
    Serve { listener: Async<TcpListener>, face: Face, closed: Receiver<()> },
    Ask(Job),
    End,
}

/// A question that others are asked, and where the answer goes.
#[derive(Debug)]
pub struct Job {
    pub query: Query,
    pub back: Return,
    pub bridge: Subnet,
    pub turn: Turn,
}

#[derive(Debug)]
pub enum Return {
    Udp(Arc<UdpSocket>, SocketAddr),
    Tcp(Arc<Connection>),
}

impl Service {
    /// Starts the server, which answers nobody yet.
    ///
    /// # Errors
    /// That of starting a thread.
    pub fn start(names: Names, upstream: Upstream) -> io::Result<Self> {
        let (orders, received) = unbounded();
        let inside = Arc::new(Inside {
            names,
            turns: Turns::new(IN_FLIGHT, IN_FLIGHT_EACH),
            connections: Turns::new(CONNECTIONS, CONNECTIONS_EACH),
            upstream,
            ours: Mutex::default(),
            orders,
            busy: Sparingly::default(),
            rebound: Sparingly::default(),
        });
        let shared = Arc::clone(&inside);
        let thread = thread::Builder::new()
            .name("dns".to_owned())
            .spawn(move || wait_for_others(&shared, &received))?;
        Ok(Self { inside, thread: Some(thread) })
    }

    /// Answers at `address`, over UDP and TCP, those whom `face` serves. Port 0 is one that is free.
    ///
    /// # Errors
    /// [`DnsError`]; then nothing listens there.
    pub fn listen(&self, address: SocketAddr, face: Face) -> Result<Listening, DnsError> {
        let io = |what, at| move |e: io::Error| DnsError::of(what, at, e);
        let socket = UdpSocket::bind(address).map_err(io("listen on UDP", address))?;
        let address = socket.local_addr().map_err(io("listen on UDP", address))?;
        socket.set_nonblocking(true).map_err(io("listen on UDP", address))?;
        let listener = TcpListener::bind(address).map_err(io("listen on TCP", address))?;
        let listener = Async::new(listener).map_err(io("listen on TCP", address))?;
        let (reader, writer) = io::pipe().map_err(io("make a pipe for", address))?;
        let thread =
            start_udp(socket, face, &self.inside, reader).map_err(io("start a thread for", address))?;
        let (tcp, closed) = bounded(1);
        self.inside.order(Order::Serve { listener, face, closed });
        self.inside.ours().push(address);
        Ok(Listening {
            address,
            inside: Arc::clone(&self.inside),
            stop: Some(writer),
            thread: Some(thread),
            _tcp: tcp,
        })
    }
}

fn start_udp(
    socket: UdpSocket,
    face: Face,
    inside: &Arc<Inside>,
    stop: PipeReader,
) -> io::Result<JoinHandle<()>> {
    let inside = Arc::clone(inside);
    let name = match face {
        Face::Host => "dns-host",
        Face::Guests(_) => "dns-guests",
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || udp::serve(&Arc::new(socket), face, &inside, &stop))
}

impl Listening {
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.inside.ours().retain(|address| *address != self.address);
        self.stop = None;
        join(self.thread.take());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.inside.order(Order::End);
        join(self.thread.take());
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if thread.is_some_and(|thread| thread.join().is_err()) {
        log::error!("a thread of the DNS server ended by a mistake");
    }
}

impl Inside {
    /// Has upstream servers asked.
    pub fn forward(&self, job: Job) {
        self.order(Order::Ask(job));
    }

    /// An asker takes more than its share.
    pub fn busy(&self, who: IpAddr) {
        if self.busy.now() {
            log::warn!("{who} asks more than the DNS server passes on at once; some of it is dropped");
        }
    }

    fn order(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            log::debug!("the DNS server has ended");
        }
    }

    fn ours(&self) -> std::sync::MutexGuard<'_, Vec<SocketAddr>> {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn servers(&self, forbidden: Forbidden) -> Config {
        let ours = self.ours().clone();
        match &self.upstream {
            Upstream::File(path) => upstream::servers(path, &ours, forbidden),
            Upstream::Fixed(config) => upstream::without(config.clone(), &ours, forbidden),
        }
    }
}

/// The thread that waits for others, until it is told to end.
fn wait_for_others(inside: &Arc<Inside>, orders: &Receiver<Order>) {
    let executor = Arc::new(Executor::new());
    let tasks = Tasks(Arc::downgrade(&executor));
    smol::block_on(executor.run(async {
        while let Ok(order) = orders.recv().await {
            match order {
                Order::Serve { listener, face, closed } => {
                    let serve = tcp::serve(listener, face, Arc::clone(inside), tasks.clone());
                    tasks.spawn(serve.or(async move {
                        // Nothing is ever sent: it ends by being closed.
                        if closed.recv().await.is_err() {
                            log::debug!("a DNS listener ends");
                        }
                    }));
                }
                Order::Ask(job) => tasks.spawn(ask(Arc::clone(inside), job)),
                Order::End => return,
            }
        }
    }));
}

async fn ask(inside: Arc<Inside>, job: Job) {
    let Job { query, back, bridge, turn } = job;
    let forbidden = Forbidden { bridge };
    let transport = match back {
        Return::Udp(..) => Transport::Udp,
        Return::Tcp(_) => Transport::Tcp,
    };
    let config = inside.servers(forbidden);
    let reply = match upstream::ask(&query, &config, transport, forbidden).await {
        Outcome::Answer(answer) => answer,
        Outcome::Nothing(said) => said.unwrap_or_else(|| query.failed()),
        Outcome::CutShort => query.truncated(),
        Outcome::Rebinds(address) => {
            if inside.rebound.now() {
                log::warn!(
                    "a name that a guest asked for leads to {address}; guests are not told of such addresses"
                );
            }
            query.blocked()
        }
    };
    match back {
        Return::Udp(socket, to) if reply.len() > query.udp_limit() => {
            udp::send(&socket, &query.truncated(), to)
        }
        Return::Udp(socket, to) => udp::send(&socket, &reply, to),
        Return::Tcp(connection) => {
            if !connection.write(&reply).await {
                log::debug!("a DNS connection has gone before its answer came");
            }
        }
    }
    drop(turn);
}

/// Where tasks run that nobody waits for.
#[derive(Clone)]
pub struct Tasks(Weak<Executor<'static>>);

impl Tasks {
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let Some(executor) = self.0.upgrade() else { return };
        // Detached: each has its own deadlines, and ends with the executor, which owns it.
        executor
            .spawn(async {
                // A mistake of ours in one must not take the others with it.
                if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                    log::error!("a question led to a mistake in the DNS server");
                }
            })
            .detach();
    }
}

impl DnsError {
    fn of(what: &'static str, at: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::Busy(at),
            _ => Self::Io { what, at, source },
        }
    }
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(at) => write!(f, "another program uses {at}; end it, or choose another dns_port"),
            Self::Io { what, at, .. } => write!(f, "cannot {what} {at}"),
        }
    }
}

impl std::error::Error for DnsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Busy(_) => None,
            Self::Io { source, .. } => Some(source),
        }
    }
}
