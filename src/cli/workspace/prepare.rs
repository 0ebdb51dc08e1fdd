//! The conversation that brings a work tree (`proto::workspace`, prepare), from this host's side.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use super::blob;
use super::changes::{Changes, Head, Untracked, compare, head, head_of_submodule, is_now, named, wanted};
use super::error::WorkspaceError;
use super::gather::{Brought, Gathered};
use super::history::Objects;
use super::index::is_id;
use super::objects::{self, Asked, Plan};
use super::peer::Peer;
use super::records::{self, Limits};
use super::repository::Repo;
use super::send::{Contents, send};
use super::tree::{Item, Tree};
use crate::cli::client::Attention;
use crate::copy::CopyError;
use crate::git::{Format, Mode};
use crate::proto::workspace::{Held, Kept, Obstacle, Order, Placed, Record, Repository};

/// What a prepare came to, or would.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub sent: usize,
    pub removed: usize,
    pub commits: usize,
    /// Of files and packs.
    pub bytes: u64,
    /// HEAD of the guest has gone its own way and stays there.
    pub head_stays: bool,
    /// What the guest has had to keep of its commits.
    pub kept: Vec<Kept>,
    pub untracked: Untracked,
}

/// The guest's answer, and the connection behind it.
pub struct Guest {
    pub held: Held,
    pub connection: OwnedFd,
}

/// What is to be done, decided with the guest's ledger in hand.
struct Decided {
    changes: Changes,
    head: Head,
}

/// What both sides have come to, and nothing done yet.
struct Agreed<'g> {
    /// None: there is no repository, or it stays as it is.
    brought: Option<&'g Brought>,
    planned: Option<Planned>,
    changes: Changes,
    done: Done,
}

/// Tells what [`bring`] would do, and leaves the guest as it is.
///
/// # Errors
/// As those of [`bring`].
pub fn compare_with(
    gathered: &Gathered,
    guest: Guest,
    force: bool,
    attention: &mut Attention<'_>,
) -> Result<(Changes, Done), WorkspaceError> {
    let Guest { held, connection } = guest;
    let mut peer = Peer::new(connection, attention);
    // The guest changes nothing before it has an index.
    let Agreed { changes, done, .. } = agree(gathered, &held, force, &mut peer)?;
    Ok((changes, done))
}

/// Brings `gathered`. With `force`, what was changed in the guest is overwritten.
///
/// # Errors
/// [`WorkspaceError::Refused`] where both sides have changed something; the guest is as it was then.
pub fn bring(
    gathered: &Gathered,
    guest: Guest,
    force: bool,
    attention: &mut Attention<'_>,
) -> Result<Done, WorkspaceError> {
    let Guest { held, connection } = guest;
    let mut peer = Peer::new(connection, attention);
    peer.stage("comparing with the guest".to_owned(), 0);
    let Agreed { brought, planned, changes, mut done } = agree(gathered, &held, force, &mut peer)?;
    if held.present {
        changes.agreed.iter().try_for_each(|path| peer.put(&[path, &b"\0"[..]].concat()))?;
        peer.end()?;
    }

    let asked = match (brought, &planned) {
        (Some(brought), Some(planned)) => {
            planned.indices(&brought.read, &mut peer)?;
            planned.ask(&brought.read)?
        }
        _ => {
            peer.end()?;
            vec![]
        }
    };
    peer.stage("sending files".to_owned(), done.bytes);
    let sent = gathered.items.iter().zip(&changes.sent).filter(|(_, sent)| **sent).map(|(item, _)| item);
    contents(gathered, |contents| send(sent, contents, &mut peer))?;
    peer.end()?;
    peer.stage("the guest takes it up".to_owned(), 0);
    let made = ids(&peer.segment()?);
    let packed = match brought {
        Some(brought) => pack(&brought.read, asked, &made, &mut peer)?,
        None => 0,
    };
    peer.end()?;
    done.kept = kept(&peer.segment()?)?;
    done.bytes += packed;
    Ok(done)
}

/// Decides, and hears whether the guest has anything against it.
fn agree<'g>(
    gathered: &'g Gathered,
    held: &Held,
    force: bool,
    peer: &mut Peer<'_, '_>,
) -> Result<Agreed<'g>, WorkspaceError> {
    let Decided { mut changes, head } = decide(gathered, held, force, peer)?;
    let brought = gathered.repository.as_ref().filter(|_| matches!(head, Head::Set { .. }));
    let planned = brought.map(|brought| Planned::of(brought, placed(held))).transpose()?;
    let repository = match (brought, &planned) {
        (Some(brought), Some(planned)) => {
            let keep_before = matches!(head, Head::Set { keep: true });
            let repository = planned.repository(&brought.read, keep_before);
            Some(Repository { head: brought.head.clone(), branch: brought.branch.clone(), ..repository })
        }
        _ => None,
    };
    let format = format_of(gathered);
    // Only strings and lists of them; there is nothing in it that JSON does not take.
    let order = serde_json::to_vec(&Order { repository, format })
        .map_err(|e| WorkspaceError::Guest(CopyError::Connection(e.into())))?;
    peer.put(&order)?;
    peer.put(b"\n")?;
    peer.end()?;
    tell_wanted(&gathered.items, &changes, peer)?;
    let in_the_way = in_the_way(&peer.segment()?, held.present)?;
    refuse_in_the_way(gathered, in_the_way, force, &mut changes)?;
    let commits = planned.as_ref().map_or(0, Planned::commits);
    let done = Done { commits, ..of(gathered, &changes, head) };
    Ok(Agreed { brought, planned, changes, done })
}

/// How many commits a guest that has none gets.
pub fn commits(brought: &Brought) -> Result<usize, WorkspaceError> {
    Ok(Planned::of(brought, None)?.commits())
}

/// What the guest has of a repository: nothing, if that is gone.
fn placed(held: &Held) -> Option<&Placed> {
    held.placed.as_ref().filter(|placed| placed.head.is_some() && held.head.is_some())
}

fn of(gathered: &Gathered, changes: &Changes, head: Head) -> Done {
    let sent = || gathered.items.iter().zip(&changes.sent).filter(|(_, sent)| **sent);
    Done {
        sent: sent().count(),
        removed: changes.removed,
        commits: 0,
        bytes: sent().map(|(item, _)| item.size).sum(),
        head_stays: head == Head::Stays,
        kept: vec![],
        untracked: changes.untracked,
    }
}

/// Reads the ledger, compares, and refuses what would lose something.
fn decide(
    gathered: &Gathered,
    held: &Held,
    force: bool,
    peer: &mut Peer<'_, '_>,
) -> Result<Decided, WorkspaceError> {
    let ledger = ledger(peer, Limits::WORK_TREE)?;
    let format = format_of(gathered);
    let changes = contents(gathered, |contents| {
        compare(&gathered.items, &gathered.behind, &ledger, |item| id(item, format, contents))
    })?;
    if !changes.conflicts.is_empty() && !force {
        return WorkspaceError::refused(format!(
            "changed in the guest and here: {}; `banger vm workspace diff` shows the guest's side, --force overwrites it",
            named(&changes.conflicts)
        ));
    }
    let head = match &gathered.repository {
        Some(brought) => head(held, &brought.head, brought.branch.as_deref(), force),
        None => Head::Stays,
    };
    if head == Head::Torn {
        return WorkspaceError::refused(
            "HEAD moved in the guest and here; `banger vm workspace export` brings the guest's commits here, \
             --force goes on and keeps them in the guest as refs/banger/before/N",
        );
    }
    if let (Some(brought), Head::Set { .. }) = (&gathered.repository, head) {
        refuse_torn_submodules(&brought.read, held, force)?;
    }
    Ok(Decided {
        changes,
        head: if gathered.repository.is_some() { head } else { Head::Set { keep: false } },
    })
}

fn refuse_torn_submodules(read: &Repo, held: &Held, force: bool) -> Result<(), WorkspaceError> {
    let torn = below(read, "").into_iter().filter(|(path, sub)| {
        head_of_submodule(held, path, &sub.head, sub.branch.as_deref(), force) == Head::Torn
    });
    let torn: Vec<Vec<u8>> = torn.map(|(path, _)| path.into_bytes()).collect();
    match torn.is_empty() {
        true => Ok(()),
        false => WorkspaceError::refused(format!(
            "HEAD of the submodule {} moved in the guest and here; --force goes on and keeps the guest's commits \
             there, as refs/banger/before/N",
            named(&torn)
        )),
    }
}

fn kept(text: &[u8]) -> Result<Vec<Kept>, WorkspaceError> {
    if text.is_empty() {
        return Ok(vec![]);
    }
    serde_json::from_slice(text)
        .map_err(|e| WorkspaceError::Refused(format!("what the guest has kept is not understood: {e}")))
}

fn ledger(peer: &mut Peer<'_, '_>, limits: Limits) -> Result<HashMap<Vec<u8>, Record>, WorkspaceError> {
    let mut ledger = HashMap::new();
    records::each(peer, limits, |record| {
        let record = Record::parse(record).map_err(|e| {
            WorkspaceError::Refused(format!("the guest's list of files is not understood: {e}"))
        })?;
        ledger.insert(record.path.clone(), record);
        Ok(())
    })?;
    Ok(ledger)
}

fn format_of(gathered: &Gathered) -> Format {
    gathered.repository.as_ref().map_or(Format::Sha1, |brought| brought.read.found.format)
}

/// The blob that an item is; None: it is being written to, or has none.
fn id(item: &Item, format: Format, contents: &mut Contents<'_>) -> Result<Option<String>, WorkspaceError> {
    if item.blob.is_some() {
        return Ok(item.blob.clone());
    }
    let Contents::Tree(tree) = contents else { return Ok(None) };
    let path = tree.shown(&item.path);
    let id = match item.mode {
        Mode::Symlink => {
            let target = tree.link(&item.path)?;
            blob::id(format, target.len() as u64, &mut &target[..])
        }
        Mode::File | Mode::Executable => {
            let (size, mut content) = tree.content(&item.path)?;
            blob::id(format, size, &mut content)
        }
        Mode::Directory | Mode::Gitlink => return Ok(None),
    };
    match id {
        Ok(id) => Ok(Some(id)),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => tree.go_on().and(Err(WorkspaceError::here("read", &path)(e))),
    }
}

/// Opens where the contents of items come from.
fn contents<T>(
    gathered: &Gathered,
    act: impl FnOnce(&mut Contents<'_>) -> Result<T, WorkspaceError>,
) -> Result<T, WorkspaceError> {
    match &gathered.repository {
        Some(brought) if brought.committed => {
            let mut objects = Objects::open(&brought.read.found.git)?;
            let value = act(&mut Contents::Objects(&mut objects))?;
            objects.close()?;
            Ok(value)
        }
        _ => act(&mut Contents::Tree(&mut Tree::open(&gathered.top, &gathered.patience)?)),
    }
}

fn tell_wanted(items: &[Item], changes: &Changes, peer: &mut Peer<'_, '_>) -> Result<(), WorkspaceError> {
    let mut lines = vec![];
    let mut told = Ok(());
    wanted(items, &changes.sent, |wanted| {
        wanted.write(&mut lines);
        if lines.len() > 60_000 && told.is_ok() {
            told = peer.put(&lines);
            lines.clear();
        }
    });
    told?;
    peer.put(&lines)?;
    peer.end()
}

/// Reads what is in the way; without `present`, of an agent that tells only of paths.
fn in_the_way(told: &[u8], present: bool) -> Result<Vec<Obstacle>, WorkspaceError> {
    let records = told.split(|b| *b == 0).filter(|record| !record.is_empty());
    let obstacles = records.map(|record| match present {
        true => Obstacle::parse(record),
        false => Ok(Obstacle { now: None, path: record.to_vec() }),
    });
    obstacles.collect::<Result<_, _>>().map_err(|e| {
        WorkspaceError::Refused(format!("the guest's list of what is in the way is not understood: {e}"))
    })
}

/// Refuses what is in the way, but for what is the same here: that need not be sent.
fn refuse_in_the_way(
    gathered: &Gathered,
    obstacles: Vec<Obstacle>,
    force: bool,
    changes: &mut Changes,
) -> Result<(), WorkspaceError> {
    if obstacles.is_empty() {
        return Ok(());
    }
    let format = format_of(gathered);
    let at: HashMap<&[u8], usize> =
        gathered.items.iter().enumerate().map(|(at, item)| (&item.path[..], at)).collect();
    let mut paths = vec![];
    contents(gathered, |contents| {
        for Obstacle { now, path } in obstacles {
            let item = at.get(&path[..]).filter(|_| now.is_some()).map(|at| (*at, &gathered.items[*at]));
            match item {
                Some((at, item)) if is_now(item, id(item, format, contents)?, now.as_ref()) => {
                    changes.sent[at] = false;
                    changes.agreed.push(path);
                }
                _ => paths.push(path),
            }
        }
        Ok(())
    })?;
    match paths.is_empty() || force {
        true => Ok(()),
        false => WorkspaceError::refused(format!(
            "in the way in the guest, and not brought by banger: {}; --force overwrites what is there",
            named(&paths)
        )),
    }
}

fn ids(text: &[u8]) -> HashSet<String> {
    String::from_utf8_lossy(text).lines().filter(|id| is_id(id)).map(str::to_owned).collect()
}

/// Sends what the guest lacks, and returns how much that was, in bytes.
fn pack(
    read: &Repo,
    asked: Vec<Asked>,
    made: &HashSet<String>,
    peer: &mut Peer<'_, '_>,
) -> Result<u64, WorkspaceError> {
    let mut lacking = vec![];
    for asked in asked {
        asked.lacking(made, &mut lacking)?;
    }
    if lacking.is_empty() {
        return Ok(0);
    }
    let below: Vec<_> =
        below(read, "").into_iter().map(|(_, sub)| sub.found.common.join("objects")).collect();
    let git = read.found.git.with_objects(below.iter().map(AsRef::as_ref));
    let args = ["pack-objects", "--stdout", "-q", "--window=0", "--delta-base-offset", "--compression=1"];
    let mut running = git.start(&args, Stdio::from(objects::memory(&lacking)?))?;
    drop(lacking);
    peer.stage("sending history".to_owned(), 0);
    let mut total = 0;
    let Some(mut stdout) = running.stdout.take() else { return WorkspaceError::refused("git has no pipes") };
    let moved = loop {
        match peer.fill(u64::MAX, |room| stdout.read(room)) {
            Ok(Ok(0)) => break Ok(()),
            Ok(Ok(n)) => total += n as u64,
            Ok(Err(e)) => return Err(e),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => break Err(e),
        }
    };
    drop(stdout);
    running.finish_after(moved)?;
    Ok(total)
}

/// All submodules, at whatever depth, by path in the work tree. `above`: where this one is, and a slash.
fn below<'r>(read: &'r Repo, above: &str) -> Vec<(String, &'r Repo)> {
    let mut all = vec![];
    for (path, sub) in &read.submodules {
        let path = format!("{above}{path}");
        let within = below(sub, &format!("{path}/"));
        all.push((path, sub));
        all.extend(within);
    }
    all
}

/// What is planned for a repository and its submodules.
struct Planned {
    plan: Plan,
    submodules: Vec<Planned>,
}

impl Planned {
    fn of(brought: &Brought, placed: Option<&Placed>) -> Result<Self, WorkspaceError> {
        Self::one(&brought.read, &brought.head, brought.depth, placed)
    }

    fn one(
        read: &Repo,
        head: &str,
        depth: Option<usize>,
        placed: Option<&Placed>,
    ) -> Result<Self, WorkspaceError> {
        let plan = objects::plan(read, head, depth, placed)?;
        let mut submodules = vec![];
        for (path, sub) in &read.submodules {
            let known = placed.and_then(|placed| placed.submodules.iter().find(|(known, _)| known == path));
            let known = known.map(|(_, placed)| placed).filter(|placed| placed.head.is_some());
            submodules.push(Self::one(sub, &sub.head, depth, known)?);
        }
        Ok(Self { plan, submodules })
    }

    fn commits(&self) -> usize {
        self.plan.commits + self.submodules.iter().map(Self::commits).sum::<usize>()
    }

    fn repository(&self, read: &Repo, keep_before: bool) -> Repository {
        let submodules = read.submodules.iter().zip(&self.submodules);
        Repository {
            head: read.head.clone(),
            branch: read.branch.clone(),
            tags: self.plan.tags.clone(),
            shallow: self.plan.shallow.clone(),
            origin: read.settings.origin.clone(),
            user_name: read.settings.user_name.clone(),
            user_email: read.settings.user_email.clone(),
            exclude: read.settings.exclude.clone(),
            submodules: submodules
                .map(|((path, sub), planned)| (path.clone(), planned.repository(sub, keep_before)))
                .collect(),
            keep_before,
        }
    }

    fn indices(&self, read: &Repo, peer: &mut Peer<'_, '_>) -> Result<(), WorkspaceError> {
        peer.put(&read.index)?;
        peer.end()?;
        let mut submodules = read.submodules.iter().zip(&self.submodules);
        submodules.try_for_each(|((_, sub), planned)| planned.indices(sub, peer))
    }

    fn ask(&self, read: &Repo) -> Result<Vec<Asked>, WorkspaceError> {
        let mut asked = vec![self.plan.ask(read)?];
        for ((_, sub), planned) in read.submodules.iter().zip(&self.submodules) {
            asked.extend(planned.ask(sub)?);
        }
        Ok(asked)
    }
}
