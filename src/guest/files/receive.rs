//! Writing into the guest: a tar stream becomes files, with owner numbers, modes, times, links, devices and extended
//! attributes as they are in it. When the host hears Eof, all of it is on the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat,
    lsetxattr, makedev, mknodat, utimensat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use super::stream::Incoming;
use crate::guest::wire::Wire;
use crate::guest::{Failed, failed};
use crate::proto::agent::{Answer, Code, Target, Write as Wanted};
use crate::proto::frame::Kind;

/// Serves a Write. Fails only if the host cannot be spoken to.
pub fn run(wire: &mut Wire, wanted: &Wanted) -> io::Result<()> {
    let place = match Place::find(wanted) {
        Ok(place) => place,
        Err((code, message)) => return wire.refuse(code, message),
    };
    wire.answer(&Answer::Done)?;
    let mut incoming = Incoming::new(wire);
    let unpacked = Unpacker { place, owner: wanted.owner, directories: vec![] }.all(&mut incoming);
    let synced = unpacked.and_then(|place| {
        incoming.exhaust().map_err(failed("read from the host"))?;
        let sync = || Ok::<(), io::Error>(rustix::fs::syncfs(File::open(place)?)?);
        sync().map_err(failed("bring the files to the disk"))
    });
    match synced {
        Ok(()) => wire.send(Kind::Eof, &[]),
        Err(e) => wire.send(Kind::Failed, e.sentence().as_bytes()),
    }
}

/// Where a stream's entries go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Below an existing directory.
    Below(PathBuf),
    /// To this path, which does not exist; the stream has one top entry, and this is its new name.
    As { path: PathBuf, top: Option<Top> },
}

/// The one top entry, once it has been seen.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Top {
    /// `.`: what is below it goes below the path.
    Nameless,
    Named(PathBuf),
}

/// Why an entry has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Misplaced {
    Escapes,
    SecondTop,
}

impl Place {
    fn find(wanted: &Wanted) -> Result<Self, (Code, String)> {
        let path = PathBuf::from(&wanted.path);
        if !path.is_absolute() {
            return Err((Code::BadRequest, format!("{:?} is not an absolute path", wanted.path)));
        }
        let is_directory = |path: &Path| fs::metadata(path).map(|meta| meta.is_dir());
        let none =
            |path: &Path| (Code::NoDirectory, format!("the guest has no directory {}", path.display()));
        match (is_directory(&path), wanted.target) {
            (Ok(true), _) => Ok(Self::Below(path)),
            (Ok(false), Target::Into) => {
                Err((Code::NoDirectory, format!("{} is not a directory of the guest", wanted.path)))
            }
            (Ok(false), Target::Place) => Ok(Self::As { path, top: None }),
            (Err(e), Target::Place) if e.kind() == io::ErrorKind::NotFound => match path.parent() {
                Some(parent) if is_directory(parent).unwrap_or(false) => Ok(Self::As { path, top: None }),
                Some(parent) => Err(none(parent)),
                None => Err(none(&path)),
            },
            (Err(e), Target::Into) if e.kind() == io::ErrorKind::NotFound => Err(none(&path)),
            (Err(e), _) => Err((Code::Failed, format!("cannot write to {} in the guest: {e}", wanted.path))),
        }
    }

    /// The path of an entry; None: the place itself, which is there already.
    fn of(&mut self, name: &Path) -> Result<Option<PathBuf>, Misplaced> {
        let mut inside = PathBuf::new();
        for component in name.components() {
            match component {
                Component::Normal(part) => inside.push(part),
                Component::CurDir => {}
                Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                    return Err(Misplaced::Escapes);
                }
            }
        }
        match self {
            Self::Below(directory) => Ok((!inside.as_os_str().is_empty()).then(|| directory.join(inside))),
            Self::As { path, top } => {
                let first = inside.iter().next().map(PathBuf::from);
                let top = top.get_or_insert_with(|| first.map_or(Top::Nameless, Top::Named));
                match top {
                    Top::Nameless if inside.as_os_str().is_empty() => Ok(Some(path.clone())),
                    Top::Nameless => Ok(Some(path.join(inside))),
                    Top::Named(top) => match inside.strip_prefix(&top) {
                        Ok(rest) if rest.as_os_str().is_empty() => Ok(Some(path.clone())),
                        Ok(rest) => Ok(Some(path.join(rest))),
                        Err(_) => Err(Misplaced::SecondTop),
                    },
                }
            }
        }
    }

    /// A directory on the file system that the entries went to.
    fn directory(&self) -> &Path {
        match self {
            Self::Below(directory) => directory,
            Self::As { path, .. } => path.parent().unwrap_or(path),
        }
    }
}

/// What an entry says about a file beside its content.
struct Attributes {
    owner: (u32, u32),
    mode: u32,
    times: Timestamps,
    xattrs: Vec<(String, Vec<u8>)>,
}

struct Unpacker {
    place: Place,
    owner: Option<(u32, u32)>,
    /// Directories get their attributes last: entries below them change their times, and need not be allowed by their mode.
    directories: Vec<(PathBuf, Attributes)>,
}

impl Unpacker {
    /// Unpacks to the archive's end. Returns a directory on the file system that was written to.
    fn all(mut self, stream: &mut impl Read) -> Result<PathBuf, Failed> {
        let mut archive = Archive::new(stream);
        let unread = |e| failed("read the tar stream")(readable(e));
        let entries = archive.entries().map_err(unread)?;
        for entry in entries {
            let mut entry = entry.map_err(unread)?;
            let name = entry.path().map_err(unread)?.into_owned();
            self.entry(&mut entry, &name).map_err(failed(format!("unpack {}", name.display())))?;
        }
        for (path, attributes) in self.directories.iter().rev() {
            attributes.apply(path, true).map_err(failed(format!("unpack {}", path.display())))?;
        }
        Ok(self.place.directory().to_owned())
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, name: &Path) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let Some(path) = self.place.of(name)? else { return Ok(()) };
        let attributes = self.attributes(entry)?;
        if kind.is_dir() {
            return self.directory(path, attributes);
        }
        self.make_room(&path)?;
        match kind {
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
                std::os::unix::fs::symlink(target, &path)?;
                attributes.apply(&path, false)
            }
            EntryType::Link => {
                let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?.into_owned();
                let target = self.place.of(&target)?.ok_or(io::ErrorKind::InvalidData)?;
                // Without following: what the earlier entry made may itself be a symlink.
                Ok(rustix::fs::linkat(CWD, &target, CWD, &path, AtFlags::empty())?)
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let header = entry.header();
                let number = |n: io::Result<Option<u32>>| n.map(Option::unwrap_or_default);
                let (kind, device) = match kind {
                    EntryType::Fifo => (FileType::Fifo, 0),
                    _ => {
                        let device = makedev(number(header.device_major())?, number(header.device_minor())?);
                        let block = kind == EntryType::Block;
                        (if block { FileType::BlockDevice } else { FileType::CharacterDevice }, device)
                    }
                };
                mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), device)?;
                attributes.apply(&path, true)
            }
            _ => {
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                let written = io::copy(entry, &mut file)?;
                if written != entry.size() {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ends within it"));
                }
                attributes.apply(&path, true)
            }
        }
    }

    fn directory(&mut self, path: PathBuf, attributes: Attributes) -> io::Result<()> {
        match fs::symlink_metadata(&path) {
            // A symlink to a directory stays (/bin of a merged /usr), and is not what the entry's attributes are for.
            Ok(found) if found.is_symlink() && path.is_dir() => return Ok(()),
            Ok(found) if found.is_dir() => {}
            // `cp app dev:/etc/passwd` is a mistake, and a tree is no successor of a file (docker cp refuses it too).
            Ok(_) => return Err(io::Error::other("what is in its place is no directory")),
            Err(_) => {
                self.make_room(&path)?;
                fs::create_dir(&path)?;
            }
        }
        self.directories.push((path, attributes));
        Ok(())
    }

    /// Makes the directories above `path` and removes what is in its place: an old file is replaced, never written into, for
    /// it may be a symlink, have other names, or be a program that runs.
    fn make_room(&self, path: &Path) -> io::Result<()> {
        match rustix::fs::unlinkat(CWD, path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => return Err(io::Error::other("a directory is in its place")),
            Err(e) => return Err(e.into()),
        }
        let missing = path.ancestors().skip(1).take_while(|above| !above.exists());
        let missing: Vec<&Path> = missing.collect();
        for above in missing.into_iter().rev() {
            fs::create_dir(above)?;
            if let Some((uid, gid)) = self.owner {
                std::os::unix::fs::chown(above, Some(uid), Some(gid))?;
            }
        }
        Ok(())
    }

    fn attributes(&self, entry: &mut Entry<'_, impl Read>) -> io::Result<Attributes> {
        let mut xattrs = vec![];
        for record in entry.pax_extensions()?.into_iter().flatten() {
            let record = record?;
            if let Some(name) = record.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
                xattrs.push((name.to_owned(), record.value_bytes().to_vec()));
            }
        }
        let header = entry.header();
        let number = |n: u64| u32::try_from(n).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
        let owner = match self.owner {
            Some(owner) => owner,
            None => (number(header.uid()?)?, number(header.gid()?)?),
        };
        let seconds = i64::try_from(header.mtime()?).unwrap_or(i64::MAX);
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
        };
        Ok(Attributes { owner, mode: header.mode()? & 0o7777, times, xattrs })
    }
}

/// The tar crate quotes what it cannot parse, whole blocks of it; that it is no tar is what helps.
fn readable(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::Other => io::Error::new(io::ErrorKind::InvalidData, "it is no tar, or it is damaged"),
        _ => error,
    }
}

impl Attributes {
    /// Gives them to what `path` itself is. The owner comes first: a change of it takes setuid and capabilities away.
    /// `has_mode`: everything but a symlink.
    fn apply(&self, path: &Path, has_mode: bool) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if has_mode {
            chmodat(CWD, path, Mode::from_raw_mode(self.mode), AtFlags::empty())?;
        }
        for (name, value) in &self.xattrs {
            match lsetxattr(path, name, value, XattrFlags::empty()) {
                // A tmpfs has no user attributes; the file is worth more than they are.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(utimensat(CWD, path, &self.times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

impl From<Misplaced> for io::Error {
    fn from(misplaced: Misplaced) -> Self {
        io::Error::new(
            io::ErrorKind::InvalidData,
            match misplaced {
                Misplaced::Escapes => "its name is absolute or holds `..`",
                Misplaced::SecondTop => "the stream has a second top entry, and there is a name for one only",
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_go_below_a_directory() {
        let mut place = Place::Below("/srv".into());
        for (name, want) in [("a", Some("/srv/a")), ("./a//b/", Some("/srv/a/b")), ("./", None), ("", None)] {
            assert_eq!(place.of(Path::new(name)), Ok(want.map(PathBuf::from)), "{name:?}");
        }
        for name in ["/etc/passwd", "..", "a/../../b", "a/.."] {
            assert_eq!(place.of(Path::new(name)), Err(Misplaced::Escapes), "{name:?}");
        }
    }

    #[test]
    fn the_one_top_entry_gets_the_name_that_was_asked_for() {
        let mut place = Place::As { path: "/srv/new".into(), top: None };
        for (name, want) in [("old/", "/srv/new"), ("old/a/b", "/srv/new/a/b"), ("./old/c", "/srv/new/c")] {
            assert_eq!(place.of(Path::new(name)), Ok(Some(want.into())), "{name:?}");
        }
        assert_eq!(place.of(Path::new("older")), Err(Misplaced::SecondTop));
        let mut place = Place::As { path: "/srv/new".into(), top: None };
        for (name, want) in [("./", "/srv/new"), ("./a", "/srv/new/a"), ("b/c", "/srv/new/b/c")] {
            assert_eq!(place.of(Path::new(name)), Ok(Some(want.into())), "{name:?}");
        }
    }
}
