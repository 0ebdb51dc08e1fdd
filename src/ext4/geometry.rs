//! Where ext4 wants things: the numbers that both the allocator and the tables go by (kernel: Documentation/filesystems/ext4).

/// Bytes of a block.
pub const BLOCK: u64 = 4096;
/// The same, for slices.
pub const BLOCK_BYTES: usize = 4096;
/// A bitmap of one block covers a group: 128 MiB.
pub const BLOCKS_PER_GROUP: u64 = 8 * BLOCK;
/// Bytes of a group's descriptor (feature 64bit).
pub const DESCRIPTOR_BYTES: usize = 64;
/// Descriptors in a block.
const DESCRIPTORS: u64 = BLOCK / DESCRIPTOR_BYTES as u64;
/// Blocks behind every superblock for descriptors, those of today and those of groups that are added when the file system
/// grows online (resize_inode). 128 blocks describe 8192 groups: 1 TiB. The kernel grows it further with meta_bg.
pub const DESCRIPTOR_BLOCKS: u64 = 128;
/// A superblock, or its copy, and what follows it.
pub const SUPER_BLOCKS: u64 = 1 + DESCRIPTOR_BLOCKS;
/// The most groups: a block stays reserved, since what is to be grown needs one.
pub const MAX_GROUPS: u64 = (DESCRIPTOR_BLOCKS - 1) * DESCRIPTORS;

pub const INODE_BYTES: usize = 256;
pub const INODES_PER_BLOCK: u64 = BLOCK / INODE_BYTES as u64;
/// mke2fs's own measure, an inode to 16 KiB, so that a disk that grows gets enough of them for its size.
const MIN_INODES_PER_GROUP: u64 = BLOCKS_PER_GROUP * BLOCK / 16_384;
/// A bitmap of one block covers a group's inodes too.
pub const MAX_INODES_PER_GROUP: u64 = 8 * BLOCK;
/// The first inode that is not reserved.
pub const FIRST_INODE: u32 = 11;

/// Whether a group begins with a copy of the superblock (sparse_super): 0, 1, and the powers of 3, 5 and 7.
pub fn has_super(group: u64) -> bool {
    let power_of = |base: u64| {
        let mut power = base;
        while power < group {
            power *= base;
        }
        power == group
    };
    group <= 1 || power_of(3) || power_of(5) || power_of(7)
}

/// The groups after the first that begin with a copy of the superblock.
pub fn copies(groups: u64) -> impl Iterator<Item = u64> {
    (1..groups).filter(|group| has_super(*group))
}

/// How large the file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    pub blocks: u64,
    pub groups: u64,
    pub inodes_per_group: u64,
}

impl Geometry {
    /// The geometry of `blocks` blocks for at least `inodes` inodes; None: they do not fit.
    pub fn new(blocks: u64, inodes: u64) -> Option<Self> {
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let wanted = inodes.div_ceil(groups).next_multiple_of(INODES_PER_BLOCK);
        let inodes_per_group = wanted.max(MIN_INODES_PER_GROUP);
        (groups <= MAX_GROUPS && inodes_per_group <= MAX_INODES_PER_GROUP).then_some(Self {
            blocks,
            groups,
            inodes_per_group,
        })
    }

    /// Blocks of a group's inode table.
    pub fn table_blocks(&self) -> u64 {
        self.inodes_per_group / INODES_PER_BLOCK
    }

    /// Blocks that hold the descriptors of today.
    pub fn descriptor_blocks(&self) -> u64 {
        self.groups.div_ceil(DESCRIPTORS)
    }

    pub fn reserved_descriptor_blocks(&self) -> u64 {
        DESCRIPTOR_BLOCKS - self.descriptor_blocks()
    }

    /// Blocks of one group; the last one may have fewer.
    pub fn blocks_in(&self, group: u64) -> u64 {
        (self.blocks - group * BLOCKS_PER_GROUP).min(BLOCKS_PER_GROUP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_the_superblock_are_where_every_reader_looks_for_them() {
        // dumpe2fs of an 8 TiB file system made by mke2fs.
        let want = [1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343, 625, 729, 2187, 2401, 3125, 6561];
        assert_eq!(copies(8192).collect::<Vec<_>>(), want);
    }

    #[test]
    fn inodes_fit_or_there_is_no_geometry() {
        let geometry = |blocks, inodes| Geometry::new(blocks, inodes);
        assert_eq!(geometry(25_600, 100).expect("small").inodes_per_group, 8192);
        assert_eq!(geometry(40_000, 20_001).expect("medium").inodes_per_group, 10_016);
        assert_eq!(geometry(BLOCKS_PER_GROUP, 32_769), None);
        let most = BLOCKS_PER_GROUP * 127 * 64;
        assert_eq!(geometry(most, 1).expect("1016 GiB").reserved_descriptor_blocks(), 1);
        assert_eq!(geometry(most + 1, 1), None);
    }
}
