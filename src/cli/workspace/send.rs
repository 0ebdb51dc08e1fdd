//! Contents as a tar stream (POSIX.1-1988 ustar, with GNU's long names): paths, git's modes and times, and nothing of this host's owners.

use std::io::{self, BufRead};

use tar::{EntryType, Header};

use super::error::WorkspaceError;
use super::history::Objects;
use super::peer::Peer;
use super::tree::{Item, Tree};
use crate::git::Mode;

const BLOCK: u64 = 512;
/// What names of a header hold.
const NAME: usize = 100;
/// The longest symlink, in bytes (PATH_MAX).
const MAX_LINK: u64 = 4096;

/// Where contents come from.
pub enum Contents<'a> {
    Tree(&'a mut Tree),
    Objects(&'a mut Objects),
}

/// Sends the content of `items`; the caller ends the segment.
pub fn send<'i>(
    items: impl Iterator<Item = &'i Item>,
    contents: &mut Contents<'_>,
    to: &mut Peer<'_, '_>,
) -> Result<(), WorkspaceError> {
    for item in items {
        match (item.mode, &mut *contents) {
            (Mode::Directory | Mode::Gitlink, _) => {
                header(&item.path, EntryType::Directory, 0o755, 0, item.mtime, to)?
            }
            (Mode::Symlink, Contents::Tree(tree)) => link(item, &tree.link(&item.path)?, to)?,
            (Mode::Symlink, Contents::Objects(objects)) => link(item, &target(objects, item)?, to)?,
            (Mode::File | Mode::Executable, Contents::Tree(tree)) => file(item, tree, to)?,
            (Mode::File | Mode::Executable, Contents::Objects(objects)) => blob(item, objects, to)?,
        }
    }
    // Two empty blocks end it.
    to.put(&[0; 2 * BLOCK as usize])
}

fn file(item: &Item, tree: &mut Tree, to: &mut Peer<'_, '_>) -> Result<(), WorkspaceError> {
    let (file, stat) = tree.file(&item.path)?;
    let size = stat.st_size.unsigned_abs();
    header(&item.path, EntryType::Regular, mode(item), size, u64::try_from(stat.st_mtime).unwrap_or(0), to)?;
    let mut left = size;
    while left > 0 {
        let read = to.fill(left, |room| match rustix::io::read(&file, room)? {
            0 => Err(io::Error::other("it became shorter while it was read; try again")),
            n => Ok(n),
        });
        match read {
            Ok(sent) => left -= sent? as u64,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(WorkspaceError::here("read", &tree.shown(&item.path))(e)),
        }
    }
    pad(size, to)
}

fn blob(item: &Item, objects: &mut Objects, to: &mut Peer<'_, '_>) -> Result<(), WorkspaceError> {
    let size = found(objects, item)?;
    header(&item.path, EntryType::Regular, mode(item), size, item.mtime, to)?;
    let mut left = size;
    while left > 0 {
        let n = match objects.content().fill_buf() {
            Ok(piece) => usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len())),
            Err(e) => return Err(objects.broken(e)),
        };
        if n == 0 {
            return Err(objects.broken(io::ErrorKind::UnexpectedEof.into()));
        }
        to.put(&objects.content().buffer()[..n])?;
        objects.content().consume(n);
        left -= n as u64;
    }
    objects.end()?;
    pad(size, to)
}

fn target(objects: &mut Objects, item: &Item) -> Result<Vec<u8>, WorkspaceError> {
    let size = found(objects, item)?;
    if size > MAX_LINK {
        return WorkspaceError::refused(format!("the symlink \"{}\" is too long", item.path.escape_ascii()));
    }
    let mut target = vec![0; size as usize];
    io::Read::read_exact(objects.content(), &mut target).map_err(|e| objects.broken(e))?;
    objects.end()?;
    Ok(target)
}

fn found(objects: &mut Objects, item: &Item) -> Result<u64, WorkspaceError> {
    let id = item.blob.as_deref().unwrap_or_default();
    match objects.find(id, "blob")? {
        Some(size) => Ok(size),
        None => WorkspaceError::refused(format!(
            "the content of \"{}\", {id}, is not in the repository",
            item.path.escape_ascii()
        )),
    }
}

fn mode(item: &Item) -> u32 {
    if item.mode == Mode::Executable { 0o755 } else { 0o644 }
}

fn link(item: &Item, target: &[u8], to: &mut Peer<'_, '_>) -> Result<(), WorkspaceError> {
    if target.len() > NAME {
        long(EntryType::GNULongLink, target, to)?;
    }
    let mut header = prepared(&item.path, EntryType::Symlink, 0o777, 0, item.mtime, to)?;
    let short = &target[..target.len().min(NAME)];
    header.as_old_mut().linkname[..short.len()].copy_from_slice(short);
    seal(header, to)
}

fn header(
    path: &[u8],
    kind: EntryType,
    mode: u32,
    size: u64,
    mtime: u64,
    to: &mut Peer<'_, '_>,
) -> Result<(), WorkspaceError> {
    let header = prepared(path, kind, mode, size, mtime, to)?;
    seal(header, to)
}

fn prepared(
    path: &[u8],
    kind: EntryType,
    mode: u32,
    size: u64,
    mtime: u64,
    to: &mut Peer<'_, '_>,
) -> Result<Header, WorkspaceError> {
    if path.len() > NAME {
        long(EntryType::GNULongName, path, to)?;
    }
    Ok(plain(path, kind, mode, size, mtime))
}

fn plain(path: &[u8], kind: EntryType, mode: u32, size: u64, mtime: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(mtime);
    let short = &path[..path.len().min(NAME)];
    header.as_old_mut().name[..short.len()].copy_from_slice(short);
    header
}

fn seal(mut header: Header, to: &mut Peer<'_, '_>) -> Result<(), WorkspaceError> {
    header.set_cksum();
    to.put(header.as_bytes())
}

/// A name that does not fit, ahead of what it belongs to.
fn long(kind: EntryType, name: &[u8], to: &mut Peer<'_, '_>) -> Result<(), WorkspaceError> {
    let size = name.len() as u64 + 1;
    seal(plain(b"././@LongLink", kind, 0o644, size, 0), to)?;
    to.put(name)?;
    to.put(&[0])?;
    pad(size, to)
}

fn pad(size: u64, to: &mut Peer<'_, '_>) -> Result<(), WorkspaceError> {
    let over = (size % BLOCK) as usize;
    if over == 0 { Ok(()) } else { to.put(&[0; BLOCK as usize][over..]) }
}
