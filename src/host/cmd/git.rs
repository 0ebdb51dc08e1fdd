//! The person's git, on a repository that may be hostile: it reads, and nothing that the repository names is run.
//!
//! git is found and configured as the person has it (PATH, HOME), so that `safe.directory` and their identity count; all else of the
//! environment stays out. What a repository's configuration could make git run is overridden, and that alone would not do: filters,
//! textconv and diff drivers have names of the repository's choosing. So whoever calls this keeps to commands that run none. On a
//! repository that is not ours: rev-parse, rev-list, ls-files (not `-m`), ls-tree, cat-file (not `--filters` or `--textconv`),
//! pack-objects, for-each-ref, symbolic-ref and `worktree list` (to read them), config (to read it), check-ref-format, and of those that
//! write objects and refs, index-pack and update-ref. On one of our own, whose configuration and files are ours ([`Git::alone`]), also
//! fast-import, update-index, write-tree, diff-tree and check-ignore. Never status, diff, checkout.
//!
//! One thing is written by git even so: a split index has its shared part touched (mtime) by whoever reads it (read-cache.c,
//! freshen_shared_index).

mod patience;
mod running;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use rustix::system::sysinfo;

pub use self::patience::{Patience, Pipe};
pub use self::running::{Doing, Running, Stdin, Stdout};
use super::CmdError;

/// What a repository may not decide. `-c` outranks every file.
const OVERRIDES: &[&str] = &[
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.untrackedCache=false",
    "core.sshCommand=false",
    "core.gitProxy=",
    "core.askPass=",
    "core.editor=false",
    "core.pager=cat",
    "core.alternateRefsCommand=",
    "core.logAllRefUpdates=false",
    "credential.helper=",
    "gc.auto=0",
    "log.showSignature=false",
    "maintenance.auto=false",
    "protocol.allow=never",
    "submodule.recurse=false",
];
/// How much address space git may have where a guest says what it works on, in bytes: as much as this host has memory, within these. So it
/// ends before something else here does.
const MAX_MEMORY: u64 = 16 << 30;
const MIN_MEMORY: u64 = 2 << 30;

/// git, and the repository that it is asked about.
#[derive(Debug, Clone)]
pub struct Git {
    place: Place,
    /// A shallow file in the place of the repository's own, as `--shallow-file` takes it.
    shallow: Option<PathBuf>,
    /// Further directories of objects, as GIT_ALTERNATE_OBJECT_DIRECTORIES takes them.
    objects: OsString,
    /// The person's configuration and the system's do not count.
    alone: bool,
    /// What else is in its environment.
    env: Vec<(&'static str, PathBuf)>,
    patience: Patience,
}

#[derive(Debug, Clone)]
enum Place {
    /// git finds the repository itself, from this directory and no further up; it refuses those of other people (safe.directory).
    From(PathBuf),
    /// The repository is known. git does not ask whose it is.
    At { git_dir: PathBuf, work_tree: PathBuf },
}

impl Git {
    /// For asking git which repository `directory` is the top of. It does not look further up.
    pub fn from(directory: &Path) -> Self {
        Self::of(Place::From(directory.to_owned()))
    }

    /// For a repository that [`Git::from`] has been asked about: whatever its configuration says, it is this one, with this work tree.
    pub fn at(git_dir: &Path, work_tree: &Path) -> Self {
        Self::of(Place::At { git_dir: git_dir.to_owned(), work_tree: work_tree.to_owned() })
    }

    fn of(place: Place) -> Self {
        let patience = Patience::default();
        Self { place, shallow: None, objects: OsString::new(), alone: false, env: vec![], patience }
    }

    /// As this one, waited for with `patience`.
    pub fn patient(&self, patience: &Patience) -> Self {
        Self { patience: patience.clone(), ..self.clone() }
    }

    pub fn patience(&self) -> &Patience {
        &self.patience
    }

    /// As this one, with no configuration but the repository's: for one that is ours. Paths that begin with a colon are magic then, since
    /// check-ignore does not take them literally. It may have only so much memory, as such a repository holds what a guest sends.
    pub fn alone(&self) -> Self {
        Self { alone: true, ..self.clone() }
    }

    /// As this one, with its index in `file`.
    pub fn index_at(&self, file: &Path) -> Self {
        self.with_env("GIT_INDEX_FILE", file)
    }

    /// As this one, with new objects going to `directory`, and its own being those there.
    pub fn writing_to(&self, directory: &Path) -> Self {
        self.with_env("GIT_OBJECT_DIRECTORY", directory)
    }

    fn with_env(&self, name: &'static str, value: &Path) -> Self {
        let mut git = self.clone();
        git.env.push((name, value.to_owned()));
        git
    }

    /// As this one, with `file` saying which commits have no parents. An open descriptor's path in /proc/PID/fd will do.
    pub fn shallow_at(&self, file: &Path) -> Self {
        Self { shallow: Some(file.to_owned()), ..self.clone() }
    }

    /// As this one, with the objects in `directories` beside its own.
    pub fn with_objects<'a>(&self, directories: impl Iterator<Item = &'a Path>) -> Self {
        let mut objects = vec![];
        for directory in directories {
            // Quoted, for a colon would end it (git(1)).
            objects.extend(if objects.is_empty() { &b"\""[..] } else { b":\"" });
            for byte in directory.as_os_str().as_bytes() {
                if matches!(byte, b'"' | b'\\') {
                    objects.push(b'\\');
                }
                objects.push(*byte);
            }
            objects.push(b'"');
        }
        Self { objects: OsString::from_vec(objects), ..self.clone() }
    }

    /// Runs `git args` to its end, and returns its stdout.
    pub fn read<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Vec<u8>, CmdError> {
        let mut running = self.start(args, Stdio::null())?;
        let mut out = vec![];
        let read = running.stdout.take().map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut out));
        running.finish_after(read.map(drop))?;
        Ok(out)
    }

    /// As [`Git::read`], with `input` on its stdin. It may speak before it has read all of it.
    pub fn read_fed<S: AsRef<OsStr>>(&self, args: &[S], input: &[u8]) -> Result<Vec<u8>, CmdError> {
        let mut running = self.start(args, Stdio::piped())?;
        let mut out = vec![];
        let (stdin, stdout) = (running.stdin.take(), running.stdout.take());
        let moved = std::thread::scope(|scope| {
            let feeding = scope.spawn(move || match stdin.map(|mut stdin| stdin.write_all(input)) {
                // It ends, and says why.
                Some(Err(e)) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
                _ => Ok(()),
            });
            let read = stdout.map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut out)).map(drop);
            read.and(feeding.join().unwrap_or_else(|_| Err(io::Error::other("a thread ended early"))))
        });
        running.finish_after(moved)?;
        Ok(out)
    }

    /// The first line that `git args` prints; None: it printed nothing, or ended with status 1, by which git says that there is none.
    pub fn line<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Option<String>, CmdError> {
        match self.read(args) {
            Ok(out) => {
                let line = out.split(|b| *b == b'\n').next().unwrap_or_default();
                Ok((!line.is_empty()).then(|| String::from_utf8_lossy(line).into_owned()))
            }
            Err(CmdError::Failed { status, .. }) if status.code() == Some(1) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Starts `git args`. Whoever feeds a pipe and reads another in one thread knows that git reads before it speaks.
    pub fn start<S: AsRef<OsStr>>(&self, args: &[S], stdin: Stdio) -> Result<Running, CmdError> {
        self.start_into(args, stdin, Stdio::piped())
    }

    /// As [`Git::start`], with its stdout going to `stdout`.
    pub fn start_into<S: AsRef<OsStr>>(
        &self,
        args: &[S],
        stdin: Stdio,
        stdout: Stdio,
    ) -> Result<Running, CmdError> {
        let verb = args.first().map_or_else(Default::default, |verb| verb.as_ref().to_string_lossy());
        let doing = Doing { program: format!("git {verb}"), at: self.work_tree().to_owned() };
        let running = Running::start(doing.clone(), &self.patience, |stderr| {
            self.command()?.args(args).stdin(stdin).stdout(stdout).stderr(stderr).spawn()
        });
        let limited = running.and_then(|running| {
            if self.alone {
                limit_memory(&running.child)?;
            }
            Ok(running)
        });
        limited.map_err(|source| CmdError::Spawn { program: doing.program, source })
    }

    fn work_tree(&self) -> &Path {
        match &self.place {
            Place::From(directory) => directory,
            Place::At { work_tree, .. } => work_tree,
        }
    }

    fn command(&self) -> io::Result<Command> {
        let path = absolute_path();
        let mut command = Command::new(program(&path)?);
        command.env_clear().env("PATH", &path).env("LC_ALL", "C");
        if self.alone {
            command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        } else {
            for name in ["HOME", "XDG_CONFIG_HOME"] {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.envs([
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_NO_LAZY_FETCH", "1"),
            // Older gits do not know the line above; no protocol has this name.
            ("GIT_ALLOW_PROTOCOL", "none"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            // Packs hold what is there, not what replaces it; so the walk may not see it either.
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_GRAFT_FILE", "/dev/null"),
        ]);
        command.args(["--no-optional-locks", "--no-pager"]);
        if !self.alone {
            command.arg("--literal-pathspecs");
        }
        for setting in OVERRIDES {
            command.args(["-c", setting]);
        }
        if !self.objects.is_empty() {
            command.env("GIT_ALTERNATE_OBJECT_DIRECTORIES", &self.objects);
        }
        if let Some(file) = &self.shallow {
            command.arg("--shallow-file").arg(file);
        }
        match &self.place {
            Place::From(directory) => {
                let above = directory.parent().unwrap_or(directory);
                command.env("GIT_CEILING_DIRECTORIES", above).current_dir(directory);
            }
            Place::At { git_dir, work_tree } => {
                command.arg(with("--git-dir=", git_dir)).arg(with("--work-tree=", work_tree));
                command.current_dir(work_tree);
            }
        }
        Ok(command)
    }
}

/// What it has by now it keeps.
fn limit_memory(git: &Child) -> io::Result<()> {
    let info = sysinfo();
    let memory = info.totalram.saturating_mul(info.mem_unit.into());
    let ours = getrlimit(Resource::As);
    let most = memory.clamp(MIN_MEMORY, MAX_MEMORY).min(ours.maximum.unwrap_or(u64::MAX));
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    prlimit(Some(Pid::from_child(git)), Resource::As, limit)?;
    Ok(())
}

/// The person's PATH without what is relative: the current directory will be the repository.
fn absolute_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_else(|| super::PATH.into());
    let absolute = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    // What was split at colons holds none.
    std::env::join_paths(absolute).unwrap_or_else(|_| super::PATH.into())
}

fn program(path: &OsStr) -> io::Result<PathBuf> {
    let executable = |file: &PathBuf| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let mut found = std::env::split_paths(path).map(|dir| dir.join("git")).filter(executable);
    found.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "git is not installed"))
}

fn with(option: &str, path: &Path) -> OsString {
    let mut word = OsString::from(option);
    word.push(path);
    word
}

/// A descriptor's path for a program that this process starts, as long as it is open here.
pub fn path_of(fd: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        Git::from(dir.path()).read(&["init", "-q", "."]).expect("makes one");
        dir
    }

    #[test]
    fn a_repository_is_found_where_it_is_and_not_further_up() {
        let dir = repository();
        let below = dir.path().join("below");
        std::fs::create_dir(&below).expect("makes");
        let found = Git::from(dir.path()).line(&["rev-parse", "--git-dir"]).expect("finds");
        assert_eq!(found.as_deref(), Some(".git"));
        let error = Git::from(&below).read(&["rev-parse", "--git-dir"]).expect_err("none").to_string();
        assert!(error.starts_with("git rev-parse failed: not a git repository"), "{error}");
    }

    #[test]
    fn what_is_fed_may_be_longer_than_what_a_pipe_holds() {
        let dir = repository();
        let git = Git::at(&dir.path().join(".git"), dir.path());
        let input = "0123456789012345678901234567890123456789\n".repeat(20_000);
        let out = git.read_fed(&["cat-file", "--batch-check"], input.as_bytes()).expect("answers");
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 20_000);
        assert_eq!(git.line(&["config", "--get", "no.such"]).expect("answers"), None);
    }

    #[test]
    fn a_work_tree_that_the_configuration_names_is_not_gone_to() {
        let dir = repository();
        let config = dir.path().join(".git/config");
        let text = std::fs::read_to_string(&config).expect("reads") + "[core]\n\tworktree = /\n";
        std::fs::write(&config, text).expect("writes");
        std::fs::write(dir.path().join("f"), "").expect("writes");
        let git = Git::at(&dir.path().join(".git"), dir.path());
        assert_eq!(git.read(&["ls-files", "-o", "-z"]).expect("lists"), b"f\0");
    }

    #[test]
    fn one_that_works_on_what_a_guest_sends_may_have_only_so_much_memory() {
        let dir = repository();
        let git = Git::at(&dir.path().join(".git"), dir.path());
        let most = |git: &Git| {
            // It waits for its input.
            let running = git.start(&["cat-file", "--batch"], Stdio::piped()).expect("starts");
            let limits =
                std::fs::read_to_string(format!("/proc/{}/limits", running.child.id())).expect("reads");
            let line = limits.lines().find(|line| line.starts_with("Max address space")).expect("is there");
            line.split_whitespace().nth(3).and_then(|soft| soft.parse::<u64>().ok()).unwrap_or(u64::MAX)
        };
        assert!((MIN_MEMORY..=MAX_MEMORY).contains(&most(&git.alone())));
        assert_eq!(most(&git), getrlimit(Resource::As).current.unwrap_or(u64::MAX));
    }

    #[test]
    fn a_git_that_is_given_up_is_gone() {
        let dir = repository();
        let running = Git::at(&dir.path().join(".git"), dir.path())
            .start(&["cat-file", "--batch"], Stdio::piped())
            .expect("starts");
        let pid = running.child.id();
        drop(running);
        assert!(crate::host::process::observe(pid).expect("looks").is_none());
    }
}
