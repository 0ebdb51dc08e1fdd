//! A block in memory, and how numbers get into it.

use crate::ext4::geometry::BLOCK_BYTES;

/// A block to be filled by offset.
pub struct Block(pub Box<[u8; BLOCK_BYTES]>);

impl Block {
    pub fn new() -> Self {
        Self(Box::new([0; BLOCK_BYTES]))
    }

    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut *self.0, offset, bytes);
    }
}

/// Writes `bytes` at `offset` of `buffer`.
pub fn put(buffer: &mut [u8], offset: usize, bytes: &[u8]) {
    buffer[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// The two halves of a block's number, for fields that ext4 splits.
pub fn halves(block: u64) -> (u32, u32) {
    (block as u32, (block >> 32) as u32)
}
