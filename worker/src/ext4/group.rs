//! Group descriptors: where a group's bitmaps and its part of the inode table lie.
//!
//! A descriptor is copied out, verified and checked before it is used, and then kept (`cache.rs`); a broken one loses the
//! inodes of its group and no others. Where the descriptors themselves lie follows from the superblock alone: behind its
//! copies, or, with the feature meta_bg, spread over the device.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::{Compat, Incompat, RoCompat};
use lazaret_policy::planted;
use zerocopy::{FromZeros, IntoBytes};

use super::Filesystem;
use super::checksum::{Kind, Verifier, crc16, crc32c};
use super::format;
use super::superblock::Superblock;
use super::units::{BlockNumber, ByteOffset, GroupNumber};
use crate::error::{Error, Result};

/// Where a group's own structures lie, checked: within the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupDescriptor {
    /// The bitmap of used blocks.
    pub block_bitmap: BlockNumber,
    /// The bitmap of used inodes.
    pub inode_bitmap: BlockNumber,
    /// Where its part of the inode table begins.
    pub inode_table: BlockNumber,
}

impl Filesystem {
    /// The descriptor of a group, copied out and checked.
    pub fn group(&self, group: GroupNumber) -> Result<GroupDescriptor> {
        if let Some(kept) = self.kept.groups.find(&group) {
            return Ok(kept);
        }
        let superblock = self.superblock();
        let (raw, matches) = self.judged_group(group)?;
        let checked = Located::of(superblock, &raw).check(superblock);
        let checked = checked.ok_or(Error::corrupt(Rule::GroupInFileSystem, Place::GroupDescriptor(group.0)))?;
        if matches {
            self.kept.groups.keep(group, checked);
        }
        Ok(checked)
    }

    /// The fields of a group's descriptor, which matches its checksum, or is trusted without.
    pub(super) fn raw_group(&self, group: GroupNumber) -> Result<format::GroupDescriptor> {
        self.judged_group(group).map(|(raw, _)| raw)
    }

    /// The same, and whether they match.
    fn judged_group(&self, group: GroupNumber) -> Result<(format::GroupDescriptor, bool)> {
        let (raw, matches) = self.stored_group(group)?;
        let passes = matches || self.settings.trust_descriptors;
        self.verifier().judge(passes, Rule::GroupChecksum, Place::GroupDescriptor(group.0))?;
        Ok((raw, matches))
    }

    /// The fields of a group's descriptor, and whether they match their checksum.
    pub(super) fn stored_group(&self, group: GroupNumber) -> Result<(format::GroupDescriptor, bool)> {
        let superblock = self.superblock();
        let place = Place::GroupDescriptor(group.0);
        let offset = offset(superblock, group).ok_or(Error::corrupt(Rule::GroupNumber, place))?;

        // No descriptor is longer than the shortest block.
        let mut buffer = [0; 1024];
        let bytes = buffer.get_mut(..superblock.descriptor_size.into());
        let bytes = bytes.ok_or(Error::corrupt(Rule::DescriptorSize, place))?;
        self.device().read_at(offset.0, bytes)?;
        Ok((raw(bytes), matches(superblock, self.verifier(), group, bytes)))
    }
}

/// Where the descriptors say that a group's structures lie, not checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located {
    pub(super) block_bitmap: u64,
    pub(super) inode_bitmap: u64,
    pub(super) inode_table: u64,
    pub(super) free_blocks: u64,
    pub(super) free_inodes: u64,
}

impl Located {
    pub(super) fn of(superblock: &Superblock, raw: &format::GroupDescriptor) -> Self {
        let wide = superblock.descriptor_size >= 64;
        let number = |low: u32, high: u32| if wide { u64::from(high) << 32 | u64::from(low) } else { low.into() };
        let count = |low: u16, high: u16| if wide { u64::from(high) << 16 | u64::from(low) } else { low.into() };
        Self {
            block_bitmap: number(raw.bg_block_bitmap_lo.get(), raw.bg_block_bitmap_hi.get()),
            inode_bitmap: number(raw.bg_inode_bitmap_lo.get(), raw.bg_inode_bitmap_hi.get()),
            inode_table: number(raw.bg_inode_table_lo.get(), raw.bg_inode_table_hi.get()),
            free_blocks: count(raw.bg_free_blocks_count_lo.get(), raw.bg_free_blocks_count_hi.get()),
            free_inodes: count(raw.bg_free_inodes_count_lo.get(), raw.bg_free_inodes_count_hi.get()),
        }
    }

    fn check(self, superblock: &Superblock) -> Option<GroupDescriptor> {
        let inside = |block: u64, count: u64| {
            let end = block.checked_add(count)?;
            let inside = block > superblock.first_data_block.0 && end <= superblock.blocks;
            (inside || planted("group")).then_some(BlockNumber(block))
        };
        Some(GroupDescriptor {
            block_bitmap: inside(self.block_bitmap, 1)?,
            inode_bitmap: inside(self.inode_bitmap, 1)?,
            inode_table: inside(self.inode_table, superblock.table_blocks())?,
        })
    }
}

/// The fields of a descriptor; those that it is too short for are 0.
pub(super) fn raw(bytes: &[u8]) -> format::GroupDescriptor {
    let mut raw = format::GroupDescriptor::new_zeroed();
    for (to, from) in raw.as_mut_bytes().iter_mut().zip(bytes) {
        *to = *from;
    }
    raw
}

/// Whether a descriptor matches its checksum, if it has one that is looked at.
fn matches(superblock: &Superblock, verifier: &Verifier, group: GroupNumber, bytes: &[u8]) -> bool {
    // The checksum itself: the last two of the first 32 bytes.
    let Some((&before, rest)) = bytes.split_first_chunk::<0x1e>() else { return true };
    let Some((&stored, after)) = rest.split_first_chunk::<2>() else { return true };
    let stored = u16::from_le_bytes(stored);
    let number = group.0.to_le_bytes();
    match verifier.kind() {
        Kind::None => true,
        Kind::Crc16 => crc16(crc16(crc16(crc16(!0, &superblock.uuid), &number), &before), after) == stored,
        Kind::Crc32c => {
            let crc = crc32c(crc32c(crc32c(verifier.seed(), &number), &before), &[0; 2]);
            crc32c(crc, after) & 0xffff == u32::from(stored)
        }
    }
}

/// Where a group's descriptor lies, if there is such a group.
fn offset(superblock: &Superblock, group: GroupNumber) -> Option<ByteOffset> {
    if group.0 >= superblock.groups {
        return None;
    }
    let block = group.0.checked_div(superblock.descriptors_per_block())?;
    let within =
        group.0.checked_rem(superblock.descriptors_per_block())?.checked_mul(superblock.descriptor_size.into())?;
    let start = superblock.block_size.byte_offset(descriptor_block(superblock, block))?;
    start.0.checked_add(within.into()).map(ByteOffset)
}

/// Where a block of descriptors lies, counted from 0: behind the superblock, or, spread out, behind the copy of it that
/// the first of its groups may have.
pub(super) fn descriptor_block(superblock: &Superblock, index: u32) -> BlockNumber {
    let spread = superblock.incompat.contains(Incompat::META_BG) && index >= superblock.first_meta_group;
    if !spread {
        return BlockNumber(superblock.location.0.saturating_add(1).saturating_add(index.into()));
    }
    let group = GroupNumber(index.saturating_mul(superblock.descriptors_per_block()));
    let before = boot_blocks(superblock, group).saturating_add(has_superblock(superblock, group).into());
    BlockNumber(superblock.first_block(group).0.saturating_add(before))
}

/// The blocks of group 0 before the superblock: one, where blocks of 1 KiB come in clusters and the group begins with the
/// device.
fn boot_blocks(superblock: &Superblock, group: GroupNumber) -> u64 {
    let inside = superblock.first_data_block.0 == 0 && superblock.block_size.bytes() == 1024;
    u64::from(inside && group.0 == 0)
}

/// Where an inode lies that is so far into a table, which begins at a checked block.
pub(super) fn inode_offset(superblock: &Superblock, table: BlockNumber, index: u32) -> Option<ByteOffset> {
    let within = u64::from(index).checked_mul(superblock.inode_size.into())?;
    let start = superblock.block_size.byte_offset(table)?;
    start.0.checked_add(within).map(ByteOffset)
}

/// Whether a group begins with a copy of the superblock.
pub(super) fn has_superblock(superblock: &Superblock, group: GroupNumber) -> bool {
    if group.0 == 0 {
        return true;
    }
    if superblock.compat.contains(Compat::SPARSE_SUPER2) {
        return superblock.backup_groups.contains(&group);
    }
    if group.0 == 1 || !superblock.ro_compat.contains(RoCompat::SPARSE_SUPER) {
        return true;
    }
    [3, 5, 7].into_iter().any(|base| is_power(group.0, base))
}

/// How many blocks at a group's start are the superblock's copy, descriptors, and room kept for more of them.
pub(super) fn base_blocks(superblock: &Superblock, group: GroupNumber) -> u64 {
    let copy = has_superblock(superblock, group);
    let spread = superblock.incompat.contains(Incompat::META_BG);
    let index = group.0.checked_div(superblock.descriptors_per_block()).unwrap_or(0);
    let room = if copy { u64::from(superblock.reserved_descriptor_blocks) } else { 0 };

    let descriptors = if spread && index >= superblock.first_meta_group {
        // The first, the second and the last of the groups that the block describes have it.
        let within = group.0.checked_rem(superblock.descriptors_per_block()).unwrap_or(0);
        let last = superblock.descriptors_per_block().saturating_sub(1);
        u64::from(within <= 1 || within == last)
    } else if !copy {
        0
    } else if spread {
        superblock.first_meta_group.into()
    } else {
        superblock.descriptor_blocks().into()
    };
    boot_blocks(superblock, group).saturating_add(copy.into()).saturating_add(descriptors).saturating_add(room)
}

fn is_power(number: u32, base: u32) -> bool {
    // 3^20 is the last power of 3 within 32 bits.
    let mut power = Some(base);
    for _ in 0..21 {
        match power {
            Some(value) if value < number => power = value.checked_mul(base),
            Some(value) => return value == number,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_powers_are_found_and_nothing_else() {
        let powers: Vec<u32> = (0..2500).filter(|&number| is_power(number, 3) || is_power(number, 7)).collect();
        assert_eq!(powers, [3, 7, 9, 27, 49, 81, 243, 343, 729, 2187, 2401]);
        assert!(is_power(3_486_784_401, 3));
        assert!(!is_power(u32::MAX, 3) && !is_power(0, 5) && !is_power(1, 5));
    }
}
