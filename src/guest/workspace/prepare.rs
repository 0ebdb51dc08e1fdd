//! Bringing a work tree, as [`crate::proto::workspace`] has it. Nothing is changed before the host has heard what is in the way, and gone on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};

use super::ledger::{self, Header, Ledger, Place};
use super::objects::{NewPack, Objects};
use super::place::Placing;
use super::repository::{self, Before, Module, modules};
use super::seen::Seen;
use super::segment::{self, bad};
use super::tree::{self, Found, Tree, obstacle};
use super::{refs, trouble};
use crate::git::pack::Builder;
use crate::git::{Id, Mode, parse_path};
use crate::guest::files::stream::Incoming;
use crate::guest::wire::Wire;
use crate::guest::{Failed, failed};
use crate::proto::agent::{Answer, Code};
use crate::proto::frame::{Kind, MAX_PAYLOAD};
use crate::proto::workspace::{
    At, Fate, Held, Kept, MAX_ORDER, Obstacle, Order, Placed, Prepare, Present, Stamp, Wanted,
};

/// A path of the wanted tree.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    pub mode: Mode,
    pub stamp: Stamp,
    pub sent: bool,
}

pub type Wants = BTreeMap<Vec<u8>, Want>;
/// What has become of the paths that were placed.
type Fates = Vec<(Vec<u8>, Fate)>;

/// Serves a Prepare. Fails only if the host cannot be spoken to.
pub fn run(wire: &mut Wire, wanted: &Prepare, ledgers: &Path) -> io::Result<()> {
    let path = Path::new(&wanted.path);
    if !is_clean(&wanted.path) {
        return wire.refuse(
            Code::BadRequest,
            format!("{:?} is not an absolute path without `.` and `..`", wanted.path),
        );
    }
    let place = match Place::lock(ledgers, &wanted.path) {
        Ok(Some(place)) => place,
        Ok(None) => {
            let busy = format!("another prepare of {} is under way; wait until it has ended", wanted.path);
            return wire.refuse(Code::Failed, busy);
        }
        Err(e) => {
            return wire.refuse(Code::Failed, format!("cannot keep a ledger in {}: {e}", ledgers.display()));
        }
    };
    let ledger = match open(path, &place) {
        Ok(ledger) => ledger,
        Err(sentence) => return wire.refuse(Code::Failed, sentence),
    };
    let present = wanted.present;
    let held = Held { present, ..held(path, &ledger) };
    let untold = held.placed.as_ref().is_some_and(|placed| placed.heads.is_empty());
    let placed = ledger.header.placed.iter().flat_map(repository::submodules);
    let heads = placed.map(|below| (below.clone(), refs::head(&path.join(below).join(".git"))));
    let top = ledger.header.repository.then(|| (String::new(), (held.head.clone(), held.branch.clone())));
    let heads = heads.chain(top).collect();
    wire.answer(&Answer::Held(Box::new(held)))?;
    let mut preparing = Preparing { path, place, ledger, untold, heads, present };
    match preparing.converse(wire) {
        Ok(kept) => segment::send(wire, |out| match kept.is_empty() {
            true => Ok(()),
            false => Ok(serde_json::to_writer(out, &kept)?),
        }),
        Err(e) => wire.send(Kind::Failed, e.sentence().as_bytes()),
    }
}

/// Absolute, not the root, and with nothing that another spelling would lack.
pub fn is_clean(path: &str) -> bool {
    path.len() < 4096
        && !path.contains('\0')
        && path
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

/// The ledger of a path; an empty one if nothing is left of what was placed.
fn open(path: &Path, place: &Place) -> Result<Ledger, String> {
    let shown = path.display();
    let unread = |e: io::Error| format!("cannot read {shown} in the guest: {e}");
    let known = place.read().map_err(|e| format!("cannot read the ledger of {shown}: {e}"))?;
    let foreign =
        || format!("{shown} exists in the guest and was not brought by banger; choose another --guest-path");
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Ledger::default()),
        Err(e) => return Err(unread(e)),
        Ok(meta) if !meta.is_dir() => return Err(foreign()),
        Ok(_) => {}
    }
    if fs::read_dir(path).map_err(unread)?.next().is_none() {
        return Ok(Ledger::default());
    }
    let ledger = known.ok_or_else(foreign)?;
    // What was placed is not there any more without its objects.
    if ledger.header.repository && repository::is_directory(&path.join(".git")) != Some(true) {
        return Ok(Ledger::default());
    }
    Ok(ledger)
}

/// How long what is held may be, as JSON: an answer is one frame.
const MAX_HELD: usize = MAX_PAYLOAD - 1024;

/// What there is at a path whose ledger this is. Of more history than can be told, nothing is: the host sends it again.
pub fn held(path: &Path, ledger: &Ledger) -> Held {
    let mut placed = ledger.header.placed.clone();
    let mut submodules = vec![];
    if let Some(placed) = &mut placed {
        repository::look(path, placed);
        for below in repository::submodules(placed) {
            let (head, branch) = refs::head(&path.join(&below).join(".git"));
            if placed.at(&below).is_some_and(|at| (&at.head, &at.branch) != (&head, &branch)) {
                submodules.push((below, At { head, branch }));
            }
        }
    }
    let (head, branch) = if ledger.header.repository { refs::head(&path.join(".git")) } else { (None, None) };
    let mut held = Held { placed, head, branch, submodules, ..Held::default() };
    if serde_json::to_vec(&held).is_ok_and(|json| json.len() > MAX_HELD) {
        held.submodules.clear();
        if let Some(placed) = &mut held.placed {
            *placed = Placed { head: placed.head.take(), branch: placed.branch.take(), ..Placed::default() };
        }
    }
    held
}

struct Preparing<'a> {
    path: &'a Path,
    place: Place,
    ledger: Ledger,
    /// The host has not been told what history there is.
    untold: bool,
    /// Where HEAD was when the host was answered, and on which branch, by where the repository is in the work tree.
    heads: BTreeMap<String, (Option<String>, Option<String>)>,
    /// What is there now is told.
    present: bool,
}

impl Preparing<'_> {
    /// Returns what had to be kept.
    fn converse(&mut self, wire: &mut Wire) -> Result<Vec<Kept>, Failed> {
        let mut there = match self.path.exists() {
            true => Some(self.tree()?),
            false => None,
        };
        let (fates, mut seen) = self.tell(wire, there.as_mut()).map_err(failed("tell what was placed"))?;

        let order = segment::whole(wire, MAX_ORDER).map_err(failed("read the order"))?;
        let order: Order = serde_json::from_slice(&order).map_err(failed("understand the order"))?;
        let mut modules = self.modules(&order)?;
        self.ledger.header.format = order.format;
        let wants = self.wants(wire).map_err(failed("read the list of paths"))?;
        let leaving: BTreeSet<Vec<u8>> = fates
            .into_iter()
            .filter(|(path, fate)| *fate == Fate::Unchanged && !wants.contains_key(path))
            .map(|(path, _)| path)
            .collect();
        seen.found.retain(|path, _| {
            leaving.contains(path)
                || seen.now.contains_key(path)
                || wants.get(path).is_some_and(|want| want.sent)
        });
        self.tell_in_the_way(wire, there.as_mut(), &wants, &leaving, &mut seen)
            .map_err(failed("look for what is in the way"))?;
        let agreed =
            self.agreed(wire, &wants, &seen).map_err(failed("read what is the same here and there"))?;
        match modules.is_empty() {
            true => repository::read_nothing(wire).map_err(failed("read the index"))?,
            false => modules
                .iter_mut()
                .try_for_each(|module| module.read_index(wire))
                .map_err(failed("read the index"))?,
        }

        // From here on the tree is ours to change, and stays so if this is not the end of it.
        fs::create_dir_all(self.path).map_err(failed(format!("make {}", self.path.display())))?;
        let mut tree = self.tree()?;
        tree.seen = seen;
        if let Some(module) = modules.first() {
            module.begin().map_err(failed(format!("make {}", module.git.display())))?;
            self.ledger.header.repository = true;
        }
        self.write_ledger()?;
        let placed = self.place_files(wire, &mut tree, &wants, &leaving, &agreed);
        self.write_ledger()?;
        let ids = placed?;
        segment::send(wire, |out| ids.iter().try_for_each(|id| writeln!(out, "{id}")))
            .map_err(failed("tell the blobs"))?;
        drop(ids);

        self.receive_pack(wire, &order).map_err(failed("take the host's objects"))?;
        let kept = match modules.is_empty() {
            true => vec![],
            false => self.move_repositories(&mut tree, &modules)?,
        };
        self.settle(&order, &wants);
        self.write_ledger()?;
        tree::sync(self.path).map_err(failed("bring the files to the disk"))?;
        Ok(kept)
    }

    fn write_ledger(&mut self) -> Result<(), Failed> {
        self.place.write(&mut self.ledger).map_err(failed("write the ledger"))
    }

    fn tree(&self) -> Result<Tree, Failed> {
        Tree::open(self.path).map_err(failed(format!("open {}", self.path.display())))
    }

    /// Tells the ledger, and whether the guest still has it so.
    fn tell(&mut self, wire: &mut Wire, tree: Option<&mut Tree>) -> io::Result<(Fates, Seen)> {
        let (mut fates, mut stats, mut seen) = (vec![], vec![], Seen::default());
        // A file that was touched just now may be touched again without a trace.
        let settled = clock_gettime(ClockId::RealtimeCoarse).tv_sec - 2;
        segment::send(wire, |out| {
            let Some(tree) = tree else { return Ok(()) };
            let mut bytes = vec![];
            for (path, known) in &self.ledger.records {
                let became = self.ledger.fate(tree, path, known)?;
                let (fate, found) = (became.fate, became.found);
                bytes.clear();
                known.record(path, fate, became.now().filter(|_| self.present)).write(&mut bytes);
                out.write_all(&bytes)?;
                seen.now.extend(became.id.filter(|_| self.present).map(|id| (path.clone(), id)));
                fates.push((path.clone(), fate));
                seen.found.extend(found.map(|found| (path.clone(), found)));
                let stat = found.filter(|_| fate == Fate::Unchanged).map(|found| found.stat);
                if let Some(stat) = stat.filter(|stat| known.stat != Some(*stat) && stat.ctime.0 < settled) {
                    stats.push((path.clone(), stat));
                }
            }
            Ok(())
        })?;
        for (path, stat) in stats {
            if let Some(known) = self.ledger.records.get_mut(&path) {
                known.stat = Some(stat);
            }
        }
        Ok((fates, seen))
    }

    /// The repositories that are wanted, if they can be.
    fn modules<'o>(&self, order: &'o Order) -> Result<Vec<Module<'o>>, Failed> {
        let header = &self.ledger.header;
        let known = header.repository || !self.ledger.records.is_empty();
        if known && header.format != order.format {
            return Err(trouble(
                "bring it there",
                "what is there has its objects named in another format; choose another --guest-path",
            ));
        }
        let Some(wanted) = &order.repository else { return Ok(vec![]) };
        let modules = modules(self.path, order.format, wanted).map_err(failed("understand the order"))?;
        let placed = header.placed.as_ref().map(repository::submodules).unwrap_or_default();
        for module in &modules {
            let ours = if module.path.is_empty() { header.repository } else { placed.contains(&module.path) };
            // A submodule that an unfinished prepare has begun borrows our objects.
            let ours = ours || module.git.join("objects/info/alternates").exists() && header.repository;
            module
                .check(ours, self.before(module).placed)
                .map_err(|sentence| trouble("bring it there", sentence))?;
        }
        Ok(modules)
    }

    fn before(&self, module: &Module<'_>) -> Before<'_> {
        let Header { placed, indices, .. } = &self.ledger.header;
        let index = indices.get(&module.path).and_then(|index| Id::parse(index.as_bytes()));
        let placed = placed.as_ref().and_then(|all| all.at(&module.path));
        Before { placed, index }
    }

    fn wants(&self, wire: &mut Wire) -> io::Result<Wants> {
        let mut wants = Wants::new();
        segment::records(wire, |record| {
            let Wanted { mode, stamp, sent, path } = Wanted::parse(record).map_err(|e| bad(e.to_string()))?;
            if !sent && !self.ledger.records.contains_key(&path) {
                return Err(bad(format!("\"{}\" is to stay, and was never placed", path.escape_ascii())));
            }
            wants.insert(path, Want { mode, stamp, sent });
            Ok(())
        })?;
        Ok(wants)
    }

    /// Reads which of the paths whose blobs were told are the same on the host.
    fn agreed(&self, wire: &mut Wire, wants: &Wants, seen: &Seen) -> io::Result<BTreeMap<Vec<u8>, Id>> {
        let mut agreed = BTreeMap::new();
        if self.present {
            segment::records(wire, |path| {
                let path = parse_path(path).map_err(|e| bad(e.to_string()))?;
                let mode = |found: &Found| wants.get(path).is_some_and(|want| found.mode == Some(want.mode));
                match (seen.now.get(path), seen.found.get(path)) {
                    (Some(id), Some(found)) if mode(found) => drop(agreed.insert(path.to_vec(), *id)),
                    _ => return Err(bad(format!("\"{}\" cannot be the same there", path.escape_ascii()))),
                }
                Ok(())
            })?;
        }
        Ok(agreed)
    }

    fn tell_in_the_way(
        &self,
        wire: &mut Wire,
        tree: Option<&mut Tree>,
        wants: &Wants,
        leaving: &BTreeSet<Vec<u8>>,
        seen: &mut Seen,
    ) -> io::Result<()> {
        segment::send(wire, |out| {
            let Some(tree) = tree else { return Ok(()) };
            // If the host goes on, all of it may go.
            let told = &mut seen.whole;
            let mut bytes = vec![];
            for (path, want) in wants.iter().filter(|(_, want)| want.sent) {
                let found = match tree.find(path)? {
                    None => obstacle(tree, path)?.filter(|above| !leaving.contains(above)),
                    Some(found) => {
                        let directory = found.mode == Some(Mode::Directory);
                        let ours = self.ledger.records.contains_key(path);
                        let fits = match want.mode {
                            Mode::Directory | Mode::Gitlink => directory || ours,
                            _ if directory => tree.holds_only(path, leaving)?,
                            _ => ours,
                        };
                        (!fits).then(|| path.clone())
                    }
                };
                if let Some(path) = found.filter(|path| !told.contains(path)) {
                    let mut now = None;
                    if let Some(found) = tree.find(&path)? {
                        seen.found.entry(path.clone()).or_insert(found);
                        if self.present
                            && let Some(id) = ledger::id(self.ledger.header.format, tree, &path, &found)?
                        {
                            seen.now.insert(path.clone(), id);
                            now = found.mode.map(|mode| Present { mode, id: id.to_string() });
                        }
                    }
                    bytes.clear();
                    match self.present {
                        true => Obstacle { now, path: path.clone() }.write(&mut bytes),
                        false => bytes.extend([&path[..], b"\0"].concat()),
                    }
                    out.write_all(&bytes)?;
                    told.insert(path);
                }
            }
            Ok(())
        })
    }

    /// Removes what leaves, and takes what comes. What has come whole is in the ledger, and its blobs in the repository, whatever happens next.
    fn place_files(
        &mut self,
        wire: &mut Wire,
        tree: &mut Tree,
        wants: &Wants,
        leaving: &BTreeSet<Vec<u8>>,
        agreed: &BTreeMap<Vec<u8>, Id>,
    ) -> Result<Vec<Id>, Failed> {
        // Backwards: what is in a directory goes before it.
        for path in leaving.iter().rev() {
            let directory = self
                .ledger
                .records
                .get(path)
                .is_some_and(|known| matches!(known.mode, Mode::Directory | Mode::Gitlink));
            let removed = if directory { tree.remove_directory(path) } else { tree.remove(path) };
            removed.map_err(failed(format!("remove \"{}\"", path.escape_ascii())))?;
            self.ledger.records.remove(path);
        }
        let format = self.ledger.header.format;
        let pack = match self.ledger.header.repository {
            true => Some(NewPack::create(&self.objects(), "blobs").map_err(failed("begin a pack"))?),
            false => None,
        };
        let (pack, builder) = match pack {
            Some((pack, file)) => {
                (Some(pack), Some(Builder::new(file, format).map_err(failed("begin a pack"))?))
            }
            None => (None, None),
        };
        let mut placing = Placing { tree, wants, ledger: &mut self.ledger, builder, ids: vec![] };
        let placed = placing.all(&mut Incoming::new(wire)).and_then(|()| {
            agreed.iter().try_for_each(|(path, id)| {
                let tried = || format!("take \"{}\" for placed", path.escape_ascii());
                placing.adopt(path, *id).map_err(|e| failed(tried())(e))
            })
        });
        let Placing { builder, ids, .. } = placing;
        if let (Some(pack), Some(builder)) = (pack, builder) {
            let installed = pack.install_built(builder, format);
            if installed.is_err() {
                // What is not in the repository has not been placed.
                let lost: BTreeSet<Id> = ids.iter().copied().collect();
                self.ledger.records.retain(|_, known| known.id.is_none_or(|id| !lost.contains(&id)));
            }
            installed.map_err(failed("end the pack"))?;
        }
        placed.map(|()| ids)
    }

    fn objects(&self) -> PathBuf {
        self.path.join(".git/objects")
    }

    fn receive_pack(&self, wire: &mut Wire, order: &Order) -> io::Result<()> {
        let mut from = Incoming::new(wire);
        if !self.ledger.header.repository {
            return match io::copy(&mut from, &mut io::sink())? {
                0 => Ok(()),
                _ => Err(bad("there are objects without a repository")),
            };
        }
        let mut objects = Objects::open(&self.objects(), order.format)?;
        let (pack, file) = NewPack::create(&self.objects(), "host")?;
        pack.receive(&file, &mut from, order.format, &mut objects)
    }

    /// Returns what had to be kept.
    fn move_repositories(&mut self, tree: &mut Tree, modules: &[Module<'_>]) -> Result<Vec<Kept>, Failed> {
        let format = self.ledger.header.format;
        let objects = Objects::open(&self.objects(), format).map_err(failed("read the objects"))?;
        for module in modules {
            module.check_objects(&objects).map_err(failed("take the host's objects"))?;
        }
        for module in modules {
            if self.heads.get(&module.path).is_some_and(|head| *head != refs::head(&module.git)) {
                let of = if module.path.is_empty() { String::new() } else { format!(" of {}", module.path) };
                return Err(trouble(
                    format!("move HEAD{of}"),
                    "it was moved in the guest while the work tree was being brought; prepare again",
                ));
            }
        }
        let (mut indices, mut kept) = (BTreeMap::new(), vec![]);
        // Those within come first: what the outermost one says is true when it says so.
        for module in modules.iter().rev() {
            if !module.path.is_empty() {
                tree.put_directory(module.path.as_bytes())
                    .map_err(failed(format!("make {}", module.path)))?;
                module.begin().map_err(failed(format!("make {}", module.git.display())))?;
            }
            let moved = module.apply(self.before(module), self.untold, |path, entry| {
                let known = self.ledger.records.get(path)?;
                (known.mode == entry.mode && known.id == Some(entry.id)).then_some(known.stat)?
            });
            let moved = moved.map_err(failed(format!("write {}", module.git.display())))?;
            indices.extend(moved.index.map(|index| (module.path.clone(), index.to_string())));
            let of = |(name, id)| Kept { path: module.path.clone(), id, name };
            kept.extend(moved.kept.into_iter().map(of));
        }
        self.ledger.header.indices = indices;
        Ok(kept)
    }

    /// Makes the ledger say that all has been placed.
    fn settle(&mut self, order: &Order, wants: &Wants) {
        self.ledger.records.retain(|path, _| wants.contains_key(path));
        for (path, want) in wants {
            if let Some(known) = self.ledger.records.get_mut(path) {
                known.stamp = want.stamp;
            }
        }
        let header = &mut self.ledger.header;
        header.placed = Some(match &order.repository {
            Some(wanted) => repository::placed(wanted, header.placed.as_ref()),
            None => header.placed.take().unwrap_or_default(),
        });
    }
}
