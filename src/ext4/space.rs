//! Which blocks are taken. Space is handed out from the front; what is given back is used again, the best fit first, so that
//! the same calls give the same blocks on any machine.
//!
//! How large the file system will be is not known while its files arrive, but where copies of the superblock will lie is:
//! they are left out as the end moves past them.

use std::collections::{BTreeMap, BTreeSet};

use crate::ext4::geometry::{BLOCKS_PER_GROUP, SUPER_BLOCKS, has_super};

/// Blocks in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub start: u64,
    pub len: u64,
}

impl Run {
    pub fn end(self) -> u64 {
        self.start + self.len
    }
}

#[derive(Debug, Clone)]
pub struct Space {
    /// Nothing beyond is taken.
    end: u64,
    /// Free runs before the end, by start, and the same by length.
    free: BTreeMap<u64, u64>,
    by_len: BTreeSet<(u64, u64)>,
}

impl Default for Space {
    /// Only the superblock and the descriptors are taken.
    fn default() -> Self {
        Self { end: SUPER_BLOCKS, free: BTreeMap::new(), by_len: BTreeSet::new() }
    }
}

impl Space {
    /// The first block that was never taken.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Free runs before the end, in order.
    pub fn free(&self) -> impl Iterator<Item = Run> {
        self.free.iter().map(|(&start, &len)| Run { start, len })
    }

    pub fn free_blocks(&self) -> u64 {
        self.free.values().sum()
    }

    /// Takes `blocks` blocks: one run where something free fits or nothing lies in the way, else several.
    pub fn take(&mut self, mut blocks: u64, mut each: impl FnMut(Run)) {
        if let Some(run) = self.best_fit(blocks) {
            return each(run);
        }
        while blocks > 0 {
            let len = blocks.min(self.room());
            each(Run { start: self.end, len });
            self.advance(len);
            blocks -= len;
        }
    }

    /// Takes `blocks` blocks in one run, at most as many as lie between two copies of the superblock.
    pub fn take_run(&mut self, blocks: u64) -> Run {
        if let Some(run) = self.best_fit(blocks) {
            return run;
        }
        let room = self.room();
        if room < blocks {
            let start = self.end;
            self.advance(room);
            self.give_back(Run { start, len: room });
        }
        let run = Run { start: self.end, len: blocks };
        self.advance(blocks);
        run
    }

    /// Makes a run free that was taken.
    pub fn give_back(&mut self, run: Run) {
        if run.len == 0 {
            return;
        }
        let Run { mut start, mut len } = run;
        if let Some((&before, &before_len)) = self.free.range(..start).next_back()
            && before + before_len == start
        {
            self.remove(before, before_len);
            (start, len) = (before, before_len + len);
        }
        if let Some(&after_len) = self.free.get(&(start + len)) {
            self.remove(start + len, after_len);
            len += after_len;
        }
        self.free.insert(start, len);
        self.by_len.insert((len, start));
    }

    fn best_fit(&mut self, blocks: u64) -> Option<Run> {
        let &(len, start) = self.by_len.range((blocks, 0)..).next().filter(|_| blocks > 0)?;
        self.remove(start, len);
        self.give_back(Run { start: start + blocks, len: len - blocks });
        Some(Run { start, len: blocks })
    }

    fn remove(&mut self, start: u64, len: u64) {
        self.free.remove(&start);
        self.by_len.remove(&(len, start));
    }

    /// How many blocks lie between the end and the next copy of the superblock.
    fn room(&self) -> u64 {
        let mut group = self.end / BLOCKS_PER_GROUP + 1;
        while !has_super(group) {
            group += 1;
        }
        group * BLOCKS_PER_GROUP - self.end
    }

    fn advance(&mut self, blocks: u64) {
        self.end += blocks;
        if self.end.is_multiple_of(BLOCKS_PER_GROUP) && has_super(self.end / BLOCKS_PER_GROUP) {
            self.end += SUPER_BLOCKS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(space: &mut Space, blocks: u64) -> Vec<(u64, u64)> {
        let mut runs = vec![];
        space.take(blocks, |run| runs.push((run.start, run.len)));
        runs
    }

    #[test]
    fn copies_of_the_superblock_are_left_out() {
        let mut space = Space::default();
        assert_eq!(take(&mut space, 32_639), [(129, 32_639)]);
        assert_eq!(take(&mut space, 1), [(32_897, 1)], "group 1 begins with a copy");
        assert_eq!(
            take(&mut space, 70_000),
            [(32_898, 65_406), (98_433, 4594)],
            "group 2 has none, group 3 has"
        );
    }

    #[test]
    fn what_is_given_back_is_joined_and_the_best_fit_is_used_first() {
        let mut space = Space::default();
        take(&mut space, 100);
        for (start, len) in [(130, 2), (140, 5), (132, 3), (150, 1)] {
            space.give_back(Run { start, len });
        }
        assert_eq!(
            space.free().map(|r| (r.start, r.len)).collect::<Vec<_>>(),
            [(130, 5), (140, 5), (150, 1)]
        );
        assert_eq!(take(&mut space, 1), [(150, 1)]);
        assert_eq!(take(&mut space, 4), [(130, 4)]);
        assert_eq!(take(&mut space, 1), [(134, 1)]);
        assert_eq!(take(&mut space, 6), [(229, 6)]);
        assert_eq!(space.free_blocks(), 5);
    }

    #[test]
    fn a_run_in_one_piece_goes_around_a_copy() {
        let mut space = Space::default();
        take(&mut space, 32_630);
        let run = space.take_run(20);
        assert_eq!((run.start, run.len), (32_897, 20));
        assert_eq!(space.free().collect::<Vec<_>>(), [Run { start: 32_759, len: 9 }]);
    }

    proptest::proptest! {
        #[test]
        fn no_block_is_taken_twice(ops in proptest::collection::vec((0u64..4, 1u64..3000), 1..200)) {
            let mut space = Space::default();
            let mut held: Vec<Run> = vec![];
            for (op, n) in ops {
                match op {
                    0 if !held.is_empty() => {
                        let run = held.swap_remove(n as usize % held.len());
                        space.give_back(run);
                    }
                    1 => held.push(space.take_run(n)),
                    _ => space.take(n, |run| held.push(run)),
                }
                let mut all: Vec<Run> = held.iter().copied().chain(space.free()).collect();
                all.sort_by_key(|r| r.start);
                for pair in all.windows(2) {
                    assert!(pair[0].end() <= pair[1].start, "{pair:?}");
                }
                for run in &held {
                    for group in run.start / BLOCKS_PER_GROUP..=(run.end() - 1) / BLOCKS_PER_GROUP {
                        let first = group * BLOCKS_PER_GROUP;
                        assert!(!has_super(group) || run.start >= first + SUPER_BLOCKS || run.end() <= first);
                    }
                }
                assert!(all.last().is_none_or(|r| r.end() <= space.end()));
            }
        }
    }
}
