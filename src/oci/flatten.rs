//! Layers, oldest first, become one tree, as docker and containerd would apply them to a directory (containerd
//! archive/tar.go); only that there is no directory: a path is looked up in the tree, and a symlink in it leads through
//! the tree, so there is nothing outside to be reached.
//!
//! Where the two differ from the specification, the specification holds: a whiteout hides what the layers *below* have
//! (image-spec layer.md), wherever in its own layer it stands.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead};

use crate::ext4::tree::{Content, Inode, InodeId, Kind, Meta, Tree};
use crate::ext4::{Image, Xattrs, is_known};
use crate::host::progress::Progress;
use crate::image::platform::elf_architecture;
use crate::image::whiteout;
use crate::oci::error::LayerError;
use crate::oci::limits::{Limits, PER_ENTRY};
use crate::oci::path::{MAX_DEPTH, normalise};
use crate::oci::tar::{Entry, Reader, Source, TarError, Type, shown};

/// As many symlinks may lie on a path (path_resolution(7)).
const MAX_SYMLINKS: u32 = 40;
/// ext4's own (ext4(5)).
const MAX_HARD_LINKS: u32 = 65_000;

/// Programs that a root file system has, one or another.
const PROGRAMS: [&str; 8] = [
    "sbin/init",
    "bin/sh",
    "bin/busybox",
    "usr/bin/env",
    "usr/bin/dash",
    "usr/bin/bash",
    "usr/lib/systemd/systemd",
    "init",
];
const NO_DIRECTORY: Why = "lies below something that is no directory";

/// Layers being applied.
pub struct Flattening<'a> {
    tree: Tree,
    image: Image,
    layer: u32,
    entries: u64,
    metadata: u64,
    /// An attribute was left out.
    left_out: bool,
    limits: Limits,
    progress: &'a dyn Progress,
}

/// Whether `.wh.` names mean anything: in a layer they do, in a root file system they are files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    Apply,
    Keep,
}

type Why = &'static str;

impl<'a> Flattening<'a> {
    /// Nothing yet; contents go to `file`, which is empty.
    pub fn new(file: File, limits: Limits, progress: &'a dyn Progress) -> Self {
        let (tree, image) = (Tree::default(), Image::new(file));
        Self { tree, image, layer: 0, entries: 0, metadata: 0, left_out: false, limits, progress }
    }

    pub fn finish(self) -> (Tree, Image) {
        (self.tree, self.image)
    }

    /// Applies the next layer.
    pub fn apply<S: Source + BufRead>(
        &mut self,
        tar: &mut Reader<S>,
        whiteouts: Whiteouts,
    ) -> Result<(), LayerError> {
        self.layer += 1;
        while let Some(mut entry) = tar.next().map_err(LayerError::Tar)? {
            self.count(&entry)?;
            self.check_xattrs(&mut entry)?;
            let bad = |why: Why| LayerError::Member { path: shown(&entry.path), why: why.to_owned() };
            let names = normalise(&entry.path).map_err(bad)?;
            let Some((name, parents)) = names.split_last() else {
                if entry.kind != Type::Directory {
                    return Err(bad("would take the place of the root directory"));
                }
                *self.tree.meta_mut(InodeId::ROOT) = meta(&entry);
                continue;
            };
            let verdict =
                if whiteouts == Whiteouts::Apply { whiteout::judge(name) } else { whiteout::Entry::Plain };
            match verdict {
                whiteout::Entry::Plain => self.place(entry, tar)?,
                whiteout::Entry::Ignored => {}
                whiteout::Entry::Bad => return Err(bad("is a whiteout of nothing")),
                whiteout::Entry::Deletes(victim) => {
                    if let Some(dir) = self.directory(parents, false).map_err(bad)? {
                        self.tree.remove_if_older(dir, victim, self.layer);
                    }
                }
                whiteout::Entry::Opaque => {
                    if let Some(dir) = self.directory(parents, false).map_err(bad)? {
                        self.tree.remove_older(dir, self.layer);
                    }
                }
            }
            self.image.release(self.tree.take_freed());
        }
        Ok(())
    }

    /// The architecture of the first well-known program that is there; None: there is none of them. A root file system
    /// says nowhere what machine it is for, but its programs do.
    pub fn architecture(&mut self) -> Option<&'static str> {
        PROGRAMS.iter().find_map(|path| {
            let names: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
            // A path that leads nowhere is a program that is not there.
            let program = self.walk(&names, false).ok()??;
            let Kind::File(content) = &self.tree.get(program).kind else {
                return None;
            };
            let mut head = [0; 20];
            // A file that cannot be read is an error when the rest is written.
            let n = self.image.read_head(content, &mut head).ok()?;
            elf_architecture(&head[..n])
        })
    }

    fn count(&mut self, entry: &Entry) -> Result<(), LayerError> {
        if self.progress.cancelled() {
            return Err(LayerError::Cancelled);
        }
        self.entries += 1;
        let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let bytes = entry.path.len() + entry.link.len() + xattrs + entry.stretches.len() * 24;
        self.metadata += bytes as u64 + PER_ENTRY;
        self.limits.check_members(self.entries, self.metadata).map_err(LayerError::TooMuch)
    }

    /// Leaves out attributes for which ext4 has no namespace, as a kernel would refuse them and containerd goes on then.
    fn check_xattrs(&mut self, entry: &mut Entry) -> Result<(), LayerError> {
        if entry.xattrs.is_empty() {
            return Ok(());
        }
        let before = entry.xattrs.len();
        entry.xattrs.retain(|name, _| is_known(name));
        if entry.xattrs.len() < before && !self.left_out {
            self.left_out = true;
            self.progress.note(&format!(
                "extended attributes that ext4 has no namespace for are left out, first of '{}'",
                shown(&entry.path)
            ));
        }
        match Xattrs::divide(&entry.xattrs) {
            Ok(_) => Ok(()),
            Err(e) => Err(LayerError::Member { path: shown(&entry.path), why: e.why().to_owned() }),
        }
    }

    /// Puts a member into the tree; `data` reads as its content.
    fn place(&mut self, entry: Entry, data: &mut impl BufRead) -> Result<(), LayerError> {
        let bad = |why: Why| LayerError::Member { path: shown(&entry.path), why: why.to_owned() };
        // Both were looked at by the caller.
        let names = normalise(&entry.path).map_err(bad)?;
        let Some((name, parents)) = names.split_last() else { return Ok(()) };
        let dir = self.directory(parents, true).map_err(bad)?.ok_or_else(|| bad("has no parent"))?;
        let kind = match entry.kind {
            Type::Directory => match self.tree.lookup(dir, name) {
                Some(there) if self.tree.is_directory(there) => {
                    *self.tree.meta_mut(there) = meta(&entry);
                    self.tree.touch(dir, name, self.layer);
                    return Ok(());
                }
                _ => Kind::Directory(BTreeMap::new()),
            },
            Type::HardLink => {
                let target = self.hard_link_target(&entry.link).map_err(bad)?;
                self.tree.link(dir, name, target, self.layer);
                return Ok(());
            }
            Type::File => Kind::File(self.keep(&entry, data)?),
            Type::Symlink if entry.link.is_empty() => return Err(bad("is a symlink to nothing")),
            Type::Symlink if entry.link.len() > 4095 => {
                return Err(bad("is a symlink to more than 4095 bytes"));
            }
            Type::Symlink => Kind::Symlink(entry.link.clone()),
            Type::Fifo => Kind::Fifo,
            Type::CharDevice | Type::BlockDevice => {
                let (major, minor) = entry.device;
                // Linux's dev_t has 12 and 20 bits (include/linux/kdev_t.h).
                if major > 0xfff || minor > 0xf_ffff {
                    return Err(bad("has a device number that Linux cannot have"));
                }
                match entry.kind {
                    Type::BlockDevice => Kind::BlockDevice { major, minor },
                    _ => Kind::CharDevice { major, minor },
                }
            }
        };
        self.tree.insert(dir, name, Inode { meta: meta(&entry), kind }, self.layer);
        Ok(())
    }

    fn keep(&mut self, entry: &Entry, data: &mut impl BufRead) -> Result<Content, LayerError> {
        let mut file = self.image.file(entry.size);
        for stretch in entry.stretches.iter().filter(|s| s.len > 0) {
            file.seek(stretch.at).map_err(LayerError::Disk)?;
            let mut left = stretch.len;
            while left > 0 {
                if self.progress.cancelled() {
                    return Err(LayerError::Cancelled);
                }
                let part = data.fill_buf().map_err(|e| match e.kind() {
                    io::ErrorKind::UnexpectedEof => LayerError::Tar(TarError::truncated(&entry.path)),
                    _ => LayerError::Tar(TarError::Read(e)),
                })?;
                let len = part.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                file.write(&part[..len]).map_err(LayerError::Disk)?;
                data.consume(len);
                left -= len as u64;
            }
        }
        file.finish().map_err(LayerError::Disk)
    }

    /// What a hard link names: below any layer, but no directory; a symlink there is itself meant.
    fn hard_link_target(&mut self, link: &[u8]) -> Result<InodeId, Why> {
        const NOTHING: Why = "is a hard link to nothing in the image";
        let names = normalise(link).map_err(|_| "is a hard link out of the image")?;
        let (name, parents) = names.split_last().ok_or("is a hard link to the root directory")?;
        let dir = self.directory(parents, false)?.ok_or(NOTHING)?;
        let target = self.tree.lookup(dir, name).ok_or(NOTHING)?;
        if self.tree.is_directory(target) {
            return Err("is a hard link to a directory");
        }
        if self.tree.names(target) >= MAX_HARD_LINKS {
            return Err("is one of more than 65,000 hard links to a file");
        }
        Ok(target)
    }

    /// The directory at `names`; what is missing on the way is made, if `make` says so, else there is none.
    fn directory(&mut self, names: &[&[u8]], make: bool) -> Result<Option<InodeId>, Why> {
        match self.walk(names, make)? {
            Some(id) if !self.tree.is_directory(id) => Err(NO_DIRECTORY),
            found => Ok(found),
        }
    }

    /// Walks from the root along `names`, through symlinks, the last one too, and returns what is there.
    fn walk(&mut self, names: &[&[u8]], make: bool) -> Result<Option<InodeId>, Why> {
        let mut stack = vec![InodeId::ROOT];
        let mut todo: Vec<Vec<u8>> = names.iter().rev().map(|n| n.to_vec()).collect();
        let mut symlinks = 0;
        while let Some(name) = todo.pop() {
            let here = stack.last().copied().unwrap_or(InodeId::ROOT);
            if !self.tree.is_directory(here) {
                return Err(NO_DIRECTORY);
            }
            if name == b".." {
                // The root's parent is the root.
                stack.truncate(stack.len().saturating_sub(1).max(1));
                continue;
            }
            let next = match self.tree.lookup(here, &name) {
                None if !make => return Ok(None),
                None if name.len() > 255 => {
                    return Err("leads through a symlink to a name longer than 255 bytes");
                }
                None => {
                    let meta = Meta { mode: 0o755, ..Meta::default() };
                    let made = Inode { meta, kind: Kind::Directory(BTreeMap::new()) };
                    self.tree.insert(here, &name, made, self.layer)
                }
                Some(id) => id,
            };
            if let Kind::Symlink(target) = &self.tree.get(next).kind {
                symlinks += 1;
                if symlinks > MAX_SYMLINKS {
                    return Err("leads through too many symlinks");
                }
                if target.starts_with(b"/") {
                    stack.truncate(1);
                }
                let parts = target.split(|b| *b == b'/').filter(|p| !matches!(*p, b"" | b"."));
                todo.extend(parts.rev().map(<[u8]>::to_vec));
            } else {
                stack.push(next);
            }
            if stack.len() > MAX_DEPTH {
                return Err("lies deeper than 256 directories");
            }
        }
        Ok(stack.last().copied())
    }
}

fn meta(entry: &Entry) -> Meta {
    let mode = if entry.kind == Type::Symlink { 0o777 } else { entry.mode };
    Meta { mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs: entry.xattrs.clone() }
}

#[cfg(test)]
mod tests;
