//! Checksums of metadata (kernel: Documentation/filesystems/ext4/checksums.rst): crc32c, without the inversion at the end.

/// A checksum to go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum(pub u32);

impl Checksum {
    /// Of nothing.
    pub const NEW: Self = Self(!0);

    /// What all checksums of a file system begin with, except the superblock's.
    pub fn of_uuid(uuid: &[u8; 16]) -> Self {
        Self::NEW.add(uuid)
    }

    /// What those of an inode, its directory blocks and its extents begin with; generations are 0 here.
    pub fn of_inode(self, number: u32) -> Self {
        self.add(&number.to_le_bytes()).add(&[0; 4])
    }

    #[must_use]
    pub fn add(self, bytes: &[u8]) -> Self {
        // The crate inverts before and after.
        Self(!crc32c::crc32c_append(!self.0, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c_without_its_last_step() {
        // RFC 3720, B.4: 32 bytes of zeros have the CRC aa 36 91 8a, little endian.
        assert_eq!(!Checksum::NEW.add(&[0; 32]).0, 0x8a91_36aa);
        assert_eq!(Checksum::NEW.add(b"ab").add(b"c"), Checksum::NEW.add(b"abc"));
    }
}
