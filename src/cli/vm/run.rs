//! `banger vm run`: create, start, execute, and leave things as they were asked to be left.
//!
//! Three requests rather than one, so that from the first answer on the VM's name is known: every way out, Ctrl-C during
//! the boot included, can then delete it or say what is left. With --rm the daemon holds the other end: the VM goes when
//! this process goes, however it goes.

use argh::{ArgsInfo, FromArgs};

use super::asked;
use super::bootstrap;
use super::exec::{NO_TERMINAL, session};
use super::workspace::dry;
use super::workspace::prepare::{Job, Options, depth_of, guest_path_of};
use crate::cli::client::{Attention, Client, ClientError};
use crate::cli::error::{BROKEN_PIPE, Error, status_of_signal};
use crate::cli::render::{self, Progress};
use crate::cli::session::{Ended, How, on_a_terminal};
use crate::cli::signals::Signals;
use crate::cli::ssh;
use crate::cli::workspace::{Gathered, gather};
use crate::host::cmd::git::Patience;
use crate::host::environment::Environment;
use crate::image::config::Asked;
use crate::proto::api::{Call, Code, VmCreate, VmDelete, VmExec, VmShow, VmStart, VmView};
use crate::vm::lifetime::Ttl;
use crate::vm::name::VmName;
use crate::vm::publish::Publish;
use crate::vm::size::Mib;
use crate::vm::spec::{AccelChoice, VmmChoice, Wish};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Create a VM, start it, bring a work tree if a path is given, and run a command in it, or a shell. The VM stays afterwards, unless --rm is given.
#[argh(
    subcommand,
    name = "run",
    usage = "[<options>] [<path>] [-- <command>...]",
    help_triggers("-h", "--help", "help"),
    example = "banger vm run                                        # a clean shell\n\
               banger vm run --rm -- uname -a                       # one command, and nothing left\n\
               banger vm run ./repo                                 # this git tree at /root/repo, in a shell\n\
               banger vm run --rm ./repo -- make test               # and its tests alone\n\
               banger vm run --image python:3.12 -- python -c 'print(1)'\n\
               tar c . | banger vm run --rm -q -- tar t             # stdin, stdout and stderr are the command's\n\
               banger vm run -d --name dev --memory 4G              # for later: banger vm exec dev\n\
               banger vm run -d --image nginx -p 8080:80            # http://127.0.0.1:8080\n\
               banger vm run -d --ttl 2h                            # deleted in two hours, whatever it does then",
    note = "What follows -- is the command. Its exit status is banger's: 128 and the signal's number if a signal ended it, 126 and 127 as in a shell.\n\
            Ctrl-C reaches the command; a second one within two seconds gives up waiting for it."
)]
pub struct Run {
    /// a git work tree to bring: its tracked files as they are now, and its history
    #[argh(positional)]
    path: Option<String>,
    /// a local image, or a reference to pull; the default image if not given
    #[argh(option, arg_name = "image")]
    image: Option<String>,
    /// the VM's name; an adjective and a noun if not given
    #[argh(option, arg_name = "name")]
    name: Option<VmName>,
    /// how many CPUs; a quarter of this host's, 1 to 4, if not given
    #[argh(option, arg_name = "n", from_str_fn(asked::vcpu))]
    vcpu: Option<u8>,
    /// how much memory, such as 512M or 4G; an eighth of this host's, 512M to 8G, if not given
    #[argh(option, arg_name = "size")]
    memory: Option<Mib>,
    /// how large the disk is; 8G, or the image's size where that is more, if not given
    #[argh(option, arg_name = "size")]
    disk_size: Option<Mib>,
    /// give the guest a network with this host's way out
    #[argh(switch)]
    nat: bool,
    /// let that way lead to private networks too; with --nat
    #[argh(switch)]
    lan: bool,
    /// lead a port of this host to the guest, [addr:]host:guest[/udp], on 127.0.0.1 if no address is given; host 0 takes any free port; may be repeated
    #[argh(option, short = 'p', arg_name = "ports")]
    publish: Vec<Publish>,
    /// delete the VM after this time, whatever it does, such as 30m or 2h
    #[argh(option, arg_name = "time")]
    ttl: Option<Ttl>,
    /// delete the VM afterwards, whatever happened
    #[argh(switch)]
    rm: bool,
    /// print the VM's name once it is ready, and leave it running
    #[argh(switch, short = 'd')]
    detach: bool,
    /// a variable for the command, NAME=value; NAME alone takes this host's value; may be repeated
    #[argh(option, short = 'e', arg_name = "name=value")]
    env: Vec<String>,
    /// the command's working directory
    #[argh(option, short = 'w', arg_name = "dir")]
    workdir: Option<String>,
    /// who runs the command: a name or a number, and a group after a colon
    #[argh(option, short = 'u', arg_name = "user")]
    user: Option<String>,
    /// run the command on a pseudo-terminal; a shell has one by itself
    #[argh(switch, short = 't')]
    tty: bool,
    /// taken as docker writes it; stdin always reaches the command
    #[argh(switch, short = 'i', long = "interactive", hidden_help)]
    _interactive: bool,
    /// what runs it: auto, firecracker or qemu
    #[argh(option, arg_name = "vmm", default = "VmmChoice::Auto")]
    vmm: VmmChoice,
    /// what executes it: auto, kvm or tcg
    #[argh(option, arg_name = "accel", default = "AccelChoice::Auto")]
    accel: AccelChoice,
    /// the kernel's name; the one that the image wants, else the default one, if not given
    #[argh(option, arg_name = "kernel")]
    kernel: Option<String>,
    /// show no progress and no reminder
    #[argh(switch, short = 'q')]
    quiet: bool,
    /// where the work tree is in the guest; /root and the directory's name if not given
    #[argh(option, arg_name = "dir", from_str_fn(guest_path_of))]
    guest_path: Option<String>,
    /// the branch that the guest's HEAD is on; the one here if not given
    #[argh(option, arg_name = "branch")]
    branch: Option<String>,
    /// the commit that it is at, with the files as committed there; with --branch
    #[argh(option, arg_name = "commit")]
    from: Option<String>,
    /// bring all of the history
    #[argh(switch)]
    full: bool,
    /// how many commits of history to bring; 10 if not given
    #[argh(option, arg_name = "n", from_str_fn(depth_of))]
    depth: Option<usize>,
    /// bring untracked files too, but for ignored ones
    #[argh(switch)]
    include_untracked: bool,
    /// bring a plain directory as it is, without git
    #[argh(switch)]
    copy: bool,
    /// leave out the tools that the work tree asks for by .mise.toml, mise.toml or .tool-versions
    #[argh(switch)]
    no_bootstrap: bool,
    /// list what of the work tree would travel, and make no VM
    #[argh(switch)]
    dry_run: bool,
    /// with --dry-run: print JSON
    #[argh(switch)]
    json: bool,
}

/// What came of it, once the VM existed.
#[derive(Debug)]
enum Outcome {
    /// It runs, and there is no command to wait for.
    Detached,
    NotBooted(Error),
    /// The work tree did not come.
    NotBrought(Error),
    NotRun(Error),
    Ran(Ended),
}

/// What becomes of the VM on the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Deleted,
    Kept,
}

impl Run {
    pub fn run(&self, command: Vec<String>) -> Result<(), Error> {
        self.refuse_what_cannot_be_meant(&command)?;
        let signals =
            Signals::catch().map_err(|source| Error::Host { what: "catch signals".to_owned(), source })?;
        // Before there is a VM: what cannot be brought is told at once.
        let tree = self.gather(signals.patience())?;
        if self.dry_run {
            return tree.map_or(Ok(()), |tree| self.show(&tree));
        }
        let tools = tree.as_ref().and_then(|tree| self.tools(tree, &command));
        if let Some(file) = tools.filter(|_| !self.nat) {
            return Err(bootstrap::no_way_out(file));
        }
        let tty = self.tty || (command.is_empty() && on_a_terminal());
        let asked = asked::command(command, &self.env, self.workdir.as_deref(), self.user.as_deref(), tty)?;
        let mut at = At { client: Client::from_env()?, progress: Progress::new(self.quiet), signals };

        let vm = at.call(self.request()?)?;
        at.progress.say(&format!("spec: {}", vm.record.spec));
        let outcome = self.begin(&mut at, &vm, tree, tools.is_some(), asked, tty);
        at.progress.clear();
        if let Outcome::NotBooted(e) | Outcome::NotBrought(e) | Outcome::NotRun(e) = &outcome {
            // The reason first, then what is left.
            render::error(e);
        }
        let left = match self.fate(&outcome) {
            Fate::Kept if self.has_expired(&at, &vm) => {
                render::say(&format!("VM {} is deleted: its time (--ttl) was over", vm.record.name));
                Ok(())
            }
            Fate::Kept => {
                if let Some(text) = self.reminder(&vm.record.name, &outcome) {
                    render::say(&text);
                }
                Ok(())
            }
            Fate::Deleted => self.delete(&mut at, &vm, &outcome),
        };
        match (outcome, left) {
            (Outcome::Detached, Ok(())) => render::out_line(vm.record.name.as_str()),
            (outcome, left) => match (outcome.status(), left) {
                (0, left) => left,
                (status, Ok(())) => Err(Error::Said(status)),
                // The command's status is what was asked for; that the VM is still there must be said too.
                (status, Err(e)) => {
                    render::error(&e);
                    Err(Error::Said(status))
                }
            },
        }
    }

    fn refuse_what_cannot_be_meant(&self, command: &[String]) -> Result<(), Error> {
        let refuse = |text: &str| Err(Error::Refused(text.to_owned()));
        match () {
            () if self.detach && self.rm => {
                refuse("-d leaves the VM running and --rm deletes it; choose one of them")
            }
            () if self.detach && !command.is_empty() => {
                refuse("-d runs no command; start the VM with -d, then run the command with `banger vm exec`")
            }
            () if self.detach && self.tty => refuse("-d has no terminal; leave -t out"),
            () if self.tty && !on_a_terminal() => refuse(NO_TERMINAL),
            () if self.json && !self.dry_run => refuse("--json goes with --dry-run"),
            () => match self.option_of_a_tree() {
                Some(option) if self.path.is_none() => refuse(&format!(
                    "{option} is about a work tree; name one, such as `banger vm run {option} ... .`"
                )),
                _ => Ok(()),
            },
        }
    }

    /// The first option that means nothing without a work tree.
    fn option_of_a_tree(&self) -> Option<&'static str> {
        let given = [
            (self.guest_path.is_some(), "--guest-path"),
            (self.branch.is_some(), "--branch"),
            (self.from.is_some(), "--from"),
            (self.full, "--full"),
            (self.depth.is_some(), "--depth"),
            (self.include_untracked, "--include-untracked"),
            (self.copy, "--copy"),
            (self.no_bootstrap, "--no-bootstrap"),
            (self.dry_run, "--dry-run"),
        ];
        given.into_iter().find_map(|(given, option)| given.then_some(option))
    }

    /// Reads the work tree.
    fn gather(&self, patience: Patience) -> Result<Option<Gathered>, Error> {
        let Some(path) = &self.path else { return Ok(None) };
        let options = Options {
            branch: self.branch.as_ref(),
            from: self.from.as_ref(),
            full: self.full,
            depth: self.depth,
            untracked: self.include_untracked,
            copy: self.copy,
            stays_at: None,
            patience,
        };
        Ok(Some(gather(&options.wish(path.as_ref())?)?))
    }

    /// The file of the work tree by which tools are to be installed; a command alone has its own way with them.
    fn tools(&self, tree: &Gathered, command: &[String]) -> Option<&'static str> {
        let wanted = command.is_empty() && !self.no_bootstrap;
        wanted.then(|| bootstrap::asked_by(tree.items.iter().map(|item| &*item.path))).flatten()
    }

    fn guest_path(&self, tree: &Gathered) -> String {
        self.guest_path.clone().unwrap_or_else(|| tree.guest_path())
    }

    fn show(&self, tree: &Gathered) -> Result<(), Error> {
        let all = vec![true; tree.items.len()];
        dry::show(tree, &self.guest_path(tree), &all, &tree.all()?, self.json)
    }

    fn request(&self) -> Result<VmCreate, Error> {
        Ok(VmCreate {
            name: self.name.clone(),
            image: self.image.clone(),
            kernel: self.kernel.clone(),
            wish: asked::hardware(Wish {
                vcpu: self.vcpu,
                memory: self.memory,
                disk: self.disk_size,
                vmm: self.vmm,
                accel: self.accel,
                nat: self.nat,
                lan: self.lan,
            })?,
            start: false,
            soon: true,
            ephemeral: self.rm,
            publish: self.publish.clone(),
            ttl_s: asked::ttl(self.ttl),
            advise: !self.quiet,
            environment: Environment::of_process().to_bring(),
        })
    }

    /// Starts the VM and runs the command to its end.
    fn begin(
        &self,
        at: &mut At,
        vm: &VmView,
        tree: Option<Gathered>,
        tools: bool,
        asked: Asked,
        tty: bool,
    ) -> Outcome {
        let id = vm.record.id.to_string();
        if let Err(e) = at.call(VmStart { vm: id.clone() }) {
            return Outcome::NotBooted(e.into());
        }
        // A tree's command is a further one, in it; else it is the image's first process.
        let as_run = tree.is_none();
        if let Some(tree) = tree {
            let guest_path = self.guest_path(&tree);
            let job = Job { client: &at.client, vm, guest_path: &guest_path, force: false };
            let attention = &mut Attention { progress: &mut at.progress, signals: Some(&mut at.signals) };
            if let Err(e) = job.bring(tree, attention) {
                return Outcome::NotBrought(e);
            }
            // What does not install does not stand in the way of a shell.
            if tools && let Err(e) = bootstrap::begin(&at.client, &id, &guest_path, self.detach, attention) {
                match e {
                    Error::Client(ClientError::Interrupted(_)) => return Outcome::NotRun(e),
                    e => attention.progress.say(&format!("the tools of {guest_path} are not installed: {e}")),
                }
            }
        }
        if self.detach {
            return Outcome::Detached;
        }
        let request = VmExec { vm: id, asked, as_run, tty: tty.then(asked::tty_size), stdin: true };
        let how = How { tty, stdin: true };
        match session(&at.client, request, how, &mut at.progress, &mut at.signals) {
            Ok(ended) => Outcome::Ran(ended),
            Err(e) => Outcome::NotRun(e),
        }
    }

    fn fate(&self, outcome: &Outcome) -> Fate {
        match outcome {
            // Whoever interrupts a boot does not want the VM.
            Outcome::NotBooted(Error::Client(ClientError::Interrupted(_)))
            | Outcome::NotBrought(Error::Client(ClientError::Interrupted(_)))
            | Outcome::NotRun(Error::Client(ClientError::Interrupted(_))) => Fate::Deleted,
            _ if self.rm => Fate::Deleted,
            Outcome::Detached
            | Outcome::NotBooted(_)
            | Outcome::NotBrought(_)
            | Outcome::NotRun(_)
            | Outcome::Ran(_) => Fate::Kept,
        }
    }

    /// Whether the VM is gone by now.
    fn has_expired(&self, at: &At, vm: &VmView) -> bool {
        let show = || at.client.ask(VmShow { vm: vm.record.id.to_string() });
        let gone = |e| matches!(e, ClientError::Failed(failure) if failure.code == Code::NotFound);
        self.ttl.is_some() && show().err().is_some_and(gone)
    }

    /// A line about the VM that stays; None where it is not wanted.
    fn reminder(&self, name: &VmName, outcome: &Outcome) -> Option<String> {
        let next = format!("banger vm exec {name} / banger vm delete {name}");
        match outcome {
            Outcome::Detached => None,
            Outcome::NotBooted(_) => Some(format!(
                "VM {name} is kept; `banger vm logs {name}` shows its console, `banger vm delete {name}` removes it"
            )),
            Outcome::NotBrought(_) => {
                let path = self.path.as_deref().unwrap_or(".");
                Some(format!(
                    "VM {name} is kept; banger vm workspace prepare {name} {path} / banger vm delete {name}"
                ))
            }
            Outcome::Ran(Ended::GaveUp(_)) => {
                Some(format!("gave up waiting; VM {name} and the command in it still run; {next}"))
            }
            Outcome::NotRun(_) | Outcome::Ran(_) if self.quiet => None,
            Outcome::NotRun(_) | Outcome::Ran(_) => Some(format!("VM {name} is still running; {next}")),
        }
    }

    /// Deletes the VM, and waits for it unless a signal says not to.
    fn delete(&self, at: &mut At, vm: &VmView, outcome: &Outcome) -> Result<(), Error> {
        let name = &vm.record.name;
        let going = format!("gave up waiting; VM {name} is being deleted");
        if let Outcome::Ran(Ended::GaveUp(_)) = outcome {
            // --rm: the daemon deletes it as soon as we are gone, and waiting is what the person does not want.
            render::say(&going);
            return Ok(());
        }
        let deleted = at.call(VmDelete { vm: vm.record.id.to_string(), only_if_ended: false });
        at.progress.clear();
        match deleted {
            Ok(()) => {
                ssh::forget(&vm.record.id.to_string());
                Ok(())
            }
            Err(ClientError::Interrupted(signal)) => {
                // Without --rm the daemon does not begin what nobody waits for.
                render::say(&match self.rm {
                    true => going,
                    false => format!(
                        "gave up waiting; VM {name} may be left, and `banger vm delete {name}` deletes it"
                    ),
                });
                Err(Error::Said(status_of_signal(signal)))
            }
            Err(e) => Err(e.into()),
        }
    }
}

impl Outcome {
    fn status(&self) -> u8 {
        match self {
            Self::Detached => 0,
            Self::NotBooted(e) | Self::NotBrought(e) | Self::NotRun(e) => e.status(),
            Self::Ran(ended) => status(*ended),
        }
    }
}

/// What a run goes through with.
struct At {
    client: Client,
    progress: Progress,
    signals: Signals,
}

impl At {
    /// Asks, showing what goes on; a signal that asks to end interrupts.
    fn call<C: Call>(&mut self, request: C) -> Result<C::Answer, ClientError> {
        let signals = Some(&mut self.signals);
        self.client.call(request, &mut Attention { progress: &mut self.progress, signals })
    }
}

/// The exit status for the way that a session ended.
pub fn status(ended: Ended) -> u8 {
    match ended {
        Ended::Exit(status) => status,
        Ended::OutputClosed => BROKEN_PIPE,
        Ended::GaveUp(signal) | Ended::HungUp(signal) => status_of_signal(signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(change: impl FnOnce(&mut Run)) -> Run {
        let mut run = Run::from_args(&["run"], &[]).expect("parses");
        change(&mut run);
        run
    }

    #[test]
    fn what_cannot_be_meant_is_refused_before_anything_is_made() {
        let command = ["ls".to_owned()];
        assert!(run(|r| (r.detach, r.rm) = (true, true)).refuse_what_cannot_be_meant(&[]).is_err());
        assert!(run(|r| r.detach = true).refuse_what_cannot_be_meant(&command).is_err());
        assert!(run(|r| (r.detach, r.tty) = (true, true)).refuse_what_cannot_be_meant(&[]).is_err());
        assert!(run(|r| r.detach = true).refuse_what_cannot_be_meant(&[]).is_ok());
        assert!(run(|r| r.rm = true).refuse_what_cannot_be_meant(&command).is_ok());
        assert!(run(|r| r.full = true).refuse_what_cannot_be_meant(&[]).is_err());
        assert!(
            run(|r| (r.full, r.path) = (true, Some(".".to_owned()))).refuse_what_cannot_be_meant(&[]).is_ok()
        );
        assert!(run(|r| r.dry_run = true).refuse_what_cannot_be_meant(&[]).is_err());
    }

    #[test]
    fn a_vm_is_deleted_when_asked_for_or_when_its_boot_is_interrupted() {
        let interrupted = || Outcome::NotBooted(Error::Client(ClientError::Interrupted(2)));
        let kept = run(|_| {});
        let removed = run(|r| r.rm = true);
        assert_eq!(kept.fate(&interrupted()), Fate::Deleted);
        assert_eq!(kept.fate(&Outcome::NotBooted(Error::Said(1))), Fate::Kept);
        assert_eq!(kept.fate(&Outcome::Ran(Ended::Exit(1))), Fate::Kept);
        let ran = |ended| Outcome::Ran(ended);
        for outcome in
            [interrupted(), Outcome::NotRun(Error::Said(1)), ran(Ended::Exit(0)), ran(Ended::HungUp(1))]
        {
            assert_eq!(removed.fate(&outcome), Fate::Deleted);
        }
    }
}
