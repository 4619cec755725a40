//! The bitmaps and the counts of each group, against what was seen in use.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::RoCompat;

use super::Check;
use super::clusters::ones;
use super::groups::{BLOCKS_UNINIT, INODES_UNINIT, has_flag, used_directories};
use super::inodes::Role;
use crate::error::{Error, Result};
use crate::ext4::checksum::crc32c;
use crate::ext4::format;
use crate::ext4::group::Located;
use crate::ext4::units::{BlockNumber, GroupNumber, u64_from, usize_from};

impl Check<'_> {
    /// One group. Gives whether the stage is over.
    pub(super) fn bitmaps(&mut self) -> Result<bool> {
        let superblock = self.fs.superblock();
        let Some(group) = u32::try_from(self.at).ok().filter(|&group| group < superblock.groups) else {
            return Ok(true);
        };
        self.at = self.at.saturating_add(1);
        self.spend(u64::from(superblock.block_size.bytes() >> 6));
        let group = GroupNumber(group);
        let used = self.clusters.count(self.clusters.of_group(group));
        let blocks = used.saturating_mul(self.clusters.ratio());
        self.findings.counts.blocks = self.findings.counts.blocks.saturating_add(blocks);
        // What is wrong with a descriptor was told before.
        if let (Ok(_), Ok((mut raw, matches))) = (self.fs.group(group), self.fs.stored_group(group)) {
            if !matches {
                // That a bitmap was never written is believed of a descriptor that matches its checksum.
                raw.bg_flags.set(raw.bg_flags.get() & !(BLOCKS_UNINIT | INODES_UNINIT));
            }
            self.block_bitmap(group, &raw, used)?;
            self.inode_bitmap(group, &raw)?;
        }
        Ok(false)
    }

    fn block_bitmap(&mut self, group: GroupNumber, raw: &format::GroupDescriptor, used: u64) -> Result<()> {
        let superblock = self.fs.superblock();
        let place = Place::Bitmap { group: group.0, first: 0 };
        let located = Located::of(superblock, raw);
        let range = self.clusters.of_group(group);
        let count = range.end.saturating_sub(range.start);
        let free = count.saturating_sub(used);
        self.findings.hold(located.free_blocks == free, Rule::FreeBlocks, Place::GroupDescriptor(group.0));
        if has_flag(self.fs, raw, BLOCKS_UNINIT) {
            // It stands for the file system's own blocks and nothing else.
            let own = self.own_clusters.get(usize_from(group.0)).copied().unwrap_or(0);
            self.findings.hold(used == u64::from(own), Rule::BlockBitmap, place);
            return Ok(());
        }
        let mut bitmap = self.bitmap(located.block_bitmap)?;
        let mut at = range.start;
        for stored in &mut bitmap {
            let Some(left) = range.end.checked_sub(at).filter(|&left| left > 0) else { break };
            *stored |= self.implied.eight(at) & ones(left.min(8));
            let stored = *stored;
            let wrong = (stored ^ self.clusters.eight(at)) & ones(left.min(8));
            if wrong != 0 {
                let first = self.clusters.block(at.saturating_add(wrong.trailing_zeros().into()));
                self.findings.damage(Rule::BlockBitmap, Place::Bitmap { group: group.0, first });
                break;
            }
            at = at.saturating_add(8);
        }
        self.findings.hold(is_padded(&bitmap, count), Rule::BitmapPadding, place);
        let sum =
            number(superblock.descriptor_size, raw.bg_block_bitmap_csum_lo.get(), raw.bg_block_bitmap_csum_hi.get());
        self.checksum_of(&bitmap, self.clusters.per_group(), sum, Rule::BlockBitmapChecksum, group);
        Ok(())
    }

    fn inode_bitmap(&mut self, group: GroupNumber, raw: &format::GroupDescriptor) -> Result<()> {
        let superblock = self.fs.superblock();
        let located = Located::of(superblock, raw);
        let seen = self.inodes.of_group(group);
        let used = u64_from(seen.iter().filter(|seen| seen.role != Role::Free).count());
        // The first inodes are in use, whatever they hold.
        let reserved = if group.0 == 0 { superblock.first_inode.saturating_sub(1) } else { 0 };
        let in_use =
            |index: u32| index < reserved || seen.get(usize_from(index)).is_some_and(|seen| seen.role != Role::Free);
        let unseen = u64_from(
            (0..reserved)
                .filter(|&index| seen.get(usize_from(index)).is_none_or(|seen| seen.role == Role::Free))
                .count(),
        );
        let used = used.saturating_add(unseen);
        let per_group = superblock.inodes_per_group;
        let (place, descriptor) = (Place::Bitmap { group: group.0, first: 0 }, Place::GroupDescriptor(group.0));

        let free = u64::from(per_group).saturating_sub(used) == located.free_inodes;
        let directories = self.group_directories.get(usize_from(group.0)).copied().unwrap_or(0);
        let counted = directories == used_directories(superblock, raw);
        let mut wrong = None;
        let uninit = has_flag(self.fs, raw, INODES_UNINIT);
        let mut bitmap = Vec::new();
        if uninit {
            wrong = (used > 0).then_some(0);
        } else {
            bitmap = self.bitmap(located.inode_bitmap)?;
            for (index, &stored) in (0..per_group).step_by(8).zip(&bitmap) {
                let bits = (0..8).filter(|&bit| in_use(index.saturating_add(bit)));
                let expected = bits.fold(0_u8, |bits, bit| bits | 1_u8.wrapping_shl(bit));
                let different = (stored ^ expected) & ones(u64::from(per_group.saturating_sub(index)).min(8));
                if different != 0 {
                    wrong = Some(self.inodes.number(group, index.saturating_add(different.trailing_zeros())));
                    break;
                }
            }
        }
        self.findings.hold(free, Rule::FreeInodes, descriptor);
        self.findings.hold(counted, Rule::UsedDirectories, descriptor);
        if let Some(first) = wrong {
            self.findings.damage(Rule::InodeBitmap, Place::Bitmap { group: group.0, first: first.into() });
        }
        if !uninit {
            self.findings.hold(is_padded(&bitmap, per_group.into()), Rule::BitmapPadding, place);
            let sum = number(
                superblock.descriptor_size,
                raw.bg_inode_bitmap_csum_lo.get(),
                raw.bg_inode_bitmap_csum_hi.get(),
            );
            self.checksum_of(&bitmap, per_group.into(), sum, Rule::InodeBitmapChecksum, group);
        }
        Ok(())
    }

    fn bitmap(&self, block: u64) -> Result<Vec<u8>> {
        let size = self.fs.superblock().block_size;
        let mut bytes = vec![0; size.length()];
        let offset = size.byte_offset(BlockNumber(block)).ok_or(Error::Invalid)?;
        self.fs.device().read_at(offset.0, &mut bytes)?;
        Ok(bytes)
    }

    /// The checksum of the bits that a whole group has.
    fn checksum_of(&mut self, bitmap: &[u8], bits: u64, stored: u32, rule: Rule, group: GroupNumber) {
        if !self.fs.superblock().ro_compat.contains(RoCompat::METADATA_CSUM) {
            return;
        }
        let covered = usize::try_from(bits >> 3).ok().and_then(|length| bitmap.get(..length)).unwrap_or(bitmap);
        let crc = crc32c(self.fs.verifier().seed(), covered);
        let mask = if self.fs.superblock().descriptor_size >= 64 { u32::MAX } else { 0xffff };
        self.findings.hold(crc & mask == stored, rule, Place::Bitmap { group: group.0, first: 0 });
    }
}

fn number(descriptor_size: u16, low: u16, high: u16) -> u32 {
    let high = if descriptor_size >= 64 { u32::from(high) << 16 } else { 0 };
    high | u32::from(low)
}

/// Whether everything behind so many bits is ones.
fn is_padded(bitmap: &[u8], bits: u64) -> bool {
    let whole = usize::try_from(bits >> 3).unwrap_or(usize::MAX);
    let rest = bitmap.get(whole..).unwrap_or_default();
    let Some((first, behind)) = rest.split_first() else { return true };
    first | ones(bits & 7) == 0xff && behind.iter().all(|&byte| byte == 0xff)
}
