//! The blocks of a device that have a newer copy elsewhere on it: what a journal that was not replayed still holds.
//!
//! What always holds here: blocks rise and are unique, so that a lookup is a binary search and an empty overlay costs
//! one comparison. On the way of a read it stands before the mapping: `Device` asks it what to read instead.

use std::collections::BTreeMap;
use std::ops::Range;

/// What the first four bytes of an escaped block are: jbd2's magic number, big-endian. The journal zeroes them in its
/// copy, because a block of the journal that begins so would be taken for one of the journal's own.
pub(super) const ESCAPED: [u8; 4] = 0xC03B_3998_u32.to_be_bytes();

/// A block, and the newer copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Substitute {
    /// The block that is not to be read, counted in blocks of the overlay.
    pub block: u64,
    /// Where its newer copy begins, in bytes of the device.
    pub address: u64,
    /// Its first four bytes are jbd2's magic number, and zeros in the copy.
    pub escaped: bool,
}

/// Which blocks are read elsewhere.
#[derive(Debug, Default)]
pub struct Overlay {
    /// Bytes of a block: a power of two once there is a substitute.
    block_size: u64,
    /// Rising by block.
    substitutes: Box<[Substitute]>,
    /// The blocks that are not on the device at all: each has a substitute, whose address means nothing.
    owned: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    /// `block_size` is a power of two. Where a block has several substitutes the last one counts. The caller bounds
    /// their number; each costs 24 bytes.
    pub fn new(block_size: u32, mut substitutes: Vec<Substitute>) -> Self {
        debug_assert!(block_size.is_power_of_two());
        substitutes.reverse();
        substitutes.sort_by_key(|substitute| substitute.block);
        substitutes.dedup_by_key(|substitute| substitute.block);
        Self { block_size: u64::from(block_size), substitutes: substitutes.into_boxed_slice(), owned: BTreeMap::new() }
    }

    /// Further blocks, which are here and nowhere on the device, whatever was said of them before. They may lie behind
    /// the device's end. Each is as long as a block; the caller bounds their number.
    pub fn own(&mut self, block_size: u32, blocks: BTreeMap<u64, Box<[u8]>>) {
        debug_assert!(blocks.values().all(|bytes| bytes.len() as u64 == u64::from(block_size)));
        let here = |&block: &u64| Substitute { block, address: u64::MAX, escaped: false };
        let substitutes = self.substitutes.iter().copied().chain(blocks.keys().map(here));
        let substitutes = substitutes.collect();
        *self = Self { owned: blocks, ..Self::new(block_size, substitutes) };
    }

    /// The bytes of a block that is not on the device.
    pub(super) fn owned(&self, substitute: &Substitute) -> Option<&[u8]> {
        self.owned.get(&substitute.block).map(|bytes| &bytes[..])
    }

    /// Whether every block is read where it lies.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.substitutes.is_empty()
    }

    /// How many blocks are read elsewhere.
    pub fn len(&self) -> usize {
        self.substitutes.len()
    }

    /// The substitutes for blocks that hold a byte of the range, rising.
    pub(super) fn within(&self, bytes: Range<u64>) -> &[Substitute] {
        if self.is_empty() || bytes.is_empty() {
            return &[];
        }
        let (first, last) = (bytes.start / self.block_size, (bytes.end - 1) / self.block_size);
        let begin = self.substitutes.partition_point(|substitute| substitute.block < first);
        let end = begin + self.substitutes[begin..].partition_point(|substitute| substitute.block <= last);
        &self.substitutes[begin..end]
    }

    /// The bytes of the device that a substitute stands for, or none if no device is so long.
    pub(super) fn bytes_of(&self, substitute: &Substitute) -> Range<u64> {
        let begin = substitute.block.saturating_mul(self.block_size);
        begin..begin.saturating_add(self.block_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn substitute(block: u64, address: u64) -> Substitute {
        Substitute { block, address, escaped: false }
    }

    #[test]
    fn the_last_substitute_for_a_block_counts_and_ranges_touch_whole_blocks() {
        let overlay =
            Overlay::new(1024, vec![substitute(7, 1), substitute(3, 2), substitute(7, 3), substitute(u64::MAX, 4)]);
        let blocks = |bytes| overlay.within(bytes).iter().map(|s| (s.block, s.address)).collect::<Vec<_>>();
        assert_eq!(blocks(0..u64::MAX), [(3, 2), (7, 3)]);
        assert_eq!(blocks(4095..4096), [(3, 2)]);
        assert_eq!(blocks(4096..7168), []);
        assert_eq!(blocks(4096..7169), [(7, 3)]);
        assert_eq!(blocks(7168..7168), []);
        assert!(Overlay::default().is_empty() && Overlay::default().within(0..9).is_empty());
    }
}
