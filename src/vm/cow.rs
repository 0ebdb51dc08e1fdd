//! How large the copy-on-write file of a disk must be so that it can never overflow.
//!
//! The guest's device-mapper snapshot stores, in chunks: one header, then areas of one chunk of exceptions followed by
//! the data chunks that it describes (kernel: drivers/md/dm-snap-persistent.c, "The persistent snapshot format").
//!
//! Only the image's own length is a snapshot. What a larger disk has behind it is the same file's tail, mapped as it is: it
//! begins where the snapshot can never reach, at [`file_bytes`] of the image, so it stays in place when the disk grows again.

/// A chunk of the snapshot: 8 sectors, one page of the guest.
pub const CHUNK_BYTES: u64 = 4096;
/// What one exception takes in an area's table: two 64-bit chunk numbers.
const EXCEPTION_BYTES: u64 = 16;

/// Returns the length of a COW file that can hold every chunk of a disk of `disk_bytes`, in bytes.
pub const fn file_bytes(disk_bytes: u64) -> u64 {
    let data = disk_bytes.div_ceil(CHUNK_BYTES);
    let tables = data.div_ceil(CHUNK_BYTES / EXCEPTION_BYTES);
    // The header; and one table more: the area after the last full one is zeroed before it is used.
    (1 + data + tables + 1) * CHUNK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_for_the_disk_holds_the_images_snapshot_and_the_rest_behind_it() {
        for (image, disk) in [(0, 1), (1, 1), (255, 258), (256, 256), (257, 100_000), (100_000, 4_000_000)] {
            let (image, disk) = (image * CHUNK_BYTES, disk * CHUNK_BYTES);
            assert!(file_bytes(image) + (disk - image) <= file_bytes(disk), "{image} {disk}");
        }
    }

    #[test]
    fn there_is_room_for_every_chunk_its_table_and_the_header() {
        assert_eq!(file_bytes(0), 2 * CHUNK_BYTES);
        assert_eq!(file_bytes(256 * CHUNK_BYTES), (1 + 256 + 1 + 1) * CHUNK_BYTES);
        assert_eq!(file_bytes(257 * CHUNK_BYTES), (1 + 257 + 2 + 1) * CHUNK_BYTES);
    }
}
