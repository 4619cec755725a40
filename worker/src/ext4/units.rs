//! The number spaces of a file system, one type each, so that a block is never taken for a byte.
//!
//! They convert only through [`BlockSize`], which exists only for 1 KiB to 64 KiB. Nothing here can overflow: what may
//! leave its range is an `Option`. Every step of a read passes through here, from a file's byte to a byte of the device.

use std::fmt;
use std::num::NonZeroU32;

/// A block of the file system, counted from the start of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockNumber(pub u64);

/// A block of a file, counted from the file's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogicalBlock(pub u32);

/// A group of blocks, with its part of the inode table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupNumber(pub u32);

/// A byte of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteOffset(pub u64);

/// A byte of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileOffset(pub u64);

/// A block of the journal, counted from the journal's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalBlock(pub u32);

/// The number of a transaction. It wraps, so that none is the first and none the last: there is no order but
/// [`Self::is_after`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TransactionId(pub u32);

impl TransactionId {
    /// The transaction that follows.
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether it is later than another, given that the two are less than 2^31 apart.
    pub fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() > 0
    }
}

/// An inode's number. There is no inode 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeNumber(NonZeroU32);

impl InodeNumber {
    /// The root directory.
    pub const ROOT: Self = match NonZeroU32::new(2) {
        Some(two) => Self(two),
        None => panic!("2 is not 0"),
    };

    /// The number, unless it is 0.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number as an integer.
    pub const fn value(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for InodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How long a block is: a power of two from 1 KiB to 64 KiB. All conversions between the units are its methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSize {
    bits: u8,
}

impl BlockSize {
    /// From `s_log_block_size`: the logarithm to base 2, less 10.
    pub fn from_log(log: u32) -> Option<Self> {
        let bits = u8::try_from(log).ok()?.checked_add(10)?;
        (bits <= 16).then_some(Self { bits })
    }

    /// Bytes a block.
    pub fn bytes(self) -> u32 {
        1u32.wrapping_shl(self.bits.into())
    }

    /// Bytes a block, for the sizes of buffers.
    pub fn length(self) -> usize {
        usize_from(self.bytes())
    }

    /// The logarithm of the block size to base 2: 10 to 16.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Where a block of the device begins, unless no device could be so long.
    pub fn byte_offset(self, block: BlockNumber) -> Option<ByteOffset> {
        block.0.checked_mul(self.bytes().into()).map(ByteOffset)
    }

    /// The bytes that so many blocks have, unless they are beyond 64 bits.
    pub fn bytes_of(self, blocks: u64) -> Option<u64> {
        blocks.checked_mul(self.bytes().into())
    }

    /// How many blocks it takes to hold so many bytes.
    pub fn blocks_for(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.bytes().into())
    }

    /// Where a block of a file begins. At most 2^48.
    pub fn file_offset(self, block: LogicalBlock) -> FileOffset {
        FileOffset(u64::from(block.0).wrapping_shl(self.bits.into()))
    }

    /// The block of a file that a byte lies in, unless it is beyond the last block a file can have.
    pub fn logical_block(self, offset: FileOffset) -> Option<LogicalBlock> {
        u32::try_from(offset.0.wrapping_shr(self.bits.into())).ok().map(LogicalBlock)
    }

    /// How far into its block a byte of a file lies.
    pub fn within_block(self, offset: FileOffset) -> u32 {
        let mask = u64::from(self.bytes()).wrapping_sub(1);
        u32::try_from(offset.0 & mask).unwrap_or(0)
    }
}

/// A number as the size of something in memory.
pub(super) fn usize_from(number: u32) -> usize {
    const { assert!(usize::BITS >= u32::BITS) };
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The size of something in memory as a number.
pub(super) fn u64_from(number: usize) -> u64 {
    const { assert!(usize::BITS <= u64::BITS) };
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_end_at_64_kib() {
        assert_eq!(BlockSize::from_log(0).map(BlockSize::bytes), Some(1024));
        assert_eq!(BlockSize::from_log(6).map(BlockSize::bytes), Some(65536));
        assert_eq!(BlockSize::from_log(7), None);
        assert_eq!(BlockSize::from_log(u32::MAX), None);
        assert_eq!(BlockSize::from_log(250), None);
    }

    #[test]
    fn the_units_convert_both_ways_and_stop_at_their_ends() {
        let size = BlockSize::from_log(2).unwrap();
        assert_eq!(size.byte_offset(BlockNumber(3)), Some(ByteOffset(12288)));
        assert_eq!(size.byte_offset(BlockNumber(u64::MAX)), None);
        assert_eq!(size.file_offset(LogicalBlock(u32::MAX)), FileOffset(0xffff_ffff << 12));
        assert_eq!(size.logical_block(FileOffset((0xffff_ffff << 12) + 4095)), Some(LogicalBlock(u32::MAX)));
        assert_eq!(size.logical_block(FileOffset(1 << 44)), None);
        assert_eq!(size.within_block(FileOffset(4096 * 7 + 5)), 5);
        assert_eq!(size.blocks_for(4097), 2);
        assert_eq!(size.blocks_for(u64::MAX), 1 << 52);
    }

    #[test]
    fn transactions_wrap() {
        let (last, first) = (TransactionId(u32::MAX), TransactionId(u32::MAX).next());
        assert_eq!(first, TransactionId(0));
        assert!(first.is_after(last) && !last.is_after(first) && !first.is_after(first));
    }

    #[test]
    fn there_is_no_inode_0() {
        assert_eq!(InodeNumber::new(0), None);
        assert_eq!(InodeNumber::new(2), Some(InodeNumber::ROOT));
    }
}
