//! An inode's 256 bytes (kernel: Documentation/filesystems/ext4/inodes.rst).

use std::ops::Range;

use crate::ext4::block::{halves, put};
use crate::ext4::checksum::Checksum;
use crate::ext4::geometry::{BLOCK, INODE_BYTES};
use crate::ext4::tree::Time;
use crate::ext4::xattr::{INODE_FIELDS, Xattrs};

/// Bytes of fields behind the first 128.
const EXTRA: u16 = (INODE_FIELDS - 128) as u16;
const SECTORS_PER_BLOCK: u64 = BLOCK / 512;
/// What ext4 tells apart with 34 bits: from 1901 to 2446.
const FIRST_SECOND: i64 = -(1 << 31);
const LAST_SECOND: i64 = (1 << 34) - (1 << 31) - 1;
/// From 2310 to 2378: e2fsck takes these for times before 1970 that an old kernel wrote wrongly, and would change them
/// (e2fsprogs: e2fsck/pass1.c, EXT4_EXTRA_NEGATIVE_DATE_CUTOFF).
const MISREAD: Range<i64> = (3 << 32) - (1 << 31)..3 << 32;
/// A directory with more subdirectories than this says 1 (dir_nlink).
const MAX_LINKS: u32 = 65_000;

pub const EXTENTS: u32 = 0x8_0000;
pub const INDEX: u32 = 0x1000;

/// Kinds, as in the upper bits of a mode.
pub const FIFO: u16 = 0o010_000;
pub const CHAR_DEVICE: u16 = 0o020_000;
pub const DIRECTORY: u16 = 0o040_000;
pub const BLOCK_DEVICE: u16 = 0o060_000;
pub const REGULAR: u16 = 0o100_000;
pub const SYMLINK: u16 = 0o120_000;
pub const SOCKET: u16 = 0o140_000;

/// What an inode says; the extended attributes come beside it.
#[derive(Debug, Clone)]
pub struct Fields {
    /// Kind and permissions.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub links: u32,
    pub size: u64,
    /// Blocks of data, of the tree of extents and of attributes.
    pub blocks: u64,
    pub flags: u32,
    /// Extents, block numbers, a symlink's text or a device's number.
    pub body: [u8; 60],
    pub time: Time,
    /// The block of extended attributes; 0: none.
    pub xattr_block: u64,
}

/// A device's number in an inode: the old form where it fits, else the new one (kernel: fs/ext4/inode.c, ext4_do_update_inode).
pub fn device(major: u32, minor: u32) -> [u8; 60] {
    let mut body = [0; 60];
    if major < 256 && minor < 256 {
        put(&mut body, 0, &(major << 8 | minor).to_le_bytes());
    } else {
        put(&mut body, 4, &(minor & 0xff | major << 8 | (minor & !0xff) << 12).to_le_bytes());
    }
    body
}

impl Fields {
    /// The inode, with its checksum; `sum` is what it begins with.
    pub fn encode(&self, xattrs: &Xattrs, sum: Checksum) -> [u8; INODE_BYTES] {
        let mut inode = [0; INODE_BYTES];
        let mut put = |offset: usize, bytes: &[u8]| put(&mut inode, offset, bytes);
        let (xattr_low, xattr_high) = halves(self.xattr_block);
        let (sectors_low, sectors_high) = halves(self.blocks * SECTORS_PER_BLOCK);
        let links = if self.links > MAX_LINKS { 1 } else { self.links as u16 };
        let (seconds, extra) = time(self.time);
        put(0x00, &self.mode.to_le_bytes());
        put(0x02, &(self.uid as u16).to_le_bytes());
        put(0x04, &(self.size as u32).to_le_bytes());
        for offset in [0x08, 0x0c, 0x10] {
            put(offset, &seconds.to_le_bytes());
        }
        put(0x18, &(self.gid as u16).to_le_bytes());
        put(0x1a, &links.to_le_bytes());
        put(0x1c, &sectors_low.to_le_bytes());
        put(0x20, &self.flags.to_le_bytes());
        put(0x28, &self.body);
        put(0x68, &xattr_low.to_le_bytes());
        put(0x6c, &((self.size >> 32) as u32).to_le_bytes());
        put(0x74, &(sectors_high as u16).to_le_bytes());
        put(0x76, &(xattr_high as u16).to_le_bytes());
        put(0x78, &((self.uid >> 16) as u16).to_le_bytes());
        put(0x7a, &((self.gid >> 16) as u16).to_le_bytes());
        put(0x80, &EXTRA.to_le_bytes());
        for offset in [0x84, 0x88, 0x8c, 0x94] {
            put(offset, &extra.to_le_bytes());
        }
        put(0x90, &seconds.to_le_bytes());
        xattrs.fill_inode(&mut inode);
        let sum = sum.add(&inode).0;
        inode[0x7c..0x7e].copy_from_slice(&(sum as u16).to_le_bytes());
        inode[0x82..0x84].copy_from_slice(&((sum >> 16) as u16).to_le_bytes());
        inode
    }
}

/// Seconds, and what does not fit there: two more bits of them, and nanoseconds.
fn time(time: Time) -> (u32, u32) {
    let seconds = time.seconds.clamp(FIRST_SECOND, LAST_SECOND);
    let seconds = if MISREAD.contains(&seconds) { MISREAD.start - 1 } else { seconds };
    let low = seconds as i32;
    let epoch = ((seconds - i64::from(low)) >> 32) as u32 & 3;
    (low.cast_unsigned(), time.nanoseconds << 2 | epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_reach_from_1901_to_2446() {
        let at = |seconds, nanoseconds| time(Time { seconds, nanoseconds });
        assert_eq!(at(0, 0), (0, 0));
        assert_eq!(at(-1, 5), (u32::MAX, 20));
        assert_eq!(at(1 << 31, 0), (1 << 31, 1), "2038 needs the first further bit");
        assert_eq!(at(LAST_SECOND, 0), (0x7fff_ffff, 3));
        assert_eq!(at(i64::MAX, 0), at(LAST_SECOND, 0));
        assert_eq!(at(12_000_000_000, 0), (0x7fff_ffff, 2), "2350 is 2310");
        assert_eq!(at(i64::MIN, 0), (1 << 31, 0));
    }

    #[test]
    fn devices_take_the_old_form_where_it_fits() {
        assert_eq!(device(1, 3)[..8], [3, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(device(259, 0x12345)[..8], [0, 0, 0, 0, 0x45, 0x03, 0x31, 0x12]);
    }
}
