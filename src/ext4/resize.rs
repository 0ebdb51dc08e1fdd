//! The resize inode: it holds the blocks that are reserved behind each superblock for the descriptors of groups to come
//! (kernel: fs/ext4/resize.c, reserve_backup_gdb; e2fsprogs: lib/ext2fs/res_gdt.c). Its double indirect block points to the
//! reserved blocks of the first group, and each of these is taken for an indirect block that lists its copies.

use std::io;

use crate::ext4::block::{Block, put};
use crate::ext4::geometry::{BLOCK, BLOCKS_PER_GROUP, Geometry, copies};
use crate::ext4::image::Image;

/// Pointers in a block.
const POINTERS: u64 = BLOCK / 4;
/// As long as its blocks could make it: 12 direct ones, an indirect and a double indirect one.
pub const SIZE: u64 = (12 + POINTERS + POINTERS * POINTERS) * BLOCK;
/// Where the double indirect block stands among an inode's pointers.
const DOUBLE_INDIRECT: usize = 13;

/// The inode's pointers.
pub fn body(double_indirect: u64) -> [u8; 60] {
    let mut body = [0; 60];
    put(&mut body, 4 * DOUBLE_INDIRECT, &(double_indirect as u32).to_le_bytes());
    body
}

/// How many blocks belong to the inode.
pub fn blocks(geometry: &Geometry) -> u64 {
    1 + geometry.reserved_descriptor_blocks() * (1 + copies(geometry.groups).count() as u64)
}

/// Writes the pointers.
pub fn write(image: &mut Image, geometry: &Geometry, double_indirect: u64) -> io::Result<()> {
    let first = geometry.descriptor_blocks();
    let mut pointers = Block::new();
    for n in first..first + geometry.reserved_descriptor_blocks() {
        // Block 0 holds the superblock, block 1 the first descriptors.
        let reserved = 1 + n;
        pointers.put(4 * n as usize, &(reserved as u32).to_le_bytes());
        let mut list = Block::new();
        for (i, group) in copies(geometry.groups).enumerate() {
            list.put(4 * i, &((group * BLOCKS_PER_GROUP + reserved) as u32).to_le_bytes());
        }
        image.put(reserved, &*list.0)?;
    }
    image.put(double_indirect, &*pointers.0)
}
