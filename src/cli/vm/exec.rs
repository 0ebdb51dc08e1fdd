//! `banger vm exec` and `banger vm shell`: a further command in a running VM.

use std::path::Path;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};

use super::asked;
use super::run::status;
use super::workspace::prepare::again;
use crate::cli::client::{Attention, Client};
use crate::cli::error::Error;
use crate::cli::render::{self, Progress};
use crate::cli::session::{self, Ended, How, on_a_terminal};
use crate::cli::signals::Signals;
use crate::cli::workspace::head_of;
use crate::host::cmd::git::Patience;
use crate::image::config::Asked;
use crate::proto::api::{VmExec, VmShow};
use crate::vm::workspace::Workspace;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Run a command in a running VM, in its work tree if it has one; without a command, a shell.
#[argh(
    subcommand,
    name = "exec",
    usage = "[<options>] <vm> [-- <command>...]",
    help_triggers("-h", "--help", "help"),
    example = "banger vm exec dev -- uname -a\n\
               banger vm exec -it dev -- top\n\
               banger vm exec -i dev -- sh -c 'cat > /tmp/notes' < notes\n\
               banger vm exec dev                     # a shell",
    note = "stdin reaches the command with -i or -t only, so that it can be used in loops that read from it; a shell always has it.\n\
            What follows -- is the command. Its exit status is banger's: 128 and the signal's number if a signal ended it, 126 and 127 as in a shell.\n\
            Without -t, what it writes to a terminal has no colours, and control characters in it are shown and not obeyed."
)]
pub struct Exec {
    /// the VM's name, its id, or the beginning of its id
    #[argh(positional)]
    vm: String,
    /// pass stdin to the command
    #[argh(switch, short = 'i')]
    interactive: bool,
    /// run the command on a pseudo-terminal, with what is typed
    #[argh(switch, short = 't')]
    tty: bool,
    /// a variable for the command, NAME=value; NAME alone takes this host's value; may be repeated
    #[argh(option, short = 'e', arg_name = "name=value")]
    env: Vec<String>,
    /// the command's working directory
    #[argh(option, short = 'w', arg_name = "dir")]
    workdir: Option<String>,
    /// who runs the command: a name or a number, and a group after a colon
    #[argh(option, short = 'u', arg_name = "user")]
    user: Option<String>,
    /// bring the VM's work tree again first, as `vm workspace prepare` does
    #[argh(switch)]
    auto_prepare: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Open a shell in a running VM, on a pseudo-terminal.
#[argh(subcommand, name = "shell", help_triggers("-h", "--help", "help"), example = "banger vm shell dev")]
pub struct Shell {
    /// the VM's name, its id, or the beginning of its id
    #[argh(positional)]
    vm: String,
    /// who runs the shell: a name or a number, and a group after a colon
    #[argh(option, short = 'u', arg_name = "user")]
    user: Option<String>,
    /// the shell's working directory
    #[argh(option, short = 'w', arg_name = "dir")]
    workdir: Option<String>,
}

/// Why -t was refused.
pub const NO_TERMINAL: &str =
    "a pseudo-terminal needs a terminal on this side, and stdin or stdout is none; leave -t out";

impl Exec {
    pub fn run(&self, command: Vec<String>) -> Result<(), Error> {
        if self.tty && !on_a_terminal() {
            return Err(Error::Refused(NO_TERMINAL.to_owned()));
        }
        let shell = command.is_empty();
        let tty = self.tty || (shell && on_a_terminal());
        // A shell without its input would end at once; and a terminal in raw mode that nobody reads takes no Ctrl-C.
        let how = How { tty, stdin: self.interactive || shell || tty };
        let asked =
            asked::command(command, &self.env, self.workdir.as_deref(), self.user.as_deref(), how.tty)?;
        let client = Client::from_env()?;
        if self.auto_prepare {
            self.prepare(&client)?;
        }
        exec(&client, &self.vm, asked, how)
    }

    /// Brings the work tree again.
    fn prepare(&self, client: &Client) -> Result<(), Error> {
        let vm = client.ask(VmShow { vm: self.vm.clone() })?;
        let mut signals =
            Signals::catch().map_err(|source| Error::Host { what: "catch signals".to_owned(), source })?;
        let mut progress = Progress::new(false);
        let attention = &mut Attention { progress: &mut progress, signals: Some(&mut signals) };
        match vm.record.workspaces.last() {
            Some(tree) => again(client, &vm, tree, attention),
            None => Err(Error::Refused(format!(
                "VM {0} has no work tree to bring again; `banger vm workspace prepare {0} PATH` brings one",
                vm.record.name
            ))),
        }
    }
}

impl Shell {
    pub fn run(&self) -> Result<(), Error> {
        if !on_a_terminal() {
            return Err(Error::Refused(format!(
                "`banger vm shell` needs a terminal on stdin and stdout; without one, use `banger vm exec -i {} -- sh`",
                self.vm
            )));
        }
        let asked = asked::command(vec![], &[], self.workdir.as_deref(), self.user.as_deref(), true)?;
        exec(&Client::from_env()?, &self.vm, asked, How { tty: true, stdin: true })
    }
}

/// Opens a shell on this terminal, as `banger vm shell` does, and stays in it to its end.
pub fn shell(vm: &str) -> Result<(), Error> {
    let client = Client::from_env()?;
    exec(&client, vm, asked::command(vec![], &[], None, None, true)?, How { tty: true, stdin: true })
}

fn exec(client: &Client, vm: &str, asked: Asked, how: How) -> Result<(), Error> {
    let mut signals =
        Signals::catch().map_err(|source| Error::Host { what: "catch signals".to_owned(), source })?;
    let tty = how.tty.then(asked::tty_size);
    let request = VmExec { vm: vm.to_owned(), asked, as_run: false, tty, stdin: how.stdin };
    let ended = session(client, request, how, &mut Progress::silent(), &mut signals)?;
    if let Ended::GaveUp(_) = ended {
        render::say(&format!("gave up waiting; the command may still run in VM {vm}"));
    }
    match status(ended) {
        0 => Ok(()),
        status => Err(Error::Said(status)),
    }
}

/// Starts the command and stays with it to its end.
pub fn session(
    client: &Client,
    request: VmExec,
    how: How,
    progress: &mut Progress,
    signals: &mut Signals,
) -> Result<Ended, Error> {
    let attention = &mut Attention { progress, signals: Some(signals) };
    let vm = request.vm.clone();
    let (tree, guest) = client.open_with(request, attention).map_err(Error::of_exec)?;
    // The terminal is the command's from here on.
    progress.clear();
    if let Some(text) = tree.and_then(|tree| older(&vm, &tree, &signals.patience())) {
        render::say(&text);
    }
    Ok(session::run(&guest, how, signals)?)
}

/// How long a git that does nothing is waited for where it is about a word only.
const COURTESY: Duration = Duration::from_secs(5);

/// A word about a work tree that is another commit's here than in the VM; None where it is not, or is not here any more.
fn older(vm: &str, tree: &Workspace, patience: &Patience) -> Option<String> {
    // One that stays at a commit of its own (--from) is not behind.
    let there = tree.head.as_ref().filter(|_| tree.from.is_none())?;
    let here = head_of(Path::new(&tree.source), &patience.at_most(COURTESY)).filter(|here| here != there)?;
    Some(format!(
        "{} is at {here:.10} now, and was at {there:.10} when it was brought; `banger vm workspace prepare {vm}` brings it again, and so does --auto-prepare",
        tree.source
    ))
}
