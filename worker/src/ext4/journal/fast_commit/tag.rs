//! The tags of fast commits: what was changed, in the words of the file system instead of its blocks.
//!
//! Little-endian, as everything of ext4 that is not jbd2's: `fs/ext4/fast_commit.h`. What always holds here: a tag lies
//! within its block, its length is one that its kind can have, and reading tags advances by at least four bytes.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ext4::format;
use crate::ext4::units::TransactionId;
use crate::layout::layout;

/// What a tag begins with: `struct ext4_fc_tl`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct TagHeader {
    fc_tag: U16,
    /// Bytes that follow.
    fc_len: U16,
}
layout!(TagHeader: 4, fc_len @ 2);

/// `struct ext4_fc_head`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    fc_features: U32,
    fc_tid: U32,
}
layout!(Head: 8, fc_tid @ 4);

/// `struct ext4_fc_tail`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Tail {
    fc_tid: U32,
    fc_crc: U32,
}
layout!(Tail: 8, fc_crc @ 4);

/// `struct ext4_fc_add_range`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct AddRange {
    fc_ino: U32,
    fc_ex: format::Extent,
}
layout!(AddRange: 16, fc_ex @ 4);

/// `struct ext4_fc_del_range`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct DelRange {
    fc_ino: U32,
    fc_lblk: U32,
    fc_len: U32,
}
layout!(DelRange: 12, fc_lblk @ 4, fc_len @ 8);

/// What a name begins with: `struct ext4_fc_dentry_info`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct DentryInfo {
    fc_parent_ino: U32,
    fc_ino: U32,
}
layout!(DentryInfo: 8, fc_ino @ 4);

/// A tag. Its numbers are not checked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tag<'a> {
    AddRange {
        inode: u32,
        extent: format::Extent,
    },
    DelRange {
        inode: u32,
        first: u32,
        length: u32,
    },
    Create(Dentry<'a>),
    Link(Dentry<'a>),
    Unlink(Dentry<'a>),
    /// The inode as it was, as far as its tail went; at least 128 bytes.
    Inode {
        inode: u32,
        raw: &'a [u8],
    },
    Pad,
    /// The end of a fast commit, with the crc32c of its tags.
    Tail {
        transaction: TransactionId,
        crc: u32,
    },
    /// The begin of all fast commits of a transaction.
    Head {
        features: u32,
        transaction: TransactionId,
    },
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dentry<'a> {
    pub(super) parent: u32,
    pub(super) inode: u32,
    /// 1 to 255 bytes.
    pub(super) name: &'a [u8],
}

/// How much of a tail its own checksum covers: the header and the transaction.
pub(super) const TAIL_COVERED: usize = 8;

/// The first tag, its bytes with the header, and what follows it; none if no sound tag is there.
pub(super) fn first(bytes: &[u8], inode_size: u16) -> Option<(Tag<'_>, &[u8], &[u8])> {
    let (header, _) = TagHeader::ref_from_prefix(bytes).ok()?;
    let length = usize::from(header.fc_len.get());
    let (whole, rest) = bytes.split_at_checked(length.checked_add(size_of::<TagHeader>())?)?;
    let value = whole.get(size_of::<TagHeader>()..)?;
    let tag = match header.fc_tag.get() {
        1 => {
            let raw = AddRange::ref_from_bytes(value).ok()?;
            Tag::AddRange { inode: raw.fc_ino.get(), extent: raw.fc_ex }
        }
        2 => {
            let raw = DelRange::ref_from_bytes(value).ok()?;
            Tag::DelRange { inode: raw.fc_ino.get(), first: raw.fc_lblk.get(), length: raw.fc_len.get() }
        }
        3 => Tag::Create(dentry(value)?),
        4 => Tag::Link(dentry(value)?),
        5 => Tag::Unlink(dentry(value)?),
        6 => {
            let (inode, raw) = U32::ref_from_prefix(value).ok()?;
            let sizes = usize::from(format::GOOD_OLD_INODE_SIZE)..=usize::from(inode_size);
            Tag::Inode { inode: inode.get(), raw: Some(raw).filter(|raw| sizes.contains(&raw.len()))? }
        }
        7 => Tag::Pad,
        8 => {
            let (raw, _) = Tail::ref_from_prefix(value).ok()?;
            Tag::Tail { transaction: TransactionId(raw.fc_tid.get()), crc: raw.fc_crc.get() }
        }
        9 => {
            let raw = Head::ref_from_bytes(value).ok()?;
            Tag::Head { features: raw.fc_features.get(), transaction: TransactionId(raw.fc_tid.get()) }
        }
        _ => return None,
    };
    Some((tag, whole, rest))
}

fn dentry(value: &[u8]) -> Option<Dentry<'_>> {
    let (raw, name) = DentryInfo::ref_from_prefix(value).ok()?;
    let name = Some(name).filter(|name| (1..=255).contains(&name.len()))?;
    Some(Dentry { parent: raw.fc_parent_ino.get(), inode: raw.fc_ino.get(), name })
}
