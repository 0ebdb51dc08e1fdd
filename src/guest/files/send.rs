//! Reading the guest: a file or a tree as a tar stream (GNU names for long ones, PAX records for extended attributes).
//!
//! A tree is read as it is on one file system: mount points are empty directories, so that a copy of `/` holds the disk and
//! not /proc. Sockets have no place in a tar stream and are left out.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, lgetxattr, llistxattr, major, minor};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use super::stream::Outgoing;
use crate::guest::wire::Wire;
use crate::guest::{Failed, failed};
use crate::proto::agent::{Answer, Code, Read as Wanted};
use crate::proto::frame::Kind;
use crate::proto::symlink::append_symlink;

/// The longest value of an extended attribute (kernel: XATTR_SIZE_MAX), and of their names together (XATTR_LIST_MAX).
const XATTR_MAX: usize = 64 * 1024;

/// Serves a Read. Fails only if the host cannot be spoken to.
pub fn run(wire: &mut Wire, wanted: &Wanted) -> io::Result<()> {
    if !wanted.path.starts_with('/') {
        return wire.refuse(Code::BadRequest, format!("{:?} is not an absolute path", wanted.path));
    }
    let top = Path::new(&wanted.path);
    let found = if wanted.follow { fs::canonicalize(top) } else { Ok(top.to_owned()) };
    let found = found.and_then(|path| Ok((fs::symlink_metadata(&path)?, path)));
    let (meta, path) = match found {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return wire.refuse(Code::NotFound, format!("the guest has no {}", wanted.path));
        }
        Err(e) => return wire.refuse(Code::Failed, format!("cannot read {} in the guest: {e}", wanted.path)),
    };
    wire.answer(&Answer::Done)?;
    let mut out = Builder::new(Outgoing::new(wire));
    let sent = Sender { out: &mut out, device: meta.dev(), links: HashMap::new() }
        .tree(&path, &name_of(&wanted.path), meta)
        .and_then(|()| {
            let finished = out.into_inner().and_then(|mut outgoing| outgoing.flush());
            finished.map_err(failed("send to the host"))
        });
    match sent {
        Ok(()) => wire.send(Kind::Eof, &[]),
        Err(e) => wire.send(Kind::Failed, e.sentence().as_bytes()),
    }
}

/// The name of the stream's top entry: the last component, or `.` for one that has no name of its own (`/`, `/a/.`).
fn name_of(path: &str) -> PathBuf {
    match Path::new(path).file_name() {
        Some(name) if !path.ends_with("/.") => PathBuf::from(name),
        _ => PathBuf::from("."),
    }
}

struct Sender<'a, W: Write> {
    out: &'a mut Builder<W>,
    /// The file system to stay on.
    device: u64,
    /// Files with more than one name, by inode, and the name under which they were sent.
    links: HashMap<u64, PathBuf>,
}

impl<W: Write> Sender<'_, W> {
    /// Sends `path` as `name`, and all below it. The directories yet to be listed are a stack of their own: the guest's
    /// trees may be deeper than ours.
    fn tree(&mut self, path: &Path, name: &Path, meta: Metadata) -> Result<(), Failed> {
        let mut waiting = vec![(path.to_owned(), name.to_owned(), meta)];
        while let Some((path, name, meta)) = waiting.pop() {
            let stays = meta.is_dir() && meta.dev() == self.device;
            self.entry(&path, &name, &meta)
                .map_err(failed(format!("read {} in the guest", path.display())))?;
            if stays {
                let below = list(&path).map_err(failed(format!("list {} in the guest", path.display())))?;
                waiting.extend(
                    below.into_iter().map(|(child, meta)| (path.join(&child), name.join(&child), meta)),
                );
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: &Path, meta: &Metadata) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_mode(meta.mode() & 0o7777);
        header.set_uid(meta.uid().into());
        header.set_gid(meta.gid().into());
        // A time before 1970 has no place in the header.
        header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
        header.set_size(0);
        let kind = meta.file_type();
        let device = |header: &mut Header, kind| {
            header.set_entry_type(kind);
            header
                .set_device_major(major(meta.rdev()))
                .and_then(|()| header.set_device_minor(minor(meta.rdev())))
        };
        if kind.is_socket() {
            return Ok(());
        } else if kind.is_symlink() {
            let target = fs::read_link(path)?;
            return append_symlink(self.out, header, name, target.as_os_str().as_bytes());
        } else if kind.is_file() && meta.nlink() > 1 {
            if let Some(first) = self.links.get(&meta.ino()) {
                header.set_entry_type(EntryType::Link);
                return self.out.append_link(&mut header, name, first);
            }
            self.links.insert(meta.ino(), name.to_owned());
        }
        if kind.is_file() {
            // What has become of it since it was listed does not lead elsewhere, or block.
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
            self.attributes(path)?;
            header.set_entry_type(EntryType::Regular);
            header.set_size(meta.len());
            return self.out.append_data(&mut header, name, exactly(file, meta.len()));
        }
        match () {
            () if kind.is_dir() => {
                self.attributes(path)?;
                header.set_entry_type(EntryType::Directory);
            }
            () if kind.is_fifo() => header.set_entry_type(EntryType::Fifo),
            () if kind.is_char_device() => device(&mut header, EntryType::Char)?,
            () => device(&mut header, EntryType::Block)?,
        }
        self.out.append_data(&mut header, name, io::empty())
    }

    /// Extended attributes as star and GNU tar write them. A file system without any has none.
    fn attributes(&mut self, path: &Path) -> io::Result<()> {
        let mut names = vec![0; XATTR_MAX];
        let length = match llistxattr(path, &mut names[..]) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
            other => other?,
        };
        let mut records = vec![];
        for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; XATTR_MAX];
            match lgetxattr(path, OsStr::from_bytes(name), &mut value[..]) {
                Ok(n) => value.truncate(n),
                Err(Errno::NODATA) => continue,
                Err(e) => return Err(e.into()),
            }
            records.push((format!("SCHILY.xattr.{}", String::from_utf8_lossy(name)), value));
        }
        self.out.append_pax_extensions(records.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
    }
}

/// Exactly `length` bytes: what a file that grows meanwhile has more is left out, what one that shrinks has less is zeros.
fn exactly(file: File, length: u64) -> impl Read {
    file.take(length).chain(io::repeat(0)).take(length)
}

/// What is in a directory, backwards by name: whoever takes from the end goes forwards.
fn list(path: &Path) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let mut found = vec![];
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(meta) => found.push((PathBuf::from(entry.file_name()), meta)),
            // Gone since it was listed.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    found.sort_by(|a, b| b.0.cmp(&a.0));
    Ok(found)
}
