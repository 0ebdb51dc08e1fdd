//! `banger vm workspace prepare`, and the same for those who bring a work tree on their way: `vm run PATH`, `vm exec --auto-prepare`.

use std::path::{Path, PathBuf};

use argh::{ArgsInfo, FromArgs};

use super::dry;
use crate::cli::client::{Attention, Client};
use crate::cli::error::Error;
use crate::cli::render::{self, Progress};
use crate::cli::signals::Signals;
use crate::cli::workspace::{DEPTH, Done, Gathered, Guest, Wish, bring, compare_with, gather, guest_path};
use crate::host::cmd::git::Patience;
use crate::proto::api::{VmPrepare, VmShow, VmView, VmWorkspace};
use crate::proto::workspace::{Kept, Prepare};
use crate::vm::name::VmName;
use crate::vm::workspace::Workspace;

#[derive(FromArgs, ArgsInfo, Debug)]
/// Bring a git work tree into a running VM: its tracked files as they are now, and its history. A second time only what changed is sent.
#[argh(
    subcommand,
    name = "prepare",
    usage = "[<options>] <vm> [<path>]",
    help_triggers("-h", "--help", "help"),
    example = "banger vm workspace prepare dev ./repo\n\
               banger vm workspace prepare dev                             # again, from where it came\n\
               banger vm workspace prepare dev . --include-untracked --full\n\
               banger vm workspace prepare dev . --branch try --from v1.2  # another commit, on a new branch\n\
               banger vm workspace prepare dev . --dry-run                 # only tell what would travel",
    note = "The repository here is only read; no hook, filter or command of its configuration is run. Ignored files never travel.\n\
            What was changed in the guest stays; where it was changed here as well, and not to the same, nothing is done unless --force is given."
)]
pub struct PrepareTree {
    /// the VM's name, its id, or the beginning of its id
    #[argh(positional)]
    vm: String,
    /// the work tree; where the last one came from, else this directory, if not given
    #[argh(positional)]
    path: Option<String>,
    /// where it is in the guest; /root and the directory's name if not given
    #[argh(option, arg_name = "dir", from_str_fn(guest_path_of))]
    guest_path: Option<String>,
    /// the branch that the guest's HEAD is on; the one here if not given
    #[argh(option, arg_name = "branch")]
    branch: Option<String>,
    /// with --branch: the commit that it is at, with the files as committed there, until a branch is asked for again
    #[argh(option, arg_name = "commit")]
    from: Option<String>,
    /// bring all of the history
    #[argh(switch)]
    full: bool,
    /// how many commits of history to bring; 10 if not given
    #[argh(option, arg_name = "n", from_str_fn(depth_of))]
    depth: Option<usize>,
    /// bring untracked files too, but for ignored ones; from then on every time
    #[argh(switch)]
    include_untracked: bool,
    /// bring no untracked files any more; those that were brought leave the guest, unless they were changed there
    #[argh(switch)]
    no_include_untracked: bool,
    /// bring a plain directory as it is, without git
    #[argh(switch)]
    copy: bool,
    /// overwrite what was changed in the guest or is in the way there
    #[argh(switch)]
    force: bool,
    /// list what would travel, and bring nothing
    #[argh(switch)]
    dry_run: bool,
    /// with --dry-run: print JSON
    #[argh(switch)]
    json: bool,
    /// show no progress and no note
    #[argh(switch, short = 'q')]
    quiet: bool,
}

/// For argh: the directory after --guest-path.
pub fn guest_path_of(text: &str) -> Result<String, String> {
    guest_path(text)
}

/// For argh: the number after --depth.
pub fn depth_of(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(depth) if depth > 0 => Ok(depth),
        _ => Err(format!("{text:?} is no number of commits; write it like 10, or --full for all")),
    }
}

/// The options about a work tree, as they were given.
#[derive(Debug, Default)]
pub struct Options<'a> {
    pub branch: Option<&'a String>,
    pub from: Option<&'a String>,
    pub full: bool,
    pub depth: Option<usize>,
    pub untracked: bool,
    pub copy: bool,
    /// The commit that an earlier time was at, until a branch is asked for.
    pub stays_at: Option<&'a String>,
    pub patience: Patience,
}

impl Options<'_> {
    /// What they ask for of `path`.
    ///
    /// # Errors
    /// Options that contradict each other.
    pub fn wish(&self, path: &Path) -> Result<Wish, Error> {
        let refuse = |text: &str| Err(Error::Refused(text.to_owned()));
        match () {
            () if self.from.is_some() && self.branch.is_none() => {
                refuse("--from says where a new branch begins; name it with --branch")
            }
            () if self.full && self.depth.is_some() => {
                refuse("--full and --depth say different things about the history; choose one of them")
            }
            () if self.copy && (self.branch.is_some() || self.full || self.depth.is_some()) => refuse(
                "--copy brings files without a repository; --branch, --full and --depth mean nothing with it",
            ),
            () => Ok(Wish {
                path: path.to_owned(),
                copy: self.copy,
                branch: self.branch.cloned(),
                from: self.from.or(self.stays_at.filter(|_| self.branch.is_none() && !self.copy)).cloned(),
                depth: (!self.full).then_some(self.depth.unwrap_or(DEPTH)),
                untracked: self.untracked,
                patience: self.patience.clone(),
            }),
        }
    }
}

impl PrepareTree {
    pub fn run(&self) -> Result<(), Error> {
        if self.json && !self.dry_run {
            return Err(Error::Refused("--json goes with --dry-run".to_owned()));
        }
        if self.include_untracked && self.no_include_untracked {
            let text =
                "--include-untracked and --no-include-untracked say different things; choose one of them";
            return Err(Error::Refused(text.to_owned()));
        }
        let client = Client::from_env()?;
        let mut progress = Progress::new(self.quiet);
        let mut signals =
            Signals::catch().map_err(|source| Error::Host { what: "catch signals".to_owned(), source })?;
        let attention = &mut Attention { progress: &mut progress, signals: Some(&mut signals) };
        let vm = client.call(VmShow { vm: self.vm.clone() }, attention)?;
        let known = known(&vm, self.path.as_deref(), self.guest_path.as_deref());
        let path = match (&self.path, known) {
            (Some(path), _) => PathBuf::from(path),
            (None, Some(known)) => PathBuf::from(&known.source),
            (None, None) => PathBuf::from("."),
        };
        let again = self.path.is_none().then_some(known).flatten();
        let options = Options {
            branch: self.branch.as_ref(),
            from: self.from.as_ref(),
            full: self.full,
            depth: self.depth,
            untracked: !self.no_include_untracked
                && (self.include_untracked || known.is_some_and(|known| known.untracked)),
            copy: self.copy || again.is_some_and(|known| known.head.is_none()),
            stays_at: known.and_then(|known| known.from.as_ref()),
            patience: attention.patience(),
        };
        if options.untracked && !self.include_untracked {
            attention.progress.say(
                "untracked files are brought too, as the last time; --no-include-untracked leaves them here",
            );
        }
        let wish = options.wish(&path)?;
        if let (None, Some(from)) = (&wish.branch, &wish.from) {
            let note = format!("it stays at {from:.10}, as the last time; --branch brings what is here");
            attention.progress.say(&note);
        }
        let gathered = gather(&wish)?;
        if let Some(known) = again {
            still_there(known, &gathered, &vm.record.name)?;
        }
        let guest_path = self.guest_path.clone().or_else(|| known.map(|known| known.guest_path.clone()));
        let guest_path = guest_path.unwrap_or_else(|| gathered.guest_path());
        let job = Job { client: &client, vm: &vm, guest_path: &guest_path, force: self.force };
        match self.dry_run {
            false => job.bring(gathered, attention),
            true => {
                let (gathered, sent, done) = job.compare(gathered, attention)?;
                dry::show(&gathered, &guest_path, &sent, &done, self.json)
            }
        }
    }
}

/// The work tree in the VM that is meant: the one at `guest_path`, else the one that came from `path`, else the last.
fn known<'v>(vm: &'v VmView, path: Option<&str>, guest_path: Option<&str>) -> Option<&'v Workspace> {
    let all = &vm.record.workspaces;
    let source = path.and_then(|path| Path::new(path).canonicalize().ok());
    match (guest_path, path) {
        (Some(at), _) => all.iter().rfind(|known| known.guest_path == at),
        (None, Some(_)) => all.iter().rfind(|known| source.as_deref() == Some(Path::new(&known.source))),
        (None, None) => all.last(),
    }
}

/// A work tree on its way into a VM.
pub struct Job<'a> {
    pub client: &'a Client,
    pub vm: &'a VmView,
    pub guest_path: &'a str,
    pub force: bool,
}

impl Job<'_> {
    /// Brings it, has it remembered, and says what was done.
    pub fn bring(&self, mut gathered: Gathered, attention: &mut Attention<'_>) -> Result<(), Error> {
        for note in &gathered.notes {
            attention.progress.say(note);
        }
        let guest = self.open(&mut gathered, attention)?;
        let done = bring(&gathered, guest, self.force, attention)?;
        let workspace = gathered.record(self.guest_path, render::now());
        self.client.call(VmWorkspace { vm: self.vm.record.id.to_string(), workspace }, attention)?;
        for line in kept(&self.vm.record.name, self.guest_path, &done) {
            attention.progress.say(&line);
        }
        attention.progress.say(&sentence(&self.vm.record.name, self.guest_path, &done));
        Ok(())
    }

    /// What would be sent, item by item, and what it would come to.
    fn compare(
        &self,
        mut gathered: Gathered,
        attention: &mut Attention<'_>,
    ) -> Result<(Gathered, Vec<bool>, Done), Error> {
        let guest = self.open(&mut gathered, attention)?;
        let (changes, done) = compare_with(&gathered, guest, self.force, attention)?;
        Ok((gathered, changes.sent, done))
    }

    /// Meets the guest, with what is known of it in mind.
    fn open(&self, gathered: &mut Gathered, attention: &mut Attention<'_>) -> Result<Guest, Error> {
        let known = self.vm.record.workspaces.iter().find(|known| known.guest_path == self.guest_path);
        if let Some(known) = known.filter(|_| !self.force) {
            not_over_another(known, gathered, &self.vm.record.name)?;
        }
        let prepare = Prepare { path: self.guest_path.to_owned(), present: true };
        let request = VmPrepare { vm: self.vm.record.id.to_string(), prepare };
        let (held, connection) = self.client.open_with(request, attention)?;
        if let Some(known) = known {
            gathered.keep_branch(known, &held);
        }
        Ok(Guest { held, connection })
    }
}

/// Refuses to put a tree in the place of another one from this host.
fn not_over_another(known: &Workspace, gathered: &Gathered, vm: &VmName) -> Result<(), Error> {
    match gathered.is_of(known) || gathered.has_moved_from(known) {
        true => Ok(()),
        false => Err(Error::Refused(format!(
            "{} of VM {vm} is where {} was brought; bring {} to another place with --guest-path, or over it with --force",
            known.guest_path,
            known.source,
            gathered.top.display()
        ))),
    }
}

/// Refuses where `known`, which nobody has named now, is not what is found at its place: a repository around it that it was not in, say.
fn still_there(known: &Workspace, gathered: &Gathered, vm: &VmName) -> Result<(), Error> {
    match gathered.is_of(known) {
        true => Ok(()),
        false => Err(Error::Refused(format!(
            "{} is no work tree of its own any more, and what is found from there is {}; `banger vm workspace prepare {vm} PATH` says what to bring",
            known.source,
            gathered.top.display()
        ))),
    }
}

/// `dev: /root/repo: 12 files sent, 3 removed, 2 commits (1.2 MiB)`.
fn sentence(vm: &VmName, guest_path: &str, done: &Done) -> String {
    let some = |n: usize, one: &str, many: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {many}")),
    };
    let parts = [
        some(done.sent, "file sent", "files sent"),
        some(done.removed, "removed", "removed"),
        some(done.commits, "commit", "commits"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let what = match parts.is_empty() {
        true => "nothing has changed".to_owned(),
        false => format!("{} ({})", parts.join(", "), render::bytes(done.bytes)),
    };
    let stays = if done.head_stays { "; HEAD stays where the guest has moved it" } else { "" };
    let left = some(done.untracked.left, "untracked file left the guest", "untracked files left the guest");
    let changed = some(
        done.untracked.stayed,
        "untracked file stays, as it was changed there",
        "untracked files stay, as they were changed there",
    );
    let untracked: String = [left, changed].into_iter().flatten().map(|text| format!("; {text}")).collect();
    format!("{vm}: {guest_path}: {what}{untracked}{stays}")
}

/// `dev: /root/repo/libs/sub: the guest's 1a2b3c4 is kept there as refs/banger/before/1`.
fn kept(vm: &VmName, guest_path: &str, done: &Done) -> Vec<String> {
    let line = |kept: &Kept| {
        let at = if kept.path.is_empty() { String::new() } else { format!("/{}", kept.path) };
        let id = kept.id.get(..7).unwrap_or(&kept.id);
        format!("{vm}: {guest_path}{at}: the guest's {id} is kept there as {}", kept.name)
    };
    done.kept.iter().map(line).collect()
}

/// Brings the VM's last work tree again, from where it came.
pub fn again(
    client: &Client,
    vm: &VmView,
    workspace: &Workspace,
    attention: &mut Attention<'_>,
) -> Result<(), Error> {
    let copy = workspace.head.is_none();
    let (stays_at, patience) = (workspace.from.as_ref(), attention.patience());
    let options = Options { untracked: workspace.untracked, copy, stays_at, patience, ..Options::default() };
    let gathered = gather(&options.wish(Path::new(&workspace.source))?)?;
    still_there(workspace, &gathered, &vm.record.name)?;
    Job { client, vm, guest_path: &workspace.guest_path, force: false }.bring(gathered, attention)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_one_line() {
        let name: VmName = "dev".parse().expect("a name");
        let done = Done { sent: 12, removed: 3, commits: 2, bytes: 1_258_291, ..Done::default() };
        assert_eq!(
            sentence(&name, "/root/repo", &done),
            "dev: /root/repo: 12 files sent, 3 removed, 2 commits (1.2 MiB)"
        );
        assert_eq!(sentence(&name, "/r", &Done::default()), "dev: /r: nothing has changed");
        let in_sub = |path: &str| Kept { path: path.into(), id: "1".repeat(40), name: "refs/x/1".to_owned() };
        assert_eq!(
            kept(&name, "/r", &Done { kept: vec![in_sub(""), in_sub("a/b")], ..done }),
            [
                "dev: /r: the guest's 1111111 is kept there as refs/x/1",
                "dev: /r/a/b: the guest's 1111111 is kept there as refs/x/1"
            ]
        );
        let mut done = Done { removed: 2, ..Done::default() };
        (done.untracked.left, done.untracked.stayed) = (2, 1);
        assert_eq!(
            sentence(&name, "/r", &done),
            "dev: /r: 2 removed (0 B); 2 untracked files left the guest; 1 untracked file stays, as it was changed there"
        );
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        let branch = "b".to_owned();
        let wish = |options: Options<'_>| options.wish(Path::new("."));
        assert_eq!(wish(Options::default()).expect("fine").depth, Some(DEPTH));
        assert_eq!(wish(Options { full: true, ..Options::default() }).expect("fine").depth, None);
        for options in [
            Options { from: Some(&branch), ..Options::default() },
            Options { full: true, depth: Some(1), ..Options::default() },
            Options { copy: true, branch: Some(&branch), ..Options::default() },
        ] {
            assert!(wish(options).is_err());
        }
        assert!(depth_of("0").is_err());
    }
}
