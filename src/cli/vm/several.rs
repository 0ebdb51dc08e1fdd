//! start, stop, kill, restart, delete, set: one VM or several at once.
//!
//! All are resolved from one snapshot of the list, each once; those that exist proceed, whatever becomes of the others.

use std::sync::{Mutex, PoisonError};

use argh::{ArgsInfo, FromArgs};

use crate::cli::client::{Attention, Client, ClientError};
use crate::cli::error::Error;
use crate::cli::render::{self, Progress};
use crate::cli::ssh;
use crate::proto::api::{VmDelete, VmList, VmSet, VmStart, VmStop, VmView};
use crate::vm::change::Change;
use crate::vm::lookup::{self, Candidate};

#[derive(FromArgs, ArgsInfo, Debug)]
/// Start VMs. Each is ready when its name is printed.
#[argh(
    subcommand,
    name = "start",
    help_triggers("-h", "--help", "help"),
    example = "banger vm start dev web"
)]
pub struct Start {
    /// names, ids, or beginnings of ids
    #[argh(positional)]
    vm: Vec<String>,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Stop VMs: the guest shuts down by itself, or is ended after ten seconds.
#[argh(subcommand, name = "stop", help_triggers("-h", "--help", "help"), example = "banger vm stop dev web")]
pub struct Stop {
    /// names, ids, or beginnings of ids
    #[argh(positional)]
    vm: Vec<String>,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// End VMs at once, without asking the guests. What they have not written to their disks is lost.
#[argh(subcommand, name = "kill", help_triggers("-h", "--help", "help"), example = "banger vm kill dev")]
pub struct Kill {
    /// names, ids, or beginnings of ids
    #[argh(positional)]
    vm: Vec<String>,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// Stop VMs and start them again.
#[argh(
    subcommand,
    name = "restart",
    help_triggers("-h", "--help", "help"),
    example = "banger vm restart dev"
)]
pub struct Restart {
    /// names, ids, or beginnings of ids
    #[argh(positional)]
    vm: Vec<String>,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
}

#[derive(FromArgs, ArgsInfo, Debug)]
/// End VMs and remove their disks. There is no way back.
#[argh(
    subcommand,
    name = "delete",
    help_triggers("-h", "--help", "help"),
    example = "banger vm delete dev web\nbanger vm delete $(banger vm list -q)   # all of them"
)]
pub struct Delete {
    /// names, ids, or beginnings of ids
    #[argh(positional)]
    vm: Vec<String>,
    /// show no progress
    #[argh(switch, short = 'q')]
    quiet: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Act<'a> {
    Start,
    Stop { force: bool },
    Restart,
    Delete,
    Set(&'a Change),
}

impl Start {
    pub fn run(&self) -> Result<(), Error> {
        each(&self.vm, Act::Start, self.quiet)
    }
}

impl Stop {
    pub fn run(&self) -> Result<(), Error> {
        each(&self.vm, Act::Stop { force: false }, self.quiet)
    }
}

impl Kill {
    pub fn run(&self) -> Result<(), Error> {
        each(&self.vm, Act::Stop { force: true }, self.quiet)
    }
}

impl Restart {
    pub fn run(&self) -> Result<(), Error> {
        each(&self.vm, Act::Restart, self.quiet)
    }
}

impl Delete {
    pub fn run(&self) -> Result<(), Error> {
        each(&self.vm, Act::Delete, self.quiet)
    }
}

impl Act<'_> {
    fn on(self, client: &Client, id: &str, progress: &mut Progress) -> Result<(), ClientError> {
        let vm = || id.to_owned();
        let attention = &mut Attention::to(progress);
        match self {
            Self::Start => client.call(VmStart { vm: vm() }, attention).map(drop),
            Self::Stop { force } => client.call(VmStop { vm: vm(), force }, attention).map(drop),
            Self::Restart => {
                client.call(VmStop { vm: vm(), force: false }, attention)?;
                client.call(VmStart { vm: vm() }, attention).map(drop)
            }
            Self::Delete => client
                .call(VmDelete { vm: vm(), only_if_ended: false }, attention)
                .inspect(|()| ssh::forget(id)),
            Self::Set(change) => client.call(VmSet { vm: vm(), change: change.clone() }, attention).map(drop),
        }
    }

    /// What is shown while it is done to several at once: of a change, what it does not change yet.
    fn progress(self, quiet: bool) -> Progress {
        match self {
            Self::Set(_) if !quiet => Progress::notes(),
            _ => Progress::silent(),
        }
    }
}

/// What one of the words that were typed led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Meant {
    /// The VM with this index in the list.
    Vm(usize),
    Nothing(lookup::LookupError),
}

/// What the words mean, in the order of first mention, each VM and each wrong word once.
pub fn resolve(typed: &[String], vms: &[VmView]) -> Vec<Meant> {
    let names: Vec<([String; 1], String)> =
        vms.iter().map(|vm| ([vm.record.name.to_string()], vm.record.id.to_string())).collect();
    let candidates: Vec<Candidate<'_>> = names.iter().map(|(names, id)| Candidate { names, id }).collect();
    let mut meant = vec![];
    for word in typed {
        let one = lookup::find("VM", word, &candidates).map_or_else(Meant::Nothing, Meant::Vm);
        if !meant.contains(&one) {
            meant.push(one);
        }
    }
    meant
}

pub fn each(typed: &[String], act: Act<'_>, quiet: bool) -> Result<(), Error> {
    let client = Client::from_env()?;
    let vms = client.ask(VmList {})?;
    let meant = resolve(typed, &vms);
    if let [Meant::Vm(one)] = meant[..] {
        let record = &vms[one].record;
        let mut progress = Progress::new(quiet);
        act.on(&client, &record.id.to_string(), &mut progress)?;
        progress.clear();
        return render::out_line(record.name.as_str());
    }
    let one = |id: &str| act.on(&client, id, &mut act.progress(quiet));
    let outcomes = at_once(one, &meant, &vms);
    let mut failed = false;
    for (meant, outcome) in meant.into_iter().zip(outcomes) {
        let error = match (meant, outcome) {
            (Meant::Vm(at), Some(Ok(()))) => {
                render::out_line(vms[at].record.name.as_str())?;
                continue;
            }
            (Meant::Nothing(e), _) => Error::Refused(e.to_string()),
            (Meant::Vm(_), Some(Err(e))) => e.into(),
            (Meant::Vm(at), None) => Error::Refused(format!("VM {} was not reached", vms[at].record.name)),
        };
        failed = true;
        render::error(&error);
    }
    if failed { Err(Error::Said(1)) } else { Ok(()) }
}

/// Says what went wrong: one thing as the command's own error, several in lines of their own.
pub fn complain(mut errors: Vec<Error>) -> Result<(), Error> {
    match errors.len() {
        0 => Ok(()),
        1 => errors.pop().map_or(Ok(()), Err),
        _ => {
            for error in &errors {
                render::error(error);
            }
            Err(Error::Said(1))
        }
    }
}

/// Does it to all of them, a few at a time, and returns what became of each.
pub fn at_once<T: Send>(
    act: impl Fn(&str) -> Result<T, ClientError> + Sync,
    meant: &[Meant],
    vms: &[VmView],
) -> Vec<Option<Result<T, ClientError>>> {
    const AT_ONCE: usize = 16;
    let mut outcomes: Vec<_> = meant.iter().map(|_| None).collect();
    let jobs = Mutex::new(meant.iter().zip(&mut outcomes));
    let work = || {
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
            match job {
                Some((Meant::Vm(at), outcome)) => {
                    let id = vms[*at].record.id.to_string();
                    *outcome = Some(act(&id));
                }
                Some((Meant::Nothing(_), _)) => {}
                None => break,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..meant.len().min(AT_ONCE) {
            scope.spawn(work);
        }
    });
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::vm::stopped as vm;

    #[test]
    fn each_vm_is_meant_once_in_the_order_of_first_mention() {
        let vms = [vm("dev", 0xabc), vm("web", 0xdef)];
        let typed = ["web", "dev", "000000000def", "nope", "web", "nope"].map(str::to_owned);
        let meant = resolve(&typed, &vms);
        assert_eq!(meant[..2], [Meant::Vm(1), Meant::Vm(0)]);
        assert!(matches!(meant[2..], [Meant::Nothing(_)]), "{meant:?}");
    }
}
