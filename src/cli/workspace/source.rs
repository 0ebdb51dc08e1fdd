//! What PATH is: the work tree of a repository that may be asked, or a plain directory.
//!
//! A repository may be hostile, a tar archive from anywhere. git refuses those of other people; that one's `.git` does not lead to
//! somebody's else, or to another one of the same person, whose history would end up in a guest, is looked at here: nothing that names
//! commits may be a symlink ([`super::names`] for what refs go on to), and a `.git` file counts only where what it names points back.

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::error::WorkspaceError;
use super::names;
use crate::git::Format;
use crate::host::cmd::CmdError;
use crate::host::cmd::git::{Git, Patience};

/// A repository with a work tree, both absolute and without symlinks.
#[derive(Debug, Clone)]
pub struct Found {
    /// The top of its work tree.
    pub top: PathBuf,
    /// Where HEAD and the index are.
    pub git_dir: PathBuf,
    /// Where objects, refs and configuration are: another than `git_dir` in a linked work tree.
    pub common: PathBuf,
    pub format: Format,
    pub git: Git,
}

/// What is brought.
#[derive(Debug, Clone)]
pub enum Source {
    Repository(Box<Found>),
    /// A directory, whole.
    Plain(PathBuf),
}

impl Source {
    /// What `path` is; with `copy`, a plain directory, whatever else it is.
    ///
    /// # Errors
    /// One sentence for each kind of path that cannot be brought.
    pub fn find(path: &Path, copy: bool, patience: &Patience) -> Result<Self, WorkspaceError> {
        let shown = path.display();
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return WorkspaceError::refused(format!("{shown} does not exist"));
            }
            Err(e) => return Err(WorkspaceError::here("read", path)(e)),
        };
        if !real.is_dir() {
            return WorkspaceError::refused(format!(
                "{shown} is no directory; name a git work tree, or copy single files with `banger vm cp`"
            ));
        }
        if copy {
            return Ok(Self::Plain(real));
        }
        match top_of(&real)? {
            Some(top) => open(&top, None, patience).map(|found| Self::Repository(Box::new(found))),
            None if is_bare(&real) => WorkspaceError::refused(format!(
                "{shown} is a bare repository and has no files; clone it, and name the clone"
            )),
            None => WorkspaceError::refused(format!(
                "{shown} is not in a git repository; --copy brings a plain directory as it is"
            )),
        }
    }
}

/// The nearest directory from `path` upwards that has a `.git`, on the same file system, as git looks for it.
fn top_of(path: &Path) -> Result<Option<PathBuf>, WorkspaceError> {
    let device =
        |dir: &Path| fs::metadata(dir).map(|meta| meta.dev()).map_err(WorkspaceError::here("read", dir));
    let start = device(path)?;
    if is_bare(path) {
        return Ok(None);
    }
    for dir in path.ancestors() {
        if device(dir)? != start {
            break;
        }
        if fs::symlink_metadata(dir.join(".git")).is_ok() {
            return Ok(Some(dir.to_owned()));
        }
    }
    Ok(None)
}

fn is_bare(path: &Path) -> bool {
    path.join("HEAD").is_file() && path.join("objects").is_dir() && path.join("refs").is_dir()
}

/// The repository whose work tree has its top at `top`, which is absolute and without symlinks. `modules` is where a submodule's
/// repository may be beside its own directory; None: it is no submodule of another that is read.
pub fn open(top: &Path, modules: Option<&Path>, patience: &Patience) -> Result<Found, WorkspaceError> {
    let shown = top.display();
    let dot_git = top.join(".git");
    let kind = fs::symlink_metadata(&dot_git).map_err(WorkspaceError::here("read", &dot_git))?.file_type();
    let git_dir = if kind.is_symlink() {
        return WorkspaceError::refused(format!(
            "{shown}/.git is a symlink, which is not followed; --copy brings the files without their history"
        ));
    } else if kind.is_dir() {
        dot_git.clone()
    } else {
        linked(&dot_git)?
    };
    let common = common(&git_dir)?;
    leads_nowhere_else(&git_dir, &common)?;
    nothing_blocks(top, &git_dir, &common)?;
    keeps_its_refs(top, &common, patience)?;
    let git = Git::at(&git_dir, top).patient(patience);
    let format = ask(top, &git_dir, patience)?;
    if !kind.is_dir() && !points_back(&git, top, &git_dir, &common, modules) {
        return WorkspaceError::refused(format!(
            "{shown}/.git names {}, which is the repository of another work tree; --copy brings the files without their history",
            git_dir.display()
        ));
    }
    let found = Found { top: top.to_owned(), git_dir, common, format, git };
    names::stay_here(&found)?;
    Ok(found)
}

/// Asks git whether the repository is one, and ours, and how it names objects.
fn ask(top: &Path, git_dir: &Path, patience: &Patience) -> Result<Format, WorkspaceError> {
    let shown = top.display();
    let question = ["rev-parse", "--absolute-git-dir", "--is-bare-repository", "--show-object-format"];
    let answer = match Git::from(top).patient(patience).read(&question) {
        Ok(answer) => answer,
        Err(CmdError::Failed { stderr, .. }) if stderr.contains("dubious ownership") => {
            return WorkspaceError::refused(format!(
                "{shown} belongs to somebody else; if you trust it, `git config --global --add safe.directory {shown}`"
            ));
        }
        Err(e) => return Err(e.into()),
    };
    let mut lines = answer.split(|b| *b == b'\n');
    let [told, bare, format] = [(); 3].map(|()| lines.next().unwrap_or_default());
    if bare == b"true" {
        return WorkspaceError::refused(format!(
            "{shown} is a bare repository and has no files; clone it, and name the clone"
        ));
    }
    let told = Path::new(std::ffi::OsStr::from_bytes(told));
    if told.canonicalize().ok().as_deref() != Some(git_dir) {
        return WorkspaceError::refused(format!(
            "{shown}/.git is no repository to git, which goes on to {}; --copy brings the files alone",
            told.display()
        ));
    }
    match format {
        b"sha1" => Ok(Format::Sha1),
        b"sha256" => Ok(Format::Sha256),
        other => WorkspaceError::refused(format!(
            "{shown} names its objects by \"{}\", which is not known here",
            other.escape_ascii()
        )),
    }
}

/// What a `.git` file names, as git reads it (gitrepository-layout, gitfile).
fn linked(dot_git: &Path) -> Result<PathBuf, WorkspaceError> {
    let text = small(dot_git)?.unwrap_or_default();
    let Some(named) = text.strip_prefix(b"gitdir: ") else {
        return WorkspaceError::refused(format!(
            "{} is neither a directory nor a file that names one",
            dot_git.display()
        ));
    };
    resolve(dot_git.parent().unwrap_or(dot_git), line_of(named))
}

/// The directory that git takes for the common one, which has to be where `git worktree add` has it.
fn common(git_dir: &Path) -> Result<PathBuf, WorkspaceError> {
    let Some(text) = small(&git_dir.join("commondir"))? else { return Ok(git_dir.to_owned()) };
    let common = resolve(git_dir, line_of(&text))?;
    let expected = git_dir.parent().filter(|dir| dir.ends_with("worktrees")).and_then(Path::parent);
    match expected == Some(&common) {
        true => Ok(common),
        false => WorkspaceError::refused(format!(
            "{} says that its repository is {}, which does not hold it; --copy brings the files without their history",
            git_dir.display(),
            common.display()
        )),
    }
}

/// Whether `git_dir`, which a `.git` file in `top` names, is of this work tree.
fn points_back(git: &Git, top: &Path, git_dir: &Path, common: &Path, modules: Option<&Path>) -> bool {
    if git_dir != common {
        let back = small(&git_dir.join("gitdir")).ok().flatten();
        return back
            .is_some_and(|back| resolve(git_dir, line_of(&back)).is_ok_and(|back| back == top.join(".git")));
    }
    if let Some(modules) = modules {
        // As it is written: both are below a directory without symlinks, and one in between would lead elsewhere.
        return git_dir.starts_with(modules) && git_dir != modules;
    }
    let config = git_dir.join("config");
    let args = [
        "config".as_ref(),
        "--file".as_ref(),
        config.as_os_str(),
        "--get".as_ref(),
        "core.worktree".as_ref(),
    ];
    let worktree = git.line::<&std::ffi::OsStr>(&args).ok().flatten();
    worktree
        .is_some_and(|worktree| resolve(git_dir, worktree.as_bytes()).is_ok_and(|worktree| worktree == top))
}

/// Refuses where the configuration has refs in another directory than their own, as git does from 2.54 on (extensions.refStorage, a URI).
/// git reads that one file for it, and none that it includes (setup.c, read_repository_format).
fn keeps_its_refs(top: &Path, common: &Path, patience: &Patience) -> Result<(), WorkspaceError> {
    let config = common.join("config");
    let file = config.as_os_str();
    let args = ["config".as_ref(), "--file".as_ref(), file, "--null".as_ref(), "--get-all".as_ref()];
    let args = [&args[..], &["extensions.refStorage".as_ref()]].concat();
    // From elsewhere: in a repository whose refs it cannot read git does not even read a file.
    let told = match Git::from(Path::new("/")).patient(patience).read::<&std::ffi::OsStr>(&args) {
        Err(CmdError::Failed { status, .. }) if status.code() == Some(1) => return Ok(()),
        told => told?,
    };
    match told.split(|b| *b == 0).find(|value| !matches!(*value, b"" | b"files" | b"reftable")) {
        None => Ok(()),
        Some(value) => WorkspaceError::refused(format!(
            "{} has its refs in \"{}\", which is not followed; --copy brings the files without their history",
            top.display(),
            value.escape_ascii()
        )),
    }
}

/// Refuses where one of the names that lead to commits is a symlink: history would come from there. Objects may lie elsewhere (alternates):
/// whoever does not know a commit's name finds none of them.
fn leads_nowhere_else(git_dir: &Path, common: &Path) -> Result<(), WorkspaceError> {
    small(&git_dir.join("HEAD"))?;
    let shared =
        ["config", "info/exclude", "objects", "objects/pack", "packed-refs", "refs", "reftable", "shallow"];
    let own = ["HEAD", "index", "config.worktree", "refs", "reftable"];
    let shared = shared.into_iter().map(|name| (common, name));
    for (dir, name) in shared.chain(own.into_iter().map(|name| (git_dir, name))) {
        stays_beneath(dir, Path::new(name))?;
    }
    holds_no_symlink(["refs", "reftable"].iter().flat_map(|name| [common.join(name), git_dir.join(name)]))
}

fn holds_no_symlink(dirs: impl Iterator<Item = PathBuf>) -> Result<(), WorkspaceError> {
    others(dirs, |path, kind| if kind.is_symlink() { elsewhere(path) } else { Err(in_the_way(path)) })
}

/// Looks at all below `dirs` that is neither a file nor a directory.
fn others(
    dirs: impl Iterator<Item = PathBuf>,
    look: impl Fn(&Path, fs::FileType) -> Result<(), WorkspaceError>,
) -> Result<(), WorkspaceError> {
    let mut dirs: Vec<PathBuf> = dirs.collect();
    while let Some(dir) = dirs.pop() {
        for entry in listed(&dir)? {
            let kind = entry.file_type().map_err(WorkspaceError::here("read", &dir))?;
            match () {
                () if kind.is_dir() => dirs.push(entry.path()),
                () if kind.is_file() => {}
                () => look(&entry.path(), kind)?,
            }
        }
    }
    Ok(())
}

/// Refuses where something that is no file stands in the place of one that git reads: it would wait for it, a named pipe for one, for
/// ever. In the work tree only the top is looked at.
fn nothing_blocks(top: &Path, git_dir: &Path, common: &Path) -> Result<(), WorkspaceError> {
    for name in [".gitignore", ".gitattributes", ".gitmodules"] {
        is_no_special(&top.join(name), fs::symlink_metadata(top.join(name)))?;
    }
    let own = ["HEAD", "index", "commondir", "gitdir", "config.worktree", "info/sparse-checkout"];
    let shared = ["config", "packed-refs", "shallow", "info/exclude", "info/attributes"];
    let shared = shared.into_iter().map(|name| common.join(name));
    for path in shared.chain(own.into_iter().map(|name| git_dir.join(name))) {
        is_no_special(&path, fs::metadata(&path))?;
    }
    for path in listed(git_dir)?.into_iter().map(|entry| entry.path()) {
        // Of a split index; others may be sockets, such as that of git's file system monitor.
        if path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"sharedindex.")) {
            is_no_special(&path, fs::metadata(&path))?;
        }
    }
    others([common.join("objects")].into_iter(), |path, _| is_no_special(path, fs::metadata(path)))
}

/// What is in a directory that may be missing.
fn listed(dir: &Path) -> Result<Vec<fs::DirEntry>, WorkspaceError> {
    match fs::read_dir(dir).and_then(Iterator::collect) {
        Ok(entries) => Ok(entries),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(vec![]),
        Err(e) => Err(WorkspaceError::here("read", dir)(e)),
    }
}

fn is_no_special(path: &Path, meta: io::Result<fs::Metadata>) -> Result<(), WorkspaceError> {
    match meta {
        Ok(meta) if !meta.is_file() && !meta.is_dir() && !meta.is_symlink() => Err(in_the_way(path)),
        // What is not there, or may not be read, git will speak of.
        _ => Ok(()),
    }
}

/// Something that git would wait for stands in the place of a file that it reads.
pub fn in_the_way(path: &Path) -> WorkspaceError {
    WorkspaceError::Refused(format!(
        "{} is a named pipe, a socket or a device, in the place of a file that git reads; remove it",
        path.display()
    ))
}

pub fn elsewhere<T>(path: &Path) -> Result<T, WorkspaceError> {
    WorkspaceError::refused(format!(
        "{} leads elsewhere, which is not followed; --copy brings the files without their history",
        path.display()
    ))
}

impl Found {
    /// A small file of the repository's; None: there is none.
    pub fn file(&self, name: &str) -> Result<Option<Vec<u8>>, WorkspaceError> {
        let path = self.common.join(name);
        match beneath(&self.common, Path::new(name), OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => whole(fd.into(), &path),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(WorkspaceError::here("read", &path)(e.into())),
        }
    }

    /// Refuses where a reflog is a symlink, or the directory that they are in.
    pub fn keeps_its_logs(&self) -> Result<(), WorkspaceError> {
        for dir in [&self.common, &self.git_dir] {
            stays_beneath(dir, Path::new("logs"))?;
        }
        holds_no_symlink([self.common.join("logs"), self.git_dir.join("logs")].into_iter())
    }
}

/// Refuses where `name` in `dir` leads elsewhere.
pub fn stays_beneath(dir: &Path, name: &Path) -> Result<(), WorkspaceError> {
    if leads_elsewhere(dir, name)? { elsewhere(&dir.join(name)) } else { Ok(()) }
}

/// Whether `name` in `dir`, or a directory on the way to it, is a symlink. There need not be one.
pub fn leads_elsewhere(dir: &Path, name: &Path) -> Result<bool, WorkspaceError> {
    match beneath(dir, name, OFlags::PATH) {
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(Errno::LOOP | Errno::XDEV) => Ok(true),
        Err(e) => Err(WorkspaceError::here("read", &dir.join(name))(e.into())),
    }
}

fn beneath(dir: &Path, name: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let root = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(root, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// A small regular file without symlinks at its end; None: there is none.
pub fn small(path: &Path) -> Result<Option<Vec<u8>>, WorkspaceError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => whole(fd.into(), path),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(Errno::LOOP) => WorkspaceError::refused(format!(
            "{} is a symlink, which is not followed; --copy brings the files without their history",
            path.display()
        )),
        Err(e) => Err(WorkspaceError::here("read", path)(e.into())),
    }
}

/// What is in `file`, up to a MiB, if it is a regular one.
fn whole(file: fs::File, path: &Path) -> Result<Option<Vec<u8>>, WorkspaceError> {
    let mut text = vec![];
    let read = file.metadata().and_then(|meta| match meta.is_file() {
        true => (&file).take(1 << 20).read_to_end(&mut text).map(Some),
        false => Ok(None),
    });
    let read = read.map_err(WorkspaceError::here("read", path))?;
    Ok(read.map(|_| text))
}

fn line_of(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|b| *b == b'\n').unwrap_or(text.len());
    text[..end].strip_suffix(b"\r").unwrap_or(&text[..end])
}

fn resolve(from: &Path, named: &[u8]) -> Result<PathBuf, WorkspaceError> {
    let path = from.join(std::ffi::OsStr::from_bytes(named));
    path.canonicalize().map_err(WorkspaceError::here("find", &path))
}
