//! What goes on inside a running guest: the daemon opens the connection, hands it to the client, and is out of the way.

use std::fs::File;
use std::os::fd::OwnedFd;

use crate::daemon::agent;
use crate::daemon::fault::Fault;
use crate::daemon::log_times::Times;
use crate::daemon::uses::{self, Using};
use crate::daemon::{Daemon, Shared, blocking, machine, vms};
use crate::image::record::ImageRecord;
use crate::proto::agent::{Answer, Exec, Request};
use crate::proto::api::{Code, Log, VmExec, VmLogs, VmRead, VmWrite};
use crate::store::record::Run;
use crate::vm::record::VmRecord;
use crate::vm::state::State;
use crate::vm::workspace::Workspace;
use crate::vmm::Channel;

/// Starts a command, composed as docker composes it of the image and what was asked for; in the work tree that was brought last, if one was.
pub async fn exec(d: &Shared, wanted: VmExec) -> Result<(Option<Workspace>, OwnedFd), Fault> {
    let (mut record, channel, _using) = using(d, &wanted.vm)?;
    let image = d.store.get::<ImageRecord>(&record.image)?;
    let config = image.map(|image| image.config).unwrap_or_default();
    let command = if wanted.as_run { config.run(&wanted.asked) } else { config.exec(&wanted.asked) };
    let tree = record.workspaces.pop();
    let in_tree = tree.as_ref().filter(|_| wanted.asked.cwd.is_none()).map(|tree| tree.guest_path.clone());
    let request = Request::Exec(Exec {
        argv: command.argv,
        env: command.env,
        cwd: in_tree.unwrap_or(command.cwd),
        // docker makes a WorkingDir that is missing, and refuses a directory that a person has misspelt.
        make_cwd: wanted.asked.cwd.is_none(),
        user: command.user,
        tty: wanted.tty,
        stdin: wanted.stdin,
        login: tree.is_some(),
    });
    let fits = |answer: &Answer| matches!(answer, Answer::Started { .. });
    Ok((tree, converse(d, channel, request, fits).await?))
}

pub async fn read(d: &Shared, wanted: VmRead) -> Result<OwnedFd, Fault> {
    let (_, channel, _using) = using(d, &wanted.vm)?;
    converse(d, channel, Request::Read(wanted.read), |answer| *answer == Answer::Done).await
}

pub async fn write(d: &Shared, wanted: VmWrite) -> Result<OwnedFd, Fault> {
    let (_, channel, _using) = using(d, &wanted.vm)?;
    converse(d, channel, Request::Write(wanted.write), |answer| *answer == Answer::Done).await
}

/// Opens a log, and finds where what was asked for begins; the one of a VM that never ran does not exist.
pub fn logs(d: &Daemon, wanted: &VmLogs) -> Result<(Option<u64>, OwnedFd), Fault> {
    let record = vms::find(d, &wanted.vm)?;
    let name = match wanted.which {
        Log::Console => machine::CONSOLE,
        Log::Vmm => machine::VMM_LOG,
    };
    let path = d.dirs.vm(record.id).join(name);
    let cannot = |e: std::io::Error| Fault::failed(format!("cannot open the log of vm {}", record.name), &e);
    match File::open(&path) {
        Ok(file) => {
            let meta = file.metadata().map_err(cannot)?;
            let start = wanted.since_ms.map(|since| Times::open(&path).start(since, &meta));
            Ok((start, file.into()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(Fault::new(Code::NotFound, format!("vm {} has not run yet, so there is no log", record.name)))
        }
        Err(e) => Err(cannot(e)),
    }
}

async fn converse(
    d: &Shared,
    channel: Channel,
    request: Request,
    fits: impl Fn(&Answer) -> bool,
) -> Result<OwnedFd, Fault> {
    let (answer, fd) = ask(d, channel, request).await?;
    if fits(&answer) { Ok(fd) } else { Err(another_answer()) }
}

/// Asks the agent behind `channel`; the connection stands just behind its answer.
pub async fn ask(d: &Shared, channel: Channel, request: Request) -> Result<(Answer, OwnedFd), Fault> {
    Ok(blocking(d, move |_| agent::ask(&channel, &request, agent::ANSWER_DEADLINE)).await?)
}

/// The guest answered something else than it was asked.
pub fn another_answer() -> Fault {
    Fault::new(
        Code::Failed,
        "the guest's agent does not speak banger's protocol: an answer to something else",
    )
}

/// The VM that `typed` means and the way into it, for somebody who uses it: as long as the last part is held, it is not stopped for
/// being unused.
pub fn using(d: &Shared, typed: &str) -> Result<(VmRecord, Channel, Using), Fault> {
    let id = vms::find(d, typed)?.id;
    let using = uses::begin(d, id);
    // Looked at once more: it may have been stopped in between.
    let (record, channel) = running(d, &id.to_string())?;
    match using {
        Some(using) => Ok((record, channel, using)),
        None => {
            let name = &record.name;
            let text = format!(
                "vm {name} is being stopped, since nobody used it for long (auto_stop_stale_after); `banger vm start {name}` starts it again"
            );
            Err(Fault::new(Code::NotRunning, text))
        }
    }
}

/// The VM that `typed` means and the way into it, for somebody who only looks.
pub fn running(d: &Daemon, typed: &str) -> Result<(VmRecord, Channel), Fault> {
    let record = vms::find(d, typed)?;
    let name = &record.name;
    let not_running = |what: String| Fault::new(Code::NotRunning, what);
    match &record.state {
        State::Running { .. } => {}
        State::Stopped => {
            return Err(not_running(format!("vm {name} is stopped; `banger vm start {name}` starts it")));
        }
        State::Failed { reason } => {
            return Err(not_running(format!(
                "vm {name} is not running, since its last start failed ({reason}); `banger vm start {name}` tries again"
            )));
        }
        State::Starting { .. } | State::Stopping { .. } | State::Deleting => {
            return Err(not_running(format!("vm {name} is {}", record.state.label())));
        }
    }
    if let Some(problem) = vms::problem(&record) {
        return Err(Fault::new(Code::Failed, format!("vm {name} runs, but {problem}")));
    }
    let run = d.store.get::<Run>(record.id)?;
    let run =
        run.ok_or_else(|| not_running(format!("nothing is stored of how vm {name} runs; restart it")))?;
    Ok((record, machine::channel(&run)))
}
