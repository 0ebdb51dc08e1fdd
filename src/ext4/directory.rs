//! The blocks of a directory: a list of names in one block; where that is too small, blocks sorted by the hash of the names
//! below an index (kernel: Documentation/filesystems/ext4/directory.rst, "Hash Tree Directories").

use crate::ext4::block::{Block, put};
use crate::ext4::checksum::Checksum;
use crate::ext4::geometry::BLOCK_BYTES;
use crate::ext4::hash;

/// One name, and what it is of.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub name: &'a [u8],
    pub inode: u32,
    pub kind: FileType,
}

/// ext4's numbers for what an entry leads to (feature filetype).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    Regular = 1,
    Directory = 2,
    CharDevice = 3,
    BlockDevice = 4,
    Fifo = 5,
    Socket = 6,
    Symlink = 7,
}

/// The blocks of one directory, in order, without their checksums' places filled if there is no index.
pub struct Directory {
    pub blocks: Vec<Block>,
    pub indexed: bool,
}

const HEADER: usize = 8;
/// Each block of names ends with an entry for its checksum, which readers take for an unused name.
const TAIL: usize = 12;
const TAIL_TYPE: u8 = 0xde;
/// Room for names in a block.
const ROOM: usize = BLOCK_BYTES - TAIL;
/// Where the index begins in the first block, behind `.`, `..` and its header, and in the others.
const ROOT_INDEX: usize = 32;
const NODE_INDEX: usize = 8;
const INDEX_ENTRY: usize = 8;
const ROOT_LIMIT: usize = (BLOCK_BYTES - ROOT_INDEX - INDEX_ENTRY) / INDEX_ENTRY;
const NODE_LIMIT: usize = (BLOCK_BYTES - NODE_INDEX - INDEX_ENTRY) / INDEX_ENTRY;

/// The directory `inode` of `parent`; `sum` is what that inode's checksums begin with. None: no index is large enough.
pub fn build(
    inode: u32,
    parent: u32,
    entries: &[Entry<'_>],
    seed: &[u32; 4],
    sum: Checksum,
) -> Option<Directory> {
    let dots = [
        Entry { name: b".", inode, kind: FileType::Directory },
        Entry { name: b"..", inode: parent, kind: FileType::Directory },
    ];
    let bytes: usize = dots.iter().chain(entries).map(size).sum();
    if bytes <= ROOM {
        let block = names(dots.iter().chain(entries), sum);
        return Some(Directory { blocks: vec![block], indexed: false });
    }
    let mut hashed: Vec<(u32, &Entry<'_>)> = entries.iter().map(|e| (hash::of(e.name, seed), e)).collect();
    hashed.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.name.cmp(b.1.name)));
    let leaves = divide(&hashed);
    let nodes = if leaves.len() > ROOT_LIMIT { leaves.len().div_ceil(NODE_LIMIT) } else { 0 };
    if nodes > ROOT_LIMIT {
        return None;
    }
    let first_leaf = 1 + nodes as u32;
    let index: Vec<(u32, u32)> =
        leaves.iter().enumerate().map(|(i, leaf)| (leaf.0, first_leaf + i as u32)).collect();
    let mut blocks = vec![];
    if nodes == 0 {
        blocks.push(root(&dots, 0, &index, sum));
    } else {
        let upper: Vec<(u32, u32)> =
            index.chunks(NODE_LIMIT).enumerate().map(|(i, chunk)| (chunk[0].0, 1 + i as u32)).collect();
        blocks.push(root(&dots, 1, &upper, sum));
        blocks.extend(index.chunks(NODE_LIMIT).map(|chunk| node(chunk, sum)));
    }
    blocks.extend(leaves.iter().map(|(_, leaf)| names(leaf.iter().map(|(_, e)| *e), sum)));
    Some(Directory { blocks, indexed: true })
}

/// An entry's bytes in a block.
fn size(entry: &Entry<'_>) -> usize {
    (HEADER + entry.name.len()).next_multiple_of(4)
}

type Hashed<'a> = (u32, &'a Entry<'a>);

/// Cuts the sorted names into blocks. Each comes with its key: its lowest hash, and 1 where that hash began in the block before.
fn divide<'a, 'h>(hashed: &'h [Hashed<'a>]) -> Vec<(u32, &'h [Hashed<'a>])> {
    let mut leaves = vec![];
    let (mut begin, mut used) = (0, 0);
    let mut cut = |begin: usize, end: usize| {
        let continues = begin > 0 && hashed[begin - 1].0 == hashed[begin].0;
        // Everything below the second key is looked for in the first block.
        let key = if begin == 0 { 0 } else { hashed[begin].0 | u32::from(continues) };
        leaves.push((key, &hashed[begin..end]));
    };
    for (i, (_, entry)) in hashed.iter().enumerate() {
        if used + size(entry) > ROOM {
            cut(begin, i);
            (begin, used) = (i, 0);
        }
        used += size(entry);
    }
    cut(begin, hashed.len());
    leaves
}

/// A block of names.
fn names<'a>(entries: impl Iterator<Item = &'a Entry<'a>>, sum: Checksum) -> Block {
    let mut block = Block::new();
    let (mut at, mut last) = (0, 0);
    for entry in entries {
        last = at;
        put_entry(&mut block, at, size(entry), entry);
        at += size(entry);
    }
    // The last entry reaches to the tail; in an empty block one without an inode does.
    put(&mut *block.0, last + 4, &((ROOM - last) as u16).to_le_bytes());
    put(&mut *block.0, ROOM + 4, &(TAIL as u16).to_le_bytes());
    block.0[ROOM + 7] = TAIL_TYPE;
    let sum = sum.add(&block.0[..ROOM]);
    put(&mut *block.0, ROOM + 8, &sum.0.to_le_bytes());
    block
}

fn put_entry(block: &mut Block, at: usize, len: usize, entry: &Entry<'_>) {
    block.put(at, &entry.inode.to_le_bytes());
    block.put(at + 4, &(len as u16).to_le_bytes());
    block.0[at + 6] = entry.name.len() as u8;
    block.0[at + 7] = entry.kind as u8;
    block.put(at + HEADER, entry.name);
}

/// The first block of an indexed directory; a reader without the feature sees `.`, and `..` to its end.
fn root(dots: &[Entry<'_>; 2], levels: u8, index: &[(u32, u32)], sum: Checksum) -> Block {
    let mut block = Block::new();
    put_entry(&mut block, 0, TAIL, &dots[0]);
    put_entry(&mut block, TAIL, BLOCK_BYTES - TAIL, &dots[1]);
    // Reserved, the hash, this header's length, the levels below.
    block.put(24, &[0, 0, 0, 0, hash::HALF_MD4, 8, levels, 0]);
    put_index(&mut block, ROOT_INDEX, ROOT_LIMIT, index, sum);
    block
}

/// A block of the index that is not the first.
fn node(index: &[(u32, u32)], sum: Checksum) -> Block {
    let mut block = Block::new();
    // One unused name over all of it.
    block.put(4, &(BLOCK_BYTES as u16).to_le_bytes());
    put_index(&mut block, NODE_INDEX, NODE_LIMIT, index, sum);
    block
}

/// The index's entries; the first one's key is implied, and its place holds how many there may be and are.
fn put_index(block: &mut Block, at: usize, limit: usize, index: &[(u32, u32)], sum: Checksum) {
    for (i, (key, target)) in index.iter().enumerate() {
        block.put(at + i * INDEX_ENTRY, &key.to_le_bytes());
        block.put(at + i * INDEX_ENTRY + 4, &target.to_le_bytes());
    }
    block.put(at, &(limit as u16).to_le_bytes());
    block.put(at + 2, &(index.len() as u16).to_le_bytes());
    // The used part, then the tail, whose own field counts as zeros.
    let sum = sum.add(&block.0[..at + index.len() * INDEX_ENTRY]).add(&[0; 8]);
    block.put(at + limit * INDEX_ENTRY + 4, &sum.0.to_le_bytes());
}
