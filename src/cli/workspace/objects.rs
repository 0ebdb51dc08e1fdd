//! Which objects a guest lacks.
//!
//! Of a history without an end on the guest's side it is what git says with `--not`. Where the guest's is cut off, `--not` would leave
//! out what lies behind the cut; then both are listed, and one taken from the other.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::fs::{MemfdFlags, memfd_create};

use super::error::WorkspaceError;
use super::history::Objects;
use super::index::{is_id, parse_tree};
use super::repository::Repo;
use crate::git::history::{Walk, boundary, walk};
use crate::git::{Id, is_ref_name};
use crate::host::cmd::CmdError;
use crate::host::cmd::git::{Git, Running, path_of};
use crate::proto::workspace::Placed;

/// What a repository's guest gets beside files.
#[derive(Debug, Default)]
pub struct Plan {
    /// Tags, by name, and their objects.
    pub tags: Vec<(String, String)>,
    /// All of the guest's shallow file.
    pub shallow: Vec<String>,
    /// How many commits it gets that it lacks.
    pub commits: usize,
    /// Blobs that only the index has.
    staged: Vec<String>,
    want: Option<Question>,
    have: Option<Question>,
}

/// A question to rev-list: what is reachable, where the commits in `cut` have no parents.
#[derive(Debug)]
struct Question {
    lines: String,
    cut: Vec<String>,
}

/// The answers are on their way.
#[derive(Debug)]
pub struct Asked {
    want: Option<Answer>,
    have: Option<Answer>,
    staged: Vec<String>,
}

#[derive(Debug)]
struct Answer {
    running: Running,
    out: File,
    /// git reads it for as long as it runs.
    _cut: OwnedFd,
}

/// Decides what `read`, whose HEAD in the guest will be `head`, brings to a guest that has what `placed` says. `depth`: None for all.
pub fn plan(
    read: &Repo,
    head: &str,
    depth: Option<usize>,
    placed: Option<&Placed>,
) -> Result<Plan, WorkspaceError> {
    let git = &read.found.git;
    let mut objects = Objects::open(git)?;
    let cut: HashSet<String> = read.shallow.iter().cloned().collect();
    let mut heads = vec![];
    for id in placed.into_iter().flat_map(|placed| &placed.heads).filter(|id| is_id(id)) {
        if objects.parents(id).is_ok_and(|parents| parents.is_some()) {
            heads.push(id.clone());
        }
    }
    let mut new = match depth {
        Some(_) => walk(&[head.to_owned()], depth, &cut, |id| objects.parents(id))?,
        // So much only where it is needed, and then by git.
        None => Walk { commits: HashSet::new(), edge: reachable(git, head, &read.shallow)? },
    };
    let mut plan = Plan { staged: staged(read, head)?, ..Plan::default() };
    plan.tags = tags(git, head, depth.map(|_| &new.commits))?;
    let positive: String = plan.tags.iter().map(|(_, id)| format!("{id}\n")).collect();
    let positive = format!("{head}\n{positive}");
    let edge = |walk: &Walk| walk.edge.iter().cloned().collect::<Vec<_>>();
    match placed {
        Some(placed) if !heads.is_empty() && placed.shallow => {
            if depth.is_none() {
                new.commits = commits(git, &[head])?;
            }
            for id in &new.edge {
                objects.parents(id)?;
            }
            let old_cut = if placed.boundary.is_empty() { &heads } else { &placed.boundary };
            let old_cut: HashSet<String> = old_cut.iter().cloned().collect();
            let old = walk(&heads, None, &old_cut, |id| objects.parents(id))?;
            plan.shallow = boundary(&new, &old.commits, &placed.boundary, |id| objects.known(id));
            plan.commits = new.commits.difference(&old.commits).count();
            let lacks_only_tags = plan.commits == 0;
            let lines = if lacks_only_tags { format!("{positive}^{head}\n") } else { positive };
            plan.want = Some(Question { lines, cut: edge(&new) });
            if !lacks_only_tags {
                let lines = heads.iter().map(|id| format!("{id}\n")).collect();
                plan.have = Some(Question { lines, cut: old_cut.into_iter().collect() });
            }
        }
        _ => {
            let not: Vec<String> = heads.iter().map(|id| format!("^{id}")).collect();
            let lacking = |ids: &[&str]| -> Result<HashSet<String>, WorkspaceError> {
                commits(git, &ids.iter().copied().chain(not.iter().map(String::as_str)).collect::<Vec<_>>())
            };
            let cut = edge(&new);
            plan.shallow = cut.clone();
            if depth.is_some() && !heads.is_empty() {
                // It says that it has their whole history. What that would spare it is not sent; but no more than the depth either.
                let lacks = lacking(&cut.iter().map(String::as_str).collect::<Vec<_>>())?;
                plan.shallow.retain(|id| lacks.contains(id));
            }
            if let Some(placed) = placed.filter(|placed| !placed.boundary.is_empty()) {
                // Another history of the guest's ends where it ended, unless what it lacks comes now.
                let whole = depth.is_none().then(|| commits(git, &[head])).transpose()?;
                let new_commits = whole.as_ref().unwrap_or(&new.commits);
                let comes = |id: &String| new_commits.contains(id) && !new.edge.contains(id);
                plan.shallow.extend(placed.boundary.iter().filter(|id| !comes(id)).cloned());
            }
            plan.shallow.sort();
            plan.shallow.dedup();
            plan.commits = match (depth, heads.is_empty()) {
                (Some(_), true) => new.commits.len(),
                (Some(_), false) => lacking(&[head])?.intersection(&new.commits).count(),
                (None, _) => {
                    count(git, &[&[head], &not.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat())?
                }
            };
            let lines = positive + &not.iter().map(|not| format!("{not}\n")).collect::<String>();
            plan.want = Some(Question { lines, cut });
        }
    }
    objects.close()?;
    Ok(plan)
}

impl Plan {
    /// Starts asking; git works on it while other things are done.
    pub fn ask(&self, read: &Repo) -> Result<Asked, WorkspaceError> {
        let ask = |question: &Option<Question>| match question {
            Some(question) => question.ask(&read.found.git).map(Some),
            None => Ok(None),
        };
        Ok(Asked { want: ask(&self.want)?, have: ask(&self.have)?, staged: self.staged.clone() })
    }
}

impl Question {
    fn ask(&self, git: &Git) -> Result<Answer, WorkspaceError> {
        let cut: String = self.cut.iter().map(|id| format!("{id}\n")).collect();
        let cut = OwnedFd::from(memory(cut.as_bytes())?);
        let out = memory(b"")?;
        let own = |file: &File| file.try_clone().map_err(in_memory);
        let args = ["rev-list", "--objects", "--no-object-names", "--missing=allow-promisor", "--stdin"];
        let git = git.shallow_at(&path_of(&cut));
        let stdin = Stdio::from(memory(self.lines.as_bytes())?);
        let running = git.start_into(&args, stdin, Stdio::from(own(&out)?))?;
        Ok(Answer { running, out, _cut: cut })
    }
}

impl Answer {
    fn each(mut self, mut take: impl FnMut(&str)) -> Result<(), WorkspaceError> {
        self.running.finish()?;
        let mut text = String::new();
        let read = self.out.seek(SeekFrom::Start(0)).and_then(|_| self.out.read_to_string(&mut text));
        read.map_err(in_memory)?;
        text.lines().filter(|id| is_id(id)).for_each(&mut take);
        Ok(())
    }
}

impl Asked {
    /// The objects' names, one in a line: those that the guest lacks, without those that it has `made` itself.
    pub fn lacking(self, made: &HashSet<String>, to: &mut Vec<u8>) -> Result<(), WorkspaceError> {
        let mut had = HashSet::new();
        if let Some(have) = self.have {
            have.each(|id| {
                had.insert(id.to_owned());
            })?;
        }
        let mut add = |id: &str| {
            if !made.contains(id) && !had.contains(id) {
                to.extend_from_slice(id.as_bytes());
                to.push(b'\n');
            }
        };
        if let Some(want) = self.want {
            want.each(&mut add)?;
        }
        self.staged.iter().for_each(|id| add(id));
        Ok(())
    }
}

/// Blobs that the index names and `head` does not, as far as they are there.
fn staged(read: &Repo, head: &str) -> Result<Vec<String>, WorkspaceError> {
    let git = &read.found.git;
    let listing = git.read(&["ls-tree", "-r", "-z", "--full-tree", head])?;
    let committed: HashSet<Id> =
        parse_tree(&listing, read.found.format)?.into_iter().map(|entry| entry.id).collect();
    let only: Vec<String> = read.staged.difference(&committed).map(Id::to_string).collect();
    if only.is_empty() {
        return Ok(vec![]);
    }
    let asked: String = only.iter().map(|id| format!("{id}\n")).collect();
    let told = git.read_fed(&["cat-file", "--batch-check"], asked.as_bytes())?;
    // One that was only announced (`git add -N`) need not be.
    let there =
        String::from_utf8_lossy(&told).lines().map(|line| !line.ends_with(" missing")).collect::<Vec<_>>();
    Ok(only.into_iter().zip(there).filter(|(_, there)| *there).map(|(id, _)| id).collect())
}

/// Tags of commits that go along: those in `commits`, or all that `head` has.
fn tags(
    git: &Git,
    head: &str,
    commits: Option<&HashSet<String>>,
) -> Result<Vec<(String, String)>, WorkspaceError> {
    let format = "--format=%(objectname) %(*objectname) %(refname)";
    let merged = format!("--merged={head}");
    let args = [Some("for-each-ref"), Some(format), commits.is_none().then_some(&*merged), Some("refs/tags")];
    let args: Vec<&str> = args.into_iter().flatten().collect();
    let told = git.read(&args)?;
    let mut tags = vec![];
    for line in told.split(|b| *b == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let words: Vec<&str> = line.split(' ').collect();
        let [id, peeled, name] = words[..] else { continue };
        let commit = if peeled.is_empty() { id } else { peeled };
        let Some(name) = name.strip_prefix("refs/tags/") else { continue };
        // git keeps names that it would not take from a person, such as -x; nor does the guest.
        if is_id(id) && is_ref_name(name) && commits.is_none_or(|commits| commits.contains(commit)) {
            tags.push((name.to_owned(), id.to_owned()));
        }
    }
    Ok(tags)
}

/// Those of `shallow` that `head` comes to.
fn reachable(git: &Git, head: &str, shallow: &[String]) -> Result<HashSet<String>, WorkspaceError> {
    if shallow.is_empty() {
        return Ok(HashSet::new());
    }
    let all = commits(git, &[head])?;
    Ok(shallow.iter().filter(|id| all.contains(*id)).cloned().collect())
}

fn commits(git: &Git, asked: &[&str]) -> Result<HashSet<String>, WorkspaceError> {
    let args: Vec<&str> = ["rev-list"].iter().chain(asked).copied().collect();
    let told = git.read(&args)?;
    Ok(String::from_utf8_lossy(&told).lines().map(str::to_owned).collect())
}

fn count(git: &Git, asked: &[&str]) -> Result<usize, WorkspaceError> {
    let args: Vec<&str> = ["rev-list", "--count"].iter().chain(asked).copied().collect();
    Ok(git.line(&args)?.and_then(|line| line.parse().ok()).unwrap_or(0))
}

/// A file that is nowhere, holding `content`, to be read from its beginning.
pub fn memory(content: &[u8]) -> Result<File, WorkspaceError> {
    let make = || -> std::io::Result<File> {
        let mut file = File::from(memfd_create("banger", MemfdFlags::CLOEXEC)?);
        file.write_all(content)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    };
    make().map_err(in_memory)
}

fn in_memory(source: std::io::Error) -> WorkspaceError {
    WorkspaceError::Git(CmdError::Spawn { program: "git".to_owned(), source })
}
