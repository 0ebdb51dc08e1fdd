//! The superblock and a group's descriptor (kernel: Documentation/filesystems/ext4/super.rst, group_descr.rst).

use crate::ext4::block::{halves, put};
use crate::ext4::checksum::Checksum;
use crate::ext4::geometry::{BLOCKS_PER_GROUP, DESCRIPTOR_BYTES, FIRST_INODE, Geometry, INODE_BYTES};
use crate::ext4::hash;

pub const SUPERBLOCK_BYTES: usize = 1024;
pub const JOURNAL_INODE: u32 = 8;

/// What every kernel since 4.4 mounts and grows online.
const COMPATIBLE: u32 = HAS_JOURNAL | EXT_ATTR | RESIZE_INODE | DIR_INDEX;
const HAS_JOURNAL: u32 = 0x4;
const EXT_ATTR: u32 = 0x8;
const RESIZE_INODE: u32 = 0x10;
const DIR_INDEX: u32 = 0x20;
const INCOMPATIBLE: u32 = FILETYPE | EXTENTS | SIXTY_FOUR_BIT | FLEX_BG;
const FILETYPE: u32 = 0x2;
const EXTENTS: u32 = 0x40;
const SIXTY_FOUR_BIT: u32 = 0x80;
const FLEX_BG: u32 = 0x200;
const READ_ONLY_COMPATIBLE: u32 =
    SPARSE_SUPER | LARGE_FILE | HUGE_FILE | DIR_NLINK | EXTRA_ISIZE | METADATA_CSUM;
const SPARSE_SUPER: u32 = 0x1;
const LARGE_FILE: u32 = 0x2;
const HUGE_FILE: u32 = 0x8;
const DIR_NLINK: u32 = 0x20;
const EXTRA_ISIZE: u32 = 0x40;
const METADATA_CSUM: u32 = 0x400;

/// user_xattr and acl, as mke2fs has it.
const MOUNT_OPTIONS: u32 = 0x4 | 0x8;
/// When it was made: a moment that is the same everywhere.
const MADE: u32 = 1;

/// What the superblock says that is not the same for all.
pub struct Superblock<'a> {
    pub geometry: Geometry,
    pub free_blocks: u64,
    pub free_inodes: u32,
    pub uuid: &'a [u8; 16],
    pub hash_seed: &'a [u32; 4],
    /// The journal inode's body and size, kept here for when that inode is lost.
    pub journal: ([u8; 60], u64),
}

impl Superblock<'_> {
    /// The superblock as it stands in `group`.
    pub fn encode(&self, group: u64) -> [u8; SUPERBLOCK_BYTES] {
        let g = &self.geometry;
        let mut bytes = [0; SUPERBLOCK_BYTES];
        let (blocks, blocks_high) = halves(g.blocks);
        let (free, free_high) = halves(self.free_blocks);
        let words = [
            (0x00, (g.inodes_per_group * g.groups) as u32),
            (0x04, blocks),
            (0x0c, free),
            (0x10, self.free_inodes),
            // Blocks and clusters are 1024 << 2 bytes.
            (0x18, 2),
            (0x1c, 2),
            (0x20, BLOCKS_PER_GROUP as u32),
            (0x24, BLOCKS_PER_GROUP as u32),
            (0x28, g.inodes_per_group as u32),
            (0x30, MADE),
            (0x40, MADE),
            // Dynamic inode sizes.
            (0x4c, 1),
            (0x54, FIRST_INODE),
            (0x5c, COMPATIBLE),
            (0x60, INCOMPATIBLE),
            (0x64, READ_ONLY_COMPATIBLE),
            (0xe0, JOURNAL_INODE),
            (0x100, MOUNT_OPTIONS),
            (0x108, MADE),
            (0x150, blocks_high),
            (0x158, free_high),
            (0x160, hash::UNSIGNED),
        ];
        for (offset, value) in words {
            put(&mut bytes, offset, &value.to_le_bytes());
        }
        let halfwords: [(usize, u16); 10] = [
            // Checked by no count of mounts.
            (0x36, u16::MAX),
            (0x38, 0xef53),
            // Clean; errors are passed over.
            (0x3a, 1),
            (0x3c, 1),
            (0x58, INODE_BYTES as u16),
            (0x5a, group as u16),
            (0xce, g.reserved_descriptor_blocks() as u16),
            (0xfe, DESCRIPTOR_BYTES as u16),
            (0x15c, 32),
            (0x15e, 32),
        ];
        for (offset, value) in halfwords {
            put(&mut bytes, offset, &value.to_le_bytes());
        }
        put(&mut bytes, 0x68, self.uuid);
        for (i, word) in self.hash_seed.iter().enumerate() {
            put(&mut bytes, 0xec + 4 * i, &word.to_le_bytes());
        }
        bytes[0xfc] = hash::HALF_MD4;
        // The journal's inode is kept below.
        bytes[0xfd] = 1;
        let (body, size) = self.journal;
        put(&mut bytes, 0x10c, &body);
        put(&mut bytes, 0x148, &((size >> 32) as u32).to_le_bytes());
        put(&mut bytes, 0x14c, &(size as u32).to_le_bytes());
        // 16 groups to a flexible one; checksums are crc32c.
        bytes[0x174] = 4;
        bytes[0x175] = 1;
        let sum = Checksum::NEW.add(&bytes[..SUPERBLOCK_BYTES - 4]);
        put(&mut bytes, SUPERBLOCK_BYTES - 4, &sum.0.to_le_bytes());
        bytes
    }
}

/// What is known of one group.
#[derive(Debug, Clone, Copy, Default)]
pub struct Group {
    pub block_bitmap: u64,
    pub inode_bitmap: u64,
    pub inode_table: u64,
    pub free_blocks: u32,
    pub free_inodes: u32,
    pub directories: u32,
    /// Inodes at the table's end that were never used.
    pub unused_inodes: u32,
    pub block_bitmap_sum: u32,
    pub inode_bitmap_sum: u32,
}

/// The table was written, or is a hole: nobody has to fill it with zeros (EXT4_BG_INODE_ZEROED).
const TABLE_ZEROED: u16 = 4;

impl Group {
    /// The descriptor of group `number`; `sum` is what the file system's checksums begin with.
    pub fn encode(&self, number: u64, sum: Checksum) -> [u8; DESCRIPTOR_BYTES] {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        let blocks = [self.block_bitmap, self.inode_bitmap, self.inode_table];
        for (i, block) in blocks.into_iter().enumerate() {
            let (low, high) = halves(block);
            put(&mut bytes, 4 * i, &low.to_le_bytes());
            put(&mut bytes, 0x20 + 4 * i, &high.to_le_bytes());
        }
        let split = [
            (0x0c, 0x2c, self.free_blocks),
            (0x0e, 0x2e, self.free_inodes),
            (0x10, 0x30, self.directories),
            (0x1c, 0x32, self.unused_inodes),
            (0x18, 0x38, self.block_bitmap_sum),
            (0x1a, 0x3a, self.inode_bitmap_sum),
        ];
        for (low, high, value) in split {
            put(&mut bytes, low, &(value as u16).to_le_bytes());
            put(&mut bytes, high, &((value >> 16) as u16).to_le_bytes());
        }
        put(&mut bytes, 0x12, &TABLE_ZEROED.to_le_bytes());
        let sum = sum.add(&(number as u32).to_le_bytes()).add(&bytes);
        put(&mut bytes, 0x1e, &(sum.0 as u16).to_le_bytes());
        bytes
    }
}
