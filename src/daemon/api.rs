//! Requests: from a connection to a handler, and its events, answer or error back.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::geteuid;
use smol::channel::{Receiver, bounded};
use smol::future::FutureExt;
use smol::{Async, Timer, future};

use crate::daemon::fault::Fault;
use crate::daemon::op::Op;
use crate::daemon::orders::What;
use crate::daemon::socket::{Asked, Client, NoRequest, Peer};
use crate::daemon::{
    Daemon, Shared, bundles, cache, catalogs, doctor, events, guest, health, images, kernels, operations,
    ports, pulls, registered, unsettled, usage, vms, workspace,
};
use crate::host::files::remove_if_present;
use crate::proto::api::*;
use crate::store::record::Run;

/// Events that wait for a client to read them.
const EVENTS: usize = 64;
/// Longer than this waits nobody for a descriptor to become free again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until it is dropped.
pub async fn serve(d: Shared, listener: Async<UnixListener>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let conversation = converse(Arc::clone(&d), Client::new(stream));
                // Detached: it ends by its own deadlines, and with the executor, which owns it.
                if let Some(task) = d.spawn(conversation) {
                    task.detach();
                }
            }
            Err(e) => {
                log::warn!("cannot accept a connection: {e}");
                Timer::after(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What a handler has to give: the answer, and the descriptor that goes with it.
struct Answer {
    value: serde_json::Value,
    fd: Option<OwnedFd>,
}

async fn converse(d: Shared, client: Client) {
    let (events, news) = bounded(EVENTS);
    let peer = match client.peer() {
        Ok(peer) => peer,
        Err(e) => return log::warn!("cannot ask who connected: {e}"),
    };
    let op = Op::of_client(peer.pid, events);
    let (outcome, stops) = match hear(&client, peer, &op).await {
        Err(NoRequest::Gone) => return,
        Err(NoRequest::Refused(why)) => {
            if let Err(e) = reply(&client, &op, Err(Fault::new(Code::BadRequest, why))).await {
                log::debug!("{op} cannot send the refusal: {e}");
            }
            return client.drain().await;
        }
        Ok((request, fd)) => {
            let stops = matches!(request, Request::DaemonStop(_));
            let going = operations::subject(&request)
                .map(|subject| operations::begin(&d, &op, request.method(), subject));
            let work = async {
                // A mistake of ours in one request must not take the others with it.
                let work = async {
                    unsettled::refuse(d.journal.as_deref(), &request)?;
                    dispatch(&d, &op, request, fd).await
                };
                let work = AssertUnwindSafe(work).catch_unwind();
                let work = async { work.await.unwrap_or_else(|_| Err(panicked())) };
                let outcome = future::or(work, hung_up(&client, &op)).await;
                if let Some(going) = going {
                    going.ended(outcome.as_ref().err());
                }
                news.close();
                outcome
            };
            // Both to their ends: an event that is half written must not be followed by the answer.
            let telling = async {
                // Nobody reads any more, whether or not the connection says so.
                tell(&client, &news).await.inspect_err(|_| op.cancel())
            };
            match future::zip(work, telling).await {
                (outcome, Ok(())) => (outcome, stops),
                (_, Err(e)) => return log::debug!("{op} cannot send an event: {e}"),
            }
        }
    };
    if let Err(e) = reply(&client, &op, outcome).await {
        log::debug!("{op} cannot send the answer: {e}");
    }
    if stops && d.stop.try_send(()).is_err() {
        log::debug!("{op} the daemon is ending already");
    }
}

fn panicked() -> Fault {
    Fault::new(Code::Failed, "bangerd made a mistake and gave up on this request; its log says where")
}

/// Reads the request, if it comes from somebody who may ask.
async fn hear(client: &Client, peer: Peer, op: &Op) -> Result<(Request, Option<OwnedFd>), NoRequest> {
    let mine = geteuid().as_raw();
    if peer.uid != mine && peer.uid != 0 {
        log::warn!("{op} refused uid {} (pid {})", peer.uid, peer.pid);
        let text = format!("this bangerd serves uid {mine}, and you are uid {}", peer.uid);
        return Err(NoRequest::Refused(text));
    }
    let Asked { line, fd } = client.request().await?;
    let request =
        Request::from_json(&line).map_err(|e| NoRequest::Refused(format!("{UNKNOWN_REQUEST}: {e}")))?;
    log::debug!("{op} pid {} asks {}", peer.pid, request.method());
    Ok((request, fd))
}

/// Tells the client what goes on, until `news` is closed.
async fn tell(client: &Client, news: &Receiver<Event>) -> io::Result<()> {
    while let Ok(event) = news.recv().await {
        client.reply(&Reply::Event(event), None).await?;
    }
    Ok(())
}

/// Tells the operation when nobody waits for it any more. Never returns.
async fn hung_up<T>(client: &Client, op: &Op) -> T {
    client.hung_up().await;
    log::debug!("{op} the client has gone");
    op.cancel();
    future::pending().await
}

/// Sends the last line.
async fn reply(client: &Client, op: &Op, outcome: Result<Answer, Fault>) -> io::Result<()> {
    match outcome {
        Ok(Answer { value, fd }) => client.reply(&Reply::Done(value), fd.as_ref().map(|fd| fd.as_fd())).await,
        Err(fault) => {
            let failure = fault.into_failure(op.id());
            log::info!("{op} failed: {}", failure.message);
            client.reply(&Reply::Error(failure), None).await
        }
    }
}

/// The answer to a call of type `C`: the compiler checks that a handler gives what the protocol promises.
fn answer<C: Call>(value: C::Answer) -> Result<Answer, Fault> {
    let value = serde_json::to_value(value).map_err(|e| Fault::failed("cannot write the answer", &e))?;
    Ok(Answer { value, fd: None })
}

fn answer_with<C: Call<Answer = ()>>(fd: OwnedFd) -> Result<Answer, Fault> {
    answer_and::<C>(((), fd))
}

fn answer_and<C: Call>((value, fd): (C::Answer, OwnedFd)) -> Result<Answer, Fault> {
    Ok(Answer { fd: Some(fd), ..answer::<C>(value)? })
}

async fn dispatch(d: &Shared, op: &Op, request: Request, fd: Option<OwnedFd>) -> Result<Answer, Fault> {
    match request {
        Request::DaemonStatus(_) => answer::<DaemonStatus>(status(d)?),
        Request::DaemonDoctor(_) => answer::<DaemonDoctor>(doctor::examine(d).await?),
        Request::DaemonMend(r) => answer::<DaemonMend>(doctor::mend(d, r.fix).await?),
        Request::DaemonStop(_) => answer::<DaemonStop>(close(d)?),
        Request::DaemonOperations(_) => answer::<DaemonOperations>(d.operations.list()),
        Request::DaemonEvents(r) => answer::<DaemonEvents>(events::stream(d, op, r).await?),
        Request::VmCreate(r) => answer::<VmCreate>(vms::create(d, op, r).await?),
        Request::VmStart(r) => answer::<VmStart>(change(d, op, &r.vm, What::Start).await?),
        Request::VmStop(r) => answer::<VmStop>(change(d, op, &r.vm, What::Stop { force: r.force }).await?),
        Request::VmSet(r) => answer::<VmSet>(change(d, op, &r.vm, What::Set(Box::new(r.change))).await?),
        Request::VmDelete(r) => {
            let what = if r.only_if_ended { What::Prune } else { What::Delete };
            answer::<VmDelete>(vms::order(d, op, &r.vm, what).await.map(drop)?)
        }
        Request::VmList(_) => answer::<VmList>(vms::list(d)?),
        Request::VmShow(r) => answer::<VmShow>(vms::show(d, &r.vm)?),
        Request::VmExec(r) => answer_and::<VmExec>(guest::exec(d, r).await?),
        Request::VmRead(r) => answer_with::<VmRead>(guest::read(d, r).await?),
        Request::VmWrite(r) => answer_with::<VmWrite>(guest::write(d, r).await?),
        Request::VmPrepare(r) => answer_and::<VmPrepare>(workspace::prepare(d, r).await?),
        Request::VmChanges(r) => answer_and::<VmChanges>(workspace::changes(d, r).await?),
        Request::VmWorkspace(r) => {
            answer::<VmWorkspace>(change(d, op, &r.vm, What::Workspace(Box::new(r.workspace))).await?)
        }
        Request::VmPorts(r) => answer::<VmPorts>(ports::ports(d, r).await?),
        Request::VmStats(r) => answer::<VmStats>(usage::stats(d, &r).await?),
        Request::VmPing(r) => answer::<VmPing>(health::ping(d, &r).await?),
        Request::VmHealth(r) => answer::<VmHealth>(health::examine(d, &r.vm).await?),
        Request::VmLogs(r) => answer_and::<VmLogs>(guest::logs(d, &r)?),
        Request::ImagePull(r) => answer::<ImagePull>(pulls::pull(d, op, r).await?),
        Request::ImageImport(r) => answer::<ImageImport>(pulls::import(d, op, r, fd).await?),
        Request::ImageRegister(r) => answer::<ImageRegister>(registered::register(d, op, r).await?),
        Request::ImagePromote(r) => answer::<ImagePromote>(registered::promote(d, op, r.image).await?),
        Request::ImageList(_) => answer::<ImageList>(images::list(d)?),
        Request::ImageCatalog(r) => answer::<ImageCatalog>(catalogs::images(d, op, r).await?),
        Request::ImageShow(r) => answer::<ImageShow>(images::show(d, &r.image)?),
        Request::ImageTag(r) => answer::<ImageTag>(images::tag(d, r.image, r.name).await?),
        Request::ImageDelete(r) => answer::<ImageDelete>(images::delete(d, op, r.image).await?),
        Request::ImageCacheList(_) => answer::<ImageCacheList>(cache::list(d).await?),
        Request::ImageCachePrune(r) => answer::<ImageCachePrune>(cache::prune(d, op, r.dry_run).await?),
        Request::KernelImport(r) => answer::<KernelImport>(kernels::import(d, op, r).await?),
        Request::KernelPull(r) => answer::<KernelPull>(kernels::pull(d, op, r).await?),
        Request::KernelCatalog(r) => answer::<KernelCatalog>(catalogs::kernels(d, op, r).await?),
        Request::KernelList(_) => answer::<KernelList>(kernels::list(d)?),
        Request::KernelShow(r) => answer::<KernelShow>(kernels::show(d, &r.kernel)?),
        Request::KernelRemove(r) => answer::<KernelRemove>(kernels::remove(d, op, r.kernel).await?),
        Request::KernelDefault(r) => answer::<KernelDefault>(kernels::set_default(d, r.kernel).await?),
        Request::BundleCreate(r) => answer::<BundleCreate>(bundles::create(d, op, r, fd).await?),
        Request::BundleInstall(r) => answer::<BundleInstall>(bundles::install(d, op, r, fd).await?),
    }
}

async fn change(d: &Shared, op: &Op, typed: &str, what: What) -> Result<VmView, Fault> {
    let id = vms::order(d, op, typed, what).await?;
    vms::show(d, &id.to_string())
}

/// Takes the socket away, so that whoever comes after the answer to `daemon.stop` starts the next daemon.
fn close(d: &Daemon) -> Result<(), Fault> {
    remove_if_present(&d.dirs.socket()).map_err(|e| Fault::failed("cannot remove the socket", &e))
}

fn status(d: &Daemon) -> Result<DaemonView, Fault> {
    Ok(DaemonView {
        pid: std::process::id(),
        version: crate::build::VERSION.to_owned(),
        commit: crate::build::COMMIT.to_owned(),
        built: crate::build::BUILT.to_owned(),
        started_at: d.started_at,
        socket: d.dirs.socket().display().to_string(),
        state_dir: d.dirs.state.display().to_string(),
        running_vms: d.store.all::<Run>()?.len(),
        dns: d.dns.view(),
        dns_suffix: d.config.network.suffix.to_string(),
        config: d.config_digest.clone(),
    })
}
