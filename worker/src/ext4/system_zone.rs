//! The blocks that are the file system's own, which no file may hold: superblocks and descriptors, bitmaps, inode
//! tables, the journal. The kernel's `block_validity.c`.
//!
//! Built when the file system is opened, from one pass over the group descriptors that also yields the numbers of
//! `statfs`; joined as it grows, so that a file system with flex_bg needs one range for many groups.

use lazaret_policy::corruption::Rule;
use lazaret_policy::planted;

use super::Filesystem;
use super::group::{self, Located};
use super::inode::Inode;
use super::map::MappingKind;
use super::superblock::Superblock;
use super::units::{BlockNumber, FileOffset, GroupNumber, InodeNumber};
use crate::device::Device;

/// The most ranges that are kept: 8 MiB, and as much again for a moment. A bound of this reader.
const MOST_RANGES: usize = 1 << 19;
/// The most runs of a journal that are kept. mke2fs makes it in one piece where it can.
const MOST_JOURNAL_RUNS: u32 = 1 << 12;

/// Blocks from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
}

/// Ranges in order, apart from each other.
#[derive(Debug, Default)]
struct Ranges(Vec<Range>);

/// What no file may hold.
#[derive(Debug, Default)]
pub(super) struct SystemZone {
    blocks: u64,
    first: u64,
    fixed: Ranges,
    journal: Ranges,
    journal_inode: Option<InodeNumber>,
}

/// What the descriptors of all groups say together, in blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Blocks that are the file system's own, without the journal's.
    pub(super) overhead: u64,
    /// Free blocks.
    pub(super) free_blocks: u64,
    /// Free inodes.
    pub(super) free_inodes: u64,
}

impl SystemZone {
    /// Reads every group descriptor once. One that cannot be read protects nothing: its group cannot be read either.
    /// None if it took more ranges than this reader keeps.
    pub(super) fn survey(device: &Device, superblock: &Superblock) -> Option<(Self, Totals)> {
        let mut ranges = Ranges::default();
        let mut totals = Totals { overhead: superblock.first_data_block.0, ..Totals::default() };
        let table = superblock.table_blocks();
        let per_block = superblock.descriptors_per_block();
        let size = usize::from(superblock.descriptor_size);
        let mut block = vec![0; superblock.block_size.length()];

        for index in 0..superblock.descriptor_blocks() {
            let offset = superblock.block_size.byte_offset(group::descriptor_block(superblock, index));
            let readable = offset.is_some_and(|offset| device.read_at(offset.0, &mut block).is_ok());
            let first = index.saturating_mul(per_block);
            let last = first.saturating_add(per_block).min(superblock.groups);
            for (number, bytes) in (first..last).zip(block.chunks_exact(size)) {
                let group = GroupNumber(number);
                let base = group::base_blocks(superblock, group);
                ranges.add(superblock.first_block(group).0, base, superblock.blocks)?;
                totals.overhead = totals.overhead.saturating_add(base).saturating_add(table).saturating_add(2);
                if !readable {
                    continue;
                }
                let located = Located::of(superblock, &group::raw(bytes));
                ranges.add(located.block_bitmap, 1, superblock.blocks)?;
                ranges.add(located.inode_bitmap, 1, superblock.blocks)?;
                ranges.add(located.inode_table, table, superblock.blocks)?;
                // The bitmaps, and so the descriptors, count clusters.
                let free = located.free_blocks.saturating_mul(superblock.cluster_ratio.into());
                totals.free_blocks = totals.free_blocks.saturating_add(free);
                totals.free_inodes = totals.free_inodes.saturating_add(located.free_inodes);
            }
        }
        ranges.sort();
        if superblock.cluster_ratio > 1 {
            totals.overhead = ranges.clusters(superblock).saturating_mul(superblock.cluster_ratio.into());
        }
        let zone = Self {
            blocks: superblock.blocks,
            first: superblock.first_data_block.0,
            fixed: ranges,
            journal: Ranges::default(),
            journal_inode: superblock.journal_inode,
        };
        Some((zone, totals))
    }

    /// The blocks of the journal, as far as its map can be read: what cannot be read is not replayed either. There are at
    /// most [`MOST_JOURNAL_RUNS`].
    pub(super) fn add_journal(&mut self, runs: impl Iterator<Item = (BlockNumber, u64)>) {
        for (block, count) in runs {
            let _ = self.journal.add(block.0, count, self.blocks);
        }
        self.journal.sort();
    }

    /// The rule that a file would break by holding these blocks.
    pub(super) fn check(&self, inode: InodeNumber, start: BlockNumber, count: u64) -> Result<(), Rule> {
        let end = start
            .0
            .checked_add(count)
            .filter(|&end| end <= self.blocks || planted("beyond"))
            .ok_or(Rule::BlockInFileSystem)?;
        let range = Range { start: start.0, end };
        if range.start <= self.first {
            return Err(Rule::BlockInFileSystem);
        }
        if self.fixed.overlaps(range) && !planted("zone")
            || (Some(inode) != self.journal_inode && self.journal.overlaps(range))
        {
            return Err(Rule::BlockNotSystem);
        }
        Ok(())
    }
}

/// The runs of data of the journal's inode.
pub(super) fn journal_runs(fs: &Filesystem, journal: &Inode) -> Vec<(BlockNumber, u64)> {
    let size = fs.superblock().block_size;
    let (mut runs, mut budget) = (Vec::new(), fs.budget());
    let mut offset = 0;
    for _ in 0..MOST_JOURNAL_RUNS {
        let left = journal.size.saturating_sub(offset);
        let Ok(mapping) = fs.map_within(journal, FileOffset(offset), left, &mut budget) else { break };
        if let MappingKind::Data(start) = mapping.kind {
            let block = start.0.checked_shr(size.bits().into()).unwrap_or(0);
            runs.push((BlockNumber(block), size.blocks_for(mapping.length)));
        }
        offset = offset.saturating_add(mapping.length);
        if offset >= journal.size {
            break;
        }
    }
    runs
}

impl Ranges {
    /// Adds what lies within the file system, joined to one of the last ranges where they touch: groups are walked in
    /// order, and their structures lie in a few rows side by side. None if that were one more than [`MOST_RANGES`].
    fn add(&mut self, start: u64, count: u64, blocks: u64) -> Option<()> {
        let end = start.saturating_add(count).min(blocks);
        if start >= end {
            return Some(());
        }
        let has_room = self.0.len() < MOST_RANGES;
        match self.0.iter_mut().rev().take(8).find(|range| range.start <= start && start <= range.end) {
            Some(range) => range.end = range.end.max(end),
            None if has_room => self.0.push(Range { start, end }),
            None => return None,
        }
        Some(())
    }

    fn sort(&mut self) {
        self.0.sort_unstable_by_key(|range| range.start);
        self.0.dedup_by(|next, range| {
            let touches = next.start <= range.end;
            if touches {
                range.end = range.end.max(next.end);
            }
            touches
        });
        self.0.shrink_to_fit();
    }

    /// How many clusters the blocks lie in.
    fn clusters(&self, superblock: &Superblock) -> u64 {
        let cluster = |block: u64| {
            let within = block.saturating_sub(superblock.first_data_block.0);
            within.checked_div(superblock.cluster_ratio.into()).unwrap_or(within)
        };
        let (mut count, mut counted) = (0u64, 0);
        for range in &self.0 {
            let first = cluster(range.start).max(counted);
            let behind = cluster(range.end.saturating_sub(1)).saturating_add(1);
            count = count.saturating_add(behind.saturating_sub(first));
            counted = behind.max(counted);
        }
        count
    }

    fn overlaps(&self, range: Range) -> bool {
        let behind = self.0.partition_point(|own| own.start < range.end);
        let last = behind.checked_sub(1).and_then(|index| self.0.get(index));
        last.is_some_and(|own| own.end > range.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(added: &[(u64, u64)]) -> Ranges {
        let mut ranges = Ranges::default();
        for &(start, count) in added {
            ranges.add(start, count, 1000);
        }
        ranges.sort();
        ranges
    }

    #[test]
    fn what_touches_becomes_one_range() {
        // Three rows side by side, as with flex_bg.
        let rows = ranges(&[(10, 1), (20, 1), (30, 5), (11, 1), (21, 1), (35, 5), (12, 1), (22, 1), (40, 5)]);
        let expected = [(10, 13), (20, 23), (30, 45)].map(|(start, end)| Range { start, end });
        assert_eq!(rows.0, expected);
        assert_eq!(ranges(&[(50, 10), (10, 45), (12, 3)]).0, [Range { start: 10, end: 60 }]);
    }

    #[test]
    fn what_lies_outside_is_cut_off() {
        assert_eq!(ranges(&[(990, 20), (2000, 5), (u64::MAX, 5), (7, 0)]).0, [Range { start: 990, end: 1000 }]);
    }

    #[test]
    fn a_range_is_found_by_its_first_and_its_last_block() {
        let zone = SystemZone {
            blocks: 1000,
            first: 0,
            fixed: ranges(&[(10, 5), (100, 1)]),
            journal: ranges(&[(200, 10)]),
            journal_inode: InodeNumber::new(8),
        };
        let check = |inode, start, count| zone.check(InodeNumber::new(inode).unwrap(), BlockNumber(start), count);
        assert_eq!(check(12, 15, 85), Ok(()));
        for (start, count) in [(9, 2), (10, 1), (14, 1), (14, 9), (5, 20), (50, 51), (100, 1), (209, 1), (195, 6)] {
            assert_eq!(check(12, start, count), Err(Rule::BlockNotSystem), "{start} {count}");
        }
        assert_eq!(check(8, 200, 10), Ok(()));
        assert_eq!(check(8, 10, 1), Err(Rule::BlockNotSystem));
        assert_eq!(check(12, 999, 1), Ok(()));
        for (start, count) in [(0, 1), (999, 2), (1000, 1), (u64::MAX, 1), (1, u64::MAX)] {
            assert_eq!(check(12, start, count), Err(Rule::BlockInFileSystem), "{start} {count}");
        }
    }
}
