//! How a file lies on the device, mapping after mapping and in whole blocks: for who lists it, and for a kernel that
//! moves the bytes itself.
//!
//! What holds here: every mapping comes from [`Filesystem::map_within`]; it begins where the one before ended; and the
//! bytes of what is called in place are those of the device, so that whoever reads them there reads the file.

use std::ops::ControlFlow;

use super::Filesystem;
use super::budget::Budget;
use super::inode::{FileKind, Inode, InodeFlags};
use super::map::{Mapping, MappingKind};
use super::units::{BlockNumber, ByteOffset, FileOffset};
use crate::error::{Error, Result};

/// Where the data of an inode begins in it: `i_block`. Bytes.
const INLINE: u64 = 40;
/// How many mappings of a file are looked through for blocks of which a journal holds a newer copy.
const MOST_LOOKED_AT: u32 = 256;

impl Filesystem {
    /// Gives the mappings of a file from the block that holds byte `from` on, until byte `to` or until `take` has enough.
    ///
    /// # Errors
    /// As [`Self::map`], for what lies at the first mapping that cannot be had; those before were given.
    pub fn mappings(
        &self,
        inode: &Inode,
        from: FileOffset,
        to: u64,
        take: &mut dyn FnMut(Mapping) -> ControlFlow<()>,
    ) -> Result<()> {
        self.mappings_within(inode, from, to, &mut self.budget(), take)
    }

    fn mappings_within(
        &self,
        inode: &Inode,
        from: FileOffset,
        to: u64,
        budget: &mut Budget,
        take: &mut dyn FnMut(Mapping) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut at = from.0.saturating_sub(self.superblock().block_size.within_block(from).into());
        let to = self.whole_blocks(to);
        while at < to {
            let mapping = self.map_within(inode, FileOffset(at), to.saturating_sub(at), budget)?;
            // Each turn goes on by at least a byte.
            at = at.saturating_add(mapping.length.max(1));
            if take(mapping).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Which block of the device that was handed over holds this block of a file, both in blocks of `size` bytes: 0 where
    /// none does, be it that nothing was written there, that it is within the inode, or that it does not lie in one such
    /// block.
    ///
    /// # Errors
    /// As [`Self::map`]; and what is no block, or of no regular file: [`Error::Invalid`].
    pub fn block_on_device(&self, inode: &Inode, index: u64, size: u32) -> Result<u64> {
        let size = u64::from(size);
        let start = index.checked_mul(size).filter(|_| inode.kind == FileKind::Regular && size > 0);
        let start = start.ok_or(Error::Invalid)?;
        let left = self.whole_blocks(inode.size).saturating_sub(start);
        if left == 0 {
            return Ok(0);
        }
        let wanted = left.min(size);
        let mapping = self.map(inode, FileOffset(start), wanted)?;
        let MappingKind::Data(place) = mapping.kind else { return Ok(0) };
        let place = self.device().begin().checked_add(place.0).ok_or(Error::Invalid)?;
        let whole = mapping.length >= wanted && place.checked_rem(size) == Some(0);
        Ok(place.checked_div(size).filter(|_| whole).unwrap_or(0))
    }

    /// So many bytes, and those up to the end of the block.
    pub fn whole_blocks(&self, bytes: u64) -> u64 {
        let size = self.superblock().block_size;
        size.bytes_of(size.blocks_for(bytes)).unwrap_or(bytes)
    }

    /// Where the data of an inode begins that has it in itself. On the device, but within the inode table.
    ///
    /// # Errors
    /// The group's descriptor breaks a rule.
    pub fn inline_place(&self, inode: &Inode) -> Result<ByteOffset> {
        let start = self.inode_address(inode.number)?;
        start.0.checked_add(INLINE).map(ByteOffset).ok_or(Error::Invalid)
    }

    /// Whether the content of a file is what the device has at its mappings: a regular file without a key, without a tree
    /// that every block has to match, and without a block of which a journal holds a newer copy. One of so many pieces
    /// that it is not looked through counts as one that is not, where there is such a journal; so does one for which the
    /// budget is too small.
    pub fn is_in_place(&self, inode: &Inode, budget: &mut Budget) -> bool {
        let plain = inode.kind == FileKind::Regular && !self.is_sealed(inode) && self.check_key(inode).is_ok();
        if !plain || inode.flags.contains(InodeFlags::INLINE_DATA) || !self.device().has_substitutes() {
            return plain;
        }
        let (mut looks, mut in_place) = (MOST_LOOKED_AT, true);
        let looked = self.mappings_within(inode, FileOffset(0), inode.size, budget, &mut |mapping| {
            looks = looks.saturating_sub(1);
            in_place = looks > 0 && !self.is_substituted(&mapping);
            if in_place { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        looked.is_ok() && in_place
    }

    /// A mapping once more, as it may be told to a kernel that reads the device itself: held against the file system's
    /// range, the file system's own blocks and the newer copies of a journal, and no longer than the device.
    ///
    /// # Errors
    /// It is none that a file may have: [`Error::Corrupt`], [`Error::Invalid`]. It begins behind the end of the device, or
    /// what lies there is not the newest: [`Error::Device`].
    pub fn checked_again(&self, inode: &Inode, mapping: Mapping) -> Result<Mapping> {
        let (MappingKind::Data(start) | MappingKind::Unwritten(start)) = mapping.kind else { return Ok(mapping) };
        let size = self.superblock().block_size;
        let bytes = u64::from(size.bytes());
        let aligned = |number: u64| number.checked_rem(bytes) == Some(0);
        if mapping.length == 0 || ![mapping.offset.0, mapping.length, start.0].into_iter().all(aligned) {
            return Err(Error::Invalid);
        }
        let (block, count) = (start.0.checked_div(bytes).unwrap_or(0), size.blocks_for(mapping.length));
        let place = lazaret_policy::corruption::Place::Inode(inode.number.value());
        self.zone().check(inode.number, BlockNumber(block), count).map_err(|rule| Error::corrupt(rule, place))?;
        let left = self.device().len().saturating_sub(start.0);
        let length = mapping.length.min(left.saturating_sub(left.checked_rem(bytes).unwrap_or(0)));
        let mapping = Mapping { length, ..mapping };
        if length == 0 || self.is_substituted(&mapping) {
            return Err(Error::Device { offset: start.0 });
        }
        Ok(mapping)
    }

    fn is_substituted(&self, mapping: &Mapping) -> bool {
        let MappingKind::Data(start) = mapping.kind else { return false };
        self.device().is_substituted(start.0, mapping.length)
    }
}
