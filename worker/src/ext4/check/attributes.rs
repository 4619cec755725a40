//! The extended attributes of an inode: those in its body are looked at here, its block is remembered.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::{Compat, Incompat};

use super::blocks::clusters_for;
use super::{Check, push};
use crate::error::Result;
use crate::ext4::units::usize_from;
use crate::ext4::xattr_entry::{Entry, Value};
use crate::ext4::{Inode, InodeFlags};

impl Check<'_> {
    /// Gives how many clusters the attributes count for: a block of them, and values that have an inode each.
    pub(super) fn attributes(&mut self, inode: &Inode) -> Result<u64> {
        let mut clusters = match self.fs.inner_attributes(inode) {
            Ok(entries) => self.entries(inode, &entries, false)?,
            Err(error) => {
                self.keep(error)?;
                0
            }
        };
        let Some(block) = inode.attribute_block else { return Ok(clusters) };
        let place = Place::Inode(inode.number.value());
        if !self.fs.superblock().compat.contains(Compat::EXT_ATTR) {
            self.findings.damage(Rule::XattrHeader, place);
            return Ok(clusters);
        }
        push(&mut self.attribute_blocks, (block.0, inode.number.value()))?;
        clusters = clusters.saturating_add(1);
        if self.fs.superblock().incompat.contains(Incompat::EA_INODE) {
            // What is wrong with the block is told once, with the block.
            if let Ok(Some(block)) = self.fs.attribute_block(inode)
                && let Ok(entries) = self.fs.outer_attributes(inode, &block)
            {
                let values = entries.iter().filter_map(|entry| match entry.value {
                    Value::Inode { size, .. } => Some(clusters_for(self.fs, usize_from(size))),
                    Value::Here(_) => None,
                });
                clusters = values.fold(clusters, u64::saturating_add);
            }
        }
        Ok(clusters)
    }

    /// Checks entries, in the body of an inode or in a block. Gives the clusters of the values that have an inode.
    pub(super) fn entries(&mut self, inode: &Inode, entries: &[Entry<'_>], in_block: bool) -> Result<u64> {
        let place = Place::Inode(inode.number.value());
        let mut clusters = 0_u64;
        for entry in entries {
            self.findings.hold(!entry.is_of_no_kind(), Rule::XattrName, place);
            match entry.value {
                Value::Here(_) => {
                    // In the body of an inode the hash may be left out.
                    let sound = (!in_block && entry.hash == 0) || entry.has_own_hash();
                    self.findings.hold(sound, Rule::XattrValueHash, place);
                }
                Value::Inode { number, size } => {
                    push(&mut self.value_inodes, number.value())?;
                    clusters = clusters.saturating_add(clusters_for(self.fs, usize_from(size)));
                    self.values.spend(size.into())?;
                    if let Err(error) = self.fs.value(inode, entry) {
                        self.keep(error)?;
                    }
                }
            }
        }
        self.findings.hold(entries.is_empty() || !inode.flags.contains(InodeFlags::EA_INODE), Rule::XattrInode, place);
        Ok(clusters)
    }
}
