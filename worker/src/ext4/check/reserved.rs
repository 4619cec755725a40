//! The inodes that the file system keeps for itself: each for one thing, and empty if that thing is not there.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::{Compat, RoCompat};

use super::Check;
use super::inodes::Role;
use crate::error::{Error, Result};
use crate::ext4::format;
use crate::ext4::group;
use crate::ext4::units::{BlockNumber, GroupNumber, InodeNumber, usize_from};
use crate::ext4::{FileKind, Inode};

/// What an inode is reserved for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Office {
    /// Nothing.
    None,
    Root,
    BadBlocks,
    Journal,
    Quota,
    BootLoader,
    Resize,
    Orphans,
    /// Something that no file system has.
    Other,
}

impl Check<'_> {
    pub(super) fn office(&self, number: InodeNumber) -> Office {
        let superblock = self.fs.superblock();
        let value = number.value();
        match value {
            1 => return Office::BadBlocks,
            2 => return Office::Root,
            _ => (),
        }
        let orphans = superblock.compat.contains(Compat::ORPHAN_FILE) && value == self.raw.s_orphan_file_inum.get();
        let project = superblock.ro_compat.contains(RoCompat::QUOTA) && value == self.raw.s_prj_quota_inum.get();
        if orphans {
            Office::Orphans
        } else if project {
            Office::Quota
        } else if value >= superblock.first_inode {
            Office::None
        } else {
            match value {
                3 | 4 => Office::Quota,
                5 => Office::BootLoader,
                7 => Office::Resize,
                8 => Office::Journal,
                _ => Office::Other,
            }
        }
    }

    pub(super) fn reserved_inode(
        &mut self,
        number: InodeNumber,
        office: Office,
        raw: &format::Inode,
        bytes: &[u8],
    ) -> Result<()> {
        self.see(number, raw, 0, Role::Nameless);
        let superblock = self.fs.superblock();
        let place = Place::Inode(number.value());
        let is_file = raw.i_mode.get() & 0o170_000 == FileKind::Regular.bits();
        // Only the inode for resizing has to be without any pointer.
        let pointers = if office == Office::Resize { &raw.i_block[..] } else { &raw.i_block[..4] };
        let is_empty =
            raw.i_links_count.get() == 0 && raw.i_blocks_lo.get() == 0 && pointers.iter().all(|&byte| byte == 0);
        let number_is = |stored: u32| stored == number.value();
        let in_service = match office {
            Office::Journal => {
                superblock.compat.contains(Compat::HAS_JOURNAL) && number_is(self.raw.s_journal_inum.get())
            }
            Office::Quota => {
                let [user, of_group, project] =
                    [self.raw.s_usr_quota_inum, self.raw.s_grp_quota_inum, self.raw.s_prj_quota_inum];
                superblock.ro_compat.contains(RoCompat::QUOTA)
                    && [user, of_group, project].iter().any(|stored| number_is(stored.get()))
            }
            Office::Resize => superblock.compat.contains(Compat::RESIZE_INODE),
            Office::Orphans => true,
            _ => false,
        };
        let sound = match office {
            _ if in_service => is_file,
            Office::BadBlocks => {
                let fields = [raw.i_mode, raw.i_uid, raw.i_gid, raw.i_links_count];
                fields.iter().all(|field| field.get() == 0) && raw.i_file_acl_lo.get() == 0
            }
            Office::BootLoader => raw.i_mode.get() & 0o170_000 != FileKind::Directory.bits(),
            Office::Other => raw.i_mode.get() == 0,
            _ => is_empty,
        };
        self.findings.hold(sound, Rule::ReservedInode, place);
        if !bytes.iter().all(|&byte| byte == 0) {
            self.checksum(number, bytes)?;
        }
        if !in_service && office != Office::BadBlocks {
            return Ok(());
        }
        let inode = match self.fs.inode_of(number, bytes, false) {
            Ok(inode) => inode,
            // The list of bad blocks has no mode, and is nearly always empty.
            Err(Error::Corrupt(_)) if office == Office::BadBlocks => {
                for &block in raw.i_block.as_chunks::<4>().0 {
                    let block = BlockNumber(u32::from_le_bytes(block).into());
                    if block.0 == 0 {
                        continue;
                    }
                    let inside = block.0 >= superblock.first_data_block.0 && block.0 < superblock.blocks;
                    self.findings.hold(inside, Rule::BlockInFileSystem, place);
                    if inside {
                        self.clusters.mark_blocks(block, 1)?;
                    }
                }
                return Ok(());
            }
            // A wrong checksum was told.
            Err(Error::Checksum(_)) => return Ok(()),
            Err(error) => return self.keep(error),
        };
        match office {
            Office::Resize => self.resize_inode(&inode, raw),
            Office::Orphans => {
                self.orphan_file(&inode)?;
                self.contents(&inode, raw, false)
            }
            _ => self.contents(&inode, raw, false),
        }
    }

    /// The inode for resizing has one doubly indirect block, and behind it, by their place among the descriptors, the
    /// blocks that are reserved for more of them, each listing its copies in the other groups.
    fn resize_inode(&mut self, inode: &Inode, raw: &format::Inode) -> Result<()> {
        let superblock = self.fs.superblock();
        let place = Place::Inode(inode.number.value());
        let pointers = raw.i_block.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes));
        let others = pointers.clone().enumerate().any(|(index, pointer)| index != 13 && pointer != 0);
        let double = BlockNumber(pointers.clone().nth(13).unwrap_or(0).into());
        let inside = double.0 > superblock.first_data_block.0 && double.0 < superblock.blocks;
        if others || !inside || inode.links == 0 {
            self.findings.damage(Rule::ResizeInode, place);
            return Ok(());
        }
        if self.clusters.mark_blocks(double, 1)?.is_some() {
            self.findings.damage(Rule::BlockOnce, Place::Claim { inode: inode.number.value(), block: double.0 });
        }
        let pointers = self.pointers(double)?;
        let copies = self.copies_of_superblock(pointers.len());
        let base = superblock.location.0.saturating_add(1);
        let (reserved, first) = (superblock.reserved_descriptor_blocks, superblock.descriptor_blocks());
        let mut at = usize_from(first).checked_rem(pointers.len()).unwrap_or(0);
        for index in 0..u32::from(reserved) {
            let expected = base.saturating_add(first.into()).saturating_add(index.into());
            let sound = pointers.get(at).is_some_and(|&pointer| u64::from(pointer) == expected)
                && self.lists_copies(BlockNumber(expected), &copies)?;
            if !sound {
                self.findings.damage(Rule::ResizeInode, place);
                return Ok(());
            }
            at = at.saturating_add(1);
            if at >= pointers.len() {
                at = 0;
            }
        }
        Ok(())
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
