//! The copies of the superblock and of the descriptors. Nobody reads them while the first are sound: what differs is
//! told, and is no damage.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::Incompat;
use zerocopy::{FromZeros, IntoBytes};

use super::Check;
use crate::error::Result;
use crate::ext4::format;
use crate::ext4::group::{self, Located};
use crate::ext4::units::{BlockNumber, GroupNumber, usize_from};

/// Copies that are looked at in one step.
const AT_ONCE: u64 = 64;

impl Check<'_> {
    /// Some groups. Gives whether the stage is over.
    pub(super) fn copies(&mut self) -> Result<bool> {
        let superblock = self.fs.superblock();
        for _ in 0..AT_ONCE {
            let Some(group) = u32::try_from(self.at).ok().filter(|&group| group < superblock.groups) else {
                return Ok(true);
            };
            self.at = self.at.saturating_add(1);
            let group = GroupNumber(group);
            if group.0 > 0 && group::has_superblock(superblock, group) {
                self.spend(1);
                let place = Place::Backup(group.0);
                if !self.is_copy(group)? {
                    self.findings.notice(Rule::BackupSuperblock, place);
                } else if group.0 == 1 && !self.are_copies(group)? {
                    self.findings.notice(Rule::BackupDescriptors, place);
                }
            }
        }
        self.spend(AT_ONCE);
        Ok(false)
    }

    /// Whether a group begins with a superblock of this file system.
    fn is_copy(&self, group: GroupNumber) -> Result<bool> {
        let superblock = self.fs.superblock();
        let mut copy = format::Superblock::new_zeroed();
        let Some(offset) = superblock.block_size.byte_offset(superblock.first_block(group)) else { return Ok(false) };
        self.fs.device().read_at(offset.0, copy.as_mut_bytes())?;
        let shape = |raw: &format::Superblock| {
            let sizes = [raw.s_log_block_size, raw.s_blocks_per_group, raw.s_inodes_per_group, raw.s_inodes_count];
            let blocks = [raw.s_blocks_count_lo, raw.s_blocks_count_hi, raw.s_first_data_block];
            (raw.s_magic, raw.s_inode_size, sizes, blocks)
        };
        Ok(shape(&copy) == shape(&self.raw))
    }

    /// Whether the descriptors behind it say where the same structures lie. Of file systems that spread their
    /// descriptors there is no such row.
    fn are_copies(&self, group: GroupNumber) -> Result<bool> {
        let superblock = self.fs.superblock();
        if superblock.incompat.contains(Incompat::META_BG) {
            return Ok(true);
        }
        let size = superblock.block_size;
        let mut bytes = vec![0; size.length()];
        let first = superblock.first_block(group).0.saturating_add(1);
        let mut number = 0;
        for index in 0..superblock.descriptor_blocks() {
            let block = BlockNumber(first.saturating_add(index.into()));
            let Some(offset) = size.byte_offset(block) else { return Ok(false) };
            self.fs.device().read_at(offset.0, &mut bytes)?;
            for copy in bytes.chunks_exact(usize_from(superblock.descriptor_size.into())) {
                if number >= superblock.groups {
                    return Ok(true);
                }
                let places = |raw: &format::GroupDescriptor| {
                    let located = Located::of(superblock, raw);
                    [located.block_bitmap, located.inode_bitmap, located.inode_table]
                };
                let own = self.fs.raw_group(GroupNumber(number)).map(|raw| places(&raw));
                if own.is_ok_and(|own| own != places(&group::raw(copy))) {
                    return Ok(false);
                }
                number = number.saturating_add(1);
            }
        }
        Ok(true)
    }
}
