//! Data in an inode: the beginning of a small file where its map would be, and the rest in an attribute of the inode.
//!
//! What always holds here: such an inode has the attribute `system.data` in its body, even if it is empty, and the file
//! is no longer than both places together. A directory is told in blocks of its own kind, so that `dir.rs` reads it like
//! any other. On the way of a read this stands where else the maps are, and there is no device behind it.

use lazaret_policy::corruption::{Place, Rule};
use zerocopy::IntoBytes;

use super::inode::{Inode, InodeFlags};
use super::map::{Mapping, MappingKind};
use super::units::{FileOffset, LogicalBlock, u64_from};
use super::xattr::{Namespace, Xattr};
use super::xattr_entry::Value;
use super::{Block, Filesystem, format};
use crate::error::{Error, Result};

/// The attribute that goes on where the map's place ends.
const DATA: Xattr<'_> = Xattr { namespace: Namespace::System, name: b"data" };

/// Bytes of a directory before its entries: its parent's number.
const PARENT: usize = 4;

/// The two places where the data of an inode lies.
pub(super) struct Inline<'a> {
    head: &'a [u8; 60],
    tail: &'a [u8],
}

impl Filesystem {
    /// The data of an inode that has it in itself.
    ///
    /// # Errors
    /// It has extents as well, lacks the attribute or is longer than both places, or its attributes break a rule.
    pub(super) fn inline<'a>(&self, inode: &'a Inode) -> Result<Inline<'a>> {
        let broken = |rule| Error::corrupt(rule, Place::Inode(inode.number.value()));
        if inode.flags.contains(InodeFlags::EXTENTS) {
            return Err(broken(Rule::InlineFlags));
        }
        let attributes = self.inner_attributes(inode)?;
        let data = attributes.into_iter().find(|entry| entry.xattr() == Some(DATA)).map(|entry| entry.value);
        let Some(Value::Here(tail)) = data else { return Err(broken(Rule::InlineData)) };
        let data = Inline { head: &inode.map, tail };
        if data.length() < inode.size { Err(broken(Rule::InlineSize)) } else { Ok(data) }
    }

    /// What [`Self::map`] answers for such an inode.
    pub(super) fn map_inline(&self, inode: &Inode, offset: FileOffset, length: u64) -> Result<Mapping> {
        let left = self.inline(inode)?.length().saturating_sub(offset.0);
        let kind = if left > 0 { MappingKind::Inline } else { MappingKind::Hole };
        Ok(Mapping { offset, length: if left > 0 { length.min(left) } else { length }, kind })
    }

    /// How many blocks [`Self::inline_directory_block`] tells of.
    pub(super) const INLINE_DIRECTORY_BLOCKS: u32 = 3;

    /// A directory in an inode as if it lay in blocks, so that damage in one place hides no name of another: the entries
    /// `.` and `..`, which it has only in the form of its parent's number, and those in each of the two places. The
    /// blocks are shorter than others, the last may be empty, and none has a checksum: the inode has.
    pub(super) fn inline_directory_block(&self, directory: &Inode, block: LogicalBlock) -> Result<Option<Block>> {
        let Inline { head, tail } = self.inline(directory)?;
        let (parent, entries) = head.split_at_checked(PARENT).unwrap_or_default();
        Ok(match block.0 {
            0 => {
                let this = directory.number.value().to_le_bytes();
                Some([entry(&this, b".\0\0\0", 1), entry(parent, b"..\0\0", 2)].concat().into_boxed_slice())
            }
            1 => Some(entries.into()),
            2 => Some(tail.into()),
            _ => None,
        })
    }
}

impl Inline<'_> {
    /// How many bytes there is room for.
    pub(super) fn length(&self) -> u64 {
        u64_from(self.head.len()).saturating_add(u64_from(self.tail.len()))
    }

    /// Copies what is there from a byte of the file on; what lies behind stays as it is.
    pub(super) fn copy(&self, offset: u64, out: &mut [u8]) {
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.head.iter().chain(self.tail).skip(skipped);
        for (to, from) in out.iter_mut().zip(bytes) {
            *to = *from;
        }
    }
}

/// A record of a directory, as short as it can be.
fn entry(inode: &[u8], name: &[u8; 4], length: u8) -> Vec<u8> {
    const DIRECTORY: u8 = 2;
    let inode = inode.first_chunk().map_or(0, |&number| u32::from_le_bytes(number));
    let head = format::DirEntry { inode: inode.into(), rec_len: 12.into(), name_len: length, file_type: DIRECTORY };
    [head.as_bytes(), name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_places_are_one_range_of_bytes() {
        let head = std::array::from_fn(|byte| byte as u8);
        let tail: Vec<u8> = (60..70).collect();
        let data = Inline { head: &head, tail: &tail };
        assert_eq!(data.length(), 70);
        for begin in 0..=71_u8 {
            for end in begin..75 {
                let mut out = vec![0xee; usize::from(end - begin)];
                data.copy(begin.into(), &mut out);
                let expected: Vec<u8> = (begin..end).map(|byte| if byte < 70 { byte } else { 0xee }).collect();
                assert_eq!(out, expected);
            }
        }
        data.copy(u64::MAX, &mut [0]);
    }

    #[test]
    fn the_entries_that_are_not_stored_look_like_those_that_are() {
        let bytes = entry(&[7, 1, 0, 0], b"..\0\0", 2);
        assert_eq!(bytes, [7, 1, 0, 0, 12, 0, 2, 2, b'.', b'.', 0, 0]);
    }
}
