//! The structures of a journal as they lie on the disk: big-endian, with the names of the kernel's jbd2.
//!
//! The only place where big-endian is read. Nothing here was checked. The layout is asserted beneath each structure
//! against `Documentation/filesystems/ext4/journal.rst`. Fast commits are ext4's own and little-endian: they stand in
//! `fast_commit.rs`.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::layout::layout;

/// `h_magic` of every block that is the journal's own.
pub(super) const MAGIC: u32 = 0xc03b_3998;
/// `s_feature_compat`: the commit block has a checksum of the whole transaction. Version 1 of the checksums.
pub(super) const COMPAT_CHECKSUM: u32 = 0x1;
/// `s_checksum_type`: crc32c.
pub(super) const CHECKSUM_CRC32C: u8 = 4;
/// `h_chksum_type`: crc32, as version 1 of the checksums has it.
pub(super) const CHECKSUM_CRC32: u8 = 1;
/// `s_num_fc_blks` where it is 0.
pub(super) const DEFAULT_FAST_BLOCKS: u32 = 256;
/// A log is not made shorter than this for the sake of fast commits.
pub(super) const FEWEST_LOG_BLOCKS: u32 = 1024;
/// `t_flags`: the first four bytes of the block were the magic number and are zeros in the log.
pub(super) const TAG_ESCAPED: u16 = 0x1;
/// `t_flags`: no UUID follows the tag.
pub(super) const TAG_SAME_UUID: u16 = 0x2;
/// `t_flags`: the last tag of its block.
pub(super) const TAG_LAST: u16 = 0x8;

bitflags::bitflags! {
    /// `s_feature_incompat` of a journal.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Incompat: u32 {
        /// There are revoke records.
        const REVOKE = 0x1;
        /// Block numbers have 64 bits.
        const SIXTY_FOUR_BIT = 0x2;
        /// A commit block may reach the disk before its transaction.
        const ASYNC_COMMIT = 0x4;
        /// Checksums of version 2.
        const CHECKSUM_V2 = 0x8;
        /// Checksums of version 3.
        const CHECKSUM_V3 = 0x10;
        /// The journal ends with room for fast commits.
        const FAST_COMMIT = 0x20;
    }
}

/// What every block of the journal's own begins with: `struct journal_header_s`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) h_magic: U32,
    pub(super) h_blocktype: U32,
    pub(super) h_sequence: U32,
}
layout!(Header: 12, h_blocktype @ 4, h_sequence @ 8);

/// `struct journal_superblock_s`: the first 1024 bytes of the journal.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Superblock {
    pub(super) s_header: Header,
    pub(super) s_blocksize: U32,
    pub(super) s_maxlen: U32,
    pub(super) s_first: U32,
    pub(super) s_sequence: U32,
    pub(super) s_start: U32,
    pub(super) s_errno: U32,
    pub(super) s_feature_compat: U32,
    pub(super) s_feature_incompat: U32,
    pub(super) s_feature_ro_compat: U32,
    pub(super) s_uuid: [u8; 16],
    pub(super) s_nr_users: U32,
    pub(super) s_dynsuper: U32,
    pub(super) s_max_transaction: U32,
    pub(super) s_max_trans_data: U32,
    pub(super) s_checksum_type: u8,
    pub(super) s_padding2: [u8; 3],
    pub(super) s_num_fc_blks: U32,
    pub(super) s_head: U32,
    pub(super) s_padding: [U32; 40],
    /// crc32c of all 1024 bytes, with zeros here.
    pub(super) s_checksum: U32,
    pub(super) s_users: [[u8; 16]; 48],
}
layout!(Superblock: 1024, s_blocksize @ 0xc, s_maxlen @ 0x10, s_first @ 0x14, s_sequence @ 0x18, s_start @ 0x1c,
    s_feature_compat @ 0x24, s_feature_incompat @ 0x28, s_feature_ro_compat @ 0x2c, s_uuid @ 0x30,
    s_checksum_type @ 0x50, s_num_fc_blks @ 0x54, s_head @ 0x58, s_checksum @ 0xfc, s_users @ 0x100);

/// A tag with checksums of version 3: `struct journal_block_tag3_s`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Tag3 {
    pub(super) t_blocknr: U32,
    /// Only the lower half is in use.
    pub(super) t_flags: U32,
    pub(super) t_blocknr_high: U32,
    pub(super) t_checksum: U32,
}
layout!(Tag3: 16, t_flags @ 4, t_blocknr_high @ 8, t_checksum @ 12);

/// Any other tag: `struct journal_block_tag_s`. Without the feature 64bit its last four bytes do not exist; with
/// checksums of version 2 two bytes follow it, or what would be its end, and mean nothing.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Tag {
    pub(super) t_blocknr: U32,
    pub(super) t_checksum: U16,
    pub(super) t_flags: U16,
    pub(super) t_blocknr_high: U32,
}
layout!(Tag: 12, t_checksum @ 4, t_flags @ 6, t_blocknr_high @ 8);

/// What a block of revoke records begins with: `struct jbd2_journal_revoke_header_s`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RevokeHeader {
    pub(super) r_header: Header,
    /// Bytes in use, these included.
    pub(super) r_count: U32,
}
layout!(RevokeHeader: 16, r_count @ 12);

/// `struct commit_header`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Commit {
    pub(super) h_header: Header,
    pub(super) h_chksum_type: u8,
    pub(super) h_chksum_size: u8,
    pub(super) h_padding: [u8; 2],
    pub(super) h_chksum: [U32; 8],
    pub(super) h_commit_sec: U64,
    pub(super) h_commit_nsec: U32,
}
layout!(Commit: 60, h_chksum_type @ 12, h_chksum_size @ 13, h_chksum @ 16, h_commit_sec @ 48, h_commit_nsec @ 56);

/// What a block of the log is, or none if it is not one of this transaction's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockType {
    Descriptor,
    Commit,
    Revoke,
    Other,
}

/// What a block of the log is to a transaction; none if it is not one of the journal's own blocks, or not this
/// transaction's.
pub(super) fn block_type(bytes: &[u8], sequence: u32) -> Option<BlockType> {
    let (header, _) = Header::ref_from_prefix(bytes).ok()?;
    (header.h_magic.get() == MAGIC && header.h_sequence.get() == sequence).then(|| match header.h_blocktype.get() {
        1 => BlockType::Descriptor,
        2 => BlockType::Commit,
        5 => BlockType::Revoke,
        _ => BlockType::Other,
    })
}

/// The last four bytes of a descriptor or of a block of revoke records: its checksum.
pub(super) fn tail(block: &[u8]) -> Option<(&[u8], u32)> {
    let (covered, stored) = U32::read_from_suffix(block).map(|(covered, stored)| (covered, stored.get())).ok()?;
    Some((covered, stored))
}

/// A block number among the revoke records: 8 bytes, or 4.
pub(super) fn record(bytes: &[u8]) -> Option<u64> {
    U64::read_from_bytes(bytes)
        .map(U64::get)
        .or_else(|_| U32::read_from_bytes(bytes).map(|block| u64::from(block.get())))
        .ok()
}
