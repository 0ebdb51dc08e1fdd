//! The objects of a repository, in packs and loose. git may be at work in it: what it repacks meanwhile is found again.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::git::pack::{Cache, Index, Inflate, Kind, MAX_DELTIFIED, Pack, inflate_whole};
use crate::git::{Format, Id};

/// How many bytes of bases are kept.
const CACHE: usize = 16 << 20;
/// How many packs are open at once, each with its index. A repository may have more than a process may have files.
const MAX_OPEN: usize = 64;

pub struct Objects {
    directory: PathBuf,
    format: Format,
    /// What was of use last comes first.
    packs: Vec<Listed>,
    /// How many packs were ever listed.
    listed: u32,
    cache: Cache,
    loose: Option<File>,
}

struct Listed {
    /// Of its index.
    path: PathBuf,
    number: u32,
    open: Option<(File, Index)>,
}

/// Where an object is: at an offset of the first pack, or loose.
enum Place {
    Packed(u64),
    Loose,
}

/// An object's kind, size and content.
pub type Found<'a> = (Kind, u64, Box<dyn Read + 'a>);

impl Objects {
    /// Of a repository's `objects`.
    pub fn open(directory: &Path, format: Format) -> io::Result<Self> {
        let (directory, cache) = (directory.to_owned(), Cache::new(CACHE));
        let mut objects = Self { directory, format, packs: vec![], listed: 0, cache, loose: None };
        objects.list()?;
        Ok(objects)
    }

    pub fn has(&mut self, id: &Id) -> io::Result<bool> {
        Ok(self.place(id)?.is_some())
    }

    /// An object; what is not deltified is a stream, however large.
    pub fn find(&mut self, id: &Id) -> io::Result<Option<Found<'_>>> {
        let at = match self.place(id)? {
            None => return Ok(None),
            Some(Place::Loose) => return self.find_loose(id),
            Some(Place::Packed(at)) => at,
        };
        let Some(Listed { number, open: Some((file, index)), .. }) = self.packs.first() else {
            return Ok(None);
        };
        let pack = Pack { file, format: self.format, number: *number };
        if let Some((kind, size, content)) = pack.stream(at)? {
            return Ok(Some((kind, size, Box::new(content))));
        }
        let (kind, content) = pack.content(at, &mut self.cache, &|_, base| index.offset(base))?;
        let content = io::Cursor::new(content.to_vec());
        Ok(Some((kind, content.get_ref().len() as u64, Box::new(content))))
    }

    /// An object, whole.
    pub fn read(&mut self, id: &Id) -> io::Result<Option<(Kind, Vec<u8>)>> {
        match self.find(id)? {
            None => Ok(None),
            Some((_, size, _)) if size > MAX_DELTIFIED => Err(io::Error::other(format!("{id} is too large"))),
            Some((kind, size, mut content)) => Ok(Some((kind, inflate_whole(&mut content, size)?))),
        }
    }

    /// Adds the packs that are not listed yet, and opens as many as may be.
    fn list(&mut self) -> io::Result<()> {
        let known: HashSet<PathBuf> = self.packs.iter().map(|pack| pack.path.clone()).collect();
        for entry in fs::read_dir(self.directory.join("pack"))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "idx") || known.contains(&path) {
                continue;
            }
            let open = match self.packs.len() < MAX_OPEN {
                true => open_pack(&path, self.format)?,
                false => None,
            };
            if open.is_some() || self.packs.len() >= MAX_OPEN {
                self.packs.push(Listed { path, number: self.listed, open });
                self.listed += 1;
            }
        }
        Ok(())
    }

    fn place(&mut self, id: &Id) -> io::Result<Option<Place>> {
        for again in [true, false] {
            if let Some(at) = self.packed(id)? {
                return Ok(Some(Place::Packed(at)));
            }
            if self.loose_path(id).exists() {
                return Ok(Some(Place::Loose));
            }
            if again {
                self.list()?;
            }
        }
        Ok(None)
    }

    /// Where the object is in a pack, which becomes the first.
    fn packed(&mut self, id: &Id) -> io::Result<Option<u64>> {
        let mut next = 0;
        while next < self.packs.len() {
            if self.packs[next].open.is_none() {
                self.make_room(next);
                self.packs[next].open = open_pack(&self.packs[next].path, self.format)?;
            }
            let Some((_, index)) = &self.packs[next].open else {
                self.packs.remove(next);
                continue;
            };
            if let Some(at) = index.offset(id)? {
                self.packs[..=next].rotate_right(1);
                return Ok(Some(at));
            }
            next += 1;
        }
        Ok(None)
    }

    /// Closes the one that was of use longest ago, if one more cannot be open.
    fn make_room(&mut self, except: usize) {
        if self.open_packs() >= MAX_OPEN {
            let last =
                self.packs.iter().enumerate().rposition(|(at, pack)| at != except && pack.open.is_some());
            if let Some(last) = last {
                self.packs[last].open = None;
            }
        }
    }

    pub fn open_packs(&self) -> usize {
        self.packs.iter().filter(|pack| pack.open.is_some()).count()
    }

    fn find_loose(&mut self, id: &Id) -> io::Result<Option<Found<'_>>> {
        let file = match File::open(self.loose_path(id)) {
            Ok(file) => self.loose.insert(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut content = Inflate::new(file, 0);
        // `kind size NUL`, of at most 32 bytes.
        let mut head = vec![];
        let mut byte = [0];
        while head.len() < 32 && content.read(&mut byte)? == 1 && byte != [0] {
            head.extend(byte);
        }
        let space = head.iter().position(|b| *b == b' ');
        let parsed = space.and_then(|space| {
            let size = std::str::from_utf8(&head[space + 1..]).ok()?.parse().ok()?;
            Some((Kind::parse(&head[..space])?, size))
        });
        let (kind, size) = parsed.ok_or_else(|| io::Error::other(format!("{id} is damaged")))?;
        Ok(Some((kind, size, Box::new(content))))
    }

    fn loose_path(&self, id: &Id) -> PathBuf {
        let name = id.to_string();
        self.directory.join(&name[..2]).join(&name[2..])
    }
}

/// None: git has replaced it; what was in it is in what it made.
fn open_pack(index: &Path, format: Format) -> io::Result<Option<(File, Index)>> {
    match (open_or_none(index)?, open_or_none(&index.with_extension("pack"))?) {
        (Some(index), Some(pack)) => Ok(Some((pack, Index::open(index, format)?))),
        _ => Ok(None),
    }
}

/// None: it is not there any more.
fn open_or_none(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
    }
}
