//! Extents: which blocks a file's contents lie in (kernel: Documentation/filesystems/ext4/ifork.rst, "Extent Tree").

use crate::ext4::block::{Block, put};
use crate::ext4::checksum::Checksum;
use crate::ext4::geometry::BLOCK_BYTES;
use crate::ext4::space::Run;

/// A part of a file that lies in one run of blocks; what no extent covers is zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first block, counted in the file.
    pub at: u32,
    pub len: u32,
    /// The first block, counted in the file system.
    pub start: u64,
}

impl Extent {
    pub fn run(self) -> Run {
        Run { start: self.start, len: u64::from(self.len) }
    }
}

/// The longest extent, in blocks: one bit of the field tells apart what is not initialised.
const MAX_LEN: u32 = 32_768;
const MAGIC: u16 = 0xf30a;
const ENTRY: usize = 12;
/// Entries in an inode, and in a block, which ends with a checksum.
const IN_INODE: usize = 4;
const IN_BLOCK: usize = (BLOCK_BYTES - ENTRY) / ENTRY;

/// Adds blocks behind those of a file, to the last extent where they continue it.
pub fn append(extents: &mut Vec<Extent>, at: u32, run: Run) {
    let (mut at, mut start, mut left) = (at, run.start, run.len);
    while left > 0 {
        let (len, place) = match extents.last_mut() {
            Some(last)
                if last.at + last.len == at
                    && last.start + u64::from(last.len) == start
                    && last.len < MAX_LEN =>
            {
                let len = left.min(u64::from(MAX_LEN - last.len)) as u32;
                (len, Some(last))
            }
            _ => (left.min(u64::from(MAX_LEN)) as u32, None),
        };
        match place {
            Some(last) => last.len += len,
            None => extents.push(Extent { at, len, start }),
        }
        at += len;
        start += u64::from(len);
        left -= u64::from(len);
    }
}

/// How many blocks the tree over `extents` takes beside the inode.
pub fn tree_blocks(extents: usize) -> u64 {
    let (mut sum, mut level) = (0, extents);
    while level > IN_INODE {
        level = level.div_ceil(IN_BLOCK);
        sum += level as u64;
    }
    sum
}

/// The inode's 60 bytes, and the blocks of the tree below them, which go to `blocks` in their order.
///
/// `inode` is what the checksums of that inode begin with; `blocks` are as many as [`tree_blocks`] says.
pub fn tree(extents: &[Extent], inode: Checksum, blocks: &[u64]) -> ([u8; 60], Vec<(u64, Block)>) {
    let mut made = vec![];
    let mut free = blocks.iter().copied();
    let mut depth = 0;
    let mut level: Vec<[u8; ENTRY]> = extents.iter().map(leaf).collect();
    let mut firsts: Vec<u32> = extents.iter().map(|e| e.at).collect();
    while level.len() > IN_INODE {
        let mut above = vec![];
        let mut above_firsts = vec![];
        for (entries, first) in level.chunks(IN_BLOCK).zip(firsts.chunks(IN_BLOCK)) {
            // As many as tree_blocks() counted.
            let Some(place) = free.next() else { break };
            let mut block = Block::new();
            fill(&mut *block.0, entries, IN_BLOCK, depth);
            let tail = ENTRY + IN_BLOCK * ENTRY;
            let sum = inode.add(&block.0[..tail]);
            block.put(tail, &sum.0.to_le_bytes());
            made.push((place, block));
            above.push(index(first[0], place));
            above_firsts.push(first[0]);
        }
        (level, firsts) = (above, above_firsts);
        depth += 1;
    }
    let mut root = [0; 60];
    fill(&mut root, &level, IN_INODE, depth);
    (root, made)
}

fn fill(buffer: &mut [u8], entries: &[[u8; ENTRY]], max: usize, depth: u16) {
    put(buffer, 0, &MAGIC.to_le_bytes());
    put(buffer, 2, &(entries.len() as u16).to_le_bytes());
    put(buffer, 4, &(max as u16).to_le_bytes());
    put(buffer, 6, &depth.to_le_bytes());
    for (i, entry) in entries.iter().enumerate() {
        put(buffer, ENTRY * (i + 1), entry);
    }
}

fn leaf(extent: &Extent) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    put(&mut entry, 0, &extent.at.to_le_bytes());
    put(&mut entry, 4, &(extent.len as u16).to_le_bytes());
    put(&mut entry, 6, &((extent.start >> 32) as u16).to_le_bytes());
    put(&mut entry, 8, &(extent.start as u32).to_le_bytes());
    entry
}

fn index(first: u32, block: u64) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    put(&mut entry, 0, &first.to_le_bytes());
    put(&mut entry, 4, &(block as u32).to_le_bytes());
    put(&mut entry, 8, &((block >> 32) as u16).to_le_bytes());
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_in_a_row_are_one_extent_up_to_its_longest() {
        let mut extents = vec![];
        append(&mut extents, 0, Run { start: 1000, len: 10 });
        append(&mut extents, 10, Run { start: 1010, len: 40_000 });
        append(&mut extents, 50_000, Run { start: 41_010, len: 1 });
        append(&mut extents, 50_001, Run { start: 5, len: 1 });
        let got: Vec<_> = extents.iter().map(|e| (e.at, e.len, e.start)).collect();
        assert_eq!(got, [(0, 32_768, 1000), (32_768, 7242, 33_768), (50_000, 1, 41_010), (50_001, 1, 5)]);
    }

    #[test]
    fn a_tree_takes_as_many_blocks_as_was_said() {
        for (extents, want) in [(0, 0), (4, 0), (5, 1), (340, 1), (341, 2), (1360, 4), (1361, 5 + 1)] {
            assert_eq!(tree_blocks(extents), want, "{extents}");
            let list: Vec<Extent> =
                (0..extents as u32).map(|n| Extent { at: 2 * n, len: 1, start: u64::from(3 * n) }).collect();
            let blocks: Vec<u64> = (0..want).collect();
            let (root, made) = tree(&list, Checksum::NEW, &blocks);
            assert_eq!(made.len() as u64, want);
            assert_eq!(root[..2], [0x0a, 0xf3]);
        }
    }
}
