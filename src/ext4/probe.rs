//! What an ext4 file says of itself: whether a guest can have it as its disk, read-only, exactly as it is.
//!
//! Only the superblock is looked at (kernel: Documentation/filesystems/ext4/super.rst); its offsets are those of the document.

use std::fmt;

/// Where the superblock ends in the file: what must be read of it.
pub const HEAD_BYTES: usize = SUPERBLOCK + 1024;

const SUPERBLOCK: usize = 1024;
const MAGIC: u16 = 0xef53;
/// The file system was unmounted cleanly, and has seen no error.
const STATE_VALID: u16 = 1;
const STATE_ERROR: u16 = 2;
const COMPAT_HAS_JOURNAL: u32 = 0x4;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
const INCOMPAT_64BIT: u32 = 0x80;
/// No kernel mounts blocks that are larger than its pages.
const MAX_BLOCK: u64 = 4096;
const SECTOR: u64 = 512;

/// Why a file cannot be a guest's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// There is no superblock.
    NotExt4,
    /// There is one, and it contradicts itself; the payload is what.
    Damaged(&'static str),
    BlockSize(u64),
    /// The file ends before the file system does.
    Cut {
        file_bytes: u64,
        fs_bytes: u64,
    },
    /// No whole sectors, which VMMs round differently.
    Sectors {
        file_bytes: u64,
    },
    /// It is mounted, or was not unmounted: its journal, if it has one, must be replayed.
    Unclean,
    /// It is marked as having errors.
    Faulty,
    /// The journal is on another device.
    JournalElsewhere,
}

/// Judges a file of `file_bytes` that begins with `head`, its first [`HEAD_BYTES`] or as many as it has.
///
/// # Errors
/// [`Unfit`], the first thing that is wrong with it.
pub fn probe(head: &[u8], file_bytes: u64) -> Result<(), Unfit> {
    let superblock: &[u8; 1024] =
        head.get(SUPERBLOCK..HEAD_BYTES).and_then(|bytes| bytes.try_into().ok()).ok_or(Unfit::NotExt4)?;
    let u16_at = |at: usize| u16::from_le_bytes([superblock[at], superblock[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
    if u16_at(0x38) != MAGIC {
        return Err(Unfit::NotExt4);
    }
    let (state, compat, incompat) = (u16_at(0x3a), u32_at(0x5c), u32_at(0x60));
    if incompat & INCOMPAT_JOURNAL_DEV != 0 {
        // It is no file system, but the journal of one.
        return Err(Unfit::NotExt4);
    }
    let block = match u32_at(0x18) {
        log @ 0..=6 => 1024 << log,
        _ => return Err(Unfit::Damaged("the block size")),
    };
    if block > MAX_BLOCK {
        return Err(Unfit::BlockSize(block));
    }
    let high = if incompat & INCOMPAT_64BIT != 0 { u32_at(0x150) } else { 0 };
    let blocks = u64::from(high) << 32 | u64::from(u32_at(0x4));
    let fs_bytes = blocks.checked_mul(block).filter(|bytes| *bytes > 0);
    let fs_bytes = fs_bytes.ok_or(Unfit::Damaged("the number of blocks"))?;
    // The bitmap of a group's inodes is one block. That of its blocks is one too, but may count clusters of them (bigalloc).
    if u32_at(0x20) == 0 || !(1..=8 * block).contains(&u32_at(0x28).into()) {
        return Err(Unfit::Damaged("the size of its groups"));
    }
    if u32_at(0) == 0 {
        return Err(Unfit::Damaged("the number of inodes"));
    }
    if file_bytes < fs_bytes {
        return Err(Unfit::Cut { file_bytes, fs_bytes });
    }
    if !file_bytes.is_multiple_of(SECTOR) {
        return Err(Unfit::Sectors { file_bytes });
    }
    if compat & COMPAT_HAS_JOURNAL != 0 && u32_at(0xe0) == 0 {
        return Err(Unfit::JournalElsewhere);
    }
    if state & STATE_ERROR != 0 {
        return Err(Unfit::Faulty);
    }
    if incompat & INCOMPAT_RECOVER != 0 || state & STATE_VALID == 0 {
        return Err(Unfit::Unclean);
    }
    Ok(())
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotExt4 => {
                f.write_str("it holds no ext4 file system; a qcow2 file, or a disk with partitions, is none")
            }
            Self::Damaged(what) => {
                write!(f, "its ext4 superblock is damaged ({what} cannot be right); `e2fsck -f` may mend it")
            }
            Self::BlockSize(bytes) => {
                write!(f, "its blocks have {bytes} bytes, and guests mount those of up to {MAX_BLOCK}")
            }
            Self::Cut { file_bytes, fs_bytes } => {
                write!(f, "it was cut off: the file has {file_bytes} bytes, its file system {fs_bytes}")
            }
            Self::Sectors { file_bytes } => write!(
                f,
                "its {file_bytes} bytes are no whole sectors of {SECTOR}; lengthen it with `truncate -s %4096`"
            ),
            Self::Unclean => f.write_str(
                "its file system is mounted, or was not unmounted cleanly, and guests cannot replay its journal, since it is attached \
                 read-only; unmount it, or run `e2fsck -f` on it",
            ),
            Self::Faulty => {
                f.write_str("its file system is marked as having errors; run `e2fsck -f` on it")
            }
            Self::JournalElsewhere => f.write_str("its journal is on another device"),
        }
    }
}

impl std::error::Error for Unfit {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a file system of 16 MiB with blocks of 1 KiB, as mke2fs makes it.
    fn head() -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        for (at, value) in
            [(0, 4096), (4, 16384), (0x20, 8192), (0x28, 2048), (0x5c, 0x3c), (0x60, 0x2c2), (0xe0, 8)]
        {
            put(&mut head, at, value);
        }
        put(&mut head, 0x38, 0x0001_ef53);
        head
    }

    fn put(head: &mut [u8], at: usize, value: u32) {
        head[SUPERBLOCK + at..][..4].copy_from_slice(&value.to_le_bytes());
    }

    #[test]
    fn a_clean_file_system_is_fit_and_may_be_shorter_than_its_file() {
        assert_eq!(probe(&head(), 16 << 20), Ok(()));
        assert_eq!(probe(&head(), 64 << 20), Ok(()));
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let table = [
            (0x38, 0x0001_ef52, Unfit::NotExt4),
            (0x60, 0x2ca, Unfit::NotExt4),
            (0x18, 7, Unfit::Damaged("the block size")),
            (0x18, 4, Unfit::BlockSize(16384)),
            (4, 0, Unfit::Damaged("the number of blocks")),
            (4, 16385, Unfit::Cut { file_bytes: 16 << 20, fs_bytes: (16 << 20) + 1024 }),
            // The upper half of a 64-bit count.
            (0x150, 1, Unfit::Cut { file_bytes: 16 << 20, fs_bytes: (1 << 42) + (16 << 20) }),
            (0x150, u32::MAX, Unfit::Damaged("the number of blocks")),
            (0x20, 0, Unfit::Damaged("the size of its groups")),
            (0x28, 8193, Unfit::Damaged("the size of its groups")),
            (0, 0, Unfit::Damaged("the number of inodes")),
            (0x60, 0x2c6, Unfit::Unclean),
            (0x38, 0x0000_ef53, Unfit::Unclean),
            (0x38, 0x0003_ef53, Unfit::Faulty),
            (0xe0, 0, Unfit::JournalElsewhere),
        ];
        for (at, value, want) in table {
            let mut head = head();
            put(&mut head, at, value);
            assert_eq!(probe(&head, 16 << 20), Err(want), "{value:#x} at {at:#x}");
        }
        assert_eq!(probe(&head(), (16 << 20) + 1), Err(Unfit::Sectors { file_bytes: (16 << 20) + 1 }));
        assert_eq!(probe(&head()[..1500], 1500), Err(Unfit::NotExt4));
        assert_eq!(probe(b"", 0), Err(Unfit::NotExt4));
    }
}
