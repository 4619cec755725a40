//! The extended attributes of an inode: those in its body are looked at here, its block is remembered.

use lazaret_policy::corruption::{Place, Rule};
use lazaret_policy::feature::{Compat, Incompat};

use super::blocks::clusters_for;
use super::{Check, push};
use crate::error::{Error, Result};
use crate::ext4::units::usize_from;
use crate::ext4::xattr_entry::{Entry, Value};
use crate::ext4::{Inode, InodeFlags, acl};

/// What the attributes of an inode take: clusters, for a block of them and for values that have an inode each, and these
/// inodes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attributes {
    pub(super) clusters: u64,
    pub(super) inodes: u64,
}

impl Attributes {
    /// A value of so many bytes in an inode.
    fn add(&mut self, clusters: u64) {
        self.clusters = self.clusters.saturating_add(clusters);
        self.inodes = self.inodes.saturating_add(1);
    }
}

impl Check<'_> {
    /// Checks the attributes in an inode's body. Gives what all of its attributes take.
    pub(super) fn attributes(&mut self, inode: &Inode) -> Result<Attributes> {
        let mut taken = match self.fs.inner_laid_out(inode) {
            Ok(entries) => self.entries(inode, &entries, false)?,
            Err(error) => {
                self.keep(error)?;
                Attributes::default()
            }
        };
        let Some(block) = inode.attribute_block else { return Ok(taken) };
        let place = Place::Inode(inode.number.value());
        if !self.fs.superblock().compat.contains(Compat::EXT_ATTR) {
            self.findings.damage(Rule::XattrHeader, place);
            return Ok(taken);
        }
        push(&mut self.attribute_blocks, (block.0, inode.number.value()))?;
        taken.clusters = taken.clusters.saturating_add(1);
        if self.fs.superblock().incompat.contains(Incompat::EA_INODE) {
            // What is wrong with the block is told once, with the block.
            if let Ok(Some(block)) = self.fs.attribute_block(inode)
                && let Ok(entries) = self.fs.outer_laid_out(inode, &block)
            {
                for entry in entries {
                    if let Value::Inode { size, .. } = entry.value {
                        taken.add(clusters_for(self.fs, usize_from(size)));
                    }
                }
            }
        }
        Ok(taken)
    }

    /// Checks entries, in the body of an inode or in a block. Gives what the values take that have an inode.
    pub(super) fn entries(&mut self, inode: &Inode, entries: &[Entry<'_>], in_block: bool) -> Result<Attributes> {
        let place = Place::Inode(inode.number.value());
        let mut taken = Attributes::default();
        for entry in entries {
            // What a name may be concerns those who read it: e2fsck takes any, and so did kernels. In a block it has to be of
            // some kind.
            if in_block && entry.is_of_no_kind() {
                self.findings.damage(Rule::XattrName, place);
            } else if entry.is_of_no_kind() || !entry.has_sound_name() {
                self.findings.notice(Rule::XattrName, place);
            }
            match entry.value {
                Value::Here(value) => {
                    // Whoever reads a list has to reject it; e2fsck takes any.
                    if let (true, Err(rule)) = (entry.is_acl(), acl::decode(value)) {
                        self.findings.notice(rule, place);
                    }
                    let inside = !in_block || entry.begin <= self.fs.superblock().block_size.length();
                    self.findings.hold(inside, Rule::XattrValue, place);
                    // In the body of an inode the hash may be left out.
                    let sound = (!in_block && entry.hash == 0) || entry.has_own_hash();
                    self.findings.hold(sound, Rule::XattrValueHash, place);
                }
                Value::Inode { number, size } => {
                    push(&mut self.value_inodes, number.value())?;
                    taken.add(clusters_for(self.fs, usize_from(size)));
                    self.values.spend(size.into())?;
                    match self.fs.value(inode, entry) {
                        // The data alone is another: e2fsck looks at no data, and holds only the hashes to each other.
                        Err(Error::Checksum(found))
                            if found.rule == Rule::XattrHash
                                && self.fs.stated_hash(number).is_ok_and(|hash| entry.has_hash_of(hash)) =>
                        {
                            self.findings.notice(found.rule, found.place);
                        }
                        // Told with the value's own attributes.
                        Err(Error::Corrupt(found))
                            if found.rule == Rule::XattrInode
                                && number != inode.number
                                && self.fs.is_value_with_attributes(number) => {}
                        Err(error) => self.keep(error)?,
                        Ok(_) => (),
                    }
                }
            }
        }
        if !entries.is_empty() && inode.flags.contains(InodeFlags::EA_INODE) {
            // A reader refuses such a value, and e2fsck lets it stand.
            self.findings.notice(Rule::XattrInode, place);
        }
        Ok(taken)
    }
}
