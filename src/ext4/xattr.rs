//! Extended attributes: in the inode behind its fields, and what does not fit there in a block of their own
//! (kernel: Documentation/filesystems/ext4/attributes.rst).

use std::collections::BTreeMap;

use crate::ext4::acl;
use crate::ext4::block::{Block, put};
use crate::ext4::checksum::Checksum;
use crate::ext4::geometry::{BLOCK_BYTES, INODE_BYTES};

/// Where an inode's fields end: 128 bytes, and 32 more.
pub const INODE_FIELDS: usize = 160;
const MAGIC: u32 = 0xea02_0000;
const INODE_HEADER: usize = 4;
const BLOCK_HEADER: usize = 32;
const ENTRY: usize = 16;
/// A list of entries ends with four zeros.
const END: usize = 4;
const IN_INODE: usize = INODE_BYTES - INODE_FIELDS - INODE_HEADER - END;
const IN_BLOCK: usize = BLOCK_BYTES - BLOCK_HEADER - END;

/// A namespace's number stands for its beginning (kernel: fs/ext4/xattr.h, EXT4_XATTR_INDEX_*); the longer ones go first.
const PREFIXES: [(&[u8], u8); 6] = [
    (b"system.posix_acl_access", ACL_ACCESS),
    (b"system.posix_acl_default", ACL_DEFAULT),
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
    (b"system.", 7),
];
const ACL_ACCESS: u8 = 2;
const ACL_DEFAULT: u8 = 3;

/// Why an attribute cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadXattr {
    /// They take more than the inode and one block have room for.
    TooMuch,
    /// An access control list that is none.
    Acl,
}

impl BadXattr {
    /// To be said of the file.
    pub fn why(self) -> &'static str {
        match self {
            Self::TooMuch => {
                "has more extended attributes than ext4 keeps: 88 bytes in the inode and 4060 in a block"
            }
            Self::Acl => "has an access control list that is none",
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Attribute {
    index: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// An inode's attributes, divided.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Xattrs {
    inode: Vec<Attribute>,
    block: Vec<Attribute>,
}

/// Whether ext4 has a namespace for an attribute of this name.
pub fn is_known(name: &[u8]) -> bool {
    split(name).is_some()
}

fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    let (prefix, index) = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix))?;
    let rest = &name[prefix.len()..];
    let whole = matches!(*index, ACL_ACCESS | ACL_DEFAULT);
    (whole == rest.is_empty()).then_some((*index, rest))
}

impl Xattrs {
    /// Divides `all`, by full name; names of unknown namespaces are left out.
    pub fn divide(all: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Self, BadXattr> {
        let mut divided = Self::default();
        let (mut inode, mut block) = (IN_INODE, IN_BLOCK);
        let mut sorted = vec![];
        for (name, value) in all {
            let Some((index, rest)) = split(name) else { continue };
            let value = match index {
                ACL_ACCESS | ACL_DEFAULT => acl::on_disk(value).ok_or(BadXattr::Acl)?,
                _ => value.clone(),
            };
            sorted.push(Attribute { index, name: rest.to_vec(), value });
        }
        // The kernel looks a name up in this order (fs/ext4/xattr.c, xattr_find_entry).
        sorted.sort_by(|a, b| (a.index, a.name.len(), &a.name).cmp(&(b.index, b.name.len(), &b.name)));
        for attribute in sorted {
            let size = attribute.size();
            let (room, list) = if size <= inode {
                (&mut inode, &mut divided.inode)
            } else {
                (&mut block, &mut divided.block)
            };
            *room = room.checked_sub(size).ok_or(BadXattr::TooMuch)?;
            list.push(attribute);
        }
        Ok(divided)
    }

    pub fn needs_block(&self) -> bool {
        !self.block.is_empty()
    }

    /// Writes those that fit into the inode behind its fields.
    pub fn fill_inode(&self, inode: &mut [u8; INODE_BYTES]) {
        if self.inode.is_empty() {
            return;
        }
        put(inode, INODE_FIELDS, &MAGIC.to_le_bytes());
        // Offsets of values count from the first entry.
        fill(&mut inode[INODE_FIELDS + INODE_HEADER..], 0, &self.inode);
    }

    /// The block with the others, which will lie at `number`; `sum` is what the checksums of the file system begin with.
    pub fn block(&self, number: u64, sum: Checksum) -> Block {
        let mut block = Block::new();
        put(&mut *block.0, 0, &MAGIC.to_le_bytes());
        // Referenced once, and one block long.
        put(&mut *block.0, 4, &1_u32.to_le_bytes());
        put(&mut *block.0, 8, &1_u32.to_le_bytes());
        fill(&mut *block.0, BLOCK_HEADER, &self.block);
        let hash = self.block.iter().fold(0_u32, |hash, a| hash.rotate_left(16) ^ a.hash());
        put(&mut *block.0, 12, &hash.to_le_bytes());
        let sum = sum.add(&number.to_le_bytes()).add(&*block.0);
        put(&mut *block.0, 16, &sum.0.to_le_bytes());
        block
    }
}

/// Entries from `offset` on, values from the end of `buffer` backwards.
fn fill(buffer: &mut [u8], mut offset: usize, attributes: &[Attribute]) {
    let mut value_end = buffer.len();
    for attribute in attributes {
        let padded = attribute.value.len().next_multiple_of(4);
        value_end -= padded;
        put(buffer, value_end, &attribute.value);
        let value_offset = if attribute.value.is_empty() { 0 } else { value_end as u16 };
        buffer[offset] = attribute.name.len() as u8;
        buffer[offset + 1] = attribute.index;
        put(buffer, offset + 2, &value_offset.to_le_bytes());
        put(buffer, offset + 8, &(attribute.value.len() as u32).to_le_bytes());
        put(buffer, offset + 12, &attribute.hash().to_le_bytes());
        put(buffer, offset + ENTRY, &attribute.name);
        offset += ENTRY + attribute.name.len().next_multiple_of(4);
    }
}

impl Attribute {
    fn size(&self) -> usize {
        ENTRY + self.name.len().next_multiple_of(4) + self.value.len().next_multiple_of(4)
    }

    /// Kernel: fs/ext4/xattr.c, ext4_xattr_hash_entry.
    fn hash(&self) -> u32 {
        let name = self.name.iter().fold(0_u32, |hash, b| hash.rotate_left(5) ^ u32::from(*b));
        self.value.chunks(4).fold(name, |hash, chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divide(list: &[(&str, usize)]) -> Result<(usize, usize), BadXattr> {
        let all = list.iter().map(|(name, len)| (name.as_bytes().to_vec(), vec![7; *len])).collect();
        Xattrs::divide(&all).map(|x| (x.inode.len(), x.block.len()))
    }

    #[test]
    fn small_ones_lie_in_the_inode_and_large_ones_in_a_block() {
        assert_eq!(divide(&[("security.capability", 20)]), Ok((1, 0)));
        assert_eq!(divide(&[("user.a", 64), ("user.b", 4)]), Ok((1, 1)));
        assert_eq!(divide(&[("user.a", 5000)]), Err(BadXattr::TooMuch));
        assert_eq!(divide(&[("user.a", 4040), ("user.b", 68)]), Ok((1, 1)));
        assert_eq!(divide(&[("user.a", 4044)]), Err(BadXattr::TooMuch));
        assert_eq!(divide(&[("system.posix_acl_access", 3)]), Err(BadXattr::Acl));
        assert_eq!(divide(&[("strange.a", 3), ("user", 3)]), Ok((0, 0)));
    }

    #[test]
    fn names_without_a_namespace_of_ext4_are_known_as_such() {
        for name in ["user.x", "security.selinux", "trusted.overlay.opaque", "system.posix_acl_default"] {
            assert!(is_known(name.as_bytes()), "{name}");
        }
        for name in ["user.", "system.posix_acl_access.x", "os2.x", "", "com.apple.quarantine"] {
            assert!(!is_known(name.as_bytes()), "{name}");
        }
    }
}
