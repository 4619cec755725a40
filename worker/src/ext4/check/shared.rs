//! Blocks of attributes, which inodes may share: each is looked at once, and counts the inodes that have it. And inodes
//! that hold a value, which count the attributes that name them.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::RoCompat;
use zerocopy::FromBytes;

use super::Check;
use super::inodes::Role;
use crate::error::Result;
use crate::ext4::format;
use crate::ext4::inode;
use crate::ext4::units::{BlockNumber, InodeNumber, u64_from};

impl Check<'_> {
    /// All of them. Gives whether the stage is over.
    pub(super) fn shared(&mut self) -> Result<bool> {
        let mut blocks = std::mem::take(&mut self.attribute_blocks);
        blocks.sort_unstable();
        for sharers in blocks.chunk_by(|(one, _), (other, _)| one == other) {
            if let Some(&(block, inode)) = sharers.first() {
                self.block(block, inode, u64_from(sharers.len()))?;
            }
            self.spend(1);
        }
        self.values()?;
        let flagged = self.fs.superblock().ro_compat.contains(RoCompat::LARGE_FILE);
        self.findings.hold(flagged || !self.large, Rule::LargeFile, Place::Superblock);
        Ok(true)
    }

    /// A block that so many inodes have, one of which is this.
    fn block(&mut self, number: u64, inode: u32, sharers: u64) -> Result<()> {
        let Some(inode) = InodeNumber::new(inode) else { return Ok(()) };
        let bytes = self.inode_bytes(inode)?;
        let Ok(inode) = self.fs.inode_of(inode, &bytes, false) else { return Ok(()) };
        let block = match self.fs.attribute_block(&inode) {
            Ok(Some(block)) => block,
            Ok(None) => return Ok(()),
            Err(error) => return self.keep(error),
        };
        if self.clusters.mark_blocks(BlockNumber(number), 1)?.is_some() {
            self.findings.damage(Rule::BlockOnce, Place::Claim { inode: inode.number.value(), block: number });
        }
        let place = Place::XattrBlock { inode: inode.number.value(), block: number };
        let counted = format::XattrHeader::ref_from_prefix(&block).map_or(0, |(header, _)| header.h_refcount.get());
        self.findings.hold(u64::from(counted) == sharers, Rule::XattrReferences, place);
        match self.fs.outer_laid_out(&inode, &block) {
            Ok(entries) => self.entries(&inode, &entries, true).map(|_| ()),
            Err(error) => self.keep(error),
        }
    }

    /// An inode for a value counts the attributes that have it where others keep a time and a version.
    fn values(&mut self) -> Result<()> {
        let mut values = std::mem::take(&mut self.value_inodes);
        values.sort_unstable();
        for names in values.chunk_by(|one, other| one == other) {
            let Some(number) = names.first().copied().and_then(InodeNumber::new) else { continue };
            let Some(seen) = self.inodes.find(number) else { continue };
            // The attributes stand for the one name that it has.
            seen.named = seen.named.saturating_add(1);
            if matches!(seen.role, Role::File | Role::Flagged) {
                seen.role = Role::Value;
            }
            let raw = inode::raw(&self.inode_bytes(number)?);
            let counted = u64::from(raw.i_ctime.get()) << 32 | u64::from(raw.i_version.get());
            let sound = counted == u64_from(names.len());
            self.findings.hold(sound, Rule::XattrInodeReferences, Place::Inode(number.value()));
            self.spend(1);
        }
        Ok(())
    }
}
