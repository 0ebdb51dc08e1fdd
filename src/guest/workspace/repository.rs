//! A repository in the guest (gitrepository-layout), made and moved without git.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::objects::Objects;
use super::refs::{self, replace, replace_by};
use super::segment::bad;
use super::staged;
use crate::git::index::{self, Entry, Stat};
use crate::git::{Format, Id, config, is_ref_name, parse_path};
use crate::guest::files::stream::Incoming;
use crate::guest::wire::Wire;
use crate::proto::workspace::{MAX_PATHS, Placed, Repository};

/// The longest `shallow` that is told.
const MAX_SHALLOW: u64 = 16 << 20;

/// A repository that is to be made or moved: the work tree's own, or one of its submodules'.
pub struct Module<'a> {
    pub wanted: &'a Repository,
    /// Where it is in the work tree; empty: that itself.
    pub path: String,
    pub git: PathBuf,
    pub index: Vec<Entry>,
    format: Format,
}

/// What the last prepare has made of a repository.
#[derive(Clone, Copy)]
pub struct Before<'a> {
    pub placed: Option<&'a Placed>,
    /// [`index::digest`] of the index that it brought.
    pub index: Option<Id>,
}

/// What has been made of a repository, for the next [`Before`].
pub struct Applied {
    pub index: Option<Id>,
    /// Commits that had to be kept, by the refs that lead to them now.
    pub kept: Vec<(String, String)>,
}

/// The repository and its submodules, depth first, their indices still to come.
pub fn modules<'a>(top: &Path, format: Format, wanted: &'a Repository) -> io::Result<Vec<Module<'a>>> {
    let mut modules: Vec<Module<'a>> = vec![];
    let mut waiting = vec![(String::new(), wanted)];
    while let Some((path, wanted)) = waiting.pop() {
        let git = if path.is_empty() { top.join(".git") } else { top.join(&path).join(".git") };
        for (below, sub) in wanted.submodules.iter().rev() {
            let path = if path.is_empty() { below.clone() } else { format!("{path}/{below}") };
            parse_path(below.as_bytes())
                .and_then(|_| parse_path(path.as_bytes()))
                .map_err(|e| bad(e.to_string()))?;
            waiting.push((path, sub));
        }
        modules.push(Module { wanted, path, git, index: vec![], format });
    }
    Ok(modules)
}

/// Whether a `.git` is a directory; None: there is nothing.
pub fn is_directory(git: &Path) -> Option<bool> {
    fs::symlink_metadata(git).ok().map(|meta| meta.is_dir())
}

impl Module<'_> {
    /// Why it cannot be done, before anything is. `before`: what was placed here by the last prepare.
    pub fn check(&self, ours: bool, before: Option<&Placed>) -> Result<(), String> {
        let git = self.git.display();
        match is_directory(&self.git) {
            None => {}
            Some(true) if ours => {}
            Some(_) => {
                return Err(format!(
                    "{git} exists in the guest and was not brought by banger; remove it, or choose another --guest-path"
                ));
            }
        }
        let wanted = self.wanted;
        let id = |text: &str| {
            Id::parse(text.as_bytes()).is_some_and(|id| id.bytes().len() == self.format.id_bytes())
        };
        let names = wanted.branch.iter().chain(wanted.tags.iter().map(|(name, _)| name));
        if let Some(name) = names.into_iter().find(|name| !is_ref_name(name)) {
            return Err(format!("{name:?} is no name of a branch or tag"));
        }
        let ids = wanted.tags.iter().map(|(_, id)| id).chain(&wanted.shallow);
        if let Some(text) = [&wanted.head].into_iter().chain(ids).find(|text| !id(text)) {
            return Err(format!("{text:?} is no name of an object"));
        }
        if let Some(branch) = wanted.branch.as_deref()
            && let Some(other) = refs::conflict(&self.git, branch)
        {
            return Err(format!(
                "the guest has a branch {other}, beside which there can be no branch {branch}; rename it there"
            ));
        }
        self.rests(before)?;
        let locks =
            ["index", "HEAD", "packed-refs", "shallow"].map(|name| refs::lock_of(&self.git.join(name)));
        match locks.iter().find(|lock| lock.exists()) {
            Some(lock) => Err(format!(
                "git is at work in the guest: {} exists; wait for it, or remove that file",
                lock.display()
            )),
            None => Ok(()),
        }
    }

    /// Whether HEAD, branch and index have to stay, because something is under way in the guest; a sentence if they cannot.
    fn rests(&self, before: Option<&Placed>) -> Result<bool, String> {
        match staged::under_way(&self.git) {
            None => Ok(false),
            Some(_) if before.is_some_and(|before| self.is_where(before)) => Ok(true),
            Some(sentence) => Err(sentence),
        }
    }

    /// HEAD is wanted where it was placed.
    fn is_where(&self, before: &Placed) -> bool {
        before.head.as_ref() == Some(&self.wanted.head) && before.branch == self.wanted.branch
    }

    /// The guest has moved a submodule's HEAD, and the host has not: it stays. Of the outermost one's, the host has decided.
    fn is_the_guests(&self, before: &Placed) -> bool {
        let (head, branch) = refs::head(&self.git);
        !self.path.is_empty()
            && self.is_where(before)
            && head.is_some()
            && (head, branch) != (before.head.clone(), before.branch.clone())
    }

    /// Reads its index from the wire.
    pub fn read_index(&mut self, wire: &mut Wire) -> io::Result<()> {
        let format = self.format;
        let index = &mut self.index;
        super::segment::records(wire, |line| {
            let entry = Entry::parse(line, format).map_err(|e| bad(e.to_string()))?;
            index.push(entry);
            if index.len() > MAX_PATHS { Err(bad("the index is too long")) } else { Ok(()) }
        })?;
        index.sort_by(|a, b| (&a.path, a.stage).cmp(&(&b.path, b.stage)));
        match index.windows(2).find(|two| two[0].path == two[1].path && two[0].stage == two[1].stage) {
            Some(two) => Err(bad(format!("the index has \"{}\" twice", two[0].path.escape_ascii()))),
            None => Ok(()),
        }
    }

    /// Makes what has to be there before objects can come, if nothing is: a repository whose branch is unborn.
    pub fn begin(&self) -> io::Result<()> {
        if self.git.join("HEAD").exists() {
            return Ok(());
        }
        for directory in ["objects/pack", "objects/info", "refs/heads", "refs/tags", "info"] {
            fs::create_dir_all(self.git.join(directory))?;
        }
        if !self.path.is_empty() {
            // From its own `objects` up to the outermost work tree.
            let up = "../".repeat(self.path.split('/').count() + 2);
            replace(&self.git.join("objects/info/alternates"), format!("{up}.git/objects\n").as_bytes())?;
        }
        replace(&self.git.join("config"), self.config().as_bytes())?;
        let branch = self.wanted.branch.as_deref().unwrap_or("main");
        replace(&self.git.join("HEAD"), format!("ref: refs/heads/{branch}\n").as_bytes())
    }

    fn config(&self) -> String {
        let Repository { origin, user_name, user_email, .. } = self.wanted;
        let mut config =
            config::render(self.format, origin.as_deref(), user_name.as_deref(), user_email.as_deref());
        if !self.wanted.submodules.is_empty() {
            // `git submodule init` is not to be needed: they are there.
            config += "[submodule]\n\tactive = .\n";
        }
        config
    }

    /// Whether the objects that refs are to point to have come.
    pub fn check_objects(&self, objects: &Objects) -> io::Result<()> {
        for text in [&self.wanted.head].into_iter().chain(self.wanted.tags.iter().map(|(_, id)| id)) {
            if !Id::parse(text.as_bytes()).map_or(Ok(false), |id| objects.has(&id))? {
                return Err(bad(format!("{text} has not come with the host's objects")));
            }
        }
        Ok(())
    }

    /// Moves refs, index and HEAD, in this order. Commits that HEAD and the branch lead away from are kept: those of the guest always, for of another
    /// branch than HEAD's the host knows nothing; those that a prepare has brought only if the host asks for it, who has them. `untold`: the host does not know where the history ends that is here already; `stat` is what is known of a file that is what the index says.
    pub fn apply(
        &self,
        before: Before<'_>,
        untold: bool,
        mut stat: impl FnMut(&[u8], &Entry) -> Option<Stat>,
    ) -> io::Result<Applied> {
        let (git, wanted) = (&self.git, self.wanted);
        replace(&git.join("info/exclude"), wanted.exclude.as_bytes())?;
        let rests = self.rests(before.placed).map_err(io::Error::other)?
            || before.placed.is_some_and(|before| self.is_the_guests(before));
        let shallow = git.join("shallow");
        let known = refs::read(&shallow, MAX_SHALLOW).filter(|_| untold).unwrap_or_default();
        let ends: BTreeSet<&str> = known.lines().chain(wanted.shallow.iter().map(String::as_str)).collect();
        match ends.is_empty() {
            false => replace(&shallow, (Vec::from_iter(ends).join("\n") + "\n").as_bytes())?,
            true => match fs::remove_file(&shallow) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            },
        }
        refs::add_tags(git, &wanted.tags)?;
        if rests {
            return Ok(Applied { index: before.index, kept: vec![] });
        }
        let mut kept = vec![];
        let brought = |id: &String| before.placed.is_some_and(|before| before.heads.contains(id));
        let mut keep = |id: Option<String>| {
            if let Some(id) = id.filter(|id| *id != wanted.head && (wanted.keep_before || !brought(id))) {
                kept.extend(refs::keep_before(git, &id)?.map(|name| (name, id)));
            }
            Ok(())
        };
        if let Some(branch) = &wanted.branch {
            refs::set(git, &format!("refs/heads/{branch}"), &wanted.head, &mut keep)?;
        }
        let digest = index::digest(self.format, &self.index);
        let mut path = vec![];
        // What the guest's says is read while git is kept from changing it.
        replace_by(&git.join("index"), |mut out| {
            let guest = staged::read(&git.join("index"), self.format)?;
            match staged::fate(guest, before.index, digest, wanted.keep_before) {
                staged::Fate::Stays => return Ok(false),
                staged::Fate::Goes => {}
                staged::Fate::Kept => staged::keep(git)?,
            }
            index::write(&mut out, self.format, &self.index, |entry| {
                path.clear();
                if !self.path.is_empty() {
                    path.extend_from_slice(self.path.as_bytes());
                    path.push(b'/');
                }
                path.extend_from_slice(&entry.path);
                if entry.stage == 0 { stat(&path, entry).unwrap_or_default() } else { Stat::default() }
            })?;
            Ok(true)
        })?;
        let head = match &wanted.branch {
            Some(branch) => format!("ref: refs/heads/{branch}\n"),
            None => format!("{}\n", wanted.head),
        };
        replace_by(&git.join("HEAD"), |out| {
            keep(refs::head(git).0)?;
            out.write_all(head.as_bytes())?;
            Ok(true)
        })?;
        Ok(Applied { index: Some(digest), kept })
    }
}

/// What was placed with this repository, after `before`.
pub fn placed(wanted: &Repository, before: Option<&Placed>) -> Placed {
    let mut heads = before.map(|before| before.heads.clone()).unwrap_or_default();
    if !heads.contains(&wanted.head) {
        heads.push(wanted.head.clone());
    }
    let submodules = wanted.submodules.iter().map(|(path, sub)| {
        let before = before.and_then(|before| before.submodules.iter().find(|(known, _)| known == path));
        (path.clone(), placed(sub, before.map(|(_, before)| before)))
    });
    Placed {
        head: Some(wanted.head.clone()),
        branch: wanted.branch.clone(),
        heads,
        shallow: !wanted.shallow.is_empty(),
        boundary: vec![],
        submodules: submodules.collect(),
    }
}

/// Adds what repositories are like now to what was placed. A submodule's that has gone is none any more.
pub fn look(top: &Path, placed: &mut Placed) {
    let shallow = refs::read(&top.join(".git/shallow"), MAX_SHALLOW).unwrap_or_default();
    placed.boundary =
        shallow.lines().filter(|line| Id::parse(line.as_bytes()).is_some()).map(str::to_owned).collect();
    placed.submodules.retain(|(path, _)| is_directory(&top.join(path).join(".git")) == Some(true));
    for (path, sub) in &mut placed.submodules {
        look(&top.join(&*path), sub);
    }
}

/// Where the submodules are that were placed, in the work tree.
pub fn submodules(placed: &Placed) -> Vec<String> {
    let mut paths = vec![];
    for (path, sub) in &placed.submodules {
        paths.push(path.clone());
        paths.extend(submodules(sub).into_iter().map(|below| format!("{path}/{below}")));
    }
    paths
}

/// Reads a segment that has to be empty.
pub fn read_nothing(wire: &mut Wire) -> io::Result<()> {
    match Incoming::new(wire).read(&mut [0])? {
        0 => Ok(()),
        _ => Err(bad("there is an index without a repository")),
    }
}
