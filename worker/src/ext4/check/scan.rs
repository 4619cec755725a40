//! The inode tables, group by group: each inode in use is looked at once, and so is what deleted ones left.

use lazaret_policy::corruption::{Place, Rule};

use super::Check;
use super::groups::unused_inodes;
use crate::error::{Error, Result};
use crate::ext4::units::{GroupNumber, InodeNumber, usize_from};

impl Check<'_> {
    /// One group, or a part of it. Gives whether the stage is over.
    pub(super) fn scan(&mut self) -> Result<bool> {
        let superblock = self.fs.superblock();
        let Some(group) = u32::try_from(self.at).ok().filter(|&group| group < superblock.groups).map(GroupNumber)
        else {
            return Ok(true);
        };
        self.spend(1);
        let begin = std::mem::take(&mut self.within);
        // What is wrong with a descriptor was told before.
        let (Ok(located), Ok(raw)) = (self.fs.group(group), self.fs.raw_group(group)) else {
            return Ok(self.behind_group());
        };
        let count = superblock.inodes_per_group.saturating_sub(unused_inodes(superblock, &raw));
        if count == 0 {
            return Ok(self.behind_group());
        }
        if begin == 0 {
            // Where tables lie one upon the other, which is told, each of their blocks is looked at once.
            let blocks = superblock.table_blocks();
            if self.overlapping && self.scanned.mark_blocks(located.inode_table, blocks)?.is_some() {
                return Ok(self.behind_group());
            }
            self.inodes.make_room(group, count)?;
        }

        let size = superblock.block_size;
        let mut block = vec![0; size.length()];
        let per_block = size.bytes().checked_div(superblock.inode_size.into()).unwrap_or(1).max(1);
        for index in begin..count.div_ceil(per_block) {
            if self.budget == 0 {
                self.within = index;
                return Ok(false);
            }
            self.spend(per_block.into());
            let number = located.inode_table.0.saturating_add(index.into());
            let offset = size.byte_offset(crate::ext4::BlockNumber(number)).ok_or(Error::Invalid)?;
            self.fs.device().read_at(offset.0, &mut block)?;
            let first = index.saturating_mul(per_block);
            let within = first..first.saturating_add(per_block).min(count);
            for (within, bytes) in within.zip(block.chunks_exact(usize_from(superblock.inode_size.into()))) {
                if let Some(number) = InodeNumber::new(self.inodes.number(group, within)) {
                    self.inode(number, bytes)?;
                }
            }
        }
        Ok(self.behind_group())
    }

    /// Goes on to the next group. The stage is not over by that.
    fn behind_group(&mut self) -> bool {
        self.at = self.at.saturating_add(1);
        false
    }

    /// The bytes of an inode in its table.
    pub(super) fn inode_bytes(&self, number: InodeNumber) -> Result<Vec<u8>> {
        let superblock = self.fs.superblock();
        let broken = Error::corrupt(Rule::InodeNumber, Place::Inode(number.value()));
        let index = number.value().saturating_sub(1);
        let group = index.checked_div(superblock.inodes_per_group).ok_or(broken)?;
        let within = index.checked_rem(superblock.inodes_per_group).ok_or(broken)?;
        let table = self.fs.group(GroupNumber(group))?.inode_table;
        let offset = crate::ext4::group::inode_offset(superblock, table, within).ok_or(broken)?;
        let mut bytes = vec![0; superblock.inode_size.into()];
        self.fs.device().read_at(offset.0, &mut bytes)?;
        Ok(bytes)
    }
}
