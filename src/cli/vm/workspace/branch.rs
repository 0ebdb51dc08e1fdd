//! `banger vm workspace export --as-branch`: the guest's commits, asked of the git that is in the guest.

use super::export::Asked;
use crate::cli::client::{Attention, ClientError};
use crate::cli::error::Error;
use crate::cli::render;
use crate::cli::workspace::WorkspaceError;
use crate::cli::workspace::export::{Branch, Ran, Scratch, feed, only_there, run};
use crate::image::config::Asked as Command;
use crate::proto::api::{Code, VmExec};

/// What an image's environment could make git read or write elsewhere.
const UNSET: [&str; 8] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_TRACE",
];

/// Makes the branch `name`, and says what came.
pub fn bring(vm: &str, guest_path: Option<&str>, name: &str, force: bool) -> Result<(), Error> {
    let mut asked = Asked::find(vm, guest_path)?;
    let origin = asked.origin()?;
    let Some(found) = &origin.found else {
        let text = "a plain copy has no commits to make a branch of; leave --as-branch out for a patch";
        return Err(Error::Refused(text.to_owned()));
    };
    let branch = Branch::judge(found, name, force)?;
    let held = asked.open(false)?.held;
    let (Some(placed), Some(head)) = (held.placed, held.head) else {
        let text = format!("{} of VM {} is at no commit", asked.workspace.guest_path, asked.vm.record.name);
        return Err(Error::Refused(text));
    };
    if placed.head.as_ref() == Some(&head) {
        return Err(Error::Refused(format!(
            "nothing was committed in VM {0} since {1} was brought; `banger vm workspace export {0}` makes a patch of what is not committed",
            asked.vm.record.name, asked.workspace.guest_path
        )));
    }
    // Until the branch is made, the pack is nowhere else.
    let scratch = Scratch::make(&origin.cache, found.format, Some(&found.common.join("objects")))?
        .patient(&origin.patience);
    let pack = match branch.wanted(&placed, &head)? {
        None => None,
        Some(wanted) => {
            let mut revisions = format!("{}\n", wanted.head);
            for base in &wanted.bases {
                revisions.push_str(&format!("^{base}\n"));
            }
            Some(branch.receive(&scratch, &wanted, |stdin| {
                let args = ["pack-objects", "--revs", "--stdout", "--thin", "--delta-base-offset", "-q"];
                let ran = git(&mut asked, &args, revisions.as_bytes(), |bytes| feed(stdin, bytes))?;
                // Where index-pack wants no more, it says why.
                ran.map_or(Ok(()), |ran| succeeded(&ran))
            })?)
        }
    };
    let brought = placed.head.unwrap_or_default();
    let why = format!("banger: VM {}", asked.vm.record.name);
    let commits = branch.publish(pack, &head, &brought, &why)?;
    asked.progress.clear();
    let plural = if commits == 1 { "" } else { "s" };
    render::out_line(&format!("branch {name}: {commits} commit{plural}, at {}", &head[..7]))?;
    for (path, id) in only_there(found, &brought, &head)? {
        render::say(&format!(
            "the submodule {path} is at {} there, which stays in the guest; in {path}, `git fetch {}.vm:{}/{path}` brings it",
            &id[..7],
            asked.vm.record.name,
            asked.workspace.guest_path
        ));
    }
    match uncommitted(&mut asked) {
        0 => {}
        n => render::say(&format!(
            "{n} uncommitted {} in the guest; `banger vm workspace export {} --base-commit {name}` brings {} as a patch",
            if n == 1 { "change stays" } else { "changes stay" },
            asked.vm.record.name,
            if n == 1 { "it" } else { "them" }
        )),
    }
    Ok(())
}

/// How many paths the guest's git calls changed; what it does not say is not worth an error.
fn uncommitted(asked: &mut Asked) -> usize {
    let args = ["status", "--porcelain", "-z", "--untracked-files=all", "--no-renames"];
    let mut count = 0;
    let counted = git(asked, &args, b"", |bytes| {
        count += bytes.iter().filter(|b| **b == 0).count();
        true
    });
    if matches!(counted, Ok(Some(Ran { status: 0, .. }))) { count } else { 0 }
}

/// Runs git in the work tree of the guest, which writes nothing there.
fn git(
    asked: &mut Asked,
    args: &[&str],
    input: &[u8],
    take: impl FnMut(&[u8]) -> bool,
) -> Result<Option<Ran>, Error> {
    let path = asked.workspace.guest_path.as_str();
    let fixed =
        ["git", "--no-optional-locks", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", path];
    let command = Command {
        argv: fixed.iter().chain(args).map(|word| (*word).to_owned()).collect(),
        env: UNSET.iter().map(|name| (*name).to_owned()).collect(),
        cwd: Some("/".to_owned()),
        user: Some("0".to_owned()),
    };
    let vm = asked.vm.record.id.to_string();
    let request = VmExec { vm, asked: command, as_run: false, tty: None, stdin: true };
    let attention = &mut Attention { progress: &mut asked.progress, signals: Some(&mut asked.signals) };
    let guest = match asked.client.open(request, attention) {
        Ok(guest) => guest,
        Err(ClientError::Failed(failure)) if failure.code == Code::NoProgram => {
            return Err(Error::Refused(format!(
                "there is no git in VM {0}, which has to pack its commits; `banger vm workspace export {0}` makes a patch without it",
                asked.vm.record.name
            )));
        }
        Err(e) => return Err(e.into()),
    };
    Ok(run(guest, input, attention, take)?)
}

fn succeeded(ran: &Ran) -> Result<(), Error> {
    match ran.status {
        0 => Ok(()),
        status => {
            let why = ran.stderr.lines().last().unwrap_or_default();
            let text = format!("git in the guest ended with status {status}: {why}");
            Err(WorkspaceError::Refused(text).into())
        }
    }
}
