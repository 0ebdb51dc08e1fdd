//! `banger vm workspace export` and `diff`: what became of a work tree, as a patch or as a branch.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use super::branch;
use super::file::Output;
use super::prepare::guest_path_of;
use crate::cli::client::{Attention, Client, ClientError};
use crate::cli::error::Error;
use crate::cli::render::{self, PatchLines, Progress};
use crate::cli::signals::Signals;
use crate::cli::workspace::Guest;
use crate::cli::workspace::export::{Base, Change, How, Origin, Patch, Unwritten};
use crate::host::dirs::Dirs;
use crate::proto::api::{VmChanges, VmShow, VmView};
use crate::proto::workspace::Changes;
use crate::vm::workspace::Workspace;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Bring what became of a work tree back: as a patch of everything, or the commits alone as a branch.
#[argh(
    subcommand,
    name = "export",
    help_triggers("-h", "--help", "help"),
    example = "banger vm workspace export dev | git apply          # everything since it was brought\n\
               banger vm workspace export dev --output dev.patch\n\
               banger vm workspace export dev --base-commit main   # everything that is not in main\n\
               banger vm workspace export dev --as-branch dev      # its commits, as the branch dev here",
    note = "The patch holds commits and what is not committed, new files too, but for ignored ones; without --base-commit it fits the files here as \
            they were when they were brought. Nothing in the guest is changed, and here nothing is checked out or run."
)]
pub struct Export {
    /// the VM's name, its id, or the beginning of its id
    #[argh(positional)]
    vm: String,
    /// the work tree in the guest; the one that was brought last if not given
    #[argh(option, arg_name = "dir", from_str_fn(guest_path_of))]
    guest_path: Option<String>,
    /// write the patch to this file, whole or not at all
    #[argh(option, arg_name = "file")]
    output: Option<PathBuf>,
    /// everything that differs from this commit of the repository here
    #[argh(option, arg_name = "commit")]
    base_commit: Option<String>,
    /// bring the guest's commits as this branch of the repository here, and no patch
    #[argh(option, arg_name = "branch")]
    as_branch: Option<String>,
    /// with --as-branch: move a branch that exists
    #[argh(switch)]
    force: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Show what became of a work tree since it was brought.
#[argh(
    subcommand,
    name = "diff",
    help_triggers("-h", "--help", "help"),
    example = "banger vm workspace diff dev\n\
               banger vm workspace diff dev --stat\n\
               banger vm workspace diff dev --name-only\n\
               banger vm workspace diff dev --json       # each path with its modes"
)]
pub struct Diff {
    /// the VM's name, its id, or the beginning of its id
    #[argh(positional)]
    vm: String,
    /// the work tree in the guest; the one that was brought last if not given
    #[argh(option, arg_name = "dir", from_str_fn(guest_path_of))]
    guest_path: Option<String>,
    /// everything that differs from this commit of the repository here
    #[argh(option, arg_name = "commit")]
    base_commit: Option<String>,
    /// show how much changed in each file
    #[argh(switch)]
    stat: bool,
    /// show the paths alone
    #[argh(switch)]
    name_only: bool,
    /// print JSON: each path, how it changed, and its modes
    #[argh(switch)]
    json: bool,
}

#[derive(Serialize)]
struct DiffView<'a> {
    guest_path: &'a str,
    source: &'a str,
    /// None: what was brought.
    base_commit: Option<&'a str>,
    changes: &'a [Change],
}

/// A work tree of a VM, and who attends to what is asked about it.
pub struct Asked {
    pub client: Client,
    pub vm: VmView,
    pub workspace: Workspace,
    pub progress: Progress,
    pub signals: Signals,
}

impl Asked {
    /// Finds the work tree at `guest_path`, or the one that was brought last.
    pub fn find(vm: &str, guest_path: Option<&str>) -> Result<Self, Error> {
        let client = Client::from_env()?;
        let progress = Progress::new(false);
        let signals =
            Signals::catch().map_err(|source| Error::Host { what: "catch signals".to_owned(), source })?;
        let vm = client.ask(VmShow { vm: vm.to_owned() })?;
        let workspace = chosen(&vm, guest_path)?.clone();
        Ok(Self { client, vm, workspace, progress, signals })
    }

    /// This host's side of it.
    pub fn origin(&self) -> Result<Origin, Error> {
        let dirs = Dirs::from_env().map_err(ClientError::NoHome)?;
        Ok(Origin::find(&self.workspace, &dirs.cache, self.signals.patience())?)
    }

    /// Asks the guest what differs, or for all of its paths.
    pub fn open(&mut self, all: bool) -> Result<Guest, Error> {
        let changes = Changes { path: self.workspace.guest_path.clone(), all };
        let request = VmChanges { vm: self.vm.record.id.to_string(), changes };
        let attention = &mut Attention { progress: &mut self.progress, signals: Some(&mut self.signals) };
        let (held, connection) = self.client.open_with(request, attention)?;
        Ok(Guest { held, connection })
    }

    fn patch(&mut self, named: Option<&str>) -> Result<Patch, Error> {
        let origin = self.origin()?;
        let base = named.map(|named| Base::find(&origin, named)).transpose()?;
        let guest = self.open(base.is_some())?;
        let attention = &mut Attention { progress: &mut self.progress, signals: Some(&mut self.signals) };
        let patch = Patch::make(&origin, guest, base.as_ref(), attention)?;
        self.progress.clear();
        for note in &patch.notes {
            render::say(&format!("note: {note}"));
        }
        if patch.is_empty() {
            render::say(&nothing(&self.workspace, named));
        }
        Ok(patch)
    }

    /// Ctrl-C ends git too, whose failure is not what happened.
    fn unless_interrupted(&mut self, done: Result<(), Error>) -> Result<(), Error> {
        match (done, self.signals.asked_to_end()) {
            (Err(_), Some(signal)) => Err(ClientError::Interrupted(signal).into()),
            (done, _) => done,
        }
    }
}

fn chosen<'v>(vm: &'v VmView, guest_path: Option<&str>) -> Result<&'v Workspace, Error> {
    let (all, name) = (&vm.record.workspaces, &vm.record.name);
    let found = match guest_path {
        None => all.last(),
        Some(at) => all.iter().rfind(|known| known.guest_path == at),
    };
    found.ok_or_else(|| {
        Error::Refused(match guest_path {
            Some(at) if !all.is_empty() => {
                let known: Vec<&str> = all.iter().map(|known| known.guest_path.as_str()).collect();
                format!("no work tree was brought to {at} of VM {name}; there is {}", known.join(", "))
            }
            _ => format!(
                "no work tree was brought to VM {name}; `banger vm workspace prepare {name} PATH` does"
            ),
        })
    })
}

impl Export {
    pub fn run(&self) -> Result<(), Error> {
        match &self.as_branch {
            Some(_) if self.output.is_some() || self.base_commit.is_some() => {
                let text = "--as-branch brings commits, --output and --base-commit are about a patch; choose one of them";
                return Err(Error::Refused(text.to_owned()));
            }
            Some(name) => return branch::bring(&self.vm, self.guest_path.as_deref(), name, self.force),
            None if self.force => return Err(Error::Refused("--force goes with --as-branch".to_owned())),
            None => {}
        }
        let mut asked = Asked::find(&self.vm, self.guest_path.as_deref())?;
        // Before anything is asked of the guest, and after signals are caught: what is half made is removed.
        let output = self.output.as_deref().map(Output::open).transpose()?;
        let patch = asked.patch(self.base_commit.as_deref())?;
        let done = match (output, &self.output) {
            (Some(output), Some(path)) => to_file(&patch, output, path),
            _ => to_stdout(&patch, How::Patch),
        };
        asked.unless_interrupted(done)
    }
}

impl Diff {
    pub fn run(&self) -> Result<(), Error> {
        let how = match (self.stat, self.name_only, self.json) {
            (true, false, false) => How::Stat,
            (false, true, false) => How::Names,
            (false, false, _) => How::Patch,
            _ => {
                let text = "--stat, --name-only and --json show different things; choose one of them";
                return Err(Error::Refused(text.to_owned()));
            }
        };
        let mut asked = Asked::find(&self.vm, self.guest_path.as_deref())?;
        let patch = asked.patch(self.base_commit.as_deref())?;
        if self.json {
            let Workspace { guest_path, source, .. } = &asked.workspace;
            let changes = &patch.changes()?;
            return render::json(&DiffView {
                guest_path,
                source,
                base_commit: self.base_commit.as_deref(),
                changes,
            });
        }
        asked.unless_interrupted(to_stdout(&patch, how))
    }
}

fn nothing(workspace: &Workspace, base: Option<&str>) -> String {
    let path = &workspace.guest_path;
    match base {
        Some(base) => format!("{path} does not differ from {base}"),
        None => format!("{path} is as it was brought"),
    }
}

fn to_file(patch: &Patch, mut output: Output, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Host { what: format!("write {}", path.display()), source };
    written(patch.write(How::Patch, &mut output), failed)?;
    output.finish().map_err(failed)
}

/// The very bytes, but on a terminal.
fn to_stdout(patch: &Patch, how: How) -> Result<(), Error> {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        let mut lines = PatchLines::new(io::BufWriter::new(stdout.lock()));
        written(patch.write(how, &mut lines), Error::Stdout)?;
        return lines.flush().map_err(Error::Stdout);
    }
    let mut stdout = stdout.lock();
    written(patch.write(how, &mut stdout), Error::Stdout)?;
    stdout.flush().map_err(Error::Stdout)
}

fn written(result: Result<(), Unwritten>, to: impl FnOnce(io::Error) -> Error) -> Result<(), Error> {
    result.map_err(|e| match e {
        Unwritten::Not(e) => e.into(),
        Unwritten::To(e) => to(e),
    })
}
