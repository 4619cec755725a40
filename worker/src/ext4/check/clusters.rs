//! Which clusters are in use: a bit each, kept only where one is.
//!
//! Without the feature bigalloc a cluster is a block. They count from where group 0 begins, as the bitmaps do.

use lazaret_policy::feature::RoCompat;

use crate::error::{Error, Result};
use crate::ext4::superblock::Superblock;
use crate::ext4::units::{BlockNumber, GroupNumber};

/// Bytes of bits that are kept together.
const CHUNK: usize = 4096;
/// Bits of a chunk, as a power of two.
const CHUNK_BITS: u32 = 15;
/// How often all clusters may be marked, one with another. A sound file system marks each once; where files share
/// blocks, more often.
const MOST_TIMES: u64 = 4;
const MOST_TIMES_SHARED: u64 = 64;

/// The clusters that were seen in use.
pub(super) struct Clusters {
    chunks: Vec<Option<Box<[u8; CHUNK]>>>,
    first: u64,
    blocks: u64,
    ratio: u32,
    per_group: u64,
    /// How many more may be marked.
    left: u64,
}

impl Clusters {
    pub(super) fn new(superblock: &Superblock) -> Result<Self> {
        let ratio = superblock.cluster_ratio.max(1);
        let all = superblock.blocks.div_ceil(ratio.into());
        let count = usize::try_from(all >> CHUNK_BITS).ok().and_then(|count| count.checked_add(1));
        let count = count.ok_or(Error::OutOfMemory)?;
        let mut chunks = Vec::new();
        chunks.try_reserve_exact(count).map_err(|_| Error::OutOfMemory)?;
        chunks.resize_with(count, || None);
        let per_group = superblock.blocks_per_group.checked_div(ratio).unwrap_or(1).into();
        let shared = superblock.ro_compat.contains(RoCompat::SHARED_BLOCKS);
        let left = all.saturating_mul(if shared { MOST_TIMES_SHARED } else { MOST_TIMES });
        Ok(Self { chunks, first: superblock.first_data_block.0, blocks: superblock.blocks, ratio, per_group, left })
    }

    /// The cluster of a block.
    pub(super) fn of(&self, block: BlockNumber) -> u64 {
        block.0.saturating_sub(self.first).checked_div(self.ratio.into()).unwrap_or(0)
    }

    /// The first block of a cluster.
    pub(super) fn block(&self, cluster: u64) -> u64 {
        cluster.saturating_mul(self.ratio.into()).saturating_add(self.first)
    }

    /// How many blocks a cluster has.
    pub(super) fn ratio(&self) -> u64 {
        self.ratio.into()
    }

    /// The clusters of a group.
    pub(super) fn of_group(&self, group: GroupNumber) -> std::ops::Range<u64> {
        let begin = u64::from(group.0).saturating_mul(self.per_group);
        let all = self.blocks.saturating_sub(self.first).div_ceil(self.ratio.into());
        begin.min(all)..begin.saturating_add(self.per_group).min(all)
    }

    /// Clusters a group has, but the last.
    pub(super) fn per_group(&self) -> u64 {
        self.per_group
    }

    /// Marks blocks; the first cluster that was in use already, if there is one.
    pub(super) fn mark_blocks(&mut self, start: BlockNumber, count: u64) -> Result<Option<u64>> {
        if count == 0 {
            return Ok(None);
        }
        let last = BlockNumber(start.0.saturating_add(count).saturating_sub(1).min(self.blocks.saturating_sub(1)));
        self.mark(self.of(start), self.of(last).saturating_add(1))
    }

    /// Marks the clusters from one to before another; the first that was in use already, if there is one. Where far more
    /// was marked than there is, no more is looked at: all of it was in use already.
    pub(super) fn mark(&mut self, from: u64, to: u64) -> Result<Option<u64>> {
        let Some(left) = self.left.checked_sub(to.saturating_sub(from)) else { return Ok(Some(from)) };
        self.left = left;
        let (mut at, mut double) = (from, None);
        while at < to {
            // The bits of one byte.
            let (bit, left) = (at & 7, to.saturating_sub(at));
            let count = left.min(8u64.saturating_sub(bit));
            let byte = self.byte_of(at >> 3)?;
            let mask = ones(count).wrapping_shl(u32::try_from(bit).unwrap_or(0));
            let both = *byte & mask;
            if both != 0 && double.is_none() {
                double = Some((at & !7).saturating_add(both.trailing_zeros().into()));
            }
            *byte |= mask;
            at = at.saturating_add(count);
        }
        Ok(double)
    }

    /// Eight bits from a cluster on, the first the lowest.
    pub(super) fn eight(&self, from: u64) -> u8 {
        let (index, bit) = (from >> 3, u32::try_from(from & 7).unwrap_or(0));
        let low = self.byte_at(index);
        if bit == 0 {
            return low;
        }
        let high = self.byte_at(index.saturating_add(1));
        let both = u16::from_le_bytes([low, high]).wrapping_shr(bit);
        let [eight, _] = both.to_le_bytes();
        eight
    }

    /// How many clusters of a range are in use.
    pub(super) fn count(&self, range: std::ops::Range<u64>) -> u64 {
        let (mut at, mut count) = (range.start, 0_u64);
        while at < range.end {
            let chunk = at >> CHUNK_BITS;
            if usize::try_from(chunk).ok().and_then(|chunk| self.chunks.get(chunk)).is_none_or(Option::is_none) {
                at = chunk.saturating_add(1) << CHUNK_BITS;
                continue;
            }
            let left = range.end.saturating_sub(at).min(8);
            count = count.saturating_add((self.eight(at) & ones(left)).count_ones().into());
            at = at.saturating_add(8);
        }
        count
    }

    fn byte_at(&self, index: u64) -> u8 {
        let chunk = usize::try_from(index >> (CHUNK_BITS - 3)).ok().and_then(|chunk| self.chunks.get(chunk));
        let chunk = chunk.and_then(Option::as_ref);
        let within = usize::try_from(index).unwrap_or(0) & (CHUNK - 1);
        chunk.and_then(|chunk| chunk.get(within)).copied().unwrap_or(0)
    }

    fn byte_of(&mut self, index: u64) -> Result<&mut u8> {
        let chunk = usize::try_from(index >> (CHUNK_BITS - 3)).map_err(|_| Error::OutOfMemory)?;
        let chunk = self.chunks.get_mut(chunk).ok_or(Error::Invalid)?;
        let within = usize::try_from(index).unwrap_or(0) & (CHUNK - 1);
        if chunk.is_none() {
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(CHUNK).map_err(|_| Error::OutOfMemory)?;
            bytes.resize(CHUNK, 0);
            *chunk = bytes.into_boxed_slice().try_into().ok();
        }
        chunk.as_mut().and_then(|chunk| chunk.get_mut(within)).ok_or(Error::OutOfMemory)
    }
}

/// So many ones, at most 8, from the lowest bit on.
pub(super) fn ones(count: u64) -> u8 {
    0xff_u8.checked_shr(u32::try_from(8u64.saturating_sub(count)).unwrap_or(8)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clusters() -> Clusters {
        Clusters {
            chunks: (0..3).map(|_| None).collect(),
            first: 1,
            blocks: 70_001,
            ratio: 1,
            per_group: 8192,
            left: 140_002,
        }
    }

    #[test]
    fn every_range_is_marked_and_the_first_double_mark_is_told() {
        for (from, to) in [(0, 1), (3, 8), (5, 20), (7, 9), (32_760, 32_780), (0, 70_000)] {
            let mut clusters = clusters();
            assert_eq!(clusters.mark(from, to), Ok(None));
            assert_eq!(clusters.count(0..70_000), to - from);
            assert_eq!(clusters.count(from..to), to - from);
            assert_eq!(clusters.mark(to - 1, to + 3), Ok(Some(to - 1)));
            assert_eq!(clusters.mark(from, from + 1), Ok(Some(from)));
        }
    }

    #[test]
    fn what_is_marked_too_often_is_looked_at_no_more() {
        let mut clusters = clusters();
        assert_eq!(clusters.mark(0, 70_000), Ok(None));
        assert_eq!(clusters.mark(0, 70_000), Ok(Some(0)));
        assert_eq!(clusters.mark(70_000, 70_002), Ok(None));
        assert_eq!((clusters.mark(70_001, 70_003), clusters.count(0..98_304)), (Ok(Some(70_001)), 70_002));
    }

    #[test]
    fn blocks_are_clusters_from_the_first_group_on() {
        let mut clusters = clusters();
        clusters.mark_blocks(BlockNumber(1), 2).unwrap();
        assert_eq!((clusters.eight(0), clusters.eight(1), clusters.block(1)), (3, 1, 2));
        assert_eq!(clusters.of_group(GroupNumber(8)), 65_536..70_000);
        assert_eq!((ones(0), ones(3), ones(8)), (0, 7, 0xff));
    }
}
