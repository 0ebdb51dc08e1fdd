//! The image file while it is filled: contents of files go straight to the blocks where they stay, in whatever order they
//! come; the tables follow when everything is known ([`finish`](super::finish)).
//!
//! Blocks in a row are collected and written at once. What is zeros is not written: the file is sparse, and a stretch of
//! zeros of [`HOLE`] bytes within a file of the image is a hole in it too, so a layer of nothing but zeros fills no disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::ext4::extent::{Extent, append};
use crate::ext4::geometry::{BLOCK, BLOCK_BYTES};
use crate::ext4::space::{Run, Space};
use crate::ext4::tree::Content;

/// Zeros of this length, at a multiple of it, are a hole.
const HOLE: usize = 64 << 10;
/// As much is collected before it is written.
const PENDING: usize = 1 << 20;

pub struct Image {
    file: File,
    pub(super) space: Space,
    /// Blocks to be written from `pending_start` on.
    pending: Vec<u8>,
    pending_start: u64,
    /// A part of a file that does not yet reach to its end.
    piece: Vec<u8>,
    /// Blocks that hold what is no longer wanted.
    stale: Vec<Run>,
}

impl Image {
    /// An image to be written to `file`, which is empty.
    pub fn new(file: File) -> Self {
        Self {
            file,
            space: Space::default(),
            pending: Vec::with_capacity(PENDING),
            pending_start: 0,
            piece: Vec::with_capacity(HOLE),
            stale: vec![],
        }
    }

    /// Begins a file of `size` bytes. One at a time.
    pub fn file(&mut self, size: u64) -> FileWriter<'_> {
        self.piece.clear();
        FileWriter { image: self, content: Content { size, extents: vec![] }, begin: 0 }
    }

    /// Gives back what a file had.
    pub fn release(&mut self, extents: Vec<Extent>) {
        for extent in extents {
            self.space.give_back(extent.run());
            self.stale.push(extent.run());
        }
        // Runs that were used again meanwhile are found out in the end.
        if self.stale.len() > 1 << 16 {
            self.stale = merged(std::mem::take(&mut self.stale));
        }
    }

    /// Reads the beginning of a file's contents; returns how much of `buffer` that is.
    pub fn read_head(&mut self, content: &Content, buffer: &mut [u8]) -> io::Result<usize> {
        self.flush()?;
        match content.extents.first() {
            Some(first) if first.at == 0 => {
                let len = content.size.min(u64::from(first.len) * BLOCK).min(buffer.len() as u64) as usize;
                self.file.read_exact_at(&mut buffer[..len], first.start * BLOCK)?;
                Ok(len)
            }
            _ => Ok(0),
        }
    }

    /// Writes whole blocks from block `start` on.
    pub(super) fn put(&mut self, start: u64, blocks: &[u8]) -> io::Result<()> {
        let follows = start == self.pending_start + (self.pending.len() / BLOCK_BYTES) as u64;
        if !follows || self.pending.len() + blocks.len() > PENDING {
            self.flush()?;
            self.pending_start = start;
        }
        self.pending.extend_from_slice(blocks);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.file.write_all_at(&self.pending, self.pending_start * BLOCK)?;
            self.pending.clear();
        }
        Ok(())
    }

    /// Writes what is pending, frees what is stale, and gives the file its length.
    pub(super) fn close(mut self, blocks: u64) -> io::Result<File> {
        self.flush()?;
        self.file.set_len(blocks * BLOCK)?;
        let stale = merged(std::mem::take(&mut self.stale));
        for run in common(&stale, &self.space.free().collect::<Vec<_>>()) {
            self.erase(run)?;
        }
        Ok(self.file)
    }

    /// What a replaced file held is nobody's business, and takes room.
    fn erase(&self, run: Run) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, run.start * BLOCK, run.len * BLOCK) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP) => {
                let zeros = vec![0; BLOCK_BYTES];
                (run.start..run.end()).try_for_each(|block| self.file.write_all_at(&zeros, block * BLOCK))
            }
            Err(e) => Err(e.into()),
        }
    }
}

/// The same runs, sorted and joined.
fn merged(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_by_key(|run| run.start);
    let mut joined: Vec<Run> = vec![];
    for run in runs {
        match joined.last_mut() {
            Some(last) if run.start <= last.end() => last.len = last.len.max(run.end() - last.start),
            _ => joined.push(run),
        }
    }
    joined
}

/// What two sorted lists have in common.
fn common(a: &[Run], b: &[Run]) -> Vec<Run> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut both = vec![];
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        let (start, end) = (x.start.max(y.start), x.end().min(y.end()));
        if start < end {
            both.push(Run { start, len: end - start });
        }
        if x.end() < y.end() {
            a.next()
        } else {
            b.next()
        };
    }
    both
}

/// A file being written, from its beginning to its end.
pub struct FileWriter<'a> {
    image: &'a mut Image,
    content: Content,
    /// Where in the file the piece begins: a multiple of a block.
    begin: u64,
}

impl FileWriter<'_> {
    /// Goes on at `offset`, which is not before what was written; between them are zeros.
    pub fn seek(&mut self, offset: u64) -> io::Result<()> {
        let at = self.begin + self.image.piece.len() as u64;
        if offset.next_multiple_of(BLOCK) > at.next_multiple_of(BLOCK) {
            self.end_piece()?;
            self.begin = offset - offset % BLOCK;
        }
        self.fill_to(offset);
        Ok(())
    }

    fn fill_to(&mut self, offset: u64) {
        // At most a block of zeros, since whole ones were passed over.
        let len = offset.saturating_sub(self.begin) as usize;
        if len > self.image.piece.len() {
            self.image.piece.resize(len, 0);
        }
    }

    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            // A piece ends at a multiple of HOLE.
            let room = HOLE - (self.begin % HOLE as u64) as usize - self.image.piece.len();
            if self.image.piece.is_empty() && bytes.len() >= room {
                let (piece, rest) = bytes.split_at(room);
                self.place(piece)?;
                bytes = rest;
                continue;
            }
            let (part, rest) = bytes.split_at(room.min(bytes.len()));
            self.image.piece.extend_from_slice(part);
            if part.len() == room {
                self.end_piece()?;
            }
            bytes = rest;
        }
        Ok(())
    }

    pub fn finish(mut self) -> io::Result<Content> {
        self.end_piece()?;
        self.content.extents.shrink_to_fit();
        Ok(self.content)
    }

    fn end_piece(&mut self) -> io::Result<()> {
        let mut piece = std::mem::take(&mut self.image.piece);
        let bytes = piece.len();
        piece.resize(bytes.next_multiple_of(BLOCK_BYTES), 0);
        let placed = if bytes > 0 { self.place(&piece) } else { Ok(()) };
        piece.clear();
        self.image.piece = piece;
        placed
    }

    /// Gives whole blocks their place, or leaves them out.
    fn place(&mut self, piece: &[u8]) -> io::Result<()> {
        let at = (self.begin / BLOCK) as u32;
        self.begin += piece.len() as u64;
        if piece.len() == HOLE && is_zeros(piece) {
            return Ok(());
        }
        let mut runs = [Run { start: 0, len: 0 }; 2];
        let mut count = 0;
        self.image.space.take((piece.len() / BLOCK_BYTES) as u64, |run| {
            // A piece is far shorter than what lies between two copies of the superblock.
            runs[count] = run;
            count += 1;
        });
        let (mut at, mut rest) = (at, piece);
        for run in &runs[..count] {
            let (part, behind) = rest.split_at(run.len as usize * BLOCK_BYTES);
            append(&mut self.content.extents, at, *run);
            self.image.put(run.start, part)?;
            at += run.len as u32;
            rest = behind;
        }
        Ok(())
    }
}

fn is_zeros(bytes: &[u8]) -> bool {
    // Chunks of a size that the compiler makes vectors of; most files differ in the first.
    bytes.chunks(512).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn image() -> Image {
        Image::new(tempfile::tempfile().expect("a file"))
    }

    /// What a file of the image reads as.
    fn read(image: &mut Image, content: &Content) -> Vec<u8> {
        image.flush().expect("writes");
        let mut bytes = vec![0; content.size as usize];
        for extent in &content.extents {
            let begin = extent.at as usize * BLOCK_BYTES;
            let end = bytes.len().min(begin + extent.len as usize * BLOCK_BYTES);
            image.file.read_exact_at(&mut bytes[begin..end], extent.start * BLOCK).expect("reads");
        }
        bytes
    }

    #[test]
    fn long_zeros_are_holes_and_short_ones_are_not() {
        let mut image = image();
        let bytes = [&[1; 5000][..], &vec![0; 300_000], &[2; 10]].concat();
        let mut file = image.file(bytes.len() as u64);
        for part in bytes.chunks(777) {
            file.write(part).expect("writes");
        }
        let content = file.finish().expect("ends");
        let extents: Vec<(u32, u32)> = content.extents.iter().map(|e| (e.at, e.len)).collect();
        assert_eq!(extents, [(0, 16), (64, 11)]);
        assert!(read(&mut image, &content) == bytes);
    }

    #[test]
    fn what_is_passed_over_is_a_hole_by_whole_blocks() {
        let mut image = image();
        let mut file = image.file(1 << 20);
        let mut want = vec![0; 1 << 20];
        for (offset, byte) in [(10, 1), (4000, 2), (5000, 3), (300_000, 4), (1_048_575, 5)] {
            file.seek(offset).expect("goes on");
            file.write(&[byte]).expect("writes");
            want[offset as usize] = byte;
        }
        let content = file.finish().expect("ends");
        let extents: Vec<(u32, u32)> = content.extents.iter().map(|e| (e.at, e.len)).collect();
        assert_eq!(extents, [(0, 2), (73, 1), (255, 1)]);
        assert!(read(&mut image, &content) == want);
    }

    #[test]
    fn what_a_replaced_file_held_is_gone_from_the_image() {
        let mut image = image();
        let mut keep = |byte: u8, len: usize| {
            let mut file = image.file(len as u64);
            file.write(&vec![byte; len]).expect("writes");
            file.finish().expect("ends")
        };
        let (first, kept) = (keep(1, 40_000), keep(2, 10_000));
        image.release(first.extents);
        let mut file = image.file(5000);
        file.write(&[3; 5000]).expect("writes");
        let small = file.finish().expect("ends");
        assert_eq!(small.extents[0].start, 129, "a freed block is used again");
        assert!(read(&mut image, &kept) == [2; 10_000]);
        let file = image.close(1000).expect("closes");
        let mut bytes = vec![];
        io::Read::read_to_end(&mut &file, &mut bytes).expect("reads");
        assert!(!bytes.contains(&1));
        assert_eq!(bytes.iter().filter(|b| **b == 3).count(), 5000);
        assert!(file.metadata().expect("stats").blocks() * 512 < 40_000);
    }

    #[test]
    fn lists_of_runs_are_joined_and_compared() {
        let runs =
            |list: &[(u64, u64)]| list.iter().map(|&(start, len)| Run { start, len }).collect::<Vec<_>>();
        assert_eq!(merged(runs(&[(5, 2), (1, 3), (4, 1), (9, 1)])), runs(&[(1, 6), (9, 1)]));
        let both = common(&runs(&[(0, 10), (20, 10)]), &runs(&[(5, 3), (9, 15), (29, 5)]));
        assert_eq!(both, runs(&[(5, 3), (9, 1), (20, 4), (29, 1)]));
    }
}
