//! Tags: what a descriptor says of the blocks that follow it in the log, one tag a block.
//!
//! What always holds here: reading the tags of a descriptor ends, at the last of them or where no other fits, and none
//! lies outside the descriptor.

use zerocopy::FromBytes;

use super::format::{self, TAG_ESCAPED, TAG_LAST, TAG_SAME_UUID};
use super::superblock::{Checksums, Superblock};

/// What a tag says of one block in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// The block of the file system that it is a copy of. Not checked.
    pub(super) block: u64,
    /// Its first four bytes were the magic number, and are zeros in the log.
    pub(super) escaped: bool,
    /// The checksum of the block in the log: of version 2 the lower half.
    pub(super) checksum: u32,
}

/// The tags of one descriptor.
pub(super) struct Tags<'a> {
    rest: &'a [u8],
    size: usize,
    v3: bool,
    wide: bool,
}

impl<'a> Tags<'a> {
    /// The tags of a descriptor, which is a whole block.
    pub(super) fn of(descriptor: &'a [u8], journal: &Superblock) -> Self {
        // The last four bytes are a checksum's.
        let end = descriptor.len().saturating_sub(if journal.seed().is_some() { 4 } else { 0 });
        let rest = descriptor.get(size_of::<format::Header>()..end).unwrap_or_default();
        let v3 = matches!(journal.checksums, Checksums::V3(_));
        Self { rest, size: journal.tag_size(), v3, wide: journal.wide }
    }
}

impl Iterator for Tags<'_> {
    type Item = Tag;

    fn next(&mut self) -> Option<Tag> {
        let (raw, rest) = self.rest.split_at_checked(self.size)?;
        let (low, high, flags, checksum) = if self.v3 {
            let tag = format::Tag3::ref_from_bytes(raw).ok()?;
            let [_, _, upper, lower] = tag.t_flags.get().to_be_bytes();
            let flags = u16::from_be_bytes([upper, lower]);
            (tag.t_blocknr.get(), tag.t_blocknr_high.get(), flags, tag.t_checksum.get())
        } else {
            // The shortest tags end before the upper half of the number.
            let mut whole = [0; size_of::<format::Tag>()];
            whole.iter_mut().zip(raw).for_each(|(to, from)| *to = *from);
            let tag = format::Tag::ref_from_bytes(&whole).ok()?;
            (tag.t_blocknr.get(), tag.t_blocknr_high.get(), tag.t_flags.get(), tag.t_checksum.get().into())
        };
        let high = if self.wide { u64::from(high) << 32 } else { 0 };
        // A UUID takes 16 bytes.
        let follows = if flags & TAG_SAME_UUID == 0 { 16 } else { 0 };
        self.rest = if flags & TAG_LAST == 0 { rest.get(follows..).unwrap_or_default() } else { &[] };
        Some(Tag { block: high | u64::from(low), escaped: flags & TAG_ESCAPED != 0, checksum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::units::{JournalBlock, TransactionId};

    fn journal(checksums: Checksums, wide: bool) -> Superblock {
        Superblock {
            start: Some(JournalBlock(1)),
            sequence: TransactionId(1),
            log: 1..1024,
            fast: 0..0,
            checksums,
            wide,
            asynchronous: false,
            users: 1,
        }
    }

    /// A descriptor of 1024 bytes, filled with tags of this size: the first is followed by a UUID, the third is the last.
    fn descriptor(size: usize, v3: bool) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        for (number, flags) in [(1_u8, 0_u8), (2, 2 | 1), (3, 2 | 8), (4, 2)] {
            let mut tag = vec![0; size];
            tag[3] = number;
            tag[7] = flags;
            if v3 {
                tag[11] = 9;
                tag[12..16].copy_from_slice(&[0xa, 0xb, 0xc, number]);
            } else {
                tag[4..6].copy_from_slice(&[0xc, number]);
                if size >= 12 {
                    tag[11] = 9;
                }
            }
            bytes.extend(tag);
            if flags & 2 == 0 {
                bytes.extend([0xee; 16]);
            }
        }
        bytes.resize(1024, 0);
        bytes
    }

    #[test]
    fn tags_of_every_size_are_read() {
        for (checksums, wide, size) in [
            (Checksums::None, false, 8),
            (Checksums::V1, true, 12),
            (Checksums::V2(0), false, 10),
            (Checksums::V2(0), true, 14),
            (Checksums::V3(0), false, 16),
            (Checksums::V3(0), true, 16),
        ] {
            let journal = journal(checksums, wide);
            assert_eq!(journal.tag_size(), size);
            let v3 = matches!(checksums, Checksums::V3(_));
            let descriptor = descriptor(size, v3);
            let tags: Vec<_> = Tags::of(&descriptor, &journal).collect();
            let high = if wide { 9 << 32 } else { 0 };
            let sum = |number| if v3 { 0x0a0b_0c00 | number } else { 0x0c00 | number };
            let tag = |number: u32, escaped| Tag { block: high | u64::from(number), escaped, checksum: sum(number) };
            assert_eq!(tags, [tag(1, false), tag(2, true), tag(3, false)]);
        }
    }

    #[test]
    fn without_a_last_tag_they_end_with_the_block() {
        let mut same = vec![0; 1024];
        same[12..].as_chunks_mut::<8>().0.iter_mut().for_each(|tag| tag[7] = 2);
        assert_eq!(Tags::of(&same, &journal(Checksums::None, false)).count(), 126);
        assert_eq!(Tags::of(&[0; 1024], &journal(Checksums::None, false)).count(), 42);
        assert_eq!(Tags::of(&[0; 1024], &journal(Checksums::V3(0), false)).count(), 32);
        assert_eq!(Tags::of(&[0; 16], &journal(Checksums::V3(0), false)).count(), 0);
    }
}
