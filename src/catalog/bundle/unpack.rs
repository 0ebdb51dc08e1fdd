//! Taking a bundle apart: an image's file system to a file, a kernel's files to a directory, in one pass.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::manifest::{MAX_MANIFEST, Manifest};
use super::members::{Kind, Member, Members};
use super::{BZIMAGE, BundleError, MANIFEST, MODULES, ROOTFS, VMLINUX};
use crate::catalog::about::{ImageAbout, KernelAbout};
use crate::host::files::{create_private_dir, remove_if_present, remove_tree_if_present};
use crate::host::progress::{Progress, Unit};
use crate::host::undo::Undo;
use crate::image::config::ImageConfig;

/// The largest root file system, in bytes, holes included.
const MAX_ROOTFS: u64 = 64 << 30;
/// The most that a kernel's files may unpack to, in bytes, and their number; a distribution's with every driver has 700 MB in
/// 7,000 files.
const MAX_KERNEL: u64 = 8 << 30;
const MAX_MEMBERS: usize = 20_000;
/// How many times its size a bundle may unpack to, zeros that become holes not counted, beyond a start that is free. Debian's
/// root file system takes 4 times the room of its bundle; text that repeats itself, perhaps 50.
const MAX_RATIO: u64 = 200;
const FREE: u64 = 64 << 20;
/// What is looked at as one when holes are left.
const BLOCK: usize = 4096;
const BUFFER: usize = 64 * BLOCK;

/// Writes the root file system in the image's bundle `file` to the new file `out`, with holes for zeros, and returns how its
/// processes are started. On an error there is no such file.
///
/// # Errors
/// Also when the bundle does not say of itself what the catalog says of it, which is `wanted`.
pub fn image(
    file: File,
    wanted: &ImageAbout,
    out: &Path,
    progress: &dyn Progress,
) -> Result<ImageConfig, BundleError> {
    let mut archive = Archive::open(file, progress)?;
    let mut undo = Undo::default();
    let (mut rootfs, mut manifest) = (None, None);
    while let Some(member) = archive.next()? {
        match (member.path.as_str(), member.kind) {
            (ROOTFS, Kind::File(size)) if rootfs.is_none() => {
                if size > MAX_ROOTFS {
                    return Err(BundleError::TooMuch("a root file system of more than 64 GiB"));
                }
                let doomed = out.to_owned();
                let file = create(out)?;
                undo.push(format!("file {}", out.display()), move || remove_if_present(&doomed));
                archive.write_sparse(&file, size, out)?;
                rootfs = Some(file);
            }
            (MANIFEST, Kind::File(size)) if manifest.is_none() => manifest = Some(archive.manifest(size)?),
            _ => return Err(stranger(&member.path)),
        }
    }
    let rootfs = rootfs.ok_or(BundleError::Missing(ROOTFS))?;
    let config = match manifest.ok_or(BundleError::Missing(MANIFEST))? {
        Manifest::Image { about, config } => {
            agree("name", &wanted.name, &about.name)?;
            agree("architecture", &wanted.arch, &about.arch)?;
            config
        }
        Manifest::Kernel { .. } => return Err(other_kind("an image", "a kernel")),
    };
    if !is_ext4(&rootfs).map_err(BundleError::io("read the root file system"))? {
        return Err(BundleError::NoExt4);
    }
    undo.commit();
    Ok(config)
}

/// Writes the files in the kernel's bundle `file` into the new directory `out`, as `kernel import --from` takes it. On an error
/// there is no such directory.
///
/// # Errors
/// Also when the bundle does not say of itself what the catalog says of it, which is `wanted`.
pub fn kernel(
    file: File,
    wanted: &KernelAbout,
    out: &Path,
    progress: &dyn Progress,
) -> Result<(), BundleError> {
    let mut archive = Archive::open(file, progress)?;
    let mut undo = Undo::default();
    create_private_dir(out).map_err(BundleError::io(format!("make {}", out.display())))?;
    let doomed = out.to_owned();
    undo.push(format!("directory {}", out.display()), move || remove_tree_if_present(&doomed));
    let mut tree = Tree::new(out);
    let mut manifest = None;
    while let Some(member) = archive.next()? {
        let top = member.path.split('/').next().unwrap_or_default();
        match (member.path.as_str(), &member.kind) {
            (MANIFEST, Kind::File(size)) if manifest.is_none() => manifest = Some(archive.manifest(*size)?),
            (VMLINUX | BZIMAGE, Kind::File(_)) if !tree.has(VMLINUX) && !tree.has(BZIMAGE) => {
                tree.add(&member, &mut archive)?;
            }
            (MODULES, Kind::Directory) => tree.add(&member, &mut archive)?,
            (path, _) if top == MODULES && path != MODULES => tree.add(&member, &mut archive)?,
            _ => return Err(stranger(&member.path)),
        }
    }
    if !tree.has(VMLINUX) && !tree.has(BZIMAGE) {
        return Err(BundleError::Missing("vmlinux or bzImage"));
    }
    let about = match manifest.ok_or(BundleError::Missing(MANIFEST))? {
        Manifest::Kernel { about } => about,
        Manifest::Image { .. } => return Err(other_kind("a kernel", "an image")),
    };
    agree("name", &wanted.name, &about.name)?;
    agree("architecture", &wanted.arch, &about.arch)?;
    agree("version", &wanted.version, &about.version)?;
    undo.commit();
    Ok(())
}

fn agree(field: &'static str, wanted: &str, found: &str) -> Result<(), BundleError> {
    if wanted == found {
        return Ok(());
    }
    Err(BundleError::Other { field, wanted: wanted.to_owned(), found: found.to_owned() })
}

fn other_kind(wanted: &str, found: &str) -> BundleError {
    BundleError::Other { field: "kind", wanted: wanted.to_owned(), found: found.to_owned() }
}

fn stranger(path: &str) -> BundleError {
    BundleError::Member { path: path.to_owned(), why: "is there twice, or does not belong there" }
}

/// ext4's magic number, in the superblock (linux: fs/ext4/ext4.h, s_magic).
fn is_ext4(file: &File) -> io::Result<bool> {
    let mut magic = [0; 2];
    match file.read_exact_at(&mut magic, 1024 + 56) {
        Ok(()) => Ok(magic == [0x53, 0xef]),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

fn create(path: &Path) -> Result<File, BundleError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(BundleError::io(format!("make {}", path.display())))
}

/// A bundle that is being read, with an eye on how much comes out of it.
struct Archive<'a> {
    members: Members<zstd::Decoder<'static, BufReader<File>>>,
    count: usize,
    /// Bytes that have been written so far, and how many may be.
    written: u64,
    limit: u64,
    /// Bytes that have been read so far of the present member, for the progress.
    read: u64,
    progress: &'a dyn Progress,
}

impl<'a> Archive<'a> {
    fn open(file: File, progress: &'a dyn Progress) -> Result<Self, BundleError> {
        let packed = file.metadata().map_err(BundleError::Read)?.len();
        let limit = packed.saturating_mul(MAX_RATIO).saturating_add(FREE);
        let decoder = zstd::Decoder::new(file).map_err(BundleError::Read)?;
        Ok(Self { members: Members::new(decoder), count: 0, written: 0, limit, read: 0, progress })
    }

    fn next(&mut self) -> Result<Option<Member>, BundleError> {
        self.count += 1;
        if self.count > MAX_MEMBERS {
            return Err(BundleError::TooMuch("more members than any kernel has modules"));
        }
        self.members.next()
    }

    /// The next part of the present member; empty at its end.
    fn part<'b>(&mut self, buffer: &'b mut [u8], size: u64) -> Result<&'b [u8], BundleError> {
        if self.progress.cancelled() {
            return Err(BundleError::Cancelled);
        }
        let mut filled = 0;
        while filled < buffer.len() {
            match self.members.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(BundleError::Truncated),
                Err(e) => return Err(BundleError::Read(e)),
            }
        }
        self.read += filled as u64;
        self.progress.advance(self.read, size, Unit::Bytes);
        Ok(&buffer[..filled])
    }

    fn count_written(&mut self, bytes: usize) -> Result<(), BundleError> {
        self.written += bytes as u64;
        if self.written > self.limit {
            return Err(BundleError::TooMuch("far more in it than a file of its size can honestly have"));
        }
        Ok(())
    }

    fn manifest(&mut self, size: u64) -> Result<Manifest, BundleError> {
        if size > MAX_MANIFEST {
            return Err(BundleError::TooMuch("a manifest of more than 1 MiB"));
        }
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(0)];
        self.read = 0;
        let bytes = self.part(&mut buffer, size)?;
        Manifest::parse(bytes)
    }

    /// Writes the present member to `file`; blocks of zeros become holes.
    fn write_sparse(&mut self, file: &File, size: u64, path: &Path) -> Result<(), BundleError> {
        let op = || format!("write {}", path.display());
        file.set_len(size).map_err(BundleError::io(op()))?;
        let mut buffer = vec![0; BUFFER];
        let mut at = 0;
        self.read = 0;
        loop {
            let part = self.part(&mut buffer, size)?;
            if part.is_empty() {
                return Ok(());
            }
            for block in part.chunks(BLOCK) {
                if block.iter().any(|b| *b != 0) {
                    file.write_all_at(block, at).map_err(BundleError::io(op()))?;
                    self.count_written(block.len())?;
                }
                at += block.len() as u64;
            }
        }
    }

    /// Writes the present member to `file`.
    fn write(&mut self, file: &File, size: u64, path: &Path) -> Result<(), BundleError> {
        let mut buffer = vec![0; BUFFER];
        let mut at = 0;
        self.read = 0;
        loop {
            let part = self.part(&mut buffer, size)?;
            if part.is_empty() {
                return Ok(());
            }
            file.write_all_at(part, at).map_err(BundleError::io(format!("write {}", path.display())))?;
            at += part.len() as u64;
            self.count_written(part.len())?;
        }
    }
}

/// What a kernel's bundle has become in a directory. Every directory above a member is one that was made here, so nothing is
/// ever written through a symlink.
struct Tree {
    root: PathBuf,
    /// Whether it is a directory.
    known: BTreeMap<String, bool>,
    bytes: u64,
}

impl Tree {
    fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), known: BTreeMap::new(), bytes: 0 }
    }

    fn has(&self, path: &str) -> bool {
        self.known.contains_key(path)
    }

    fn add(&mut self, member: &Member, archive: &mut Archive<'_>) -> Result<(), BundleError> {
        let Member { path, kind } = member;
        let bad = |why| BundleError::Member { path: path.clone(), why };
        for (end, _) in path.match_indices('/') {
            match self.known.get(&path[..end]) {
                Some(true) => {}
                Some(false) => return Err(bad("lies below what is no directory")),
                None => self.directory(&path[..end])?,
            }
        }
        let place = self.root.join(path);
        match (self.known.get(path.as_str()), kind) {
            // Written as a parent of another before.
            (Some(true), Kind::Directory) => return Ok(()),
            (Some(_), _) => return Err(bad("is there twice")),
            (None, Kind::Directory) => return self.directory(path),
            (None, Kind::File(size)) => {
                self.bytes = self.bytes.saturating_add(*size);
                if self.bytes > MAX_KERNEL {
                    return Err(BundleError::TooMuch("more than 8 GiB in it, which no kernel has"));
                }
                archive.write(&create(&place)?, *size, &place)?;
            }
            (None, Kind::Symlink(target)) => std::os::unix::fs::symlink(target, &place)
                .map_err(BundleError::io(format!("make {}", place.display())))?,
        }
        self.known.insert(path.clone(), false);
        Ok(())
    }

    fn directory(&mut self, path: &str) -> Result<(), BundleError> {
        let place = self.root.join(path);
        create_private_dir(&place).map_err(BundleError::io(format!("make {}", place.display())))?;
        self.known.insert(path.to_owned(), true);
        Ok(())
    }
}
