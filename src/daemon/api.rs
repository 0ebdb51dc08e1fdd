//! Requests: from a connection to a handler, and its events, answer or error back.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::geteuid;
use smol::channel::bounded;
use smol::{Async, Timer, future};

use crate::daemon::fault::Fault;
use crate::daemon::op::Op;
use crate::daemon::orders::What;
use crate::daemon::socket::{Asked, Client, NoRequest};
use crate::daemon::{Daemon, Shared, guest, images, kernels, vms};
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
    let stopping = std::cell::Cell::new(false);
    let work = async {
        let mine = geteuid().as_raw();
        if peer.uid != mine && peer.uid != 0 {
            log::warn!("{op} refused uid {} (pid {})", peer.uid, peer.pid);
            let text = format!("this bangerd serves uid {mine}, and you are uid {}", peer.uid);
            return Some(Err(Fault::new(Code::BadRequest, text)));
        }
        let Asked { line, fd } = match client.request().await {
            Ok(asked) => asked,
            Err(NoRequest::Gone) => return None,
            Err(NoRequest::Refused(why)) => return Some(Err(Fault::new(Code::BadRequest, why))),
        };
        let request: Request = match serde_json::from_slice(&line) {
            Ok(request) => request,
            Err(e) => {
                return Some(Err(Fault::because(Code::BadRequest, "this is no request that bangerd knows", &e)));
            }
        };
        drop(line);
        stopping.set(matches!(request, Request::DaemonStop(_)));
        log::debug!("{op} pid {} asks {}", peer.pid, method(&request));
        let hung_up = async {
            client.hung_up().await;
            log::debug!("{op} the client has gone");
            op.cancel();
            future::pending().await
        };
        Some(future::or(dispatch(&d, &op, request, fd), hung_up).await)
    };
    // One after the other on one socket: whoever tells the events must be done before the answer is sent.
    let told = async {
        while let Ok(event) = news.recv().await {
            if let Err(e) = client.reply(&Reply::Event(event), None).await {
                log::debug!("{op} cannot send an event: {e}");
                break;
            }
        }
        future::pending().await
    };
    let Some(outcome) = future::or(work, told).await else { return };
    while let Ok(event) = news.try_recv() {
        if client.reply(&Reply::Event(event), None).await.is_err() {
            return;
        }
    }
    let sent = match outcome {
        Ok(Answer { value, fd }) => {
            client.reply(&Reply::Done(value), fd.as_ref().map(|fd| fd.as_fd())).await
        }
        Err(fault) => {
            let failure = fault.into_failure(op.id());
            log::info!("{op} failed: {}", failure.message);
            client.reply(&Reply::Error(failure), None).await
        }
    };
    if let Err(e) = sent {
        log::debug!("{op} cannot send the answer: {e}");
    }
    if stopping.get() && d.stop.try_send(()).is_err() {
        log::debug!("{op} the daemon is ending already");
    }
}

fn method(request: &Request) -> String {
    let tag = serde_json::to_value(request).ok();
    tag.and_then(|v| v.get("method")?.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The answer to a call of type `C`: the compiler checks that a handler gives what the protocol promises.
fn answer<C: Call>(value: C::Answer) -> Result<Answer, Fault> {
    let value = serde_json::to_value(value).map_err(|e| Fault::failed("cannot write the answer", &e))?;
    Ok(Answer { value, fd: None })
}

fn answer_with<C: Call<Answer = ()>>(fd: OwnedFd) -> Result<Answer, Fault> {
    Ok(Answer { fd: Some(fd), ..answer::<C>(())? })
}

async fn dispatch(d: &Shared, op: &Op, request: Request, fd: Option<OwnedFd>) -> Result<Answer, Fault> {
    match request {
        Request::DaemonStatus(_) => answer::<DaemonStatus>(status(d)?),
        Request::DaemonStop(_) => answer::<DaemonStop>(()),
        Request::VmCreate(r) => answer::<VmCreate>(vms::create(d, op, r).await?),
        Request::VmStart(r) => answer::<VmStart>(change(d, op, &r.vm, What::Start).await?),
        Request::VmStop(r) => answer::<VmStop>(change(d, op, &r.vm, What::Stop { force: r.force }).await?),
        Request::VmDelete(r) => answer::<VmDelete>(vms::order(d, op, &r.vm, What::Delete).await.map(drop)?),
        Request::VmList(_) => answer::<VmList>(vms::list(d)?),
        Request::VmShow(r) => answer::<VmShow>(vms::show(d, &r.vm)?),
        Request::VmExec(r) => answer_with::<VmExec>(guest::exec(d, r).await?),
        Request::VmRead(r) => answer_with::<VmRead>(guest::read(d, r).await?),
        Request::VmWrite(r) => answer_with::<VmWrite>(guest::write(d, r).await?),
        Request::VmLogs(r) => answer_with::<VmLogs>(guest::logs(d, &r)?),
        Request::ImagePull(r) => answer::<ImagePull>(images::pull(d, op, r).await?),
        Request::ImageImport(r) => answer::<ImageImport>(images::import(d, op, r, fd).await?),
        Request::ImageList(_) => answer::<ImageList>(images::list(d)?),
        Request::ImageShow(r) => answer::<ImageShow>(images::show(d, &r.image)?),
        Request::ImageTag(r) => answer::<ImageTag>(images::tag(d, r.image, r.name).await?),
        Request::ImageDelete(r) => answer::<ImageDelete>(images::delete(d, op, r.image).await?),
        Request::KernelImport(r) => answer::<KernelImport>(kernels::import(d, op, r).await?),
        Request::KernelList(_) => answer::<KernelList>(kernels::list(d)?),
        Request::KernelShow(r) => answer::<KernelShow>(kernels::show(d, &r.kernel)?),
        Request::KernelRemove(r) => answer::<KernelRemove>(kernels::remove(d, op, r.kernel).await?),
        Request::KernelDefault(r) => answer::<KernelDefault>(kernels::set_default(d, r.kernel).await?),
    }
}

async fn change(d: &Shared, op: &Op, typed: &str, what: What) -> Result<VmView, Fault> {
    let id = vms::order(d, op, typed, what).await?;
    vms::show(d, &id.to_string())
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
    })
}
