//! The tree becomes an ext4 file by way of a private directory and `mke2fs -d`.
//!
//! The directory is filled from the tree through descriptors: each name is made new in a directory that was itself just
//! made, and nothing is followed, so a hostile name or symlink stays a name or a symlink.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::ext4::spool::{Spool, fresh_name};
use crate::ext4::tree::{Content, InodeId, Kind, Meta, Tree};
use crate::host::cmd::{self, CmdError};
use crate::host::files::{remove_if_present, remove_tree_if_present};
use crate::host::progress::Progress;
use crate::host::undo::Undo;

const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;
/// Room for a journal that still serves when the file system has grown to many GiB.
const JOURNAL_MIB: u64 = 16;
/// Descriptors are reserved so that it can grow to this online.
const GROWS_TO: u64 = 1 << 40;
/// One block holds an inode's extended attributes, less its headers; the kernel of a guest may lack the ea_inode feature.
const MAX_XATTRS: usize = 3900;

/// What every kernel since 4.4 mounts and grows online.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,\
                        large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// Why there is no file.
#[derive(Debug)]
pub enum WriteError {
    /// mke2fs is not installed.
    NoMke2fs(CmdError),
    Mke2fs(CmdError),
    /// An inode has more extended attributes than ext4 keeps.
    Xattrs {
        name: String,
    },
    Cancelled,
    Io {
        op: String,
        source: io::Error,
    },
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMke2fs(_) => f.write_str("mke2fs is missing; install the package e2fsprogs"),
            Self::Mke2fs(_) => f.write_str("cannot make the ext4 file system"),
            Self::Xattrs { name } => {
                write!(f, "'{name}' has more extended attributes than ext4 can keep ({MAX_XATTRS} bytes)")
            }
            Self::Cancelled => f.write_str("cancelled"),
            Self::Io { op, .. } => write!(f, "cannot {op}"),
        }
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoMke2fs(e) | Self::Mke2fs(e) => Some(e),
            Self::Io { source, .. } => Some(source),
            Self::Xattrs { .. } | Self::Cancelled => None,
        }
    }
}

/// Writes the tree as an ext4 file system to the new file `out`, which is sparse. Uses a directory beside it for a while.
///
/// On an error neither is left. Run by a plain user, files belong to that user and devices are missing; `progress` is told.
pub fn write(tree: &Tree, spool: &Spool, out: &Path, progress: &dyn Progress) -> Result<(), WriteError> {
    let directory = out.with_file_name(fresh_name("tree"));
    // Undone in any case: on success the directory is no longer needed either.
    let mut scratch = Undo::default();
    let mode = Mode::RWXU;
    rustix::fs::mkdir(&directory, mode).map_err(io_error("make a directory"))?;
    let doomed = directory.clone();
    scratch.push(format!("directory {}", directory.display()), move || remove_tree_if_present(&doomed));
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(&directory, flags, Mode::empty()).map_err(io_error("open a directory"))?;
    let mut unpack =
        Unpack { tree, spool, root: &root, linked: HashMap::new(), lost: Lost::default(), progress };
    unpack.fill(InodeId::ROOT, root.as_fd(), &mut vec![])?;
    unpack.lost.tell(progress);

    let mut made = Undo::default();
    let file = File::options()
        .write(true)
        .create_new(true)
        .open(out)
        .map_err(|e| io_failed("create the file", e))?;
    let doomed: PathBuf = out.to_owned();
    made.push(format!("file {}", out.display()), move || remove_if_present(&doomed));
    let room = Room::of(tree);
    file.set_len(room.bytes).map_err(|e| io_failed("size the file", e))?;
    if progress.cancelled() {
        return Err(WriteError::Cancelled);
    }
    let uuid = uuid(tree);
    let (inodes, journal) = (room.inodes.to_string(), format!("size={JOURNAL_MIB}"));
    let extended = format!(
        "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner={}:{},hash_seed={uuid},resize={}",
        tree.get(InodeId::ROOT).meta.uid,
        tree.get(InodeId::ROOT).meta.gid,
        GROWS_TO / BLOCK
    );
    let time = newest(tree).to_string();
    let args = [
        "-q".as_ref(),
        "-F".as_ref(),
        "-t".as_ref(),
        "ext4".as_ref(),
        "-b".as_ref(),
        "4096".as_ref(),
        "-I".as_ref(),
        "256".as_ref(),
        "-m".as_ref(),
        "0".as_ref(),
        "-N".as_ref(),
        inodes.as_ref(),
        "-O".as_ref(),
        FEATURES.as_ref(),
        "-J".as_ref(),
        journal.as_ref(),
        "-U".as_ref(),
        uuid.as_ref(),
        "-E".as_ref(),
        extended.as_ref(),
        "-d".as_ref(),
        directory.as_os_str(),
        out.as_os_str(),
    ];
    cmd::run_with("mke2fs", args, &[("E2FSPROGS_FAKE_TIME", &time)]).map_err(|e| match e {
        CmdError::Spawn { ref source, .. } if source.kind() == io::ErrorKind::NotFound => {
            WriteError::NoMke2fs(e)
        }
        _ => WriteError::Mke2fs(e),
    })?;
    made.commit();
    Ok(())
}

/// How large the file system is to be.
struct Room {
    bytes: u64,
    inodes: u64,
}

impl Room {
    fn of(tree: &Tree) -> Self {
        let mut used = 0;
        let mut count = 0;
        visit(tree, InodeId::ROOT, &mut |id| {
            count += 1;
            let inode = tree.get(id);
            used += match &inode.kind {
                // An entry takes 8 bytes and its name, rounded up; blocks are filled to about three quarters.
                Kind::Directory(entries) => {
                    let bytes: usize = entries.keys().map(|name| 8 + name.len().next_multiple_of(4)).sum();
                    (bytes as u64 * 4 / 3).div_ceil(BLOCK) + 1
                }
                Kind::File(content) => {
                    // A piece may begin and end within a block; a tree of extents has 340 in a block.
                    let data: u64 = content.pieces.iter().map(|p| p.len.div_ceil(BLOCK) + 1).sum();
                    data + content.pieces.len() as u64 / 300
                }
                Kind::Symlink(target) => u64::from(target.len() > 59),
                _ => 0,
            };
            used += u64::from(!inode.meta.xattrs.is_empty());
        });
        let inodes = count + count / 4 + 1024;
        let data = used * BLOCK;
        let bytes = data + data / 5 + inodes * 256 + (64 + JOURNAL_MIB) * MIB;
        // mke2fs's own measure, an inode to 16 KiB, so that a disk that grows gets enough of them for its size.
        Self { bytes: bytes.next_multiple_of(MIB), inodes: inodes.max(bytes / 16_384) }
    }
}

/// Calls `f` once for each inode, parents first.
fn visit(tree: &Tree, id: InodeId, f: &mut impl FnMut(InodeId)) {
    let mut seen = std::collections::HashSet::new();
    let mut todo = vec![id];
    while let Some(id) = todo.pop() {
        if seen.insert(id) {
            f(id);
            todo.extend(tree.entries(id).values().map(|name| name.inode));
        }
    }
}

/// The time that mke2fs stamps: that of the newest file, so that it depends on the content alone.
fn newest(tree: &Tree) -> i64 {
    let mut newest = 1;
    visit(tree, InodeId::ROOT, &mut |id| newest = newest.max(tree.get(id).meta.mtime.seconds));
    newest.min(i64::from(u32::MAX))
}

/// A UUID made from the names, kinds and attributes of all files (RFC 9562, version 8).
fn uuid(tree: &Tree) -> String {
    let mut hasher = blake3::Hasher::new();
    visit(tree, InodeId::ROOT, &mut |id| {
        let inode = tree.get(id);
        hasher.update(format!("{:?}", inode.meta).as_bytes());
        match &inode.kind {
            Kind::Directory(entries) => {
                for name in entries.keys() {
                    hasher.update(name).update(b"/");
                }
            }
            Kind::File(content) => {
                hasher.update(&content.size.to_le_bytes());
            }
            Kind::Symlink(target) => {
                hasher.update(target);
            }
            other => {
                hasher.update(format!("{other:?}").as_bytes());
            }
        }
    });
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    id[6] = 0x80 | id[6] & 0x0f;
    id[8] = 0x80 | id[8] & 0x3f;
    let hex: String = id.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// What this user may not do.
#[derive(Default)]
struct Lost {
    owners: bool,
    devices: bool,
    xattrs: bool,
}

impl Lost {
    fn tell(&self, progress: &dyn Progress) {
        let words =
            [(self.owners, "owners"), (self.devices, "devices"), (self.xattrs, "extended attributes")];
        let lost: Vec<&str> = words.into_iter().filter_map(|(lost, word)| lost.then_some(word)).collect();
        if !lost.is_empty() {
            progress.note(&format!("{} of the image's files are not kept: that takes root", lost.join(", ")));
        }
    }
}

struct Unpack<'a> {
    tree: &'a Tree,
    spool: &'a Spool,
    root: &'a OwnedFd,
    /// Where the first name of an inode with several is.
    linked: HashMap<InodeId, Vec<Vec<u8>>>,
    lost: Lost,
    progress: &'a dyn Progress,
}

impl Unpack<'_> {
    /// Fills `directory`, which is `id`'s and open as `fd`, then gives it its attributes: filling it changes its time.
    fn fill(
        &mut self,
        id: InodeId,
        fd: rustix::fd::BorrowedFd<'_>,
        path: &mut Vec<Vec<u8>>,
    ) -> Result<(), WriteError> {
        let tree = self.tree;
        for (name, entry) in tree.entries(id) {
            if self.progress.cancelled() {
                return Err(WriteError::Cancelled);
            }
            path.push(name.clone());
            self.make(entry.inode, fd, name, path)?;
            path.pop();
        }
        let meta = &tree.get(id).meta;
        let mode = if rustix::process::geteuid().is_root() { meta.mode } else { meta.mode | 0o700 };
        self.dress(fd, meta, mode)
    }

    fn make(
        &mut self,
        id: InodeId,
        parent: rustix::fd::BorrowedFd<'_>,
        name: &[u8],
        path: &mut Vec<Vec<u8>>,
    ) -> Result<(), WriteError> {
        if self.tree.names(id) > 1 && !self.tree.is_directory(id) {
            if let Some(first) = self.linked.get(&id) {
                return self.link(first, parent, name);
            }
            self.linked.insert(id, path.clone());
        }
        let tree = self.tree;
        let inode = tree.get(id);
        let shown = || shown(path);
        let xattrs: usize =
            inode.meta.xattrs.iter().map(|(n, v)| 16 + n.len() + v.len().next_multiple_of(4)).sum();
        if xattrs > MAX_XATTRS {
            return Err(WriteError::Xattrs { name: shown() });
        }
        let fail = |op: &str| {
            let op = format!("{op} '{}'", shown());
            move |e: Errno| WriteError::Io { op, source: e.into() }
        };
        match &inode.kind {
            Kind::Directory(_) => {
                rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(fail("make directory"))?;
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(fail("open"))?;
                self.fill(id, fd.as_fd(), path)
            }
            Kind::File(content) => {
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mode = Mode::RUSR | Mode::WUSR;
                let fd = rustix::fs::openat(parent, name, flags, mode).map_err(fail("create"))?;
                let file = File::from(fd);
                self.copy(content, &file)
                    .map_err(|source| WriteError::Io { op: format!("write '{}'", shown()), source })?;
                let root = rustix::process::geteuid().is_root();
                let mode = if root { inode.meta.mode } else { inode.meta.mode | 0o400 };
                self.dress(file.as_fd(), &inode.meta, mode)
            }
            Kind::Symlink(target) => {
                rustix::fs::symlinkat(target.as_slice(), parent, name).map_err(fail("make symlink"))?;
                self.dress_by_name(parent, name, &inode.meta, None)
            }
            Kind::Fifo => {
                self.node(parent, name, &inode.meta, FileType::Fifo, 0).map_err(fail("make fifo"))?;
                self.dress_by_name(parent, name, &inode.meta, Some(inode.meta.mode))
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                let block = matches!(inode.kind, Kind::BlockDevice { .. });
                let kind = if block { FileType::BlockDevice } else { FileType::CharacterDevice };
                match self.node(parent, name, &inode.meta, kind, rustix::fs::makedev(*major, *minor)) {
                    Ok(()) => self.dress_by_name(parent, name, &inode.meta, Some(inode.meta.mode)),
                    // No plain user may make a device, nor root in most containers.
                    Err(Errno::PERM) => {
                        self.lost.devices = true;
                        // A further name has nothing to be linked to.
                        self.linked.remove(&id);
                        Ok(())
                    }
                    Err(e) => Err(fail("make device")(e)),
                }
            }
        }
    }

    fn node(
        &self,
        parent: rustix::fd::BorrowedFd<'_>,
        name: &[u8],
        meta: &Meta,
        kind: FileType,
        device: u64,
    ) -> Result<(), Errno> {
        rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(u32::from(meta.mode)), device)
    }

    fn copy(&self, content: &Content, file: &File) -> io::Result<()> {
        file.set_len(content.size)?;
        let mut buffer = vec![0; 256 << 10];
        for piece in &content.pieces {
            let mut done = 0;
            while done < piece.len {
                let wanted = buffer.len().min(usize::try_from(piece.len - done).unwrap_or(usize::MAX));
                let n = self.spool.read(&mut buffer[..wanted], piece.offset + done)?;
                if n == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if buffer[..n].iter().any(|b| *b != 0) {
                    file.write_all_at(&buffer[..n], piece.at + done)?;
                }
                done += n as u64;
            }
        }
        Ok(())
    }

    /// Makes a further name of what is at `first` already.
    fn link(
        &self,
        first: &[Vec<u8>],
        parent: rustix::fd::BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), WriteError> {
        let failed = io_error(format!("link '{}'", shown(first)));
        let walk = || -> Result<(), Errno> {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut at = rustix::io::fcntl_dupfd_cloexec(self.root, 0)?;
            let Some((last, parents)) = first.split_last() else { return Err(Errno::NOENT) };
            for part in parents {
                at = rustix::fs::openat(&at, part.as_slice(), flags, Mode::empty())?;
            }
            rustix::fs::linkat(&at, last.as_slice(), parent, name, AtFlags::empty())
        };
        walk().map_err(failed)
    }

    /// Sets the attributes of an open file or directory. The owner comes first, since a change of it clears the rest.
    fn dress(&mut self, fd: rustix::fd::BorrowedFd<'_>, meta: &Meta, mode: u16) -> Result<(), WriteError> {
        self.own(rustix::fs::fchown(fd, uid(meta), gid(meta)))?;
        for (name, value) in &meta.xattrs {
            self.kept(rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()))?;
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(u32::from(mode))).map_err(io_error("set a mode"))?;
        rustix::fs::futimens(fd, &times(meta)).map_err(io_error("set a time"))
    }

    /// The same for what cannot be opened.
    fn dress_by_name(
        &mut self,
        parent: rustix::fd::BorrowedFd<'_>,
        name: &[u8],
        meta: &Meta,
        mode: Option<u16>,
    ) -> Result<(), WriteError> {
        self.own(rustix::fs::chownat(parent, name, uid(meta), gid(meta), AtFlags::SYMLINK_NOFOLLOW))?;
        if !meta.xattrs.is_empty() {
            let mut path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
            path.push(std::ffi::OsStr::from_bytes(name));
            for (name, value) in &meta.xattrs {
                self.kept(rustix::fs::lsetxattr(&path, name.as_slice(), value, XattrFlags::empty()))?;
            }
        }
        if let Some(mode) = mode {
            // Only what was just made here, and is no symlink, comes this way.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(u32::from(mode)), AtFlags::empty())
                .map_err(io_error("set a mode"))?;
        }
        rustix::fs::utimensat(parent, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io_error("set a time"))
    }

    fn own(&mut self, done: Result<(), Errno>) -> Result<(), WriteError> {
        match done {
            Ok(()) => Ok(()),
            // A plain user; or root of a user namespace that has no such user.
            Err(Errno::PERM | Errno::INVAL) => {
                self.lost.owners = true;
                Ok(())
            }
            Err(e) => Err(io_error("set an owner")(e)),
        }
    }

    fn kept(&mut self, done: Result<(), Errno>) -> Result<(), WriteError> {
        match done {
            Ok(()) => Ok(()),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => {
                self.lost.xattrs = true;
                Ok(())
            }
            Err(e) => Err(io_error("set an extended attribute")(e)),
        }
    }
}

fn uid(meta: &Meta) -> Option<Uid> {
    Some(Uid::from_raw(meta.uid))
}

fn gid(meta: &Meta) -> Option<Gid> {
    Some(Gid::from_raw(meta.gid))
}

fn times(meta: &Meta) -> Timestamps {
    // What ext4 keeps in 34 bits, from 1901 to 2446.
    let seconds = meta.mtime.seconds.clamp(-(1 << 31), (1 << 34) - (1 << 31) - 1);
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(meta.mtime.nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

fn shown(path: &[Vec<u8>]) -> String {
    path.join(&b"/"[..]).escape_ascii().to_string()
}

fn io_error(op: impl Into<String>) -> impl FnOnce(Errno) -> WriteError {
    let op = op.into();
    move |e| WriteError::Io { op, source: e.into() }
}

fn io_failed(op: &str, source: io::Error) -> WriteError {
    WriteError::Io { op: op.to_owned(), source }
}
