//! The tables of the groups: bitmaps, inodes, descriptors, superblocks. With flex_bg they may lie anywhere, so they lie behind
//! the contents of all files, whose number is known by then.

use std::io;

use crate::ext4::block::{Block, put};
use crate::ext4::extent::{self, Extent};
use crate::ext4::finish::Identity;
use crate::ext4::geometry::{
    BLOCK, BLOCK_BYTES, BLOCKS_PER_GROUP, DESCRIPTOR_BYTES, Geometry, INODE_BYTES, INODES_PER_BLOCK,
    MAX_INODES_PER_GROUP, SUPER_BLOCKS, copies, has_super,
};
use crate::ext4::image::Image;
use crate::ext4::inode::{self, Fields};
use crate::ext4::resize;
use crate::ext4::space::Space;
use crate::ext4::superblock::{Group, JOURNAL_INODE, Superblock};
use crate::ext4::tree::Time;
use crate::ext4::xattr::Xattrs;

/// The file system's length is a multiple of a MiB, and its last group is no stump: its copies and more fit in.
const ROUND: u64 = (1 << 20) / BLOCK;
const SHORTEST_GROUP: u64 = 1024;
const RESIZE_INODE: u32 = 7;

/// The inodes that no name leads to.
pub struct Reserved {
    pub journal: Vec<Extent>,
    /// The block that the resize inode begins with.
    pub resize: u64,
}

/// An inode as the table holds it, and whether it is a directory's.
pub type Encoded = ([u8; INODE_BYTES], bool);

/// Where the tables will lie.
pub struct Tables {
    pub geometry: Geometry,
    block_bitmaps: u64,
    inode_bitmaps: u64,
    inode_tables: Vec<u64>,
}

impl Tables {
    /// Takes room for the tables of a file system with `room` blocks behind what is taken, that has at least `min_blocks`
    /// blocks and `inodes` inodes. None: it would be too large.
    pub fn place(space: &mut Space, room: u64, min_blocks: u64, inodes: u64) -> Option<Self> {
        let fewest = min_blocks.max((inodes.div_ceil(MAX_INODES_PER_GROUP) - 1) * BLOCKS_PER_GROUP + 1);
        let mut blocks = fewest.max(space.end() + room);
        // The tables take room themselves, for which there may have to be more tables.
        loop {
            let geometry = Geometry::new(rounded(blocks), inodes)?;
            let mut with_tables = space.clone();
            let tables = Self {
                geometry,
                block_bitmaps: with_tables.take_run(geometry.groups).start,
                inode_bitmaps: with_tables.take_run(geometry.groups).start,
                inode_tables: (0..geometry.groups)
                    .map(|_| with_tables.take_run(geometry.table_blocks()).start)
                    .collect(),
            };
            let needed = with_tables.end() + room;
            if needed <= geometry.blocks {
                *space = with_tables;
                return Some(tables);
            }
            blocks = needed;
        }
    }

    /// Writes all of it. Inodes up to `last` are used; `encode` gives those that are not reserved.
    pub fn write(
        &self,
        image: &mut Image,
        identity: &Identity,
        reserved: &Reserved,
        last: u32,
        encode: &dyn Fn(u32) -> Option<Encoded>,
    ) -> io::Result<()> {
        let mut groups = vec![];
        for number in 0..self.geometry.groups {
            let mut group = Group {
                block_bitmap: self.block_bitmaps + number,
                inode_bitmap: self.inode_bitmaps + number,
                inode_table: self.inode_tables[number as usize],
                ..Group::default()
            };
            self.write_inodes(image, number, &mut group, last, &|n| {
                reserved.encode(n, &self.geometry, identity).or_else(|| encode(n))
            })?;
            groups.push(group);
        }
        let bitmaps = Bitmaps::new(&image.space, &self.geometry);
        for (number, group) in groups.iter_mut().enumerate() {
            self.write_bitmaps(image, identity, number as u64, group, &bitmaps)?;
        }
        self.write_supers(image, identity, reserved, &groups)
    }

    fn write_inodes(
        &self,
        image: &mut Image,
        number: u64,
        group: &mut Group,
        last: u32,
        encode: &dyn Fn(u32) -> Option<Encoded>,
    ) -> io::Result<()> {
        let per_group = self.geometry.inodes_per_group;
        let first = number * per_group + 1;
        let used = u64::from(last).saturating_sub(first - 1).min(per_group);
        for i in 0..used.div_ceil(INODES_PER_BLOCK) {
            let mut block = Block::new();
            for slot in 0..INODES_PER_BLOCK {
                let n = first + i * INODES_PER_BLOCK + slot;
                if n <= u64::from(last)
                    && let Some((bytes, is_directory)) = encode(n as u32)
                {
                    block.put(slot as usize * INODE_BYTES, &bytes);
                    group.directories += u32::from(is_directory);
                }
            }
            image.put(group.inode_table + i, &*block.0)?;
        }
        group.free_inodes = (per_group - used) as u32;
        group.unused_inodes = group.free_inodes;
        Ok(())
    }

    fn write_bitmaps(
        &self,
        image: &mut Image,
        identity: &Identity,
        number: u64,
        group: &mut Group,
        bitmaps: &Bitmaps,
    ) -> io::Result<()> {
        let (blocks, free) = bitmaps.of(number);
        group.free_blocks = free as u32;
        group.block_bitmap_sum = identity.sum.add(&*blocks.0).0;
        image.put(group.block_bitmap, &*blocks.0)?;
        let per_group = self.geometry.inodes_per_group as usize;
        let mut inodes = Block::new();
        set(&mut inodes, 0, per_group - group.free_inodes as usize);
        group.inode_bitmap_sum = identity.sum.add(&inodes.0[..per_group / 8]).0;
        // What stands for no inode is taken.
        set(&mut inodes, per_group, 8 * BLOCK_BYTES);
        image.put(group.inode_bitmap, &*inodes.0)
    }

    fn write_supers(
        &self,
        image: &mut Image,
        identity: &Identity,
        reserved: &Reserved,
        groups: &[Group],
    ) -> io::Result<()> {
        let mut descriptors = vec![0; self.geometry.descriptor_blocks() as usize * BLOCK_BYTES];
        for (number, group) in groups.iter().enumerate() {
            put(&mut descriptors, number * DESCRIPTOR_BYTES, &group.encode(number as u64, identity.sum));
        }
        let superblock = Superblock {
            geometry: self.geometry,
            free_blocks: groups.iter().map(|g| u64::from(g.free_blocks)).sum(),
            free_inodes: groups.iter().map(|g| g.free_inodes).sum(),
            uuid: &identity.uuid,
            hash_seed: &identity.hash_seed,
            journal: (reserved.journal_body(identity), reserved.journal_bytes()),
        };
        for number in std::iter::once(0).chain(copies(self.geometry.groups)) {
            let mut block = Block::new();
            // The first one leaves room for a boot sector.
            block.put(if number == 0 { 1024 } else { 0 }, &superblock.encode(number));
            let start = number * BLOCKS_PER_GROUP;
            image.put(start, &*block.0)?;
            image.put(start + 1, &descriptors)?;
        }
        Ok(())
    }
}

fn rounded(blocks: u64) -> u64 {
    let blocks = blocks.next_multiple_of(ROUND);
    let in_last = blocks % BLOCKS_PER_GROUP;
    if (1..SHORTEST_GROUP).contains(&in_last) && blocks > BLOCKS_PER_GROUP {
        blocks - in_last + SHORTEST_GROUP
    } else {
        blocks
    }
}

impl Reserved {
    fn journal_body(&self, identity: &Identity) -> [u8; 60] {
        // Few enough for the inode: it lies in one run, or on both sides of a copy of the superblock.
        extent::tree(&self.journal, identity.sum.of_inode(JOURNAL_INODE), &[]).0
    }

    fn journal_blocks(&self) -> u64 {
        self.journal.iter().map(|e| u64::from(e.len)).sum()
    }

    fn journal_bytes(&self) -> u64 {
        self.journal_blocks() * BLOCK
    }

    /// A reserved inode; None: it is not reserved, or not used.
    fn encode(&self, number: u32, geometry: &Geometry, identity: &Identity) -> Option<Encoded> {
        let common = Fields {
            mode: inode::REGULAR | 0o600,
            uid: 0,
            gid: 0,
            links: 1,
            size: 0,
            blocks: 0,
            flags: 0,
            body: [0; 60],
            time: Time { seconds: 1, nanoseconds: 0 },
            xattr_block: 0,
        };
        let fields = match number {
            JOURNAL_INODE => Fields {
                size: self.journal_bytes(),
                blocks: self.journal_blocks(),
                flags: inode::EXTENTS,
                body: self.journal_body(identity),
                ..common
            },
            RESIZE_INODE => Fields {
                size: resize::SIZE,
                blocks: resize::blocks(geometry),
                body: resize::body(self.resize),
                ..common
            },
            _ => return None,
        };
        Some((fields.encode(&Xattrs::default(), identity.sum.of_inode(number)), false))
    }
}

/// Which blocks are taken, from the space that handed them out.
struct Bitmaps {
    geometry: Geometry,
    end: u64,
    /// Free runs before the end.
    free: Vec<(u64, u64)>,
}

impl Bitmaps {
    fn new(space: &Space, geometry: &Geometry) -> Self {
        let free = space.free().map(|run| (run.start, run.end())).collect();
        Self { geometry: *geometry, end: space.end(), free }
    }

    /// The bitmap of a group, and how many of its blocks are free.
    fn of(&self, group: u64) -> (Block, u64) {
        let first = group * BLOCKS_PER_GROUP;
        let blocks = self.geometry.blocks_in(group);
        let mut block = Block::new();
        let within = |n: u64| n.clamp(first, first + blocks) - first;
        let mut at = 0;
        let mut free = 0;
        let from = self.free.partition_point(|(_, end)| *end <= first);
        for (start, end) in self.free[from..].iter().take_while(|(start, _)| *start < first + blocks) {
            set(&mut block, at as usize, within(*start) as usize);
            free += within(*end) - within(*start);
            at = within(*end);
        }
        set(&mut block, at as usize, within(self.end) as usize);
        let supers = if has_super(group) { SUPER_BLOCKS } else { 0 };
        set(&mut block, 0, supers as usize);
        free += blocks - within(self.end).max(supers);
        // What the last group does not have is taken.
        set(&mut block, blocks as usize, 8 * BLOCK_BYTES);
        (block, free)
    }
}

/// Sets the bits from `from` to below `to`.
fn set(block: &mut Block, from: usize, to: usize) {
    for bit in from..to {
        if bit.is_multiple_of(8) && to - bit >= 8 {
            block.0[bit / 8..to / 8].fill(0xff);
            for bit in to / 8 * 8..to {
                block.0[bit / 8] |= 1 << (bit % 8);
            }
            return;
        }
        block.0[bit / 8] |= 1 << (bit % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::space::Run;

    #[test]
    fn bits_are_set_from_one_place_to_another() {
        for (from, to) in [(0, 0), (0, 1), (3, 5), (3, 8), (3, 30), (8, 16), (5, 64), (31, 32_768)] {
            let mut block = Block::new();
            set(&mut block, from, to);
            let is_set = |bit: usize| block.0[bit / 8] >> (bit % 8) & 1 == 1;
            assert!((0..32_768).all(|bit| is_set(bit) == (from..to).contains(&bit)), "{from}..{to}");
        }
    }

    #[test]
    fn a_bitmap_counts_what_it_leaves_free() {
        let mut space = Space::default();
        space.take(40_000, |_| {});
        space.give_back(Run { start: 32_000, len: 700 });
        space.give_back(Run { start: 33_000, len: 10 });
        let geometry = Geometry::new(BLOCKS_PER_GROUP * 4 + 2000, 100).expect("fits");
        let bitmaps = Bitmaps::new(&space, &geometry);
        for group in 0..5 {
            let (block, free) = bitmaps.of(group);
            let zeros: u64 = block.0.iter().map(|b| u64::from(b.count_zeros())).sum();
            assert_eq!(zeros, free, "group {group}");
        }
        assert_eq!(bitmaps.of(0).1, 700);
        assert_eq!(bitmaps.of(2).1, BLOCKS_PER_GROUP);
        assert_eq!(bitmaps.of(3).1, BLOCKS_PER_GROUP - SUPER_BLOCKS);
        assert_eq!(bitmaps.of(4).1, 2000);
    }

    #[test]
    fn tables_have_room_for_themselves() {
        for (end, room, min, inodes) in
            [(200, 100, 0, 50), (32_700, 1, 0, 9000), (500, 0, 2_097_152, 11), (100_000, 20_000, 0, 400_000)]
        {
            let mut space = Space::default();
            space.take(end, |_| {});
            let tables = Tables::place(&mut space, room, min, inodes).expect("fits");
            let g = tables.geometry;
            assert!(g.blocks >= space.end() + room && g.blocks >= min, "{g:?}");
            assert!(g.groups * g.inodes_per_group >= inodes);
            assert!(min == 0 || g.blocks == min, "{g:?}");
        }
    }
}
