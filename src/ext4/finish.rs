//! From a tree whose contents are in the image to a file system: inodes get their numbers, directories their blocks, and the
//! tables, of which everything is known by then, are written behind them.
//!
//! Everything is decided by the tree and the seed alone, so the same ones give the same bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;

use crate::ext4::block::{Block, put};
use crate::ext4::checksum::Checksum;
use crate::ext4::directory::{self, Entry, FileType};
use crate::ext4::extent::{self, Extent};
use crate::ext4::geometry::{BLOCK, FIRST_INODE};
use crate::ext4::image::Image;
use crate::ext4::inode::{self, Fields};
use crate::ext4::space::{Run, Space};
use crate::ext4::tables::{Encoded, Reserved, Tables};
use crate::ext4::tree::{Inode, InodeId, Kind, Meta, Time, Tree};
use crate::ext4::xattr::{BadXattr, Xattrs};
use crate::ext4::{journal, resize};

const MIB: u64 = 1 << 20;
/// Room beside what is there, so that a guest can work on a disk that is no larger than its image: a fifth, and this.
const ROOM: u64 = 64 * MIB;
const ROOT_INODE: u32 = 2;
/// A symlink of fewer bytes lies in its inode.
const FAST_SYMLINK: usize = 60;

/// Why there is no file system.
#[derive(Debug)]
pub enum WriteError {
    /// More than the descriptors have room for.
    TooLarge,
    /// A directory with more names than an index holds.
    Directory {
        entries: usize,
    },
    Xattrs(BadXattr),
    Cancelled,
    /// The disk is full, or broken.
    Io(io::Error),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("it takes more than 1 TiB"),
            Self::Directory { entries } => {
                write!(f, "a directory with {entries} entries is larger than ext4 can index")
            }
            Self::Xattrs(bad) => write!(f, "a file of it {}", bad.why()),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Io(_) => f.write_str("cannot write the file"),
        }
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(e) => Some(e),
            Self::TooLarge | Self::Directory { .. } | Self::Xattrs(_) | Self::Cancelled => None,
        }
    }
}

impl From<io::Error> for WriteError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// What the UUID and the hashes of names come from; the same content should have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

/// What is as the seed says.
pub struct Identity {
    pub uuid: [u8; 16],
    pub hash_seed: [u32; 4],
    pub sum: Checksum,
}

impl Identity {
    /// A UUID of version 8, made from what the vendor likes (RFC 9562, 5.8).
    pub fn of(Seed(seed): Seed) -> Self {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&seed[..16]);
        uuid[6] = 0x80 | uuid[6] & 0x0f;
        uuid[8] = 0x80 | uuid[8] & 0x3f;
        let word = |i: usize| u32::from_le_bytes([seed[i], seed[i + 1], seed[i + 2], seed[i + 3]]);
        Self { uuid, hash_seed: [16, 20, 24, 28].map(word), sum: Checksum::of_uuid(&uuid) }
    }
}

/// Makes `image` a file system of at least `min_bytes` bytes that holds `tree`, whose contents are in it. The file that
/// comes back is sparse and not synced.
pub fn finish(
    mut image: Image,
    mut tree: Tree,
    seed: Seed,
    min_bytes: u64,
    cancelled: &dyn Fn() -> bool,
) -> Result<File, WriteError> {
    add_lost_and_found(&mut tree);
    let identity = Identity::of(seed);
    let numbers = Numbers::of(&tree);
    let mut bodies = BTreeMap::new();
    for (number, id, parent) in numbers.all() {
        if cancelled() {
            return Err(WriteError::Cancelled);
        }
        if let Some(body) = body(&mut image, &tree, &numbers, &identity, (number, id, parent))? {
            bodies.insert(number, body);
        }
    }
    let reserved = reserve(&mut image);
    let count = u64::from(numbers.last());
    let room = room(&image.space);
    let tables = Tables::place(&mut image.space, room, min_bytes.div_ceil(BLOCK), count + count / 4 + 1024)
        .ok_or(WriteError::TooLarge)?;
    image.put(reserved.journal[0].start, &*journal::superblock(&identity.uuid).0)?;
    resize::write(&mut image, &tables.geometry, reserved.resize)?;
    let none = Body::default();
    let encode = |number: u32| {
        let id = numbers.get(number)?;
        let sum = identity.sum.of_inode(number);
        Some(encode(&tree, id, bodies.get(&number).unwrap_or(&none), sum))
    };
    tables.write(&mut image, &identity, &reserved, numbers.last(), &encode)?;
    Ok(image.close(tables.geometry.blocks)?)
}

/// e2fsck wants the directory to be there before it is needed.
fn add_lost_and_found(tree: &mut Tree) {
    const NAME: &[u8] = b"lost+found";
    if tree.lookup(InodeId::ROOT, NAME).is_none() {
        let meta = Meta { mode: 0o700, mtime: Time { seconds: 1, nanoseconds: 0 }, ..Meta::default() };
        tree.insert(InodeId::ROOT, NAME, Inode { meta, kind: Kind::Directory(BTreeMap::new()) }, 0);
    }
}

/// The numbers of all inodes: those of a directory follow one another, level by level.
struct Numbers {
    /// By [`InodeId::index`]; 0: none.
    numbers: Vec<u32>,
    /// From [`FIRST_INODE`] on, each with the number of the directory that has its first name.
    order: Vec<(InodeId, u32)>,
}

impl Numbers {
    fn of(tree: &Tree) -> Self {
        let mut all = Self { numbers: vec![0; tree.slots()], order: vec![] };
        all.numbers[InodeId::ROOT.index()] = ROOT_INODE;
        all.add_children(tree, InodeId::ROOT, ROOT_INODE);
        let mut done = 0;
        while let Some(&(id, _)) = all.order.get(done) {
            all.add_children(tree, id, FIRST_INODE + done as u32);
            done += 1;
        }
        all
    }

    fn add_children(&mut self, tree: &Tree, directory: InodeId, number: u32) {
        for name in tree.entries(directory).values() {
            let place = &mut self.numbers[name.inode.index()];
            if *place == 0 {
                *place = FIRST_INODE + self.order.len() as u32;
                self.order.push((name.inode, number));
            }
        }
    }

    fn number(&self, id: InodeId) -> u32 {
        self.numbers[id.index()]
    }

    /// The inode of this number.
    fn get(&self, number: u32) -> Option<InodeId> {
        if number == ROOT_INODE {
            return Some(InodeId::ROOT);
        }
        self.order.get(number.checked_sub(FIRST_INODE)? as usize).map(|(id, _)| *id)
    }

    fn last(&self) -> u32 {
        FIRST_INODE - 1 + self.order.len() as u32
    }

    fn all(&self) -> impl Iterator<Item = (u32, InodeId, u32)> {
        let rest = self.order.iter().enumerate();
        let rest = rest.map(|(i, (id, parent))| (FIRST_INODE + i as u32, *id, *parent));
        std::iter::once((ROOT_INODE, InodeId::ROOT, ROOT_INODE)).chain(rest)
    }
}

/// What an inode has in blocks beside a file's contents.
#[derive(Debug, Clone, Default)]
struct Body {
    /// Of a directory or a long symlink.
    extents: Vec<Extent>,
    indexed: bool,
    /// Of the tree of extents.
    tree: Vec<u64>,
    xattrs: u64,
}

/// Writes the blocks that an inode has beside a file's contents; None: it has none.
fn body(
    image: &mut Image,
    tree: &Tree,
    numbers: &Numbers,
    identity: &Identity,
    (number, id, parent): (u32, InodeId, u32),
) -> Result<Option<Body>, WriteError> {
    let inode = tree.get(id);
    let sum = identity.sum.of_inode(number);
    let mut body = Body::default();
    match &inode.kind {
        Kind::Directory(names) => {
            let entries: Vec<Entry<'_>> = names
                .iter()
                .map(|(name, entry)| Entry {
                    name,
                    inode: numbers.number(entry.inode),
                    kind: file_type(&tree.get(entry.inode).kind),
                })
                .collect();
            let built = directory::build(number, parent, &entries, &identity.hash_seed, sum)
                .ok_or(WriteError::Directory { entries: entries.len() })?;
            body.indexed = built.indexed;
            body.extents = store(image, &built.blocks)?;
        }
        Kind::Symlink(target) if target.len() >= FAST_SYMLINK => {
            let mut block = Block::new();
            block.put(0, target);
            body.extents = store(image, &[block])?;
        }
        _ => {}
    }
    let extents = extents(&inode.kind, &body);
    let mut tree_blocks = vec![];
    image.space.take(extent::tree_blocks(extents.len()), |run| tree_blocks.extend(run.start..run.end()));
    for (place, block) in extent::tree(extents, sum, &tree_blocks).1 {
        image.put(place, &*block.0)?;
    }
    body.tree = tree_blocks;
    if !inode.meta.xattrs.is_empty() {
        let xattrs = Xattrs::divide(&inode.meta.xattrs).map_err(WriteError::Xattrs)?;
        if xattrs.needs_block() {
            body.xattrs = image.space.take_run(1).start;
            image.put(body.xattrs, &*xattrs.block(body.xattrs, identity.sum).0)?;
        }
    }
    let empty = body.extents.is_empty() && body.tree.is_empty() && body.xattrs == 0;
    Ok((!empty).then_some(body))
}

fn extents<'a>(kind: &'a Kind, body: &'a Body) -> &'a [Extent] {
    match kind {
        Kind::File(content) => &content.extents,
        _ => &body.extents,
    }
}

fn store(image: &mut Image, blocks: &[Block]) -> Result<Vec<Extent>, WriteError> {
    let mut runs = vec![];
    image.space.take(blocks.len() as u64, |run| runs.push(run));
    let places = runs.iter().flat_map(|run: &Run| run.start..run.end());
    for (place, block) in places.zip(blocks) {
        image.put(place, &*block.0)?;
    }
    let mut extents = vec![];
    runs.into_iter().for_each(|run| append(&mut extents, run));
    Ok(extents)
}

/// Takes the blocks of the inodes that no name leads to.
fn reserve(image: &mut Image) -> Reserved {
    let resize = image.space.take_run(1).start;
    let mut journal: Vec<Extent> = vec![];
    image.space.take(journal::BLOCKS, |run| append(&mut journal, run));
    Reserved { journal, resize }
}

/// Adds blocks to what has no holes.
fn append(extents: &mut Vec<Extent>, run: Run) {
    let at = extents.iter().map(|e| e.len).sum();
    extent::append(extents, at, run);
}

/// How many blocks are to be free behind those that are taken.
fn room(space: &Space) -> u64 {
    let free = space.free_blocks();
    let used = space.end() - free;
    (used / 5 + ROOM / BLOCK).saturating_sub(free)
}

/// The inode as it stands in the table.
fn encode(tree: &Tree, id: InodeId, body: &Body, sum: Checksum) -> Encoded {
    let inode = tree.get(id);
    let extents = extents(&inode.kind, body);
    let data: u64 = extents.iter().map(|e| u64::from(e.len)).sum();
    let mapped = || extent::tree(extents, sum, &body.tree).0;
    let no_flags = 0;
    let (kind, flags, size, content) = match &inode.kind {
        Kind::Directory(_) => {
            let flags = if body.indexed { inode::EXTENTS | inode::INDEX } else { inode::EXTENTS };
            (inode::DIRECTORY, flags, data * BLOCK, mapped())
        }
        Kind::File(content) => (inode::REGULAR, inode::EXTENTS, content.size, mapped()),
        Kind::Symlink(target) if body.extents.is_empty() => {
            let mut text = [0; 60];
            put(&mut text, 0, target);
            (inode::SYMLINK, no_flags, target.len() as u64, text)
        }
        Kind::Symlink(target) => (inode::SYMLINK, inode::EXTENTS, target.len() as u64, mapped()),
        Kind::CharDevice { major, minor } => (inode::CHAR_DEVICE, no_flags, 0, inode::device(*major, *minor)),
        Kind::BlockDevice { major, minor } => {
            (inode::BLOCK_DEVICE, no_flags, 0, inode::device(*major, *minor))
        }
        Kind::Fifo => (inode::FIFO, no_flags, 0, [0; 60]),
        Kind::Socket => (inode::SOCKET, no_flags, 0, [0; 60]),
    };
    let fields = Fields {
        mode: kind | inode.meta.mode & 0o7777,
        uid: inode.meta.uid,
        gid: inode.meta.gid,
        links: links(tree, id),
        size,
        blocks: data + body.tree.len() as u64 + u64::from(body.xattrs != 0),
        flags,
        body: content,
        time: inode.meta.mtime,
        xattr_block: body.xattrs,
    };
    // They were divided once already, for their block.
    let xattrs = Xattrs::divide(&inode.meta.xattrs).unwrap_or_default();
    (fields.encode(&xattrs, sum), kind == inode::DIRECTORY)
}

/// A directory has a link from its parent, its own `.`, and the `..` of each directory in it.
fn links(tree: &Tree, id: InodeId) -> u32 {
    if !tree.is_directory(id) {
        return tree.names(id);
    }
    let below = tree.entries(id).values().filter(|name| tree.is_directory(name.inode)).count();
    2 + below as u32
}

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::Directory(_) => FileType::Directory,
        Kind::File(_) => FileType::Regular,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::CharDevice { .. } => FileType::CharDevice,
        Kind::BlockDevice { .. } => FileType::BlockDevice,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
    }
}
