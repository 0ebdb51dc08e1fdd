//! An empty journal: its superblock, and zeros (kernel: Documentation/filesystems/ext4/journal.rst). Its numbers are big endian.

use crate::ext4::block::Block;
use crate::ext4::geometry::{BLOCK, BLOCK_BYTES};

/// Room for a journal that still serves when the file system has grown to many GiB: 16 MiB.
pub const BLOCKS: u64 = (16 << 20) / BLOCK;

const MAGIC: u32 = 0xc03b_3998;
const SUPERBLOCK_V2: u32 = 4;

/// The journal's first block.
pub fn superblock(uuid: &[u8; 16]) -> Block {
    let mut block = Block::new();
    let fields = [
        (0x00, MAGIC),
        (0x04, SUPERBLOCK_V2),
        (0x0c, BLOCK_BYTES as u32),
        (0x10, BLOCKS as u32),
        // The first block for the log, and its first sequence number; that it begins nowhere (0x1c) means that it is empty.
        (0x14, 1),
        (0x18, 1),
        // One file system uses it.
        (0x40, 1),
    ];
    for (offset, value) in fields {
        block.put(offset, &value.to_be_bytes());
    }
    block.put(0x30, uuid);
    block
}
