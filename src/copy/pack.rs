//! A tree of this host becomes a tar stream: owners by number, modes, times, symlinks and hard links as they are.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::stream::Outgoing;
use super::{CopyError, Skipped, Source};
use crate::proto::symlink::append_symlink;

/// What of a tree counts in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// All that it is here.
    Alike,
    /// Its files and directories, as root's. Symlinks below it and what is neither are left out.
    Plain,
}

/// A tree of this host, and the mode of the file that it is, where that is not the file's own.
#[derive(Debug)]
pub struct Part {
    pub source: Source,
    pub file_mode: Option<u32>,
}

/// Sends `source` as a tar stream; the caller ends it.
pub fn pack<F: FnMut(u64)>(source: Source, to: &mut Outgoing<F>) -> Result<Skipped, CopyError> {
    pack_all(&[Part { source, file_mode: None }], How::Alike, to)
}

/// Sends `parts` as one tar stream; the caller ends it.
pub fn pack_all<F: FnMut(u64)>(parts: &[Part], how: How, to: &mut Outgoing<F>) -> Result<Skipped, CopyError> {
    let tar = Builder::new(&mut *to);
    let mut packer = Packer { tar, how, file_mode: None, links: HashMap::new(), skipped: Skipped::default() };
    let packed = parts.iter().try_for_each(|Part { source, file_mode }| {
        packer.file_mode = *file_mode;
        packer.tree(&source.path, Path::new(&source.name), source.follow)
    });
    let finished = packed.and_then(|()| {
        packer.tar.finish().map_err(CopyError::Connection)?;
        Ok(packer.skipped)
    });
    drop(packer);
    // What the guest said explains why writing to it failed.
    finished.map_err(|e| to.take_failure().unwrap_or(e))
}

struct Packer<W: Write> {
    tar: Builder<W>,
    how: How,
    /// Of the part that is one file.
    file_mode: Option<u32>,
    /// Files with several names, and the first one in the stream.
    links: HashMap<(u64, u64), PathBuf>,
    skipped: Skipped,
}

impl<W: Write> Packer<W> {
    /// Adds what is at `path` under `name`, and all that is below it. Not recursive: a tree may be as deep as it likes.
    fn tree(&mut self, path: &Path, name: &Path, follow: bool) -> Result<(), CopyError> {
        let read = |path: &Path| fs::symlink_metadata(path).map_err(CopyError::here("read", path));
        let meta =
            if follow { fs::metadata(path).map_err(CopyError::here("read", path))? } else { read(path)? };
        let is_dir = meta.is_dir();
        if is_dir {
            // It is for the part itself.
            self.file_mode = None;
        }
        self.one(path, name, &meta)?;
        let mut left = if is_dir { vec![(path.to_owned(), name.to_owned())] } else { vec![] };
        while let Some((dir, name)) = left.pop() {
            let mut entries = fs::read_dir(&dir)
                .and_then(Iterator::collect::<io::Result<Vec<_>>>)
                .map_err(CopyError::here("read", &dir))?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let (path, name) = (entry.path(), name.join(entry.file_name()));
                let meta = read(&path)?;
                self.one(&path, &name, &meta)?;
                if meta.is_dir() {
                    left.push((path, name));
                }
            }
        }
        Ok(())
    }

    fn one(&mut self, path: &Path, name: &Path, meta: &Metadata) -> Result<(), CopyError> {
        let kind = meta.file_type();
        if self.how == How::Plain && !kind.is_dir() && !kind.is_file() {
            match kind.is_symlink() {
                true => self.skipped.symlinks += 1,
                false => self.skipped.devices += 1,
            }
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_mode(self.file_mode.unwrap_or(meta.mode()) & 0o7777);
        let (uid, gid) = match self.how {
            How::Alike => (meta.uid(), meta.gid()),
            How::Plain => (0, 0),
        };
        header.set_uid(u64::from(uid));
        header.set_gid(u64::from(gid));
        header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
        header.set_size(0);
        let added = if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            self.tar.append_data(&mut header, name, io::empty())
        } else if kind.is_symlink() {
            let target = fs::read_link(path).map_err(CopyError::here("read", path))?;
            append_symlink(&mut self.tar, header, name, target.as_os_str().as_bytes())
        } else if kind.is_socket() {
            self.skipped.sockets += 1;
            Ok(())
        } else if let Some(first) = self.other_name(name, meta) {
            header.set_entry_type(EntryType::Link);
            self.tar.append_link(&mut header, name, first)
        } else if kind.is_file() {
            return self.file(path, name, header, meta.len());
        } else {
            header.set_entry_type(match () {
                () if kind.is_fifo() => EntryType::Fifo,
                () if kind.is_block_device() => EntryType::Block,
                () => EntryType::Char,
            });
            let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
            header
                .set_device_major(major)
                .and_then(|()| header.set_device_minor(minor))
                .and_then(|()| self.tar.append_data(&mut header, name, io::empty()))
        };
        added.map_err(CopyError::here("send", path))
    }

    /// The name under which the same file is in the stream already.
    fn other_name(&mut self, name: &Path, meta: &Metadata) -> Option<PathBuf> {
        if meta.nlink() < 2 || self.how == How::Plain {
            return None;
        }
        let first = self.links.entry((meta.dev(), meta.ino())).or_insert_with(|| name.to_owned());
        (first.as_os_str() != AsRef::<OsStr>::as_ref(name)).then(|| first.clone())
    }

    /// A file of the length that it had when its header was made: a header once sent is a promise.
    fn file(&mut self, path: &Path, name: &Path, mut header: Header, len: u64) -> Result<(), CopyError> {
        let file = File::open(path).map_err(CopyError::here("read", path))?;
        header.set_size(len);
        let mut exact = Exact { file, left: len };
        self.tar.append_data(&mut header, name, &mut exact).map_err(CopyError::here("send", path))
    }
}

/// The first `left` bytes of a file, or an error if it has become shorter.
struct Exact {
    file: File,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        match self.file.read(&mut buffer[..room])? {
            0 if room > 0 => Err(io::Error::other("it became shorter while it was read")),
            n => {
                self.left -= n as u64;
                Ok(n)
            }
        }
    }
}
