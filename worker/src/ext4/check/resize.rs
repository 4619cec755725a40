//! Inodes that map blocks which are not theirs: the one for resizing, and the list of bad blocks.
//!
//! Their pointers are followed as they are: a reader's map knows no block of the file system's own. What always holds
//! here: no more blocks of pointers are read than the file system has blocks, three levels deep.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::Compat;

use super::Check;
use super::blocks::is_large;
use crate::error::{Error, Result};
use crate::ext4::group;
use crate::ext4::units::{BlockNumber, GroupNumber, InodeNumber, u64_from, usize_from};
use crate::ext4::{Inode, InodeFlags, format};

/// The pointer to a block of pointers to blocks of pointers.
const DOUBLE: usize = 13;

/// A pointer that is not 0.
struct Pointer {
    /// Levels of pointers beneath it.
    level: u32,
    /// The first block of the file that it leads to.
    first: u64,
    block: BlockNumber,
}

/// What a walk may still do.
struct Left {
    /// Blocks of pointers that it may read.
    blocks: u64,
    /// Pointers that it may visit: of a sound file system no two name one block.
    pointers: u64,
}

impl Left {
    /// Whether there was one left to take.
    fn take(left: &mut u64) -> bool {
        let rest = left.checked_sub(1);
        *left = rest.unwrap_or(0);
        rest.is_some()
    }
}

impl Check<'_> {
    /// The inode for resizing has one doubly indirect block, and behind it the blocks that are reserved for descriptors:
    /// only the first is its own, and all are counted.
    pub(super) fn resize_inode(&mut self, inode: &Inode, raw: &format::Inode) -> Result<()> {
        let place = Place::Inode(inode.number.value());
        if !self.is_for_resizing(inode, raw)? {
            self.findings.notice(Rule::ResizeInode, place);
        }
        let odd = InodeFlags::EXTENTS | InodeFlags::INLINE_DATA | InodeFlags::INDEX;
        if inode.flags.intersects(odd) {
            self.findings.damage(Rule::InodeFlags, place);
            return Ok(());
        }
        let attributes = self.attributes(inode)?.clusters;
        let (mut blocks, mut last) = (attributes, None);
        let found = self.findings.counts.damage;
        // One block of pointers and, named in it, one for each block that is reserved.
        let most = u64_from(self.fs.superblock().block_size.length() >> 2).saturating_add(2);
        self.follow(raw, most, &mut |check, pointer| {
            if !check.holds_inside(inode.number, pointer.block) {
                return Ok(false);
            }
            blocks = blocks.saturating_add(1);
            match pointer.level {
                0 => last = Some(pointer.first),
                2 => return check.claim(inode.number, pointer.block),
                _ => (),
            }
            Ok(true)
        })?;
        if found == self.findings.counts.damage {
            let size = self.fs.superblock().block_size;
            let long = last.is_none_or(|last| size.bytes_of(last).is_some_and(|end| inode.size >= end));
            self.findings.hold(long, Rule::InodeSizeMapped, place);
            self.space(inode.number, raw, blocks);
        }
        self.large |= is_large(raw);
        Ok(())
    }

    /// The blocks of the list of bad blocks: none is in use otherwise, but the room for descriptors, which nobody reads.
    pub(super) fn bad_blocks(&mut self, number: InodeNumber, raw: &format::Inode) -> Result<()> {
        let most = self.fs.superblock().blocks;
        self.follow(raw, most, &mut |check, pointer| {
            if !check.holds_inside(number, pointer.block) {
                return Ok(false);
            }
            let own = check.clusters.mark_blocks(pointer.block, 1)?.is_some();
            let place = Place::Claim { inode: number.value(), block: pointer.block.0 };
            match own {
                true if pointer.level == 0 && check.is_room(pointer.block) => {
                    check.findings.notice(Rule::BadBlocks, place);
                }
                _ => check.findings.hold(!own, Rule::BadBlocks, place),
            }
            Ok(!own)
        })?;
        let translator = BlockNumber(raw.i_version.get().into());
        if self.is_of_hurd() && translator.0 != 0 && self.holds_inside(number, translator) {
            let own = self.clusters.mark_blocks(translator, 1)?.is_some();
            let place = Place::Claim { inode: number.value(), block: translator.0 };
            self.findings.hold(!own, Rule::BadBlocks, place);
        }
        Ok(())
    }

    /// Whether a block lies where there is room for descriptors behind a copy of the superblock.
    fn is_room(&self, block: BlockNumber) -> bool {
        let superblock = self.fs.superblock();
        let within = block.0.saturating_sub(superblock.first_data_block.0);
        let group = within.checked_div(superblock.blocks_per_group.into()).and_then(|group| u32::try_from(group).ok());
        let Some(group) = group.map(GroupNumber) else { return false };
        let within = block.0.saturating_sub(superblock.first_block(group).0);
        group::has_superblock(superblock, group)
            && within > superblock.descriptor_blocks().into()
            && within < group::base_blocks(superblock, group)
    }

    fn holds_inside(&mut self, inode: InodeNumber, block: BlockNumber) -> bool {
        let superblock = self.fs.superblock();
        let inside = (superblock.first_data_block.0..superblock.blocks).contains(&block.0);
        let place = Place::Claim { inode: inode.value(), block: block.0 };
        self.findings.hold(inside, Rule::BlockInFileSystem, place);
        inside
    }

    /// Takes a block for an inode, and says whether it was free.
    fn claim(&mut self, inode: InodeNumber, block: BlockNumber) -> Result<bool> {
        let free = self.clusters.mark_blocks(block, 1)?.is_none();
        self.findings.hold(free, Rule::BlockOnce, Place::Claim { inode: inode.value(), block: block.0 });
        Ok(free)
    }

    /// Visits every pointer, and goes down where `visit` says so, into so many blocks at the most.
    fn follow(
        &mut self,
        raw: &format::Inode,
        most: u64,
        visit: &mut dyn FnMut(&mut Self, &Pointer) -> Result<bool>,
    ) -> Result<()> {
        let pointers: Vec<u32> = raw.i_block.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
        let (direct, levels) = pointers.split_at_checked(12).unwrap_or_default();
        let blocks = self.fs.superblock().blocks;
        let (mut first, mut left) = (0, Left { blocks: most.min(blocks), pointers: blocks });
        self.row(direct, 0, &mut first, &mut left, visit)?;
        for (&pointer, level) in levels.iter().zip(1..) {
            self.row(&[pointer], level, &mut first, &mut left, visit)?;
        }
        Ok(())
    }

    /// A row of pointers, of which each has so many levels beneath it.
    fn row(
        &mut self,
        pointers: &[u32],
        level: u32,
        first: &mut u64,
        left: &mut Left,
        visit: &mut dyn FnMut(&mut Self, &Pointer) -> Result<bool>,
    ) -> Result<()> {
        let each = u64_from(self.fs.superblock().block_size.length() >> 2).saturating_pow(level);
        for &pointer in pointers {
            let begin = *first;
            *first = begin.saturating_add(each);
            let pointer = Pointer { level, first: begin, block: BlockNumber(pointer.into()) };
            if pointer.block.0 == 0 {
                continue;
            }
            let down = Left::take(&mut left.pointers).then(|| visit(self, &pointer)).transpose()?;
            let below = level.checked_sub(1).filter(|_| down != Some(false));
            if down.is_none() || below.is_some() && !Left::take(&mut left.blocks) {
                // Some block is named more than once.
                self.findings.damage(Rule::BlockOnce, Place::Claim { inode: 0, block: pointer.block.0 });
                return Ok(());
            }
            let Some(below) = below else { continue };
            self.spend(1);
            let mut within = begin;
            let row = self.pointers(pointer.block)?;
            self.row(&row, below, &mut within, left, visit)?;
        }
        Ok(())
    }

    /// Whether it maps the blocks that are reserved for descriptors, by their place among these, each of which lists its
    /// copies in the other groups. Only a tool that resizes reads that: e2fsck -n asks, and goes on as if it had not.
    fn is_for_resizing(&self, inode: &Inode, raw: &format::Inode) -> Result<bool> {
        let superblock = self.fs.superblock();
        let pointers: Vec<u32> = raw.i_block.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
        let wanted = superblock.compat.contains(Compat::RESIZE_INODE);
        let others = (0..).zip(&pointers).any(|(index, &pointer)| index != DOUBLE && pointer != 0);
        let double = BlockNumber(pointers.get(DOUBLE).copied().unwrap_or(0).into());
        if !wanted {
            return Ok(!others && double.0 == 0);
        }
        let inside = double.0 > superblock.first_data_block.0 && double.0 < superblock.blocks;
        if others || !inside || inode.links == 0 {
            return Ok(false);
        }
        let pointers = self.pointers(double)?;
        let copies = self.copies_of_superblock(pointers.len());
        let base = superblock.location.0.saturating_add(1);
        let (reserved, first) = (superblock.reserved_descriptor_blocks, superblock.descriptor_blocks());
        let mut at = usize_from(first).checked_rem(pointers.len()).unwrap_or(0);
        for index in 0..u32::from(reserved) {
            let expected = base.saturating_add(first.into()).saturating_add(index.into());
            let sound = pointers.get(at).is_some_and(|&pointer| u64::from(pointer) == expected)
                && expected < superblock.blocks
                && self.lists_copies(BlockNumber(expected), &copies)?;
            if !sound {
                return Ok(false);
            }
            at = at.saturating_add(1);
            if at >= pointers.len() {
                at = 0;
            }
        }
        Ok(true)
    }

    /// The groups behind the first that begin with a copy of the superblock, as many as a block lists.
    fn copies_of_superblock(&self, most: usize) -> Vec<GroupNumber> {
        let superblock = self.fs.superblock();
        let groups = (1..superblock.groups).map(GroupNumber);
        groups.filter(|&group| group::has_superblock(superblock, group)).take(most).collect()
    }

    /// Whether a reserved block lists its copies behind the other superblocks.
    fn lists_copies(&self, block: BlockNumber, copies: &[GroupNumber]) -> Result<bool> {
        let superblock = self.fs.superblock();
        let pointers = self.pointers(block)?;
        for (group, &pointer) in copies.iter().zip(&pointers) {
            let distance = u64::from(group.0).saturating_mul(superblock.blocks_per_group.into());
            if u64::from(pointer) != block.0.saturating_add(distance) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn pointers(&self, block: BlockNumber) -> Result<Vec<u32>> {
        let size = self.fs.superblock().block_size;
        let mut bytes = vec![0; size.length()];
        let offset = size.byte_offset(block).ok_or(Error::Invalid)?;
        self.fs.device().read_at(offset.0, &mut bytes)?;
        Ok(bytes.as_chunks().0.iter().map(|&pointer| u32::from_le_bytes(pointer)).collect())
    }
}
