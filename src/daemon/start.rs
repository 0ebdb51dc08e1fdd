//! Starting a VM: prepare, launch, wait until the guest says that it is up. Nothing polls: the guest connects to us.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use smol::{Async, Timer, future};

use crate::daemon::agent::{self, AgentError};
use crate::daemon::driver::{Driver, keep_logs_short};
use crate::daemon::exit::Exit;
use crate::daemon::fault::{Fault, chain};
use crate::daemon::guest_text::last_lines;
use crate::daemon::launch::Shim;
use crate::daemon::machine::{self, How, Ready};
use crate::daemon::op::Op;
use crate::daemon::orders::What;
use crate::daemon::root_client::RootError;
use crate::daemon::threads::aside;
use crate::daemon::{blocking, file_sync, network, stop};
use crate::host::progress::Progress;
use crate::host::{endpoint, failpoint};
use crate::proto;
use crate::proto::agent::{Configure, Hello, Request};
use crate::proto::api::Code;
use crate::store::record::{Bound, Run};
use crate::vm::state::{Event, Process, Processes};
use crate::vmm::channel::Listener;
use crate::vmm::{Channel, Launch, Plan};

/// How long the guest may take for the first line on a connection that it has opened.
const READY_LINE: Duration = Duration::from_secs(10);
/// How long the vsock device's program may take to listen.
const DEVICE: Duration = Duration::from_secs(10);
/// How long the owner's files may take on their way.
const FILES: Duration = Duration::from_secs(600);
/// How long the last words of a guest that has ended may be on their way.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// Lines of the console that are shown with a failure.
const CONSOLE_LINES: usize = 20;

/// How waiting for the guest ended.
enum Outcome {
    Up(Hello),
    Down(Down),
    /// Somebody wants the VM to end.
    GiveWay,
}

/// Why a guest did not come up.
enum Down {
    /// It said why, or said nonsense.
    Broken(AgentError),
    Ended,
    Late(Duration),
}

/// Starts the VM; it is Running when this returns.
///
/// # Errors
/// A sentence, with the console's last lines where the guest did not come up. No process is left, and the VM is Failed.
pub async fn start(driver: &mut Driver, op: &Op) -> Result<(), Fault> {
    // Asked first, so that nothing is prepared for a VM that runs.
    let some = Processes { vmm: Process { pid: 0, started: 0 }, vsock: None };
    driver.record.state.on(Event::Spawned(some))?;
    let ports = driver.d.ports.open(&driver.record)?;
    let id = driver.record.id;
    match boot(driver, op, ports).await {
        Ok(channel) => {
            driver.d.ports.serve(&driver.d, id, &channel);
            Ok(())
        }
        Err(fault) => {
            driver.d.ports.close(id).await;
            Err(fault)
        }
    }
}

/// Returns the way into the guest once that is up.
async fn boot(driver: &mut Driver, op: &Op, ports: Vec<Bound>) -> Result<Channel, Fault> {
    op.stage(&format!("booting {}", driver.record.name));
    let record = driver.record.clone();
    let prepared = {
        let op = op.clone();
        blocking(&driver.d, move |d| machine::prepare(d, &record, &op)).await
    };
    let ready = match prepared {
        Ok(ready) => ready,
        Err(fault) => {
            driver.note(op, Event::GaveUp(fault.message.clone())).await;
            return Err(fault);
        }
    };
    let Ready { how, channel, run, listener, patience } = ready;
    let run = Run { ports, ..run };
    driver.run = Some(run.clone());
    let launched = match how {
        How::Direct(plan) => launch(driver, op, &plan, &run).await,
        How::Jailed(order, descriptors) => {
            launch_jailed(driver, op, order, descriptors, &run).await.map(|()| true)
        }
    };
    let outcome = match launched {
        Ok(true) => wait(driver, &channel, listener, patience).await,
        Ok(false) => Ok(Outcome::GiveWay),
        Err(fault) => Err(fault),
    };
    let fault = match outcome {
        Ok(Outcome::Up(hello)) => {
            log::debug!("{op} vm {}: agent {:?} on {:?}", driver.record.name, hello.version, hello.kernel);
            // Its name is right before anybody is told that it is ready.
            network::name(&driver.d, &driver.record, &run);
            failpoint::reach("start: guest up");
            match sync_files(driver, op, &channel).await {
                Ok(true) => {}
                Ok(false) => return Err(given_way(driver, op).await?),
                Err(fault) => return Err(given_up(driver, op, fault).await),
            }
            match driver.enter(op, Event::Ready, Some(&run)).await {
                Ok(()) => {
                    failpoint::reach("start: running stored");
                    return Ok(channel);
                }
                Err(fault) => fault,
            }
        }
        Ok(Outcome::Down(down)) => fault(driver, down),
        Ok(Outcome::GiveWay) => return Err(given_way(driver, op).await?),
        Err(fault) => fault,
    };
    Err(given_up(driver, op, fault).await)
}

/// Ends what was started, since somebody wants the VM to end.
async fn given_way(driver: &mut Driver, op: &Op) -> Result<Fault, Fault> {
    driver.note(op, Event::Stop).await;
    stop::end_processes(driver).await?;
    driver.note(op, Event::Exited).await;
    Ok(Fault::new(Code::Conflict, "it was stopped while it was starting"))
}

/// Ends what was started, because of `fault`.
async fn given_up(driver: &mut Driver, op: &Op, fault: Fault) -> Fault {
    if let Err(stuck) = stop::end_processes(driver).await {
        // They may still run, and `vm stop` tries again.
        driver.note(op, Event::Stop).await;
        return stuck.within(fault.message);
    }
    driver.note(op, Event::GaveUp(fault.message.clone())).await;
    fault
}

/// Brings the owner's files. False: somebody wants the VM to end.
async fn sync_files(driver: &mut Driver, op: &Op, channel: &Channel) -> Result<bool, Fault> {
    let list = driver.d.config.file_sync.clone();
    if list.is_empty() {
        return Ok(true);
    }
    let (channel, notes) = (channel.clone(), op.clone());
    let synced = async {
        aside(move || file_sync::run(&list, &channel, |text| notes.note(text))).await.map(|()| true)
    };
    let late = async {
        Timer::after(FILES).await;
        Err(Fault::new(Code::NotReady, "the guest does not take the files that file_sync names"))
    };
    future::or(synced, future::or(late, give_way(driver, Ok(false)))).await
}

/// Makes the processes known, then lets them begin (daemon/launch.rs). False: somebody wants the VM to end.
async fn launch(driver: &mut Driver, op: &Op, plan: &Plan, run: &Run) -> Result<bool, Fault> {
    let cannot = |what: &'static str| move |e: std::io::Error| Fault::failed(format!("cannot {what}"), &e);
    let vmm = aside(Shim::spawn).await.map_err(cannot("launch the VMM"))?;
    failpoint::reach("start: launched");
    let vsock = match &plan.vsock {
        Some(_) => Some(aside(Shim::spawn).await.map_err(cannot("launch the vsock device"))?),
        None => None,
    };
    let processes = Processes { vmm: vmm.process(), vsock: vsock.as_ref().map(Shim::process) };
    watch(driver, processes)?;
    // Stored before they become anything. If this fails, the shims are dropped here, and end.
    driver.enter(op, Event::Spawned(processes), Some(run)).await?;
    failpoint::reach("start: processes stored");
    if let (Some(shim), Some(launch)) = (vsock, &plan.vsock) {
        let device = shim.process();
        shim.release(launch).map_err(cannot("launch the vsock device"))?;
        let listening = async { listening(launch, device).await.map(|()| true) };
        if !future::or(listening, give_way(driver, Ok(false))).await? {
            return Ok(false);
        }
    }
    vmm.release(&plan.vmm).map_err(cannot("launch the VMM"))?;
    Ok(true)
}

/// Watches the processes from here on, and keeps what they write short.
fn watch(driver: &mut Driver, processes: Processes) -> Result<(), Fault> {
    let cannot =
        |what: &'static str| move |e: std::io::Error| Fault::failed(format!("cannot watch {what}"), &e);
    driver.vmm = Exit::of(processes.vmm).map_err(cannot("the VMM"))?;
    driver.device = match processes.vsock {
        Some(device) => Exit::of(device).map_err(cannot("the vsock device"))?,
        None => None,
    };
    driver.logs = keep_logs_short(&driver.d, &driver.record);
    Ok(())
}

/// Has root start the VMM in a jail. Root knows the processes before they become anything (root/launch.rs), and reconcile asks it
/// for those that this daemon could not store.
async fn launch_jailed(
    driver: &mut Driver,
    op: &Op,
    order: proto::root::Launch,
    descriptors: Vec<OwnedFd>,
    run: &Run,
) -> Result<(), Fault> {
    let asked = blocking(&driver.d, move |d| d.root.ask(&proto::root::Request::LaunchVm(order), descriptors));
    let processes = match asked.await? {
        proto::root::Answer::Launched { processes } => processes,
        _ => return Err(RootError::Nonsense("a launch").into()),
    };
    failpoint::reach("start: launched");
    watch(driver, processes)?;
    driver.enter(op, Event::Spawned(processes), Some(run)).await?;
    failpoint::reach("start: processes stored");
    Ok(())
}

/// Returns `value` when somebody wants the VM to end.
async fn give_way<T>(driver: &mut Driver, value: T) -> T {
    driver.interrupted(|what| matches!(what, What::Stop { .. } | What::Delete)).await;
    value
}

/// Waits until the program `launch` listens on its socket.
async fn listening(launch: &Launch, process: Process) -> Result<(), Fault> {
    let program = launch.argv.first().map_or("the vsock device", String::as_str).to_owned();
    let failed = |e: std::io::Error| Fault::failed(format!("cannot wait for {program}"), &e);
    let Some(exit) = Exit::of(process).map_err(failed)? else {
        return Err(program_ended(launch, &program));
    };
    let directory = launch.socket.parent().unwrap_or(Path::new("/"));
    // The watch is there before the first look, so that nothing happens unseen in between.
    let watch = watch_directory(directory).map_err(failed)?;
    let seen = async {
        loop {
            if endpoint::listens(&std::fs::read_to_string("/proc/net/unix")?, &launch.socket) {
                return Ok(true);
            }
            let created = watch.read_with(|fd| {
                let mut events = [0; 4096];
                Ok(rustix::io::read(fd, &mut events)?)
            });
            // Between bind(2), which makes the file, and listen(2) nothing tells that time has come.
            let soon = async {
                match launch.socket.try_exists() {
                    Ok(true) => Timer::after(Duration::from_millis(1)).await,
                    _ => future::pending().await,
                };
                Ok(0)
            };
            future::or(created, soon).await?;
        }
    };
    let ended = async {
        exit.ended().await;
        Ok(false)
    };
    let late = async {
        Timer::after(DEVICE).await;
        Err(std::io::ErrorKind::TimedOut.into())
    };
    match future::or(seen, future::or(ended, late)).await.map_err(failed)? {
        true => Ok(()),
        false => Err(program_ended(launch, &program)),
    }
}

fn program_ended(launch: &Launch, program: &str) -> Fault {
    let mut fault = Fault::new(Code::Failed, format!("{program} ended as soon as it was started"));
    fault.details = tail(&launch.log);
    fault
}

fn watch_directory(directory: &Path) -> std::io::Result<Async<OwnedFd>> {
    use rustix::fs::inotify;
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&fd, directory, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO)?;
    Async::new_nonblocking(fd)
}

/// Waits for the guest's word, and sets its clock.
async fn wait(
    driver: &mut Driver,
    channel: &Channel,
    listener: Listener,
    patience: Duration,
) -> Result<Outcome, Fault> {
    let listener = Async::new(listener).map_err(|e| Fault::failed("cannot wait for the guest", &e))?;
    let channel = channel.clone();
    let Some(vmm) = driver.vmm.take() else { return Ok(Outcome::Down(Down::Ended)) };
    let mut up = pin!(async {
        let fd = match listener.read_with(Listener::try_accept).await {
            Ok(fd) => fd,
            Err(e) => return Outcome::Down(Down::Broken(AgentError::Io(e))),
        };
        let spoken = aside(move || {
            let hello = agent::ready(fd.as_fd(), READY_LINE)?;
            let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
            let configure = Request::Configure(Configure { clock_ns: clock });
            agent::ask(&channel, &configure, agent::ANSWER_DEADLINE)?;
            Ok(hello)
        });
        spoken.await.map_or_else(|e| Outcome::Down(Down::Broken(e)), Outcome::Up)
    });
    let ended = async {
        vmm.ended().await;
        Outcome::Down(Down::Ended)
    };
    let late = async {
        Timer::after(patience).await;
        Outcome::Down(Down::Late(patience))
    };
    let give_way = give_way(driver, Outcome::GiveWay);
    let mut outcome = future::or(&mut up, future::or(ended, future::or(late, give_way))).await;
    if let Outcome::Down(Down::Ended) = outcome {
        // A guest that cannot come up says why, then ends; what it said may still be on its way, and is worth more.
        let silent = async {
            Timer::after(LAST_WORDS).await;
            Outcome::Down(Down::Ended)
        };
        outcome = match future::or(up, silent).await {
            Outcome::Up(_) => Outcome::Down(Down::Ended),
            other => other,
        };
    }
    driver.vmm = Some(vmm);
    Ok(outcome)
}

fn fault(driver: &Driver, down: Down) -> Fault {
    let name = &driver.record.name;
    let advice = format!("`banger vm logs {name}` shows its console");
    let ended = matches!(down, Down::Ended);
    let why = match down {
        Down::Broken(AgentError::Refused(refusal)) => {
            format!("the guest cannot come up: {}; {advice}", refusal.message)
        }
        Down::Broken(e) => format!("{}; {advice}", chain(&e)),
        Down::Ended => format!("the VMM ended before the guest was up; {advice}"),
        Down::Late(patience) => format!(
            "the guest did not come up within {} s; {advice}, and a bangerd started with BANGER_BOOT_TIMEOUT=SECONDS waits longer",
            patience.as_secs()
        ),
    };
    let mut fault = Fault::new(Code::NotReady, why);
    let directory = driver.d.dirs.vm(driver.record.id);
    fault.details = tail(&directory.join(machine::CONSOLE));
    // A VMM that gave up says why, whatever its guest had said before.
    if ended || fault.details.is_empty() {
        fault.details.extend(tail(&directory.join(machine::VMM_LOG)));
    }
    fault
}

/// The last lines of a log; none where it cannot be read.
fn tail(log: &Path) -> Vec<String> {
    use std::io::{Read, Seek, SeekFrom};
    const TAIL: u64 = 16 << 10;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => last_lines(&bytes, CONSOLE_LINES),
        Err(e) => {
            log::debug!("cannot read {}: {e}", log.display());
            vec![]
        }
    }
}
