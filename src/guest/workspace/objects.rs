//! The objects of a repository, in packs and loose.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::git::pack::{
    Builder, Cache, Entry, Index, Inflate, Kind, MAX_DELTIFIED, Pack, inflate_whole, resolve, scan,
    write_index,
};
use crate::git::{Format, Id};

/// How many bytes of bases are kept, of each pack.
const CACHE: usize = 8 << 20;

pub struct Objects {
    directory: PathBuf,
    format: Format,
    packs: Vec<(File, Index, Cache)>,
    loose: Option<File>,
}

/// An object's kind, size and content.
pub type Found<'a> = (Kind, u64, Box<dyn Read + 'a>);

impl Objects {
    /// Of a repository's `objects`.
    pub fn open(directory: &Path, format: Format) -> io::Result<Self> {
        let mut packs = vec![];
        for entry in fs::read_dir(directory.join("pack"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "idx") {
                // git may be at work, and repack; what it has replaced is in what it made.
                if let (Some(index), Some(pack)) =
                    (open_or_none(&path)?, open_or_none(&path.with_extension("pack"))?)
                {
                    packs.push((pack, Index::open(index, format)?, Cache::new(CACHE)));
                }
            }
        }
        Ok(Self { directory: directory.to_owned(), format, packs, loose: None })
    }

    pub fn has(&self, id: &Id) -> io::Result<bool> {
        for (_, index, _) in &self.packs {
            if index.offset(id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(self.loose_path(id).exists())
    }

    /// An object; what is not deltified is a stream, however large.
    pub fn find(&mut self, id: &Id) -> io::Result<Option<Found<'_>>> {
        let mut place = None;
        for (number, (_, index, _)) in self.packs.iter().enumerate() {
            if let Some(at) = index.offset(id)? {
                place = Some((number, at));
                break;
            }
        }
        let Some((number, at)) = place else { return self.find_loose(id) };
        let (file, index, cache) = &mut self.packs[number];
        let pack = Pack { file, format: self.format };
        if let Some((kind, size, content)) = pack.stream(at)? {
            return Ok(Some((kind, size, Box::new(content))));
        }
        let (kind, content) = pack.content(at, cache, &|_, base| index.offset(base))?;
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

/// None: it is not there any more.
fn open_or_none(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
    }
}

/// A pack that is not whole yet. Dropped, it is gone.
pub struct NewPack {
    directory: PathBuf,
    path: PathBuf,
}

impl NewPack {
    /// A file in `objects`/pack whose name git takes for something unfinished.
    pub fn create(objects: &Path, what: &str) -> io::Result<(Self, File)> {
        let directory = objects.join("pack");
        let path = directory.join(format!("tmp_pack_banger_{what}"));
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = File::options().read(true).write(true).create_new(true).mode(0o444).open(&path)?;
        Ok((Self { directory, path }, file))
    }

    /// Puts it where git finds it, and keeps it from git's tidying up.
    fn install(self, format: Format, entries: Vec<Entry>, checksum: Id) -> io::Result<()> {
        let name = |extension: &str| self.directory.join(format!("pack-{checksum}.{extension}"));
        let index = self.path.with_extension("idx");
        drop(fs::remove_file(&index));
        let file = File::options().write(true).create_new(true).mode(0o444).open(&index)?;
        let mut out = io::BufWriter::new(file);
        write_index(&mut out, format, entries, checksum)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::write(name("keep"), "banger: placed by the host\n")?;
        fs::rename(&self.path, name("pack"))?;
        fs::rename(&index, name("idx"))
    }

    pub fn install_built(self, builder: Builder, format: Format) -> io::Result<()> {
        let (_, entries, checksum) = builder.finish()?;
        if entries.is_empty() { Ok(()) } else { self.install(format, entries, checksum) }
    }

    /// Takes the host's pack, if it sends any, to the end of `from`.
    pub fn receive(
        self,
        file: &File,
        from: &mut dyn Read,
        format: Format,
        objects: &mut Objects,
    ) -> io::Result<()> {
        let mut out = io::BufWriter::with_capacity(128 << 10, file);
        let scanned = scan(from, &mut out, format)?;
        io::Write::flush(&mut out)?;
        let Some(scanned) = scanned.filter(|scanned| !scanned.is_empty()) else { return Ok(()) };
        let (entries, checksum) = resolve(scanned, file, &mut |id| objects.read(id))?;
        self.install(format, entries, checksum)
    }
}

impl Drop for NewPack {
    fn drop(&mut self) {
        // Installed, it has another name by now.
        drop(fs::remove_file(&self.path));
    }
}
