//! The records of a directory's block: names and inode numbers, one behind the other.
//!
//! What always holds here: a record that is given was checked as the kernel checks it, and the next begins where it
//! ends, so that a block has at most one for every 12 bytes. On the way of a lookup these are the last bytes looked at.

use lazaret_policy::corruption::Rule;
use zerocopy::FromBytes;

use super::Superblock;
use super::format;
use super::units::{InodeNumber, usize_from};

/// Bytes of the shortest record: a name of one byte, rounded up.
const SHORTEST: usize = 12;

/// A record of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// Where it begins.
    pub(super) begin: usize,
    /// Where the next begins: behind this one, at most at the end of the block.
    pub(super) end: usize,
    /// What it names; none if it is not in use.
    pub(super) inode: Option<InodeNumber>,
    /// The type of file, as the record has it.
    pub(super) file_type: u8,
    /// Raw: ask [`is_name`] before passing it on.
    pub(super) name: &'a [u8],
}

/// The records of a block from its first byte on. The first broken one is the last that is given.
pub(super) struct Records<'a> {
    block: &'a [u8],
    inodes: u32,
    begin: usize,
}

impl<'a> Records<'a> {
    pub(super) fn of(block: &'a [u8], superblock: &Superblock) -> Self {
        Self { block, inodes: superblock.inodes, begin: 0 }
    }

    /// The record that begins here, held to the rules of the kernel's `__ext4_check_dir_entry`.
    fn check(&self) -> Result<Record<'a>, Rule> {
        let (begin, size) = (self.begin, self.block.len());
        let rest = self.block.get(begin..).unwrap_or_default();
        let (head, behind) = format::DirEntry::ref_from_prefix(rest).map_err(|_| Rule::DirectoryRecordEnd)?;

        let length = record_length(head.rec_len.get(), size);
        let needed = size_of::<format::DirEntry>().saturating_add(head.name_len.into()).next_multiple_of(4);
        if length < needed.max(SHORTEST) || !length.is_multiple_of(4) {
            return Err(Rule::DirectoryRecordLength);
        }
        let end = begin.saturating_add(length);
        if end != size && end.saturating_add(SHORTEST) > size {
            return Err(Rule::DirectoryRecordEnd);
        }
        if head.inode.get() > self.inodes {
            return Err(Rule::DirectoryInode);
        }
        let name = behind.get(..head.name_len.into()).ok_or(Rule::DirectoryRecordEnd)?;
        Ok(Record { begin, end, inode: InodeNumber::new(head.inode.get()), file_type: head.file_type, name })
    }
}

impl<'a> Iterator for Records<'a> {
    /// A record, or which rule is broken at which byte of the block.
    type Item = Result<Record<'a>, (Rule, usize)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.begin >= self.block.len() {
            return None;
        }
        let begin = self.begin;
        let record = self.check();
        self.begin = record.as_ref().map_or(self.block.len(), |record| record.end);
        Some(record.map_err(|rule| (rule, begin)))
    }
}

/// `rec_len`, which has 16 bits: in blocks of 64 KiB 0 and 65535 stand for the whole block, and the two lowest bits
/// for those above the 16.
pub(super) fn record_length(rec_len: u16, block: usize) -> usize {
    const LARGEST_BLOCK: usize = 1 << 16;
    match rec_len {
        0 | u16::MAX if block == LARGEST_BLOCK => block,
        length if block == LARGEST_BLOCK => usize_from(u32::from(length & 0xfffc) | u32::from(length & 3) << 16),
        length => length.into(),
    }
}

/// Whether these bytes can be a name.
pub(super) fn is_name(name: &[u8]) -> bool {
    (1..=255).contains(&name.len()) && !name.iter().any(|&byte| byte == b'/' || byte == 0)
}
