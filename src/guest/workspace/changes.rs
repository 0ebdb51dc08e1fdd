//! What became of a work tree, as [`crate::proto::workspace`] has it: compared with the ledger, whatever git says.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::Path;

use tar::{Builder, Header};

use super::ahead;
use super::ledger::{self, Ledger};
use super::objects::Objects;
use super::prepare::{held, is_clean};
use super::segment::{self, bad};
use super::tree::{Found, Tree};
use super::{repository, trouble};
use crate::git::{Mode, parse_path};
use crate::guest::files::stream::Outgoing;
use crate::guest::wire::Wire;
use crate::guest::{Failed, failed};
use crate::proto::agent::{Answer, Code};
use crate::proto::frame::Kind;
use crate::proto::workspace::{Changes, Difference, Fate, MAX_PATHS};

/// Serves a Changes. Fails only if the host cannot be spoken to.
pub fn run(wire: &mut Wire, wanted: &Changes, ledgers: &Path) -> io::Result<()> {
    let path = Path::new(&wanted.path);
    if !is_clean(&wanted.path) {
        return wire.refuse(
            Code::BadRequest,
            format!("{:?} is not an absolute path without `.` and `..`", wanted.path),
        );
    }
    let ledger = match Ledger::read(&ledger::file(ledgers, &wanted.path)) {
        Ok(Some(ledger)) if path.is_dir() => ledger,
        Ok(_) => {
            let none = format!(
                "no work tree has been brought to {}; `banger vm workspace prepare` does it",
                wanted.path
            );
            return wire.refuse(Code::NotFound, none);
        }
        Err(e) => {
            return wire.refuse(Code::Failed, format!("cannot read the ledger of {}: {e}", wanted.path));
        }
    };
    let tree = match Tree::open(path) {
        Ok(tree) => tree,
        Err(e) => return wire.refuse(Code::Failed, format!("cannot open {} in the guest: {e}", wanted.path)),
    };
    let mut held = held(path, &ledger);
    held.ahead = ahead::of(path, &ledger, &held);
    wire.answer(&Answer::Held(Box::new(held)))?;
    match (Telling { path, ledger, tree, all: wanted.all }).converse(wire) {
        Ok(()) => Ok(()),
        Err(e) => wire.send(Kind::Failed, e.sentence().as_bytes()),
    }
}

struct Telling<'a> {
    path: &'a Path,
    ledger: Ledger,
    tree: Tree,
    all: bool,
}

impl Telling<'_> {
    fn converse(&mut self, wire: &mut Wire) -> Result<(), Failed> {
        segment::send(wire, |out| self.differences(out))
            .map_err(failed(format!("read {}", self.path.display())))?;
        loop {
            let mut paths = vec![];
            let asked = segment::records(wire, |path| {
                paths.push(parse_path(path).map_err(|e| bad(e.to_string()))?.to_vec());
                Ok(())
            });
            match asked {
                Ok(()) => self.contents(wire, &paths)?,
                // It has what it wants.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(e) => return Err(failed("read the list of paths")(e)),
            }
        }
    }

    fn differences(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let submodules: HashSet<Vec<u8>> = self
            .ledger
            .header
            .placed
            .iter()
            .flat_map(repository::submodules)
            .map(String::into_bytes)
            .collect();
        let mut seen = HashSet::new();
        let mut told = 0;
        let mut bytes = vec![];
        let mut tell = |difference: Difference| {
            told += 1;
            if told > MAX_PATHS {
                return Err(io::Error::other("there are too many files"));
            }
            bytes.clear();
            difference.write(&mut bytes);
            out.write_all(&bytes)
        };
        let mut waiting = vec![vec![]];
        while let Some(directory) = waiting.pop() {
            for (name, found) in self.tree.list(&directory)? {
                let path =
                    if directory.is_empty() { name.clone() } else { [&directory[..], b"/", &name].concat() };
                // git's own, and what git would not check out: it could not be told.
                if parse_path(&path).is_err() {
                    continue;
                }
                let Some(mut mode) = found.mode else { continue };
                let mut size = found.stat.size;
                if mode == Mode::Directory {
                    // As git has it: one that was made around tracked files is no wall to them.
                    let nested = !submodules.contains(&path)
                        && !holds(&self.ledger, &path)
                        && self.tree.is_repository(&path)?;
                    if !nested {
                        waiting.push(path);
                        continue;
                    }
                    (mode, size) = (Mode::Gitlink, 0);
                }
                let known = self.ledger.records.get(&path);
                let (old, fate) = match known {
                    None => (None, Fate::Changed),
                    // A nested repository is not read; it may be that of an empty directory that was placed.
                    Some(known) if mode == Mode::Gitlink => (Some(known), Fate::Changed),
                    Some(known) => (Some(known), self.ledger.fate(&mut self.tree, &path, known)?.fate),
                };
                let differs = fate != Fate::Unchanged;
                if differs || self.all || name == b".gitignore" {
                    let old =
                        old.map(|known| (known.mode, known.id.map(|id| id.to_string()).unwrap_or_default()));
                    tell(Difference { old, new: Some((mode, size)), differs, path: path.clone() })?;
                }
                if known.is_some() {
                    seen.insert(path);
                }
            }
        }
        // What was not come by is not gone for that: something may be mounted above it.
        for (path, known) in self.ledger.records.iter().filter(|(path, _)| !seen.contains(*path)) {
            let became = self.ledger.fate(&mut self.tree, path, known)?;
            let differs = became.fate != Fate::Unchanged;
            if differs || self.all {
                let old = Some((known.mode, known.id.map(|id| id.to_string()).unwrap_or_default()));
                let new = became.found.and_then(|found| match found.mode? {
                    // What is in it has been told by itself.
                    Mode::Directory if differs => None,
                    mode @ Mode::Directory => Some((mode, 0)),
                    mode => Some((mode, found.stat.size)),
                });
                tell(Difference { old, new, differs, path: path.clone() })?;
            }
        }
        Ok(())
    }

    /// Sends what was placed at each path, and what is there now.
    fn contents(&mut self, wire: &mut Wire, paths: &[Vec<u8>]) -> Result<(), Failed> {
        let header = &self.ledger.header;
        let mut objects = match header.repository {
            true => {
                let directory = self.path.join(".git/objects");
                Some(
                    Objects::open(&directory, header.format)
                        .map_err(failed("read the repository's objects"))?,
                )
            }
            false => None,
        };
        let mut tar = Builder::new(Outgoing::new(wire));
        for (number, path) in paths.iter().enumerate() {
            let tried = || format!("read \"{}\" in the guest", path.escape_ascii());
            let old = self.ledger.records.get(path).and_then(|known| known.id);
            if let (Some(objects), Some(id)) = (&mut objects, old) {
                let found = objects.find(&id).map_err(failed(tried()))?;
                let (_, size, content) = found.ok_or_else(|| {
                    trouble(
                        tried(),
                        format!("its blob {id}, as it was placed, is not in the repository any more"),
                    )
                })?;
                append(&mut tar, &format!("old/{number}"), size, content).map_err(failed(tried()))?;
            }
            if let Some(found) = self.tree.find(path).map_err(failed(tried()))? {
                self.append_new(&mut tar, &format!("new/{number}"), path, &found).map_err(failed(tried()))?;
            }
        }
        tar.into_inner().and_then(|mut out| out.flush()).map_err(failed("send to the host"))?;
        wire.send(Kind::Eof, &[]).map_err(failed("send to the host"))
    }

    fn append_new(
        &mut self,
        tar: &mut Builder<impl Write>,
        name: &str,
        path: &[u8],
        found: &Found,
    ) -> io::Result<()> {
        match found.mode {
            Some(Mode::Symlink) => {
                let target = self.tree.link(path)?;
                append(tar, name, target.len() as u64, &target[..])
            }
            Some(Mode::File | Mode::Executable) => {
                // Exactly as long as it was: one that grows meanwhile is cut, one that shrinks is filled up.
                let file = self.tree.file(path)?;
                let size = found.stat.size;
                append(tar, name, size, file.take(size).chain(io::repeat(0)).take(size))
            }
            _ => Ok(()),
        }
    }
}

/// Whether something was placed below a directory.
fn holds(ledger: &Ledger, directory: &[u8]) -> bool {
    let below = [directory, b"/"].concat();
    ledger.records.range(below.clone()..).next().is_some_and(|(path, _)| path.starts_with(&below))
}

fn append(tar: &mut Builder<impl Write>, name: &str, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    tar.append_data(&mut header, name, content)
}
