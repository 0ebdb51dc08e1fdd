//! Published ports: listeners of bangerd's own that reach the guest through its agent, so that they need neither root nor a network,
//! and what is published on 127.0.0.1 is reached from nowhere else (FAULTS A23).
//!
//! ```text
//! client --TCP, UDP--> listener (socket.rs) --frames over vsock--> agent in the guest --> its program
//!                      stream.rs, datagrams.rs                     guest/forward.rs
//! ```
//!
//! Ports are taken before the VM boots, so that one that cannot be had is an error of the start; a client that connects meanwhile
//! waits. They end with the VM. A bangerd that finds the VM running takes them again, and goes on trying.

mod datagrams;
mod socket;
mod stream;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smol::lock::Semaphore;
use smol::{Task, Timer};

use self::socket::Socket;
use crate::daemon::fault::Fault;
use crate::daemon::{Daemon, machine};
use crate::proto::api::{Code, Published};
use crate::store::record::{Bound, Run};
use crate::vm::id::VmId;
use crate::vm::name::VmName;
use crate::vm::publish::Publish;
use crate::vm::record::VmRecord;
use crate::vmm::Channel;

/// Connections and sessions of one VM at once: each takes two descriptors here, and a thread of the guest.
const AT_ONCE: usize = 512;
/// How long it takes until a port that could not be had is tried again: at first, and at most.
const SOON: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(30);

/// What is published now, of all VMs.
#[derive(Default)]
pub struct Ports(Mutex<BTreeMap<VmId, Vm>>);

struct Vm {
    name: VmName,
    turns: Arc<Semaphore>,
    ports: Vec<Port>,
}

struct Port {
    /// As it was asked for.
    wanted: Publish,
    now: Arc<Mutex<Now>>,
    /// Taken, and not served yet.
    socket: Option<Socket>,
    /// Dropping it ends the listener and its connections.
    task: Option<Task<()>>,
}

/// How a port is.
#[derive(Debug, Clone)]
struct Now {
    /// The port that it has, or waits for; 0: any.
    host: u16,
    /// Why it has none.
    problem: Option<String>,
}

/// The way of one published port: to which guest, and to which of its ports.
pub struct Way {
    name: VmName,
    publish: Publish,
    channel: Channel,
}

impl Ports {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, Vm>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the ports of a VM that is about to start: all of them, or none.
    ///
    /// # Errors
    /// A sentence that names the port, and the VM that has it, if one has.
    pub fn open(&self, record: &VmRecord) -> Result<Vec<Bound>, Fault> {
        let mut vms = self.lock();
        vms.remove(&record.id);
        let ports = take(&vms, record.id, &record.publish)?;
        let bound = bound(&ports);
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        vms.insert(record.id, Vm { name: record.name.clone(), turns, ports });
        Ok(bound)
    }

    /// Looks whether the ports of a VM in the making could be taken now.
    pub fn check(&self, id: VmId, wanted: &[Publish]) -> Result<(), Fault> {
        take(&self.lock(), id, wanted).map(drop)
    }

    /// Lets those in that wait at the ports that [`Ports::open`] has taken: the guest is up.
    pub fn serve(&self, d: &Daemon, id: VmId, channel: &Channel) {
        if let Some(vm) = self.lock().get_mut(&id) {
            vm.serve(d, channel);
        }
    }

    /// Takes the ports of a VM that runs already. Those that cannot be had are tried again and again.
    pub fn restore(&self, d: &Daemon, record: &VmRecord, run: &Run) {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut vm = Vm { name: record.name.clone(), turns, ports: vec![] };
        for wanted in &record.publish {
            // Clients know it by the port that it had.
            let had = run.ports.iter().find(|bound| bound.publish == *wanted);
            vm.retry(d, *wanted, had.map_or(*wanted, Bound::actual), &machine::channel(run));
        }
        self.lock().insert(record.id, vm);
    }

    /// Changes what is published of a VM that runs, at once; on an error all stays as it was. Returns which ports there are now.
    pub async fn change(&self, d: &Daemon, run: &Run, wanted: &[Publish]) -> Result<Vec<Bound>, Fault> {
        let id = run.vm;
        let gone = {
            let mut vms = self.lock();
            let Some(vm) = vms.get_mut(&id) else { return Ok(vec![]) };
            let (kept, gone): (Vec<Port>, Vec<Port>) =
                std::mem::take(&mut vm.ports).into_iter().partition(|port| wanted.contains(&port.wanted));
            vm.ports = kept;
            gone
        };
        // Their ports may be wanted for others.
        let gone = end(gone).await;
        let mut vms = self.lock();
        let Some(vm) = vms.get(&id) else { return Ok(vec![]) };
        let there = |wanted: &Publish| vm.ports.iter().any(|port| port.wanted == *wanted);
        let new: Vec<Publish> = wanted.iter().filter(|wanted| !there(wanted)).copied().collect();
        let taken = take(&vms, id, &new);
        let channel = machine::channel(run);
        let Some(vm) = vms.get_mut(&id) else { return Ok(vec![]) };
        match taken {
            Ok(ports) => {
                vm.ports.extend(ports);
                vm.serve(d, &channel);
                Ok(bound(&vm.ports))
            }
            Err(fault) => {
                for (wanted, actual) in gone {
                    vm.retry(d, wanted, actual, &channel);
                }
                Err(fault)
            }
        }
    }

    /// Ends all that is published of a VM, with its connections. The ports are free when this returns.
    pub async fn close(&self, id: VmId) {
        let vm = self.lock().remove(&id);
        if let Some(vm) = vm {
            end(vm.ports).await;
        }
    }

    /// The VM has another name from now on. Lines about what is open already keep the old one.
    pub fn rename(&self, id: VmId, name: &VmName) {
        if let Some(vm) = self.lock().get_mut(&id) {
            vm.name = name.clone();
        }
    }

    /// What is published of a VM now.
    pub fn view(&self, id: VmId) -> Vec<Published> {
        let vms = self.lock();
        let ports = vms.get(&id).map(|vm| &vm.ports[..]).unwrap_or_default();
        ports.iter().map(Port::view).collect()
    }
}

/// Ends these listeners and their connections, and returns what they were.
async fn end(ports: Vec<Port>) -> Vec<(Publish, Publish)> {
    let mut ended = vec![];
    for port in ports {
        ended.push((port.wanted, port.actual()));
        if let Some(task) = port.task {
            task.cancel().await;
        }
    }
    ended
}

/// Takes `wanted` for the VM `id`.
fn take(vms: &BTreeMap<VmId, Vm>, id: VmId, wanted: &[Publish]) -> Result<Vec<Port>, Fault> {
    let mut ports = vec![];
    for publish in wanted {
        if let Some(other) = vms.iter().find(|(other, vm)| **other != id && vm.has(publish)) {
            return Err(taken_by(publish, &other.1.name));
        }
        let socket = Socket::bind(publish).map_err(|e| socket::fault(publish, &e))?;
        let host = socket.port().map_err(|e| socket::fault(publish, &e))?;
        let now = Arc::new(Mutex::new(Now { host, problem: None }));
        ports.push(Port { wanted: *publish, now, socket: Some(socket), task: None });
    }
    Ok(ports)
}

fn taken_by(publish: &Publish, name: &VmName) -> Fault {
    let place = publish.place();
    let un = format!("{}{}", publish.host, if place.ends_with("/udp") { "/udp" } else { "" });
    Fault::new(
        Code::Conflict,
        format!(
            "port {place} is published by vm {name}; publish another one, or take it away there with `banger vm set {name} --unpublish {un}`"
        ),
    )
}

fn bound(ports: &[Port]) -> Vec<Bound> {
    ports.iter().map(|port| Bound { publish: port.wanted, port: port.actual().host }).collect()
}

impl Vm {
    fn has(&self, publish: &Publish) -> bool {
        self.ports.iter().any(|port| port.actual().clashes(publish))
    }

    /// Begins to serve the ports that have been taken.
    fn serve(&mut self, d: &Daemon, channel: &Channel) {
        for port in &mut self.ports {
            if let Some(socket) = port.socket.take() {
                let way = Way { name: self.name.clone(), publish: port.actual(), channel: channel.clone() };
                port.task = d.spawn(serve(socket, way, Arc::clone(&self.turns)));
            }
        }
    }

    /// Takes `actual` as soon as it can be had, and serves it.
    fn retry(&mut self, d: &Daemon, wanted: Publish, actual: Publish, channel: &Channel) {
        let now = Arc::new(Mutex::new(Now { host: actual.host, problem: None }));
        let way = Way { name: self.name.clone(), publish: actual, channel: channel.clone() };
        let (turns, known) = (Arc::clone(&self.turns), Arc::clone(&now));
        let task = d.spawn(async move {
            let socket = bind_at_last(&way, &known).await;
            serve(socket, way, turns).await;
        });
        self.ports.push(Port { wanted, now, socket: None, task });
    }
}

impl Port {
    fn now(&self) -> Now {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// With the port that it has, where any was asked for.
    fn actual(&self) -> Publish {
        Publish { host: self.now().host, ..self.wanted }
    }

    fn view(&self) -> Published {
        Published { publish: self.actual(), problem: self.now().problem }
    }
}

async fn serve(socket: Socket, way: Way, turns: Arc<Semaphore>) {
    match socket {
        Socket::Tcp(listener) => stream::serve(listener, Arc::new(way), turns).await,
        Socket::Udp(socket) => datagrams::serve(socket, Arc::new(way), turns).await,
    }
}

/// Tries until the port can be had; says it once if it cannot, and once when it can.
async fn bind_at_last(way: &Way, now: &Mutex<Now>) -> Socket {
    let note = |host, problem| *now.lock().unwrap_or_else(PoisonError::into_inner) = Now { host, problem };
    let mut pause = SOON;
    loop {
        match Socket::bind(&way.publish).and_then(|socket| Ok((socket.port()?, socket))) {
            Ok((port, socket)) => {
                if pause > SOON {
                    log::info!("vm {}: port {} is published again", way.name, way.publish.place());
                }
                note(port, None);
                return socket;
            }
            Err(e) => {
                let fault = socket::fault(&way.publish, &e);
                if pause == SOON {
                    log::warn!("vm {}: {}; it is tried again", way.name, fault.message);
                }
                note(way.publish.host, Some(fault.message));
            }
        }
        Timer::after(pause).await;
        pause = SELDOM.min(pause * 2);
    }
}
